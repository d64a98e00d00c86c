//! Twelve recipients at two push services, one of which is busy at first. All of the time is tokio's.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, StatusCode};
use tokio::time::{Instant, sleep, timeout};
use tower::service_fn;
use tower_service::Service as _;
use tower_web_push::broadcast::{BroadcastId, BroadcastStatus};
use tower_web_push::clock::{Clock, Timestamp};
use tower_web_push::push_request::PushBody;
use tower_web_push::store::{
    DeliveryLedger as _, NewSubscription, SubscriptionLimits, SubscriptionStore as _,
};
use tower_web_push::subscription::{Origin, Subscription};
use tower_web_push::testing::{Answer, TestPushService, When};
use tower_web_push::vapid::{KeyId, VapidPublicKey};
use tower_web_push::{Audience, Builder, Message, WebPush};

use crate::store::YieldingStore;

pub(crate) const RECIPIENTS: u64 = 12;
const ORIGINS: [&str; 2] = [
    "https://fcm.googleapis.com",
    "https://updates.push.services.mozilla.com",
];
/// How long a push service takes to look at a request, and how long its answer takes to come.
const WAY: Duration = Duration::from_millis(30);
/// In virtual time: leases may have to end first.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);
const RETRY_AFTER: u32 = 2;

pub(crate) struct World {
    pub(crate) push: WebPush,
    pub(crate) store: Arc<YieldingStore>,
    pub(crate) service: TestPushService,
    clock: VirtualClock,
    recipients: Mutex<Vec<Subscription>>,
    broadcast: Mutex<Option<BroadcastId>>,
}

/// Moves with tokio's time, which jumps ahead when all tasks wait.
#[derive(Clone, Copy, Debug)]
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_800_000_000) + self.0.elapsed()
    }
}

fn builder(store: &Arc<YieldingStore>, clock: VirtualClock) -> Builder {
    WebPush::builder("mailto:ops@example.com")
        .store(Arc::clone(store))
        .clock(clock)
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = VirtualClock(Instant::now());
        let service = TestPushService::builder().clock(clock).build();
        let store = Arc::new(YieldingStore::default());
        let over_the_network = {
            let service = service.clone();
            service_fn(move |request: Request<PushBody>| {
                let mut service = service.clone();
                async move {
                    sleep(WAY).await;
                    let answer = service.call(request).await;
                    sleep(WAY).await;
                    answer
                }
            })
        };
        let push = builder(&store, clock)
            .client(over_the_network)
            // Some wait for a permit.
            .in_flight_per_origin(3)
            .build()
            .await
            .unwrap();
        let world = Self {
            push,
            store,
            service,
            clock,
            recipients: Mutex::default(),
            broadcast: Mutex::default(),
        };
        let key = world.push.vapid_public_key();
        let mut busy = None;
        for number in 0..RECIPIENTS {
            let origin = ORIGINS[usize::from(number % 3 == 0)];
            busy = Some(world.subscribe(origin, &key).await);
        }
        let answer = Answer::status(StatusCode::SERVICE_UNAVAILABLE).with_retry_after(RETRY_AFTER);
        let when = When::endpoint(busy.unwrap().endpoint()).times(1);
        world.service.script(when, answer);
        world
    }

    /// Another process on the same store, which sends nothing.
    pub(crate) async fn another(&self) -> WebPush {
        builder(&self.store, self.clock).build().await.unwrap()
    }

    async fn subscribe(&self, origin: &str, key: &VapidPublicKey) -> Subscription {
        let browser = self.service.user_agent_at(&Origin::parse(origin).unwrap());
        let subscription = browser.subscribe(key).unwrap();
        let new = NewSubscription::new(subscription.clone(), KeyId::of(key));
        let (limits, now) = (SubscriptionLimits::default(), self.clock.now());
        self.store.memory.upsert(&new, &limits, now).await.unwrap();
        self.recipients.lock().unwrap().push(subscription.clone());
        subscription
    }

    /// Some more recipients, who have subscribed with this key.
    pub(crate) async fn subscribe_with(&self, key: &VapidPublicKey, more: u64) {
        for _ in 0..more {
            self.subscribe(ORIGINS[0], key).await;
        }
    }

    pub(crate) async fn enqueue(&self) {
        let queued = self.push.enqueue(Audience::All, Message::new("x")).await;
        *self.broadcast.lock().unwrap() = Some(queued.unwrap().broadcast);
    }

    pub(crate) async fn status(&self) -> BroadcastStatus {
        let id = self.broadcast.lock().unwrap().unwrap();
        let status = self.store.memory.status(id, self.clock.now()).await;
        status.unwrap().unwrap()
    }

    /// How many rows are left, and how many of them are leased.
    pub(crate) async fn ledger_stats(&self) -> (u64, u64) {
        let stats = self.store.memory.stats(self.clock.now()).await.unwrap();
        (stats.depth, stats.leased)
    }

    /// How often each recipient got the message.
    pub(crate) fn got(&self) -> Vec<u64> {
        let got = |to: &Subscription| self.service.accepted_for(to.endpoint());
        self.recipients.lock().unwrap().iter().map(got).collect()
    }

    /// Ready once so many messages were taken.
    pub(crate) fn taken(&self, messages: u64) -> impl Future<Output = ()> + Send + 'static {
        let service = self.service.clone();
        async move {
            service
                .wait_until(|counts| counts.accepted >= messages)
                .await;
        }
    }

    pub(crate) async fn retry_is_due(&self) {
        sleep(Duration::from_secs(u64::from(RETRY_AFTER) * 10)).await;
    }

    /// Another `run` in the same process does what is left; leases of the last one end first.
    pub(crate) async fn run_to_the_end(&self) {
        let store = Arc::clone(&self.store);
        let (id, clock) = (self.broadcast.lock().unwrap().unwrap(), self.clock);
        let done = async move {
            loop {
                let status = store.memory.status(id, clock.now()).await.unwrap().unwrap();
                if status.counts.pending == 0 {
                    return;
                }
                sleep(Duration::from_secs(1)).await;
            }
        };
        let run = self.push.run(done);
        let ended = timeout(LIMIT, run).await;
        ended.expect("it does not come to its end").unwrap();
    }
}
