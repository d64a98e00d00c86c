//! The ledger in SQLite. Each operation is one job of a thread.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;

use super::broadcasts::{self, Stored};
use super::connection::Connection;
use super::erase::Erasure;
use super::{
    SqliteStore, claims, damage, expansion, far_rows, holding, listing, outbox, pauses, samples,
    schema, subscriptions, tallies, threads,
};
use crate::broadcast::{BroadcastId, BroadcastStatus, Principal};
use crate::clock::Timestamp;
use crate::store::{
    BroadcastCursor, BroadcastFilter, BroadcastPage, Change, Changes, ClaimRequest, ClaimToken,
    Claims, Cursor, DeliveryLedger, Erased, Expansion, FailureSample, LedgerStats, NewBroadcast,
    NewDelivery, Opened, OutboxEntry, OutboxSettled, OutboxSettlement, OutboxStats, PageWrite,
    Pause, Pruned, RefusedEntry, Settled, Settlement, StoreError, StoreErrorKind,
    SubscriptionRecord, Tally,
};
use crate::subscription::Origin;

impl SqliteStore {
    /// Runs a change of the queue. If it meets a row that cannot be read, ends such rows and runs it again. Where the cause is
    /// another one, it does not search for such rows again for a while.
    async fn despite_damage<T, F>(
        &self,
        now: Timestamp,
        change: impl Fn() -> F + Send + Sync,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        match self.write(change()).await {
            Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                let until = Timestamp::from_millis(self.searched_until.load(Ordering::Relaxed));
                // A clock that was set back does not make it wait longer.
                if now < until && until.since(now) <= damage::SEARCH_AGAIN {
                    return Err(error);
                }
                let ended = self.write(move |conn| damage::end_unreadable(conn, now));
                match ended.await? {
                    0 => {
                        let until = (now + damage::SEARCH_AGAIN).as_millis();
                        self.searched_until.store(until, Ordering::Relaxed);
                        Err(error)
                    }
                    _ => self.write(change()).await,
                }
            }
            done => done,
        }
    }
}

#[async_trait]
impl DeliveryLedger for SqliteStore {
    async fn open(&self, broadcast: &NewBroadcast, now: Timestamp) -> Result<Opened, StoreError> {
        let new = broadcast.clone();
        self.write(move |conn| broadcasts::open(conn, &new, now))
            .await
    }

    async fn expandable(&self, limit: usize, now: Timestamp) -> Result<Vec<Expansion>, StoreError> {
        let take = self.listings.fetch_add(1, Ordering::Relaxed);
        self.read(move |conn| expansion::expandable(conn, limit, take, now))
            .await
    }

    async fn enqueue_page(
        &self,
        broadcast: BroadcastId,
        expected: &Cursor,
        rows: &[NewDelivery],
        next: &Cursor,
        now: Timestamp,
    ) -> Result<PageWrite, StoreError> {
        let (expected, next, rows) = (*expected, *next, rows.to_vec());
        self.write(move |conn| expansion::enqueue_page(conn, broadcast, expected, &rows, next, now))
            .await
    }

    async fn claim(&self, request: &ClaimRequest, now: Timestamp) -> Result<Claims, StoreError> {
        self.despite_damage(now, || {
            let request = request.clone();
            let liveness = self.threads.liveness();
            let is_due = OnceCell::new();
            move |conn: &Connection| {
                let worker = {
                    let mut liveness = threads::lock(&liveness);
                    let is_due = *is_due.get_or_init(|| liveness.is_due());
                    liveness.tend(conn, is_due, now)?;
                    liveness.own()
                };
                claims::claim(conn, &request, worker, now)
            }
        })
        .await
    }

    async fn settle(
        &self,
        rows: &[(ClaimToken, Settlement)],
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        let rows = rows.to_vec();
        self.write(move |conn| claims::settle(conn, &rows, now))
            .await
    }

    async fn settle_with(
        &self,
        changes: &[Change],
        rows: &[(ClaimToken, Settlement)],
        now: Timestamp,
    ) -> Result<Option<Vec<Settled>>, StoreError> {
        let (changes, rows) = (changes.to_vec(), rows.to_vec());
        self.write(move |conn| {
            subscriptions::apply_all(conn, &changes, now)?;
            claims::settle(conn, &rows, now).map(Some)
        })
        .await
    }

    async fn cancel(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        self.write(move |conn| broadcasts::cancel(conn, broadcast, now))
            .await
    }

    async fn hold(
        &self,
        broadcast: BroadcastId,
        is_held: bool,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        self.write(move |conn| holding::hold(conn, broadcast, is_held, now))
            .await
    }

    async fn erase(
        &self,
        user: &Principal,
        subscriptions: &[SubscriptionRecord],
        now: Timestamp,
    ) -> Result<Erased, StoreError> {
        let mut erased = Erased::default();
        if self.has_outbox() {
            // First: what a worker opens meanwhile is among the broadcasts.
            erased.broadcasts = self.erase_from_outbox(user).await?;
        }
        let erasure = Arc::new(Erasure::new(user, subscriptions, now));
        let mut last = Some(i64::MIN);
        while let Some(after) = last {
            let erasure = Arc::clone(&erasure);
            let step = self.write(move |conn| erasure.step(conn, after)).await?;
            erased.deliveries += step.erased.deliveries;
            erased.broadcasts += step.erased.broadcasts;
            last = step.last;
        }
        Ok(erased)
    }

    async fn status(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        self.read_briefly(move |conn| {
            let stored = Stored::by_id(conn, broadcast)?;
            Ok(stored.map(|stored| stored.progress.status(now)))
        })
        .await
    }

    async fn list_broadcasts(
        &self,
        filter: &BroadcastFilter,
        after: Option<&BroadcastCursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<BroadcastPage, StoreError> {
        let (filter, after) = (filter.clone(), after.copied());
        self.read(move |conn| listing::broadcasts(conn, &filter, after.as_ref(), limit, now))
            .await
    }

    async fn failure_samples(
        &self,
        broadcast: BroadcastId,
    ) -> Result<Vec<FailureSample>, StoreError> {
        self.read(move |conn| samples::of(conn, broadcast)).await
    }

    async fn pause(&self, pause: &Pause, now: Timestamp) -> Result<(), StoreError> {
        let pause = pause.clone();
        self.write(move |conn| pauses::pause(conn, &pause, now))
            .await
    }

    async fn pauses(&self, now: Timestamp) -> Result<Vec<Pause>, StoreError> {
        self.read(move |conn| pauses::pauses(conn, now)).await
    }

    async fn tally(
        &self,
        counts: &[(Origin, Tally)],
        now: Timestamp,
    ) -> Result<Vec<Tally>, StoreError> {
        let counts = counts.to_vec();
        self.write(move |conn| tallies::tally(conn, &counts, now))
            .await
    }

    async fn tallies(&self) -> Result<Vec<(Origin, Tally)>, StoreError> {
        self.read(tallies::tallies).await
    }

    async fn underway(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<BroadcastStatus>, StoreError> {
        self.read(move |conn| broadcasts::underway(conn, limit, now))
            .await
    }

    async fn expire(&self, limit: usize, now: Timestamp) -> Result<u64, StoreError> {
        self.despite_damage(now, || {
            move |conn: &Connection| {
                far_rows::pull(conn, now)?;
                broadcasts::expire(conn, limit, now)
            }
        })
        .await
    }

    async fn prune(&self, ended_before: Timestamp) -> Result<Pruned, StoreError> {
        let last = self.pruned_origin.load(Ordering::Relaxed);
        let step = self.write(move |conn| broadcasts::prune(conn, ended_before, last));
        let (pruned, last) = step.await?;
        self.pruned_origin.store(last, Ordering::Relaxed);
        Ok(pruned)
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let liveness = self.threads.liveness();
        self.read(move |conn| {
            let own = threads::lock(&liveness).own();
            pauses::next_due(conn, own, now)
        })
        .await
    }

    async fn stats(&self, now: Timestamp) -> Result<LedgerStats, StoreError> {
        self.read(move |conn| pauses::stats(conn, now)).await
    }

    fn has_outbox(&self) -> bool {
        !self.prefix.is_empty()
    }

    async fn outbox(&self, limit: usize) -> Result<Vec<OutboxEntry>, StoreError> {
        if !self.has_outbox() {
            return Ok(Vec::new());
        }
        self.read(move |conn| outbox::waiting(conn, limit)).await
    }

    async fn settle_outbox(
        &self,
        entries: &[(i64, OutboxSettlement)],
        now: Timestamp,
    ) -> Result<Vec<OutboxSettled>, StoreError> {
        if !self.has_outbox() {
            return Ok(vec![OutboxSettled::Taken; entries.len()]);
        }
        let entries = entries.to_vec();
        self.write(move |conn| outbox::settle(conn, &entries, now))
            .await
    }

    async fn outbox_stats(&self) -> Result<OutboxStats, StoreError> {
        if !self.has_outbox() {
            return Ok(OutboxStats::default());
        }
        self.read(outbox::stats).await
    }

    async fn refused_outbox(&self, limit: usize) -> Result<Vec<RefusedEntry>, StoreError> {
        if !self.has_outbox() {
            return Ok(Vec::new());
        }
        self.read(move |conn| outbox::refused(conn, limit)).await
    }

    async fn retry_outbox(&self, seq: i64) -> Result<bool, StoreError> {
        if !self.has_outbox() {
            return Ok(false);
        }
        self.write(move |conn| outbox::retry(conn, seq)).await
    }

    async fn drop_outbox(&self, seq: i64) -> Result<bool, StoreError> {
        if !self.has_outbox() {
            return Ok(false);
        }
        self.write(move |conn| outbox::drop_refused(conn, seq))
            .await
    }

    /// Of other processes, and of the application's transactions: within milliseconds.
    fn changes(&self) -> Changes {
        self.threads.changes()
    }

    async fn server_time(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    fn description(&self) -> String {
        let path = self.path.as_deref().map(std::path::absolute);
        let path = path.and_then(Result::ok).unwrap_or_default();
        let tables = match self.prefix.is_empty() {
            true => String::new(),
            false => format!(", tables {}*", self.prefix),
        };
        format!(
            "SQLite {}{tables} (layout {})",
            path.display(),
            schema::VERSION
        )
    }
}
