//! A store whose every call is an await point, before and after it is done. It fails or hangs on demand, and has the
//! clock of a server and a slow disk.

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::unfold;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep;
use tower_web_push::broadcast::{Audience, BroadcastId, BroadcastStatus, Principal};
use tower_web_push::clock::Timestamp;
use tower_web_push::schedule::{Schedule, ScheduleName};
use tower_web_push::store::{
    BroadcastCursor, BroadcastFilter, BroadcastPage, Change, Changes, ClaimRequest, ClaimToken,
    Claims, CountFilter, Cursor, DayCount, DeliveryLedger, Erased, Expansion, FailureSample, Fired,
    Firing, LedgerStats, MemoryStore, NewBroadcast, NewDelivery, NewSubscription, Opened,
    OutboxEntry, OutboxSettled, OutboxSettlement, OutboxStats, PageWrite, Pause, PortableStore,
    Pruned, ScheduleStore, Settled, Settlement, StoreError, StoreErrorKind, StoredVapidKey,
    SubscriptionFilter, SubscriptionLimits, SubscriptionPage, SubscriptionRecord, SubscriptionRef,
    SubscriptionStore, Tally, Unreachable, Upserted, VapidKeyStore,
};
use tower_web_push::subscription::{EndpointKey, Origin, SubscriptionId};
use tower_web_push::vapid::{KeyId, SealedVapidKey};

#[derive(Debug, Default)]
pub(crate) struct TamperedStore {
    pub(crate) memory: MemoryStore,
    failing: Mutex<Option<(&'static str, StoreErrorKind)>>,
    losing: Mutex<Option<&'static str>>,
    hanging: Mutex<Option<&'static str>>,
    slow: Mutex<Option<(&'static str, Duration)>>,
    has_hung: AtomicBool,
    calls: Mutex<Vec<&'static str>>,
    server_time: Mutex<Option<Timestamp>>,
    disk: Disk,
    is_one_store: AtomicBool,
    /// Calls that are refused with all their rows because of rows or changes of these recipients.
    refused: Mutex<HashMap<(&'static str, EndpointKey), StoreErrorKind>>,
    has_outbox: AtomicBool,
    outbox: Mutex<Vec<OutboxEntry>>,
    hints: Arc<Notify>,
}

/// A disk on which changes are written that wait at the same time, as by the writer of SQLite.
#[derive(Debug, Default)]
struct Disk {
    commit_takes: Mutex<Duration>,
    writing: tokio::sync::Mutex<()>,
    state: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    /// The number of changes so far.
    changes: u64,
    /// The number of those that are written.
    written: u64,
    commits: u64,
}

impl Disk {
    async fn commit(&self) {
        let takes = *self.commit_takes.lock().unwrap();
        if takes.is_zero() {
            return;
        }
        let change = {
            let mut state = self.state.lock().unwrap();
            state.changes += 1;
            state.changes
        };
        let _writing = self.writing.lock().await;
        if self.state.lock().unwrap().written >= change {
            return;
        }
        // What is called side by side is written together.
        for _ in 0..9 {
            yield_now().await;
        }
        let changes = self.state.lock().unwrap().changes;
        sleep(takes).await;
        let mut state = self.state.lock().unwrap();
        state.written = changes;
        state.commits += 1;
    }
}

impl TamperedStore {
    /// Makes a store on the rows of another handle.
    pub(crate) fn over(memory: &MemoryStore) -> Self {
        Self {
            memory: memory.clone(),
            ..Self::default()
        }
    }

    /// Whether a call is hanging.
    pub(crate) fn has_hung(&self) -> bool {
        self.has_hung.load(Ordering::Relaxed)
    }

    /// Returns the calls since the last call of this, in order.
    pub(crate) fn take_calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// Makes each commit take a time from now on.
    pub(crate) fn set_commit(&self, takes: Duration) {
        *self.disk.commit_takes.lock().unwrap() = takes;
    }

    /// Returns the number of commits that took a time.
    pub(crate) fn commits(&self) -> u64 {
        self.disk.state.lock().unwrap().commits
    }

    /// Makes all calls of one name fail from now on, or none.
    pub(crate) fn fail(&self, call: impl Into<Option<&'static str>>) {
        let call = call.into();
        *self.failing.lock().unwrap() = call.map(|call| (call, StoreErrorKind::Unavailable));
    }

    /// Makes all calls of one name fail with an error of this kind from now on.
    pub(crate) fn fail_as(&self, kind: StoreErrorKind, call: &'static str) {
        *self.failing.lock().unwrap() = Some((call, kind));
    }

    /// Refuses calls of `apply`, `settle` or `release` with these recipients from now on, whatever else is in them.
    /// `settle_with` is refused as `apply` and `settle`.
    pub(crate) fn refuse(
        &self,
        call: &'static str,
        recipients: impl IntoIterator<Item = EndpointKey>,
        kind: StoreErrorKind,
    ) {
        let recipients = recipients.into_iter().map(|key| ((call, key), kind));
        self.refused.lock().unwrap().extend(recipients);
    }

    /// Refuses nothing from now on.
    pub(crate) fn refuse_none(&self) {
        self.refused.lock().unwrap().clear();
    }

    fn check_recipients<'a>(
        &self,
        call: &'static str,
        recipients: impl IntoIterator<Item = &'a EndpointKey>,
    ) -> Result<(), StoreError> {
        let refused = self.refused.lock().unwrap();
        let mut recipients = recipients.into_iter();
        let kind = recipients.find_map(|key| refused.get(&(call, *key)));
        kind.map_or(Ok(()), |kind| Err((*kind).into()))
    }

    fn check_rows(&self, rows: &[(ClaimToken, Settlement)]) -> Result<(), StoreError> {
        self.check_recipients("settle", rows.iter().map(|(token, _)| &token.key))
    }

    fn check_changes(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.check_recipients("apply", changes.iter().filter_map(Change::key))
    }

    /// The answer to a call that was made, unless it is lost.
    async fn reply<T>(
        &self,
        call: &'static str,
        answer: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if !READS.contains(&call) {
            self.disk.commit().await;
        }
        yield_now().await;
        match *self.losing.lock().unwrap() == Some(call) {
            true => Err(StoreErrorKind::Unavailable.into()),
            false => answer,
        }
    }

    /// Loses the answers of all calls of one name from now on, or none: they are done, and fail.
    pub(crate) fn lose_answers(&self, call: impl Into<Option<&'static str>>) {
        *self.losing.lock().unwrap() = call.into();
    }

    /// Writes changes and outcomes together from now on.
    pub(crate) fn join_writes(&self) {
        self.is_one_store.store(true, Ordering::Relaxed);
    }

    /// Has an outbox from now on, which is empty.
    pub(crate) fn open_outbox(&self) {
        self.has_outbox.store(true, Ordering::Relaxed);
    }

    /// Puts an entry into the outbox, which stays there.
    pub(crate) fn write_entry(&self, entry: OutboxEntry) {
        self.open_outbox();
        self.outbox.lock().unwrap().push(entry);
    }

    /// Gives the worker a hint, as another process does.
    pub(crate) fn hint(&self) {
        self.hints.notify_one();
    }

    /// Makes all calls of one name hang from now on, or none.
    pub(crate) fn hang(&self, call: impl Into<Option<&'static str>>) {
        *self.hanging.lock().unwrap() = call.into();
    }

    /// Makes all calls of one name take this time from now on.
    pub(crate) fn delay(&self, call: &'static str, by: Duration) {
        *self.slow.lock().unwrap() = Some((call, by));
    }

    /// Sets the server's clock.
    pub(crate) fn set_server_time(&self, time: Timestamp) {
        *self.server_time.lock().unwrap() = Some(time);
    }

    async fn answers(&self, call: &'static str) {
        self.calls.lock().unwrap().push(call);
        let hanging = *self.hanging.lock().unwrap();
        if hanging == Some(call) {
            self.has_hung.store(true, Ordering::Relaxed);
            pending::<()>().await;
        }
        let slow = *self.slow.lock().unwrap();
        if let Some((_, by)) = slow.filter(|(slow, _)| *slow == call) {
            sleep(by).await;
        }
    }

    fn check(&self, call: &str) -> Result<(), StoreError> {
        match *self.failing.lock().unwrap() {
            Some((failing, kind)) if failing == call => Err(kind.into()),
            _ => Ok(()),
        }
    }
}

/// The calls that change nothing.
const READS: [&str; 21] = [
    "failure_samples",
    "get",
    "list_broadcasts",
    "list_subscriptions",
    "page",
    "owned_by",
    "count",
    "keys",
    "expandable",
    "status",
    "pauses",
    "tallies",
    "underway",
    "next_due",
    "stats",
    "schedules",
    "due_schedules",
    "next_fire_at",
    "last_run",
    "days",
    "unreachable",
];

/// A whole trait, each method the memory store's between two yields.
macro_rules! tampered {
    ($of:ident: $($name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)+ $({ $($extra:tt)* })?) => {
        #[async_trait]
        impl $of for TamperedStore {
            $(async fn $name(&self, $($arg: $type),*) -> Result<$answer, StoreError> {
                yield_now().await;
                self.answers(stringify!($name)).await;
                self.check(stringify!($name))?;
                let answer = self.memory.$name($($arg),*).await;
                self.reply(stringify!($name), answer).await
            })+
            $($($extra)*)?
        }
    };
}

tampered! { SubscriptionStore:
    upsert(new: &NewSubscription, limits: &SubscriptionLimits, now: Timestamp) -> Upserted;
    get(which: &[SubscriptionRef]) -> Vec<Option<SubscriptionRecord>>;
    page(audience: &Audience, after: Option<&EndpointKey>, limit: usize, now: Timestamp) -> Vec<SubscriptionRecord>;
    owned_by(principal: &Principal, after: Option<&EndpointKey>, limit: usize) -> Vec<SubscriptionRecord>;
    list_subscriptions(filter: &SubscriptionFilter, after: Option<&EndpointKey>, limit: usize, now: Timestamp) -> SubscriptionPage;
    count(filter: &CountFilter, now: Timestamp) -> u64;
    {
        async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
            yield_now().await;
            self.answers("apply").await;
            self.check("apply")?;
            self.check_changes(changes)?;
            let answer = self.memory.apply(changes, now).await;
            self.reply("apply", answer).await
        }
    }
}

tampered! { PortableStore:
    unreachable(state: Unreachable, after: Option<(Timestamp, EndpointKey)>, limit: usize) -> Vec<SubscriptionRecord>;
    put(rows: &[SubscriptionRecord]) -> Vec<bool>;
}

tampered! { VapidKeyStore:
    keys() -> Vec<StoredVapidKey>;
    insert_first(key: &StoredVapidKey) -> bool;
    insert(key: &StoredVapidKey) -> ();
    reseal(id: &KeyId, expected: &SealedVapidKey, sealed: &SealedVapidKey) -> bool;
    remove(id: &KeyId) -> bool;
}

tampered! { DeliveryLedger:
    open(broadcast: &NewBroadcast, now: Timestamp) -> Opened;
    expandable(limit: usize, now: Timestamp) -> Vec<Expansion>;
    enqueue_page(broadcast: BroadcastId, expected: &Cursor, rows: &[NewDelivery], next: &Cursor, now: Timestamp) -> PageWrite;
    claim(request: &ClaimRequest, now: Timestamp) -> Claims;
    cancel(broadcast: BroadcastId, now: Timestamp) -> Option<BroadcastStatus>;
    hold(broadcast: BroadcastId, is_held: bool, now: Timestamp) -> Option<BroadcastStatus>;
    erase(user: &Principal, subscriptions: &[SubscriptionRecord], now: Timestamp) -> Erased;
    status(broadcast: BroadcastId, now: Timestamp) -> Option<BroadcastStatus>;
    list_broadcasts(filter: &BroadcastFilter, after: Option<&BroadcastCursor>, limit: usize, now: Timestamp) -> BroadcastPage;
    failure_samples(broadcast: BroadcastId) -> Vec<FailureSample>;
    pause(pause: &Pause, now: Timestamp) -> ();
    pauses(now: Timestamp) -> Vec<Pause>;
    tally(tallies: &[(Origin, Tally)], now: Timestamp) -> Vec<Tally>;
    tallies() -> Vec<(Origin, Tally)>;
    underway(limit: usize, now: Timestamp) -> Vec<BroadcastStatus>;
    expire(limit: usize, now: Timestamp) -> u64;
    prune(ended_before: Timestamp) -> Pruned;
    next_due(now: Timestamp) -> Option<Timestamp>;
    stats(now: Timestamp) -> LedgerStats;
    {
        async fn settle(
            &self,
            rows: &[(ClaimToken, Settlement)],
            now: Timestamp,
        ) -> Result<Vec<Settled>, StoreError> {
            yield_now().await;
            self.answers("settle").await;
            self.check("settle")?;
            self.check_rows(rows)?;
            let answer = self.memory.settle(rows, now).await;
            self.reply("settle", answer).await
        }

        async fn release(&self, tokens: &[ClaimToken], now: Timestamp) -> Result<(), StoreError> {
            self.answers("release").await;
            self.check("release")?;
            self.check_recipients("release", tokens.iter().map(|token| &token.key))?;
            let released = self.memory.release(tokens, now).await;
            self.disk.commit().await;
            released
        }

        async fn server_time(&self) -> Result<Option<Timestamp>, StoreError> {
            self.answers("server_time").await;
            Ok(*self.server_time.lock().unwrap())
        }

        fn changes(&self) -> Changes {
            let hints = Arc::clone(&self.hints);
            Changes::new(unfold(hints, async |hints| {
                hints.notified().await;
                Some(((), hints))
            }))
        }

        fn has_outbox(&self) -> bool {
            self.has_outbox.load(Ordering::Relaxed)
        }

        async fn outbox(&self, _: usize) -> Result<Vec<OutboxEntry>, StoreError> {
            self.answers("outbox").await;
            Ok(self.outbox.lock().unwrap().clone())
        }

        async fn settle_outbox(
            &self,
            entries: &[(i64, OutboxSettlement)],
            _: Timestamp,
        ) -> Result<Vec<OutboxSettled>, StoreError> {
            self.answers("settle_outbox").await;
            self.check("settle_outbox")?;
            Ok(vec![OutboxSettled::Taken; entries.len()])
        }

        async fn outbox_stats(&self) -> Result<OutboxStats, StoreError> {
            self.answers("outbox_stats").await;
            self.check("outbox_stats")?;
            Ok(OutboxStats::default())
        }

        fn description(&self) -> String {
            self.memory.description()
        }

        async fn settle_with(
            &self,
            changes: &[Change],
            rows: &[(ClaimToken, Settlement)],
            now: Timestamp,
        ) -> Result<Option<Vec<Settled>>, StoreError> {
            if !self.is_one_store.load(Ordering::Relaxed) {
                return Ok(None);
            }
            self.answers("settle_with").await;
            self.check("settle_with")?;
            self.check_rows(rows)?;
            self.check_changes(changes)?;
            let settled = self.memory.settle_with(changes, rows, now).await;
            self.disk.commit().await;
            settled
        }
    }
}

tampered! { ScheduleStore:
    put_schedule(schedule: &Schedule) -> ();
    schedules(of: Option<SubscriptionId>) -> Vec<Schedule>;
    remove_schedule(name: &ScheduleName) -> bool;
    remove_unchanged_schedule(schedule: &Schedule) -> bool;
    remove_schedules(of: SubscriptionId) -> u64;
    move_schedules(from: SubscriptionId, to: SubscriptionId) -> ();
    due_schedules(limit: usize, now: Timestamp) -> Vec<Schedule>;
    fire(firings: &[Firing], now: Timestamp) -> Vec<Fired>;
    next_fire_at() -> Option<Timestamp>;
    record_run(at: Timestamp) -> ();
    last_run() -> Option<Timestamp>;
    record_days(counts: &[DayCount]) -> ();
    days(now: Timestamp) -> Vec<DayCount>;
}
