//! Retries: which, when, and how long.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tower::{ServiceExt as _, service_fn};
use tower_web_push::deliver::{ResolveError, Resolver};
use tower_web_push::message::Topic;

use super::world::*;

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

/// As a captive portal, or a resolver that blocks names.
#[derive(Clone, Debug, Default)]
struct Sinkhole(Arc<AtomicUsize>);

#[async_trait]
impl Resolver for Sinkhole {
    async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, ResolveError> {
        self.0.fetch_add(1, Relaxed);
        Ok(vec![Ipv4Addr::new(10, 0, 0, 1).into()])
    }
}

/// Paused: after a failed dial the next one waits.
#[tokio::test(start_paused = true)]
async fn a_message_outlives_wrong_addresses_of_a_push_service() {
    let world = World::at(FCM).await;
    let (browser, record) = world.subscriber().await;
    let resolver = Sinkhole::default();
    let builder = WebPush::builder("mailto:ops@example.com")
        .store(Arc::clone(&world.store))
        .clock(world.clock.clone())
        .resolver(resolver.clone());
    let push = builder.build().await.unwrap();
    let queued = push.enqueue(Audience::All, Message::new("x")).await;
    let queued = queued.unwrap().broadcast;
    for lookups in 1..=12 {
        while !push.tick().await.unwrap().is_idle() {}
        assert_eq!(resolver.0.load(Relaxed), lookups);
        world.clock.advance(Duration::from_secs(4));
    }
    assert_eq!(
        world.status(queued).await.counts,
        counts(|counts| counts.pending = 1)
    );
    assert_eq!(world.record(&record).await.failure_streak, 0);
    // The resolver of another process works.
    world.settle().await;
    assert_eq!(browser.messages().len(), 1);
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

#[tokio::test(start_paused = true)]
async fn a_backlog_behind_a_closed_gate_expires_at_once() {
    let world = World::at(FCM).await;
    world.subscribers(1_100).await;
    let origin = Origin::parse(FCM).unwrap();
    let until = world.clock.now() + 60 * MINUTE;
    let pause = Pause::new(origin, until, PauseReason::RateLimited);
    world.store.pause(&pause, world.clock.now()).await.unwrap();
    let mut queued = Vec::new();
    for _ in 0..2 {
        let message = Message::new("x").with_ttl(Ttl::from_secs(60));
        queued.push(world.push.enqueue(Audience::All, message).await.unwrap());
    }
    world.settle().await;
    world.clock.advance(2 * MINUTE);
    let running = world.push.run(tokio::time::sleep(Duration::from_secs(1)));
    running.await.unwrap();
    for queued in queued {
        let counts = world.status(queued.broadcast).await.counts;
        assert_eq!(counts.expired, 1_100);
    }
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
    let broadcast = world.enqueue().await;
    for _ in 0..5 {
        world.settle().await;
        world.clock.advance(Duration::from_secs(5));
    }
    assert_eq!(world.status(broadcast).await.counts.failed, 1);
    assert_eq!(world.service.counts().requests, 3);
}

#[tokio::test]
async fn every_attempt_encrypts_anew_and_takes_the_current_token() {
    let world = World::at(FCM).await;
    let (browser, _) = world.subscriber().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&seen);
    let looked_at = When::head(move |head| {
        let token = head.headers["authorization"].clone();
        note.lock().unwrap().push(token);
        note.lock().unwrap().len() == 1
    });
    // The token is valid for 12 hours: the second attempt needs another one.
    let down = Answer::status(StatusCode::SERVICE_UNAVAILABLE).with_retry_after(13 * 3600);
    world.service.script(looked_at, down);
    world.enqueue().await;
    world.settle().await;
    world.clock.advance(13 * 60 * MINUTE);
    world.settle().await;
    assert_eq!(browser.messages().len(), 1);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    assert_ne!(seen[0], seen[1]);
}

/// FCM keeps four different topics per subscription for a browser that is offline, and 100 messages without one.
#[tokio::test]
async fn no_topic_is_sent_that_was_not_asked_for() {
    for origin in [FCM, APPLE, WNS, "https://push.example.net"] {
        let world = World::at(origin).await;
        let (browser, _) = world.subscriber().await;
        browser.go_offline();
        for _ in 0..10 {
            world.enqueue().await;
        }
        world.settle().await;
        world
            .push
            .send(Audience::All, Message::new("direct"))
            .await
            .unwrap();
        browser.go_online();
        let messages = browser.messages();
        assert_eq!(messages.len(), 11, "{origin}");
        assert!(messages.iter().all(|message| message.topic().is_none()));
    }
}

#[tokio::test]
async fn a_stable_topic_is_the_same_at_each_attempt_and_another_for_each_recipient() {
    let world = World::with(FCM, |builder| builder.stable_topic(true)).await;
    world.subscribers(2).await;
    let topics = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&topics);
    let looked_at = When::head(move |head| {
        let topic = head.headers.get("topic").cloned();
        note.lock().unwrap().push((head.uri.clone(), topic));
        note.lock().unwrap().len() <= 2
    });
    world.service.script(looked_at, Answer::disconnect());
    world.enqueue().await;
    world.settle().await;
    world.clock.advance(MINUTE);
    world.settle().await;
    world.enqueue().await;
    world.settle().await;
    let mut topics = topics.lock().unwrap().clone();
    assert_eq!(topics.len(), 6);
    topics.sort_by_key(|(uri, _)| uri.to_string());
    let names = topics.iter().map(|(_, topic)| topic.clone().unwrap());
    let names: Vec<_> = names.collect();
    for of_one in names.chunks(3) {
        assert_eq!(of_one[0].len(), 32);
        let distinct: HashSet<_> = of_one.iter().collect();
        assert_eq!(distinct.len(), 2, "two broadcasts, one of them twice");
    }
    assert!(names[..3].iter().all(|name| !names[3..].contains(name)));
}

#[tokio::test]
async fn a_topic_of_the_message_itself_is_kept() {
    let topic = Topic::parse("news").unwrap();
    for stable in [false, true] {
        let world = World::with(FCM, |builder| builder.stable_topic(stable)).await;
        let (browser, _) = world.subscriber().await;
        let message = Message::new("x").with_topic(topic.clone());
        world.push.enqueue(Audience::All, message).await.unwrap();
        world.settle().await;
        assert_eq!(browser.messages()[0].topic(), Some("news"));
    }
}

#[tokio::test]
async fn with_a_stable_topic_a_repeat_replaces_the_first_if_that_is_not_delivered_yet() {
    let world = World::at(FCM).await;
    let (browser, _) = world.subscriber().await;
    browser.go_offline();
    // The push service accepts it, and the response is lost.
    let calls = Arc::new(AtomicUsize::new(0));
    let (service, counted) = (world.service.clone(), Arc::clone(&calls));
    let lossy = service_fn(move |request| {
        let (service, is_first) = (service.clone(), counted.fetch_add(1, Relaxed) == 0);
        async move {
            let answer = service.oneshot(request).await.unwrap();
            let lost = std::io::Error::other("the connection broke");
            if is_first { Err(lost) } else { Ok(answer) }
        }
    });
    let push = world
        .replica_with(|builder| builder.client(lossy).stable_topic(true))
        .await;
    push.enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    while !push.tick().await.unwrap().is_idle() {}
    world.clock.advance(MINUTE);
    while !push.tick().await.unwrap().is_idle() {}
    assert_eq!(calls.load(Relaxed), 2);
    assert_eq!(world.service.counts().accepted, 2);
    browser.go_online();
    assert_eq!(browser.messages().len(), 1);
}
