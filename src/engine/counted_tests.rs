//! What a worker counts and stores of push services, through its settlements.

use std::time::Duration;

use http::StatusCode;

use super::test_world::{START, World, drive};
use super::worker::Worker;
use crate::store::{DeliveryLedger as _, Tally};

/// Counted twice, acceptances would hide how many subscriptions a push service calls gone.
#[tokio::test]
async fn each_acceptance_is_counted_once() {
    const ACCEPTED: u64 = 600;
    let world = World::new().await;
    let key = world.subscriber().await;
    for _ in 1..ACCEPTED {
        world.subscriber().await;
    }
    let origin = world.gate(key).await.origin().clone();
    let id = world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    for _ in 0..1_000 {
        worker.step().await;
        drive(&mut worker).await;
        // Twice: what was counted is not counted again.
        worker.settle().await.unwrap();
        worker.settle().await.unwrap();
        if world.counts(id).await.pending == 0 {
            break;
        }
    }
    assert_eq!(world.counts(id).await.accepted, ACCEPTED);
    worker.finish().await.unwrap();
    let nothing = [(origin, Tally::default())];
    let tallied = world.store.tally(&nothing, START).await.unwrap();
    assert_eq!(tallied[0].accepted, ACCEPTED);
}

/// Else a process that starts takes it for another sender's fault, and ends the pause.
#[tokio::test]
async fn a_sender_fault_is_stored_with_the_key_that_is_active_by_then() {
    let world = World::new().await;
    let mut worker = Worker::new(world.engine.clone());
    worker.step().await;
    let before = world.engine.key_ring.active().id();
    let now = START + Duration::from_secs(1);
    let key = world.engine.key_ring.rotate(now).await.unwrap().id();
    assert_ne!(key, before);
    for _ in 0..30 {
        world.subscriber().await;
    }
    world.broadcast().await;
    world.answer(StatusCode::FORBIDDEN);
    let stored = async || world.store.pauses(world.engine.now()).await.unwrap();
    for _ in 0..60 {
        worker.step().await;
        drive(&mut worker).await;
        worker.settle().await.unwrap();
        if !stored().await.is_empty() {
            break;
        }
        world.clock.advance(Duration::from_secs(1));
    }
    let pauses = stored().await;
    let contact = pauses[0].contact.as_deref().unwrap();
    assert!(contact.ends_with(&key.to_string()), "{contact}");
}
