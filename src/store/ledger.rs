//! The contract of the delivery ledger: the queue is the record of what is left to deliver.

use std::fmt;

use async_trait::async_trait;

use super::{
    BroadcastCursor, BroadcastFilter, BroadcastPage, Change, Changes, ClaimRequest, ClaimToken,
    Claims, Cursor, Erased, Expansion, FailureSample, LedgerStats, NewBroadcast, NewDelivery,
    Opened, OutboxEntry, OutboxSettled, OutboxSettlement, OutboxStats, PageWrite, Pause, Pruned,
    RefusedEntry, Settled, Settlement, StoreError, SubscriptionRecord, Tally,
};
use crate::broadcast::{BroadcastId, BroadcastStatus, Principal};
use crate::clock::Timestamp;
#[cfg(doc)]
use crate::message::Urgency;
use crate::subscription::Origin;

/// A store of broadcasts and their pending deliveries.
///
/// A broadcast is opened, then expanded page by page into one row per recipient. Rows are claimed under a lease and
/// settled. Accepted work is never lost. A second attempt without a response to the first one happens only after a
/// crash or a lost lease.
///
/// # Stability
///
/// Open to implementations outside this crate: see [the module](crate::store#implementing-them). Before 1.0 a minor
/// version may add a required method.
///
/// # Contract
///
/// That these sentences keep two processes from sending one row, whatever crashes or stands still, is checked by a model
/// of them (`src/store/ledger_protocol.rs`).
///
/// - **L1** [`open`](Self::open) stores a whole broadcast, and its [first page](NewBroadcast::first_page) if it has one,
///   in one transaction: once it returns, both survive a crash (as far as the back end is durable).
/// - **L2** `open` with a known idempotency key returns [`Opened::Repeat`] with the first broadcast if the
///   fingerprint is the same, else [`Opened::Conflict`], and changes nothing. Of N concurrent calls with one key
///   exactly one opens, and the others write no rows. Keys are kept as long as their broadcast. A known id returns
///   [`Opened::Repeat`], so `open` may be repeated if its response was lost.
/// - **L3** [`expandable`](Self::expandable) lists broadcasts that are due (`send_at` is not after `now`), not
///   cancelled, not paused (L21), not past their deadline and not at [`Cursor::End`]: first those of [`Urgency::High`], at
///   most seven of eight of `limit` while there are others, then the others, each in the order of the times from which their
///   next page may be written: the due time, or the time of the last page. Of eight lists of one, one has another, as
///   [`shares`](crate::store::rules::shares) has it. One with a [pace](NewBroadcast::pace) is listed from that time on (L20).
///   [`Expansion::is_urgent`] says which are the first. One whose audience, cursor or pace cannot be read is an
///   [`Expansion::unreadable`], and does not keep others from being listed.
/// - **L4** [`enqueue_page`](Self::enqueue_page) writes rows and moves the cursor in one transaction if the cursor is
///   the expected one; else it returns [`PageWrite::Stale`] and changes nothing. A recipient that is pending in the
///   broadcast already is not written twice. At [`Cursor::End`] `recipients` becomes exact. `open` writes a first page as
///   this call writes one from [`Cursor::Start`]. A ledger without room for its rows leaves the page out as a whole: the
///   broadcast is then expanded from its start, as one without a page is.
/// - **L5** [`claim`](Self::claim) takes due rows and rows whose lease has expired, at most `limit`, at most
///   [`most_of`](ClaimRequest::most_of) of one origin, none of an origin that is paused at `now`, fair over origins
///   (an origin with few rows does not wait for one with many), in the order of their turns (L18). It looks at a bounded
///   number of origins that the request admits; if it could claim nothing of them, and others may stand behind,
///   [`Claims::more`] says so. With [`per_origin`](ClaimRequest::per_origin) of 0 it looks at the origins of
///   [`origins`](ClaimRequest::origins) alone: what it costs does not depend on the number of others. It counts the attempt
///   and gives each row a token that no earlier claim had. If the pause of an origin
///   [is probed](crate::store::PauseReason::is_probed) and its `until` has come, it takes one row as the probe and moves
///   `until` to the expiry of that row's lease: one of all claimants sends a request. When that row is settled or
///   released by its token, and no pause was written meanwhile, `until` becomes that moment: the next claimant may
///   send one. A message that cannot be read, or whose broadcast's audience or counts cannot be read, is missing
///   from [`Claims::messages`], and does not keep other rows from being claimed. A message to a user is
///   [only for](super::ClaimedMessage::only_for) this user: the claimant sends it to no subscription that has become another
///   user's since its row was written. Messages to tags and ids are sent to those whose rows were written.
/// - **L6** Of N concurrent claims each row goes to exactly one.
/// - **L7** [`settle`](Self::settle) finishes or postpones rows whose token is the latest one given, all in one
///   transaction: [`Settlement::Finished`] deletes the row and counts it in the broadcast, [`Settlement::RetryAt`]
///   makes it due then, and [`Settlement::Deferred`] makes it due then and takes back the attempt. For any other
///   token it changes nothing and returns [`Settled::Lost`]. An expired lease does not matter as long as no other
///   call has claimed the row. A token is spent once its row is settled or released. If the counts of a broadcast cannot be
///   read, its rows are settled without being counted.
/// - **L8** [`release`](Self::release) makes claimed rows due at once and takes back the attempt, as
///   [`Settlement::Deferred`] to `now` does; a lost token changes nothing.
/// - **L9** [`cancel`](Self::cancel) stops the expansion, and from then on no row of the broadcast is claimed. Expected
///   recipients that are not written yet count as cancelled. Leased rows may still be settled; a retry, deferral or
///   release of them counts as cancelled. Rows that are not leased at `now` are finished as cancelled, in steps: each call
///   finishes at most [`STEP`](super::STEP) of them (or all, if that is as cheap), and a caller repeats it until the
///   returned `pending` stays the same. Claims and repeated calls finish the rest, and rows whose lease has expired.
///   Cancelling a finished broadcast changes nothing.
/// - **L10** [`status`](Self::status): `counts` and `state` agree with the rows at any moment, and the counts add up
///   to `recipients`. The state is `done` (or `cancelled`) with nothing pending once the last row is settled. The
///   message of a finished broadcast is wiped.
/// - **L11** [`pause`](Self::pause) of an origin stores the result of [`Pause::on_top_of`]: the later `until` of two
///   holds, a probed reason outlives a plain one, and an `until` that is not after `now` lifts the pause.
///   [`pauses`](Self::pauses) lists those that are not over at `now`. All processes on the same database see them. A pause
///   that cannot be read is left out of the list and replaced by the next one; until its stored end nothing of its origin
///   is claimed, if that can be read.
/// - **L12** [`expire`](Self::expire) finishes rows that are not leased and whose broadcast's deadline is not after
///   `now`, paused or not, at most `limit`, and stops the expansion of such broadcasts. Expected recipients that are
///   not written yet count as expired. It also makes rows due whose due time, or the end of whose lease, is more than
///   [`LONGEST_WAIT`](super::LONGEST_WAIT) after `now`: a wrong clock wrote it. One call looks at a part of the origins, and
///   at no fewer late broadcasts than [`STEP`](super::STEP), if there are so many. A broadcast whose counts cannot be read is removed after its last row.
/// - **L13** [`prune`](Self::prune) removes broadcasts with nothing pending that ended before a moment, with their
///   idempotency keys; also pauses and tallies of origins without pending rows if neither is younger (the age of a
///   pause, probed or not, is that of its `until`). One call is a step: it removes at most [`STEP`](super::STEP)
///   broadcasts and examines as many origins, and a caller repeats it while [`Pruned::more`]. A broadcast with
///   [`forget_when_over`](NewBroadcast::forget_when_over) is removed as soon as nothing of it is pending.
/// - **L14** [`next_due`](Self::next_due) is not later than the next moment at which `expandable` or `claim` would
///   have something that they do not have at `now`, and is `now` itself if they have something. It is not later than
///   the next deadline of a broadcast that is not over. It may be earlier, but is later than `now` if there is nothing
///   to do, so a worker that waits for it does not spin.
/// - **L15** [`tally`](Self::tally) adds to the stored tally of each origin as [`Tally::plus`] does, all in one
///   transaction, and returns the sums in the same order. Adding zero reads. [`tallies`](Self::tallies) lists the
///   tallies whose `gone` is above zero. One that cannot be read counts as zero.
/// - **L16** [`underway`](Self::underway) lists broadcasts with something pending or to expand, at most `limit`, in the
///   order of their deadlines. One that cannot be read is left out.
/// - **L17** [`erase`](Self::erase) cancels what is pending for a user: the rows of these subscriptions in every
///   broadcast, leased ones too, whose tokens are lost; and, as L9 does, broadcasts whose audience
///   [is only for](crate::broadcast::Audience::is_only_for) this user. Their message and audience are wiped when they are
///   over, which is at once unless a row of another owner is leased. It works in steps of at most
///   [`STEP`](super::STEP) rows or open broadcasts, and returns after the last one. A broadcast whose audience cannot
///   be read is left to its deadline, and does not stop the rest. Repeating it changes nothing, and completes a call that
///   was dropped.
/// - **L18** Within an origin rows take turns. A row becomes ready when it is written and due, at the time of its retry,
///   and when its lease has expired: the latter two at the first claim from then on, at most [`STEP`](super::STEP) rows
///   per claim, retries in the order of their times. If the time of more rows had come, [`Claims::more`] says so, and a
///   caller repeats the claim at once: rows of a paused origin may stand in front of others. From then on it may be claimed, also by a process with a slower
///   clock. Ready rows of one [band](crate::store::rules::band) of urgency stand in one line. The rows of a broadcast
///   stand in it one behind the other, in the order in which they became ready and however many pages they were written
///   in. Beside them, row by row, stand those of each other broadcast, and a broadcast that comes later begins beside the
///   rows that are next. So a message to one subscriber waits for a row or two of each broadcast, and not for a whole
///   one. A claim shares its rows among the bands as [`shares`](crate::store::rules::shares) does: urgent messages come
///   first, and none is without a share. The cost of a claim depends neither on the number of rows nor on that of
///   broadcasts.
/// - **L19** A lease may end early, at the next claim of another process, if the process that claimed the row is known to
///   have ended: the row becomes due as one whose lease has expired, at most [`STEP`](super::STEP) rows per claim, and a
///   probe among them is over. [`next_due`](Self::next_due) counts such rows by their leases, or says when to look. A
///   ledger that cannot tell a process that has ended from one that is only silent changes its [`epoch`](Self::epoch)
///   before others may claim the rows of a process that lives.
/// - **L20** The recipients of a broadcast with a [pace](NewBroadcast::pace) are written at this rate, whatever the number
///   of processes: the time from which its next page may be written is what
///   [`next_page_at`](crate::store::rules::BroadcastProgress::next_page_at) returns for the new rows of each page. A time
///   in which nothing was written is not made up for. A stored time that no right clock wrote counts as over.
/// - **L21** [`hold`](Self::hold) pauses a broadcast: until it is called to let it go on, the broadcast is not expanded and
///   none of its rows is claimed by any process. Leased rows may be settled; rows that are due again wait. Rows of a paused
///   broadcast are not in the way of others: claims put ready ones aside, at most [`STEP`](super::STEP) rows per claim, and
///   say by [`Claims::more`] that others may stand behind them. They stay pending, and [`next_due`](Self::next_due) does not
///   count them. When the broadcast goes on they become ready again, at most [`STEP`](super::STEP) rows per call or claim,
///   with turns of that moment (L18): beside the rows that are next then, as a broadcast that comes later. Cancelling, erasing and expiring end them as they end others. Repeating a call changes
///   nothing, nor does one for a broadcast that is cancelled or over.
/// - **L22** A ledger may [have an outbox](Self::has_outbox): entries that an application writes in transactions of its own.
///   [`outbox`](Self::outbox) lists committed entries that wait, at most `limit`, in the order of their numbers. One that is
///   committed late is listed although those with higher numbers were settled before.
///   [`settle_outbox`](Self::settle_outbox) settles entries, all in one transaction, in the order given: of several with one idempotency key
///   the first opens. [`OutboxSettlement::Open`] removes the
///   entry and opens its broadcast as `open` does (L1, L2, L4): for a known id or a repeated request it only removes the
///   entry, and at a conflict it refuses the entry. [`OutboxSettlement::Refuse`] refuses it. An entry that does not wait, or
///   that another call is settling, is [`OutboxSettled::Taken`] and is left as it is: of N concurrent calls one settles it. A
///   refused entry is kept, is not listed by `outbox`, and is in the way of none: [`refused_outbox`](Self::refused_outbox)
///   lists those refused, in the order of their numbers; [`retry_outbox`](Self::retry_outbox) lets one wait again, and
///   [`drop_outbox`](Self::drop_outbox) removes one. [`outbox_stats`](Self::outbox_stats) counts both kinds.
///   [`erase`](Self::erase) removes entries of both kinds whose audience is `{"user": name}` of the user, and
///   [counts them as broadcasts](super::Erased::broadcasts).
/// - **L23** [`settle_with`](Self::settle_with) makes changes of subscriptions as
///   [`SubscriptionStore::apply`](super::SubscriptionStore::apply) does (S11, S12, S18), and settles rows (L7), in one
///   transaction. A ledger that does not keep the subscriptions, or not in the same database, returns `None` and changes
///   nothing.
/// - **L24** [`list_broadcasts`](Self::list_broadcasts) returns broadcasts that the filter
///   [takes](super::BroadcastFilter::takes), the newest first: by the time of acceptance, then by id, both descending,
///   strictly behind `after`, at most `limit`; and the place behind which the list goes on, or `None` if there are no more.
///   One call looks at no more than [`STEP`](super::STEP) broadcasts: where few match, it returns few or none, and the place.
///   With a filter [of open ones](super::BroadcastFilter::is_of_open) it looks only at those that are not over. A broadcast
///   that is neither opened nor removed during a walk and that the filter takes throughout is returned exactly once. One
///   that cannot be read is left out.
/// - **L25** [`Settlement::Failed`] finishes a row as [`Settlement::Finished`] does (L7), and adds a sample to its broadcast
///   as [`sample`](super::rules::sample) decides, in the same transaction: at most [`SAMPLES`](super::SAMPLES) of a
///   broadcast. A lost token adds none, and no other settlement reads or writes samples.
///   [`failure_samples`](Self::failure_samples) returns them. They are removed with their broadcast. Those that cannot be
///   read are left out.
/// - **L26** The [trace parent](NewBroadcast::trace_parent) of a broadcast is in its [`Expansion`]s and in the
///   [messages](super::ClaimedMessage) of claims. Nothing else depends on it: one that cannot be read is missing, and the
///   message is sent.
#[async_trait]
pub trait DeliveryLedger: fmt::Debug + Send + Sync + 'static {
    /// Accepts a broadcast (L1, L2).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn open(&self, broadcast: &NewBroadcast, now: Timestamp) -> Result<Opened, StoreError>;

    /// Lists broadcasts whose audience is not fully expanded (L3).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn expandable(&self, limit: usize, now: Timestamp) -> Result<Vec<Expansion>, StoreError>;

    /// Writes one page of recipients and moves the cursor (L4).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn enqueue_page(
        &self,
        broadcast: BroadcastId,
        expected: &Cursor,
        rows: &[NewDelivery],
        next: &Cursor,
        now: Timestamp,
    ) -> Result<PageWrite, StoreError>;

    /// Claims due rows under a lease (L5, L6).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn claim(&self, request: &ClaimRequest, now: Timestamp) -> Result<Claims, StoreError>;

    /// Finishes or postpones claimed rows (L7). Returns one result per row, in order.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn settle(
        &self,
        rows: &[(ClaimToken, Settlement)],
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError>;

    /// Makes changes of the subscriptions that this store keeps, and settles rows, in one transaction (L23). Returns `None`
    /// if it cannot: then the caller makes the changes and settles the rows after that.
    ///
    /// It is called only if the subscriptions are in this store. The changes contain no
    /// [`Purge`](Change::Purge). The default returns `None`.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable, or [`Corrupt`](super::StoreErrorKind::Corrupt) if a row cannot be read.
    async fn settle_with(
        &self,
        changes: &[Change],
        rows: &[(ClaimToken, Settlement)],
        now: Timestamp,
    ) -> Result<Option<Vec<Settled>>, StoreError> {
        let _ = (changes, rows, now);
        Ok(None)
    }

    /// Puts claimed rows back without an attempt (L8).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn release(&self, tokens: &[ClaimToken], now: Timestamp) -> Result<(), StoreError> {
        let deferred = |token: &ClaimToken| (*token, Settlement::Deferred(now));
        let rows: Vec<_> = tokens.iter().map(deferred).collect();
        self.settle(&rows, now).await.map(|_| ())
    }

    /// Cancels a broadcast (L9). Returns `None` if the id is unknown.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn cancel(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError>;

    /// Pauses a broadcast, or lets it go on (L21). Returns `None` if the id is unknown.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn hold(
        &self,
        broadcast: BroadcastId,
        is_held: bool,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError>;

    /// Erases what is pending for a user with these subscriptions (L17).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn erase(
        &self,
        user: &Principal,
        subscriptions: &[SubscriptionRecord],
        now: Timestamp,
    ) -> Result<Erased, StoreError>;

    /// Returns the status of a broadcast (L10), or `None` if the id is unknown.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn status(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError>;

    /// Lists broadcasts for an operator, page by page (L24).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn list_broadcasts(
        &self,
        filter: &BroadcastFilter,
        after: Option<&BroadcastCursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<BroadcastPage, StoreError>;

    /// Returns the samples of failed deliveries of a broadcast (L25), none if it is unknown.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn failure_samples(
        &self,
        broadcast: BroadcastId,
    ) -> Result<Vec<FailureSample>, StoreError>;

    /// Pauses an origin, or lifts its pause (L11).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn pause(&self, pause: &Pause, now: Timestamp) -> Result<(), StoreError>;

    /// Lists the pauses that are not over (L11).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn pauses(&self, now: Timestamp) -> Result<Vec<Pause>, StoreError>;

    /// Adds to the tallies of origins (L15). Returns the sums.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn tally(
        &self,
        counts: &[(Origin, Tally)],
        now: Timestamp,
    ) -> Result<Vec<Tally>, StoreError>;

    /// Lists the tallies of origins with "gone" responses (L15).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn tallies(&self) -> Result<Vec<(Origin, Tally)>, StoreError>;

    /// Lists broadcasts that are not over (L16).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn underway(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<BroadcastStatus>, StoreError>;

    /// Finishes rows past their deadline (L12). Returns their number.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn expire(&self, limit: usize, now: Timestamp) -> Result<u64, StoreError>;

    /// Removes broadcasts that ended before a moment, and old origins, in one step (L13).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn prune(&self, ended_before: Timestamp) -> Result<Pruned, StoreError>;

    /// Returns the time of the next work (L14), or `None` if nothing is pending.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError>;

    /// Returns the size of the ledger.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn stats(&self, now: Timestamp) -> Result<LedgerStats, StoreError>;

    /// Whether the ledger has an outbox (L22). Default: no. Without one the other calls for it need not be implemented.
    fn has_outbox(&self) -> bool {
        false
    }

    /// Lists waiting entries of the outbox (L22).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn outbox(&self, limit: usize) -> Result<Vec<OutboxEntry>, StoreError> {
        let _ = limit;
        Ok(Vec::new())
    }

    /// Settles entries of the outbox, named by their [`seq`](OutboxEntry::seq) (L22). Returns one result per entry, in
    /// order.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable, or if it cannot store one of the broadcasts. Nothing is changed then.
    async fn settle_outbox(
        &self,
        entries: &[(i64, OutboxSettlement)],
        now: Timestamp,
    ) -> Result<Vec<OutboxSettled>, StoreError> {
        let _ = now;
        Ok(vec![OutboxSettled::Taken; entries.len()])
    }

    /// Counts the entries of the outbox (L22).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn outbox_stats(&self) -> Result<OutboxStats, StoreError> {
        Ok(OutboxStats::default())
    }

    /// Lists refused entries of the outbox, at most `limit` (L22).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn refused_outbox(&self, limit: usize) -> Result<Vec<RefusedEntry>, StoreError> {
        let _ = limit;
        Ok(Vec::new())
    }

    /// Lets a refused entry wait again (L22). Returns `false` if there is none of this number.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn retry_outbox(&self, seq: i64) -> Result<bool, StoreError> {
        let _ = seq;
        Ok(false)
    }

    /// Removes a refused entry (L22). Returns `false` if there is none of this number.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn drop_outbox(&self, seq: i64) -> Result<bool, StoreError> {
        let _ = seq;
        Ok(false)
    }

    /// Returns the time of the database server's clock; `None` for a back end that uses this machine's clock.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn server_time(&self) -> Result<Option<Timestamp>, StoreError>;

    /// The current epoch of the claims made through this ledger; `None` while others may hold this process for dead (L19).
    ///
    /// Read before a claim, and again just before the request for each of its rows: no request begins unless both are the
    /// same, and nothing is claimed during `None`. An epoch does not come back. A call reads what is known in this process
    /// and does not wait.
    ///
    /// The default is always the same epoch: right for every ledger whose leases end only by their time, or by the certain
    /// end of a process.
    fn epoch(&self) -> Option<u64> {
        Some(0)
    }

    /// Describes the ledger for the log at start: the back end, its address and the version of its layout, without secrets.
    fn description(&self) -> String {
        format!("{self:?}")
    }

    /// Returns hints that there may be something to do, so that a worker polls earlier.
    ///
    /// Nothing depends on hints, so no contract sentence requires them, and [`Changes::none`] is right for every
    /// ledger. A ledger that can do so cheaply sends a hint when a broadcast was opened, a schedule was written, an entry of
    /// the outbox was committed, or claimed rows were released. Hints are received from this call on.
    fn changes(&self) -> Changes {
        Changes::none()
    }
}
