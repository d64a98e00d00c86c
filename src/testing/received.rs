//! What a push service accepted and a user agent read.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use serde::de::DeserializeOwned;

use crate::clock::Timestamp;
use crate::message::{Ttl, Urgency};
use crate::subscription::Endpoint;
use crate::vapid::Verified;

/// One accepted push, decrypted. Cheap to clone.
#[derive(Clone)]
pub struct ReceivedPush(pub(super) Arc<Parts>);

pub(super) struct Parts {
    pub(super) endpoint: Endpoint,
    pub(super) headers: HeaderMap,
    pub(super) ttl: Ttl,
    pub(super) urgency: Urgency,
    pub(super) topic: Option<Box<str>>,
    pub(super) vapid: Option<Verified>,
    pub(super) data: Option<Bytes>,
    pub(super) body_len: usize,
    pub(super) at: Timestamp,
}

impl ReceivedPush {
    /// The push resource it was posted to.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// The decrypted payload: what a service worker finds in `event.data`. `None` for a push without a
    /// body, which is another thing than an empty payload.
    #[must_use]
    pub fn data(&self) -> Option<&Bytes> {
        self.0.data.as_ref()
    }

    /// The payload as text, where it is UTF-8: `event.data.text()`.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.data()?).ok()
    }

    /// The payload as JSON: `event.data.json()`.
    ///
    /// # Errors
    ///
    /// When there is no payload, or it is not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.data().map_or(&[], |data| data))
    }

    /// The request's headers, `Authorization` among them.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// The TTL that was asked for.
    #[must_use]
    pub fn ttl(&self) -> Ttl {
        self.0.ttl
    }

    /// The urgency, `normal` where none was given.
    #[must_use]
    pub fn urgency(&self) -> Urgency {
        self.0.urgency
    }

    /// The topic. Text, as [`Topic`](crate::message::Topic) is stricter than RFC 8030 section 5.4.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        self.0.topic.as_deref()
    }

    /// The sender's key and contact, where it showed any.
    #[must_use]
    pub fn vapid(&self) -> Option<&Verified> {
        self.0.vapid.as_ref()
    }

    /// Octets of the body as sent, padding included.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.0.body_len
    }

    /// When the push service accepted it.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.0.at
    }

    /// Whether its time to live is over at `now` (RFC 8030 section 5.2).
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.0.at + self.0.ttl.as_duration()
    }
}

impl fmt::Debug for ReceivedPush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedPush")
            .field("endpoint", self.endpoint())
            .field("data", &self.data().map(Bytes::len))
            .field("ttl", &self.ttl())
            .field("urgency", &self.urgency())
            .field("topic", &self.topic())
            .field("at", &self.at())
            .finish_non_exhaustive()
    }
}
