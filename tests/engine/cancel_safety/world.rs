//! Twelve recipients at two push services, one of which is busy at first. All times are tokio's.

use std::sync::atomic::{AtomicU32, Ordering};
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
    DeliveryLedger as _, NewSubscription, Pause, PauseReason, SubscriptionLimits,
    SubscriptionStore as _,
};
use tower_web_push::subscription::{Origin, Subscription};
use tower_web_push::testing::{Answer, TestPushService, When};
use tower_web_push::vapid::{KeyId, VapidPublicKey};
use tower_web_push::{Audience, Message, WebPush, WebPushBuilder};

use crate::support::tampered_store::TamperedStore;

const CONTACT: &str = "mailto:ops@example.com";
pub(crate) const RECIPIENTS: u64 = 12;
const ORIGINS: [&str; 2] = [
    "https://fcm.googleapis.com",
    "https://updates.push.services.mozilla.com",
];
/// The time until a request reaches the push service, and until its response is back. The next one takes twice as
/// long, and so on in turns.
const WAY: Duration = Duration::from_millis(10);
/// In virtual time: leases and pauses may have to expire first.
pub(crate) const LIMIT: Duration = Duration::from_secs(3600);
const RETRY_AFTER: u32 = 2;
/// How long the gate is closed.
const A_WHILE: Duration = Duration::from_secs(10);

pub(crate) struct World {
    pub(crate) push: WebPush,
    pub(crate) store: Arc<TamperedStore>,
    pub(crate) service: TestPushService,
    clock: VirtualClock,
    recipients: Mutex<Vec<Subscription>>,
    broadcast: Mutex<Option<BroadcastId>>,
}

/// The fault at the start.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    /// The push service limits requests for one recipient.
    OneIsBusy,
    /// A push service has refused this server, which closed its gate.
    SenderIsRefused,
}

impl Trouble {
    /// No recipient can be done before this.
    pub(crate) const fn lasts(self) -> Duration {
        match self {
            Self::OneIsBusy => Duration::ZERO,
            Self::SenderIsRefused => A_WHILE,
        }
    }
}

/// Moves with tokio's time, which jumps ahead when all tasks wait.
#[derive(Clone, Copy, Debug)]
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_800_000_000) + self.0.elapsed()
    }
}

fn builder(store: &Arc<TamperedStore>, clock: VirtualClock) -> WebPushBuilder {
    WebPush::builder(CONTACT)
        .store(Arc::clone(store))
        .clock(clock)
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Trouble::OneIsBusy).await
    }

    pub(crate) async fn with(trouble: Trouble) -> Self {
        let clock = VirtualClock(Instant::now());
        let service = TestPushService::builder().clock(clock).build();
        let store = Arc::new(TamperedStore::default());
        let over_the_network = {
            let (service, number) = (service.clone(), Arc::new(AtomicU32::new(0)));
            service_fn(move |request: Request<PushBody>| {
                let mut service = service.clone();
                let way = WAY * (1 + number.fetch_add(1, Ordering::SeqCst) % 2);
                async move {
                    sleep(way).await;
                    let answer = service.call(request).await;
                    sleep(way).await;
                    answer
                }
            })
        };
        let push = builder(&store, clock)
            .client(over_the_network)
            // Some attempts wait for a permit.
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
        for number in 0..RECIPIENTS {
            let origin = ORIGINS[usize::from(number % 3 == 0)];
            world.subscribe(origin, &key).await;
        }
        match trouble {
            Trouble::OneIsBusy => {
                let one = world.recipients.lock().unwrap()[1].clone();
                let busy = Answer::status(StatusCode::SERVICE_UNAVAILABLE);
                let busy = busy.with_retry_after(RETRY_AFTER);
                let once = When::endpoint(one.endpoint()).times(1);
                world.service.script(once, busy);
            }
            Trouble::SenderIsRefused => {
                let origin = Origin::parse(ORIGINS[0]).unwrap();
                let now = clock.now();
                let mut pause = Pause::new(origin, now + A_WHILE, PauseReason::SenderFault);
                pause.contact = Some(format!("{CONTACT} {}", KeyId::of(&key)));
                world.store.memory.pause(&pause, now).await.unwrap();
            }
        }
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

    /// Adds recipients that have subscribed with this key.
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

    /// The number of rows, and of leased rows.
    pub(crate) async fn ledger_stats(&self) -> (u64, u64) {
        let stats = self.store.memory.stats(self.clock.now()).await.unwrap();
        (stats.depth, stats.leased)
    }

    /// The number of messages of each recipient.
    pub(crate) fn got(&self) -> Vec<u64> {
        let got = |to: &Subscription| self.service.accepted_for(to.endpoint());
        self.recipients.lock().unwrap().iter().map(got).collect()
    }

    /// Ready once this number of messages was accepted.
    pub(crate) fn taken(&self, messages: u64) -> impl Future<Output = ()> + Send + 'static {
        let service = self.service.clone();
        async move {
            service
                .wait_until(|counts| counts.accepted >= messages)
                .await;
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.0.elapsed()
    }

    pub(crate) async fn retry_is_due(&self) {
        sleep(Duration::from_secs(u64::from(RETRY_AFTER) * 10)).await;
    }

    /// Another `run` in the same process does the rest. Leases of the last one expire first.
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
