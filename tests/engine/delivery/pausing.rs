//! Pauses of push services.

use std::sync::Arc;

use tower_web_push::Broadcast;

use super::order::tampered;
use super::world::*;
use crate::support::tampered_store::TamperedStore;

const EACH: [&str; 5] = [FCM, MOZILLA, APPLE, WNS, "https://push.example.net"];

fn busy() -> Answer {
    Answer::status(StatusCode::TOO_MANY_REQUESTS)
}

#[tokio::test]
async fn a_limited_row_waits_alone_at_every_push_service() {
    for origin in EACH {
        for answer in [busy().with_retry_after(3600), busy()] {
            let world = World::at(origin).await;
            let rows = world.subscribers(3).await;
            let limited = rows[0].1.subscription.endpoint().clone();
            world.service.script(When::endpoint(&limited), answer);
            world.enqueue().await;
            world.settle().await;
            world.clock.advance(Duration::from_secs(1));
            let message = Message::new("y").with_ttl(Ttl::from_secs(60));
            let second = world.push.enqueue(Audience::All, message).await.unwrap();
            world.settle().await;
            let counts = world.status(second.broadcast).await.counts;
            assert_eq!(counts.accepted, 2, "{origin}: {counts:?}");
            assert_eq!(world.paused().await, []);
        }
    }
}

#[tokio::test]
async fn eight_limited_rows_and_none_that_is_accepted_pause_every_push_service() {
    for origin in EACH {
        let world = World::at(origin).await;
        world.subscribers(20).await;
        world.prove().await;
        let broadcast = limited(&world).await;
        assert_eq!(world.paused().await, [(origin.to_owned(), 10 * MINUTE)]);
        let asked = world.asked();
        world.clock.advance(10 * MINUTE - Duration::from_secs(1));
        world.settle().await;
        assert_eq!(world.asked(), asked, "asked during its pause");
        world.service.clear_script();
        world.clock.advance(Duration::from_secs(1));
        world.settle().await;
        assert_eq!(world.status(broadcast).await.counts.accepted, 20);
    }
}

/// All subscribers are limited for ten minutes, twice within some seconds; the second message.
async fn limited(world: &World) -> BroadcastId {
    world
        .service
        .script(When::any(), busy().with_retry_after(600));
    world.enqueue().await;
    world.settle().await;
    assert_eq!(world.paused().await, [], "a burst");
    world.clock.advance(Duration::from_secs(3));
    let broadcast = world.enqueue().await;
    world.settle().await;
    broadcast
}

#[tokio::test]
async fn direct_sends_tell_the_others_of_a_limit_and_obey_theirs() {
    let world = World::at(FCM).await;
    let other = world.replica().await;
    world.subscribers(20).await;
    world.prove().await;
    world
        .service
        .script(When::any(), busy().with_retry_after(600));
    let send = async |push: &WebPush| {
        let sent = push.send(Audience::All, Message::new("x")).await;
        assert_eq!(sent.unwrap().counts.failed, 20);
    };
    send(&world.push).await;
    world.clock.advance(Duration::from_secs(3));
    send(&world.push).await;
    assert_eq!(world.paused().await, [(FCM.to_owned(), 10 * MINUTE)]);
    let asked = world.asked();
    send(&other).await;
    assert_eq!(world.asked(), asked, "asked during its pause");
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

/// Twenty subscribers of a push service that refuses this server from now on; its gate is closed.
async fn refused(world: &World) -> BroadcastId {
    world.subscribers(20).await;
    world.prove().await;
    world.service.script(When::any(), fault());
    let broadcast = world.enqueue().await;
    world.outlast().await;
    let pauses = world.pauses().await;
    assert_eq!(pauses.len(), 1, "{pauses:?}");
    assert_eq!(pauses[0].reason, PauseReason::SenderFault);
    broadcast
}

#[tokio::test]
async fn sender_faults_of_eight_distinct_rows_close_the_gate_for_five_minutes() {
    let world = World::at(FCM).await;
    let broadcast = refused(&world).await;
    assert_eq!(world.paused().await, [(FCM.to_owned(), 5 * MINUTE)]);
    let asked = world.asked();
    world.clock.advance(5 * MINUTE - Duration::from_secs(1));
    world.settle().await;
    assert_eq!(world.asked(), asked, "asked during its pause");
    // Nothing is deleted, and no delivery is finished.
    let live = CountFilter::new(Audience::All, Liveness::Live);
    let now = world.clock.now();
    assert_eq!(world.store.count(&live, now).await.unwrap(), 20);
    assert_eq!(world.status(broadcast).await.counts.pending, 20);
}

/// The public case h02: a few rows are refused for ever, all others are accepted with the same token.
#[tokio::test]
async fn rows_that_are_refused_for_ever_delay_no_other() {
    for origin in EACH {
        let world = World::at(origin).await;
        let rows = world.subscribers(60).await;
        world.prove().await;
        for (_, record) in &rows[..10] {
            let endpoint = record.subscription.endpoint();
            let refused = Answer::status(StatusCode::UNAUTHORIZED);
            world.service.script(When::endpoint(endpoint), refused);
        }
        let broadcast = world.enqueue().await;
        world.settle().await;
        assert_eq!(world.status(broadcast).await.counts.accepted, 50);
        for minute in 0..16 {
            for _ in 0..6 {
                world.clock.advance(Duration::from_secs(10));
                world.settle().await;
                assert_eq!(world.paused().await, [], "{origin}: {minute}");
            }
            let healthy = rows[10 + minute].1.id;
            let message = Message::new("y").with_ttl(Ttl::from_secs(120));
            let queued = world.push.enqueue(healthy, message).await.unwrap();
            world.settle().await;
            let counts = world.status(queued.broadcast).await.counts;
            assert_eq!(counts.accepted, 1, "{origin}: {minute}");
        }
    }
}

/// A new server with a wrong key stops too, and goes on soon after it is mended.
#[tokio::test]
async fn an_origin_that_never_accepted_anything_is_paused_for_half_a_minute() {
    let world = World::at(FCM).await;
    world.subscribers(20).await;
    world.service.script(When::any(), fault());
    let broadcast = world.enqueue().await;
    world.outlast().await;
    assert_eq!(world.paused().await, [(FCM.to_owned(), MINUTE / 2)]);
    world.service.clear_script();
    world.clock.advance(MINUTE / 2);
    world.settle().await;
    assert_eq!(world.paused().await, []);
    world.clock.advance(MINUTE);
    world.settle().await;
    assert_eq!(world.status(broadcast).await.counts.accepted, 20);
}

#[tokio::test]
async fn tests_of_strangers_close_nothing() {
    let world = World::at(FCM).await;
    let rows = world.subscribers(40).await;
    let refused = Answer::status(StatusCode::UNAUTHORIZED);
    world.service.script(When::any(), refused);
    for (_, record) in &rows {
        let sent = world
            .push
            .send_test(&record.subscription, Message::new("x"));
        assert!(sent.await.unwrap().is_some());
        world.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(world.paused().await, []);
}

/// Whoever registers an endpoint causes one, at an origin that never accepted anything too.
#[tokio::test]
async fn confirmations_to_strangers_close_nothing() {
    let world = World::at(FCM).await;
    world.subscribers(20).await;
    let refused = Answer::status(StatusCode::UNAUTHORIZED);
    world.service.script(When::any(), refused);
    let text = r#"{"title":"Subscription Successful","message":"Thank you for subscribing!"}"#;
    let confirmation = Message::new(text);
    world
        .push
        .enqueue(Audience::All, confirmation)
        .await
        .unwrap();
    world.outlast().await;
    assert_eq!(world.paused().await, []);
    assert_eq!(world.asked(), 40, "each twice");
}

/// What an origin accepted before is stored: the first responses of a new process may be those of strangers.
#[tokio::test]
async fn strangers_close_no_origin_that_accepted_before_a_restart() {
    let world = World::at(FCM).await;
    world.subscribers(1).await;
    world.prove().await;
    let strangers = world.subscribers(20).await;
    for (_, stranger) in &strangers {
        let endpoint = stranger.subscription.endpoint();
        let refused = Answer::status(StatusCode::UNAUTHORIZED);
        world.service.script(When::endpoint(endpoint), refused);
    }
    let strangers = strangers.iter().map(|(_, stranger)| stranger.id).collect();
    let restarted = World {
        push: world.replica().await,
        ..world
    };
    let message = Message::new("x");
    let queued = restarted.push.enqueue(Audience::Ids(strangers), message);
    queued.await.unwrap();
    restarted.outlast().await;
    assert_eq!(restarted.paused().await, []);
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
    world.prove().await;
    let now = world.clock.now();
    world.store.apply(&changes, now).await.unwrap();
    world.service.script(When::any(), fault());
    let broadcast = world.enqueue().await;
    world.outlast().await;
    assert_eq!(world.paused().await, [(FCM.to_owned(), 5 * MINUTE)]);
    world.service.clear_script();
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
    let asked = world.asked() + 1;
    // The worker is dropped with its probe.
    tokio::select! {
        _ = world.push.tick() => panic!("there is no response"),
        _ = world.service.wait_until(|counts| counts.requests == asked) => {}
    }
    world.settle().await;
    assert_eq!(world.asked(), asked, "the lease holds");
    world.clock.advance(2 * MINUTE);
    let fresh = world.replica().await;
    while !fresh.tick().await.unwrap().is_idle() {}
    assert_eq!(world.paused().await, []);
}

#[tokio::test]
async fn a_key_of_another_process_ends_a_sender_fault_even_if_the_first_try_fails() {
    let world = World::at(FCM).await;
    let [store, others] = [(); 2].map(|()| Arc::new(TamperedStore::over(&world.store)));
    let push = world.replica_with(|builder| builder.store(Arc::clone(&store)));
    let push = push.await;
    let other = world.replica_with(|builder| builder.store(Arc::clone(&others)));
    let other = other.await;
    let until = world.clock.now() + 5 * MINUTE;
    let origin = Origin::parse(FCM).unwrap();
    let mut pause = Pause::new(origin, until, PauseReason::SenderFault);
    let key = KeyId::of(&push.vapid_public_key());
    pause.contact = Some(format!("mailto:ops@example.com {key}"));
    world.store.pause(&pause, world.clock.now()).await.unwrap();
    // It stores the key, and ends no pause.
    others.fail("pauses");
    other.rotate_vapid_key().await.unwrap();
    assert_eq!(world.paused().await.len(), 1);

    store.fail("pauses");
    push.tick().await.unwrap_err();
    assert_eq!(world.paused().await.len(), 1);
    store.fail(None);
    push.tick().await.unwrap();
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
        .store(Arc::clone(&world.store))
        .clock(world.clock.clone())
        .client(world.service.clone());
    start(renamed.build().await.unwrap()).await;
    assert_eq!(world.paused().await, []);
}

#[tokio::test]
async fn a_start_with_another_key_clears_a_sender_fault() {
    let world = World::at(FCM).await;
    refused(&world).await;
    let others = Arc::new(TamperedStore::over(&world.store));
    let other = world.replica_with(|builder| builder.store(Arc::clone(&others)));
    let other = other.await;
    // It stores the key, and ends no pause.
    others.fail("pauses");
    other.rotate_vapid_key().await.unwrap();
    assert_eq!(world.paused().await.len(), 1);
    world.replica().await.run(async {}).await.unwrap();
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
    let asked = world.asked();
    assert_eq!(send().await.counts.failed, 20);
    assert_eq!(world.asked(), asked, "asked during its pause");
    world.clock.advance(5 * MINUTE);
    send().await;
    assert_eq!(world.asked(), asked + 1);
    assert_eq!(world.paused().await, [(FCM.to_owned(), 10 * MINUTE)]);
    world.service.clear_script();
    world.clock.advance(10 * MINUTE);
    assert!(send().await.counts.accepted >= 1, "the probe");
    assert_eq!(world.paused().await, []);
    assert_eq!(send().await.counts.accepted, 20);
}

#[tokio::test]
async fn an_origin_that_is_down_is_probed_and_any_answer_opens_it() {
    let world = World::at(FCM).await;
    let rows = world.subscribers(20).await;
    world.prove().await;
    let down = Answer::status(StatusCode::SERVICE_UNAVAILABLE);
    world.service.script(When::any(), down);
    world.enqueue().await;
    world.outlast().await;
    let half_a_minute = Duration::from_secs(30);
    assert_eq!(world.paused().await, [(FCM.to_owned(), half_a_minute)]);
    assert_eq!(world.pauses().await[0].reason, PauseReason::Unreachable);
    let asked = world.asked();
    world.clock.advance(half_a_minute);
    world.settle().await;
    assert_eq!(world.asked(), asked + 1);
    assert_eq!(world.paused().await, [(FCM.to_owned(), MINUTE)]);
    world.service.clear_script();
    assert!(rows.iter().all(|(browser, _)| browser.unsubscribe()));
    world.clock.advance(MINUTE);
    world.settle().await;
    assert_eq!(world.paused().await, [], "410 is an answer");
    assert!(world.asked() > asked + 2);
}

/// After a restart no row that has failed is evidence, though each works again.
#[tokio::test]
async fn rows_that_come_due_one_after_the_other_probe_a_minute_after_the_pause() {
    let world = World::at(FCM).await;
    let rows = world.subscribers(2).await;
    world.prove().await;
    let down = Answer::status(StatusCode::SERVICE_UNAVAILABLE);
    world.service.script(When::any(), down);
    let failed = world.enqueue().await;
    world.settle().await;
    world.push.cancel(failed).await.unwrap();
    world.service.clear_script();
    world.clock.advance(MINUTE);
    let world = World {
        push: world.replica().await,
        ..world
    };
    let (now, second) = (world.clock.now(), Duration::from_secs(1));
    let until = now + 30 * second;
    let pause = Pause::new(Origin::parse(FCM).unwrap(), until, PauseReason::Unreachable);
    world.store.pause(&pause, now).await.unwrap();
    for (at, (_, record)) in [until, until + 20 * second].into_iter().zip(&rows) {
        let broadcast = Broadcast::to(record.id, Message::new("y")).at(at);
        world.push.enqueue_broadcast(broadcast).await.unwrap();
    }
    let asked = world.asked();
    for secs in (0..=300).step_by(5) {
        world.settle().await;
        let is_probed = secs >= 90;
        assert_eq!(world.asked() > asked, is_probed, "{secs} s");
        assert_eq!(world.paused().await.is_empty(), is_probed, "{secs} s");
        world.clock.advance(5 * second);
    }
    assert_eq!(world.asked(), asked + 2);
}

#[tokio::test]
async fn errors_of_the_push_service_itself_pause_it_as_long_as_it_asks() {
    for minutes in [2, 3 * 60, 24 * 60] {
        let asked = minutes * MINUTE;
        let world = World::at(MOZILLA).await;
        world.subscribers(20).await;
        world.prove().await;
        let down = Answer::status(StatusCode::SERVICE_UNAVAILABLE);
        let down = down.with_retry_after(minutes * 60);
        world.service.script(When::any(), down);
        world.enqueue().await;
        world.settle().await;
        world.clock.advance(Duration::from_secs(3));
        world.enqueue().await;
        world.settle().await;
        assert_eq!(world.paused().await, [(MOZILLA.to_owned(), asked)]);
        // The pauses are read again, here and by others.
        let passed = Duration::from_secs(6);
        world.clock.advance(passed);
        world.settle().await;
        let left = asked.saturating_sub(passed);
        assert_eq!(world.paused().await, [(MOZILLA.to_owned(), left)]);
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
        .map(|(_, record)| Change::delete(record))
        .collect();
    world.store.apply(&left, now).await.unwrap();
    world.clock.advance(5 * MINUTE);
    world.settle().await;
    assert_eq!(world.paused().await, []);
    let counts = world.status(broadcast).await.counts;
    assert_eq!((counts.accepted + counts.pending, counts.gone), (5, 25));
}

#[tokio::test]
async fn a_single_delivery_obeys_what_others_know() {
    let world = World::at(FCM).await;
    let rows = world.subscribers(20).await;
    let other = world.replica().await;
    world.prove().await;
    limited(&world).await;
    let asked = world.asked();
    let delivered = other.deliver(&rows[0].1.subscription, Message::new("x"));
    assert!(delivered.await.unwrap_err().closed().is_some());
    assert_eq!(world.asked(), asked);
}

/// What this process alone knows, since it could not be shared, is ended too.
#[tokio::test]
async fn a_gate_is_opened_though_its_pause_is_not_stored() {
    let world = World::at(FCM).await;
    let rows = world.subscribers(20).await;
    world.prove().await;
    let (store, push) = tampered(&world).await;
    store.fail("pause");
    world
        .service
        .script(When::any(), busy().with_retry_after(600));
    for after in [Duration::ZERO, Duration::from_secs(3)] {
        world.clock.advance(after);
        // The pause cannot be written.
        let _ = push.send(Audience::All, Message::new("x")).await;
    }
    world.service.clear_script();
    let one = &rows[0].1.subscription;
    let refused = push.deliver(one, Message::new("x")).await.unwrap_err();
    assert!(refused.closed().is_some(), "{refused:?}");
    assert_eq!(world.paused().await, []);
    store.fail(None);
    let origin = Origin::parse(FCM).unwrap();
    push.open_gate(&origin).await.unwrap();
    push.deliver(one, Message::new("x")).await.unwrap();
}
