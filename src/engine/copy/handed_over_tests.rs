//! Daily notifications of browsers that changed hands are not the next user's.

use std::sync::atomic::AtomicUsize;

use super::test_world::*;
use super::*;
use crate::schedule::NotifyType;
use crate::store::{Change, Failure, RetireReason, SubscriptionStore};

/// A user's text would be shown to the next user of the browser.
#[tokio::test]
async fn who_takes_over_a_browser_gets_no_notifications_of_the_former_user() {
    use NotifyType::{DailyCheck, DirectNotification};
    for (here, there, left) in [(0, 10, false), (20, 10, true)] {
        let world = World::new();
        // The other order of ids: one row of alice, which bob has taken over in the other store.
        let theirs = of(if left { "bob" } else { "alice" }, 0, &world.from, at(here)).await;
        let ours = of(if left { "alice" } else { "bob" }, 0, &world.to, at(there)).await;
        assert_ne!(theirs, ours);
        let of_alice = if left {
            (&world.to, ours)
        } else {
            (&world.from, theirs)
        };
        let schedule = daily(of_alice.1, DailyCheck, 7);
        of_alice.0.put_schedule(&schedule).await.unwrap();
        for _ in 0..2 {
            world.pass().await;
            for id in [theirs, ours] {
                assert_eq!(hours(&world.to, id).await, [0; 0], "{left}");
            }
        }
        // Bob's own, of the same type, comes along, and stays.
        let id = subscribe(&world.from, &new(0), at(30)).await;
        let _ = of("bob", 0, &world.from, at(31)).await;
        world.from.remove_schedules(id).await.unwrap();
        for hour in [8, 9] {
            for notify_type in [DailyCheck, DirectNotification] {
                let schedule = daily(id, notify_type, hour);
                world.from.put_schedule(&schedule).await.unwrap();
            }
            world.pass().await;
            assert_eq!(hours(&world.to, id).await, [hour, hour], "{left}");
        }
    }
}

/// The former user's are in both stores before.
#[tokio::test]
async fn a_browser_that_changes_hands_between_the_passes_keeps_no_notifications() {
    for in_source in [true, false] {
        let world = World::new();
        let id = of("alice", 0, &world.from, at(0)).await;
        let schedule = daily(id, NotifyType::DailyCheck, 7);
        world.from.put_schedule(&schedule).await.unwrap();
        world.pass().await;
        assert_eq!(hours(&world.to, id).await, [7]);
        let taken = if in_source { &world.from } else { &world.to };
        assert_eq!(of("bob", 0, taken, at(10)).await, id);
        taken.remove_schedules(id).await.unwrap();
        world.pass().await;
        assert_eq!(hours(&world.to, id).await, [0; 0], "{in_source}");
        // What bob has set in the target is not taken for alice's.
        if in_source {
            continue;
        }
        let own = daily(id, NotifyType::DailyCheck, 9);
        world.to.put_schedule(&own).await.unwrap();
        world.pass().await;
        of("bob", 0, &world.from, at(20)).await;
        world.from.remove_schedules(id).await.unwrap();
        world.pass().await;
        assert_eq!(hours(&world.to, id).await, [9]);
    }
}

/// Its id stays, with another user and another endpoint. It may be retired since.
#[tokio::test]
async fn a_subscription_that_another_user_renewed_keeps_no_notifications() {
    for is_retired in [false, true] {
        let world = World::new();
        let id = of("alice", 0, &world.from, at(0)).await;
        world.pass().await;
        let schedule = daily(id, NotifyType::DailyCheck, 7);
        world.to.put_schedule(&schedule).await.unwrap();
        let mut renewed = new(1);
        renewed.principal = Some("bob".into());
        renewed.replaces = Some(endpoint(0).key());
        assert_eq!(subscribe(&world.from, &renewed, at(10)).await, id);
        if is_retired {
            let retire = Change::Retire {
                key: endpoint(1).key(),
                reason: RetireReason::Gone,
                observed_at: at(11),
                failure: Failure::new(Some(410), None),
            };
            world.from.apply(&[retire], at(11)).await.unwrap();
        }
        world.pass().await;
        assert_eq!(row(&world.to, 1).await.unwrap().id, id);
        assert_eq!(hours(&world.to, id).await, [0; 0], "{is_retired}");
    }
}

/// A row that the target does not take, since its endpoint has a newer one there, leaves the other row of its id alone.
#[tokio::test]
async fn a_retired_row_that_is_not_written_gives_no_notifications() {
    let world = World::new();
    let id = of("alice", 0, &world.from, at(0)).await;
    world.pass().await;
    let mut renewed = new(1);
    renewed.principal = Some("bob".into());
    renewed.replaces = Some(endpoint(0).key());
    subscribe(&world.from, &renewed, at(10)).await;
    let schedule = daily(id, NotifyType::DailyCheck, 7);
    world.from.put_schedule(&schedule).await.unwrap();
    let retire = Change::Retire {
        key: endpoint(1).key(),
        reason: RetireReason::Gone,
        observed_at: at(11),
        failure: Failure::new(Some(410), None),
    };
    world.from.apply(&[retire], at(11)).await.unwrap();
    of("bob", 1, &world.to, at(30)).await;
    world.pass().await;
    assert_eq!(
        row(&world.to, 0).await.and_then(|row| row.principal),
        Some("alice".into())
    );
    assert_eq!(hours(&world.to, id).await, [0; 0]);
}

/// As one user, or none, has it in both stores. An administrator's assignment hands nothing over.
#[tokio::test]
async fn notifications_of_one_user_follow_the_later_registration() {
    for user in [None, Some("alice")] {
        let world = World::new();
        let mut new = new(0);
        new.principal = user.map(Into::into);
        let theirs = subscribe(&world.from, &new, at(20)).await;
        let ours = subscribe(&world.to, &new, at(10)).await;
        let schedule = daily(ours, NotifyType::DailyCheck, 7);
        world.to.put_schedule(&schedule).await.unwrap();
        world.pass().await;
        assert_eq!(hours(&world.to, theirs).await, [7]);
        assign(&world.from, 0, "carol").await;
        world.pass().await;
        assert_eq!(hours(&world.to, theirs).await, [7]);
    }
}

/// A browser that registers again without a user keeps that of its row.
#[tokio::test]
async fn a_later_registration_without_a_user_keeps_the_notifications() {
    for in_source in [true, false] {
        let world = World::new();
        let (with, without) = match in_source {
            true => (&world.from, &world.to),
            false => (&world.to, &world.from),
        };
        let id = of("alice", 0, with, at(0)).await;
        let schedule = daily(id, NotifyType::DailyCheck, 7);
        with.put_schedule(&schedule).await.unwrap();
        subscribe(without, &new(0), at(10)).await;
        // Also by later passes.
        for _ in 0..2 {
            world.pass().await;
            let there = row(&world.to, 0).await.unwrap();
            match in_source {
                // The target's row is the later one, and has no user: the next one who signs in is not alice.
                true => {
                    assert_eq!(there.principal, None);
                    assert_eq!(hours(&world.to, there.id).await, [0; 0]);
                }
                false => {
                    assert_eq!(there.principal, Some("alice".into()));
                    assert_eq!(hours(&world.to, there.id).await, [7]);
                }
            }
        }
    }
}

/// In both stores, between two passes: nothing of the former user is taken for known.
#[tokio::test]
async fn the_next_user_in_both_stores_keeps_their_notifications() {
    for (in_source, in_target) in [(12, 11), (11, 12)] {
        for is_in_source in [true, false] {
            let world = World::new();
            let id = of("alice", 0, &world.from, at(0)).await;
            let schedule = daily(id, NotifyType::DailyCheck, 7);
            world.from.put_schedule(&schedule).await.unwrap();
            world.pass().await;
            assert_eq!(hours(&world.to, id).await, [7]);
            for (store, seen) in [(&world.from, in_source), (&world.to, in_target)] {
                store.remove_schedules(id).await.unwrap();
                of("bob", 0, store, at(seen)).await;
            }
            let store = if is_in_source { &world.from } else { &world.to };
            let theirs = row(store, 0).await.unwrap().id;
            let schedule = daily(theirs, NotifyType::DailyCheck, 9);
            store.put_schedule(&schedule).await.unwrap();
            world.pass().await;
            let there = row(&world.to, 0).await.unwrap();
            assert_eq!(hours(&world.to, there.id).await, [9]);
        }
    }
}

/// One of the rows that it would replace is newer, and all of them stay.
#[tokio::test]
async fn a_row_that_the_target_does_not_take_removes_no_notifications() {
    for is_retired in [false, true] {
        let world = World::new();
        let id = of("bob", 0, &world.from, at(20)).await;
        // Those of its endpoint and of its id: alice's is the older one.
        let mut there = [row(&world.from, 0).await.unwrap(), new_row(0)];
        there[0].subscription = new(1).subscription;
        if is_retired {
            let retire = Change::Retire {
                key: endpoint(0).key(),
                reason: RetireReason::Gone,
                observed_at: at(21),
                failure: Failure::new(Some(410), None),
            };
            world.from.apply(&[retire], at(21)).await.unwrap();
        }
        let (older, newer) = match is_retired {
            true => (0, 1),
            false => (1, 0),
        };
        there[older].last_seen_at = at(10);
        there[older].principal = Some("alice".into());
        there[newer].last_seen_at = at(30);
        world.to.put(&there).await.unwrap();
        let schedule = daily(there[older].id, NotifyType::DailyCheck, 7);
        world.to.put_schedule(&schedule).await.unwrap();
        world.pass().await;
        let ids = there.iter().map(|row| row.id.into()).collect::<Vec<_>>();
        let left = world.to.get(&ids).await.unwrap();
        assert_eq!(left, there.clone().map(Some), "{is_retired}");
        assert!(there.iter().any(|row| row.id == id));
        assert_eq!(hours(&world.to, there[older].id).await, [7], "{is_retired}");
    }
}

/// Nothing tells whose those are.
#[tokio::test]
async fn notifications_of_a_row_that_is_missing_or_unreadable_do_not_pass_to_that_of_the_source() {
    use NotifyType::{DailyCheck, DirectNotification};
    for is_damaged in [false, true] {
        let world = World::new();
        let id = of("alice", 0, &world.from, at(0)).await;
        let schedule = daily(id, DailyCheck, 7);
        world.from.put_schedule(&schedule).await.unwrap();
        world.pass().await;
        let schedule = daily(id, DirectNotification, 8);
        world.to.put_schedule(&schedule).await.unwrap();
        if !is_damaged {
            let there = row(&world.to, 0).await.unwrap();
            let deletion = [Change::delete(&there)];
            world.to.apply(&deletion, at(5)).await.unwrap();
        }
        assert_eq!(of("bob", 0, &world.from, at(10)).await, id);
        let schedule = daily(id, DailyCheck, 9);
        world.from.put_schedule(&schedule).await.unwrap();
        let mut copy = world.copy();
        copy.to.subscriptions = Arc::new(Failing {
            store: world.to.clone(),
            pages: AtomicUsize::new(usize::MAX),
            loses_answers: false,
            reads: AtomicUsize::new(usize::MAX),
            is_damaged,
        });
        copy.pass(|_| {}).await.unwrap();
        assert_eq!(hours(&world.to, id).await, [9], "{is_damaged}");
    }
}

/// When it is repeated, nothing tells any more that they were those of another user.
#[tokio::test]
async fn a_restoration_that_stopped_behind_a_row_leaves_none_of_the_former_user() {
    let world = World::new();
    let id = of("alice", 0, &world.to, at(0)).await;
    let schedule = daily(id, NotifyType::DailyCheck, 7);
    world.to.put_schedule(&schedule).await.unwrap();
    let mut bob = row(&world.to, 0).await.unwrap();
    bob.principal = Some("bob".into());
    bob.last_seen_at = at(10);
    world.from.put(&[bob.clone()]).await.unwrap();
    let mut file = Vec::new();
    let exported = export(world.from.clone(), &mut file, Secrets::Included, |_| {});
    exported.await.unwrap();
    let mut lines = std::io::Cursor::new(file);
    let mut to = Side::new(world.to.clone());
    to.subscriptions = Arc::new(Failing {
        store: world.to.clone(),
        pages: AtomicUsize::new(0),
        loses_answers: true,
        reads: AtomicUsize::new(usize::MAX),
        is_damaged: false,
    });
    let into = RestoreInto::Existing;
    let stopped = restore::restore_to(&to, &mut lines, into, |_| {}).await;
    assert_eq!(stopped.unwrap_err().kind(), CopyErrorKind::Target);
    lines.set_position(0);
    let report = restore(world.to.clone(), &mut lines, into, |_| {}).await;
    assert_eq!(report.unwrap().subscriptions, 0);
    assert_eq!(row(&world.to, 0).await, Some(bob));
    assert_eq!(hours(&world.to, id).await, [0; 0]);
}
