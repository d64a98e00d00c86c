//! How much of a payload's length is visible to the push service.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use super::{Message, MessageError, MessageErrorKind};
use crate::text::as_text;

/// Padding inside the one encrypted record (RFC 8291 section 4, RFC 8188 section 4.8).
///
/// Padding never pushes a body above 4096 octets: a payload near the limit is padded less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Padding {
    /// The length is visible.
    None,
    /// Up to the next multiple of this number of octets.
    Multiple(NonZeroU16),
    /// Always up to the largest body: the length is hidden.
    Max,
}

impl Padding {
    /// Up to the next multiple of 256 octets.
    pub const DEFAULT: Self = Self::Multiple(NonZeroU16::MIN.saturating_add(255));

    /// The number of octets to add to a payload of `len` octets.
    #[must_use]
    pub const fn octets_for(self, payload: usize) -> usize {
        let room = Message::MAX_PAYLOAD.saturating_sub(payload);
        let wanted = match self {
            Self::None => 0,
            Self::Multiple(block) => payload.next_multiple_of(block.get() as usize) - payload,
            Self::Max => room,
        };
        if wanted < room { wanted } else { room }
    }
}

impl Default for Padding {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for Padding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Multiple(block) => block.fmt(f),
            Self::Max => f.write_str("max"),
        }
    }
}

impl FromStr for Padding {
    type Err = MessageError;

    /// Parses `none`, `max`, or the number of octets in a block.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "max" => Ok(Self::Max),
            block => block.parse().map(Self::Multiple).map_err(|source| {
                MessageError::with_source(MessageErrorKind::InvalidPadding, source)
            }),
        }
    }
}

as_text!(Padding: Serialize, Deserialize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_fills_blocks_of_256() {
        assert_eq!(Padding::default().octets_for(0), 0);
        assert_eq!(Padding::default().octets_for(1), 255);
        assert_eq!(Padding::default().octets_for(256), 0);
    }

    #[test]
    fn its_text_round_trips() {
        for padding in [Padding::None, Padding::default(), Padding::Max] {
            assert_eq!(padding.to_string().parse::<Padding>().unwrap(), padding);
        }
        assert!("0".parse::<Padding>().is_err());
        assert!("some".parse::<Padding>().is_err());
    }

    #[test]
    fn no_padding_goes_above_the_limit() {
        for padding in [Padding::None, Padding::default(), Padding::Max] {
            for payload in 0..=Message::MAX_PAYLOAD {
                assert!(payload + padding.octets_for(payload) <= Message::MAX_PAYLOAD);
            }
        }
        assert_eq!(Padding::Max.octets_for(10) + 10, Message::MAX_PAYLOAD);
        assert_eq!(Padding::Max.octets_for(5000), 0);
    }
}
