//! A message as back ends store it: in parts.

use super::StoreError;
use super::reason::corrupt;
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
