//! The topic of a message, which replaces earlier ones.

use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{MessageError, MessageErrorKind};
use crate::encoding::base64url;
use crate::text::as_text;

/// A topic: a message replaces the undelivered one of the same topic (RFC 8030 section 5.4).
///
/// 1 to 32 base64url characters, by the RFC, whose number modulo 4 is not 1: Apple decodes the value and refuses
/// other lengths.
///
/// FCM keeps four different topics per subscription for a device that is offline, without a rule which, and
/// 100 messages without a topic. Mozilla delivers messages with topics after those without, in the order of the
/// topics. So no message has a topic unless it was given one.
///
/// # Security
///
/// The push service sees topics. [`Topic::of`] hashes, so that they carry no meaning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// The longest topic, in characters.
    pub const MAX_LEN: usize = 32;

    /// A topic that is safe on every push service, for any text or octets: the first 32 characters of the
    /// base64url SHA-256.
    #[must_use]
    pub fn of(name: impl AsRef<[u8]>) -> Self {
        let digest: [u8; 32] = Sha256::digest(name.as_ref()).into();
        // 24 octets are 32 characters.
        let mut head = [0; 24];
        head.iter_mut()
            .zip(digest)
            .for_each(|(to, from)| *to = from);
        Self(base64url(&head).into())
    }

    /// Parses a topic.
    ///
    /// # Errors
    ///
    /// [`InvalidTopic`](MessageErrorKind::InvalidTopic) for any that some push service refuses.
    pub fn parse(text: &str) -> Result<Self, MessageError> {
        let base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty()
            || text.len() > Self::MAX_LEN
            || text.len() % 4 == 1
            || !text.bytes().all(base64url)
        {
            return Err(MessageErrorKind::InvalidTopic.into());
        }
        Ok(Self(text.into()))
    }

    /// The header's value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

as_text!(Topic: Display, Serialize, Deserialize);

impl FromStr for Topic {
    type Err = MessageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_of_any_text_is_valid_and_stable() {
        for text in ["", "orders", "Grüße 👋", &"x".repeat(9999)] {
            let topic = Topic::of(text);
            assert_eq!(topic.as_str().len(), 32);
            assert_eq!(Topic::parse(topic.as_str()).unwrap(), topic);
        }
        assert_eq!(Topic::of("orders"), Topic::of("orders"));
        assert_ne!(Topic::of("orders"), Topic::of("order"));
    }

    #[test]
    fn lengths_that_apple_cannot_decode_are_refused() {
        for len in 0..40 {
            let valid = (1..=32).contains(&len) && len % 4 != 1;
            assert_eq!(Topic::parse(&"a".repeat(len)).is_ok(), valid, "{len}");
        }
    }

    #[test]
    fn other_characters_are_refused() {
        for text in ["a b", "ab=", "a+b", "a/b", "ä1"] {
            assert!(Topic::parse(text).is_err(), "{text}");
        }
    }
}
