//! When a device on battery receives a message (RFC 8030 section 5.3).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{MessageError, MessageErrorKind};

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

impl fmt::Display for Urgency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

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

impl Serialize for Urgency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Urgency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
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
