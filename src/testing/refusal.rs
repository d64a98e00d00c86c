//! Requests that a strict push service does not take.

use std::fmt;

use http::StatusCode;

use crate::clock::Timestamp;
use crate::subscription::{Endpoint, Origin};
use crate::vapid::VapidErrorKind;

/// One request that the push service refused by itself, not by a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(super) reason: RefusalReason,
    pub(super) status: StatusCode,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) at: Timestamp,
}

impl Refusal {
    /// What was wrong.
    #[must_use]
    pub const fn reason(&self) -> RefusalReason {
        self.reason
    }

    /// What was answered, in the manner of the push service that is played.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The user agent it was meant for; `None` if no subscription ever had that path.
    #[must_use]
    pub const fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    /// The origin it was sent to, when the path is known.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.endpoint.as_ref().map(Endpoint::origin)
    }

    /// When.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        self.at
    }
}

/// What was wrong with a request, in the order in which it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalReason {
    /// No subscription ever had that path at that origin (RFC 8030 section 7.3).
    UnknownPath,
    /// The user agent unsubscribed, or the subscription was ended.
    Gone,
    /// Not a POST (RFC 8030 section 5).
    Method,
    /// `TTL` is missing, given twice, or not digits (RFC 8030 section 5.2).
    Ttl,
    /// WNS only: TTL 0 without `X-WNS-Cache-Policy: no-cache`.
    CachePolicy,
    /// `Urgency` is given twice, or none of the four (RFC 8030 section 5.3).
    Urgency,
    /// `Topic` is given twice, or not 1 to 32 base64url characters (RFC 8030 section 5.4); Apple wants
    /// a length that decodes, too.
    Topic,
    /// The body is longer than 4096 octets (RFC 8030 section 7.2).
    TooLarge,
    /// The body broke off.
    BrokenBody,
    /// There is a body and not exactly `Content-Encoding: aes128gcm` (RFC 8291 section 4).
    ContentEncoding,
    /// The subscription is restricted to a key, or the push service always asks for one, and there are no
    /// credentials (RFC 8292 section 4.2).
    NoCredentials,
    /// The credentials do not hold, and why (RFC 8292 section 4.2).
    BadCredentials(VapidErrorKind),
    /// The subscription is restricted to another key (RFC 8292 section 4.2).
    KeyMismatch,
    /// The VAPID key also served for encryption (RFC 8292 section 3.2).
    ReusedKey,
    /// The user agent could not decrypt the body. A real push service would not notice, and the message
    /// would vanish in the browser: a test should hear of it.
    Undecryptable,
}

impl RefusalReason {
    /// The status by RFC 8030 and RFC 8292, where the push service that is played has no other.
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

    /// RFC 8292 section 4.2: 401 where there are no credentials at all, 403 where they do not hold.
    pub(super) const fn of_vapid(kind: VapidErrorKind) -> Self {
        match kind {
            VapidErrorKind::NoCredentials => Self::NoCredentials,
            kind => Self::BadCredentials(kind),
        }
    }

    /// A stable word for it.
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
