//! A message as back ends store it: in parts.

use super::StoreError;
use super::reason::corrupt;
use crate::broadcast::{Audience, Principal, TraceParent};
use crate::message::{Message, Topic, Ttl};

/// The stored parts of a message.
pub(super) struct MessageParts {
    pub(super) payload: Option<Vec<u8>>,
    pub(super) ttl_secs: u64,
    pub(super) urgency: String,
    pub(super) topic: Option<String>,
    pub(super) padding: String,
}

impl MessageParts {
    pub(super) fn into_message(self) -> Result<Message, StoreError> {
        let message = self
            .payload
            .map_or_else(Message::without_payload, Message::new)
            .with_ttl(Ttl::from_secs(self.ttl_secs))
            .with_urgency(self.urgency.parse().map_err(|_| corrupt("an urgency"))?)
            .with_padding(self.padding.parse().map_err(|_| corrupt("a padding"))?);
        match self.topic {
            Some(topic) => {
                let topic = Topic::parse(&topic).map_err(|_| corrupt("a topic"))?;
                Ok(message.with_topic(topic))
            }
            None => Ok(message),
        }
    }
}

/// Reads a stored trace parent. A message whose trace is lost is sent all the same.
pub(super) fn trace_parent(text: Option<&str>) -> Option<TraceParent> {
    text.and_then(|text| TraceParent::parse(text).ok())
}

/// The user whom a message is for, if its stored audience is a user. Ids, which may be many, are not parsed: SQL need not
/// return them.
pub(super) fn only_for(audience: Option<&[u8]>) -> Result<Option<Principal>, StoreError> {
    let Some(audience) = audience.filter(|text| !text.starts_with(br#"{"ids":"#)) else {
        return Ok(None);
    };
    match serde_json::from_slice(audience) {
        Ok(Audience::User(principal)) => Ok(Some(principal)),
        Ok(Audience::All | Audience::Tag(_) | Audience::Ids(_)) => Ok(None),
        Err(_) => Err(corrupt("an audience")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscription::SubscriptionId;

    #[test]
    fn a_stored_audience_says_whom_a_message_is_for() {
        let alice = Some(Principal::from("alice"));
        for (audience, expected) in [
            (Audience::user("alice"), alice),
            (Audience::All, None),
            (Audience::id(SubscriptionId::random()), None),
        ] {
            let text = serde_json::to_string(&audience).unwrap();
            assert_eq!(only_for(Some(text.as_bytes())).unwrap(), expected);
        }
        assert_eq!(only_for(None).unwrap(), None);
        // For no user rather than for any.
        for damaged in ["", "?", r#"{"user":"#, r#"{"user":7}"#, r#"{"id":[]}"#] {
            assert!(only_for(Some(damaged.as_bytes())).is_err(), "{damaged}");
        }
    }
}
