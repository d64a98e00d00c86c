//! A push subscription (W3C Push API section 8) and its parts.

mod endpoint;
#[cfg(feature = "_engine")]
mod id;
mod json;
mod keys;

pub use endpoint::{Endpoint, EndpointKey, Origin};
#[cfg(feature = "_engine")]
pub use id::SubscriptionId;
pub use keys::{AuthSecret, UaPublicKey};

use std::fmt;

use crate::clock::Timestamp;
use crate::error::error_struct;

/// The address of one user agent, and the keys that messages to it are encrypted for.
///
/// The browser's `JSON.stringify(subscription)` parses straight into it, with serde or with
/// [`from_json`](Self::from_json). Both base64 alphabets and optional padding are accepted; output is unpadded
/// base64url.
///
/// # Examples
///
/// ```
/// use tower_web_push::subscription::Subscription;
///
/// let json = r#"{
///     "endpoint": "https://updates.push.services.mozilla.com/wpush/v2/gAAAAABk",
///     "expirationTime": null,
///     "keys": {
///         "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
///         "auth": "BTBZMqHH6r4Tts7J_aSIgg"
///     }
/// }"#;
/// let subscription = Subscription::from_json(json.as_bytes())?;
/// assert_eq!(subscription.endpoint().origin().as_str(), "https://updates.push.services.mozilla.com");
/// # Ok::<(), tower_web_push::subscription::SubscriptionError>(())
/// ```
///
/// # Security
///
/// The endpoint is a capability URL (RFC 8030 section 8.3): `Debug` shows its origin and a short hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    endpoint: Endpoint,
    ua_public: UaPublicKey,
    auth: AuthSecret,
    expiration_time: Option<Timestamp>,
}

impl Subscription {
    /// A subscription from parts that were parsed already.
    #[must_use]
    pub const fn new(endpoint: Endpoint, ua_public: UaPublicKey, auth: AuthSecret) -> Self {
        Self {
            endpoint,
            ua_public,
            auth,
            expiration_time: None,
        }
    }

    /// Sets the expiration time that the user agent named (`expirationTime`, milliseconds in its JSON).
    #[must_use]
    pub const fn with_expiration_time(mut self, at: Option<Timestamp>) -> Self {
        self.expiration_time = at;
        self
    }

    /// The push resource that messages are posted to (RFC 8030 section 5).
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The user agent's ECDH public key, `p256dh` in JSON (RFC 8291 section 3.1).
    #[must_use]
    pub const fn ua_public(&self) -> &UaPublicKey {
        &self.ua_public
    }

    /// The authentication secret, `auth` in JSON (RFC 8291 section 3.2).
    #[must_use]
    pub const fn auth(&self) -> &AuthSecret {
        &self.auth
    }

    /// The expiration time from the user agent; almost always `None`.
    #[must_use]
    pub const fn expiration_time(&self) -> Option<Timestamp> {
        self.expiration_time
    }

    /// Whether both hold the same `p256dh` and `auth`; the secret compares in constant time.
    #[must_use]
    pub fn same_keys(&self, other: &Self) -> bool {
        self.ua_public == other.ua_public && self.auth == other.auth
    }
}

error_struct! {
    /// The reason why a subscription, or a part of one, was refused.
    ///
    /// Neither `Display` nor `Debug` repeats the input: the endpoint and the keys are secrets.
    SubscriptionError, SubscriptionErrorKind
}

/// The part of a subscription that was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubscriptionErrorKind {
    /// Not a JSON object.
    InvalidJson,
    /// No `endpoint`.
    MissingEndpoint,
    /// `endpoint` is not a string holding an absolute http or https URL with a plain host.
    InvalidEndpoint,
    /// `endpoint` is longer than [`Endpoint::MAX_LEN`] octets.
    EndpointTooLong,
    /// No `keys`, or `p256dh` or `auth` is missing in it.
    MissingKeys,
    /// `p256dh` is not 65 octets of base64 holding an uncompressed point on P-256.
    InvalidP256dh,
    /// `auth` is not 16 octets of base64.
    InvalidAuth,
    /// `expirationTime` is neither null nor a number of milliseconds.
    InvalidExpirationTime,
    /// An id is not a UUID.
    InvalidId,
}

impl SubscriptionErrorKind {
    /// The stable word that HTTP responses carry as `code`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::MissingEndpoint => "missing_endpoint",
            Self::InvalidEndpoint => "invalid_endpoint",
            Self::EndpointTooLong => "endpoint_too_long",
            Self::MissingKeys => "missing_keys",
            Self::InvalidP256dh => "invalid_p256dh",
            Self::InvalidAuth => "invalid_auth",
            Self::InvalidExpirationTime => "invalid_expiration_time",
            Self::InvalidId => "invalid_id",
        }
    }
}

impl fmt::Display for SubscriptionErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidJson => "the subscription is not a JSON object",
            Self::MissingEndpoint => "the subscription has no endpoint",
            Self::InvalidEndpoint => {
                "the endpoint is not an absolute http or https URL with a plain host"
            }
            Self::EndpointTooLong => "the endpoint is longer than 2048 octets",
            Self::MissingKeys => "the subscription has no keys.p256dh or no keys.auth",
            Self::InvalidP256dh => {
                "keys.p256dh is not an uncompressed P-256 point of 65 octets in base64"
            }
            Self::InvalidAuth => "keys.auth is not 16 octets in base64",
            Self::InvalidExpirationTime => "expirationTime is neither null nor a number",
            Self::InvalidId => "the id is not a UUID",
        })
    }
}
