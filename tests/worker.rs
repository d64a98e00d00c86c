//! What keeps a delivery from being made twice, or for nothing: leases, shutdown, pauses, broken clients.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says what failed"
)]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tower::service_fn;
use tower_web_push::clock::{Clock as _, Timestamp};
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::message::Ttl;
use tower_web_push::push_request::PushBody;
use tower_web_push::store::{
    DeliveryLedger as _, MemoryStore, NewSubscription, SubscriptionLimits, SubscriptionStore as _,
};
use tower_web_push::subscription::Origin;
use tower_web_push::testing::{Answer, ManualClock, TestPushService, UserAgent, When};
use tower_web_push::vapid::KeyId;
use tower_web_push::{Audience, Builder, Message, WebPush};

const FCM: &str = "https://fcm.googleapis.com";
const TIMEOUT: Duration = Duration::from_millis(300);

struct World {
    push: WebPush,
    store: Arc<MemoryStore>,
    service: TestPushService,
    clock: ManualClock,
}

impl World {
    async fn new(configure: impl FnOnce(Builder) -> Builder) -> Self {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let service = TestPushService::builder()
            .origin(Origin::parse(FCM).unwrap())
            .clock(clock.clone())
            .build();
        let store = Arc::new(MemoryStore::new());
        let builder = builder(&store, &clock).client(service.clone());
        Self {
            push: configure(builder).build().await.unwrap(),
            store,
            service,
            clock,
        }
    }

    /// Another replica on the same store.
    async fn replica(&self) -> WebPush {
        let builder = builder(&self.store, &self.clock).client(self.service.clone());
        builder.build().await.unwrap()
    }

    async fn subscribe(&self) -> UserAgent {
        let browser = self.service.user_agent();
        let key = self.push.vapid_public_key();
        let new = NewSubscription::new(browser.subscribe(&key).unwrap(), KeyId::of(&key));
        let (limits, now) = (SubscriptionLimits::default(), self.clock.now());
        self.store.upsert(&new, &limits, now).await.unwrap();
        browser
    }

    async fn enqueue(&self) {
        let message = Message::new("x");
        self.push.enqueue(Audience::All, message).await.unwrap();
    }

    async fn paused(&self) -> Vec<(String, Duration)> {
        let now = self.clock.now();
        let pauses = self.store.pauses(now).await.unwrap();
        let plain = |pause: tower_web_push::store::Pause| {
            (pause.origin.to_string(), pause.until.since(now))
        };
        pauses.into_iter().map(plain).collect()
    }
}

fn builder(store: &Arc<MemoryStore>, clock: &ManualClock) -> Builder {
    WebPush::builder("mailto:ops@example.com")
        .store(Arc::clone(store))
        .clock(clock.clone())
        .endpoint_policy(EndpointPolicy::public_hosts())
}

fn small(builder: Builder) -> Builder {
    builder.request_timeout(TIMEOUT).in_flight_per_origin(2)
}

/// Two permits, one taken: the next claim takes two rows, so one waits.
async fn one_attempt_waits(world: &World) {
    world.service.script(When::any().times(2), Answer::never());
    world.subscribe().await;
    world.enqueue().await;
    world
        .service
        .wait_until(|counts| counts.requests == 1)
        .await;
    world.subscribe().await;
    world.enqueue().await;
    world
        .service
        .wait_until(|counts| counts.requests == 2)
        .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_after_the_shutdown() {
    let world = World::new(small).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(world.push.run(async { stopped.await.unwrap_or_default() }));
    one_attempt_waits(&world).await;
    drop(stop);
    running.await.unwrap().unwrap();
    assert_eq!(world.service.counts().requests, 2);
    // It was given back, not left to its lease.
    let now = world.clock.now();
    assert_eq!(world.store.stats(now).await.unwrap().leased, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_does_not_begin_when_its_lease_could_end_before_it() {
    let world = World::new(small).await;
    let other = world.replica().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let end = async move {
        let _ = stopped.await;
        tokio::time::sleep(2 * TIMEOUT).await;
    };
    let running = tokio::spawn(world.push.run(end));
    one_attempt_waits(&world).await;
    // As if it had waited for so long: another machine takes the rows over.
    world.clock.advance(Duration::from_secs(31));
    while !other.tick().await.unwrap().is_idle() {}
    // Its worker is told to end, and waits for what it began.
    drop(stop);
    running.await.unwrap().unwrap();
    // Two began here, all three there.
    assert_eq!(world.service.counts().requests, 5);
}

#[tokio::test]
async fn a_limit_holds_for_all_replicas_also_where_the_message_is_given_up() {
    let world = World::new(|builder| builder).await;
    world.subscribe().await;
    let busy = Answer::status(StatusCode::TOO_MANY_REQUESTS).with_retry_after(600);
    world.service.script(When::any(), busy);
    let message = Message::new("x").with_ttl(Ttl::from_secs(60));
    world.push.enqueue(Audience::All, message).await.unwrap();
    while !world.push.tick().await.unwrap().is_idle() {}
    let expected = [(FCM.to_owned(), Duration::from_secs(600))];
    assert_eq!(world.paused().await, expected);
}

#[tokio::test]
async fn direct_sends_tell_the_others_of_a_limit_and_obey_theirs() {
    let world = World::new(|builder| builder).await;
    let other = world.replica().await;
    world.subscribe().await;
    let busy = Answer::status(StatusCode::TOO_MANY_REQUESTS).with_retry_after(600);
    world.service.script(When::any(), busy);
    let report = world
        .push
        .send(Audience::All, Message::new("x"))
        .await
        .unwrap();
    assert_eq!(report.counts.failed, 1);
    assert_eq!(world.paused().await.len(), 1);
    let report = other.send(Audience::All, Message::new("x")).await.unwrap();
    assert_eq!(report.counts.failed, 1);
    assert_eq!(world.service.counts().requests, 1, "asked during its pause");
}

#[tokio::test]
async fn a_client_that_panics_is_counted_every_time() {
    let broken = service_fn(
        async |_: Request<PushBody>| -> Result<Response<PushBody>, Infallible> {
            panic!("a broken client")
        },
    );
    let world = World::new(|builder| builder.client(broken)).await;
    for _ in 0..600 {
        world.subscribe().await;
    }
    let report = world
        .push
        .send(Audience::All, Message::new("x"))
        .await
        .unwrap();
    assert_eq!(report.counts.failed, 600);
}
