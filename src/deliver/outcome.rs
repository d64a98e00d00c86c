//! The outcome of an attempt.

use crate::text::as_text;

/// The outcome of a delivery attempt, named by what the sender does next.
///
/// The names are the same in Rust, JSON, logs and a broadcast's counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The push service accepted the message (RFC 8030 section 5): it is stored or being delivered, not necessarily shown.
    Accepted,
    /// The subscription no longer exists (404, 410): retire it.
    Gone,
    /// The subscription was made with another VAPID key: try the other live keys, then the page has to subscribe again.
    KeyMismatch,
    /// The sender's token, clock or contact is wrong: raise an alarm, delete nothing.
    SenderFault,
    /// The body is larger than this push service accepts: ends this message only.
    TooLarge,
    /// The push service will never accept this request (any redirect too): ends this message only.
    BadRequest,
    /// Too many requests: wait as long as the push service asks.
    RateLimited,
    /// The network or the push service failed: try again later.
    Transient,
    /// The endpoint policy forbids sending there: ends this message, deletes nothing.
    Refused,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: &'static [Self] = &[
        Self::Accepted,
        Self::Gone,
        Self::KeyMismatch,
        Self::SenderFault,
        Self::TooLarge,
        Self::BadRequest,
        Self::RateLimited,
        Self::Transient,
        Self::Refused,
    ];

    /// The stable name, in snake case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Gone => "gone",
            Self::KeyMismatch => "key_mismatch",
            Self::SenderFault => "sender_fault",
            Self::TooLarge => "too_large",
            Self::BadRequest => "bad_request",
            Self::RateLimited => "rate_limited",
            Self::Transient => "transient",
            Self::Refused => "refused",
        }
    }

    /// Whether the same message to the same subscription can succeed later without a change by the sender or the user.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::RateLimited | Self::Transient)
    }
}

as_text!(Outcome: Display, Serialize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_own_snake_case_name() {
        let mut names: Vec<_> = Outcome::ALL
            .iter()
            .map(|outcome| outcome.as_str())
            .collect();
        assert!(
            names
                .iter()
                .all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Outcome::ALL.len());
    }

    #[test]
    fn json_uses_the_same_names() {
        for &outcome in Outcome::ALL {
            assert_eq!(
                serde_json::to_string(&outcome).unwrap(),
                format!("\"{outcome}\"")
            );
        }
    }

    #[test]
    fn only_rate_limited_and_transient_are_retried() {
        let retried: Vec<_> = Outcome::ALL
            .iter()
            .copied()
            .filter(|outcome| outcome.is_retryable())
            .collect();
        assert_eq!(retried, [Outcome::RateLimited, Outcome::Transient]);
    }
}
