//! What the counters count.

use std::future::pending;

use axum::body::Body;
use http::Request;
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;

use super::faults::tampered;
use super::metrics::Metrics;
use super::scrape;
use crate::delivery::world::*;

#[tokio::test(start_paused = true)]
async fn every_recipient_is_counted_once_by_its_final_outcome() {
    let metrics = Metrics::default();
    let _recorder = ::metrics::set_default_local_recorder(&metrics);
    let world = World::at(FCM).await;
    let rows = world.subscribers(3).await;
    world.prove().await;

    // Written at once, and ended by housekeeping, not by an attempt.
    let ids = rows.iter().map(|(_, record)| record.id).collect();
    let held = Message::new("x").with_ttl(Ttl::from_secs(60));
    let held = world.push.enqueue(Audience::Ids(ids), held).await.unwrap();
    let held = held.broadcast;
    world.push.pause(held).await.unwrap();
    world.settle().await;
    world.clock.advance(2 * MINUTE);
    world.settle().await;
    assert_eq!(world.status(held).await.counts.expired, 3);

    let cancelled = world.enqueue().await;
    for _ in 0..2 {
        let status = world.push.cancel(cancelled).await.unwrap().unwrap();
        assert_eq!(status.counts.cancelled, 3);
    }

    world
        .service
        .script(When::any().times(1), Answer::status(StatusCode::GONE));
    let last = world.enqueue().await;
    world.settle().await;
    let counts = world.status(last).await.counts;
    assert_eq!((counts.accepted, counts.gone), (2, 1));
    world.push.rotate_vapid_key().await.unwrap();

    let scrape = scrape(&metrics, &world.push).await;
    for (selector, expected) in [
        ("web_push_finished_total{outcome=\"accepted\"}", 3.0 + 2.0),
        ("web_push_finished_total{outcome=\"expired\"}", 3.0),
        ("web_push_finished_total{outcome=\"cancelled\"}", 3.0),
        ("web_push_finished_total{outcome=\"gone\"}", 1.0),
        ("web_push_finished_total", 12.0),
        ("web_push_attempts_total{push_service=\"fcm\"}", 6.0),
        ("web_push_responses_total{status=\"4xx\"}", 1.0),
        (
            "web_push_retired_total{push_service=\"fcm\",reason=\"gone\"}",
            1.0,
        ),
        (
            "web_push_delivery_duration_seconds_count{push_service=\"fcm\"}",
            5.0,
        ),
        ("web_push_key_rotations_total", 1.0),
        ("web_push_settlements_lost_total", 0.0),
    ] {
        assert_eq!(scrape.sum(selector), expected, "{selector}: {scrape:#?}");
    }
}

/// The call wrote them, and its answer did not arrive: the next call finds nothing to write.
#[tokio::test(start_paused = true)]
async fn outcomes_whose_answer_was_lost_are_counted_as_they_were_written() {
    let metrics = Metrics::default();
    let _recorder = ::metrics::set_default_local_recorder(&metrics);
    let world = World::at(FCM).await;
    world.subscribers(3).await;
    let (store, push) = tampered(&world).await;
    let running = tokio::spawn(push.run(pending()));
    store.lose_answers("settle");
    push.enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    sleep(Duration::from_secs(5)).await;
    assert!(store.take_calls().contains(&"settle"));
    store.lose_answers(None);
    sleep(Duration::from_secs(30)).await;
    let scrape = scrape(&metrics, &push).await;
    for (selector, expected) in [
        ("web_push_finished_total{outcome=\"accepted\"}", 3.0),
        ("web_push_settlements_lost_total", 0.0),
    ] {
        assert_eq!(scrape.sum(selector), expected, "{selector}: {scrape:#?}");
    }
    running.abort();
}

/// The time of its last claim is 0, and not unknown: of that no alert would tell.
#[tokio::test(start_paused = true)]
async fn a_worker_that_has_never_claimed_shows_it() {
    let metrics = Metrics::default();
    let _recorder = ::metrics::set_default_local_recorder(&metrics);
    let world = World::at(FCM).await;
    let (store, push) = tampered(&world).await;
    store.fail("claim");
    let running = tokio::spawn(push.run(pending()));
    sleep(Duration::from_secs(5)).await;
    let scrape = scrape(&metrics, &push).await;
    let claimed = scrape.sum("web_push_last_claim_timestamp_seconds");
    assert_eq!(claimed, 0.0, "{scrape:#?}");
    running.abort();
}

/// A process knows the pauses that it has read last.
#[tokio::test(start_paused = true)]
async fn gates_are_closed_though_the_ledger_cannot_be_read() {
    let metrics = Metrics::default();
    let _recorder = ::metrics::set_default_local_recorder(&metrics);
    let world = World::at(FCM).await;
    let (store, push) = tampered(&world).await;
    let (origin, now) = (Origin::parse(FCM).unwrap(), world.clock.now());
    let pause = Pause::new(origin, now + MINUTE, PauseReason::RateLimited);
    world.store.pause(&pause, now).await.unwrap();
    push.tick().await.unwrap();
    for failing in [None, Some("stats")] {
        store.fail(failing);
        let scrape = scrape(&metrics, &push).await;
        let closed = scrape.sum("web_push_gates_closed{push_service=\"fcm\"}");
        assert_eq!(closed, 1.0, "{failing:?}: {scrape:#?}");
    }
}

/// The table may be the application's, which may count rows.
#[tokio::test(start_paused = true)]
async fn what_takes_long_to_count_is_not_counted_at_each_scrape() {
    let metrics = Metrics::default();
    let _recorder = ::metrics::set_default_local_recorder(&metrics);
    let world = World::at(FCM).await;
    let (store, push) = tampered(&world).await;
    let counts = async || {
        store.take_calls();
        let scrape = scrape(&metrics, &push).await;
        let live = scrape.sum("web_push_subscriptions{state=\"live\"}");
        (live, store.take_calls().contains(&"count"))
    };
    assert_eq!(counts().await, (0.0, true));
    world.subscribers(2).await;
    assert_eq!(counts().await, (2.0, true));
    store.delay("count", Duration::from_millis(10));
    world.subscribers(1).await;
    assert_eq!(counts().await, (3.0, true));
    world.subscribers(1).await;
    assert_eq!(counts().await, (3.0, false));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(counts().await, (4.0, true));
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_before_its_end_is_counted() {
    let metrics = Metrics::default();
    let _recorder = ::metrics::set_default_local_recorder(&metrics);
    let world = World::at(FCM).await;
    let (store, push) = tampered(&world).await;
    store.hang("last_run");
    let request = Request::get("/ping").body(Body::empty()).unwrap();
    let answer = push.service().oneshot(request);
    let gone = timeout(Duration::from_millis(1), answer).await;
    assert!(gone.is_err(), "the client waits for a millisecond");
    store.hang(None);
    let scrape = scrape(&metrics, &push).await;
    for selector in [
        "web_push_api_requests_total{route=\"ping\",status=\"aborted\"}",
        "web_push_store_errors_total{kind=\"dropped\"}",
    ] {
        assert_eq!(scrape.sum(selector), 1.0, "{selector}: {scrape:#?}");
    }
}

/// A future that is dropped notes the end of no attempt.
#[tokio::test(start_paused = true)]
async fn a_worker_that_is_dropped_has_nothing_in_flight() {
    let metrics = Metrics::default();
    let _recorder = ::metrics::set_default_local_recorder(&metrics);
    let world = World::with(FCM, |builder| builder.in_flight_per_origin_at_least(20)).await;
    world.subscribers(4).await;
    world.prove().await;
    world.service.script(When::any(), Answer::never());
    let replica = world.replica().await;
    let in_flight = async || {
        let scrape = scrape(&metrics, &world.push).await;
        scrape.sum("web_push_in_flight")
    };
    assert_eq!(in_flight().await, 0.0);
    let mut running = Vec::new();
    for push in [&world.push, &replica] {
        running.push(tokio::spawn(push.run(pending())));
        let queued = push.enqueue(Audience::All, Message::new("x")).await;
        queued.unwrap();
        sleep(Duration::from_secs(2)).await;
    }
    // Those of both workers.
    assert_eq!(in_flight().await, 8.0);
    for running in running {
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
    }
    assert_eq!(in_flight().await, 0.0);
}
