//! The ledger in PostgreSQL. Most operations are one transaction.

use std::sync::atomic::Ordering;

use async_trait::async_trait;

use super::attempts::in_transaction;
use super::enqueue::{self, Page};
use super::{
    PostgresStore, broadcasts, claims, ending, erase, far_rows, holding, listing, opening_together,
    outbox, pauses, samples, schema, settle, workers,
};
use crate::broadcast::{BroadcastId, BroadcastStatus, Principal};
use crate::clock::Timestamp;
use crate::store::{
    BroadcastCursor, BroadcastFilter, BroadcastPage, Change, Changes, ClaimRequest, ClaimToken,
    Claims, Cursor, DeliveryLedger, Erased, Expansion, FailureSample, LedgerStats, NewBroadcast,
    NewDelivery, Opened, OutboxEntry, OutboxSettled, OutboxSettlement, OutboxStats, PageWrite,
    Pause, Pruned, RefusedEntry, Settled, Settlement, StoreError, SubscriptionRecord, Tally,
};
use crate::subscription::Origin;

impl PostgresStore {
    /// Notifies listening workers if some of these rows are due again at once.
    async fn tell_of_due(&self, rows: &[(ClaimToken, Settlement)], now: Timestamp) {
        let is_due = |(_, settlement): &(ClaimToken, Settlement)| match *settlement {
            Settlement::Finished(_) | Settlement::Failed(..) => false,
            Settlement::RetryAt(at) | Settlement::Deferred(at) => at <= now,
        };
        if rows.iter().any(is_due) {
            self.tell().await;
        }
    }
}

#[async_trait]
impl DeliveryLedger for PostgresStore {
    async fn open(&self, broadcast: &NewBroadcast, now: Timestamp) -> Result<Opened, StoreError> {
        opening_together::open(self, broadcast, now).await
    }

    async fn expandable(&self, limit: usize, now: Timestamp) -> Result<Vec<Expansion>, StoreError> {
        let take = self.next_listing();
        broadcasts::expandable(self.database(), limit, take, now).await
    }

    async fn enqueue_page(
        &self,
        broadcast: BroadcastId,
        expected: &Cursor,
        rows: &[NewDelivery],
        next: &Cursor,
        now: Timestamp,
    ) -> Result<PageWrite, StoreError> {
        let page = Page {
            of: broadcast,
            expected,
            rows,
            next,
        };
        in_transaction!(self.database(), |tx| enqueue::enqueue_page(tx, &page, now))
    }

    async fn claim(&self, request: &ClaimRequest, now: Timestamp) -> Result<Claims, StoreError> {
        let worker = self.worker().await;
        let more = workers::rescue(self.database(), self.heartbeat(), now).await?;
        let mut claims = claims::claim(self.database(), request, worker, now).await?;
        claims.more |= more;
        Ok(claims)
    }

    async fn settle(
        &self,
        rows: &[(ClaimToken, Settlement)],
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        let settled = in_transaction!(self.database(), |tx| settle::settle(tx, rows, now))?;
        self.tell_of_due(rows, now).await;
        Ok(settled)
    }

    async fn settle_with(
        &self,
        changes: &[Change],
        rows: &[(ClaimToken, Settlement)],
        now: Timestamp,
    ) -> Result<Option<Vec<Settled>>, StoreError> {
        let settled = in_transaction!(self.database(), |tx| settle::settle_with(
            tx, changes, rows, now
        ))?;
        self.tell_of_due(rows, now).await;
        Ok(Some(settled))
    }

    async fn cancel(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        ending::cancel(self.database(), broadcast, now).await
    }

    async fn hold(
        &self,
        broadcast: BroadcastId,
        is_held: bool,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        let held = holding::hold(self.database(), broadcast, is_held, now).await?;
        if !is_held {
            self.tell().await;
        }
        Ok(held)
    }

    async fn erase(
        &self,
        user: &Principal,
        subscriptions: &[SubscriptionRecord],
        now: Timestamp,
    ) -> Result<Erased, StoreError> {
        // First: an entry that is being settled is a broadcast afterwards.
        let entries = outbox::erase(self.database(), user).await?;
        let mut erased = erase::erase(self.database(), user, subscriptions, now).await?;
        erased.broadcasts += entries;
        Ok(erased)
    }

    async fn status(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        broadcasts::status(self.database(), broadcast, now).await
    }

    async fn list_broadcasts(
        &self,
        filter: &BroadcastFilter,
        after: Option<&BroadcastCursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<BroadcastPage, StoreError> {
        listing::broadcasts(self.database(), filter, after, limit, now).await
    }

    async fn failure_samples(
        &self,
        broadcast: BroadcastId,
    ) -> Result<Vec<FailureSample>, StoreError> {
        samples::of(self.database(), broadcast).await
    }

    async fn pause(&self, pause: &Pause, now: Timestamp) -> Result<(), StoreError> {
        in_transaction!(self.database(), |tx| pauses::pause(tx, pause, now))
    }

    async fn pauses(&self, now: Timestamp) -> Result<Vec<Pause>, StoreError> {
        pauses::pauses(self.database(), now).await
    }

    async fn tally(
        &self,
        counts: &[(Origin, Tally)],
        now: Timestamp,
    ) -> Result<Vec<Tally>, StoreError> {
        if counts.iter().all(|(_, fresh)| *fresh == Tally::default()) {
            return pauses::read_tallies(self.database(), counts).await;
        }
        in_transaction!(self.database(), |tx| pauses::tally(tx, counts, now))
    }

    async fn tallies(&self) -> Result<Vec<(Origin, Tally)>, StoreError> {
        pauses::tallies(self.database()).await
    }

    async fn underway(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<BroadcastStatus>, StoreError> {
        broadcasts::underway(self.database(), limit, now).await
    }

    async fn expire(&self, limit: usize, now: Timestamp) -> Result<u64, StoreError> {
        let expired = ending::expire(self.database(), limit, now).await?;
        far_rows::pull(self.database(), now).await?;
        Ok(expired)
    }

    async fn prune(&self, ended_before: Timestamp) -> Result<Pruned, StoreError> {
        let last = self.pruned_origin().load(Ordering::Relaxed);
        let (pruned, last) =
            in_transaction!(self.database(), |tx| ending::prune(tx, ended_before, last))?;
        self.pruned_origin().store(last, Ordering::Relaxed);
        Ok(pruned)
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let next = pauses::next_due(self.database(), now).await?;
        workers::next_due(self.database(), self.heartbeat(), next, now).await
    }

    async fn stats(&self, now: Timestamp) -> Result<LedgerStats, StoreError> {
        pauses::stats(self.database(), now).await
    }

    fn has_outbox(&self) -> bool {
        true
    }

    async fn outbox(&self, limit: usize) -> Result<Vec<OutboxEntry>, StoreError> {
        outbox::waiting(self.database(), limit).await
    }

    async fn settle_outbox(
        &self,
        entries: &[(i64, OutboxSettlement)],
        now: Timestamp,
    ) -> Result<Vec<OutboxSettled>, StoreError> {
        let settled = outbox::settle(self.database(), entries, now).await?;
        if settled.contains(&OutboxSettled::Opened) {
            self.tell().await;
        }
        Ok(settled)
    }

    async fn outbox_stats(&self) -> Result<OutboxStats, StoreError> {
        outbox::stats(self.database()).await
    }

    async fn refused_outbox(&self, limit: usize) -> Result<Vec<RefusedEntry>, StoreError> {
        outbox::refused(self.database(), limit).await
    }

    async fn retry_outbox(&self, seq: i64) -> Result<bool, StoreError> {
        let retried = self.database().execute(outbox::RETRY, &[&seq]).await?;
        if retried > 0 {
            self.tell().await;
        }
        Ok(retried > 0)
    }

    async fn drop_outbox(&self, seq: i64) -> Result<bool, StoreError> {
        let dropped = self.database().execute(outbox::DROP, &[&seq]).await?;
        Ok(dropped > 0)
    }

    async fn server_time(&self) -> Result<Option<Timestamp>, StoreError> {
        pauses::server_time(self.database()).await
    }

    fn epoch(&self) -> Option<u64> {
        self.heartbeat().epoch()
    }

    fn description(&self) -> String {
        let (schema, place) = (self.database().schema.name(), self.place());
        format!(
            "PostgreSQL schema {schema} at {place} (layout {})",
            schema::KNOWN
        )
    }

    fn changes(&self) -> Changes {
        self.heard()
    }
}
