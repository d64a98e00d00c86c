//! `WebPush::import` repeated, and beside changes here: after any interruption the next run completes it.

use std::collections::BTreeSet;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use tower_web_push::clock::Timestamp;
use tower_web_push::import::ImportedSubscription;
use tower_web_push::schedule::{NotifyType, ScheduleName};
use tower_web_push::store::{
    Change, Failure, NewSubscription, RetireReason, ScheduleStore as _, StoreErrorKind,
    SubscriptionLimits, SubscriptionStore as _,
};
use tower_web_push::subscription::SubscriptionId;
use tower_web_push::vapid::{KeyId, VapidKey};

use super::world::{
    EIGHT, HOUR, Meddled, World, counts, daily, endpoint, imported, of_type, subscription, tag,
};

#[tokio::test]
async fn a_second_run_changes_nothing() {
    let world = World::new().await;
    let rows = || {
        (0..70).map(|number| {
            let mut row = imported(number);
            row.principal = (number % 3 == 0).then(|| format!("user {number}").into());
            row.daily = iter::repeat_n(daily(9, "x"), (number % 2) as usize).collect();
            row
        })
    };
    let first = world.import(rows()).await;
    assert_eq!(counts(first.report()), [70, 0, 0, 0, 0]);
    assert_eq!(first.report().daily, 35);
    let before = world.content().await;
    assert_eq!((before.rows.len(), before.schedules.len()), (70, 35));

    world.clock.advance(30 * HOUR);
    let second = world.import(rows()).await;
    assert_eq!(counts(second.report()), [0, 0, 70, 0, 0]);
    assert_eq!(world.content().await, before);
}

#[tokio::test]
async fn changes_since_the_first_run_stay() {
    let world = World::new().await;
    let rows = || {
        (1..=6).map(|number| {
            let mut row = imported(number);
            row.id = Some(SubscriptionId::from_bytes([number as u8; 16]));
            row.principal = Some("alice".into());
            row.tags = BTreeSet::from([tag("news")]);
            // A removed subscription needs no daily notification.
            row.daily = vec![daily(9, "x"); usize::from(number == 4)];
            row
        })
    };
    world.import(rows()).await;
    let gone = world.row(4).await.unwrap().id;
    assert_eq!(world.store.remove_schedules(gone).await.unwrap(), 1);
    world.clock.advance(HOUR);
    // Other tags, and another user.
    let default = world.push.vapid_public_key().id();
    let mut new = NewSubscription::new(subscription(1, 1), default);
    new.tags = Some(BTreeSet::new());
    new.principal = Some("bob".into());
    world.subscribe(&new).await;
    // Other keys.
    let mut new = NewSubscription::new(subscription(2, 9), default);
    new.principal = Some("alice".into());
    world.subscribe(&new).await;
    // Renewed: the id moves to the new endpoint.
    let mut new = NewSubscription::new(subscription(20, 9), default);
    new.replaces = Some(endpoint(3).key());
    world.subscribe(&new).await;
    // Gone, stale, failed.
    let now = EIGHT + HOUR;
    let changes = [
        Change::Retire {
            key: endpoint(4).key(),
            reason: RetireReason::Gone,
            observed_at: now,
            failure: Failure::default(),
        },
        Change::Stale {
            key: endpoint(5).key(),
            observed_at: now,
            failure: Failure::default(),
        },
        Change::Failed {
            key: endpoint(6).key(),
            failure: Failure::default(),
        },
    ];
    assert_eq!(world.store.apply(&changes, now).await.unwrap(), 3);

    let before = world.content().await;
    let again = world.import(rows()).await;
    assert_eq!(counts(again.report()), [0, 0, 3, 3, 0]);
    assert_eq!(world.content().await, before);
    assert_eq!(world.row(3).await, None);
}

#[tokio::test]
async fn a_missing_daily_notification_is_added_and_a_stored_one_stays() {
    let world = World::new().await;
    let default = world.push.vapid_public_key().id();
    // A page that subscribed here before the import, without its daily notification ...
    let here = world
        .subscribe(&NewSubscription::new(subscription(1, 1), default))
        .await;
    let mut row = imported(1);
    row.daily = vec![daily(9, "theirs")];
    let import = world.import([row.clone()]).await;
    assert_eq!(counts(import.report()), [0, 1, 0, 0, 0]);
    assert_eq!(import.report().daily, 1);
    // ... stays as it is.
    assert_eq!(world.row(1).await, Some(here.clone()));

    // The stored time and text differ; only the other type is new.
    row.daily = vec![
        daily(10, "changed"),
        of_type(NotifyType::DailyCheck, 11, ""),
    ];
    let import = world.import([row.clone()]).await;
    assert_eq!(counts(import.report()), [0, 1, 0, 0, 0]);
    let schedules = world.store.schedules(Some(here.id)).await.unwrap();
    let hours: Vec<_> = schedules
        .iter()
        .map(|schedule| schedule.time.hour())
        .collect();
    assert_eq!(hours, [11, 9]);

    // Stored under another id, or for another user.
    let mut other = row.clone();
    other.id = Some(SubscriptionId::random());
    let import = world.import([other]).await;
    assert_eq!(counts(import.report()), [0, 0, 0, 1, 0]);
    let mut other = row.clone();
    other.principal = Some("alice".into());
    let import = world.import([other]).await;
    assert_eq!(counts(import.report()), [0, 0, 0, 1, 0]);

    // A daily notification that was removed here is imported again: removals are not remembered.
    let name = ScheduleName::Subscriber(here.id, NotifyType::DailyCheck);
    assert!(world.store.remove_schedule(&name).await.unwrap());
    let import = world.import([row]).await;
    assert_eq!(counts(import.report()), [0, 1, 0, 0, 0]);
}

#[tokio::test]
async fn an_interrupted_import_is_finished_by_the_next() {
    let rows = || {
        (0..90).map(|number| {
            let mut row = imported(number);
            row.id = Some(SubscriptionId::from_bytes([number as u8; 16]));
            row.daily = vec![daily(9, "x")];
            row
        })
    };
    let whole = World::new().await;
    whole.import(rows()).await;
    let mut expected = whole.content().await;

    let left = Arc::new(AtomicU32::new(0));
    let hook = {
        let left = Arc::clone(&left);
        move || {
            let step = |left: u32| left.checked_sub(1);
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step)
                .map(|_| None)
                .map_err(|_| StoreErrorKind::Unavailable.into())
        }
    };
    let world =
        World::with(|store, builder| builder.subscriptions(Meddled::new(store, hook))).await;
    let mut runs = 0;
    loop {
        left.store(7, Ordering::Relaxed);
        let mut import = world.push.import();
        runs += 1;
        match import.add(rows().map(Ok)).await {
            Ok(()) => break,
            Err(error) => assert_eq!(error.kind(), StoreErrorKind::Unavailable),
        }
    }
    assert!(runs > 12, "{runs}");
    let mut content = world.content().await;
    (expected.keys, content.keys) = (Vec::new(), Vec::new());
    let default = world.push.vapid_public_key().id();
    for row in &mut expected.rows {
        row.vapid_key = default;
    }
    assert_eq!(content, expected);
}

#[tokio::test]
async fn a_dropped_import_is_finished_by_the_next() {
    let rows = || {
        (0..90).map(|number| {
            let mut row = imported(number);
            row.daily = vec![daily(9, "x")];
            Ok(row)
        })
    };
    let mut halfway = 0;
    for polls in 1.. {
        let world =
            World::with(|store, builder| builder.subscriptions(Meddled::new(store, || Ok(None))))
                .await;
        let mut import = world.push.import();
        let is_finished = {
            let mut dropped = Box::pin(import.add(rows()));
            let mut is_finished = false;
            for _ in 0..polls {
                is_finished = (&mut dropped).now_or_never().is_some();
                if is_finished {
                    break;
                }
                tokio::task::yield_now().await;
            }
            is_finished
        };
        let content = world.content().await;
        halfway += u32::from(content.schedules.len() < content.rows.len());
        let mut import = world.push.import();
        import.add(rows()).await.unwrap();
        let content = world.content().await;
        assert_eq!((content.rows.len(), content.schedules.len()), (90, 90));
        if is_finished {
            break;
        }
    }
    assert!(
        halfway > 0,
        "no row was ever without its daily notification"
    );
}

#[tokio::test]
async fn a_page_that_subscribes_at_the_same_time_wins() {
    for (auth, expected) in [(1, [0, 1, 0, 0, 0]), (9, [0, 0, 0, 1, 0])] {
        let mut meddle = Some(());
        let hook = move || {
            let other = meddle.take().map(|()| {
                let default = KeyId::from_bytes([3; KeyId::LEN]);
                let mut new = NewSubscription::new(subscription(1, auth), default);
                new.principal = Some("alice".into());
                new.tags = Some(BTreeSet::from([tag("hers")]));
                new
            });
            Ok(other)
        };
        let world =
            World::with(|store, builder| builder.subscriptions(Meddled::new(store, hook))).await;
        let mut row = imported(1);
        // Of the same user, who could change its keys.
        row.principal = Some("alice".into());
        row.created_at = Some(EIGHT - HOUR);
        row.daily = vec![daily(9, "x")];
        let import = world.import([row]).await;
        assert_eq!(counts(import.report()), expected);
        let stored = world.row(1).await.unwrap();
        assert_eq!(stored.subscription, subscription(1, auth));
        assert_eq!(stored.tags, BTreeSet::from([tag("hers")]));
        assert_eq!(stored.vapid_key, KeyId::from_bytes([3; KeyId::LEN]));
        assert_eq!(stored.last_seen_at, EIGHT);
    }
}

#[tokio::test]
async fn a_dry_run_reports_the_same_and_writes_nothing() {
    let world = World::new().await;
    world.import((0..10).map(imported)).await;
    let before = world.content().await;
    let key = VapidKey::generate().unwrap();
    let rows = || {
        (0..20).map(|number| {
            let mut row = imported(number);
            row.vapid_key = Some(key.id());
            row.daily = iter::repeat_n(daily(9, "x"), usize::from(number > 4)).collect();
            Ok(row)
        })
    };
    let mut dry = world.push.import().dry_run();
    dry.active_vapid_key(&key).await.unwrap();
    dry.add(rows()).await.unwrap();
    assert_eq!(world.content().await, before);

    let mut import = world.push.import();
    import.active_vapid_key(&key).await.unwrap();
    import.add(rows()).await.unwrap();
    assert_eq!(counts(import.report()), [10, 5, 5, 0, 0]);
    assert_eq!(counts(dry.report()), counts(import.report()));
    assert_eq!(dry.report().daily, import.report().daily);
}

/// A row of few endpoints, ids and keys, so that they collide.
fn any_row() -> impl Strategy<Value = ImportedSubscription> {
    let id = prop::option::of(0_u8..6);
    let user = prop::option::of(0_u8..3);
    let daily_of = prop::collection::vec((any::<bool>(), 0_u8..24), 0..3);
    (0_u32..8, 0_u8..2, id, user, daily_of, -1_i64..2).prop_map(
        |(number, auth, id, user, daily_of, expires)| {
            let mut row = ImportedSubscription::new(subscription(number, auth));
            if expires < 1 {
                let at = Timestamp::from_secs(EIGHT.as_secs() + 10 * expires + 5);
                row.subscription = row.subscription.with_expiration_time(Some(at));
            }
            row.id = id.map(|id| SubscriptionId::from_bytes([id; 16]));
            row.principal = user.map(|user| format!("user {user}").into());
            row.daily = daily_of
                .into_iter()
                .map(|(check, hour)| {
                    let notify_type = if check {
                        NotifyType::DailyCheck
                    } else {
                        NotifyType::DirectNotification
                    };
                    of_type(notify_type, hour, "x")
                })
                .collect();
            row
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_rows_add_up_and_a_second_run_changes_nothing(
        rows in prop::collection::vec(any_row(), 0..24),
        cut in 0_usize..24,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let limits = SubscriptionLimits::new(6, 2);
            let world = World::with(|_, builder| builder.subscription_limits(limits)).await;
            let mut import = world.push.import();
            let (first, second) = rows.split_at(cut.min(rows.len()));
            import.add(first.iter().cloned().map(Ok)).await.unwrap();
            import.add(second.iter().cloned().map(Ok)).await.unwrap();
            let sum: u64 = counts(import.report()).iter().sum();
            assert_eq!(sum, rows.len() as u64);
            let content = world.content().await;
            assert_eq!(content.rows.len() as u64, import.report().created);
            assert!(content.schedules.len() as u64 == import.report().daily);

            world.clock.advance(Duration::from_secs(1));
            let again = world.import(rows).await;
            let [created, updated, ..] = counts(again.report());
            assert_eq!((created, updated), (0, 0));
            assert_eq!(world.content().await, content);
        });
    }
}
