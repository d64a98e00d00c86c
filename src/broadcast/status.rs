//! The status of a broadcast.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::Serialize;
use uuid::{Builder, Uuid};

use crate::clock::Timestamp;
use crate::error::unit_error;
use crate::text::as_text;

/// A broadcast's id: a UUID of any version.
///
/// An id that this crate makes for a broadcast that it accepts begins with the time of acceptance, in milliseconds (version 7,
/// RFC 9562 section 5.7): new rows come to the end of a store's indexes. Who sees an id can read that time. The other 74 bits
/// are random. Entries of an outbox may have other ids, which the database or the application makes. An id gives no right: who may
/// read or cancel a broadcast is decided by who asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BroadcastId(Uuid);

impl BroadcastId {
    /// Makes an id that begins with a time (version 7). The rest is the operating system's randomness: ids of one millisecond
    /// have no order.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        const LAST: u64 = (1 << 48) - 1;
        let millis = u64::try_from(now.as_millis()).unwrap_or(0).min(LAST);
        let [_, _, _, _, _, _, random @ ..] = Uuid::new_v4().into_bytes();
        Self(Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// Makes a random id (version 4), from the operating system's randomness.
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

    /// The example of RFC 9562 appendix A.6: its time, and where version, variant and randomness are.
    #[test]
    fn an_id_begins_with_its_time() {
        let at = |millis| BroadcastId::at(Timestamp::from_millis(millis));
        let id = at(0x017f_22e2_79b0);
        let example: BroadcastId = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().unwrap();
        assert_eq!(id.as_bytes()[..6], example.as_bytes()[..6]);
        assert_eq!(id.0.get_version_num(), 7);
        assert_eq!(id.0.get_variant(), uuid::Variant::RFC4122);
        assert!(at(0x017f_22e2_79b1) > id);
        assert_eq!(at(-1).as_bytes()[..6], [0; 6]);
        assert_eq!(at(i64::MAX).as_bytes()[..6], [0xff; 6]);
    }

    #[test]
    fn the_rest_of_an_id_is_random() {
        let ids = [(); 64].map(|()| BroadcastId::at(Timestamp::default()));
        let octets = |id: &BroadcastId| u128::from_be_bytes(*id.as_bytes());
        let (all, any) = ids
            .iter()
            .map(octets)
            .fold((!0, 0), |(all, any), id| (all & id, any | id));
        // Bits that were both set and not set: a bit that is random is missing once in 2^63.
        let random: u128 = any & !all;
        assert_eq!(random, 0x0fff_3fff_ffff_ffff_ffff);
    }

    /// Ids that earlier versions have stored, and those of applications.
    #[test]
    fn an_id_may_be_of_any_version() {
        let example = |version: char| format!("017f22e2-79b0-{version}cc3-98c4-dc0c0c07398f");
        for text in ('1'..='8').map(example) {
            let id: BroadcastId = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
            assert_eq!(BroadcastId::from_bytes(*id.as_bytes()), id);
        }
        assert_eq!(BroadcastId::random().0.get_version_num(), 4);
    }

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
