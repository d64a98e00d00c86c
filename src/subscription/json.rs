//! Parsing and serializing `PushSubscriptionJSON` (W3C Push API section 8).

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use super::{
    AuthSecret, Endpoint, Subscription, SubscriptionError, SubscriptionErrorKind as Kind,
    UaPublicKey,
};
use crate::clock::Timestamp;
use crate::json::without_bom;

impl Subscription {
    /// Parses `JSON.stringify(subscription)`. Unknown members and a byte order mark are ignored.
    ///
    /// # Errors
    ///
    /// One kind for each error: see [`SubscriptionErrorKind`](Kind).
    pub fn from_json(json: &[u8]) -> Result<Self, SubscriptionError> {
        let value = serde_json::from_slice(without_bom(json))
            .map_err(|source| SubscriptionError::with_source(Kind::InvalidJson, source))?;
        Self::from_value(&value)
    }

    /// The same for parsed JSON.
    ///
    /// # Errors
    ///
    /// As [`from_json`](Self::from_json).
    pub fn from_value(value: &Value) -> Result<Self, SubscriptionError> {
        Self::from_members(value.as_object().ok_or(Kind::InvalidJson)?)
    }

    pub(crate) fn from_members(
        object: &serde_json::Map<String, Value>,
    ) -> Result<Self, SubscriptionError> {
        let endpoint = match object.get("endpoint") {
            None | Some(Value::Null) => return Err(Kind::MissingEndpoint.into()),
            Some(Value::String(url)) if url.is_empty() => return Err(Kind::MissingEndpoint.into()),
            Some(Value::String(url)) => Endpoint::parse(url)?,
            Some(_) => return Err(Kind::InvalidEndpoint.into()),
        };
        let keys = object
            .get("keys")
            .and_then(Value::as_object)
            .ok_or(Kind::MissingKeys)?;
        let ua_public = UaPublicKey::parse(key_text(keys, "p256dh", Kind::InvalidP256dh)?)?;
        let auth = AuthSecret::parse(key_text(keys, "auth", Kind::InvalidAuth)?)?;
        let expiration_time = expiration_time(object.get("expirationTime"))?;
        Ok(Self::new(endpoint, ua_public, auth).with_expiration_time(expiration_time))
    }
}

fn key_text<'a>(
    keys: &'a serde_json::Map<String, Value>,
    name: &str,
    wrong_type: Kind,
) -> Result<&'a str, SubscriptionError> {
    match keys.get(name) {
        None | Some(Value::Null) => Err(Kind::MissingKeys.into()),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(wrong_type.into()),
    }
}

/// Absent, null, an integer, or a float that is cut to whole milliseconds.
fn expiration_time(value: Option<&Value>) -> Result<Option<Timestamp>, SubscriptionError> {
    let number = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(_) => return Err(Kind::InvalidExpirationTime.into()),
    };
    let millis = match (number.as_i64(), number.as_f64()) {
        (Some(millis), _) => millis,
        // `as` saturates and cuts towards zero: an absurd date stays an absurd date.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "saturating is what is wanted"
        )]
        (None, Some(millis)) => millis as i64,
        (None, None) => return Err(Kind::InvalidExpirationTime.into()),
    };
    Ok(Some(Timestamp::from_millis(millis)))
}

impl<'de> Deserialize<'de> for Subscription {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_value(&value).map_err(de::Error::custom)
    }
}

impl Serialize for Subscription {
    /// Serializes to the browser's form, which holds the authentication secret.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Keys {
            auth: String,
            p256dh: String,
        }

        let keys = Keys {
            auth: self.auth().secret_to_base64url(),
            p256dh: self.ua_public().to_base64url(),
        };
        let mut json = serializer.serialize_struct("PushSubscriptionJSON", 3)?;
        json.serialize_field("endpoint", self.endpoint().as_str())?;
        json.serialize_field(
            "expirationTime",
            &self.expiration_time().map(Timestamp::as_millis),
        )?;
        json.serialize_field("keys", &keys)?;
        json.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const P256DH: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

    fn with(expiration: Value) -> Value {
        json!({
            "endpoint": "https://push.example.net/p/1",
            "expirationTime": expiration,
            "keys": {"p256dh": P256DH, "auth": AUTH},
        })
    }

    fn kind(value: &Value) -> Kind {
        Subscription::from_value(value).unwrap_err().kind()
    }

    #[test]
    fn expiration_time_is_absent_null_integer_or_float() {
        let at = |value| {
            Subscription::from_value(&with(value))
                .unwrap()
                .expiration_time()
        };
        assert_eq!(at(Value::Null), None);
        assert_eq!(
            at(json!(1_700_000_000_000_i64)),
            Some(Timestamp::from_secs(1_700_000_000))
        );
        assert_eq!(
            at(json!(1_700_000_000_000.9)),
            Some(Timestamp::from_secs(1_700_000_000))
        );
        assert_eq!(at(json!(1e300)), Some(Timestamp::MAX));
        let mut absent = with(Value::Null);
        absent.as_object_mut().unwrap().remove("expirationTime");
        assert_eq!(
            Subscription::from_value(&absent).unwrap().expiration_time(),
            None
        );
    }

    #[test]
    fn standard_base64_with_padding_is_the_same_subscription() {
        let mut standard = with(Value::Null);
        standard["keys"] = json!({
            "p256dh": format!("{}=", P256DH.replace('-', "+").replace('_', "/")),
            "auth": format!("{}==", AUTH.replace('-', "+").replace('_', "/")),
        });
        assert_eq!(
            Subscription::from_value(&standard).unwrap(),
            Subscription::from_value(&with(Value::Null)).unwrap(),
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(
            Subscription::from_json(b"{").unwrap_err().kind(),
            Kind::InvalidJson
        );
        assert_eq!(kind(&json!([])), Kind::InvalidJson);
        assert_eq!(kind(&json!({})), Kind::MissingEndpoint);
        assert_eq!(kind(&json!({"endpoint": 7})), Kind::InvalidEndpoint);
        assert_eq!(
            kind(&json!({"endpoint": "https://a.example/"})),
            Kind::MissingKeys
        );
        let mut one = with(Value::Null);
        one["keys"]["auth"] = Value::Null;
        assert_eq!(kind(&one), Kind::MissingKeys);
        one["keys"]["auth"] = json!(["a"]);
        assert_eq!(kind(&one), Kind::InvalidAuth);
        one["keys"]["p256dh"] = json!("AAAA");
        assert_eq!(kind(&one), Kind::InvalidP256dh);
        assert_eq!(kind(&with(json!("soon"))), Kind::InvalidExpirationTime);
    }

    #[test]
    fn a_byte_order_mark_is_ignored() {
        let json = format!("\u{feff}{}", with(Value::Null));
        assert!(Subscription::from_json(json.as_bytes()).is_ok());
    }

    #[test]
    fn serialization_is_what_a_browser_writes() {
        let value = with(Value::Null);
        let subscription: Subscription = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(&subscription).unwrap(), value);
        assert_eq!(
            serde_json::to_string(&subscription).unwrap(),
            format!(
                r#"{{"endpoint":"https://push.example.net/p/1","expirationTime":null,"keys":{{"auth":"{AUTH}","p256dh":"{P256DH}"}}}}"#
            )
        );
    }
}
