//! Accepting and delivering: `enqueue`, `send`, `tick` and `run` against the in-process push service.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says what failed"
)]

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tower_web_push::broadcast::{BroadcastState, BroadcastStatus, Counts};
use tower_web_push::clock::{Clock as _, Timestamp};
use tower_web_push::deliver::{EndpointPolicy, RetryPolicy};
use tower_web_push::message::Ttl;
use tower_web_push::store::{
    Change, Liveness, NewSubscription, SubscriptionLimits, SubscriptionRecord, SubscriptionRef,
    SubscriptionStore as _, Upserted,
};
use tower_web_push::store::{CountFilter, MemoryStore};
use tower_web_push::subscription::Origin;
use tower_web_push::testing::{Answer, ManualClock, TestPushService, UserAgent, When};
use tower_web_push::{Audience, Builder, Message, WebPush};

const MINUTE: Duration = Duration::from_secs(60);
const FCM: &str = "https://fcm.googleapis.com";
const APPLE: &str = "https://web.push.apple.com";

/// One application, its store and the push service it sends to, on one clock.
struct World {
    push: WebPush,
    store: Arc<MemoryStore>,
    service: TestPushService,
    clock: ManualClock,
}

impl World {
    async fn at(origin: &str) -> Self {
        Self::with(origin, |builder| builder).await
    }

    async fn with(origin: &str, configure: impl FnOnce(Builder) -> Builder) -> Self {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let origin = Origin::parse(origin).unwrap();
        let service = TestPushService::builder()
            .origin(origin)
            .clock(clock.clone())
            .build();
        let store = Arc::new(MemoryStore::new());
        let builder = WebPush::builder("mailto:ops@example.com")
            .store(Arc::clone(&store))
            .client(service.clone())
            .clock(clock.clone())
            .endpoint_policy(EndpointPolicy::public_hosts());
        let push = configure(builder).build().await.unwrap();
        Self {
            push,
            store,
            service,
            clock,
        }
    }

    /// A browser that subscribed a while ago.
    async fn subscriber(&self) -> (UserAgent, SubscriptionRecord) {
        let subscribed = self.subscribe().await;
        self.clock.advance(2 * MINUTE);
        subscribed
    }

    /// A browser that subscribes now.
    async fn subscribe(&self) -> (UserAgent, SubscriptionRecord) {
        let browser = self.service.user_agent();
        let key = self.push.vapid_public_key();
        let subscription = browser.subscribe(&key).unwrap();
        let new = NewSubscription::new(subscription, tower_web_push::vapid::KeyId::of(&key));
        let stored = self
            .store
            .upsert(&new, &SubscriptionLimits::default(), self.clock.now())
            .await
            .unwrap();
        match stored {
            Upserted::Stored { record, .. } => (browser, *record),
            Upserted::Conflict => panic!("a new endpoint is nobody else's"),
        }
    }

    async fn record(&self, of: &SubscriptionRecord) -> SubscriptionRecord {
        let found = self.store.get(&[SubscriptionRef::Id(of.id)]).await.unwrap();
        found.into_iter().next().flatten().expect("the row is kept")
    }

    /// Ticks until there is nothing to do.
    async fn settle(&self) {
        while !self.push.tick().await.unwrap().is_idle() {}
    }

    async fn status(&self, id: tower_web_push::broadcast::BroadcastId) -> BroadcastStatus {
        self.push
            .status(id)
            .await
            .unwrap()
            .expect("the broadcast is known")
    }
}

fn counts(set: impl FnOnce(&mut Counts)) -> Counts {
    let mut counts = Counts::default();
    set(&mut counts);
    counts
}

#[tokio::test]
async fn a_message_reaches_every_live_subscription_once() {
    let world = World::at(FCM).await;
    let mut browsers = Vec::new();
    for _ in 0..700 {
        browsers.push(world.subscribe().await.0);
    }
    let queued = world
        .push
        .enqueue(Audience::All, Message::new("hello"))
        .await
        .unwrap();
    assert_eq!(queued.recipients, 700);
    assert_eq!(
        world.status(queued.broadcast).await.state,
        BroadcastState::Expanding
    );
    world.settle().await;
    let status = world.status(queued.broadcast).await;
    assert_eq!(status.state, BroadcastState::Done);
    assert_eq!(status.counts, counts(|counts| counts.accepted = 700));
    for browser in browsers {
        let messages = browser.messages();
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].text(), Some("hello"));
    }
}

#[tokio::test]
async fn gone_retires_softly_and_the_audience_shrinks() {
    let world = World::at(FCM).await;
    let (browser, record) = world.subscriber().await;
    browser.unsubscribe();
    let queued = world
        .push
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    world.settle().await;
    assert_eq!(
        world.status(queued.broadcast).await.counts,
        counts(|counts| counts.gone = 1)
    );
    assert!(world.record(&record).await.retired.is_some());
    let again = world
        .push
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    assert_eq!(again.recipients, 0);
}

#[tokio::test]
async fn a_row_younger_than_a_minute_is_tried_again_before_it_is_retired() {
    let world = World::at(FCM).await;
    let (browser, record) = world.subscribe().await;
    world
        .service
        .script(When::any().times(1), Answer::status(StatusCode::GONE));
    let queued = world
        .push
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    world.settle().await;
    assert_eq!(world.status(queued.broadcast).await.counts.pending, 1);
    assert!(world.record(&record).await.retired.is_none());
    world.clock.advance(MINUTE);
    world.settle().await;
    assert_eq!(world.status(queued.broadcast).await.counts.accepted, 1);
    assert_eq!(browser.messages().len(), 1);
}

#[tokio::test]
async fn rate_limited_pauses_the_origin_of_fcm_and_nobody_asks_it_meanwhile() {
    let world = World::at(FCM).await;
    for _ in 0..3 {
        world.subscriber().await;
    }
    let busy = Answer::status(StatusCode::TOO_MANY_REQUESTS).with_retry_after(120);
    world.service.script(When::any().times(3), busy);
    let queued = world
        .push
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    world.settle().await;
    let asked = world.service.counts().requests;
    world.clock.advance(Duration::from_secs(119));
    world.settle().await;
    assert_eq!(
        world.service.counts().requests,
        asked,
        "asked during its pause"
    );
    world.service.clear_script();
    world.clock.advance(MINUTE);
    world.settle().await;
    assert_eq!(world.status(queued.broadcast).await.counts.accepted, 3);
}

#[tokio::test]
async fn rate_limited_pauses_the_row_alone_at_apple() {
    let world = World::at(APPLE).await;
    let (limited, record) = world.subscriber().await;
    let (free, _) = world.subscriber().await;
    let endpoint = record.subscription.endpoint().clone();
    let busy = Answer::status(StatusCode::TOO_MANY_REQUESTS).with_retry_after(600);
    world
        .service
        .script(When::endpoint(&endpoint).times(1), busy);
    world
        .push
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    world.settle().await;
    assert_eq!((limited.messages().len(), free.messages().len()), (0, 1));
    world.clock.advance(11 * MINUTE);
    world.settle().await;
    assert_eq!(limited.messages().len(), 1);
}

#[tokio::test]
async fn a_transient_failure_is_tried_again_and_the_ttl_shrinks() {
    let world = World::at(FCM).await;
    let (browser, record) = world.subscriber().await;
    let down = Answer::status(StatusCode::SERVICE_UNAVAILABLE).with_retry_after(60);
    world.service.script(When::any().times(1), down);
    let message = Message::new("x").with_ttl(Ttl::from_secs(300));
    let queued = world.push.enqueue(Audience::All, message).await.unwrap();
    world.settle().await;
    assert_eq!(world.record(&record).await.failure_streak, 1);
    world.clock.advance(Duration::from_secs(100));
    world.settle().await;
    assert_eq!(
        world.status(queued.broadcast).await.state,
        BroadcastState::Done
    );
    assert_eq!(browser.messages()[0].ttl(), Ttl::from_secs(200));
    assert_eq!(world.record(&record).await.failure_streak, 0);
}

#[tokio::test]
async fn what_is_not_delivered_by_its_deadline_expires() {
    let world = World::at(FCM).await;
    world.subscriber().await;
    world
        .service
        .script(When::any(), Answer::status(StatusCode::SERVICE_UNAVAILABLE));
    let message = Message::new("x").with_ttl(Ttl::from_secs(300));
    let queued = world.push.enqueue(Audience::All, message).await.unwrap();
    world.settle().await;
    world.clock.advance(6 * MINUTE);
    world.settle().await;
    let status = world.status(queued.broadcast).await;
    assert_eq!(
        (status.state, status.counts.expired),
        (BroadcastState::Done, 1)
    );
}

#[tokio::test]
async fn attempts_are_bounded() {
    let world = World::with(FCM, |builder| {
        builder.retry_policy(RetryPolicy::new(
            Duration::from_secs(1),
            Duration::from_secs(1),
            3,
        ))
    })
    .await;
    world.subscriber().await;
    world.service.script(When::any(), Answer::disconnect());
    let queued = world
        .push
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    for _ in 0..5 {
        world.settle().await;
        world.clock.advance(Duration::from_secs(5));
    }
    assert_eq!(world.status(queued.broadcast).await.counts.failed, 1);
    assert_eq!(world.service.counts().requests, 3);
}

#[tokio::test]
async fn after_a_rotation_everyone_is_served_with_the_key_they_subscribed_with() {
    let world = World::at(FCM).await;
    let (old, _) = world.subscriber().await;
    world.push.rotate_vapid_key().await.unwrap();
    let (new, _) = world.subscriber().await;
    world
        .push
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    world.settle().await;
    assert_eq!((old.messages().len(), new.messages().len()), (1, 1));
    assert!(world.service.refusals().is_empty());
}

#[tokio::test]
async fn a_row_that_names_the_wrong_key_is_served_with_another_live_one_and_keeps_it() {
    let world = World::at(FCM).await;
    let (browser, record) = world.subscriber().await;
    let right = record.vapid_key;
    let wrong = world.push.rotate_vapid_key().await.unwrap();
    let change = Change::UseVapidKey {
        key: record.subscription.endpoint().key(),
        vapid_key: wrong,
    };
    world
        .store
        .apply(&[change], world.clock.now())
        .await
        .unwrap();
    world
        .push
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    world.settle().await;
    assert_eq!(browser.messages().len(), 1);
    assert_eq!(world.record(&record).await.vapid_key, right);
}

#[tokio::test]
async fn a_row_that_no_live_key_fits_is_stale_and_kept() {
    let world = World::at(FCM).await;
    let stranger = tower_web_push::vapid::VapidKey::generate().unwrap();
    let browser = world.service.user_agent();
    let subscription = browser.subscribe(stranger.public_key()).unwrap();
    let active = tower_web_push::vapid::KeyId::of(&world.push.vapid_public_key());
    let new = NewSubscription::new(subscription, active);
    world
        .store
        .upsert(&new, &SubscriptionLimits::default(), world.clock.now())
        .await
        .unwrap();
    world.clock.advance(2 * MINUTE);
    let queued = world
        .push
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    world.settle().await;
    assert_eq!(world.status(queued.broadcast).await.counts.key_mismatch, 1);
    let stale = CountFilter::new(Audience::All, Liveness::Stale);
    assert_eq!(
        world.store.count(&stale, world.clock.now()).await.unwrap(),
        1
    );
}

#[tokio::test]
async fn a_sender_fault_deletes_nothing_and_backs_off() {
    let world = World::at(FCM).await;
    let (_, record) = world.subscriber().await;
    let fault = Answer::status(StatusCode::FORBIDDEN).with_body("invalid JWT provided");
    world.service.script(When::any(), fault);
    let queued = world
        .push
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    world.settle().await;
    assert_eq!(world.status(queued.broadcast).await.counts.pending, 1);
    let record = world.record(&record).await;
    assert!(record.is_live(world.clock.now()));
    assert_eq!(record.failure_streak, 1);
}

#[tokio::test]
async fn an_endpoint_that_the_policy_forbids_is_refused_and_kept() {
    let world = World::with(FCM, |builder| {
        builder.endpoint_policy(EndpointPolicy::hosts(["push.example.com"]).unwrap())
    })
    .await;
    let (_, record) = world.subscriber().await;
    let queued = world
        .push
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    world.settle().await;
    assert_eq!(world.status(queued.broadcast).await.counts.refused, 1);
    assert!(world.record(&record).await.retired.is_none());
    assert_eq!(world.service.counts().requests, 0);
}

#[tokio::test]
async fn an_audience_of_ids_ignores_the_unknown() {
    let world = World::at(FCM).await;
    let (browser, record) = world.subscriber().await;
    let (other, _) = world.subscriber().await;
    let ids = Audience::Ids(vec![
        record.id,
        tower_web_push::subscription::SubscriptionId::random(),
    ]);
    let queued = world.push.enqueue(ids, Message::new("x")).await.unwrap();
    assert_eq!(queued.recipients, 1);
    world.settle().await;
    assert_eq!((browser.messages().len(), other.messages().len()), (1, 0));
}

#[tokio::test]
async fn a_message_for_later_is_sent_then_to_whoever_is_there_then() {
    let world = World::at(FCM).await;
    let at = world.clock.now() + 60 * MINUTE;
    let queued = world
        .push
        .enqueue_at(at, Audience::All, Message::new("x"))
        .await
        .unwrap();
    assert_eq!(queued.recipients, 0);
    let (browser, _) = world.subscriber().await;
    world.settle().await;
    assert_eq!(
        world.status(queued.broadcast).await.state,
        BroadcastState::Scheduled
    );
    world.clock.set(at);
    world.settle().await;
    let status = world.status(queued.broadcast).await;
    assert_eq!((status.recipients, status.counts.accepted), (1, 1));
    assert_eq!(browser.messages().len(), 1);
}

#[tokio::test]
async fn a_message_too_far_ahead_or_too_large_is_not_accepted() {
    let world = World::at(FCM).await;
    let at = world.clock.now() + Duration::from_secs(31 * 86_400);
    assert!(
        world
            .push
            .enqueue_at(at, Audience::All, Message::new("x"))
            .await
            .is_err()
    );
    let large = Message::new(vec![b'x'; Message::MAX_PAYLOAD + 1]);
    assert!(
        world
            .push
            .enqueue(Audience::All, large.clone())
            .await
            .is_err()
    );
    assert!(world.push.send(Audience::All, large).await.is_err());
    assert!(world.push.tick().await.unwrap().is_idle());
}

#[tokio::test]
async fn a_cancelled_broadcast_sends_nothing_more() {
    let world = World::at(FCM).await;
    let (browser, _) = world.subscriber().await;
    let queued = world
        .push
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    let status = world.push.cancel(queued.broadcast).await.unwrap().unwrap();
    assert_eq!(status.state, BroadcastState::Cancelled);
    world.settle().await;
    assert!(browser.messages().is_empty());
}

#[tokio::test]
async fn send_makes_one_attempt_for_each_and_reports() {
    let world = World::at(FCM).await;
    let (_, down) = world.subscriber().await;
    let (browser, _) = world.subscriber().await;
    let failing = When::endpoint(down.subscription.endpoint());
    world
        .service
        .script(failing, Answer::status(StatusCode::SERVICE_UNAVAILABLE));
    let report = world
        .push
        .send(Audience::All, Message::new("now"))
        .await
        .unwrap();
    assert_eq!((report.counts.accepted, report.counts.failed), (1, 1));
    assert_eq!(report.failures.len(), 1);
    assert_eq!(report.failures[0].subscription, down.id);
    assert_eq!(
        report.failures[0].error.status(),
        Some(StatusCode::SERVICE_UNAVAILABLE)
    );
    assert_eq!(browser.messages().len(), 1);
    assert!(
        world.push.tick().await.unwrap().is_idle(),
        "nothing was queued"
    );
}

#[tokio::test]
async fn deliver_needs_no_store() {
    let world = World::at(FCM).await;
    let browser = world.service.user_agent();
    let subscription = browser.subscribe(&world.push.vapid_public_key()).unwrap();
    let accepted = world
        .push
        .deliver(&subscription, Message::new("hi"))
        .await
        .unwrap();
    assert_eq!(accepted.status(), StatusCode::CREATED);
    assert_eq!(browser.messages()[0].text(), Some("hi"));
}

#[tokio::test]
async fn run_delivers_what_is_queued_and_ends_when_it_is_told() {
    let world = World::at(FCM).await;
    let (browser, _) = world.subscriber().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(world.push.run(async { stopped.await.unwrap_or_default() }));
    let queued = world
        .push
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    assert_eq!(browser.next().await.text(), Some("x"));
    drop(stop);
    running.await.unwrap().unwrap();
    assert_eq!(
        world.status(queued.broadcast).await.state,
        BroadcastState::Done
    );
}

#[tokio::test]
async fn what_a_dropped_run_had_claimed_is_sent_by_the_next() {
    let world = World::at(FCM).await;
    let (browser, _) = world.subscriber().await;
    world.service.script(When::any().times(1), Answer::never());
    let queued = world
        .push
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    let running = tokio::spawn(world.push.run(std::future::pending()));
    world
        .service
        .wait_until(|counts| counts.requests == 1)
        .await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    world.settle().await;
    assert!(browser.messages().is_empty(), "its lease has not ended");
    world.clock.advance(MINUTE);
    world.settle().await;
    assert_eq!(world.status(queued.broadcast).await.counts.accepted, 1);
}

#[tokio::test]
async fn a_lease_that_a_request_could_outlast_is_refused() {
    let built = WebPush::builder("mailto:ops@example.com")
        .request_timeout(Duration::from_secs(15))
        .lease(Duration::from_secs(15))
        .build()
        .await;
    let kind = tower_web_push::BuildErrorKind::LeaseTooShort;
    assert_eq!(built.unwrap_err().kind(), kind);
}

#[tokio::test]
async fn a_contact_that_no_push_service_takes_is_refused() {
    for contact in [
        "",
        "ops@example.com",
        "mailto:ops@localhost",
        "http://example.com",
    ] {
        let built = WebPush::builder(contact).build().await;
        let kind = tower_web_push::BuildErrorKind::InvalidContact;
        assert_eq!(built.unwrap_err().kind(), kind, "{contact}");
    }
}
