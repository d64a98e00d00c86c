//! The id of a stored subscription.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::{SubscriptionError, SubscriptionErrorKind};
use crate::text::as_text;

/// A stored subscription's id: a random UUID (version 4), unguessable.
///
/// It authorizes unsubscribing and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(Uuid);

impl SubscriptionId {
    /// Makes a random id, from the operating system's randomness.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Makes an id of stored octets.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 16 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl FromStr for SubscriptionId {
    type Err = SubscriptionError;

    /// Parses any of the usual spellings of a UUID.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self).map_err(|source| {
            SubscriptionError::with_source(SubscriptionErrorKind::InvalidId, source)
        })
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubscriptionId({self})")
    }
}

as_text!(SubscriptionId: Serialize, Deserialize);
