//! What is written, and in which order.

use std::sync::atomic::Ordering::Relaxed;

use http::StatusCode;

use super::super::test_world::{START, World, drive};
use super::super::worker::Worker;
use super::*;
use crate::broadcast::{BroadcastId, FinalOutcome};
use crate::store::DeliveryLedger as _;
use crate::subscription::EndpointKey;

fn token(n: u8) -> ClaimToken {
    let key = EndpointKey::from_bytes([n; 32]);
    ClaimToken::new(BroadcastId::random(), key, 1)
}

/// A recipient that has unsubscribed.
const GONE: Settlement = Settlement::Finished(FinalOutcome::Gone);

#[tokio::test]
async fn effects_on_subscriptions_are_written_before_outcomes() {
    let world = World::new().await;
    let key = world.subscriber().await;
    let id = world.broadcast().await;
    world.answer(StatusCode::GONE);
    let mut worker = Worker::new(world.engine.clone());
    worker.step().await;
    drive(&mut worker).await;
    world.table.fails.store(true, Relaxed);
    worker.settle().await.unwrap_err();
    assert_eq!(world.counts(id).await.pending, 1);
    assert_eq!(worker.unsettled(), 1);
    world.table.fails.store(false, Relaxed);
    worker.settle().await.unwrap();
    assert_eq!(world.counts(id).await.gone, 1);
    assert!(world.record(key).await.retired.is_some());
    // The tally is written at the end.
    worker.finish().await.unwrap();
}

#[tokio::test]
async fn one_store_writes_effects_and_outcomes_in_one_call() {
    let world = World::of_one_store().await;
    let key = world.subscriber().await;
    let id = world.broadcast().await;
    world.answer(StatusCode::GONE);
    let mut worker = Worker::new(world.engine.clone());
    worker.step().await;
    drive(&mut worker).await;
    // No other call writes the effects.
    world.table.fails.store(true, Relaxed);
    worker.settle().await.unwrap();
    assert_eq!(worker.unsettled(), 0);
    assert!(worker.settling.effects.changes().is_empty());
    assert_eq!(world.counts(id).await.gone, 1);
    assert!(world.record(key).await.retired.is_some());
    world.table.fails.store(false, Relaxed);
    worker.finish().await.unwrap();
}

#[tokio::test]
async fn the_last_settlement_writes_the_tally() {
    let world = World::new().await;
    let key = world.subscriber().await;
    world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    worker.step().await;
    drive(&mut worker).await;
    let gate = world.gate(key).await;
    let tally = async || {
        let nothing = [(gate.origin().clone(), Default::default())];
        world.store.tally(&nothing, START).await.unwrap()[0].accepted
    };
    worker.settle().await.unwrap();
    assert_eq!(tally().await, 1, "the first acceptance is written at once");
    world.broadcast().await;
    worker.step().await;
    drive(&mut worker).await;
    worker.settle().await.unwrap();
    assert_eq!(tally().await, 1);
    worker.finish().await.unwrap();
    assert_eq!(tally().await, 2);
}

#[tokio::test]
async fn nothing_is_claimed_while_too_many_rows_cannot_be_settled() {
    let world = World::new().await;
    world.subscriber().await;
    world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    worker.settling.release(vec![token(1); UNSETTLED / 2]);
    for _ in 1..UNSETTLED / 2 {
        worker.settling.add(token(2), GONE);
    }
    assert!(!worker.settling.is_behind());
    worker.settling.add(token(2), GONE);
    assert_eq!(worker.step().await.claimed, 0);
    // What the store has refused alone may be at fault itself.
    let mut pass = worker.settling.settlements.pass();
    while pass.next().is_some() {
        pass.answered(Err(StoreErrorKind::Misconfigured.into()), |_, _| {});
    }
    assert_eq!(worker.unsettled(), UNSETTLED);
    assert_eq!(worker.step().await.claimed, 1);
}

/// Only a call that takes too long stops the claims.
#[tokio::test]
async fn rows_are_claimed_after_outcomes_that_could_not_be_written() {
    let world = World::new().await;
    world.subscriber().await;
    world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    worker.step().await;
    drive(&mut worker).await;
    world.table.fails.store(true, Relaxed);
    worker.settle().await.unwrap_err();
    world.table.fails.store(false, Relaxed);
    world.broadcast().await;
    assert_eq!(worker.step().await.claimed, 1);
}

/// The rows of the next calls were not written before, whatever became of the answer to an earlier one.
#[tokio::test]
async fn an_answer_that_was_lost_is_one_of_its_own_rows_only() {
    let world = World::new().await;
    let mut worker = Worker::new(world.engine.clone());
    let settling = &mut worker.settling;
    settling.add(token(1), GONE);
    settling.add(token(2), GONE);
    drop(settling.settlements.pass().next());
    settling.add(token(3), GONE);
    settling.settle().await.unwrap();
    assert_eq!(settling.unsettled(), 0);
    let lost = world.engine.signals.lost.len();
    assert_eq!(lost, 1, "the third");
}
