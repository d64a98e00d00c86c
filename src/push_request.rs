//! A push, and the HTTP request that carries it: pure, no I/O.
//!
//! # Examples
//!
//! ```
//! use std::sync::Arc;
//! use tower_web_push::clock::{Clock, SystemClock};
//! use tower_web_push::message::Message;
//! use tower_web_push::push_request::Push;
//! use tower_web_push::subscription::Subscription;
//! use tower_web_push::vapid::{Contact, Signer, VapidKey};
//!
//! let subscription = Subscription::from_json(br#"{
//!     "endpoint": "https://updates.push.services.mozilla.com/wpush/v2/gAAAAABk",
//!     "keys": {
//!         "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
//!         "auth": "BTBZMqHH6r4Tts7J_aSIgg"
//!     }
//! }"#)?;
//! let push = Push::new(subscription, Message::new("hello"), Arc::new(VapidKey::generate()?));
//! let contact = Contact::parse("mailto:ops@example.com")?;
//! let now = SystemClock::new().now();
//!
//! let request = push.request(tower_web_push::p256::fastest(), &Signer::new(), &contact, now)?;
//! assert_eq!(request.headers()["content-encoding"], "aes128gcm");
//! assert_eq!(request.headers()["ttl"], "86400");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body::{Body, Frame, SizeHint};

use crate::clock::Timestamp;
use crate::encryption::{EncryptErrorKind, encrypt};
use crate::error::error_struct;
use crate::message::{Message, Ttl, Urgency};
use crate::p256::P256;
use crate::push_service::PushService;
use crate::subscription::Subscription;
use crate::vapid::{Contact, KeyId, Signer, VapidKey};

/// One message for one subscription, signed with the key that it was made with.
///
/// Cheap to clone: payload, endpoint and key are shared.
#[derive(Clone, Debug)]
pub struct Push {
    subscription: Subscription,
    message: Message,
    key: Arc<VapidKey>,
    ttl: Option<Ttl>,
    ttl_since: Option<Timestamp>,
    deadline: Timestamp,
    has_other_keys: bool,
    accepted_with: Option<KeyId>,
    failing_since: Option<Timestamp>,
    is_test: bool,
}

impl Push {
    /// A message for a subscription. `key` must be the one that the browser subscribed with
    /// (RFC 8292 section 4); the push service refuses any other.
    #[must_use]
    pub const fn new(subscription: Subscription, message: Message, key: Arc<VapidKey>) -> Self {
        Self {
            subscription,
            message,
            key,
            ttl: None,
            ttl_since: None,
            deadline: Timestamp::MAX,
            has_other_keys: false,
            accepted_with: None,
            failing_since: None,
            is_test: false,
        }
    }

    /// Sends this TTL instead of the message's own.
    #[must_use]
    pub const fn with_ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Counts the TTL from this moment: the request asks for what is left of it when it is made, which may be after a
    /// wait for a permit. Default: the TTL counts from the request.
    #[must_use]
    pub const fn with_ttl_since(mut self, since: Timestamp) -> Self {
        self.ttl_since = Some(since);
        self
    }

    /// No request begins at this moment or later: [`Deliver`](crate::deliver::Deliver) answers with a
    /// [`Transient`](crate::deliver::Outcome::Transient) error of the reason `deadline` instead. Default: none.
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Timestamp) -> Self {
        self.deadline = deadline;
        self
    }

    /// Whether there are other keys to try where this one is refused. An answer that may be about the key, as WNS's
    /// bare 401, is then a key mismatch; else it is a fault of the sender, and counts against its origin.
    #[must_use]
    pub const fn with_other_keys(mut self, has_other_keys: bool) -> Self {
        self.has_other_keys = has_other_keys;
        self
    }

    /// Sets the results of earlier attempts: the key with which a push for the subscription was accepted before, and when the first
    /// attempt since then failed.
    ///
    /// Only failures of subscriptions that worked until now are evidence against their push service. Default: never
    /// accepted.
    #[must_use]
    pub const fn with_history(
        mut self,
        accepted_with: Option<KeyId>,
        failing_since: Option<Timestamp>,
    ) -> Self {
        self.accepted_with = accepted_with;
        self.failing_since = failing_since;
        self
    }

    /// Marks a push that its own user causes, for example a test: it is never evidence against its push service. Default:
    /// `false`.
    #[must_use]
    pub const fn with_test(mut self, is_test: bool) -> Self {
        self.is_test = is_test;
        self
    }

    /// The values of [`with_history`](Self::with_history).
    #[must_use]
    pub const fn history(&self) -> (Option<KeyId>, Option<Timestamp>) {
        (self.accepted_with, self.failing_since)
    }

    /// The value of [`with_test`](Self::with_test).
    #[must_use]
    pub const fn is_test(&self) -> bool {
        self.is_test
    }

    /// The subscription to send to.
    #[must_use]
    pub const fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// The message.
    #[must_use]
    pub const fn message(&self) -> &Message {
        &self.message
    }

    /// The key that signs its token.
    #[must_use]
    pub const fn key(&self) -> &Arc<VapidKey> {
        &self.key
    }

    /// The TTL asked for: the one of [`with_ttl`](Self::with_ttl), else the message's.
    #[must_use]
    pub fn ttl(&self) -> Ttl {
        self.ttl.unwrap_or_else(|| self.message.ttl())
    }

    /// The TTL of a request that is made at `now`: [`ttl`](Self::ttl) less the time since
    /// [`with_ttl_since`](Self::with_ttl_since).
    #[must_use]
    pub(crate) fn ttl_at(&self, now: Timestamp) -> Ttl {
        let ttl = self.ttl();
        self.ttl_since.map_or(ttl, |since| ttl.left(since, now))
    }

    /// What [`with_deadline`](Self::with_deadline) said; [`Timestamp::MAX`] when nothing was.
    #[must_use]
    pub const fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// What [`with_other_keys`](Self::with_other_keys) said; `false` when nothing was.
    #[must_use]
    pub const fn has_other_keys(&self) -> bool {
        self.has_other_keys
    }

    /// The request of RFC 8030 section 5, for any HTTP client.
    ///
    /// Every call encrypts anew, under a fresh key pair and salt; the `Authorization` value is the
    /// signer's, shared and marked sensitive. The TTL is clamped to what the push service takes: at
    /// most [`Ttl::SAFE_MAX`], and for Apple at least one second. `Content-Length` is always there: WNS refuses chunked bodies.
    ///
    /// # Errors
    ///
    /// [`TooLarge`](PushRequestErrorKind::TooLarge), [`Signing`](PushRequestErrorKind::Signing) or
    /// [`Backend`](PushRequestErrorKind::Backend).
    ///
    /// # Panics
    ///
    /// When a token has to be signed, as [`Signer::authorization`].
    pub fn request(
        &self,
        p256: &dyn P256,
        signer: &Signer,
        contact: &Contact,
        now: Timestamp,
    ) -> Result<Request<PushBody>, PushRequestError> {
        let endpoint = self.subscription.endpoint();
        let push_service = PushService::of(endpoint);
        let authorization = signer
            .authorization(&self.key, endpoint.origin(), contact, now)
            .map_err(|error| PushRequestError::with_source(PushRequestErrorKind::Signing, error))?;
        let body = match self.message.payload() {
            None => None,
            Some(payload) => Some(
                encrypt(p256, &self.subscription, payload, self.message.padding()).map_err(
                    |error| {
                        let kind = match error.kind() {
                            EncryptErrorKind::TooLarge => PushRequestErrorKind::TooLarge,
                            _ => PushRequestErrorKind::Backend,
                        };
                        PushRequestError::with_source(kind, error)
                    },
                )?,
            ),
        };

        let mut headers = HeaderMap::with_capacity(8);
        // RFC 8292 section 3: also without a payload.
        headers.insert(AUTHORIZATION, authorization);
        let ttl = push_service.wire_ttl(self.ttl_at(now));
        headers.insert(&TTL, HeaderValue::from(ttl.as_secs()));
        let len = body.as_ref().map_or(0, Bytes::len);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
        if body.is_some() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("aes128gcm"));
            headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static("application/octet-stream"),
            );
        }
        // RFC 8030 section 5.3: nothing said means normal.
        let urgency = self.message.urgency();
        if urgency != Urgency::Normal {
            headers.insert(&URGENCY, HeaderValue::from_static(urgency.as_str()));
        }
        // A topic is base64url, always a valid value.
        if let Some(Ok(topic)) = self
            .message
            .topic()
            .map(|topic| HeaderValue::from_str(topic.as_str()))
        {
            headers.insert(&TOPIC, topic);
        }
        if push_service.wants_no_cache(ttl) {
            headers.insert(&WNS_CACHE_POLICY, HeaderValue::from_static("no-cache"));
        }

        let mut request = Request::new(PushBody(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = endpoint.uri().clone();
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// The body of a push: one buffer of known length, or nothing.
///
/// Cheap to clone; a clone starts where this one stands.
#[derive(Clone, Default)]
pub struct PushBody(Option<Bytes>);

impl PushBody {
    /// A body of these octets.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(Some(bytes.into()))
    }

    /// What is left of it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    #[cfg(feature = "client")]
    pub(crate) fn into_bytes(self) -> Bytes {
        self.0.unwrap_or_default()
    }
}

impl Body for PushBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let rest = self.get_mut().0.take().filter(|bytes| !bytes.is_empty());
        Poll::Ready(rest.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.as_bytes().is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.as_bytes().len() as u64)
    }
}

impl fmt::Debug for PushBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PushBody({} octets)", self.as_bytes().len())
    }
}

static TTL: HeaderName = HeaderName::from_static("ttl");
static URGENCY: HeaderName = HeaderName::from_static("urgency");
static TOPIC: HeaderName = HeaderName::from_static("topic");
static WNS_CACHE_POLICY: HeaderName = HeaderName::from_static("x-wns-cache-policy");

error_struct! {
    /// Why a request could not be made.
    PushRequestError, PushRequestErrorKind
}

/// What stood in the way of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PushRequestErrorKind {
    /// The payload is longer than [`Message::MAX_PAYLOAD`]: send less.
    TooLarge,
    /// The token could not be signed, for a reason other than missing randomness.
    Signing,
    /// No randomness, or the P-256 backend failed: try again later.
    Backend,
}

impl fmt::Display for PushRequestErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the payload is longer than 3993 octets",
            Self::Signing => "the VAPID token could not be signed",
            Self::Backend => "the cryptographic backend failed",
        })
    }
}

#[cfg(test)]
#[path = "push_request_tests.rs"]
mod tests;
