//! A message and its delivery options (RFC 8030 section 5).

mod json;
mod notification;
mod padding;
mod topic;
mod ttl;
mod urgency;

pub use notification::{Action, Direction, Notification};
pub use padding::Padding;
pub use topic::Topic;
pub use ttl::Ttl;
pub use urgency::Urgency;

use std::fmt;

use bytes::Bytes;

use crate::error::error_struct;

/// A payload with delivery options for the push service.
///
/// A [`Notification`] converts into one; other payloads for a service worker are sent with [`new`](Self::new).
///
/// # Examples
///
/// ```
/// use tower_web_push::message::{Message, Topic, Ttl, Urgency};
///
/// let message = Message::new("three new orders")
///     .with_ttl(Ttl::from_secs(3600))
///     .with_urgency(Urgency::High)
///     .with_topic(Topic::of("orders"));
/// assert_eq!(message.topic().map(|topic| topic.as_str().len()), Some(32));
/// ```
///
/// It implements serde, so that a queue can carry it. The serialized form holds the payload in the clear.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    payload: Option<Bytes>,
    ttl: Ttl,
    urgency: Urgency,
    topic: Option<Topic>,
    padding: Padding,
}

impl Message {
    /// The largest payload that every push service accepts, in octets (RFC 8291 section 4): 4096 less the header
    /// (86), the delimiter (1) and the tag (16).
    pub const MAX_PAYLOAD: usize = 3993;

    /// A message with a payload, which is encrypted unchanged.
    ///
    /// Use UTF-8: Chromium passes other payloads to the page as if they were absent.
    #[must_use]
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload: Some(payload.into()),
            ..Self::without_payload()
        }
    }

    /// A message without a body: the page gets a `push` event whose `data` is null.
    #[must_use]
    pub const fn without_payload() -> Self {
        Self {
            payload: None,
            ttl: Ttl::DEFAULT,
            urgency: Urgency::Normal,
            topic: None,
            padding: Padding::DEFAULT,
        }
    }

    /// How long the push service should keep the message for a user agent that is offline.
    #[must_use]
    pub const fn with_ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = ttl;
        self
    }

    /// When a device on battery receives the message (RFC 8030 section 5.3), and its place among other messages to the same
    /// push service: see [whose turn it is](crate::guide::what_happens_to_a_message#whose-turn-it-is).
    #[must_use]
    pub const fn with_urgency(mut self, urgency: Urgency) -> Self {
        self.urgency = urgency;
        self
    }

    /// Replaces an undelivered message of the same topic. Default: no topic.
    ///
    /// For messages that make earlier ones worthless, such as a score: push services keep fewer messages with topics
    /// than without for a browser that is offline ([`Topic`]).
    #[must_use]
    pub fn with_topic(mut self, topic: Topic) -> Self {
        self.topic = Some(topic);
        self
    }

    /// How much of the payload's length is visible to the push service.
    #[must_use]
    pub const fn with_padding(mut self, padding: Padding) -> Self {
        self.padding = padding;
        self
    }

    /// The same content as another message, to be sent at another time, such as every day.
    ///
    /// The random tag of a [`Notification`] is replaced by another one: two messages with one tag would be one
    /// notification, and the later one would replace the earlier one on display without an alert. A tag of the
    /// application stays, and so does a payload of its own.
    #[must_use]
    pub fn again(self) -> Self {
        let payload = self.payload.as_deref().and_then(notification::redraw);
        self.with_other_payload(payload)
    }

    /// The same except for the random tag of a [`Notification`], which is empty: equal for equal content.
    #[cfg(feature = "_engine")]
    pub(crate) fn without_drawn_tag(&self) -> Self {
        let payload = self.payload.as_deref().and_then(notification::erase);
        self.clone().with_other_payload(payload)
    }

    fn with_other_payload(mut self, payload: Option<String>) -> Self {
        if let Some(payload) = payload {
            self.payload = Some(payload.into());
        }
        self
    }

    /// The payload before encryption; `None` for a message without a body.
    #[must_use]
    pub const fn payload(&self) -> Option<&Bytes> {
        self.payload.as_ref()
    }

    /// How long the push service should keep it.
    #[must_use]
    pub const fn ttl(&self) -> Ttl {
        self.ttl
    }

    /// How urgent it is.
    #[must_use]
    pub const fn urgency(&self) -> Urgency {
        self.urgency
    }

    /// What it replaces.
    #[must_use]
    pub const fn topic(&self) -> Option<&Topic> {
        self.topic.as_ref()
    }

    /// How it is padded.
    #[must_use]
    pub const fn padding(&self) -> Padding {
        self.padding
    }

    /// Whether the payload is longer than [`MAX_PAYLOAD`](Self::MAX_PAYLOAD).
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.payload
            .as_ref()
            .is_some_and(|payload| payload.len() > Self::MAX_PAYLOAD)
    }
}

impl fmt::Debug for Message {
    /// Shows the payload's length, never the payload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("payload_octets", &self.payload.as_ref().map(Bytes::len))
            .field("ttl", &self.ttl)
            .field("urgency", &self.urgency)
            .field("topic", &self.topic)
            .field("padding", &self.padding)
            .finish()
    }
}

error_struct! {
    /// The reason why a part of a message was refused.
    MessageError, MessageErrorKind
}

/// The part of a message that was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MessageErrorKind {
    /// Not `1*DIGIT` seconds (RFC 8030 section 5.2).
    InvalidTtl,
    /// None of very-low, low, normal, high (RFC 8030 section 5.3).
    InvalidUrgency,
    /// Not 1 to 32 base64url characters that decode (RFC 8030 section 5.4, and Apple).
    InvalidTopic,
    /// A member of a notification has the wrong type; [`MessageError::member`] says which.
    InvalidNotification,
    /// None of `none`, `max` and a block's number of octets.
    InvalidPadding,
}

impl MessageErrorKind {
    /// The stable word that HTTP responses carry as `code`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidTtl => "invalid_ttl",
            Self::InvalidUrgency => "invalid_urgency",
            Self::InvalidTopic => "invalid_topic",
            Self::InvalidNotification => "invalid_notification",
            Self::InvalidPadding => "invalid_padding",
        }
    }
}

impl fmt::Display for MessageErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidTtl => "the TTL is not a whole number of seconds",
            Self::InvalidUrgency => "the urgency is not one of very-low, low, normal and high",
            Self::InvalidTopic => {
                "the topic is not 1 to 32 base64url characters whose number modulo 4 is not 1"
            }
            Self::InvalidNotification => "a member of the notification has the wrong type",
            Self::InvalidPadding => "the padding is not `none`, `max` or a number of octets",
        })
    }
}
