//! Each step of the worker fails alone.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tower_web_push::schedule::{DailyTime, ScheduleLabel};
use tower_web_push::store::{OutboxEntry, StoreErrorKind};

use super::order::tampered;
use super::world::*;
use crate::support::tampered_store::TamperedStore;

#[tokio::test]
async fn a_store_that_is_down_is_not_asked_for_a_page_of_each_broadcast() {
    let world = World::at(FCM).await;
    world.subscriber().await;
    let (store, push) = tampered(&world).await;
    for _ in 0..20 {
        let queued = push.enqueue(Audience::All, Message::new("x"));
        queued.await.unwrap();
    }
    store.take_calls();
    store.fail("page");
    push.tick().await.unwrap_err();
    let calls = store.take_calls();
    let pages = calls.iter().filter(|call| **call == "page").count();
    assert!((1..=8).contains(&pages), "{calls:?}");
}

/// A failure that is about one entry only is none of the step: the entry is put off.
#[tokio::test]
async fn an_outbox_that_cannot_be_written_is_a_failure_of_the_store() {
    let world = World::at(FCM).await;
    let (store, push) = tampered(&world).await;
    let message = r#"{"title":"x"}"#;
    store.write_entry(OutboxEntry::new(
        1,
        BroadcastId::random(),
        r#""all""#,
        message,
        "{}",
    ));
    store.fail("settle_outbox");
    push.tick().await.unwrap_err();
    assert!(store.take_calls().contains(&"settle_outbox"));
    store.fail_as(StoreErrorKind::Full, "settle_outbox");
    push.tick().await.unwrap();
    // One call with all, and one for it alone.
    let calls = store.take_calls();
    let settled = calls.iter().filter(|call| **call == "settle_outbox");
    assert_eq!(settled.count(), 2);
}

/// They still are in the outbox until its transaction ends.
#[tokio::test]
async fn entries_that_another_process_is_settling_are_looked_at_once() {
    let world = World::at(FCM).await;
    let (store, push) = tampered(&world).await;
    for seq in 0..150 {
        let (id, message) = (BroadcastId::random(), r#"{"title":"x"}"#);
        store.write_entry(OutboxEntry::new(seq, id, r#""all""#, message, "{}"));
    }
    push.tick().await.unwrap();
    let calls = store.take_calls();
    let looks = calls.iter().filter(|call| **call == "outbox");
    assert_eq!(looks.count(), 1);
}

/// A row that waits for its second attempt is delivered whatever the other steps do.
#[tokio::test(start_paused = true)]
async fn deliveries_continue_while_another_step_fails_or_hangs() {
    for call in [
        "pauses",
        "expandable",
        "page",
        "record_run",
        "next_fire_at",
        "due_schedules",
        "expire",
        "prune",
        "keys",
    ] {
        for hangs in [false, true] {
            let world = World::at(FCM).await;
            world.subscriber().await;
            let busy = Answer::status(StatusCode::SERVICE_UNAVAILABLE);
            world.service.script(When::any().times(1), busy);
            let waiting = world.enqueue().await;
            world.settle().await;
            let counts = world.status(waiting).await.counts;
            assert_eq!(counts.pending, 1, "{counts:?}, {call}");
            if call == "due_schedules" {
                let label = ScheduleLabel::parse("daily").unwrap();
                let time = DailyTime::new(9, 0).unwrap();
                let daily = Message::new("daily");
                let scheduled = world.push.schedule(label, time, Audience::All, daily);
                scheduled.await.unwrap();
            }
            let store = Arc::new(TamperedStore::over(&world.store));
            let push = world
                .replica_with(|builder| builder.store(Arc::clone(&store)))
                .await;
            let (stop, stopped) = oneshot::channel::<()>();
            let run = tokio::spawn(push.run(async { stopped.await.unwrap_or_default() }));
            while !store.take_calls().contains(&"claim") {
                sleep(Duration::from_millis(10)).await;
            }
            if hangs {
                store.hang(call);
            } else {
                store.fail(call);
            }
            world.clock.advance(120 * MINUTE);
            let queued = push.enqueue(Audience::All, Message::new("y")).await;
            let unreadable = queued.unwrap().broadcast;
            let accepted = async {
                while world.status(waiting).await.counts.accepted == 0 {
                    sleep(Duration::from_millis(100)).await;
                }
            };
            let within = timeout(MINUTE, accepted).await;
            assert!(within.is_ok(), "{call}, hangs: {hangs}");

            store.hang(None);
            store.fail(None);
            let accepted = async {
                while world.status(unreadable).await.counts.accepted == 0 {
                    sleep(Duration::from_millis(100)).await;
                    world.clock.advance(Duration::from_millis(100));
                }
            };
            let within = timeout(5 * MINUTE, accepted).await;
            assert!(within.is_ok(), "{call} works again, hangs: {hangs}");
            drop(stop);
            run.await.unwrap().unwrap();
        }
    }
}
