//! The contract of the delivery ledger: the queue is the record of what is left to deliver.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::broadcast::{Audience, BroadcastId, BroadcastStatus, FinalOutcome};
use crate::clock::Timestamp;
use crate::message::Message;
use crate::subscription::{EndpointKey, Origin};

/// Keeps broadcasts and their pending deliveries.
///
/// A broadcast is opened, expanded page by page into one row per recipient, its rows are claimed under a
/// lease, and settled. Accepted work is never lost; a second attempt without an answer to the first happens
/// only after a crash or a lost lease.
///
/// # Contract
///
/// - **L1** [`open`](Self::open) stores a broadcast whole: after it returned, the broadcast survives a crash (as
///   far as the back end is durable).
/// - **L2** `open` with an idempotency key that is known answers [`Opened::Repeat`] with the first broadcast when
///   the fingerprint is the same, [`Opened::Conflict`] when it is not, and changes nothing. Of N concurrent calls
///   with one key exactly one opens. Keys are kept as long as their broadcast. An id that is known answers
///   [`Opened::Repeat`], so that `open` may be called again where its answer was lost.
/// - **L3** [`expandable`](Self::expandable) names broadcasts that are due (`send_at` is not after `now`), not
///   cancelled, not past their deadline and not at [`Cursor::End`], the least recently expanded first.
/// - **L4** [`enqueue_page`](Self::enqueue_page) writes rows and moves the cursor in one transaction, where the
///   cursor still is the expected one; else it answers [`PageWrite::Stale`] and changes nothing. A recipient
///   that is in the broadcast already and pending is not written twice. At [`Cursor::End`] `recipients` becomes
///   exact.
/// - **L5** [`claim`](Self::claim) takes rows that are due and rows whose lease has ended, at most `limit`, at most
///   `per_origin` of one origin, none of an origin in `exclude` or paused at `now`, fair over origins (an origin
///   with few rows is not left behind one with many), the oldest of an origin first. It counts the attempt and
///   gives each row a token that no earlier claim had.
/// - **L6** Of N concurrent claims each row goes to exactly one.
/// - **L7** [`settle`](Self::settle) ends or postpones rows whose token is the latest one given, all in one
///   transaction: [`Settlement::Finished`] deletes the row and counts it in the broadcast,
///   [`Settlement::RetryAt`] makes it due then. For any other token it changes nothing and answers
///   [`Settled::Lost`]. It does not matter whether the lease has ended, as long as nobody else has claimed. A
///   token is spent once its row is settled or released.
/// - **L8** [`release`](Self::release) makes claimed rows due at once and takes back the attempt; a lost token
///   changes nothing.
/// - **L9** [`cancel`](Self::cancel) ends all rows that are not leased at `now` as cancelled and stops the expansion;
///   recipients that were expected and not yet written count as cancelled too. Leased rows may still be settled;
///   a retry or release of them is counted as cancelled, and when their lease ends they are ended, not claimed
///   again. Repeating it, or cancelling what is done, changes nothing.
/// - **L10** [`status`](Self::status): `counts` and `state` agree with the rows at any moment, and the counts add up to
///   `recipients`; `done` (or `cancelled`) with nothing pending once the last row is settled. A done broadcast's
///   message is wiped.
/// - **L11** [`pause`](Self::pause) of an origin keeps the later end of two; an `until` that is not after `now` lifts the
///   pause. [`pauses`](Self::pauses) lists those that hold at `now`. Everyone on the same database sees them.
/// - **L12** [`expire`](Self::expire) ends rows that are not leased and whose broadcast's deadline is not after `now`,
///   paused or not, at most `limit`, and stops the expansion of such broadcasts; recipients that were expected and
///   not yet written count as expired.
/// - **L13** [`prune`](Self::prune) removes broadcasts with nothing pending that ended before a moment, with their
///   idempotency keys.
/// - **L14** [`next_due`](Self::next_due) is not later than the next moment at which `expandable` or `claim` would have
///   something that they have not at `now`; `now` itself where they have. It may be earlier, but is later than
///   `now` where there is nothing to do, so that a worker that waits for it does not spin.
#[async_trait]
pub trait DeliveryLedger: fmt::Debug + Send + Sync + 'static {
    /// Accepts a broadcast (L1, L2).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn open(&self, broadcast: &NewBroadcast, now: Timestamp) -> Result<Opened, StoreError>;

    /// Broadcasts whose audience is not fully written out (L3).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn expandable(&self, limit: usize, now: Timestamp) -> Result<Vec<Expansion>, StoreError>;

    /// Writes one page of recipients (L4).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn enqueue_page(
        &self,
        broadcast: BroadcastId,
        expected: &Cursor,
        rows: &[NewDelivery],
        next: &Cursor,
        now: Timestamp,
    ) -> Result<PageWrite, StoreError>;

    /// Takes due rows under a lease (L5, L6).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn claim(&self, request: &ClaimRequest, now: Timestamp) -> Result<Claims, StoreError>;

    /// Ends or postpones claimed rows (L7); one answer per row, in order.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn settle(
        &self,
        rows: &[(ClaimToken, Settlement)],
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError>;

    /// Gives claimed rows back without an attempt (L8).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn release(&self, tokens: &[ClaimToken], now: Timestamp) -> Result<(), StoreError>;

    /// Cancels a broadcast (L9); `None` when there is none of this id.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn cancel(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError>;

    /// Where a broadcast stands (L10); `None` when there is none of this id.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn status(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError>;

    /// Pauses an origin, or lifts its pause (L11).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn pause(&self, pause: &Pause, now: Timestamp) -> Result<(), StoreError>;

    /// The pauses that hold (L11).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn pauses(&self, now: Timestamp) -> Result<Vec<Pause>, StoreError>;

    /// Gives up what is past its deadline (L12); how many rows.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn expire(&self, limit: usize, now: Timestamp) -> Result<u64, StoreError>;

    /// Forgets finished broadcasts that ended before a moment (L13); how many.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn prune(&self, ended_before: Timestamp) -> Result<u64, StoreError>;

    /// When there will be something to do (L14); `None` when nothing is pending at all.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError>;

    /// How full the ledger is.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn stats(&self, now: Timestamp) -> Result<LedgerStats, StoreError>;

    /// What the database server's clock says; `None` for a back end on this machine's own clock.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn server_time(&self) -> Result<Option<Timestamp>, StoreError>;
}

/// A broadcast to accept.
#[derive(Clone, Debug)]
#[non_exhaustive]
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
        }
    }
}

/// An `Idempotency-Key` and what it was first used for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
#[non_exhaustive]
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
#[non_exhaustive]
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
#[non_exhaustive]
pub struct ClaimRequest {
    /// At most so many rows.
    pub limit: usize,
    /// At most so many of one origin.
    pub per_origin: usize,
    /// How long they are the claimant's.
    pub lease: Duration,
    /// Origins to leave out: those that the claimant is busy with.
    pub exclude: Vec<Origin>,
}

impl ClaimRequest {
    /// So many rows of any origin, for so long.
    #[must_use]
    pub const fn new(limit: usize, lease: Duration) -> Self {
        Self {
            limit,
            per_origin: limit,
            lease,
            exclude: Vec::new(),
        }
    }
}

/// The right to settle one claimed row. A later claim of the row makes it worthless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
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
#[non_exhaustive]
pub struct Claims {
    /// The rows.
    pub rows: Vec<Claimed>,
    /// Each broadcast's message, once.
    pub messages: HashMap<BroadcastId, ClaimedMessage>,
}

/// One claimed row.
#[derive(Clone, Debug)]
#[non_exhaustive]
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
#[non_exhaustive]
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
#[expect(clippy::exhaustive_enums, reason = "L7 names both")]
pub enum Settlement {
    /// It is at its end.
    Finished(FinalOutcome),
    /// It is tried again, not before this moment.
    RetryAt(Timestamp),
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

/// An origin that is not asked for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pause {
    /// Whose.
    pub origin: Origin,
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub reason: PauseReason,
}

impl Pause {
    /// A pause of an origin.
    #[must_use]
    pub const fn new(origin: Origin, until: Timestamp, reason: PauseReason) -> Self {
        Self {
            origin,
            until,
            reason,
        }
    }
}

/// Why an origin is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PauseReason {
    /// It asked for it (429, 406, `Retry-After`).
    RateLimited,
    /// It does not answer.
    Unreachable,
    /// It refuses us as a sender.
    SenderFault,
}

impl PauseReason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::RateLimited, Self::Unreachable, Self::SenderFault];

    /// The name that stores and JSON use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Unreachable => "unreachable",
            Self::SenderFault => "sender_fault",
        }
    }

    /// The reason of a stored name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

/// How full the ledger is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
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
