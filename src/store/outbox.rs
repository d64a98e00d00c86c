//! Values of an outbox: broadcasts that an application wrote in a transaction of its own.

use std::fmt;

use super::NewBroadcast;
use crate::broadcast::BroadcastId;
use crate::clock::Timestamp;

/// An entry of an outbox, as the application wrote it. The three texts are JSON, whatever they hold.
#[derive(Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct OutboxEntry {
    /// Its number in the outbox. It grows with each entry, and names this one.
    pub seq: i64,
    /// The id that its broadcast gets, unless `opts` names another one.
    pub id: BroadcastId,
    /// The audience.
    pub audience: String,
    /// The content and its delivery options.
    pub message: String,
    /// Time, pace, idempotency key and id.
    pub opts: String,
}

impl OutboxEntry {
    /// Makes an entry, for a back end.
    #[must_use]
    pub fn new(
        seq: i64,
        id: BroadcastId,
        audience: impl Into<String>,
        message: impl Into<String>,
        opts: impl Into<String>,
    ) -> Self {
        Self {
            seq,
            id,
            audience: audience.into(),
            message: message.into(),
            opts: opts.into(),
        }
    }
}

impl fmt::Debug for OutboxEntry {
    /// Shows neither audience nor message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboxEntry")
            .field("seq", &self.seq)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What to do with an entry (L22).
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "L22 names both")]
pub enum OutboxSettlement {
    /// Its broadcast is opened.
    Open(Box<NewBroadcast>),
    /// It is refused.
    Refuse(OutboxRefusal),
}

/// Why an entry cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct OutboxRefusal {
    /// A stable word: the `code` with which `POST /notify` refuses the same.
    pub code: String,
    /// What to correct. It repeats no text of audience and message.
    pub detail: String,
}

impl OutboxRefusal {
    /// Makes a refusal.
    #[must_use]
    pub fn new(code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            detail: detail.into(),
        }
    }

    /// The refusal of an entry whose idempotency key was used for another broadcast.
    #[must_use]
    pub fn conflict() -> Self {
        Self::new(
            "idempotency_conflict",
            "the idempotency key was used for another broadcast",
        )
    }
}

/// The result of settling an entry (L22).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "L22 names all five")]
pub enum OutboxSettled {
    /// Its broadcast is open.
    Opened,
    /// The same request was accepted before. The entry is removed.
    Repeat,
    /// It is refused: its idempotency key was used for another broadcast.
    Conflict,
    /// It is refused with the given code.
    Refused,
    /// It does not wait any more, or another call is settling it. Nothing changed.
    Taken,
}

/// An entry that was refused. It waits for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct RefusedEntry {
    /// The entry.
    pub entry: OutboxEntry,
    /// Why it was refused.
    pub refusal: OutboxRefusal,
    /// When it was refused.
    pub refused_at: Timestamp,
}

impl RefusedEntry {
    /// Makes a refused entry, for a back end.
    #[must_use]
    pub const fn new(entry: OutboxEntry, refusal: OutboxRefusal, refused_at: Timestamp) -> Self {
        Self {
            entry,
            refusal,
            refused_at,
        }
    }
}

/// The size of an outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct OutboxStats {
    /// Committed entries that no worker has settled yet.
    pub waiting: u64,
    /// Entries that were refused.
    pub refused: u64,
}

impl OutboxStats {
    /// Makes a value of both numbers.
    #[must_use]
    pub const fn new(waiting: u64, refused: u64) -> Self {
        Self { waiting, refused }
    }
}
