//! Passes that stopped, and those that go on after them.

use std::sync::atomic::AtomicUsize;

use super::test_world::*;
use super::*;
use crate::schedule::NotifyType;
use crate::store::{Change, Failure, MemoryStore, RetireReason, SubscriptionStore};

#[tokio::test]
async fn a_pass_that_stopped_continues_behind_what_the_target_has() {
    let world = World::with_rows(5 * PAGE).await;
    let mut copied = 0;
    for attempt in 0..4 {
        let mut copy = world.copy();
        copy.to.subscriptions = Arc::new(Failing {
            store: world.to.clone(),
            pages: AtomicUsize::new(1),
            loses_answers: false,
            reads: AtomicUsize::new(usize::MAX),
            is_damaged: false,
        });
        let error = copy.pass(|_| {}).await.unwrap_err();
        assert_eq!(error.kind(), CopyErrorKind::Target);
        copied += PAGE as u64;
        let to = Side::new(world.to.clone());
        assert_eq!(to.count(at(0)).await.unwrap(), copied, "{attempt}");
    }
    let report = world.pass().await;
    assert!(report.is_continued && report.is_first);
    assert_eq!(
        (report.read, report.written),
        (5 * PAGE as u64, PAGE as u64)
    );
    world.is_same(0..5 * PAGE).await;
    assert!(world.pass().await.is_unchanged());
}

/// The target has the rows of a page, and the journal does not say so yet.
#[tokio::test]
async fn what_changes_after_a_pass_that_stopped_comes_along_and_reverts_nothing() {
    let world = World::with_rows(6).await;
    let stopped = async || {
        let mut copy = world.copy();
        copy.to.subscriptions = Arc::new(Failing {
            store: world.to.clone(),
            pages: AtomicUsize::new(0),
            loses_answers: true,
            reads: AtomicUsize::new(usize::MAX),
            is_damaged: false,
        });
        copy.pass(|_| {}).await.unwrap_err();
    };
    let users = async || {
        let mut users = Vec::new();
        for number in 0..6 {
            let row = row(&world.to, number).await;
            users.push(row.map(|row| row.principal.map(|user| user.as_str().to_owned())));
        }
        users
    };
    let user = |name: &str| Some(Some(name.to_owned()));
    stopped().await;
    assert_eq!(users().await, vec![Some(None); 6]);
    assign(&world.from, 0, "alice").await;
    assign(&world.to, 1, "bob").await;
    for (store, name) in [(&world.from, "carol"), (&world.to, "dave")] {
        assign(store, 2, name).await;
    }
    unsubscribe(&world.from, 3).await;
    let mut expected = vec![user("alice"), user("bob"), user("dave"), None];
    expected.resize(6, Some(None));
    for _ in 0..2 {
        world.pass().await;
        assert_eq!(users().await, expected);
    }
    assert!(world.pass().await.is_unchanged());
    // A later one, which had assigned before it stopped.
    assign(&world.from, 4, "erin").await;
    subscribe(&world.from, &new(9), at(10)).await;
    stopped().await;
    assign(&world.from, 4, "frank").await;
    assign(&world.from, 5, "grace").await;
    expected[4] = user("frank");
    expected[5] = user("grace");
    for _ in 0..2 {
        world.pass().await;
        assert_eq!(users().await, expected);
    }
    assert!(row(&world.to, 9).await.is_some());
}

/// It is in no page of the source any more, and in no journal but that of what was about to be written.
#[tokio::test]
async fn what_is_assigned_after_a_pass_that_stopped_stays_though_the_row_is_retired() {
    let world = World::with_rows(1).await;
    let mut copy = world.copy();
    copy.to.subscriptions = Arc::new(Failing {
        store: world.to.clone(),
        pages: AtomicUsize::new(0),
        loses_answers: true,
        reads: AtomicUsize::new(usize::MAX),
        is_damaged: false,
    });
    copy.pass(|_| {}).await.unwrap_err();
    assign(&world.to, 0, "bob").await;
    let retire = Change::Retire {
        key: endpoint(0).key(),
        reason: RetireReason::Gone,
        observed_at: at(1),
        failure: Failure::new(Some(410), None),
    };
    world.from.apply(&[retire], at(2)).await.unwrap();
    world.pass().await;
    let row = row(&world.to, 0).await.unwrap();
    assert_eq!(row.principal, Some("bob".into()));
    assert!(row.retired.is_some(), "{row:?}");
}

/// Each time after it has recorded what it is about to write.
#[tokio::test]
async fn a_pass_that_stops_twice_on_one_page_knows_all_that_the_target_may_have() {
    let world = World::with_rows(4).await;
    let stopped = async |writes| {
        let mut copy = world.copy();
        copy.to.subscriptions = Arc::new(Failing {
            store: world.to.clone(),
            pages: AtomicUsize::new(0),
            loses_answers: writes,
            reads: AtomicUsize::new(if writes { usize::MAX } else { 1 }),
            is_damaged: false,
        });
        copy.pass(|_| {}).await.unwrap_err();
    };
    let user = async |number| {
        let row = row(&world.to, number).await;
        row.map(|row| row.principal.map(|user| user.as_str().to_owned()))
    };
    // The target has all of them.
    stopped(true).await;
    assign(&world.from, 0, "alice").await;
    unsubscribe(&world.from, 1).await;
    subscribe(&world.from, &new(2), at(5)).await;
    // It has none of this.
    stopped(false).await;
    assign(&world.from, 0, "frank").await;
    // Now it has a later registration, which leaves the source then.
    stopped(true).await;
    assert!(
        row(&world.to, 2)
            .await
            .is_some_and(|row| row.last_seen_at == at(5))
    );
    unsubscribe(&world.from, 2).await;
    stopped(false).await;
    for _ in 0..2 {
        world.pass().await;
        assert_eq!(user(0).await, Some(Some("frank".to_owned())));
        assert_eq!(user(1).await, None);
        assert_eq!(user(2).await, None);
        assert_eq!(user(3).await, Some(None));
    }
    // The same beside a pass that has ended.
    subscribe(&world.from, &new(3), at(9)).await;
    stopped(true).await;
    unsubscribe(&world.from, 3).await;
    stopped(false).await;
    world.pass().await;
    assert_eq!(user(3).await, None);
}

/// The endpoint has one id in the source and another one in the target, and the pass stops once the row is written.
#[tokio::test]
async fn a_row_whose_id_changes_keeps_its_notifications_when_the_pass_stops() {
    use NotifyType::{DailyCheck, DirectNotification};
    let world = World::new();
    let id = subscribe(&world.from, &new(0), at(0)).await;
    let schedule = daily(id, DailyCheck, 7);
    world.from.put_schedule(&schedule).await.unwrap();
    world.pass().await;
    unsubscribe(&world.to, 0).await;
    let other = subscribe(&world.to, &new(0), at(10)).await;
    assert_ne!(other, id);
    for schedule in [
        daily(other, DailyCheck, 7),
        daily(other, DirectNotification, 8),
    ] {
        world.to.put_schedule(&schedule).await.unwrap();
    }
    world.pass().await;
    assert_eq!(row(&world.to, 0).await.unwrap().id, other);
    // The browser registers with the source again.
    subscribe(&world.from, &new(0), at(20)).await;
    for loses_answers in [false, true] {
        let mut copy = world.copy();
        copy.to.subscriptions = Arc::new(Failing {
            store: world.to.clone(),
            pages: AtomicUsize::new(0),
            loses_answers,
            reads: AtomicUsize::new(usize::MAX),
            is_damaged: false,
        });
        copy.pass(|_| {}).await.unwrap_err();
        let id = row(&world.to, 0).await.unwrap().id;
        assert_eq!(hours(&world.to, id).await, [7, 8], "{loses_answers}");
    }
    world.pass().await;
    assert_eq!(row(&world.to, 0).await.unwrap().id, id);
    assert_eq!(hours(&world.to, id).await, [7, 8]);
    // Without a failure the former id keeps none.
    unsubscribe(&world.to, 0).await;
    let other = subscribe(&world.to, &new(0), at(30)).await;
    let schedule = daily(other, DirectNotification, 8);
    world.to.put_schedule(&schedule).await.unwrap();
    subscribe(&world.from, &new(0), at(40)).await;
    world.pass().await;
    assert_eq!(hours(&world.to, other).await, [0; 0]);
    assert_eq!(hours(&world.to, id).await, [8]);
}

/// When the pass goes on, the target has the row already, as if its user had removed the notifications there.
#[tokio::test]
async fn a_pass_that_stopped_behind_a_row_copies_its_notifications() {
    for user in ["alice", "bob"] {
        let world = World::new();
        let id = of("alice", 0, &world.from, at(0)).await;
        let schedule = daily(id, NotifyType::DailyCheck, 7);
        world.from.put_schedule(&schedule).await.unwrap();
        world.pass().await;
        assert_eq!(hours(&world.to, id).await, [7]);
        if user == "alice" {
            unsubscribe(&world.to, 0).await;
        }
        assert_eq!(of(user, 0, &world.from, at(10)).await, id);
        let schedule = daily(id, NotifyType::DailyCheck, 9);
        world.from.put_schedule(&schedule).await.unwrap();
        let mut copy = world.copy();
        copy.to.subscriptions = Arc::new(Failing {
            store: world.to.clone(),
            pages: AtomicUsize::new(0),
            loses_answers: true,
            reads: AtomicUsize::new(usize::MAX),
            is_damaged: false,
        });
        copy.pass(|_| {}).await.unwrap_err();
        drop(copy);
        let there = row(&world.to, 0).await.unwrap();
        assert_eq!(there.principal, Some(user.into()));
        assert_eq!(hours(&world.to, id).await, [0; 0]);
        world.pass().await;
        assert_eq!(hours(&world.to, id).await, [9], "{user}");
    }
}

/// Also after a first pass that was interrupted.
#[tokio::test]
async fn a_store_that_was_emptied_after_an_interruption_is_refused() {
    for is_source in [true, false] {
        let mut world = World::with_rows(5 * PAGE).await;
        let mut copy = world.copy();
        copy.to.subscriptions = Arc::new(Failing {
            store: world.to.clone(),
            pages: AtomicUsize::new(3),
            loses_answers: false,
            reads: AtomicUsize::new(usize::MAX),
            is_damaged: false,
        });
        copy.pass(|_| {}).await.unwrap_err();
        drop(copy);
        match is_source {
            true => world.from = MemoryStore::new(),
            false => world.to = MemoryStore::new(),
        }
        let error = world.copy().pass(|_| {}).await.unwrap_err();
        assert_eq!(error.kind(), CopyErrorKind::LostRows, "{is_source}");
    }
}
