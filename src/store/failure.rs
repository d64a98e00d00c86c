//! Why a message was not accepted, as stores keep it.

use std::fmt;

use crate::clock::Timestamp;
use crate::text::as_text;

/// The reason of a failed attempt as a word of at most 64 characters `A-Z a-z 0-9 . _ -`: Mozilla's errno, Apple's reason,
/// a header of WNS, `timeout`.
///
/// A push service is a stranger. Whatever it writes, this has no spaces, quotes, markup or control characters: any other
/// character becomes `_`, and what is longer is cut.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReasonWord {
    len: u8,
    /// ASCII. Zeroes behind `len`.
    octets: [u8; Self::MAX_LEN],
}

impl ReasonWord {
    /// The most characters.
    pub const MAX_LEN: usize = 64;

    /// Makes a word of any text. Returns `None` if it is empty.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let mut octets = [0; Self::MAX_LEN];
        let mut len = 0;
        for (octet, character) in octets.iter_mut().zip(text.chars()) {
            let is_plain =
                |byte: &u8| byte.is_ascii_alphanumeric() || [b'.', b'_', b'-'].contains(byte);
            let plain = u8::try_from(character).ok().filter(is_plain);
            *octet = plain.unwrap_or(b'_');
            len += 1;
        }
        (len > 0).then_some(Self { len, octets })
    }

    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let word = self.octets.get(..usize::from(self.len));
        word.and_then(|word| std::str::from_utf8(word).ok())
            .unwrap_or_default()
    }
}

as_text!(ReasonWord: Display, Serialize);

impl fmt::Debug for ReasonWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReasonWord({self})")
    }
}

/// Why an attempt failed. Both parts are missing if there was no response and nothing is known about the cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct Failure {
    /// The HTTP status of the response.
    pub status: Option<u16>,
    /// The reason that the push service or the client gave.
    pub reason: Option<ReasonWord>,
}

impl Failure {
    /// Makes a failure of a status, with the reason as a word.
    #[must_use]
    pub fn new(status: Option<u16>, reason: Option<&str>) -> Self {
        Self {
            status,
            reason: reason.and_then(ReasonWord::of),
        }
    }
}

/// The last failed attempt of a subscription that was written: see
/// [`SubscriptionRecord::last_failure`](super::SubscriptionRecord::last_failure).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct LastFailure {
    /// When it was written.
    pub at: Timestamp,
    /// Why it failed.
    pub failure: Failure,
}

impl LastFailure {
    /// Makes a value of the two.
    #[must_use]
    pub const fn new(at: Timestamp, failure: Failure) -> Self {
        Self { at, failure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_bounded_and_plain_whatever_the_push_service_writes() {
        let word = |text: &str| ReasonWord::of(text).map(|word| word.to_string());
        assert_eq!(word(""), None);
        assert_eq!(word("BadDeviceToken").unwrap(), "BadDeviceToken");
        assert_eq!(
            word("channel throttled\r\n").unwrap(),
            "channel_throttled__"
        );
        assert_eq!(word("<b>\"é\0=1+1").unwrap(), "_b_____1_1");
        assert_eq!(word(&"é".repeat(1_000)).unwrap(), "_".repeat(64));
        // A word comes back from the store as it was.
        let word = ReasonWord::of("a-b.c_1").unwrap();
        assert_eq!(ReasonWord::of(word.as_str()), Some(word));
        assert_eq!(serde_json::to_string(&word).unwrap(), "\"a-b.c_1\"");
    }
}
