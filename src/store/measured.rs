//! Stores whose calls are timed: for the metrics, with their errors, and for the log, if they take long.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    BroadcastCursor, BroadcastFilter, BroadcastPage, Change, Changes, ClaimRequest, ClaimToken,
    Claims, CountFilter, Cursor, DayCount, DeliveryLedger, Erased, Expansion, FailureSample, Fired,
    Firing, LedgerStats, LiveCounts, NewBroadcast, NewDelivery, NewSubscription, Opened,
    OutboxEntry, OutboxSettled, OutboxSettlement, OutboxStats, PageWrite, Pause, Pruned,
    RefusedEntry, ScheduleStore, Settled, Settlement, SlowCalls, StoreError, StoredVapidKey,
    SubscriptionFilter, SubscriptionLimits, SubscriptionPage, SubscriptionRecord, SubscriptionRef,
    SubscriptionStore, Tally, Upserted, VapidKeyStore,
};
use crate::broadcast::{Audience, BroadcastId, BroadcastStatus, Principal};
use crate::clock::Timestamp;
use crate::observe;
use crate::schedule::{Schedule, ScheduleName};
use crate::subscription::{EndpointKey, Origin, SubscriptionId};
use crate::vapid::{KeyId, SealedVapidKey};

/// A store that records each call: its duration by operation, and its error by kind.
pub(crate) struct Measured<T: ?Sized>(Arc<T>, Arc<SlowCalls>);

impl<T: ?Sized> Measured<T> {
    pub(crate) const fn new(store: Arc<T>, slow_calls: Arc<SlowCalls>) -> Self {
        Self(store, slow_calls)
    }
}

impl<T: fmt::Debug + ?Sized> fmt::Debug for Measured<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A call that is recorded when it is dropped, as [`DROPPED`](observe::DROPPED) if it has not ended.
struct Call<'a> {
    operation: &'static str,
    began: Instant,
    error: Option<&'static str>,
    slow_calls: &'a SlowCalls,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let elapsed = self.began.elapsed();
        observe::count_store_call(self.operation, elapsed, self.error);
        self.slow_calls.note(self.operation, elapsed);
    }
}

/// Waits for a call and records it, also if it is dropped.
async fn measured<T>(
    slow_calls: &SlowCalls,
    operation: &'static str,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let mut recorded = Call {
        operation,
        began: Instant::now(),
        error: Some(observe::DROPPED),
        slow_calls,
    };
    let result = call.await;
    recorded.error = result.as_ref().err().map(|error| error.kind().as_str());
    result
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: SubscriptionStore + ?Sized> SubscriptionStore for Measured<T> {
    async fn upsert(
        &self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<Upserted, StoreError> {
        measured(
            &self.1,
            "upsert_subscription",
            self.0.upsert(new, limits, now),
        )
        .await
    }

    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        measured(&self.1, "get_subscriptions", self.0.get(which)).await
    }

    async fn page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        measured(
            &self.1,
            "page_subscriptions",
            self.0.page(audience, after, limit, now),
        )
        .await
    }

    async fn owned_by(
        &self,
        principal: &Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        measured(
            &self.1,
            "subscriptions_of_user",
            self.0.owned_by(principal, after, limit),
        )
        .await
    }

    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<SubscriptionPage, StoreError> {
        measured(
            &self.1,
            "list_subscriptions",
            self.0.list_subscriptions(filter, after, limit, now),
        )
        .await
    }

    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError> {
        measured(&self.1, "count_subscriptions", self.0.count(filter, now)).await
    }

    async fn count_live(&self, keys: &[KeyId], now: Timestamp) -> Result<LiveCounts, StoreError> {
        measured(
            &self.1,
            "count_live_subscriptions",
            self.0.count_live(keys, now),
        )
        .await
    }

    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
        measured(&self.1, "change_subscriptions", self.0.apply(changes, now)).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: VapidKeyStore + ?Sized> VapidKeyStore for Measured<T> {
    async fn keys(&self) -> Result<Vec<StoredVapidKey>, StoreError> {
        measured(&self.1, "vapid_keys", self.0.keys()).await
    }

    async fn insert_first(&self, key: &StoredVapidKey) -> Result<bool, StoreError> {
        measured(&self.1, "insert_first_vapid_key", self.0.insert_first(key)).await
    }

    async fn insert(&self, key: &StoredVapidKey) -> Result<(), StoreError> {
        measured(&self.1, "insert_vapid_key", self.0.insert(key)).await
    }

    async fn reseal(
        &self,
        id: &KeyId,
        expected: &SealedVapidKey,
        sealed: &SealedVapidKey,
    ) -> Result<bool, StoreError> {
        measured(
            &self.1,
            "reseal_vapid_key",
            self.0.reseal(id, expected, sealed),
        )
        .await
    }

    async fn remove(&self, id: &KeyId) -> Result<bool, StoreError> {
        measured(&self.1, "remove_vapid_key", self.0.remove(id)).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: DeliveryLedger + ?Sized> DeliveryLedger for Measured<T> {
    async fn open(&self, broadcast: &NewBroadcast, now: Timestamp) -> Result<Opened, StoreError> {
        measured(&self.1, "open", self.0.open(broadcast, now)).await
    }

    async fn expandable(&self, limit: usize, now: Timestamp) -> Result<Vec<Expansion>, StoreError> {
        measured(&self.1, "expandable", self.0.expandable(limit, now)).await
    }

    async fn enqueue_page(
        &self,
        broadcast: BroadcastId,
        expected: &Cursor,
        rows: &[NewDelivery],
        next: &Cursor,
        now: Timestamp,
    ) -> Result<PageWrite, StoreError> {
        measured(
            &self.1,
            "enqueue_page",
            self.0.enqueue_page(broadcast, expected, rows, next, now),
        )
        .await
    }

    async fn claim(&self, request: &ClaimRequest, now: Timestamp) -> Result<Claims, StoreError> {
        measured(&self.1, "claim", self.0.claim(request, now)).await
    }

    async fn settle(
        &self,
        rows: &[(ClaimToken, Settlement)],
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        measured(&self.1, "settle", self.0.settle(rows, now)).await
    }

    async fn release(&self, tokens: &[ClaimToken], now: Timestamp) -> Result<(), StoreError> {
        measured(&self.1, "release", self.0.release(tokens, now)).await
    }

    async fn cancel(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        measured(&self.1, "cancel", self.0.cancel(broadcast, now)).await
    }

    async fn hold(
        &self,
        broadcast: BroadcastId,
        is_held: bool,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        measured(&self.1, "hold", self.0.hold(broadcast, is_held, now)).await
    }

    async fn erase(
        &self,
        user: &Principal,
        subscriptions: &[SubscriptionRecord],
        now: Timestamp,
    ) -> Result<Erased, StoreError> {
        measured(&self.1, "erase", self.0.erase(user, subscriptions, now)).await
    }

    async fn status(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        measured(&self.1, "status", self.0.status(broadcast, now)).await
    }

    async fn list_broadcasts(
        &self,
        filter: &BroadcastFilter,
        after: Option<&BroadcastCursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<BroadcastPage, StoreError> {
        measured(
            &self.1,
            "list_broadcasts",
            self.0.list_broadcasts(filter, after, limit, now),
        )
        .await
    }

    async fn failure_samples(
        &self,
        broadcast: BroadcastId,
    ) -> Result<Vec<FailureSample>, StoreError> {
        measured(
            &self.1,
            "failure_samples",
            self.0.failure_samples(broadcast),
        )
        .await
    }

    async fn pause(&self, pause: &Pause, now: Timestamp) -> Result<(), StoreError> {
        measured(&self.1, "pause", self.0.pause(pause, now)).await
    }

    async fn pauses(&self, now: Timestamp) -> Result<Vec<Pause>, StoreError> {
        measured(&self.1, "pauses", self.0.pauses(now)).await
    }

    async fn tally(
        &self,
        counts: &[(Origin, Tally)],
        now: Timestamp,
    ) -> Result<Vec<Tally>, StoreError> {
        measured(&self.1, "tally", self.0.tally(counts, now)).await
    }

    async fn tallies(&self) -> Result<Vec<(Origin, Tally)>, StoreError> {
        measured(&self.1, "tallies", self.0.tallies()).await
    }

    async fn underway(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<BroadcastStatus>, StoreError> {
        measured(&self.1, "underway", self.0.underway(limit, now)).await
    }

    async fn expire(&self, limit: usize, now: Timestamp) -> Result<u64, StoreError> {
        measured(&self.1, "expire", self.0.expire(limit, now)).await
    }

    async fn prune(&self, ended_before: Timestamp) -> Result<Pruned, StoreError> {
        measured(&self.1, "prune", self.0.prune(ended_before)).await
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        measured(&self.1, "next_due", self.0.next_due(now)).await
    }

    async fn stats(&self, now: Timestamp) -> Result<LedgerStats, StoreError> {
        measured(&self.1, "stats", self.0.stats(now)).await
    }

    async fn settle_with(
        &self,
        changes: &[Change],
        rows: &[(ClaimToken, Settlement)],
        now: Timestamp,
    ) -> Result<Option<Vec<Settled>>, StoreError> {
        measured(&self.1, "settle", self.0.settle_with(changes, rows, now)).await
    }

    fn has_outbox(&self) -> bool {
        self.0.has_outbox()
    }

    async fn outbox(&self, limit: usize) -> Result<Vec<OutboxEntry>, StoreError> {
        measured(&self.1, "outbox", self.0.outbox(limit)).await
    }

    async fn settle_outbox(
        &self,
        entries: &[(i64, OutboxSettlement)],
        now: Timestamp,
    ) -> Result<Vec<OutboxSettled>, StoreError> {
        measured(&self.1, "settle_outbox", self.0.settle_outbox(entries, now)).await
    }

    async fn outbox_stats(&self) -> Result<OutboxStats, StoreError> {
        measured(&self.1, "outbox_stats", self.0.outbox_stats()).await
    }

    async fn refused_outbox(&self, limit: usize) -> Result<Vec<RefusedEntry>, StoreError> {
        measured(&self.1, "refused_outbox", self.0.refused_outbox(limit)).await
    }

    async fn retry_outbox(&self, seq: i64) -> Result<bool, StoreError> {
        measured(&self.1, "retry_outbox", self.0.retry_outbox(seq)).await
    }

    async fn drop_outbox(&self, seq: i64) -> Result<bool, StoreError> {
        measured(&self.1, "drop_outbox", self.0.drop_outbox(seq)).await
    }

    async fn server_time(&self) -> Result<Option<Timestamp>, StoreError> {
        measured(&self.1, "server_time", self.0.server_time()).await
    }

    fn epoch(&self) -> Option<u64> {
        self.0.epoch()
    }

    fn description(&self) -> String {
        self.0.description()
    }

    fn changes(&self) -> Changes {
        self.0.changes()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: ScheduleStore + ?Sized> ScheduleStore for Measured<T> {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), StoreError> {
        measured(&self.1, "put_schedule", self.0.put_schedule(schedule)).await
    }

    async fn schedules(&self, of: Option<SubscriptionId>) -> Result<Vec<Schedule>, StoreError> {
        measured(&self.1, "schedules", self.0.schedules(of)).await
    }

    async fn unreadable_schedules(&self, of: Option<SubscriptionId>) -> Result<u64, StoreError> {
        measured(
            &self.1,
            "unreadable_schedules",
            self.0.unreadable_schedules(of),
        )
        .await
    }

    async fn remove_schedule(&self, name: &ScheduleName) -> Result<bool, StoreError> {
        measured(&self.1, "remove_schedule", self.0.remove_schedule(name)).await
    }

    async fn remove_unchanged_schedule(&self, schedule: &Schedule) -> Result<bool, StoreError> {
        measured(
            &self.1,
            "remove_unchanged_schedule",
            self.0.remove_unchanged_schedule(schedule),
        )
        .await
    }

    async fn remove_schedules(&self, of: SubscriptionId) -> Result<u64, StoreError> {
        measured(&self.1, "remove_schedules", self.0.remove_schedules(of)).await
    }

    async fn move_schedules(
        &self,
        from: SubscriptionId,
        to: SubscriptionId,
    ) -> Result<(), StoreError> {
        measured(&self.1, "move_schedules", self.0.move_schedules(from, to)).await
    }

    async fn due_schedules(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Schedule>, StoreError> {
        measured(&self.1, "due_schedules", self.0.due_schedules(limit, now)).await
    }

    async fn fire(&self, firings: &[Firing], now: Timestamp) -> Result<Vec<Fired>, StoreError> {
        measured(&self.1, "fire", self.0.fire(firings, now)).await
    }

    async fn next_fire_at(&self) -> Result<Option<Timestamp>, StoreError> {
        measured(&self.1, "next_fire_at", self.0.next_fire_at()).await
    }

    async fn record_run(&self, at: Timestamp) -> Result<(), StoreError> {
        measured(&self.1, "record_run", self.0.record_run(at)).await
    }

    async fn last_run(&self) -> Result<Option<Timestamp>, StoreError> {
        measured(&self.1, "last_run", self.0.last_run()).await
    }

    async fn record_days(&self, counts: &[DayCount]) -> Result<(), StoreError> {
        measured(&self.1, "record_days", self.0.record_days(counts)).await
    }

    async fn days(&self, now: Timestamp) -> Result<Vec<DayCount>, StoreError> {
        measured(&self.1, "days", self.0.days(now)).await
    }
}
