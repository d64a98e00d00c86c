//! An engine on the memory store, with a clock and a push service that the test controls.

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use tower::ServiceExt as _;

use super::worker::Worker;
use super::{Engine, GuardedClock, KeyRing, Parts, PruneBreaker, Signals};
use crate::broadcast::{Audience, BroadcastId, Counts, Principal};
use crate::clock::{Clock, Timestamp};
use crate::deliver::{Deliver, EndpointPolicy, HostCheck, OriginGate, OriginGates, RetryPolicy};
use crate::message::Message;
use crate::schedule::Schedule;
use crate::store::{
    Change, CountFilter, DeliveryLedger as _, MemoryStore, NewBroadcast, NewSubscription, STEP,
    ScheduleStore, StoreError, StoreErrorKind, StoredVapidKey, SubscriptionFilter,
    SubscriptionLimits, SubscriptionPage, SubscriptionRecord, SubscriptionRef, SubscriptionStore,
    VapidKeyStore as _,
};
use crate::subscription::EndpointKey;
use crate::testing::{Answer, ManualClock, TestPushService, When};
use crate::vapid::{Contact, KeyEncryptionKeys};

pub(super) const START: Timestamp = Timestamp::from_secs(1_800_000_000);
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);

pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) store: Arc<MemoryStore>,
    pub(super) table: Arc<Table>,
    pub(super) clock: TestClock,
    pub(super) service: TestPushService,
    /// Whether the HTTP client panics.
    pub(super) panics: Arc<AtomicBool>,
}

/// The subscriptions of the store, with faults that the test switches on.
#[derive(Debug)]
pub(super) struct Table {
    store: Arc<MemoryStore>,
    pub(super) fails: AtomicBool,
    pub(super) hangs: AtomicBool,
    /// Whether changes hang.
    pub(super) hangs_writes: AtomicBool,
    /// Whether changes panic.
    pub(super) panics_at_writes: AtomicBool,
    /// Whether pages with rows that cannot be read panic.
    pub(super) panics_at_unreadable: AtomicBool,
    /// The calls of `get` and of `apply`.
    pub(super) gets: AtomicUsize,
    pub(super) writes: AtomicUsize,
    /// The purges that are still to say that they have left rows.
    pub(super) full_purges: AtomicUsize,
    /// Whether `get` finds no row.
    pub(super) is_empty: AtomicBool,
    /// Rows that cannot be read.
    pub(super) unreadable: Mutex<HashSet<EndpointKey>>,
    /// Rows whose changes are refused, with all changes of the same call.
    pub(super) refused: Mutex<HashSet<EndpointKey>>,
    /// Registered by another process as soon as a row was read or written.
    pub(super) meanwhile: Mutex<Option<Meanwhile>>,
    /// Whether it is only when a row was written.
    pub(super) skips_reads: AtomicBool,
    /// Written into the store as soon as rows were listed.
    pub(super) key_meanwhile: Mutex<Option<StoredVapidKey>>,
}

/// What another process registers.
#[derive(Debug)]
pub(super) struct Meanwhile {
    pub(super) subscription: NewSubscription,
    pub(super) schedule: Schedule,
}

/// A wall clock and a monotonic clock. Both stand still; the monotonic one exists from its first tick on.
#[derive(Clone, Debug)]
pub(super) struct TestClock {
    wall: ManualClock,
    monotonic: Arc<Mutex<Option<Duration>>>,
}

impl TestClock {
    pub(super) fn new() -> Self {
        Self {
            wall: ManualClock::new(START),
            monotonic: Arc::default(),
        }
    }

    /// Lets both clocks go on.
    pub(super) fn tick(&self, by: Duration) {
        self.wall.advance(by);
        *self
            .monotonic
            .lock()
            .unwrap()
            .get_or_insert_with(Duration::default) += by;
    }
}

impl Deref for TestClock {
    type Target = ManualClock;

    fn deref(&self) -> &ManualClock {
        &self.wall
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        self.wall.now()
    }

    fn monotonic(&self) -> Option<Duration> {
        *self.monotonic.lock().unwrap()
    }
}

impl Table {
    async fn check(&self) -> Result<(), StoreError> {
        if self.hangs.load(Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.fails.load(Relaxed) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "down"));
        }
        Ok(())
    }

    /// Lets the other process register, a millisecond later.
    async fn meet(&self, now: Timestamp) -> Result<(), StoreError> {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(new) = meanwhile {
            let now = now + Duration::from_millis(1);
            let limits = SubscriptionLimits::default();
            self.store.upsert(&new.subscription, &limits, now).await?;
            // The store may be full.
            let _ = self.store.put_schedule(&new.schedule).await;
        }
        Ok(())
    }

    fn check_keys(&self, keys: impl IntoIterator<Item = EndpointKey>) -> Result<(), StoreError> {
        let unreadable = self.unreadable.lock().unwrap();
        match keys.into_iter().any(|key| unreadable.contains(&key)) {
            true => Err(StoreErrorKind::Corrupt.into()),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl SubscriptionStore for Table {
    async fn upsert(
        &self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<crate::store::Upserted, StoreError> {
        let upserted = self.store.upsert(new, limits, now).await?;
        self.meet(now).await?;
        Ok(upserted)
    }

    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        self.gets.fetch_add(1, Relaxed);
        self.check().await?;
        if self.is_empty.load(Relaxed) {
            return Ok(vec![None; which.len()]);
        }
        let found = self.store.get(which).await?;
        if found.iter().any(Option::is_some) && !self.skips_reads.load(Relaxed) {
            self.meet(START).await?;
        }
        let rows = found.iter().flatten();
        self.check_keys(rows.map(|row| row.subscription.endpoint().key()))?;
        Ok(found)
    }

    async fn page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let page = self.store.page(audience, after, limit, now).await?;
        let checked = self.check_keys(page.iter().map(|row| row.subscription.endpoint().key()));
        let panics = self.panics_at_unreadable.load(Relaxed);
        assert!(checked.is_ok() || !panics, "a page that panics");
        checked.map(|()| page)
    }

    async fn owned_by(
        &self,
        principal: &Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let rows = self.store.owned_by(principal, after, limit).await?;
        self.meet(START).await?;
        Ok(rows)
    }

    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<SubscriptionPage, StoreError> {
        let store = &self.store;
        let list = store.list_subscriptions(filter, after, limit, now).await?;
        self.meet(now).await?;
        let key = self.key_meanwhile.lock().unwrap().take();
        if let Some(key) = key {
            self.store.insert(&key).await?;
        }
        Ok(list)
    }

    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError> {
        self.store.count(filter, now).await
    }

    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
        self.writes.fetch_add(1, Relaxed);
        let panics = self.panics_at_writes.load(Relaxed);
        assert!(!panics, "a store that panics");
        self.check().await?;
        if self.hangs_writes.load(Relaxed) {
            std::future::pending::<()>().await;
        }
        {
            let refused = self.refused.lock().unwrap();
            let mut keys = changes.iter().filter_map(Change::key);
            if keys.any(|key| refused.contains(key)) {
                return Err(StoreErrorKind::Misconfigured.into());
            }
        }
        let applied = self.store.apply(changes, now).await?;
        if matches!(changes, [Change::Purge { .. }]) {
            let left = &self.full_purges;
            let took = left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
            return Ok(if took.is_ok() { STEP as u64 } else { applied });
        }
        Ok(applied)
    }
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(OriginGates::IN_FLIGHT, TIMEOUT).await
    }

    /// Creates a world with a limit on requests in flight per origin, and a request timeout of the engine.
    pub(super) async fn with(in_flight_per_origin: usize, request_timeout: Duration) -> Self {
        Self::on(MemoryStore::new(), in_flight_per_origin, request_timeout).await
    }

    pub(super) async fn on(
        store: MemoryStore,
        in_flight_per_origin: usize,
        request_timeout: Duration,
    ) -> Self {
        Self::of(store, in_flight_per_origin, request_timeout, false).await
    }

    /// Creates a world whose ledger keeps the subscriptions. The faults of [`Table`] are those of its other calls.
    pub(super) async fn of_one_store() -> Self {
        Self::of(MemoryStore::new(), OriginGates::IN_FLIGHT, TIMEOUT, true).await
    }

    async fn of(
        store: MemoryStore,
        in_flight_per_origin: usize,
        request_timeout: Duration,
        is_one_store: bool,
    ) -> Self {
        let store = Arc::new(store);
        let table = Arc::new(Table {
            store: Arc::clone(&store),
            fails: AtomicBool::default(),
            hangs: AtomicBool::default(),
            hangs_writes: AtomicBool::default(),
            panics_at_writes: AtomicBool::default(),
            panics_at_unreadable: AtomicBool::default(),
            gets: AtomicUsize::default(),
            writes: AtomicUsize::default(),
            full_purges: AtomicUsize::default(),
            is_empty: AtomicBool::default(),
            unreadable: Mutex::default(),
            refused: Mutex::default(),
            meanwhile: Mutex::default(),
            skips_reads: AtomicBool::default(),
            key_meanwhile: Mutex::default(),
        });
        let clock = TestClock::new();
        let service = TestPushService::builder().clock(clock.clone()).build();
        let panics = Arc::new(AtomicBool::default());
        let client = {
            let panics = Arc::clone(&panics);
            service.clone().map_request(move |request| {
                assert!(!panics.load(Relaxed), "a client that panics");
                request
            })
        };
        let contact = Contact::parse("mailto:ops@example.com").unwrap();
        let gates = OriginGates::with_in_flight(in_flight_per_origin);
        let endpoint_policy = EndpointPolicy::public_hosts();
        let deliver = Deliver::new(client, contact.clone())
            .with_policy(endpoint_policy.clone())
            .with_gates(gates.clone())
            .with_clock(Arc::new(clock.clone()))
            .with_timeout(TIMEOUT);
        let keys = KeyEncryptionKeys::none();
        let engine = Engine::new(Parts {
            is_one_store,
            subscriptions: Arc::clone(&table) as _,
            ledger: Arc::clone(&store) as _,
            key_ring: KeyRing::open(Arc::clone(&store) as _, keys, None, START)
                .await
                .unwrap(),
            clock: Arc::new(GuardedClock::new(Arc::new(clock.clone()))),
            host_check: HostCheck::new(None, endpoint_policy.clone(), gates.clone()),
            endpoint_policy,
            limits: SubscriptionLimits::default(),
            gates,
            sender: Arc::new(deliver),
            retry: RetryPolicy::default(),
            contact,
            has_contact: true,
            prune_breaker: PruneBreaker::default(),
            stable_topic: false,
            composer: None,
            daily_text: String::new(),
            request_timeout,
            lease: Duration::from_secs(45),
            poll_interval: Duration::from_secs(60),
            remote_workers: false,
            signals: Signals::default(),
        });
        Self {
            engine,
            store,
            table,
            clock,
            service,
            panics,
        }
    }

    /// Returns an engine on other stores.
    #[cfg(feature = "sqlite")]
    pub(super) fn engine_on(
        self,
        subscriptions: Arc<dyn SubscriptionStore>,
        ledger: Arc<dyn ScheduleStore>,
    ) -> Engine {
        let parts = Arc::into_inner(self.engine.0).unwrap();
        Engine::new(Parts {
            subscriptions,
            ledger,
            is_one_store: false,
            signals: Signals::default(),
            ..parts
        })
    }

    /// Subscribes a browser, an hour before the start.
    pub(super) async fn subscriber(&self) -> EndpointKey {
        let key = self.engine.key_ring.active();
        let browser = self.service.user_agent();
        let subscription = browser.subscribe(key.public_key()).unwrap();
        let new = NewSubscription::new(subscription.clone(), key.id());
        let limits = SubscriptionLimits::default();
        let earlier = START - Duration::from_secs(3600);
        self.store.upsert(&new, &limits, earlier).await.unwrap();
        subscription.endpoint().key()
    }

    pub(super) async fn record(&self, key: EndpointKey) -> SubscriptionRecord {
        let rows = self.store.get(&[SubscriptionRef::Key(key)]).await;
        rows.unwrap().remove(0).unwrap()
    }

    pub(super) async fn gate(&self, key: EndpointKey) -> Arc<OriginGate> {
        let record = self.record(key).await;
        let origin = record.subscription.endpoint().origin();
        self.engine.gates.gate(origin)
    }

    /// Opens a broadcast to all that is due.
    pub(super) async fn broadcast(&self) -> BroadcastId {
        let now = self.clock.now();
        let deadline = now + Duration::from_secs(86_400);
        let new = NewBroadcast::new(Audience::All, Message::new("hello"), deadline);
        self.store.open(&new, now).await.unwrap();
        new.id
    }

    pub(super) async fn counts(&self, id: BroadcastId) -> Counts {
        let status = self.store.status(id, self.clock.now()).await;
        status.unwrap().unwrap().counts
    }

    pub(super) fn answer(&self, status: StatusCode) {
        self.service.script(When::any(), Answer::status(status));
    }
}

/// Waits until no attempt is in flight.
pub(super) async fn drive(worker: &mut Worker) {
    while worker.attempt_ended().await.is_some() {}
}
