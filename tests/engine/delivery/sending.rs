//! Accepting and sending: `enqueue`, `send`, `deliver`, `cancel`.

use tower_web_push::Broadcast;
use tower_web_push::subscription::Subscription;

use super::order::tampered;
use super::world::*;

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
async fn a_message_for_later_is_sent_to_the_audience_of_that_time() {
    let world = World::at(FCM).await;
    let at = world.clock.now() + 60 * MINUTE;
    let queued = world
        .push
        .enqueue_broadcast(Broadcast::to(Audience::All, Message::new("x")).at(at))
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
            .enqueue_broadcast(Broadcast::to(Audience::All, Message::new("x")).at(at))
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
    let broadcast = world.enqueue().await;
    let status = world.push.cancel(broadcast).await.unwrap().unwrap();
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
async fn an_endpoint_that_the_policy_forbids_is_refused_and_kept() {
    let world = World::with(FCM, |builder| {
        builder.endpoint_policy(EndpointPolicy::hosts(["push.example.com"]).unwrap())
    })
    .await;
    let (_, record) = world.subscriber().await;
    let broadcast = world.enqueue().await;
    world.settle().await;
    assert_eq!(world.status(broadcast).await.counts.refused, 1);
    assert!(world.record(&record).await.retired.is_none());
    assert_eq!(world.service.counts().requests, 0);
}

/// A row of an earlier version, or of another policy: refused before each request, and kept.
#[tokio::test]
async fn a_stored_endpoint_without_the_shape_of_its_push_service_is_not_asked_and_kept() {
    let world = World::at(FCM).await;
    let (browser, good) = world.subscriber().await;
    let url = "https://fcm.googleapis.com/v1/projects/p/messages:send";
    let of = &good.subscription;
    let odd = Subscription::new(url.parse().unwrap(), *of.ua_public(), of.auth().clone());
    let new = NewSubscription::new(odd.clone(), good.vapid_key);
    let limits = SubscriptionLimits::default();
    let now = world.clock.now();
    world.store.upsert(&new, &limits, now).await.unwrap();
    for _ in 0..2 {
        let broadcast = world.enqueue().await;
        world.settle().await;
        let expected = counts(|counts| (counts.accepted, counts.refused) = (1, 1));
        assert_eq!(world.status(broadcast).await.counts, expected);
    }
    let error = world
        .push
        .deliver(&odd, Message::new("x"))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Some("endpoint_not_allowed"));
    assert_eq!((world.asked(), browser.messages().len()), (2, 2));
    let rows = [SubscriptionRef::Id(new.id)];
    let row = world.store.get(&rows).await.unwrap().remove(0).unwrap();
    assert!(row.retired.is_none() && row.stale_since.is_none());
}

/// The store fails in the middle of a large audience: what is known of those before stays known.
#[tokio::test(start_paused = true)]
async fn a_direct_send_that_stops_keeps_the_effects_of_earlier_pages() {
    const PAGE: usize = 500;
    let world = World::at(FCM).await;
    let mut rows = world.subscribers(3 * PAGE).await;
    rows.sort_by_key(|(_, row)| row.subscription.endpoint().key());
    let gone = rows[0].1.subscription.endpoint();
    let answer = Answer::status(StatusCode::GONE);
    world.service.script(When::endpoint(gone), answer);
    let (store, push) = tampered(&world).await;
    store.delay("page", Duration::from_secs(1));
    let stops = async {
        // The third page is being read.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        store.fail("page");
    };
    let (sent, ()) = tokio::join!(push.send(Audience::All, Message::new("x")), stops);
    sent.unwrap_err();
    assert!((1..=2 * PAGE as u64).contains(&world.asked()));
    assert!(world.record(&rows[0].1).await.retired.is_some());
}
