//! The contract of the delivery ledger: the queue is the record of what is left to deliver.

use std::fmt;

use async_trait::async_trait;

use super::{
    Changes, ClaimRequest, ClaimToken, Claims, Cursor, Erased, Expansion, LedgerStats,
    NewBroadcast, NewDelivery, Opened, PageWrite, Pause, Pruned, Settled, Settlement, StoreError,
    SubscriptionRecord, Tally,
};
use crate::broadcast::{BroadcastId, BroadcastStatus, Principal};
use crate::clock::Timestamp;
use crate::subscription::Origin;

/// Keeps broadcasts and their pending deliveries.
///
/// A broadcast is opened, expanded page by page into one row per recipient, its rows are claimed under a
/// lease, and settled. Accepted work is never lost; a second attempt without an answer to the first happens
/// only after a crash or a lost lease.
///
/// # Stability
///
/// Open to implementations outside this crate: see [the module](crate::store#implementing-them). Before 1.0 a minor
/// version may add a required method.
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
///   [`room_for`](ClaimRequest::room_for) of one origin, none of an origin that is paused at `now`, fair over
///   origins (an origin with few rows is not left behind one with many), the oldest of an origin first. It counts
///   the attempt and gives each row a token that no earlier claim had. Of an origin whose pause
///   [is probed](crate::store::PauseReason::is_probed) and whose `until` has come, it takes one row as the probe
///   and moves `until` to the end of that row's lease: of all claimants one asks. When that row is settled or
///   released by its token, and no pause was written meanwhile, `until` is that moment: the next one may ask.
/// - **L6** Of N concurrent claims each row goes to exactly one.
/// - **L7** [`settle`](Self::settle) ends or postpones rows whose token is the latest one given, all in one
///   transaction: [`Settlement::Finished`] deletes the row and counts it in the broadcast,
///   [`Settlement::RetryAt`] makes it due then, and [`Settlement::Deferred`] makes it due then and takes back the attempt.
///   For any other token it changes nothing and answers [`Settled::Lost`]. It does not matter whether the lease has ended, as long as nobody else has claimed. A
///   token is spent once its row is settled or released.
/// - **L8** [`release`](Self::release) makes claimed rows due at once and takes back the attempt, as
///   [`Settlement::Deferred`] to `now` does; a lost token changes nothing.
/// - **L9** [`cancel`](Self::cancel) stops the expansion, and from then on no row of the broadcast is claimed. Recipients
///   that were expected and not yet written count as cancelled. Leased rows may still be settled; a retry, deferral or
///   release of them is counted as cancelled. Rows that are not leased at `now` end as cancelled, in steps: each call ends
///   at most [`STEP`](super::STEP) of them (or all, if that is as cheap), and a caller repeats it until the answer's
///   `pending` stays the same. Claims and repeated calls end the rest, and rows whose lease has ended. Cancelling a
///   finished broadcast changes nothing.
/// - **L10** [`status`](Self::status): `counts` and `state` agree with the rows at any moment, and the counts add up to
///   `recipients`; `done` (or `cancelled`) with nothing pending once the last row is settled. A done broadcast's
///   message is wiped.
/// - **L11** [`pause`](Self::pause) of an origin stores what [`Pause::on_top_of`] makes of it: the later end of two
///   holds, a probed reason outlives a plain one, and an `until` that is not after `now` lifts the pause.
///   [`pauses`](Self::pauses) lists those that are not over at `now`. Everyone on the same database sees them.
/// - **L12** [`expire`](Self::expire) ends rows that are not leased and whose broadcast's deadline is not after `now`,
///   paused or not, at most `limit`, and stops the expansion of such broadcasts; recipients that were expected and
///   not yet written count as expired.
/// - **L13** [`prune`](Self::prune) removes broadcasts with nothing pending that ended before a moment, with their
///   idempotency keys; and pauses and tallies of origins without rows, if both are older (a pause is as old as its `until`,
///   a probed one too). One call is a step: it removes at most [`STEP`](super::STEP) broadcasts and looks at as many
///   origins, and a caller repeats it while [`Pruned::more`]. A broadcast with
///   [`forget_when_over`](NewBroadcast::forget_when_over) is removed as soon as nothing of it is pending.
/// - **L14** [`next_due`](Self::next_due) is not later than the next moment at which `expandable` or `claim` would have
///   something that they have not at `now`; `now` itself where they have. It may be earlier, but is later than
///   `now` where there is nothing to do, so that a worker that waits for it does not spin.
/// - **L15** [`tally`](Self::tally) adds to what is stored of each origin as [`Tally::plus`] does, all in one
///   transaction, and answers the sums in the same order; adding nothing reads. [`tallies`](Self::tallies) lists the
///   origins that said "gone" of late.
/// - **L16** [`underway`](Self::underway) lists broadcasts with something pending or to expand, at most `limit`, in the
///   order of their deadlines.
/// - **L17** [`erase`](Self::erase) ends what is left to deliver to a user, all as cancelled: the rows of these
///   subscriptions in every broadcast, leased ones too, whose tokens are lost; and, as L9 does, broadcasts whose audience
///   [is only for](crate::broadcast::Audience::is_only_for) this user. Their message and audience are wiped when they are
///   over, which they are at once unless a recipient of another owner is leased. It works in steps of at most
///   [`STEP`](super::STEP) rows or open broadcasts, and returns after the last one. Repeating it changes nothing, and
///   completes a call that was dropped.
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
    async fn release(&self, tokens: &[ClaimToken], now: Timestamp) -> Result<(), StoreError> {
        let deferred = |token: &ClaimToken| (*token, Settlement::Deferred(now));
        let rows: Vec<_> = tokens.iter().map(deferred).collect();
        self.settle(&rows, now).await.map(|_| ())
    }

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

    /// Erases what is left to deliver to a user, who has these subscriptions (L17).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn erase(
        &self,
        user: &Principal,
        subscriptions: &[SubscriptionRecord],
        now: Timestamp,
    ) -> Result<Erased, StoreError>;

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

    /// Adds to what origins said of their subscriptions of late (L15); the sums.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn tally(
        &self,
        counts: &[(Origin, Tally)],
        now: Timestamp,
    ) -> Result<Vec<Tally>, StoreError>;

    /// The origins that said "gone" of late (L15).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn tallies(&self) -> Result<Vec<(Origin, Tally)>, StoreError>;

    /// Broadcasts that are not over (L16).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn underway(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<BroadcastStatus>, StoreError>;

    /// Gives up what is past its deadline (L12); how many rows.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn expire(&self, limit: usize, now: Timestamp) -> Result<u64, StoreError>;

    /// Removes broadcasts that ended before a moment, and old origins, in one step (L13).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn prune(&self, ended_before: Timestamp) -> Result<Pruned, StoreError>;

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

    /// Hints that there may be something to do, so that a worker need not wait for its next look.
    ///
    /// Nothing depends on them, which is why there is no number for them and why none is right for every ledger.
    /// Where a ledger can tell cheaply, it hints when a broadcast was opened, a schedule was written, or claimed
    /// rows were given back. They are heard from this call on.
    fn changes(&self) -> Changes {
        Changes::none()
    }
}
