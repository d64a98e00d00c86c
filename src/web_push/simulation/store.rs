//! The database that the replicas share, as one of them sees it: slow, out of reach, or failing.
//!
//! Each call takes a time before and after its effect. It may fail before the effect, or lose the reply. What it did is
//! recorded at the moment of its effect.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::sleep;

use super::beats::{Beating, Workers};
use super::clock::HostClock;
use super::world::{START, Shared, World};
use crate::broadcast::{Audience, BroadcastId, BroadcastStatus, Principal};
use crate::clock::Timestamp;
use crate::schedule::{Schedule, ScheduleName};
use crate::store::heartbeat::{Heartbeat, LOOK_AGAIN as LOOK_AT_OTHERS};
use crate::store::{
    BroadcastCursor, BroadcastFilter, BroadcastPage, Change, Changes, ClaimRequest, ClaimToken,
    Claims, CountFilter, Cursor, DayCount, DeliveryLedger, Erased, Expansion, FailureSample, Fired,
    Firing, LedgerStats, MemoryStore, NewBroadcast, NewDelivery, NewSubscription, Opened,
    PageWrite, Pause, Pruned, ScheduleStore, Settled, Settlement, StoreError, StoreErrorKind,
    StoredVapidKey, SubscriptionFilter, SubscriptionLimits, SubscriptionPage, SubscriptionRecord,
    SubscriptionRef, SubscriptionStore, Tally, Upserted, VapidKeyStore,
};
use crate::subscription::{EndpointKey, Origin, SubscriptionId};
use crate::vapid::{KeyId, SealedVapidKey};

/// How often a call that does not get through looks again, and how long until it is given up.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
const TIMEOUT: u32 = 20;

#[derive(Clone, Debug)]
pub(super) struct Database {
    pub(super) memory: Arc<MemoryStore>,
    pub(super) host: usize,
    pub(super) life: u32,
    pub(super) clock: Arc<HostClock>,
    pub(super) world: Shared,
    pub(super) hints: Arc<watch::Sender<u64>>,
    /// The signs of life, if the database has them, and the table that they are written to.
    pub(super) beats: Option<(Arc<Heartbeat>, Arc<Mutex<Workers>>)>,
}

/// A call that had its effect.
struct Done {
    after: Duration,
    is_lost: bool,
}

fn unavailable(why: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, why)
}

impl Database {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn now(&self) -> Duration {
        self.clock.true_now()
    }

    /// Reaches the database.
    async fn ask(&self) -> Result<Done, StoreError> {
        let call = self.world().call(self.now());
        sleep(call.before).await;
        self.connected().await?;
        if call.is_refused {
            return Err(unavailable("refused"));
        }
        Ok(Done {
            after: call.after,
            is_lost: call.is_reply_lost,
        })
    }

    /// Waits for the reply.
    async fn reply<T>(&self, done: Done, reply: Result<T, StoreError>) -> Result<T, StoreError> {
        sleep(done.after).await;
        self.connected().await?;
        match done.is_lost {
            true => Err(unavailable("the reply was lost")),
            false => reply,
        }
    }

    pub(super) async fn connected(&self) -> Result<(), StoreError> {
        for _ in 0..TIMEOUT {
            if self.now() >= self.world().cut[self.host] {
                return Ok(());
            }
            sleep(LOOK_AGAIN).await;
        }
        Err(unavailable("out of reach"))
    }

    async fn note_settled(
        &self,
        rows: &[(ClaimToken, Settlement)],
        results: &[Settled],
        now: Timestamp,
    ) {
        let pauses = self.stored_pauses().await;
        let cancelled = {
            let mut world = self.world();
            world.probes_end(rows, results, &pauses, (now, self.now()));
            world.settled(self.host, rows, results, self.now());
            world.cancelled_of(rows)
        };
        for id in cancelled {
            if let Ok(Some(status)) = self.memory.status(id, now).await {
                self.world().check_cancelled(&status, self.now());
            }
        }
        if let Some((_, workers)) = &self.beats {
            let tokens = rows.iter().map(|(token, _)| token);
            workers.lock().unwrap().settled(tokens);
        }
    }

    /// Makes the rows of dead workers due.
    async fn rescue(&self, now: Timestamp) -> Result<(), StoreError> {
        let Some((heartbeat, workers)) = &self.beats else {
            return Ok(());
        };
        let Some(silent) = heartbeat.take_silent() else {
            return Ok(());
        };
        let rows = workers.lock().unwrap().take_dead(&silent);
        let due: Vec<_> = rows
            .iter()
            .map(|token| (*token, Settlement::RetryAt(now)))
            .collect();
        let results = self.memory.settle(&due, now).await?;
        self.world().rescued(&rows, &results, self.now());
        Ok(())
    }

    async fn stored_pauses(&self) -> Vec<Pause> {
        self.memory.pauses(START + self.now()).await.unwrap()
    }
}

/// A call of which nothing is recorded.
macro_rules! plain {
    ($self:ident, $call:expr) => {{
        let done = $self.ask().await?;
        let reply = $call.await;
        $self.reply(done, reply).await
    }};
}

#[async_trait]
impl SubscriptionStore for Database {
    async fn upsert(
        &self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<Upserted, StoreError> {
        plain!(self, self.memory.upsert(new, limits, now))
    }

    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        let done = self.ask().await?;
        let is_unread = self.now() < self.world().unread;
        let reply = match is_unread {
            true => Err(unavailable("the table cannot be read")),
            false => self.memory.get(which).await,
        };
        let reply = self.reply(done, reply).await;
        if reply.is_err() {
            let by_key = |which: &SubscriptionRef| match which {
                SubscriptionRef::Key(key) => Some(*key),
                SubscriptionRef::Id(_) => None,
            };
            let keys: Vec<_> = which.iter().filter_map(by_key).collect();
            self.world().unread(self.host, &keys, self.now());
        }
        reply
    }

    async fn page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        if self.now() < self.world().unread {
            return Err(unavailable("the table cannot be read"));
        }
        plain!(self, self.memory.page(audience, after, limit, now))
    }

    async fn owned_by(
        &self,
        principal: &Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        plain!(self, self.memory.owned_by(principal, after, limit))
    }

    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<SubscriptionPage, StoreError> {
        plain!(
            self,
            self.memory.list_subscriptions(filter, after, limit, now)
        )
    }

    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError> {
        plain!(self, self.memory.count(filter, now))
    }

    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
        let done = self.ask().await?;
        let reply = self.memory.apply(changes, now).await;
        if reply.is_ok() {
            self.world().changed(changes, self.now());
        }
        self.reply(done, reply).await
    }
}

#[async_trait]
impl VapidKeyStore for Database {
    async fn keys(&self) -> Result<Vec<StoredVapidKey>, StoreError> {
        plain!(self, self.memory.keys())
    }

    async fn insert_first(&self, key: &StoredVapidKey) -> Result<bool, StoreError> {
        plain!(self, self.memory.insert_first(key))
    }

    async fn insert(&self, key: &StoredVapidKey) -> Result<(), StoreError> {
        plain!(self, self.memory.insert(key))
    }

    async fn reseal(
        &self,
        id: &KeyId,
        expected: &SealedVapidKey,
        sealed: &SealedVapidKey,
    ) -> Result<bool, StoreError> {
        plain!(self, self.memory.reseal(id, expected, sealed))
    }

    async fn remove(&self, id: &KeyId) -> Result<bool, StoreError> {
        plain!(self, self.memory.remove(id))
    }
}

#[async_trait]
impl DeliveryLedger for Database {
    async fn open(&self, broadcast: &NewBroadcast, now: Timestamp) -> Result<Opened, StoreError> {
        let done = self.ask().await?;
        let reply = self.memory.open(broadcast, now).await;
        if let Ok(opened) = &reply {
            self.world().opened(broadcast, opened, self.now());
            self.hints.send_modify(|hints| *hints += 1);
        }
        self.reply(done, reply).await
    }

    async fn expandable(&self, limit: usize, now: Timestamp) -> Result<Vec<Expansion>, StoreError> {
        plain!(self, self.memory.expandable(limit, now))
    }

    async fn enqueue_page(
        &self,
        broadcast: BroadcastId,
        expected: &Cursor,
        rows: &[NewDelivery],
        next: &Cursor,
        now: Timestamp,
    ) -> Result<PageWrite, StoreError> {
        plain!(
            self,
            self.memory
                .enqueue_page(broadcast, expected, rows, next, now)
        )
    }

    async fn claim(&self, request: &ClaimRequest, now: Timestamp) -> Result<Claims, StoreError> {
        self.world().asks(self.host, self.now());
        let worker = match &self.beats {
            Some((heartbeat, _)) => heartbeat.worker(|| -> Beating { unreachable!() }).await,
            None => None,
        };
        let done = self.ask().await?;
        self.rescue(now).await?;
        let pauses = self.memory.pauses(now).await?;
        let reply = self.memory.claim(request, now).await;
        if let Ok(claims) = &reply {
            let by = (self.host, self.life);
            self.world().claimed(by, claims, &pauses, self.now());
            if let (Some((_, workers)), Some(worker)) = (&self.beats, worker) {
                let rows = claims.rows.iter().map(|row| row.token);
                workers.lock().unwrap().claimed(worker, rows);
            }
        }
        let reply = self.reply(done, reply).await;
        if let Ok(claims) = &reply {
            self.world().knows(self.host, claims);
        }
        reply
    }

    async fn settle(
        &self,
        rows: &[(ClaimToken, Settlement)],
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        let done = self.ask().await?;
        let reply = self.memory.settle(rows, now).await;
        if let Ok(results) = &reply {
            self.note_settled(rows, results, now).await;
        }
        self.reply(done, reply).await
    }

    async fn settle_with(
        &self,
        changes: &[Change],
        rows: &[(ClaimToken, Settlement)],
        now: Timestamp,
    ) -> Result<Option<Vec<Settled>>, StoreError> {
        let done = self.ask().await?;
        let reply = self.memory.settle_with(changes, rows, now).await;
        if let Ok(Some(results)) = &reply {
            self.world().changed(changes, self.now());
            self.note_settled(rows, results, now).await;
        }
        self.reply(done, reply).await
    }

    async fn cancel(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        let done = self.ask().await?;
        let reply = self.memory.cancel(broadcast, now).await;
        if reply.is_ok() {
            self.world().cancelled(broadcast, self.now());
        }
        self.reply(done, reply).await
    }

    async fn list_broadcasts(
        &self,
        filter: &BroadcastFilter,
        after: Option<&BroadcastCursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<BroadcastPage, StoreError> {
        plain!(self, self.memory.list_broadcasts(filter, after, limit, now))
    }

    async fn failure_samples(
        &self,
        broadcast: BroadcastId,
    ) -> Result<Vec<FailureSample>, StoreError> {
        plain!(self, self.memory.failure_samples(broadcast))
    }

    async fn hold(
        &self,
        broadcast: BroadcastId,
        is_held: bool,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        let done = self.ask().await?;
        let reply = self.memory.hold(broadcast, is_held, now).await;
        if reply.is_ok() {
            self.world().held(broadcast, is_held, self.now());
        }
        self.reply(done, reply).await
    }

    async fn erase(
        &self,
        user: &Principal,
        subscriptions: &[SubscriptionRecord],
        now: Timestamp,
    ) -> Result<Erased, StoreError> {
        plain!(self, self.memory.erase(user, subscriptions, now))
    }

    async fn status(
        &self,
        broadcast: BroadcastId,
        now: Timestamp,
    ) -> Result<Option<BroadcastStatus>, StoreError> {
        plain!(self, self.memory.status(broadcast, now))
    }

    async fn pause(&self, pause: &Pause, now: Timestamp) -> Result<(), StoreError> {
        let done = match self.ask().await {
            Ok(done) => done,
            Err(error) => {
                self.world()
                    .could_not_pause(self.host, pause, (now, self.now()));
                return Err(error);
            }
        };
        let before = self.memory.pauses(now).await?;
        let reply = self.memory.pause(pause, now).await;
        if reply.is_ok() {
            let stored = self.stored_pauses().await;
            self.world()
                .check_longer(pause, &before, &stored, (now, self.now()));
            self.world().paused(self.host, pause, &stored, self.now());
        }
        self.reply(done, reply).await
    }

    async fn pauses(&self, now: Timestamp) -> Result<Vec<Pause>, StoreError> {
        plain!(self, self.memory.pauses(now))
    }

    async fn tally(
        &self,
        counts: &[(Origin, Tally)],
        now: Timestamp,
    ) -> Result<Vec<Tally>, StoreError> {
        plain!(self, self.memory.tally(counts, now))
    }

    async fn tallies(&self) -> Result<Vec<(Origin, Tally)>, StoreError> {
        plain!(self, self.memory.tallies())
    }

    async fn underway(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<BroadcastStatus>, StoreError> {
        plain!(self, self.memory.underway(limit, now))
    }

    async fn expire(&self, limit: usize, now: Timestamp) -> Result<u64, StoreError> {
        let done = self.ask().await?;
        let reply = self.memory.expire(limit, now).await;
        if reply.as_ref().is_ok_and(|expired| *expired > 0) {
            self.world().expired(now, self.now());
        }
        self.reply(done, reply).await
    }

    async fn prune(&self, ended_before: Timestamp) -> Result<Pruned, StoreError> {
        plain!(self, self.memory.prune(ended_before))
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let done = self.ask().await?;
        let mut reply = self.memory.next_due(now).await;
        if let (Ok(next), Some((heartbeat, workers))) = (&mut reply, &self.beats)
            && workers.lock().unwrap().have_rows(&heartbeat.others())
        {
            let look = now + LOOK_AT_OTHERS;
            *next = Some(next.map_or(look, |next| next.min(look)));
        }
        self.reply(done, reply).await
    }

    async fn stats(&self, now: Timestamp) -> Result<LedgerStats, StoreError> {
        plain!(self, self.memory.stats(now))
    }

    async fn server_time(&self) -> Result<Option<Timestamp>, StoreError> {
        let done = self.ask().await?;
        let time = START + self.now();
        self.reply(done, Ok(Some(time))).await
    }

    fn epoch(&self) -> Option<u64> {
        match &self.beats {
            Some((heartbeat, _)) => heartbeat.epoch(),
            None => Some(0),
        }
    }

    fn changes(&self) -> Changes {
        if !self.world().plan.has_hints {
            return Changes::none();
        }
        let hints = self.hints.subscribe();
        Changes::new(stream::unfold(hints, |mut hints| async move {
            hints.changed().await.ok()?;
            Some(((), hints))
        }))
    }
}

#[async_trait]
impl ScheduleStore for Database {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), StoreError> {
        plain!(self, self.memory.put_schedule(schedule))
    }

    async fn schedules(&self, of: Option<SubscriptionId>) -> Result<Vec<Schedule>, StoreError> {
        plain!(self, self.memory.schedules(of))
    }

    async fn unreadable_schedules(&self, of: Option<SubscriptionId>) -> Result<u64, StoreError> {
        plain!(self, self.memory.unreadable_schedules(of))
    }

    async fn remove_schedule(&self, name: &ScheduleName) -> Result<bool, StoreError> {
        plain!(self, self.memory.remove_schedule(name))
    }

    async fn remove_unchanged_schedule(&self, schedule: &Schedule) -> Result<bool, StoreError> {
        plain!(self, self.memory.remove_unchanged_schedule(schedule))
    }

    async fn remove_schedules(&self, of: SubscriptionId) -> Result<u64, StoreError> {
        plain!(self, self.memory.remove_schedules(of))
    }

    async fn move_schedules(
        &self,
        from: SubscriptionId,
        to: SubscriptionId,
    ) -> Result<(), StoreError> {
        plain!(self, self.memory.move_schedules(from, to))
    }

    async fn due_schedules(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Schedule>, StoreError> {
        plain!(self, self.memory.due_schedules(limit, now))
    }

    async fn fire(&self, firings: &[Firing], now: Timestamp) -> Result<Vec<Fired>, StoreError> {
        let done = self.ask().await?;
        let reply = self.memory.fire(firings, now).await;
        if let Ok(fired) = &reply {
            self.world().fired(firings, fired, self.now());
        }
        self.reply(done, reply).await
    }

    async fn next_fire_at(&self) -> Result<Option<Timestamp>, StoreError> {
        plain!(self, self.memory.next_fire_at())
    }

    async fn record_run(&self, at: Timestamp) -> Result<(), StoreError> {
        plain!(self, self.memory.record_run(at))
    }

    async fn last_run(&self) -> Result<Option<Timestamp>, StoreError> {
        plain!(self, self.memory.last_run())
    }

    async fn record_days(&self, counts: &[DayCount]) -> Result<(), StoreError> {
        plain!(self, self.memory.record_days(counts))
    }

    async fn days(&self, now: Timestamp) -> Result<Vec<DayCount>, StoreError> {
        plain!(self, self.memory.days(now))
    }
}
