use super::super::test_world::{START, World};
use super::*;
use crate::store::DeliveryLedger as _;

/// A process that does not run a worker learns pauses when it sends, whatever its clock did meanwhile.
#[tokio::test]
async fn pauses_are_read_again_after_the_clock_was_set_back() {
    let world = World::new().await;
    let key = world.subscriber().await;
    let gate = world.gate(key).await;
    let ahead = START + Duration::from_secs(3600);
    world.engine.refresh_pauses(ahead).await.unwrap();
    let until = START + Duration::from_secs(60);
    let pause = Pause::new(gate.origin().clone(), until, PauseReason::RateLimited);
    world.store.pause(&pause, START).await.unwrap();
    world.engine.refresh_pauses(START).await.unwrap();
    assert!(gate.closed_at(START).is_some());
    // Not with each call: thousands of messages are sent in a second.
    let lifted = Pause::new(gate.origin().clone(), START, PauseReason::RateLimited);
    world.store.pause(&lifted, START).await.unwrap();
    let soon = START + Engine::PAUSES_KEPT - Duration::from_millis(1);
    world.engine.refresh_pauses(soon).await.unwrap();
    assert!(gate.closed_at(soon).is_some());
    world
        .engine
        .refresh_pauses(START + Engine::PAUSES_KEPT)
        .await
        .unwrap();
    assert!(gate.closed_at(soon).is_none());
}

/// At once, and not when the pauses are read next.
#[tokio::test]
async fn a_new_key_opens_the_gates_of_this_process() {
    let world = World::new().await;
    let key = world.subscriber().await;
    let gate = world.gate(key).await;
    let until = START + Duration::from_secs(3600);
    let pause = Pause::new(gate.origin().clone(), until, PauseReason::SenderFault);
    world.store.pause(&pause, START).await.unwrap();
    world.engine.load_pauses(START).await.unwrap();
    assert!(gate.closed_at(START).is_some());
    world.engine.rotate_vapid_key().await.unwrap();
    assert_eq!(world.store.pauses(START).await.unwrap(), []);
    assert!(gate.closed_at(START).is_none());
}
