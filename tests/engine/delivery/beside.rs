//! What a running worker does side by side, while one of its requests is not answered.

use std::sync::Arc;

use tokio::time::sleep;

use super::order::{position, tampered};
use super::world::*;
use crate::support::tampered_store::TamperedStore;

const MILLISECOND: Duration = Duration::from_millis(1);

/// A worker with a request that is never answered, and one that is answered now: its outcome is written in 20 ms.
async fn one_of_two_is_answered(world: &World) -> (Arc<TamperedStore>, BroadcastId) {
    let [(_, silent), (browser, answering)] = [world.subscriber().await, world.subscriber().await];
    let endpoint = silent.subscription.endpoint();
    world
        .service
        .script(When::endpoint(endpoint), Answer::never());
    let (store, push) = tampered(world).await;
    tokio::spawn(push.run(std::future::pending()));
    push.enqueue(Audience::id(silent.id), Message::new("x"))
        .await
        .unwrap();
    let requests = |number| {
        world
            .service
            .wait_until(move |counts| counts.requests == number)
    };
    requests(1).await;
    // Nothing else is left to do.
    sleep(1000 * MILLISECOND).await;
    let queued = push.enqueue(Audience::id(answering.id), Message::new("x"));
    let queued = queued.await.unwrap();
    browser.next().await;
    sleep(8 * MILLISECOND).await;
    store.take_calls();
    (store, queued.broadcast)
}

#[tokio::test(start_paused = true)]
async fn rows_are_claimed_while_outcomes_are_written() {
    let world = World::at(FCM).await;
    let (store, id) = one_of_two_is_answered(&world).await;
    store.hang("settle");
    sleep(1000 * MILLISECOND).await;
    let calls = store.take_calls();
    assert!(store.has_hung());
    // The claim neither came before the writes, nor did it wait for their end.
    let places = ["tally", "claim", "settle"].map(|call| position(&calls, call));
    assert!(places.is_sorted(), "{calls:?}");
    assert!(position(&calls, "apply") < places[2], "{calls:?}");
    assert_eq!(world.status(id).await.counts.pending, 1);
}

#[tokio::test(start_paused = true)]
async fn outcomes_wait_for_their_effects_while_rows_are_claimed() {
    for (call, is_settled) in [("apply", false), ("claim", true)] {
        let world = World::at(FCM).await;
        let (store, id) = one_of_two_is_answered(&world).await;
        store.hang(call);
        sleep(1000 * MILLISECOND).await;
        assert!(store.has_hung(), "{call}");
        let calls = store.take_calls();
        assert_eq!(calls.contains(&"settle"), is_settled, "{call}: {calls:?}");
        let pending = world.status(id).await.counts.pending;
        assert_eq!(pending == 0, is_settled, "{call}");
    }
}

/// The rows of a small audience are written when it is accepted, and are claimed whatever expansions do.
#[tokio::test(start_paused = true)]
async fn a_message_to_one_user_does_not_wait_for_expansions() {
    let world = World::at(FCM).await;
    let (browser, record) = world.subscriber().await;
    let (store, push) = tampered(&world).await;
    store.hang("expandable");
    tokio::spawn(push.run(std::future::pending()));
    push.enqueue(Audience::id(record.id), Message::new("x"))
        .await
        .unwrap();
    assert_eq!(browser.next().await.text(), Some("x"));
    assert!(store.has_hung());
    let calls = store.take_calls();
    assert!(!calls.contains(&"enqueue_page"), "{calls:?}");
}

/// While there is work, the worker does not ask when there will be some: the next step finds it.
#[tokio::test(start_paused = true)]
async fn the_next_due_time_is_asked_for_when_nothing_is_claimed() {
    let world = World::at(FCM).await;
    let (_, record) = world.subscriber().await;
    world.service.script(When::any(), Answer::never());
    let (store, push) = tampered(&world).await;
    tokio::spawn(push.run(std::future::pending()));
    // Not as long as from one reading of the schedules to the next.
    sleep(500 * MILLISECOND).await;
    store.take_calls();
    push.enqueue(Audience::id(record.id), Message::new("x"))
        .await
        .unwrap();
    let service = &world.service;
    service.wait_until(|counts| counts.requests == 1).await;
    sleep(10 * MILLISECOND).await;
    let calls = store.take_calls();
    assert!(calls.contains(&"get"), "{calls:?}");
    assert!(!calls.contains(&"next_due"), "{calls:?}");
    assert!(!calls.contains(&"next_fire_at"), "{calls:?}");
    sleep(100 * MILLISECOND).await;
    let calls = store.take_calls();
    let next_due = position(&calls, "next_due");
    assert!(position(&calls, "claim") < next_due, "{calls:?}");
    assert!(calls.contains(&"next_fire_at"), "{calls:?}");
}
