//! A message to an audience, its state and its counts.

mod audience;
#[cfg(feature = "opentelemetry")]
mod current_span;
mod json;
mod outbox;
mod status;
mod trace_parent;

pub use audience::{Audience, Principal, Tag, TagError};
#[cfg(feature = "api")]
pub(crate) use json::{InvalidMember, Refusal, check_names};
pub use outbox::{OutboxDialect, OutboxStatement};
pub use status::{
    BroadcastId, BroadcastIdError, BroadcastState, BroadcastStatus, Counts, FinalOutcome,
};
pub use trace_parent::{TraceParent, TraceParentError};

use std::num::NonZeroU32;

use sha2::{Digest as _, Sha256};

use crate::clock::Timestamp;
use crate::message::Message;

/// A message with its audience, its time and its idempotency key: for
/// [`WebPush::enqueue_broadcast`](crate::WebPush::enqueue_broadcast).
///
/// # Examples
///
/// ```
/// use tower_web_push::broadcast::{Audience, Broadcast, Tag};
/// use tower_web_push::Notification;
///
/// # fn example(tomorrow: tower_web_push::clock::Timestamp) -> Result<(), Box<dyn std::error::Error>> {
/// let news = Audience::Tag(Tag::parse("news")?);
/// let issue = Broadcast::to(news, Notification::new("Issue 42 is out"))
///     .at(tomorrow)
///     .idempotency_key("issue-42");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a broadcast does nothing until it is enqueued"]
pub struct Broadcast {
    pub(crate) audience: Audience,
    pub(crate) message: Message,
    pub(crate) send_at: Option<Timestamp>,
    pub(crate) pace: Option<NonZeroU32>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) trace_parent: Option<TraceParent>,
    /// The fingerprint of a repetition, if that is not of the broadcast's own content.
    pub(crate) fingerprint: Option<[u8; 32]>,
    /// Whether its status is not needed.
    pub(crate) forget_when_over: bool,
}

impl Broadcast {
    /// The longest idempotency key, in characters.
    const MAX_IDEMPOTENCY_KEY: usize = 255;

    /// A message to an audience, to be sent at once.
    pub fn to(audience: impl Into<Audience>, message: impl Into<Message>) -> Self {
        Self {
            audience: audience.into(),
            message: message.into(),
            send_at: None,
            pace: None,
            idempotency_key: None,
            trace_parent: None,
            fingerprint: None,
            forget_when_over: false,
        }
    }

    /// Sets when to send it: at most 30 days ahead. The audience is resolved at that moment, and the TTL counts from
    /// it.
    pub const fn at(mut self, moment: Timestamp) -> Self {
        self.send_at = Some(moment);
        self
    }

    /// Sets the most recipients per second, for example so that a shop's site survives its own campaign.
    ///
    /// It is the rate at which recipients become due: of all push services together, whatever the number of processes,
    /// and without credit for time in which nothing was sent. They may be sent later, but not earlier: retries, and
    /// recipients that waited for a push service, come in addition. Recipients that are not due when the
    /// [TTL](crate::message::Ttl) ends expire, so it has to be long enough for all of them. Without a pace all
    /// recipients are due at once.
    pub const fn pace(mut self, per_second: NonZeroU32) -> Self {
        self.pace = Some(per_second);
        self
    }

    /// Sets a key that makes repeated calls one call, kept as long as the broadcast: 7 days after its end.
    ///
    /// A broadcast with a known key is not sent again if audience, message, time and pace are the same
    /// ([`Queued::is_repeat`](crate::engine::Queued::is_repeat)), and is refused if they are not. The random tag that a
    /// [`Notification`](crate::Notification) draws is not compared. A key is 1 to 255 visible ASCII characters.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// Sets the span that it comes from. The spans of its pages, claims and attempts link to it (features `tracing` and
    /// `opentelemetry`); it is stored with the broadcast, changes nothing else and is no part of what a repetition has in common.
    ///
    /// Without this it is the current OpenTelemetry span, if the feature `opentelemetry` is on and there is one.
    pub const fn trace_parent(mut self, parent: TraceParent) -> Self {
        self.trace_parent = Some(parent);
        self
    }

    /// The span that it comes from: what was [given](Self::trace_parent), else the current one.
    pub(crate) fn trace_parent_or_current(&self) -> Option<TraceParent> {
        #[cfg(feature = "opentelemetry")]
        let current = TraceParent::current;
        #[cfg(not(feature = "opentelemetry"))]
        let current = || None;
        self.trace_parent.or_else(current)
    }

    /// Whether a text can be an idempotency key.
    pub(crate) fn is_idempotency_key(text: &str) -> bool {
        (1..=Self::MAX_IDEMPOTENCY_KEY).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic())
    }

    /// Returns the SHA-256 of what a repetition must have in common.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint.unwrap_or_else(|| {
            let send_at = self.send_at.map(Timestamp::as_millis);
            let content = (&self.audience, self.message.without_drawn_tag(), send_at);
            // The values have string keys only: they cannot fail to serialize.
            let mut digest =
                Sha256::new_with_prefix(serde_json::to_vec(&content).unwrap_or_default());
            if let Some(pace) = self.pace {
                digest.update(pace.get().to_be_bytes());
            }
            digest.finalize().into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Notification, Urgency};

    #[test]
    fn a_repetition_has_audience_message_time_and_pace_in_common() {
        let broadcast = || Broadcast::to(Audience::user("alice"), Notification::new("Shipped"));
        let first = broadcast();
        assert_ne!(first.message, broadcast().message, "two random tags");
        assert_eq!(first.fingerprint(), broadcast().fingerprint());
        let traced = broadcast().trace_parent(TraceParent::new([1; 16], [1; 8], true).unwrap());
        assert_eq!(first.fingerprint(), traced.fingerprint());
        let later = Timestamp::from_secs(1);
        let urgent = Message::from(Notification::new("Shipped")).with_urgency(Urgency::High);
        for other in [
            Broadcast::to(Audience::user("bob"), Notification::new("Shipped")),
            Broadcast::to(Audience::user("alice"), Notification::new("Lost")),
            Broadcast::to(
                Audience::user("alice"),
                Notification::new("Shipped").tag("7"),
            ),
            Broadcast::to(Audience::user("alice"), urgent),
            broadcast().at(later),
            broadcast().pace(NonZeroU32::MIN),
        ] {
            assert_ne!(first.fingerprint(), other.fingerprint(), "{other:?}");
        }
    }

    #[test]
    fn an_idempotency_key_is_short_visible_ascii() {
        for key in ["a-1_~!", &"k".repeat(255)] {
            assert!(Broadcast::is_idempotency_key(key), "{key}");
        }
        for key in ["", "a b", "ä", &"k".repeat(256)] {
            assert!(!Broadcast::is_idempotency_key(key), "{key}");
        }
    }
}
