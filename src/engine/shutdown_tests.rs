//! The shutdown signal and the drain.

use std::future::{pending, ready};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use super::super::test_world::{TIMEOUT, World};
use super::*;
use crate::store::{DeliveryLedger as _, Tally};
use crate::testing::{Answer, When};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn without_the_signal_a_call_to_the_store_is_awaited() {
    let wish = pin!(pending::<()>());
    let mut shutdown = Shutdown::new(wish);
    assert!(shutdown.asked().now_or_never().is_none());
    let slow = sleep(3600 * SECOND);
    assert_eq!(shutdown.or_give_up(slow.map(|()| 7)).await, Some(7));
}

#[tokio::test(start_paused = true)]
async fn after_the_signal_the_store_has_two_seconds() {
    for (takes, answer) in [
        (Duration::ZERO, Some(7)),
        (STORE_PATIENCE - Duration::from_millis(1), Some(7)),
        (STORE_PATIENCE + Duration::from_millis(1), None),
    ] {
        let wish = pin!(async {});
        let mut shutdown = Shutdown::new(wish);
        let call = sleep(takes).map(|()| 7);
        assert_eq!(shutdown.or_give_up(call).await, answer, "{takes:?}");
        // The signal is remembered.
        shutdown.asked().now_or_never().unwrap();
        shutdown.asked().now_or_never().unwrap();
        assert_eq!(shutdown.or_give_up(ready(8)).await, Some(8));
        let silent = timeout(60 * SECOND, shutdown.or_give_up(pending::<()>())).await;
        assert_eq!(silent, Ok(None));
    }
}

#[tokio::test(start_paused = true)]
async fn the_two_seconds_begin_with_the_signal() {
    let (wish, wished) = oneshot::channel::<()>();
    let wished = pin!(wished.map(drop));
    let mut shutdown = Shutdown::new(wished);
    let began = Instant::now();
    let call = pending::<()>();
    let wishing = async {
        sleep(10 * SECOND).await;
        wish.send(()).unwrap();
    };
    let given_up = timeout(60 * SECOND, shutdown.or_give_up(call));
    let (given_up, ()) = tokio::join!(given_up, wishing);
    assert_eq!(given_up, Ok(None));
    assert_eq!(began.elapsed(), 10 * SECOND + STORE_PATIENCE);
}

/// A worker with one attempt that takes this long.
async fn under_way(world: &World, takes: Duration) -> Worker {
    world.subscriber().await;
    let answer = Answer::ordinary().after(takes);
    world.service.script(When::any(), answer);
    let mut worker = Worker::new(world.engine.clone());
    world.broadcast().await;
    assert_eq!(worker.step().await.claimed, 1);
    begun(world, 1).await;
    worker
}

/// Waits until this many requests have begun.
async fn begun(world: &World, requests: u64) {
    while world.service.counts().requests < requests {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_in_flight_end_and_are_settled() {
    let world = World::new().await;
    let worker = under_way(&world, TIMEOUT - SECOND).await;
    world.subscriber().await;
    let id = world.broadcast().await;
    let began = Instant::now();
    drain(&world.engine, worker).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), (TIMEOUT - SECOND).as_secs());
    assert_eq!(world.service.counts().accepted, 1);
    assert_eq!(world.counts(id).await.accepted, 0, "nothing new is begun");
}

/// The signal comes between the end of an attempt and the settlement that is due soon after it.
#[tokio::test(start_paused = true)]
async fn attempts_that_ended_before_the_drain_are_settled() {
    let world = World::new().await;
    let key = world.subscriber().await;
    let id = world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    assert_eq!(worker.step().await.claimed, 1);
    worker.attempt_ended().await.unwrap();
    assert_eq!((worker.in_flight(), worker.unsettled()), (0, 1));
    drain(&world.engine, worker).await.unwrap();
    assert_eq!(world.counts(id).await.accepted, 1);
    // With all that an earlier settlement leaves for later.
    let origin = world.gate(key).await.origin().clone();
    let now = world.engine.now();
    let tally = world.store.tally(&[(origin, Tally::default())], now).await;
    assert_eq!(tally.unwrap()[0].accepted, 1);
}

#[tokio::test(start_paused = true)]
async fn rows_that_wait_for_a_permit_are_released_at_once() {
    let world = World::with(1, TIMEOUT).await;
    let key = world.subscriber().await;
    world.broadcast().await;
    let _permit = world.gate(key).await.try_acquire().unwrap();
    let mut worker = Worker::new(world.engine.clone());
    assert_eq!(worker.step().await.claimed, 1);
    tokio::task::yield_now().await;
    let began = Instant::now();
    drain(&world.engine, worker).await.unwrap();
    assert!(began.elapsed() <= SETTLE_WITHIN);
    let stats = world.store.stats(world.engine.now()).await.unwrap();
    assert_eq!((stats.depth, stats.leased), (1, 0));
}

/// Outcomes are written as attempts end, not when the slowest request has ended.
#[tokio::test(start_paused = true)]
async fn ended_attempts_are_settled_while_others_are_in_flight() {
    let world = World::new().await;
    let key = world.subscriber().await;
    world.subscriber().await;
    let slow = world.record(key).await;
    let slow = When::endpoint(slow.subscription.endpoint());
    world
        .service
        .script(slow, Answer::ordinary().after(10 * SECOND));
    let id = world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    assert_eq!(worker.step().await.claimed, 2);
    begun(&world, 2).await;
    let drained = drain(&world.engine, worker);
    let mut drained = pin!(drained);
    assert!(timeout(SECOND, &mut drained).await.is_err());
    assert_eq!(world.counts(id).await.accepted, 1);
    drained.await.unwrap();
    assert_eq!(world.counts(id).await.accepted, 2);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_longer_than_the_timeout_is_left_to_its_lease() {
    // The client has a longer limit than the engine.
    let limit = TIMEOUT / 3;
    for (takes, left) in [
        (limit + STORE_PAUSE - Duration::from_millis(1), 0),
        (limit + STORE_PAUSE + Duration::from_millis(1), 1),
    ] {
        let world = World::with(8, limit).await;
        let worker = under_way(&world, takes).await;
        let began = Instant::now();
        drain(&world.engine, worker).await.unwrap();
        assert!(began.elapsed() <= limit + STORE_PAUSE + SETTLE_WITHIN);
        let stats = world.store.stats(world.engine.now()).await.unwrap();
        assert_eq!(stats.depth, left, "{takes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_store_is_tried_for_five_seconds() {
    for (mends_after, is_written) in [(4 * SECOND - SECOND / 2, true), (3600 * SECOND, false)] {
        let world = World::new().await;
        let worker = under_way(&world, SECOND).await;
        world.table.fails.store(true, Relaxed);
        let table = Arc::clone(&world.table);
        let mend = async move {
            sleep(SECOND + mends_after).await;
            table.fails.store(false, Relaxed);
        };
        let began = Instant::now();
        let result = tokio::select! {
            result = drain(&world.engine, worker) => result,
            () = async { mend.await; pending().await } => unreachable!(),
        };
        assert_eq!(result.is_ok(), is_written);
        assert!(
            began.elapsed() <= SECOND + SETTLE_AT_LAST,
            "{:?}",
            began.elapsed()
        );
        if let Err(error) = result {
            assert_eq!(error.kind(), RunErrorKind::Store);
            assert!(began.elapsed() >= SECOND + 4 * SECOND);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_respond_ends_the_drain() {
    let world = World::new().await;
    let worker = under_way(&world, SECOND).await;
    world.table.hangs.store(true, Relaxed);
    let began = Instant::now();
    let drained = timeout(60 * SECOND, drain(&world.engine, worker)).await;
    let error = drained.unwrap().unwrap_err();
    assert_eq!(error.kind(), RunErrorKind::Store);
    let longest = SECOND + SETTLE_WITHIN + STORE_PATIENCE + SETTLE_AT_LAST;
    assert!(began.elapsed() <= longest, "{:?}", began.elapsed());
}
