//! Pauses of push services.

use super::world::*;

#[tokio::test]
async fn rate_limited_pauses_the_origin_of_fcm_for_all_requests() {
    let world = World::at(FCM).await;
    for _ in 0..3 {
        world.subscriber().await;
    }
    let busy = Answer::status(StatusCode::TOO_MANY_REQUESTS).with_retry_after(120);
    world.service.script(When::any().times(3), busy);
    let broadcast = world.enqueue().await;
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
    assert_eq!(world.status(broadcast).await.counts.accepted, 3);
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
    world.enqueue().await;
    world.settle().await;
    assert_eq!((limited.messages().len(), free.messages().len()), (0, 1));
    world.clock.advance(11 * MINUTE);
    world.settle().await;
    assert_eq!(limited.messages().len(), 1);
}

#[tokio::test]
async fn a_limit_holds_for_all_replicas_also_where_the_message_is_given_up() {
    let world = World::at(FCM).await;
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
    let world = World::at(FCM).await;
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

fn fault() -> Answer {
    Answer::status(StatusCode::FORBIDDEN).with_body("invalid JWT provided")
}

/// Eight subscriptions of a push service that refuses the sender. The gate is closed and the counter of requests is
/// reset.
async fn refused(world: &World) -> BroadcastId {
    world.subscribers(20).await;
    world.service.script(When::any(), fault());
    let broadcast = world.enqueue().await;
    world.settle().await;
    let pauses = world.pauses().await;
    assert_eq!(pauses.len(), 1, "{pauses:?}");
    assert_eq!(pauses[0].reason, PauseReason::SenderFault);
    broadcast
}

#[tokio::test]
async fn eight_sender_faults_of_distinct_rows_close_the_gate_for_five_minutes() {
    let world = World::at(FCM).await;
    let broadcast = refused(&world).await;
    assert_eq!(world.asked(), 8, "the first eight, before it had answered");
    assert_eq!(world.paused().await, [(FCM.to_owned(), 5 * MINUTE)]);
    world.clock.advance(5 * MINUTE - Duration::from_secs(1));
    world.settle().await;
    assert_eq!(world.asked(), 8, "asked during its pause");
    // Nothing is deleted, and no delivery is finished.
    let live = CountFilter::new(Audience::All, Liveness::Live);
    let now = world.clock.now();
    assert_eq!(world.store.count(&live, now).await.unwrap(), 20);
    assert_eq!(world.status(broadcast).await.counts.pending, 20);
}

#[tokio::test]
async fn seven_sender_faults_and_an_acceptance_close_nothing() {
    let world = World::at(FCM).await;
    let rows = world.subscribers(8).await;
    let last = rows[7].1.subscription.endpoint().clone();
    world
        .service
        .script(When::endpoint(&last), Answer::ordinary());
    world.service.script(When::any(), fault());
    for _ in 0..2 {
        world.enqueue().await;
        world.settle().await;
    }
    assert_eq!(world.paused().await, []);
}

#[tokio::test]
async fn a_closed_gate_is_probed_by_one_request_each_time_and_the_pauses_double_to_an_hour() {
    let world = World::at(FCM).await;
    refused(&world).await;
    let other = world.replica().await;
    for minutes in [10, 20, 40, 60, 60] {
        let (asked, closed) = (world.asked(), world.paused().await[0].1);
        world.clock.advance(closed);
        world.settle().await;
        while !other.tick().await.unwrap().is_idle() {}
        assert_eq!(world.asked(), asked + 1, "one probe of all processes");
        assert_eq!(world.paused().await, [(FCM.to_owned(), minutes * MINUTE)]);
    }
}

#[tokio::test]
async fn an_acceptance_clears_a_sender_fault_for_all() {
    let world = World::at(FCM).await;
    let broadcast = refused(&world).await;
    world.service.clear_script();
    world.clock.advance(5 * MINUTE);
    world.settle().await;
    assert_eq!(world.paused().await, []);
    world.clock.advance(MINUTE);
    world.settle().await;
    assert_eq!(world.status(broadcast).await.counts.accepted, 20);
}

#[tokio::test]
async fn a_probe_tries_the_other_keys_too() {
    let world = World::at(FCM).await;
    let rows = world.subscribers(20).await;
    // Pages that never post their key: every row has the wrong one.
    let wrong = world.push.rotate_vapid_key().await.unwrap();
    let rename = |(_, record): &(UserAgent, SubscriptionRecord)| Change::UseVapidKey {
        key: record.subscription.endpoint().key(),
        vapid_key: wrong,
    };
    let changes: Vec<_> = rows.iter().map(rename).collect();
    let now = world.clock.now();
    world.store.apply(&changes, now).await.unwrap();
    world.service.script(When::any().times(8), fault());
    let broadcast = world.enqueue().await;
    world.settle().await;
    assert_eq!(world.paused().await, [(FCM.to_owned(), 5 * MINUTE)]);
    world.clock.advance(5 * MINUTE);
    world.settle().await;
    assert_eq!(world.paused().await, []);
    world.clock.advance(MINUTE);
    world.settle().await;
    assert_eq!(world.status(broadcast).await.counts.accepted, 20);
}

#[tokio::test]
async fn an_unsettled_probe_is_repeated_when_its_lease_expires() {
    let world = World::at(FCM).await;
    refused(&world).await;
    world.service.clear_script();
    world.service.script(When::any().times(1), Answer::never());
    world.clock.advance(5 * MINUTE);
    // The worker is dropped with its probe.
    tokio::select! {
        _ = world.push.tick() => panic!("there is no response"),
        _ = world.service.wait_until(|counts| counts.requests == 9) => {}
    }
    world.settle().await;
    assert_eq!(world.asked(), 9, "the lease holds");
    world.clock.advance(MINUTE);
    let fresh = world.replica().await;
    while !fresh.tick().await.unwrap().is_idle() {}
    assert_eq!(world.paused().await, []);
}

#[tokio::test]
async fn a_new_key_clears_a_sender_fault() {
    let world = World::at(FCM).await;
    refused(&world).await;
    world.service.clear_script();
    world.push.rotate_vapid_key().await.unwrap();
    assert_eq!(world.paused().await, []);
    world.clock.advance(MINUTE);
    world.settle().await;
    assert!(world.service.counts().accepted > 0);
}

#[tokio::test]
async fn a_new_contact_clears_a_sender_fault_and_the_same_one_does_not() {
    let world = World::at(FCM).await;
    refused(&world).await;
    let start = async |push: WebPush| push.run(async {}).await.unwrap();
    start(world.replica().await).await;
    assert_eq!(world.paused().await.len(), 1);
    let renamed = WebPush::builder("mailto:someone.else@example.com")
        .store(std::sync::Arc::clone(&world.store))
        .clock(world.clock.clone())
        .client(world.service.clone());
    start(renamed.build().await.unwrap()).await;
    assert_eq!(world.paused().await, []);
}

#[tokio::test]
async fn direct_sends_probe_a_closed_gate_one_at_a_time() {
    let world = World::at(FCM).await;
    refused(&world).await;
    let send = async || {
        world
            .push
            .send(Audience::All, Message::new("y"))
            .await
            .unwrap()
    };
    assert_eq!(send().await.counts.failed, 20);
    assert_eq!(world.asked(), 8, "asked during its pause");
    world.clock.advance(5 * MINUTE);
    send().await;
    assert_eq!(world.asked(), 9);
    assert_eq!(world.paused().await, [(FCM.to_owned(), 10 * MINUTE)]);
    world.service.clear_script();
    world.clock.advance(10 * MINUTE);
    assert!(send().await.counts.accepted >= 1, "the probe");
    assert_eq!(world.paused().await, []);
    assert_eq!(send().await.counts.accepted, 20);
}

#[tokio::test]
async fn an_origin_that_does_not_answer_is_probed_and_any_answer_opens_it() {
    let world = World::at(FCM).await;
    let rows = world.subscribers(20).await;
    world.service.script(When::any(), Answer::disconnect());
    world.enqueue().await;
    world.settle().await;
    assert_eq!(world.asked(), 8);
    let half_a_minute = Duration::from_secs(30);
    assert_eq!(world.paused().await, [(FCM.to_owned(), half_a_minute)]);
    assert_eq!(world.pauses().await[0].reason, PauseReason::Unreachable);
    world.clock.advance(half_a_minute);
    world.settle().await;
    assert_eq!(world.asked(), 9);
    assert_eq!(world.paused().await, [(FCM.to_owned(), MINUTE)]);
    world.service.clear_script();
    assert!(rows.iter().all(|(browser, _)| browser.unsubscribe()));
    world.clock.advance(MINUTE);
    world.settle().await;
    assert_eq!(world.paused().await, [], "410 is an answer");
    assert!(world.asked() > 10);
}

#[tokio::test]
async fn errors_of_the_push_service_itself_pause_it_as_long_as_it_asks() {
    let world = World::at("https://updates.push.services.mozilla.com").await;
    world.subscribers(20).await;
    let down = Answer::status(StatusCode::SERVICE_UNAVAILABLE).with_retry_after(120);
    world.service.script(When::any(), down);
    world.enqueue().await;
    world.settle().await;
    assert_eq!(world.asked(), 8);
    assert_eq!(world.paused().await[0].1, 2 * MINUTE);
}

#[tokio::test]
async fn eight_limited_rows_within_a_minute_pause_apple_and_wns_as_a_whole() {
    for origin in [APPLE, WNS] {
        let world = World::at(origin).await;
        world.subscribers(20).await;
        let busy = Answer::status(StatusCode::TOO_MANY_REQUESTS).with_retry_after(600);
        world.service.script(When::any().times(8), busy);
        world.enqueue().await;
        world.settle().await;
        assert_eq!(world.asked(), 8, "{origin}");
        assert_eq!(world.paused().await, [(origin.to_owned(), 10 * MINUTE)]);
        world.clock.advance(10 * MINUTE);
        world.settle().await;
        assert_eq!(world.service.counts().accepted, 20);
    }
}

#[tokio::test]
async fn a_limit_in_any_form_is_obeyed() {
    let in_ten_minutes = "Fri, 15 Jan 2027 08:10:00 GMT";
    let now = "Fri, 15 Jan 2027 08:00:00 GMT";
    let header = |name: &'static str, value: &'static str| {
        Answer::status(StatusCode::TOO_MANY_REQUESTS)
            .with_header(http::header::DATE, http::HeaderValue::from_static(now))
            .with_header(
                http::HeaderName::from_static(name),
                http::HeaderValue::from_static(value),
            )
    };
    for (origin, answer) in [
        (FCM, header("retry-after", "600")),
        (FCM, header("retry-after", in_ten_minutes)),
        (FCM, header("retry-after", "Friday, 15-Jan-27 08:10:00 GMT")),
        (FCM, header("retry-after", "Fri Jan 15 08:10:00 2027")),
        (WNS, header("x-wns-continue-after", "600")),
    ] {
        let world = World::at(origin).await;
        world.subscriber().await;
        world.service.script(When::any().times(1), answer.clone());
        let broadcast = world.enqueue().await;
        world.settle().await;
        world.clock.advance(10 * MINUTE - Duration::from_secs(1));
        world.settle().await;
        assert_eq!(world.asked(), 1, "{answer:?}");
        world.clock.advance(Duration::from_secs(1));
        world.settle().await;
        assert_eq!(world.status(broadcast).await.counts.accepted, 1);
    }
}

#[tokio::test]
async fn a_probe_without_a_request_lets_the_next_one_begin() {
    let world = World::at(FCM).await;
    let rows = world.subscribers(30).await;
    world.service.script(When::any(), fault());
    let broadcast = world.enqueue().await;
    world.settle().await;
    world.service.clear_script();
    // The subscription of the first request was removed in between.
    let now = world.clock.now();
    let left: Vec<_> = rows[..25]
        .iter()
        .map(|(_, record)| Change::Delete(record.subscription.endpoint().key()))
        .collect();
    world.store.apply(&left, now).await.unwrap();
    world.clock.advance(5 * MINUTE);
    world.settle().await;
    assert_eq!(world.paused().await, []);
    let counts = world.status(broadcast).await.counts;
    assert_eq!((counts.accepted + counts.pending, counts.gone), (5, 25));
}

#[tokio::test]
async fn a_single_delivery_obeys_shared_pauses_and_stores_its_own() {
    let world = World::at(FCM).await;
    let (_, record) = world.subscriber().await;
    let other = world.replica().await;
    let limit = Answer::status(StatusCode::TOO_MANY_REQUESTS).with_retry_after(600);
    world.service.script(When::any(), limit);
    let deliver = async |push: &WebPush| {
        let result = push.deliver(&record.subscription, Message::new("x")).await;
        result.unwrap_err()
    };
    assert!(deliver(&world.push).await.closed().is_none());
    assert_eq!(world.paused().await, [(FCM.to_owned(), 10 * MINUTE)]);
    assert!(deliver(&other).await.closed().is_some());
    assert_eq!(world.asked(), 1);
}
