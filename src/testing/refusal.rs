//! Requests that a strict push service refuses.

use std::fmt;

use http::StatusCode;

use crate::clock::Timestamp;
use crate::subscription::{Endpoint, Origin};
use crate::vapid::VapidErrorKind;

/// A request that the push service refused, not a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(super) reason: RefusalReason,
    pub(super) status: StatusCode,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) at: Timestamp,
}

impl Refusal {
    /// Returns the reason.
    #[must_use]
    pub const fn reason(&self) -> RefusalReason {
        self.reason
    }

    /// Returns the status of the answer, in the form of the push service.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the user agent of the subscription, or `None` if no subscription ever had that path.
    #[must_use]
    pub const fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    /// Returns the origin it was sent to, if the path is known.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.endpoint.as_ref().map(Endpoint::origin)
    }

    /// Returns when it was refused.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        self.at
    }
}

/// The reason for a refusal, in the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalReason {
    /// No subscription ever had that path at that origin (RFC 8030 section 7.3).
    UnknownPath,
    /// The user agent unsubscribed, or the push service removed the subscription.
    Gone,
    /// Not a POST (RFC 8030 section 5).
    Method,
    /// `TTL` is missing, given twice, or not digits (RFC 8030 section 5.2).
    Ttl,
    /// WNS only: TTL 0 without `X-WNS-Cache-Policy: no-cache`.
    CachePolicy,
    /// `Urgency` is given twice, or none of the four (RFC 8030 section 5.3).
    Urgency,
    /// `Topic` is given twice, or not 1 to 32 base64url characters (RFC 8030 section 5.4); at Apple also if its
    /// length cannot be decoded.
    Topic,
    /// The body is longer than 4096 octets (RFC 8030 section 7.2).
    TooLarge,
    /// The body was cut off.
    BrokenBody,
    /// There is a body and not exactly `Content-Encoding: aes128gcm` (RFC 8291 section 4).
    ContentEncoding,
    /// There are no credentials, and the subscription is restricted to a key or the push service always requires one
    /// (RFC 8292 section 4.2).
    NoCredentials,
    /// The credentials are invalid, for this reason (RFC 8292 section 4.2).
    BadCredentials(VapidErrorKind),
    /// The subscription is restricted to another key (RFC 8292 section 4.2).
    KeyMismatch,
    /// The VAPID key was also used for encryption (RFC 8292 section 3.2).
    ReusedKey,
    /// The user agent could not decrypt the body. A real push service accepts such a message, and the browser drops
    /// it. Refused here, so that a test fails.
    Undecryptable,
}

impl RefusalReason {
    /// Returns the status by RFC 8030 and RFC 8292, which push services may replace by their own.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::Gone => StatusCode::GONE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoCredentials => StatusCode::UNAUTHORIZED,
            Self::BadCredentials(_) | Self::KeyMismatch => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// RFC 8292 section 4.2: 401 without credentials, 403 for invalid ones.
    pub(super) const fn of_vapid(kind: VapidErrorKind) -> Self {
        match kind {
            VapidErrorKind::NoCredentials => Self::NoCredentials,
            kind => Self::BadCredentials(kind),
        }
    }

    /// Returns a stable word for it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::UnknownPath => "unknown_path",
            Self::Gone => "gone",
            Self::Method => "method_not_allowed",
            Self::Ttl => "invalid_ttl",
            Self::CachePolicy => "invalid_cache_policy",
            Self::Urgency => "invalid_urgency",
            Self::Topic => "invalid_topic",
            Self::TooLarge => "too_large",
            Self::BrokenBody => "broken_body",
            Self::ContentEncoding => "invalid_content_encoding",
            Self::NoCredentials => "no_vapid_credentials",
            Self::BadCredentials(kind) => kind.code(),
            Self::KeyMismatch => "key_mismatch",
            Self::ReusedKey => "reused_key",
            Self::Undecryptable => "undecryptable",
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}
