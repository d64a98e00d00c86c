//! What goes into the delivery ledger and what comes out.

use std::collections::HashMap;
use std::time::Duration;

use crate::broadcast::{Audience, BroadcastId, BroadcastStatus, FinalOutcome};
use crate::clock::Timestamp;
use crate::message::Message;
use crate::subscription::{EndpointKey, Origin};

/// A broadcast to accept.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle all of it: see `store`"
)]
pub struct NewBroadcast {
    /// Its name, made by the caller.
    pub id: BroadcastId,
    /// Whom it is for.
    pub audience: Audience,
    /// What to send.
    pub message: Message,
    /// When to resolve the audience and send; at once when absent.
    pub send_at: Option<Timestamp>,
    /// When to give up.
    pub deadline: Timestamp,
    /// How many recipients there were at acceptance.
    pub recipients: u64,
    /// What makes a repeated request the same request.
    pub idempotency: Option<Idempotency>,
    /// Whether nobody will ask what became of it: a daily notification to one subscriber, say.
    pub forget_when_over: bool,
}

impl NewBroadcast {
    /// A broadcast to be sent at once, under a fresh id.
    #[must_use]
    pub fn new(audience: Audience, message: Message, deadline: Timestamp) -> Self {
        Self {
            id: BroadcastId::random(),
            audience,
            message,
            send_at: None,
            deadline,
            recipients: 0,
            idempotency: None,
            forget_when_over: false,
        }
    }
}

/// An `Idempotency-Key` and what it was first used for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle all of it: see `store`"
)]
pub struct Idempotency {
    /// The key, 1 to 255 visible ASCII characters.
    pub key: String,
    /// SHA-256 of the request.
    pub fingerprint: [u8; 32],
}

impl Idempotency {
    /// A key with the fingerprint of its request.
    #[must_use]
    pub fn new(key: impl Into<String>, fingerprint: [u8; 32]) -> Self {
        Self {
            key: key.into(),
            fingerprint,
        }
    }
}

/// What opening a broadcast came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "L2 names all three")]
pub enum Opened {
    /// It is stored.
    New,
    /// The same request was accepted before, as this broadcast.
    Repeat(BroadcastStatus),
    /// The idempotency key was used for another request.
    Conflict,
}

/// How far a broadcast's audience is written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a walk begins, goes on and ends")]
pub enum Cursor {
    /// Nothing yet.
    Start,
    /// Up to and with this row.
    After(EndpointKey),
    /// Everything.
    End,
}

/// A broadcast whose audience is not fully written out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle all of it: see `store`"
)]
pub struct Expansion {
    /// Which.
    pub id: BroadcastId,
    /// Whom it is for.
    pub audience: Audience,
    /// How far it is.
    pub cursor: Cursor,
}

impl Expansion {
    /// A broadcast, its audience and how far it is.
    #[must_use]
    pub const fn new(id: BroadcastId, audience: Audience, cursor: Cursor) -> Self {
        Self {
            id,
            audience,
            cursor,
        }
    }
}

/// One recipient to write into a broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle all of it: see `store`"
)]
pub struct NewDelivery {
    /// The subscription.
    pub key: EndpointKey,
    /// Its push service's origin, so that claiming is fair over origins.
    pub origin: Origin,
}

impl NewDelivery {
    /// One recipient.
    #[must_use]
    pub const fn new(key: EndpointKey, origin: Origin) -> Self {
        Self { key, origin }
    }
}

/// What writing a page came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "L4 names both")]
pub enum PageWrite {
    /// Rows and cursor are stored.
    Stored,
    /// Somebody else has moved the cursor, or the broadcast is cancelled, past its deadline or gone.
    Stale,
}

/// How many rows to claim, and for how long.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle all of it: see `store`"
)]
pub struct ClaimRequest {
    /// At most so many rows.
    pub limit: usize,
    /// At most so many of one origin that `rooms` does not name.
    pub per_origin: usize,
    /// How long they are the claimant's.
    pub lease: Duration,
    /// At most so many of these origins: those that the claimant knows, or is busy with.
    pub rooms: HashMap<Origin, usize>,
}

impl ClaimRequest {
    /// So many rows of any origin, for so long.
    #[must_use]
    pub fn new(limit: usize, lease: Duration) -> Self {
        Self {
            limit,
            per_origin: limit,
            lease,
            rooms: HashMap::new(),
        }
    }

    /// How many rows of an origin there is room for.
    #[must_use]
    pub fn room_for(&self, origin: &Origin) -> usize {
        self.rooms.get(origin).copied().unwrap_or(self.per_origin)
    }
}

/// The right to settle one claimed row. A later claim of the row makes it worthless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle all of it: see `store`"
)]
pub struct ClaimToken {
    /// The broadcast.
    pub broadcast: BroadcastId,
    /// The subscription.
    pub key: EndpointKey,
    /// A number that grows with each claim in the ledger.
    pub fence: u64,
}

impl ClaimToken {
    /// A token, as a back end hands it out.
    #[must_use]
    pub const fn new(broadcast: BroadcastId, key: EndpointKey, fence: u64) -> Self {
        Self {
            broadcast,
            key,
            fence,
        }
    }
}

/// Claimed rows, and the messages they are about.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle all of it: see `store`"
)]
pub struct Claims {
    /// The rows.
    pub rows: Vec<Claimed>,
    /// Each broadcast's message, once.
    pub messages: HashMap<BroadcastId, ClaimedMessage>,
}

/// One claimed row.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle all of it: see `store`"
)]
pub struct Claimed {
    /// The right to settle it.
    pub token: ClaimToken,
    /// The push service's origin.
    pub origin: Origin,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// Until when it is the claimant's.
    pub leased_until: Timestamp,
}

impl Claimed {
    /// A claimed row, as a back end hands it out.
    #[must_use]
    pub const fn new(
        token: ClaimToken,
        origin: Origin,
        attempt: u32,
        leased_until: Timestamp,
    ) -> Self {
        Self {
            token,
            origin,
            attempt,
            leased_until,
        }
    }
}

/// What a claimed row is about.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle all of it: see `store`"
)]
pub struct ClaimedMessage {
    /// What to send. Its TTL counts from `due_at`.
    pub message: Message,
    /// The later of acceptance and `send_at`.
    pub due_at: Timestamp,
    /// When to give up.
    pub deadline: Timestamp,
}

impl ClaimedMessage {
    /// A message with its times.
    #[must_use]
    pub const fn new(message: Message, due_at: Timestamp, deadline: Timestamp) -> Self {
        Self {
            message,
            due_at,
            deadline,
        }
    }
}

/// What to do with a claimed row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "L7 names all three")]
pub enum Settlement {
    /// It is at its end.
    Finished(FinalOutcome),
    /// It is tried again, not before this moment.
    RetryAt(Timestamp),
    /// Nothing was asked of the push service: the same attempt again, not before this moment.
    Deferred(Timestamp),
}

/// What settling a row came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "L7 names both")]
pub enum Settled {
    /// Done as asked.
    Done,
    /// The row was somebody else's by then; nothing changed.
    Lost,
}

/// The result of one step of pruning (L13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "L13 names both")]
pub struct Pruned {
    /// Number of removed broadcasts.
    pub broadcasts: u64,
    /// Whether there may be more to remove.
    pub more: bool,
}

/// What was erased of a user (L17).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "L17 names both")]
pub struct Erased {
    /// Rows of these subscriptions that were left to deliver.
    pub deliveries: u64,
    /// Broadcasts to this user alone that were not over.
    pub broadcasts: u64,
}

/// How full the ledger is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle all of it: see `store`"
)]
pub struct LedgerStats {
    /// Rows that are left to deliver, leased ones included.
    pub depth: u64,
    /// Rows under a lease that has not ended.
    pub leased: u64,
    /// Since when the oldest row that is not leased is due.
    pub oldest_due: Option<Timestamp>,
}

impl LedgerStats {
    /// The three numbers.
    #[must_use]
    pub const fn new(depth: u64, leased: u64, oldest_due: Option<Timestamp>) -> Self {
        Self {
            depth,
            leased,
            oldest_due,
        }
    }
}
