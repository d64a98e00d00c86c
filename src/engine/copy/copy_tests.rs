use futures_util::FutureExt as _;

use super::test_world::*;
use super::*;
use crate::message::Notification;
use crate::schedule::NotifyType;
use crate::store::{
    Assignment, Change, Cursor, DeliveryLedger as _, Failure, MemoryStore, NewBroadcast,
    NewDelivery, NewSubscription, RetireReason, SubscriptionLimits, SubscriptionStore,
};

#[tokio::test]
async fn rows_in_every_state_come_along_and_a_second_pass_changes_nothing() {
    let world = World::with_rows(3 * PAGE).await;
    let mut changes = Vec::new();
    for number in 0..300 {
        let key = endpoint(number).key();
        let observed_at = at(1);
        let reason = RetireReason::Gone;
        let failure = Failure::new(Some(410), Some("Gone"));
        changes.push(match number % 3 {
            0 => Change::Retire {
                key,
                reason,
                observed_at,
                failure,
            },
            1 => Change::Stale {
                key,
                observed_at,
                failure,
            },
            _ => Change::Failed { key, failure },
        });
    }
    world.from.apply(&changes, at(2)).await.unwrap();
    let mut seen = Vec::new();
    let report = world
        .copy()
        .pass(|report| seen.push(report.read))
        .await
        .unwrap();
    let total = 3 * PAGE as u64;
    assert_eq!(
        (report.total, report.read, report.written),
        (total, total, total)
    );
    assert!(report.is_first && !report.is_continued);
    assert!(seen.is_sorted() && seen.len() > 3, "{seen:?}");
    world.is_same(0..3 * PAGE).await;
    let again = world.pass().await;
    assert!(again.is_unchanged() && !again.is_first, "{again:?}");
    assert_eq!(again.read, total);
}

#[tokio::test]
async fn a_row_that_one_side_deleted_is_deleted_or_stays_deleted() {
    let world = World::with_rows(3 * PAGE).await;
    world.pass().await;
    // More than a page, in one range.
    for number in 0..PAGE + 5 {
        unsubscribe(&world.from, number).await;
    }
    // The last of them has registered with the target since.
    subscribe(&world.to, &new(0), at(10)).await;
    for number in PAGE + 5..PAGE + 9 {
        unsubscribe(&world.to, number).await;
    }
    // The last of those has registered with the source since.
    subscribe(&world.from, &new(PAGE + 5), at(10)).await;
    subscribe(&world.to, &new(9_999), at(10)).await;
    let report = world.pass().await;
    assert_eq!(report.deleted, PAGE as u64 + 4);
    assert_eq!((report.left_out, report.written), (3, 1));
    assert!(row(&world.to, 0).await.is_some());
    assert!(row(&world.to, 1).await.is_none());
    assert!(row(&world.to, PAGE + 5).await.is_some());
    assert!(row(&world.to, PAGE + 6).await.is_none());
    // It was never in the source.
    assert!(row(&world.to, 9_999).await.is_some());
    world.is_same(PAGE + 9..3 * PAGE).await;
    assert!(world.pass().await.is_unchanged());
}

/// More than the journal is asked for at once. One that stayed there has unsubscribed at the target.
#[tokio::test]
async fn a_range_that_the_source_has_lost_is_copied_in_parts() {
    let rows = 5 * PAGE;
    let world = World::with_rows(rows).await;
    world.pass().await;
    let mut numbers: Vec<_> = (0..rows).collect();
    numbers.sort_by_key(|number| endpoint(*number).key());
    let stays = numbers.remove(10);
    for number in &numbers[..2 * PAGE + 9] {
        unsubscribe(&world.from, *number).await;
    }
    unsubscribe(&world.to, stays).await;
    let report = world.pass().await;
    assert_eq!((report.deleted, report.left_out), (2 * PAGE as u64 + 9, 1));
    assert_eq!(row(&world.to, stays).await, None);
    assert!(world.pass().await.is_unchanged());
}

#[tokio::test]
async fn the_later_registration_stays() {
    let world = World::with_rows(4).await;
    world.pass().await;
    let tagged = |number| {
        let mut new = new(number);
        new.tags = Some(["news".parse().unwrap()].into());
        new
    };
    subscribe(&world.from, &tagged(0), at(10)).await;
    subscribe(&world.to, &tagged(1), at(10)).await;
    let key = endpoint(1).key();
    let reason = RetireReason::Gone;
    let retire = Change::Retire {
        key,
        reason,
        observed_at: at(5),
        failure: Failure::new(Some(410), None),
    };
    world.from.apply(&[retire], at(6)).await.unwrap();
    let report = world.pass().await;
    assert_eq!(report.written, 1);
    let (first, second) = (
        row(&world.to, 0).await.unwrap(),
        row(&world.to, 1).await.unwrap(),
    );
    assert_eq!((first.tags.len(), second.tags.len()), (1, 1));
    assert_eq!(second.retired, None);
}

/// An administrator's assignment makes no newer version of a row.
#[tokio::test]
async fn an_assignment_comes_along_and_reverts_none() {
    let world = World::with_rows(5).await;
    world.pass().await;
    for (store, number, user) in [
        (&world.from, 0, "alice"),
        (&world.from, 1, "bob"),
        (&world.to, 1, "carol"),
        (&world.to, 2, "dave"),
        (&world.to, 3, "erin"),
    ] {
        assign(store, number, user).await;
    }
    // A later response in the source.
    let accepted = Change::Accepted(endpoint(3).key());
    world.from.apply(&[accepted], at(6)).await.unwrap();
    let user = async |number| {
        let row = row(&world.to, number).await.unwrap();
        assert_eq!(row.tags.len(), usize::from(row.principal.is_some()));
        row.principal.map(|user| user.as_str().to_owned())
    };
    let expected = [
        Some("alice"),
        Some("carol"),
        Some("dave"),
        Some("erin"),
        None,
    ];
    let report = world.pass().await;
    assert_eq!((report.read, report.written), (5, 2));
    for _ in 0..2 {
        for (number, expected) in expected.iter().enumerate() {
            assert_eq!(user(number).await.as_deref(), *expected, "{number}");
        }
        let written = row(&world.to, 3).await.unwrap();
        assert_eq!(written.last_success_at, Some(at(6)));
        assert!(world.pass().await.is_unchanged());
    }
    // It is taken back.
    let row = row(&world.from, 0).await.unwrap();
    let assignment = Assignment {
        principal: Some(None),
        tags: Some([].into()),
    };
    let new = NewSubscription::assigning(&row, assignment);
    let limits = SubscriptionLimits::default();
    world.from.upsert(&new, &limits, at(7)).await.unwrap();
    assert_eq!(world.pass().await.written, 1);
    assert_eq!(user(0).await, None);
}

/// Its id moves to another endpoint between the passes.
#[tokio::test]
async fn a_renewed_subscription_keeps_its_id_and_its_notifications() {
    let world = World::with_rows(0).await;
    for number in 0..20 {
        let id = subscribe(&world.from, &new(number), at(0)).await;
        let schedule = daily(id, NotifyType::DailyCheck, 7);
        world.from.put_schedule(&schedule).await.unwrap();
    }
    world.pass().await;
    for number in 0..20 {
        let mut renewed = new(number + 100);
        renewed.replaces = Some(endpoint(number).key());
        subscribe(&world.from, &renewed, at(10)).await;
    }
    world.pass().await;
    for number in 0..20 {
        assert_eq!(row(&world.to, number).await, None);
        let renewed = row(&world.to, number + 100).await.unwrap();
        assert_eq!(
            Some(&renewed),
            row(&world.from, number + 100).await.as_ref()
        );
        let schedules = world.to.schedules(Some(renewed.id)).await.unwrap();
        assert_eq!(schedules.len(), 1);
    }
}

/// Its new endpoint is on a later page: the target keeps it until then, with what it has of its own.
#[tokio::test]
async fn a_subscription_that_moves_to_a_later_page_is_not_deleted_in_between() {
    let world = World::new();
    let mut numbers: Vec<_> = (0..2 * PAGE).collect();
    numbers.sort_by_key(|number| endpoint(*number).key());
    let (first, last) = (numbers[0], numbers.pop().unwrap());
    for number in numbers {
        subscribe(&world.from, &new(number), at(0)).await;
    }
    let id = row(&world.from, first).await.unwrap().id;
    world.pass().await;
    let schedule = daily(id, NotifyType::DirectNotification, 8);
    world.to.put_schedule(&schedule).await.unwrap();
    let mut renewed = new(last);
    renewed.replaces = Some(endpoint(first).key());
    assert_eq!(subscribe(&world.from, &renewed, at(10)).await, id);
    let report = world.pass().await;
    assert_eq!(report.deleted, 0);
    assert_eq!(row(&world.to, first).await, None);
    assert_eq!(row(&world.to, last).await.unwrap().id, id);
    assert_eq!(hours(&world.to, id).await, [8]);
}

#[tokio::test]
async fn a_row_that_is_deleted_goes_with_its_notifications() {
    let world = World::with_rows(3).await;
    let id = row(&world.from, 0).await.unwrap().id;
    let schedule = daily(id, NotifyType::DailyCheck, 7);
    world.from.put_schedule(&schedule).await.unwrap();
    world.pass().await;
    assert_eq!(hours(&world.to, id).await, [7]);
    unsubscribe(&world.from, 0).await;
    let report = world.pass().await;
    assert_eq!((report.deleted, report.schedules), (1, 1));
    assert_eq!(hours(&world.to, id).await, [0; 0]);
}

/// Also where the first pass finds it retired.
#[tokio::test]
async fn a_retired_subscription_keeps_its_notifications() {
    let world = World::with_rows(0).await;
    let id = subscribe(&world.from, &new(0), at(0)).await;
    let schedule = daily(id, NotifyType::DailyCheck, 7);
    world.from.put_schedule(&schedule).await.unwrap();
    let (key, reason) = (endpoint(0).key(), RetireReason::Gone);
    let retire = Change::Retire {
        key,
        reason,
        observed_at: at(1),
        failure: Failure::new(Some(410), None),
    };
    world.from.apply(&[retire], at(1)).await.unwrap();
    assert_eq!(world.pass().await.schedules, 1);
    assert_eq!(world.to.schedules(Some(id)).await.unwrap(), [schedule]);
    // Registered again in the target, and without them.
    subscribe(&world.to, &new(0), at(5)).await;
    world.to.remove_schedules(id).await.unwrap();
    assert!(world.pass().await.is_unchanged());
}

#[tokio::test]
async fn keys_come_first_and_a_rotation_comes_along() {
    let world = World::with_rows(1).await;
    let (first, second) = (key(at(0)), key(at(10)));
    world.from.insert(&first).await.unwrap();
    assert_eq!(world.pass().await.vapid_keys, 1);
    assert_eq!(
        world.to.keys().await.unwrap(),
        world.from.keys().await.unwrap()
    );
    world.from.insert(&second).await.unwrap();
    world.pass().await;
    assert_eq!(active(&world.to).await, second.id);
    assert_eq!(world.to.keys().await.unwrap().len(), 2);
    // The target's own rotation stays.
    let own = key(at(5));
    world.to.insert(&own).await.unwrap();
    let report = world.pass().await;
    assert_eq!(report.own_active_key, Some(own.id));
    assert_eq!(active(&world.to).await, own.id);
    assert!(report.is_unchanged());
}

/// A server that uses the target removes keys that no subscription has.
#[tokio::test]
async fn a_key_that_is_removed_before_its_rows_come_is_written_again() {
    let world = World::new();
    let (old, active) = (key(at(0)), key(at(10)));
    world.from.insert(&old).await.unwrap();
    world.from.insert(&active).await.unwrap();
    for number in 0..PAGE + 1 {
        let mut new = new(number);
        new.default_vapid_key = old.id;
        subscribe(&world.from, &new, at(0)).await;
    }
    let copy = world.copy();
    let pass = copy.pass(|report| {
        if report.read <= PAGE as u64 {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let removed = std::pin::pin!(world.to.remove(&old.id)).poll(&mut context);
            assert!(removed.is_ready());
        }
    });
    pass.await.unwrap();
    let there = world.to.keys().await.unwrap();
    assert!(there.iter().any(|key| key.id == old.id && !key.active));
    assert!(there.iter().any(|key| key.id == active.id && key.active));
}

/// A worker that uses the target would take it for one whose key is lost. The source gets the key while it is copied.
#[tokio::test]
async fn no_row_comes_before_its_key() {
    for is_retired in [false, true] {
        let world = World::new();
        world.from.insert(&key(at(0))).await.unwrap();
        let mut copy = world.copy();
        copy.to.subscriptions = Arc::new(Strict(world.to.clone()));
        let mut is_written = false;
        let pass = copy.pass(|_| {
            if std::mem::replace(&mut is_written, true) {
                return;
            }
            let late = async {
                let fresh = key(at(10));
                world.from.insert(&fresh).await.unwrap();
                let mut new = new(0);
                new.default_vapid_key = fresh.id;
                subscribe(&world.from, &new, at(10)).await;
                let retire = Change::Retire {
                    key: endpoint(0).key(),
                    reason: RetireReason::Gone,
                    observed_at: at(11),
                    failure: Failure::new(Some(410), None),
                };
                if is_retired {
                    world.from.apply(&[retire], at(11)).await.unwrap();
                }
            };
            late.now_or_never().unwrap();
        });
        assert_eq!(pass.await.unwrap().written, 1);
        assert!(row(&world.to, 0).await.is_some(), "{is_retired}");
    }
}

/// Else all of its subscribers would be taken for ones who have left.
#[tokio::test]
async fn a_store_that_was_emptied_is_refused() {
    for is_source in [true, false] {
        let mut world = World::with_rows(10).await;
        world.pass().await;
        match is_source {
            true => world.from = MemoryStore::new(),
            false => world.to = MemoryStore::new(),
        }
        let error = world.copy().pass(|_| {}).await.unwrap_err();
        assert_eq!(error.kind(), CopyErrorKind::LostRows);
        let kept = if is_source { &world.to } else { &world.from };
        assert!(row(kept, 3).await.is_some());
    }
}

/// As a server does that acknowledged them before they were on its disk.
#[tokio::test]
async fn rows_that_the_target_has_lost_are_not_taken_for_unsubscribed() {
    let world = World::with_rows(3 * PAGE).await;
    world.pass().await;
    let mut numbers: Vec<_> = (0..3 * PAGE).collect();
    numbers.sort_by_key(|number| endpoint(*number).key());
    // Of the first page.
    for number in &numbers[..PAGE / 2 + 1] {
        unsubscribe(&world.to, *number).await;
    }
    let error = world.copy().pass(|_| {}).await.unwrap_err();
    assert_eq!(error.kind(), CopyErrorKind::LostRows);
    for name in ["journal", "journal.part"] {
        std::fs::remove_file(world.folder.path().join(name)).unwrap();
    }
    world.pass().await;
    world.is_same(0..3 * PAGE).await;
    // Half of a page may have left.
    for number in &numbers[..PAGE / 2] {
        unsubscribe(&world.to, *number).await;
    }
    assert_eq!(world.pass().await.left_out, PAGE as u64 / 2);
}

#[tokio::test]
async fn who_leaves_the_source_leaves_a_target_with_a_later_registration_of_before() {
    let world = World::with_rows(1).await;
    subscribe(&world.to, &new(0), at(5)).await;
    world.pass().await;
    unsubscribe(&world.from, 0).await;
    assert_eq!(world.pass().await.deleted, 1);
    assert_eq!(row(&world.to, 0).await, None);
}

#[tokio::test]
async fn a_row_that_is_written_again_gets_its_notifications_again() {
    let world = World::new();
    let id = subscribe(&world.from, &new(0), at(0)).await;
    let schedule = daily(id, NotifyType::DailyCheck, 7);
    world.from.put_schedule(&schedule).await.unwrap();
    world.pass().await;
    unsubscribe(&world.to, 0).await;
    subscribe(&world.from, &new(0), at(10)).await;
    assert_eq!(world.pass().await.schedules, 1);
    assert_eq!(world.to.schedules(Some(id)).await.unwrap(), [schedule]);
}

#[tokio::test]
async fn a_later_registration_in_the_target_keeps_its_notifications() {
    let world = World::new();
    let id = subscribe(&world.from, &new(0), at(0)).await;
    let schedule = daily(id, NotifyType::DailyCheck, 7);
    world.from.put_schedule(&schedule).await.unwrap();
    world.pass().await;
    subscribe(&world.to, &new(0), at(10)).await;
    world.from.remove_schedules(id).await.unwrap();
    assert!(world.pass().await.is_unchanged());
    assert_eq!(world.to.schedules(Some(id)).await.unwrap(), [schedule]);
}

#[tokio::test]
async fn a_row_that_is_retired_and_stale_counts_once() {
    let world = World::with_rows(2).await;
    let (key, observed_at) = (endpoint(0).key(), at(1));
    let failure = Failure::new(Some(410), None);
    let stale = Change::Stale {
        key,
        observed_at,
        failure,
    };
    let retire = Change::Retire {
        key,
        reason: RetireReason::Gone,
        observed_at,
        failure,
    };
    world.from.apply(&[stale, retire], at(2)).await.unwrap();
    let there = row(&world.from, 0).await.unwrap();
    assert!(there.stale_since.is_some() && there.retired.is_some());
    let report = world.pass().await;
    assert_eq!((report.total, report.read, report.written), (2, 2, 2));
}

#[tokio::test]
async fn all_pages_of_retired_and_stale_rows_come_along() {
    let rows = 4 * PAGE + 6;
    let world = World::with_rows(rows).await;
    let (observed_at, failure) = (at(1), Failure::new(Some(410), None));
    let changes: Vec<_> = (0..rows)
        .map(|number| match (endpoint(number).key(), number % 2) {
            (key, 0) => Change::Stale {
                key,
                observed_at,
                failure,
            },
            (key, _) => Change::Retire {
                key,
                reason: RetireReason::Gone,
                observed_at,
                failure,
            },
        })
        .collect();
    world.from.apply(&changes, at(2)).await.unwrap();
    assert_eq!(world.pass().await.written, rows as u64);
    world.is_same(0..rows).await;
}

/// An operator who switches off the source has to know of them.
#[tokio::test]
async fn messages_that_are_pending_in_the_source_are_reported() {
    let world = World::with_rows(2).await;
    let deadline = at(4_000_000_000);
    let message = Notification::new("hello").into();
    let broadcast = NewBroadcast::new(Audience::All, message, deadline);
    world.from.open(&broadcast, at(0)).await.unwrap();
    let rows: Vec<_> = (0..2)
        .map(|number| NewDelivery::new(endpoint(number).key(), endpoint(number).origin().clone()))
        .collect();
    let (start, end) = (Cursor::Start, Cursor::End);
    let page = world
        .from
        .enqueue_page(broadcast.id, &start, &rows, &end, at(0));
    page.await.unwrap();
    assert_eq!(world.pass().await.pending, 2);
    world.from.cancel(broadcast.id, at(0)).await.unwrap();
    assert_eq!(world.pass().await.pending, 0);
}

/// Browsers subscribe with it.
#[tokio::test]
async fn a_target_with_keys_keeps_its_active_key() {
    let world = World::new();
    let (own, theirs) = (key(at(0)), key(at(10)));
    world.to.insert(&own).await.unwrap();
    world.from.insert(&theirs).await.unwrap();
    let report = world.pass().await;
    assert_eq!(active(&world.to).await, own.id);
    assert_eq!(world.to.keys().await.unwrap().len(), 2);
    assert_eq!(
        (report.own_active_key, report.vapid_keys),
        (Some(own.id), 1)
    );
}

/// Servers may have a higher limit than the default.
#[tokio::test]
async fn an_assignment_removes_no_other_device_of_the_user() {
    let world = World::new();
    let limits = SubscriptionLimits::new(u64::MAX, u32::MAX).with_unproven(u64::MAX);
    for number in 0..=40 {
        let mut new = new(number);
        new.principal = (number < 40).then(|| "alice".into());
        world.from.upsert(&new, &limits, at(0)).await.unwrap();
    }
    world.pass().await;
    let assignment = Assignment {
        principal: Some(Some("alice".into())),
        tags: None,
    };
    let unowned = row(&world.from, 40).await.unwrap();
    let new = NewSubscription::assigning(&unowned, assignment);
    world.from.upsert(&new, &limits, at(1)).await.unwrap();
    assert_eq!(world.pass().await.written, 1);
    for number in 0..=40 {
        let row = row(&world.to, number).await.unwrap();
        assert_eq!(row.principal, Some("alice".into()), "{number}");
    }
}
