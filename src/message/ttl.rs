//! How long a push service keeps a message.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{MessageError, MessageErrorKind};
use crate::clock::Timestamp;

/// Time to live in whole seconds, at most 2^31 (RFC 8030 section 5.2).
///
/// 0 means: deliver now or drop. Larger numbers than 2^31 count as 2^31, as the RFC asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u32);

impl Ttl {
    /// Deliver now or drop.
    pub const ZERO: Self = Self(0);
    /// One day, the default of a message.
    pub const DEFAULT: Self = Self(86_400);
    /// 28 days, the most that every push service is known to accept. Delivery clamps to it.
    pub const SAFE_MAX: Self = Self(2_419_200);
    /// 2^31 seconds, the maximum.
    pub const MAX: Self = Self(1 << 31);

    /// A TTL in seconds, clamped to 2^31.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        if secs > Self::MAX.0 as u64 {
            Self::MAX
        } else {
            #[expect(clippy::cast_possible_truncation, reason = "compared just above")]
            Self(secs as u32)
        }
    }

    /// The seconds.
    #[must_use]
    pub const fn as_secs(self) -> u32 {
        self.0
    }

    /// The same as a duration.
    pub(crate) const fn as_duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }

    /// The moment from which on no request for the message begins: its TTL after it was due, at most 28 days
    /// ([`SAFE_MAX`](Self::SAFE_MAX)) and at least 15 s.
    ///
    /// 15 s is the time that one request may take: a message to be delivered now or never (TTL 0) has to reach the
    /// push service as well. Such a message is not kept longer than its TTL: a request carries what is
    /// [`left`](Self::left) of it, 0 at the end.
    #[must_use]
    pub fn deadline(self, due_at: Timestamp) -> Timestamp {
        due_at + self.min(Self::SAFE_MAX).as_duration().max(SHORTEST_LIFE)
    }

    /// The rest of it at `now` for a message that was due at `due_at`, in whole seconds: a push service counts the
    /// TTL from the request (RFC 8030 section 5.2). Never more than the TTL itself.
    #[must_use]
    pub fn left(self, due_at: Timestamp, now: Timestamp) -> Self {
        let waited = now.since(due_at).as_secs();
        Self::from_secs(u64::from(self.min(Self::SAFE_MAX).as_secs()).saturating_sub(waited))
    }
}

/// The shortest deadline: the time that one request may take, so that a message with TTL 0 can be sent. A longer one
/// would extend the TTL of a call that rings for 30 s.
const SHORTEST_LIFE: Duration = Duration::from_secs(15);

impl Default for Ttl {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Ttl {
    type Err = MessageError;

    /// Parses `1*DIGIT`; a number that overflows counts as 2^31.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(MessageErrorKind::InvalidTtl.into());
        }
        Ok(text.parse().map_or(Self::MAX, Self::from_secs))
    }
}

impl Serialize for Ttl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for Ttl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer)
            .map(Self::from_secs)
            .map_err(|_| de::Error::custom(MessageErrorKind::InvalidTtl))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overflowing_ttl_counts_as_two_to_the_31() {
        assert_eq!("2147483649".parse::<Ttl>().unwrap(), Ttl::MAX);
        assert_eq!("9".repeat(99).parse::<Ttl>().unwrap(), Ttl::MAX);
        assert_eq!(Ttl::from_secs(u64::MAX).as_secs(), 2_147_483_648);
    }

    #[test]
    fn it_is_written_in_seconds() {
        assert_eq!(Ttl::from_secs(300).to_string(), "300");
        assert_eq!(Ttl::MAX.to_string(), "2147483648");
    }

    const DUE: Timestamp = Timestamp::from_secs(1_000);

    #[test]
    fn the_deadline_is_the_ttl_within_bounds() {
        let deadline = |ttl: Ttl| ttl.deadline(DUE).since(DUE);
        assert_eq!(deadline(Ttl::from_secs(300)), Duration::from_secs(300));
        assert_eq!(deadline(Ttl::MAX), Ttl::SAFE_MAX.as_duration());
        for (ttl, secs) in [(30, 30), (16, 16), (15, 15), (14, 15), (1, 15), (0, 15)] {
            let deadline = deadline(Ttl::from_secs(ttl));
            assert_eq!(deadline, Duration::from_secs(secs), "{ttl}");
        }
    }

    #[test]
    fn it_shrinks_by_the_time_waited() {
        let left = |waited| Ttl::from_secs(300).left(DUE, DUE + Duration::from_secs(waited));
        assert_eq!(left(0), Ttl::from_secs(300));
        assert_eq!(left(100), Ttl::from_secs(200));
        assert_eq!(left(400), Ttl::ZERO);
        // Before the shortest deadline a request may begin with a TTL of 0: deliver now or drop.
        let short = |waited| Ttl::from_secs(5).left(DUE, DUE + Duration::from_millis(waited));
        assert_eq!(short(0), Ttl::from_secs(5));
        assert_eq!(short(4_999), Ttl::from_secs(1));
        assert_eq!(short(5_000), Ttl::ZERO);
        assert_eq!(short(14_900), Ttl::ZERO);
        assert_eq!(Ttl::MAX.left(DUE, DUE), Ttl::SAFE_MAX);
    }

    #[test]
    fn only_digits_parse() {
        for text in ["", "-1", "+1", "1.0", " 1", "1s", "١"] {
            assert!(text.parse::<Ttl>().is_err(), "{text}");
        }
        assert_eq!("0060".parse::<Ttl>().unwrap(), Ttl::from_secs(60));
    }
}
