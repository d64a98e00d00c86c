//! The ledger in Redis. Each operation is a few scripts.

use std::sync::atomic::Ordering;

use async_trait::async_trait;

use super::reply::Reply;
use super::script::{Args, TIME};
use super::{Inner, RedisStore, start};
use crate::broadcast::{BroadcastId, BroadcastStatus, Principal};
use crate::clock::Timestamp;
use crate::store::{
    BroadcastCursor, BroadcastFilter, BroadcastPage, Changes, ClaimRequest, ClaimToken, Claims,
    Cursor, DeliveryLedger, Erased, Expansion, FailureSample, LedgerStats, NewBroadcast,
    NewDelivery, Opened, PageWrite, Pause, Pruned, Settled, Settlement, StoreError,
    SubscriptionRecord, Tally,
};
use crate::subscription::Origin;

#[async_trait]
impl DeliveryLedger for RedisStore {
    async fn open(&self, broadcast: &NewBroadcast, now: Timestamp) -> Result<Opened, StoreError> {
        self.open_broadcast(broadcast, now).await
    }

    async fn expandable(&self, limit: usize, now: Timestamp) -> Result<Vec<Expansion>, StoreError> {
        let take = self.inner.listings.fetch_add(1, Ordering::Relaxed);
        self.expandable_broadcasts(limit, take, now).await
    }

    async fn enqueue_page(
        &self,
        broadcast: BroadcastId,
        expected: &Cursor,
        rows: &[NewDelivery],
        next: &Cursor,
        now: Timestamp,
    ) -> Result<PageWrite, StoreError> {
        self.enqueue(broadcast, expected, rows, next, now).await
    }

    async fn claim(&self, request: &ClaimRequest, now: Timestamp) -> Result<Claims, StoreError> {
        let worker = self.worker().await;
        let more = self.rescue(now).await?;
        let mut claims = self.claim_rows(request, worker, now).await?;
        claims.more |= more;
        Ok(claims)
    }

    // `settle_with` (L23) keeps its default, and the caller makes two calls. A script that fails, at a damaged key for example,
    // keeps what it wrote before. So one script for both could leave the changes made and the rows unsettled; its caller would
    // take neither for done, and a subscription's failure would be counted twice.
    async fn settle(
        &self,
        rows: &[(ClaimToken, Settlement)],
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        self.settle_rows(rows, now).await
    }

    async fn cancel(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        self.cancel_broadcast(broadcast, now).await
    }

    async fn hold(
        &self,
        broadcast: BroadcastId,
        is_held: bool,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        self.hold_broadcast(broadcast, is_held, now).await
    }

    async fn erase(
        &self,
        user: &Principal,
        subscriptions: &[SubscriptionRecord],
        now: Timestamp,
    ) -> Result<Erased, StoreError> {
        self.erase_user(user, subscriptions, now).await
    }

    async fn status(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        self.broadcast_status(broadcast, now).await
    }

    async fn list_broadcasts(
        &self,
        filter: &BroadcastFilter,
        after: Option<&BroadcastCursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<BroadcastPage, StoreError> {
        self.broadcasts_page(filter, after, limit, now).await
    }

    async fn failure_samples(
        &self,
        broadcast: BroadcastId,
    ) -> Result<Vec<FailureSample>, StoreError> {
        self.samples_of(broadcast).await
    }

    async fn pause(&self, pause: &Pause, now: Timestamp) -> Result<(), StoreError> {
        self.pause_origin(pause, now).await
    }

    async fn pauses(&self, now: Timestamp) -> Result<Vec<Pause>, StoreError> {
        self.paused_origins(now).await
    }

    async fn tally(
        &self,
        counts: &[(Origin, Tally)],
        now: Timestamp,
    ) -> Result<Vec<Tally>, StoreError> {
        self.add_tallies(counts, now).await
    }

    async fn tallies(&self) -> Result<Vec<(Origin, Tally)>, StoreError> {
        self.tallies_with_gone().await
    }

    async fn underway(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<BroadcastStatus>, StoreError> {
        self.broadcasts_underway(limit, now).await
    }

    async fn expire(&self, limit: usize, now: Timestamp) -> Result<u64, StoreError> {
        self.expire_rows(limit, now).await
    }

    async fn prune(&self, ended_before: Timestamp) -> Result<Pruned, StoreError> {
        self.prune_broadcasts(ended_before).await
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let next = self.next_moment(now).await?;
        self.next_look(next, now).await
    }

    async fn stats(&self, now: Timestamp) -> Result<LedgerStats, StoreError> {
        self.ledger_stats(now).await
    }

    async fn server_time(&self) -> Result<Option<Timestamp>, StoreError> {
        let mut answer = Reply::of(self.run(&TIME, &Args::default()).await?)?;
        let (secs, micros) = (answer.number()?, answer.number()?);
        let millis = secs.saturating_mul(1000).saturating_add(micros / 1000);
        Ok(Some(Timestamp::from_millis(
            i64::try_from(millis).unwrap_or(i64::MAX),
        )))
    }

    fn epoch(&self) -> Option<u64> {
        self.inner.heartbeat.epoch()
    }

    fn description(&self) -> String {
        let Inner {
            namespace, place, ..
        } = &*self.inner;
        let place = place.get().map_or("", String::as_str);
        format!(
            "Redis namespace {namespace:?} at {place} (layout {})",
            start::FORMAT
        )
    }

    fn changes(&self) -> Changes {
        self.hints()
    }
}
