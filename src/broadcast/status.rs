//! The status of a broadcast.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::Serialize;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::error::unit_error;
use crate::text::as_text;

/// A broadcast's id: a random UUID (version 4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BroadcastId(Uuid);

impl BroadcastId {
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

impl FromStr for BroadcastId {
    type Err = BroadcastIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text)
            .map(Self)
            .map_err(|_| BroadcastIdError(()))
    }
}

impl fmt::Display for BroadcastId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for BroadcastId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BroadcastId({self})")
    }
}

as_text!(BroadcastId: Serialize, Deserialize);

unit_error! {
    /// A text that is not a [`BroadcastId`].
    BroadcastIdError, "a broadcast's id is a UUID"
}

/// The state of a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BroadcastState {
    /// Its `sendAt` is in the future.
    Scheduled,
    /// Its audience is being written into the ledger, page by page.
    Expanding,
    /// All recipients are known, some are pending.
    Sending,
    /// It is paused: nothing of it is sent.
    Paused,
    /// Nothing is pending.
    Done,
    /// Cancelled: deliveries that were not leased then were not sent.
    Cancelled,
}

impl BroadcastState {
    /// All states.
    pub const ALL: &'static [Self] = &[
        Self::Scheduled,
        Self::Expanding,
        Self::Sending,
        Self::Paused,
        Self::Done,
        Self::Cancelled,
    ];

    /// The name that JSON uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Expanding => "expanding",
            Self::Sending => "sending",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }

    /// Returns the state of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let mut states = Self::ALL.iter().copied();
        states.find(|state| state.as_str() == name)
    }
}

/// The outcome of a delivery, for its broadcast's [`Counts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "stores handle every part: see `store`"
)]
pub enum FinalOutcome {
    /// The push service accepted it.
    Accepted,
    /// The subscription no longer exists.
    Gone,
    /// The subscription belongs to a VAPID key that is unknown.
    KeyMismatch,
    /// The push service refuses the sender, not the subscription.
    SenderFault,
    /// The push service refuses it as too large.
    TooLarge,
    /// The push service refuses the request as malformed.
    BadRequest,
    /// The endpoint policy refuses the endpoint.
    Refused,
    /// Its deadline passed.
    Expired,
    /// Its attempts were used up.
    Failed,
    /// Its broadcast was cancelled.
    Cancelled,
}

impl FinalOutcome {
    /// All outcomes, in the order of [`Counts`].
    pub const ALL: &'static [Self] = &[
        Self::Accepted,
        Self::Gone,
        Self::KeyMismatch,
        Self::SenderFault,
        Self::TooLarge,
        Self::BadRequest,
        Self::Refused,
        Self::Expired,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name that JSON, logs and stores use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Gone => "gone",
            Self::KeyMismatch => "key_mismatch",
            Self::SenderFault => "sender_fault",
            Self::TooLarge => "too_large",
            Self::BadRequest => "bad_request",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

as_text!(FinalOutcome: Display);

/// The number of recipients of a broadcast by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
#[expect(
    missing_docs,
    reason = "the fields are the outcomes: see `FinalOutcome`"
)]
pub struct Counts {
    /// Recipients without an outcome.
    pub pending: u64,
    pub accepted: u64,
    pub gone: u64,
    pub key_mismatch: u64,
    pub sender_fault: u64,
    pub too_large: u64,
    pub bad_request: u64,
    pub refused: u64,
    pub expired: u64,
    pub failed: u64,
    pub cancelled: u64,
}

impl Counts {
    /// Returns the count of one outcome.
    #[must_use]
    pub fn of(mut self, outcome: FinalOutcome) -> u64 {
        *self.slot(outcome)
    }

    /// Adds to the count of one outcome; saturates.
    pub fn add(&mut self, outcome: FinalOutcome, number: u64) {
        let slot = self.slot(outcome);
        *slot = slot.saturating_add(number);
    }

    /// The number of recipients with an outcome.
    #[must_use]
    pub fn finished(&self) -> u64 {
        FinalOutcome::ALL
            .iter()
            .copied()
            .map(|outcome| self.of(outcome))
            .sum()
    }

    const fn slot(&mut self, outcome: FinalOutcome) -> &mut u64 {
        match outcome {
            FinalOutcome::Accepted => &mut self.accepted,
            FinalOutcome::Gone => &mut self.gone,
            FinalOutcome::KeyMismatch => &mut self.key_mismatch,
            FinalOutcome::SenderFault => &mut self.sender_fault,
            FinalOutcome::TooLarge => &mut self.too_large,
            FinalOutcome::BadRequest => &mut self.bad_request,
            FinalOutcome::Refused => &mut self.refused,
            FinalOutcome::Expired => &mut self.expired,
            FinalOutcome::Failed => &mut self.failed,
            FinalOutcome::Cancelled => &mut self.cancelled,
        }
    }
}

/// A broadcast's status in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct BroadcastStatus {
    /// Its id.
    pub id: BroadcastId,
    /// Its state.
    pub state: BroadcastState,
    /// The number of recipients: as counted at acceptance, and exact once it is expanded.
    pub recipients: u64,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it is to be sent, if that is later than its acceptance.
    pub send_at: Option<Timestamp>,
    /// When its remaining deliveries expire.
    pub deadline: Timestamp,
    /// The most recipients that become due per second, if it has a pace.
    pub pace: Option<NonZeroU32>,
    /// The outcomes of its recipients. Together they are `recipients` once it is expanded.
    pub counts: Counts,
}

impl BroadcastStatus {
    /// Whether it is done or cancelled, with nothing pending.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, BroadcastState::Done | BroadcastState::Cancelled)
            && self.counts.pending == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_names_of_json() {
        for &state in BroadcastState::ALL {
            let name = serde_json::to_value(state).unwrap();
            assert_eq!(name, state.as_str());
            assert_eq!(BroadcastState::from_name(state.as_str()), Some(state));
        }
        assert_eq!(BroadcastState::from_name("Done"), None);
    }

    #[test]
    fn json_outcomes_and_counts_share_their_names() {
        let mut counts = Counts::default();
        for (number, &outcome) in (1..).zip(FinalOutcome::ALL) {
            counts.add(outcome, number);
        }
        let json = serde_json::to_value(counts).unwrap();
        for &outcome in FinalOutcome::ALL {
            assert_eq!(json[outcome.as_str()], counts.of(outcome), "{outcome}");
        }
        assert_eq!(counts.finished(), 55);
        assert_eq!(json.as_object().unwrap().len(), 11);
    }
}
