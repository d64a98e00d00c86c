//! One application, its store and the push service it sends to, in process and on one clock.

use std::sync::Arc;

pub(crate) use std::time::Duration;

pub(crate) use http::StatusCode;
use tokio::time::timeout;
pub(crate) use tower_web_push::broadcast::{BroadcastId, BroadcastState, BroadcastStatus, Counts};
pub(crate) use tower_web_push::clock::{Clock as _, Timestamp};
pub(crate) use tower_web_push::deliver::{EndpointPolicy, RetryPolicy};
pub(crate) use tower_web_push::engine::KeyRing;
pub(crate) use tower_web_push::message::Ttl;
pub(crate) use tower_web_push::store::{
    Change, CountFilter, DeliveryLedger as _, Liveness, MemoryStore, NewSubscription, Pause,
    PauseReason, SubscriptionLimits, SubscriptionRecord, SubscriptionRef, SubscriptionStore as _,
    Upserted,
};
pub(crate) use tower_web_push::subscription::Origin;
pub(crate) use tower_web_push::testing::{Answer, ManualClock, TestPushService, UserAgent, When};
pub(crate) use tower_web_push::vapid::KeyId;
pub(crate) use tower_web_push::{Audience, Message, WebPush, WebPushBuilder};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
/// The poll interval of all workers here: what a worker was not woken for, it finds an hour later.
const POLL_INTERVAL: Duration = Duration::from_secs(3600);
/// Less than all pauses after which a worker looks again by itself.
const SOON: Duration = Duration::from_millis(500);
pub(crate) const FCM: &str = "https://fcm.googleapis.com";
pub(crate) const MOZILLA: &str = "https://updates.push.services.mozilla.com";
pub(crate) const APPLE: &str = "https://web.push.apple.com";
pub(crate) const WNS: &str = "https://db5p.notify.windows.com";

pub(crate) struct World {
    pub(crate) push: WebPush,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) service: TestPushService,
    pub(crate) clock: ManualClock,
}

impl World {
    pub(crate) async fn at(origin: &str) -> Self {
        Self::with(origin, |builder| builder).await
    }

    pub(crate) async fn with(
        origin: &str,
        configure: impl FnOnce(WebPushBuilder) -> WebPushBuilder,
    ) -> Self {
        Self::on(MemoryStore::new(), origin, configure).await
    }

    pub(crate) async fn on(
        store: MemoryStore,
        origin: &str,
        configure: impl FnOnce(WebPushBuilder) -> WebPushBuilder,
    ) -> Self {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let service = TestPushService::builder()
            .origin(Origin::parse(origin).unwrap())
            .clock(clock.clone())
            .build();
        let store = Arc::new(store);
        let builder = builder(&store, &clock).client(service.clone());
        Self {
            push: configure(builder).build().await.unwrap(),
            store,
            service,
            clock,
        }
    }

    /// Another replica on the same store.
    pub(crate) async fn replica(&self) -> WebPush {
        self.replica_with(|builder| builder).await
    }

    pub(crate) async fn replica_with(
        &self,
        configure: impl FnOnce(WebPushBuilder) -> WebPushBuilder,
    ) -> WebPush {
        let builder = builder(&self.store, &self.clock).client(self.service.clone());
        configure(builder).build().await.unwrap()
    }

    /// A browser that subscribed some time ago.
    pub(crate) async fn subscriber(&self) -> (UserAgent, SubscriptionRecord) {
        let subscribed = self.subscribe().await;
        self.clock.advance(2 * MINUTE);
        subscribed
    }

    /// This number of them.
    pub(crate) async fn subscribers(&self, number: usize) -> Vec<(UserAgent, SubscriptionRecord)> {
        let mut subscribed = Vec::new();
        for _ in 0..number {
            subscribed.push(self.subscribe().await);
        }
        self.clock.advance(2 * MINUTE);
        subscribed
    }

    /// A browser that subscribes now.
    pub(crate) async fn subscribe(&self) -> (UserAgent, SubscriptionRecord) {
        let browser = self.service.user_agent();
        let key = self.push.vapid_public_key();
        let subscription = browser.subscribe(&key).unwrap();
        let new = NewSubscription::new(subscription, KeyId::of(&key));
        let (limits, now) = (SubscriptionLimits::default(), self.clock.now());
        match self.store.upsert(&new, &limits, now).await.unwrap() {
            Upserted::Stored { record, .. } => (browser, *record),
            Upserted::Conflict => panic!("a new endpoint has no conflict"),
        }
    }

    pub(crate) async fn record(&self, of: &SubscriptionRecord) -> SubscriptionRecord {
        let found = self.store.get(&[SubscriptionRef::Id(of.id)]).await.unwrap();
        found.into_iter().next().flatten().expect("the row is kept")
    }

    /// A message to everyone.
    pub(crate) async fn enqueue(&self) -> BroadcastId {
        let message = Message::new("x");
        let queued = self.push.enqueue(Audience::All, message).await.unwrap();
        queued.broadcast
    }

    /// A message that all subscribers get, a while ago: from now on they are evidence.
    pub(crate) async fn prove(&self) {
        let proved = self.enqueue().await;
        self.settle().await;
        let counts = self.status(proved).await.counts;
        assert_eq!(counts.pending, 0, "{counts:?}");
        self.clock.advance(2 * MINUTE);
    }

    /// Lets what the push service does last for longer than a burst.
    pub(crate) async fn outlast(&self) {
        self.settle().await;
        self.clock.advance(Duration::from_secs(4));
        self.settle().await;
    }

    /// Ticks until there is nothing to do.
    pub(crate) async fn settle(&self) {
        while !self.push.tick().await.unwrap().is_idle() {}
    }

    pub(crate) async fn status(&self, id: BroadcastId) -> BroadcastStatus {
        let status = self.push.status(id).await.unwrap();
        status.expect("the broadcast is known")
    }

    /// The number of requests at the push service.
    pub(crate) fn asked(&self) -> u64 {
        self.service.counts().requests
    }

    pub(crate) async fn pauses(&self) -> Vec<Pause> {
        self.store.pauses(self.clock.now()).await.unwrap()
    }

    /// The paused origins, and the time left.
    pub(crate) async fn paused(&self) -> Vec<(String, Duration)> {
        let now = self.clock.now();
        let plain = |pause: Pause| (pause.origin.to_string(), pause.until.since(now));
        self.pauses().await.into_iter().map(plain).collect()
    }
}

fn builder(store: &Arc<MemoryStore>, clock: &ManualClock) -> WebPushBuilder {
    WebPush::builder("mailto:ops@example.com")
        .store(Arc::clone(store))
        .clock(clock.clone())
        .endpoint_policy(EndpointPolicy::public_hosts())
        .poll_interval(POLL_INTERVAL)
}

/// Waits, in paused time, for what a running worker does when it is woken: a wake that is lost is not made good for in this time.
pub(crate) async fn soon<T>(wait: impl Future<Output = T>) -> T {
    let within = timeout(SOON, wait).await;
    within.expect("the worker was not woken")
}

pub(crate) fn counts(set: impl FnOnce(&mut Counts)) -> Counts {
    let mut counts = Counts::default();
    set(&mut counts);
    counts
}
