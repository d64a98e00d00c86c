//! When a device on battery receives a message (RFC 8030 section 5.3).

use std::str::FromStr;

use super::{MessageError, MessageErrorKind};
use crate::text::as_text;

/// Urgency of a message (RFC 8030 section 5.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "RFC 8030 section 5.3 closes the set"
)]
pub enum Urgency {
    /// On power and Wi-Fi: advertisements.
    VeryLow,
    /// On either power or Wi-Fi: topic updates.
    Low,
    /// On neither power nor Wi-Fi: chat messages. The default.
    #[default]
    Normal,
    /// Even on low battery: incoming calls, time-sensitive alerts.
    High,
}

impl Urgency {
    /// All urgencies, the least urgent first.
    pub const ALL: &'static [Self] = &[Self::VeryLow, Self::Low, Self::Normal, Self::High];

    /// The header's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VeryLow => "very-low",
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

as_text!(Urgency: Display, Serialize, Deserialize);

impl FromStr for Urgency {
    type Err = MessageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|urgency| urgency.as_str() == text)
            .ok_or_else(|| MessageErrorKind::InvalidUrgency.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_round_trips_and_nothing_else_parses() {
        for &urgency in Urgency::ALL {
            assert_eq!(urgency.as_str().parse::<Urgency>().unwrap(), urgency);
        }
        for text in ["", "High", "high, low", "very_low"] {
            assert!(text.parse::<Urgency>().is_err(), "{text}");
        }
    }
}
