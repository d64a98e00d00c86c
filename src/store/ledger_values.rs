//! Values that a delivery ledger reads and returns.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::{FailureCause, OldestDue};
use crate::broadcast::{
    Audience, BroadcastId, BroadcastStatus, FinalOutcome, Principal, TraceParent,
};
use crate::clock::Timestamp;
use crate::message::Message;
#[cfg(doc)]
use crate::message::Urgency;
use crate::subscription::{EndpointKey, Origin};

/// A broadcast to accept.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct NewBroadcast {
    /// Its id, made by the caller.
    pub id: BroadcastId,
    /// Its recipients.
    pub audience: Audience,
    /// What to send.
    pub message: Message,
    /// When to resolve the audience and send. `None`: at once.
    pub send_at: Option<Timestamp>,
    /// When the remaining deliveries expire.
    pub deadline: Timestamp,
    /// The most recipients that are written per second. `None`: as fast as possible.
    pub pace: Option<NonZeroU32>,
    /// The number of recipients at acceptance.
    pub recipients: u64,
    /// The key and fingerprint that identify a repeated request.
    pub idempotency: Option<Idempotency>,
    /// The span that it comes from (L26).
    pub trace_parent: Option<TraceParent>,
    /// The first recipients, if the caller has read them already: see [`first_page`](Self::first_page).
    pub page: Option<Page>,
    /// Whether it is removed as soon as it is over, since its status is not needed: a daily notification to one
    /// subscriber.
    pub forget_when_over: bool,
}

impl NewBroadcast {
    /// Makes a broadcast to be sent at once, with a random id.
    #[must_use]
    pub fn new(audience: Audience, message: Message, deadline: Timestamp) -> Self {
        Self::with_id(BroadcastId::random(), audience, message, deadline)
    }

    /// Makes a broadcast to be sent at once.
    #[must_use]
    pub const fn with_id(
        id: BroadcastId,
        audience: Audience,
        message: Message,
        deadline: Timestamp,
    ) -> Self {
        Self {
            id,
            audience,
            message,
            send_at: None,
            deadline,
            pace: None,
            recipients: 0,
            idempotency: None,
            trace_parent: None,
            page: None,
            forget_when_over: false,
        }
    }

    /// The page that [`open`](super::DeliveryLedger::open) writes at `now` with the broadcast (L4).
    ///
    /// `None` if the broadcast is not due yet: its audience is resolved then. `None` too if its deadline has passed, and if it
    /// has a pace, at which its rows are written.
    #[must_use]
    pub fn first_page(&self, now: Timestamp) -> Option<&Page> {
        let is_due = self.send_at.is_none_or(|at| at <= now) && self.deadline > now;
        let page = self.page.as_ref();
        page.filter(|_| is_due && self.pace.is_none())
    }
}

/// An `Idempotency-Key` and what it was first used for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct Idempotency {
    /// The key, 1 to 255 visible ASCII characters.
    pub key: String,
    /// SHA-256 of the request.
    pub fingerprint: [u8; 32],
}

impl Idempotency {
    /// Makes a key with the fingerprint of its request.
    #[must_use]
    pub fn new(key: impl Into<String>, fingerprint: [u8; 32]) -> Self {
        Self {
            key: key.into(),
            fingerprint,
        }
    }
}

/// The result of [`DeliveryLedger::open`](super::DeliveryLedger::open).
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

/// The position of a broadcast's expansion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a walk begins, goes on and ends")]
pub enum Cursor {
    /// Nothing is written yet.
    Start,
    /// Recipients up to this key, included, are written.
    After(EndpointKey),
    /// All recipients are written.
    End,
}

/// A broadcast whose audience is not fully expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct Expansion {
    /// Its id.
    pub id: BroadcastId,
    /// Its audience; `None` if the audience, the cursor or the pace cannot be read.
    pub audience: Option<Audience>,
    /// Its position.
    pub cursor: Cursor,
    /// The most recipients that are written per second, if it has a pace.
    pub pace: Option<NonZeroU32>,
    /// The span that it comes from (L26).
    pub trace_parent: Option<TraceParent>,
    /// Whether it is one of those that come first, as it is of [`Urgency::High`] (L3).
    pub is_urgent: bool,
}

impl Expansion {
    /// Makes an expansion of a broadcast without a trace parent, which is not urgent.
    #[must_use]
    pub const fn new(
        id: BroadcastId,
        audience: Audience,
        cursor: Cursor,
        pace: Option<NonZeroU32>,
    ) -> Self {
        Self {
            id,
            audience: Some(audience),
            cursor,
            pace,
            trace_parent: None,
            is_urgent: false,
        }
    }

    /// A broadcast whose audience, cursor or pace cannot be read.
    #[must_use]
    pub const fn unreadable(id: BroadcastId) -> Self {
        Self {
            id,
            audience: None,
            cursor: Cursor::Start,
            pace: None,
            trace_parent: None,
            is_urgent: false,
        }
    }
}

/// One recipient to write into a broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct NewDelivery {
    /// The subscription.
    pub key: EndpointKey,
    /// Its push service's origin, so that claiming is fair over origins.
    pub origin: Origin,
}

impl NewDelivery {
    /// Makes a recipient.
    #[must_use]
    pub const fn new(key: EndpointKey, origin: Origin) -> Self {
        Self { key, origin }
    }
}

/// The first recipients of a broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct Page {
    /// The recipients.
    pub rows: Vec<NewDelivery>,
    /// The position behind them: [`Cursor::End`] if there are no others.
    pub next: Cursor,
}

impl Page {
    /// Makes a page.
    #[must_use]
    pub const fn new(rows: Vec<NewDelivery>, next: Cursor) -> Self {
        Self { rows, next }
    }
}

/// The result of [`DeliveryLedger::enqueue_page`](super::DeliveryLedger::enqueue_page).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "L4 names both")]
pub enum PageWrite {
    /// Rows and cursor are stored.
    Stored,
    /// Another call moved the cursor, or the broadcast is cancelled, paused, past its deadline or deleted.
    Stale,
}

/// The limits of a claim and the length of its lease.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct ClaimRequest {
    /// The most rows.
    pub limit: usize,
    /// The most rows of one origin that is not in `origins`.
    pub per_origin: usize,
    /// The length of the lease.
    pub lease: Duration,
    /// The most rows of these origins: those that the claimant knows or is sending to.
    pub origins: HashMap<Origin, usize>,
}

impl ClaimRequest {
    /// Makes a request for this many rows of any origin.
    #[must_use]
    pub fn new(limit: usize, lease: Duration) -> Self {
        Self {
            limit,
            per_origin: limit,
            lease,
            origins: HashMap::new(),
        }
    }

    /// The most rows of an origin.
    #[must_use]
    pub fn most_of(&self, origin: &Origin) -> usize {
        self.origins.get(origin).copied().unwrap_or(self.per_origin)
    }
}

/// The right to settle one claimed row. A later claim of the row invalidates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
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
    /// Makes a token, for a back end.
    #[must_use]
    pub const fn new(broadcast: BroadcastId, key: EndpointKey, fence: u64) -> Self {
        Self {
            broadcast,
            key,
            fence,
        }
    }
}

/// Claimed rows and their messages.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct Claims {
    /// The rows.
    pub rows: Vec<Claimed>,
    /// The message of each broadcast. One that cannot be read is missing.
    pub messages: HashMap<BroadcastId, ClaimedMessage>,
    /// Whether the time of more rows had come than one call makes ready, or rows of paused broadcasts stood in front and
    /// were put aside. Then another call may find rows that this one did not.
    pub more: bool,
}

/// One claimed row.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct Claimed {
    /// Its token.
    pub token: ClaimToken,
    /// The push service's origin.
    pub origin: Origin,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// When its lease expires.
    pub leased_until: Timestamp,
}

impl Claimed {
    /// Makes a claimed row, for a back end.
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

/// The message that claims of a broadcast share.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct ClaimedMessage {
    /// The message. Its TTL counts from `due_at`.
    pub message: Message,
    /// The later of acceptance and `send_at`.
    pub due_at: Timestamp,
    /// When the remaining deliveries expire.
    pub deadline: Timestamp,
    /// The user whom it is for, if the audience is a user: other users' subscriptions do not get it.
    pub only_for: Option<Principal>,
    /// The span that its broadcast comes from (L26).
    pub trace_parent: Option<TraceParent>,
}

impl ClaimedMessage {
    /// Makes a message with its times, for anyone and without a trace parent.
    #[must_use]
    pub const fn new(message: Message, due_at: Timestamp, deadline: Timestamp) -> Self {
        Self {
            message,
            due_at,
            deadline,
            only_for: None,
            trace_parent: None,
        }
    }

    /// Sets whom it is for.
    #[must_use]
    pub fn for_audience(mut self, audience: &Audience) -> Self {
        self.only_for = match audience {
            Audience::User(principal) => Some(principal.clone()),
            Audience::All | Audience::Tag(_) | Audience::Ids(_) => None,
        };
        self
    }
}

/// What to do with a claimed row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "L7 and L25 name all four")]
pub enum Settlement {
    /// The delivery is finished.
    Finished(FinalOutcome),
    /// The delivery is finished, and did not reach its recipient: counted as with `Finished`. The cause is for a sample
    /// (L25).
    Failed(FinalOutcome, FailureCause),
    /// The delivery is due again at this moment.
    RetryAt(Timestamp),
    /// No request was sent: the same attempt is due again at this moment.
    Deferred(Timestamp),
}

/// The result of settling a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "L7 names both")]
pub enum Settled {
    /// The row was settled.
    Done,
    /// The token is not the row's latest one. Nothing changed.
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

/// The numbers of what was erased for a user (L17).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "L17 names both")]
pub struct Erased {
    /// Pending rows of these subscriptions.
    pub deliveries: u64,
    /// Unfinished broadcasts to this user alone, and entries of the outbox that are for this user (L22).
    pub broadcasts: u64,
}

/// The size of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct LedgerStats {
    /// Pending rows, leased ones included.
    pub depth: u64,
    /// Rows under a lease that has not expired.
    pub leased: u64,
    /// The earliest due time of the rows that are next in turn at each origin (L18), paused or not, and of due rows that
    /// were not given a turn yet: how long rows have been waiting. Of the origins of push services that every browser of a vendor
    /// uses, such as `fcm.googleapis.com`, and of at most [`STEP`](super::STEP) others.
    pub oldest_due: Option<Timestamp>,
    /// The same by push service. Of due rows without a turn it has the one that is due first. Empty if the ledger does not tell
    /// push services apart.
    pub oldest_due_at: OldestDue,
}

impl LedgerStats {
    /// Makes a value of the three numbers, without push services.
    #[must_use]
    pub fn new(depth: u64, leased: u64, oldest_due: Option<Timestamp>) -> Self {
        Self {
            depth,
            leased,
            oldest_due,
            oldest_due_at: OldestDue::default(),
        }
    }

    /// Makes a value of the two numbers and the earliest due times.
    #[must_use]
    pub fn by_push_service(depth: u64, leased: u64, oldest: OldestDue) -> Self {
        Self {
            depth,
            leased,
            oldest_due: oldest.earliest(),
            oldest_due_at: oldest,
        }
    }
}
