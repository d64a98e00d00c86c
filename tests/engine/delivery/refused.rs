//! What the store refuses: the outcome of one row, a change of one subscription, or all of them.

use std::future::pending;
use std::sync::Arc;

use tokio::time::sleep;
use tower_web_push::store::StoreErrorKind;
use tower_web_push::subscription::EndpointKey;

use super::order::tampered;
use super::world::*;
use crate::support::tampered_store::TamperedStore;

const SECOND: Duration = Duration::from_secs(1);

fn keys(rows: &[(UserAgent, SubscriptionRecord)]) -> impl Iterator<Item = EndpointKey> {
    let keys = rows
        .iter()
        .map(|(_, row)| row.subscription.endpoint().key());
    keys.collect::<Vec<_>>().into_iter()
}

async fn send(push: &WebPush, to: impl Into<Audience>) -> BroadcastId {
    let queued = push.enqueue(to.into(), Message::new("x")).await;
    queued.unwrap().broadcast
}

fn number_of(calls: &[&str], call: &str) -> usize {
    calls.iter().filter(|name| **name == call).count()
}

/// A worker that runs on the store.
async fn running(world: &World) -> (Arc<TamperedStore>, WebPush) {
    let (store, push) = tampered(world).await;
    tokio::spawn(push.run(pending()));
    sleep(SECOND).await;
    store.take_calls();
    (store, push)
}

/// A constraint that an administrator has added, say, or damage. Wherever it stands in the batch.
#[tokio::test]
async fn the_outcome_of_one_row_that_is_refused_keeps_no_other_from_being_written() {
    for (kind, are_joined) in [
        (StoreErrorKind::Misconfigured, false),
        (StoreErrorKind::Misconfigured, true),
        (StoreErrorKind::Corrupt, false),
        (StoreErrorKind::Corrupt, true),
    ] {
        let world = World::at(FCM).await;
        let rows = world.subscribers(8).await;
        world.prove().await;
        let (store, push) = tampered(&world).await;
        if are_joined {
            store.join_writes();
        }
        for key in keys(&rows) {
            store.refuse("settle", [key], kind);
            let id = send(&push, Audience::All).await;
            push.tick().await.unwrap();
            let counts = world.status(id).await.counts;
            assert_eq!((counts.accepted, counts.pending), (7, 1), "{kind:?}");
            store.refuse_none();
            assert_eq!(push.tick().await.unwrap().attempted, 0);
            world.clock.advance(MINUTE);
            // It is sent again when its lease ends.
            assert_eq!(push.tick().await.unwrap().attempted, 1);
            assert_eq!(world.status(id).await.counts.accepted, 8);
        }
    }
}

/// A permission that was revoked, say. What was sent would be sent again.
#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_all_outcomes_loses_none_and_is_asked_about_once_a_second() {
    for call in ["settle", "settle_with"] {
        let world = World::at(FCM).await;
        let rows = world.subscribers(40).await;
        let (store, push) = running(&world).await;
        if call == "settle_with" {
            store.join_writes();
        }
        store.refuse("settle", keys(&rows), StoreErrorKind::Misconfigured);
        let id = send(&push, Audience::All).await;
        sleep(2 * SECOND).await;
        assert_eq!(world.status(id).await.counts.pending, 40);
        store.take_calls();
        sleep(20 * SECOND).await;
        let calls = store.take_calls();
        let (asked, together) = (
            number_of(&calls, "settle"),
            number_of(&calls, "settle_with"),
        );
        assert!((20..=66).contains(&asked), "{call}: {asked}");
        assert_eq!(together, 0, "{call}");
        store.refuse_none();
        sleep(2 * SECOND).await;
        assert_eq!(world.status(id).await.counts.accepted, 40, "{call}");
        world.clock.advance(MINUTE);
        sleep(10 * SECOND).await;
        assert_eq!(world.asked(), 40, "{call}: none is sent again");
    }
}

/// It is kept until the store takes the outcome of another row, which shows that the store is not at fault.
#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_refused_waits_for_another_one_and_delays_none() {
    let world = World::at(FCM).await;
    let rows = world.subscribers(2).await;
    let (store, push) = running(&world).await;
    store.refuse("settle", keys(&rows[..1]), StoreErrorKind::Misconfigured);
    let refused = send(&push, rows[0].1.id).await;
    sleep(5 * SECOND).await;
    assert_eq!(world.status(refused).await.counts.pending, 1);
    store.take_calls();
    sleep(5 * SECOND).await;
    let asked = number_of(&store.take_calls(), "settle");
    assert!((4..=6).contains(&asked), "{asked}");
    let other = send(&push, rows[1].1.id).await;
    sleep(2 * SECOND).await;
    assert_eq!(world.status(other).await.counts.accepted, 1);
    store.take_calls();
    sleep(5 * SECOND).await;
    assert_eq!(
        number_of(&store.take_calls(), "settle"),
        0,
        "it is left out"
    );
    store.refuse_none();
    world.clock.advance(MINUTE);
    send(&push, rows[1].1.id).await;
    sleep(SECOND).await;
    assert_eq!(world.status(refused).await.counts.accepted, 1, "sent again");
}

/// The next response of a push service says the same of its subscription.
#[tokio::test]
async fn a_change_that_is_refused_keeps_no_other_change_and_no_outcome_from_being_written() {
    for are_joined in [false, true] {
        let world = World::at(FCM).await;
        let rows = world.subscribers(8).await;
        world.prove().await;
        let (store, push) = tampered(&world).await;
        if are_joined {
            store.join_writes();
        }
        let gone = Answer::status(StatusCode::GONE);
        world.service.script(When::any(), gone);
        store.refuse("apply", keys(&rows[4..5]), StoreErrorKind::Misconfigured);
        let id = send(&push, Audience::All).await;
        push.tick().await.unwrap();
        assert_eq!(world.status(id).await.counts.gone, 8);
        for (place, (_, row)) in rows.iter().enumerate() {
            let retired = world.record(row).await.retired;
            assert_eq!(retired.is_some(), place != 4, "{place}");
        }
        store.refuse_none();
        send(&push, Audience::All).await;
        assert_eq!(push.tick().await.unwrap().attempted, 1);
        assert!(world.record(&rows[4].1).await.retired.is_some());
    }
}

/// The application's table, say. Outcomes are written meanwhile.
#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_all_changes_is_asked_about_once_a_second() {
    for are_joined in [false, true] {
        let world = World::at(FCM).await;
        let rows = world.subscribers(200).await;
        let (store, push) = running(&world).await;
        if are_joined {
            store.join_writes();
        }
        store.refuse("apply", keys(&rows), StoreErrorKind::Misconfigured);
        let mut ids = Vec::new();
        for (_, row) in &rows {
            ids.push(send(&push, row.id).await);
            sleep(SECOND / 20).await;
        }
        sleep(SECOND).await;
        let calls = store.take_calls();
        // Three a second, one of which is housekeeping's, and those that have found out.
        let asked = number_of(&calls, "apply") + number_of(&calls, "settle_with");
        assert!((10..=60).contains(&asked), "{asked}");
        for id in ids {
            assert_eq!(world.status(id).await.counts.accepted, 1);
        }
        assert_eq!(world.record(&rows[0].1).await.last_success_at, None);
        store.refuse_none();
        send(&push, rows[0].1.id).await;
        sleep(2 * SECOND).await;
        for (_, row) in &rows {
            assert!(world.record(row).await.last_success_at.is_some());
        }
    }
}

/// An application that takes its steps itself would do none for as long as an outcome is refused.
#[tokio::test]
async fn a_tick_keeps_house_although_its_outcomes_cannot_be_written() {
    let world = World::at(FCM).await;
    world.subscriber().await;
    let (store, push) = tampered(&world).await;
    for kind in [StoreErrorKind::Unavailable, StoreErrorKind::Misconfigured] {
        send(&push, Audience::All).await;
        store.take_calls();
        store.fail_as(kind, "settle");
        push.tick().await.unwrap_err();
        let calls = store.take_calls();
        for call in ["settle", "record_run", "expire", "next_fire_at"] {
            assert!(calls.contains(&call), "{kind:?}: {call}: {calls:?}");
        }
    }
}

/// With nothing in flight, each hint and the end of each chore could cause a step.
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_to_claim_is_asked_about_once_a_second() {
    let world = World::at(FCM).await;
    world.subscriber().await;
    let (store, push) = running(&world).await;
    store.fail("claim");
    for _ in 0..100 {
        store.hint();
        send(&push, Audience::All).await;
        sleep(SECOND / 10).await;
    }
    let claims = number_of(&store.take_calls(), "claim");
    assert!((9..=12).contains(&claims), "{claims}");
    store.fail(None);
    sleep(2 * SECOND).await;
    assert_eq!(world.asked(), 100);
}

/// Chores have pauses of their own.
#[tokio::test(start_paused = true)]
async fn a_chore_that_fails_slows_no_claims() {
    let world = World::at(FCM).await;
    world.subscriber().await;
    let (store, push) = running(&world).await;
    store.fail("record_run");
    sleep(10 * SECOND).await;
    store.take_calls();
    for number in 1..=20 {
        send(&push, Audience::All).await;
        sleep(SECOND / 10).await;
        assert_eq!(world.asked(), number);
    }
}

/// A slow store that refuses is not late.
#[tokio::test(start_paused = true)]
async fn outcomes_that_are_refused_after_a_call_that_took_too_long_stop_no_claims() {
    let world = World::at(FCM).await;
    // While it is in flight, rows are claimed beside the writing of outcomes.
    let (_, silent) = world.subscriber().await;
    let endpoint = silent.subscription.endpoint();
    world
        .service
        .script(When::endpoint(endpoint), Answer::never());
    let rows = world.subscribers(300).await;
    let (store, push) = running(&world).await;
    send(&push, silent.id).await;
    sleep(SECOND).await;
    store.set_commit(SECOND / 20);
    store.delay("settle", 3 * SECOND);
    store.refuse("settle", keys(&rows), StoreErrorKind::Misconfigured);
    for (_, row) in &rows {
        send(&push, row.id).await;
    }
    sleep(300 * SECOND).await;
    assert!(world.asked() > 300, "{}", world.asked());
}
