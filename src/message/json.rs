//! The serialized form of a message, for queues.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Message, Padding, Topic, Ttl, Urgency};
use crate::encoding::{base64_any, base64url};

/// Absent members have the defaults of [`Message::without_payload`]. An option of a later version is refused: without
/// it, the message would be another one.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Message", deny_unknown_fields)]
struct Wire<'a> {
    /// base64url: a payload need not be text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<Cow<'a, str>>,
    #[serde(default)]
    ttl: Ttl,
    #[serde(default)]
    urgency: Urgency,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<Cow<'a, Topic>>,
    #[serde(default)]
    padding: Padding,
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Wire {
            payload: self.payload().map(|payload| base64url(payload).into()),
            ttl: self.ttl(),
            urgency: self.urgency(),
            topic: self.topic().map(Cow::Borrowed),
            padding: self.padding(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let message = match wire.payload {
            None => Self::without_payload(),
            Some(text) => {
                let payload = base64_any(&text);
                let payload =
                    payload.ok_or_else(|| de::Error::custom("a payload that is not base64"))?;
                Self::new(payload.to_vec())
            }
        };
        let message = message
            .with_ttl(wire.ttl)
            .with_urgency(wire.urgency)
            .with_padding(wire.padding);
        Ok(match wire.topic {
            Some(topic) => message.with_topic(topic.into_owned()),
            None => message,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn through_json(message: &Message) -> Message {
        serde_json::from_slice(&serde_json::to_vec(message).unwrap()).unwrap()
    }

    #[test]
    fn a_message_comes_out_of_json_as_it_went_in() {
        let full = Message::new(vec![0, 255, b'"'])
            .with_ttl(Ttl::from_secs(60))
            .with_urgency(Urgency::High)
            .with_topic(Topic::of("orders"))
            .with_padding(Padding::Max);
        for message in [full, Message::new(""), Message::without_payload()] {
            assert_eq!(through_json(&message), message);
        }
    }

    #[test]
    fn its_json_has_these_names() {
        let message = Message::new("hello").with_topic(Topic::parse("orders").unwrap());
        let json = json!({
            "payload": "aGVsbG8", "ttl": 86400, "urgency": "normal", "topic": "orders", "padding": "256",
        });
        assert_eq!(serde_json::to_value(&message).unwrap(), json);
    }

    #[test]
    fn what_is_absent_has_its_default() {
        let message: Message = serde_json::from_value(json!({})).unwrap();
        assert_eq!(message, Message::without_payload());
    }

    #[test]
    fn what_is_wrong_is_no_message() {
        for json in [
            json!({"payload": "a"}),
            json!({"payload": 7}),
            json!({"ttl": -1}),
            json!({"urgency": "now"}),
            json!({"topic": "a b"}),
            json!({"padding": "some"}),
            json!({"payloda": "aGVsbG8"}),
        ] {
            let parsed = serde_json::from_value::<Message>(json.clone());
            assert!(parsed.is_err(), "{json}");
        }
    }
}
