//! Pushes that a push service accepted and a user agent decrypted.

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
    /// Returns the push resource it was sent to.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// Returns the decrypted payload: `event.data` in a service worker. `None` for a push without a body, which is
    /// not the same as an empty payload.
    #[must_use]
    pub fn data(&self) -> Option<&Bytes> {
        self.0.data.as_ref()
    }

    /// Returns the payload as text if it is UTF-8: `event.data.text()`.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.data()?).ok()
    }

    /// Returns the payload as JSON: `event.data.json()`.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no payload or it is not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.data().map_or(&[], |data| data))
    }

    /// Returns the request's headers, including `Authorization`.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// Returns the requested TTL.
    #[must_use]
    pub fn ttl(&self) -> Ttl {
        self.0.ttl
    }

    /// Returns the urgency; `normal` if none was given.
    #[must_use]
    pub fn urgency(&self) -> Urgency {
        self.0.urgency
    }

    /// Returns the topic, as text: [`Topic`](crate::message::Topic) is stricter than RFC 8030 section 5.4.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        self.0.topic.as_deref()
    }

    /// Returns the sender's key and contact, if it sent them.
    #[must_use]
    pub fn vapid(&self) -> Option<&Verified> {
        self.0.vapid.as_ref()
    }

    /// Returns the number of octets of the body as sent, padding included.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.0.body_len
    }

    /// Returns when the push service accepted it.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.0.at
    }

    /// Whether its TTL is over at `now` (RFC 8030 section 5.2).
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
