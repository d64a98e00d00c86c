//! Stores behind an `Arc`: each trait, forwarded.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    BroadcastCursor, BroadcastFilter, BroadcastPage, Change, Changes, ClaimRequest, ClaimToken,
    Claims, CountFilter, Cursor, DayCount, DeliveryLedger, Erased, Expansion, FailureSample, Fired,
    Firing, LedgerStats, LiveCounts, NewBroadcast, NewDelivery, NewSubscription, Opened,
    OutboxEntry, OutboxSettled, OutboxSettlement, OutboxStats, PageWrite, Pause, PortableStore,
    Pruned, RefusedEntry, ScheduleStore, Settled, Settlement, StoreError, StoredVapidKey,
    SubscriptionFilter, SubscriptionLimits, SubscriptionPage, SubscriptionRecord, SubscriptionRef,
    SubscriptionStore, Tally, Unreachable, Upserted, VapidKeyStore,
};
use crate::broadcast::{Audience, BroadcastId, BroadcastStatus, Principal};
use crate::clock::Timestamp;
use crate::schedule::{Schedule, ScheduleName};
use crate::subscription::{EndpointKey, Origin, SubscriptionId};
use crate::vapid::{KeyId, SealedVapidKey};

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: SubscriptionStore + ?Sized> SubscriptionStore for Arc<T> {
    async fn upsert(
        &self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<Upserted, StoreError> {
        (**self).upsert(new, limits, now).await
    }

    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        (**self).get(which).await
    }

    async fn page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        (**self).page(audience, after, limit, now).await
    }

    async fn owned_by(
        &self,
        principal: &Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        (**self).owned_by(principal, after, limit).await
    }

    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<SubscriptionPage, StoreError> {
        (**self).list_subscriptions(filter, after, limit, now).await
    }

    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError> {
        (**self).count(filter, now).await
    }

    async fn count_live(&self, keys: &[KeyId], now: Timestamp) -> Result<LiveCounts, StoreError> {
        (**self).count_live(keys, now).await
    }

    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
        (**self).apply(changes, now).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: PortableStore + ?Sized> PortableStore for Arc<T> {
    async fn unreachable(
        &self,
        state: Unreachable,
        after: Option<(Timestamp, EndpointKey)>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        (**self).unreachable(state, after, limit).await
    }

    async fn put(&self, rows: &[SubscriptionRecord]) -> Result<Vec<bool>, StoreError> {
        (**self).put(rows).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: VapidKeyStore + ?Sized> VapidKeyStore for Arc<T> {
    async fn keys(&self) -> Result<Vec<StoredVapidKey>, StoreError> {
        (**self).keys().await
    }

    async fn insert_first(&self, key: &StoredVapidKey) -> Result<bool, StoreError> {
        (**self).insert_first(key).await
    }

    async fn insert(&self, key: &StoredVapidKey) -> Result<(), StoreError> {
        (**self).insert(key).await
    }

    async fn reseal(
        &self,
        id: &KeyId,
        expected: &SealedVapidKey,
        sealed: &SealedVapidKey,
    ) -> Result<bool, StoreError> {
        (**self).reseal(id, expected, sealed).await
    }

    async fn remove(&self, id: &KeyId) -> Result<bool, StoreError> {
        (**self).remove(id).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: DeliveryLedger + ?Sized> DeliveryLedger for Arc<T> {
    async fn open(&self, broadcast: &NewBroadcast, now: Timestamp) -> Result<Opened, StoreError> {
        (**self).open(broadcast, now).await
    }

    async fn expandable(&self, limit: usize, now: Timestamp) -> Result<Vec<Expansion>, StoreError> {
        (**self).expandable(limit, now).await
    }

    async fn enqueue_page(
        &self,
        broadcast: BroadcastId,
        expected: &Cursor,
        rows: &[NewDelivery],
        next: &Cursor,
        now: Timestamp,
    ) -> Result<PageWrite, StoreError> {
        (**self)
            .enqueue_page(broadcast, expected, rows, next, now)
            .await
    }

    async fn claim(&self, request: &ClaimRequest, now: Timestamp) -> Result<Claims, StoreError> {
        (**self).claim(request, now).await
    }

    async fn settle(
        &self,
        rows: &[(ClaimToken, Settlement)],
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        (**self).settle(rows, now).await
    }

    async fn settle_with(
        &self,
        changes: &[Change],
        rows: &[(ClaimToken, Settlement)],
        now: Timestamp,
    ) -> Result<Option<Vec<Settled>>, StoreError> {
        (**self).settle_with(changes, rows, now).await
    }

    async fn release(&self, tokens: &[ClaimToken], now: Timestamp) -> Result<(), StoreError> {
        (**self).release(tokens, now).await
    }

    async fn cancel(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        (**self).cancel(broadcast, now).await
    }

    async fn hold(
        &self,
        broadcast: BroadcastId,
        is_held: bool,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        (**self).hold(broadcast, is_held, now).await
    }

    async fn erase(
        &self,
        user: &Principal,
        subscriptions: &[SubscriptionRecord],
        now: Timestamp,
    ) -> Result<Erased, StoreError> {
        (**self).erase(user, subscriptions, now).await
    }

    async fn status(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        (**self).status(broadcast, now).await
    }

    async fn list_broadcasts(
        &self,
        filter: &BroadcastFilter,
        after: Option<&BroadcastCursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<BroadcastPage, StoreError> {
        (**self).list_broadcasts(filter, after, limit, now).await
    }

    async fn failure_samples(
        &self,
        broadcast: BroadcastId,
    ) -> Result<Vec<FailureSample>, StoreError> {
        (**self).failure_samples(broadcast).await
    }

    async fn pause(&self, pause: &Pause, now: Timestamp) -> Result<(), StoreError> {
        (**self).pause(pause, now).await
    }

    async fn pauses(&self, now: Timestamp) -> Result<Vec<Pause>, StoreError> {
        (**self).pauses(now).await
    }

    async fn tally(
        &self,
        counts: &[(Origin, Tally)],
        now: Timestamp,
    ) -> Result<Vec<Tally>, StoreError> {
        (**self).tally(counts, now).await
    }

    async fn tallies(&self) -> Result<Vec<(Origin, Tally)>, StoreError> {
        (**self).tallies().await
    }

    async fn underway(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<BroadcastStatus>, StoreError> {
        (**self).underway(limit, now).await
    }

    async fn expire(&self, limit: usize, now: Timestamp) -> Result<u64, StoreError> {
        (**self).expire(limit, now).await
    }

    async fn prune(&self, ended_before: Timestamp) -> Result<Pruned, StoreError> {
        (**self).prune(ended_before).await
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        (**self).next_due(now).await
    }

    async fn stats(&self, now: Timestamp) -> Result<LedgerStats, StoreError> {
        (**self).stats(now).await
    }

    fn has_outbox(&self) -> bool {
        (**self).has_outbox()
    }

    async fn outbox(&self, limit: usize) -> Result<Vec<OutboxEntry>, StoreError> {
        (**self).outbox(limit).await
    }

    async fn settle_outbox(
        &self,
        entries: &[(i64, OutboxSettlement)],
        now: Timestamp,
    ) -> Result<Vec<OutboxSettled>, StoreError> {
        (**self).settle_outbox(entries, now).await
    }

    async fn outbox_stats(&self) -> Result<OutboxStats, StoreError> {
        (**self).outbox_stats().await
    }

    async fn refused_outbox(&self, limit: usize) -> Result<Vec<RefusedEntry>, StoreError> {
        (**self).refused_outbox(limit).await
    }

    async fn retry_outbox(&self, seq: i64) -> Result<bool, StoreError> {
        (**self).retry_outbox(seq).await
    }

    async fn drop_outbox(&self, seq: i64) -> Result<bool, StoreError> {
        (**self).drop_outbox(seq).await
    }

    async fn server_time(&self) -> Result<Option<Timestamp>, StoreError> {
        (**self).server_time().await
    }

    fn epoch(&self) -> Option<u64> {
        (**self).epoch()
    }

    fn description(&self) -> String {
        (**self).description()
    }

    fn changes(&self) -> Changes {
        (**self).changes()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: ScheduleStore + ?Sized> ScheduleStore for Arc<T> {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), StoreError> {
        (**self).put_schedule(schedule).await
    }

    async fn schedules(&self, of: Option<SubscriptionId>) -> Result<Vec<Schedule>, StoreError> {
        (**self).schedules(of).await
    }

    async fn unreadable_schedules(&self, of: Option<SubscriptionId>) -> Result<u64, StoreError> {
        (**self).unreadable_schedules(of).await
    }

    async fn remove_schedule(&self, name: &ScheduleName) -> Result<bool, StoreError> {
        (**self).remove_schedule(name).await
    }

    async fn remove_unchanged_schedule(&self, schedule: &Schedule) -> Result<bool, StoreError> {
        (**self).remove_unchanged_schedule(schedule).await
    }

    async fn remove_schedules(&self, of: SubscriptionId) -> Result<u64, StoreError> {
        (**self).remove_schedules(of).await
    }

    async fn move_schedules(
        &self,
        from: SubscriptionId,
        to: SubscriptionId,
    ) -> Result<(), StoreError> {
        (**self).move_schedules(from, to).await
    }

    async fn due_schedules(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Schedule>, StoreError> {
        (**self).due_schedules(limit, now).await
    }

    async fn fire(&self, firings: &[Firing], now: Timestamp) -> Result<Vec<Fired>, StoreError> {
        (**self).fire(firings, now).await
    }

    async fn next_fire_at(&self) -> Result<Option<Timestamp>, StoreError> {
        (**self).next_fire_at().await
    }

    async fn record_run(&self, at: Timestamp) -> Result<(), StoreError> {
        (**self).record_run(at).await
    }

    async fn last_run(&self) -> Result<Option<Timestamp>, StoreError> {
        (**self).last_run().await
    }

    async fn record_days(&self, counts: &[DayCount]) -> Result<(), StoreError> {
        (**self).record_days(counts).await
    }

    async fn days(&self, now: Timestamp) -> Result<Vec<DayCount>, StoreError> {
        (**self).days(now).await
    }
}
