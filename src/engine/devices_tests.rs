//! Rows that change hands between the read and the deletion.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::super::test_world::{Meanwhile, START, TIMEOUT, World};
use super::super::{RegisterErrorKind, Registration};
use super::*;
use crate::deliver::OriginGates;
use crate::schedule::{Daily, DailyTime};
use crate::store::{
    Change, MemoryStore, NewSubscription, ScheduleStore as _, SubscriptionLimits,
    SubscriptionStore as _,
};
use crate::subscription::{EndpointKey, Subscription};

fn alice() -> Principal {
    Principal::from("alice")
}

fn daily(notify_type: NotifyType) -> Daily {
    Daily::new(notify_type, DailyTime::new(9, 0).unwrap(), None).unwrap()
}

fn schedule(of: SubscriptionId, notify_type: NotifyType) -> Schedule {
    daily(notify_type).schedule(of, START).unwrap()
}

/// A row of a user, or of none, with a daily check.
async fn row(world: &World, principal: Option<Principal>) -> SubscriptionRecord {
    let key = world.subscriber().await;
    let mut new = registered(&world.record(key).await);
    new.principal = principal;
    let limits = SubscriptionLimits::default();
    world.store.upsert(&new, &limits, START).await.unwrap();
    let row = world.record(key).await;
    let check = schedule(row.id, NotifyType::DailyCheck);
    world.store.put_schedule(&check).await.unwrap();
    row
}

/// The subscription of a row once more.
fn registered(row: &SubscriptionRecord) -> NewSubscription {
    NewSubscription::new(row.subscription.clone(), row.vapid_key)
}

/// Another user signs in at the same browser as soon as the row is read, and wants a schedule.
fn bob_takes_over(world: &World, row: &SubscriptionRecord, notify_type: NotifyType) {
    let mut subscription = registered(row);
    subscription.principal = Some(Principal::from("bob"));
    let schedule = schedule(row.id, notify_type);
    *world.table.meanwhile.lock().unwrap() = Some(Meanwhile {
        subscription,
        schedule,
    });
}

async fn stored(world: &World, key: EndpointKey) -> Option<SubscriptionRecord> {
    let rows = world.store.get(&[SubscriptionRef::Key(key)]).await.unwrap();
    rows.into_iter().next().unwrap()
}

/// The row is the other user's, with all schedules.
async fn is_bobs(world: &World, row: &SubscriptionRecord, schedules: usize) {
    assert!(world.table.meanwhile.lock().unwrap().is_none());
    let key = row.subscription.endpoint().key();
    let stored = stored(world, key).await.unwrap();
    assert_eq!((stored.id, stored.principal), (row.id, Some("bob".into())));
    let left = world.store.schedules(Some(row.id)).await.unwrap();
    assert_eq!(left.len(), schedules);
}

#[tokio::test]
async fn a_row_that_another_user_took_over_is_not_removed() {
    let world = World::new().await;
    let row = row(&world, Some(alice())).await;
    bob_takes_over(&world, &row, NotifyType::DirectNotification);
    assert!(!world.engine.remove(&alice(), row.id).await.unwrap());
    is_bobs(&world, &row, 2).await;
    let bob = Principal::from("bob");
    assert!(world.engine.remove(&bob, row.id).await.unwrap());
    assert_eq!(world.store.schedules(Some(row.id)).await.unwrap(), []);
}

#[tokio::test]
async fn a_row_that_another_user_took_over_stays_subscribed() {
    for principal in [Some(alice()), None] {
        let world = World::new().await;
        let row = row(&world, principal).await;
        let key = row.subscription.endpoint().key();
        let which = [SubscriptionRef::Id(row.id), SubscriptionRef::Key(key)];
        for (which, owned_by_bob) in which.into_iter().zip([false, true]) {
            if !owned_by_bob {
                bob_takes_over(&world, &row, NotifyType::DirectNotification);
                assert!(!world.engine.unsubscribe(which).await.unwrap());
                is_bobs(&world, &row, 2).await;
            } else {
                assert!(world.engine.unsubscribe(which).await.unwrap());
                assert_eq!(stored(&world, key).await, None);
                assert_eq!(world.store.schedules(Some(row.id)).await.unwrap(), []);
            }
        }
    }
}

/// The row without a user and tags goes with its last schedule, unless it has been registered since.
#[tokio::test]
async fn a_row_that_was_registered_again_outlives_its_last_schedule() {
    let world = World::new().await;
    let taken = row(&world, None).await;
    let which = SubscriptionRef::Id(taken.id);
    bob_takes_over(&world, &taken, NotifyType::DailyCheck);
    let unsubscribed = world
        .engine
        .unsubscribe_daily(which, NotifyType::DailyCheck);
    assert!(unsubscribed.await.unwrap());
    is_bobs(&world, &taken, 0).await;

    let again = row(&world, None).await;
    let (which, key) = (
        SubscriptionRef::Id(again.id),
        again.subscription.endpoint().key(),
    );
    let mut subscription = registered(&again);
    subscription.tags = Some([Tag::parse("news").unwrap()].into());
    *world.table.meanwhile.lock().unwrap() = Some(Meanwhile {
        subscription,
        schedule: schedule(again.id, NotifyType::DailyCheck),
    });
    let unsubscribed = world
        .engine
        .unsubscribe_daily(which, NotifyType::DailyCheck);
    assert!(unsubscribed.await.unwrap());
    assert_eq!(stored(&world, key).await.unwrap().tags.len(), 1);

    let alone = row(&world, None).await;
    let which = SubscriptionRef::Id(alone.id);
    let unsubscribed = world
        .engine
        .unsubscribe_daily(which, NotifyType::DailyCheck);
    assert!(unsubscribed.await.unwrap());
    assert_eq!(
        stored(&world, alone.subscription.endpoint().key()).await,
        None
    );
}

#[tokio::test]
async fn a_row_that_another_user_took_over_is_not_erased() {
    let world = World::new().await;
    let (taken, left) = (
        row(&world, Some(alice())).await,
        row(&world, Some(alice())).await,
    );
    bob_takes_over(&world, &taken, NotifyType::DirectNotification);
    let forgotten = world.engine.forget(&alice()).await.unwrap();
    assert_eq!((forgotten.subscriptions, forgotten.schedules), (1, 1));
    is_bobs(&world, &taken, 2).await;
    assert_eq!(
        stored(&world, left.subscription.endpoint().key()).await,
        None
    );

    // Whenever the user's own page registers it again, it is the user's.
    let again = row(&world, Some(alice())).await;
    bob_takes_over(&world, &again, NotifyType::DirectNotification);
    if let Some(meanwhile) = &mut *world.table.meanwhile.lock().unwrap() {
        meanwhile.subscription.principal = Some(alice());
    }
    let forgotten = world.engine.forget(&alice()).await.unwrap();
    assert_eq!((forgotten.subscriptions, forgotten.schedules), (1, 2));
}

/// The other call has answered its page that the subscription is stored.
#[tokio::test]
async fn undoing_a_registration_leaves_the_row_of_another_call() {
    for is_met in [false, true] {
        let store = MemoryStore::with_max_rows(1);
        let world = World::on(store, OriginGates::IN_FLIGHT, TIMEOUT).await;
        let full = schedule(SubscriptionId::random(), NotifyType::DailyCheck);
        world.store.put_schedule(&full).await.unwrap();
        let active = world.engine.key_ring.active();
        let browser = world.service.user_agent();
        let subscription: Subscription = browser.subscribe(active.public_key()).unwrap();
        let key = subscription.endpoint().key();
        if is_met {
            *world.table.meanwhile.lock().unwrap() = Some(Meanwhile {
                subscription: NewSubscription::new(subscription.clone(), active.id()),
                schedule: full,
            });
        }
        let registration = Registration::new(subscription).daily(daily(NotifyType::DailyCheck));
        let refused = world.engine.register(registration, None).await.unwrap_err();
        assert_eq!(refused.kind(), RegisterErrorKind::StoreFull);
        let row = stored(&world, key).await;
        assert_eq!(row.is_some(), is_met);
        if let Some(row) = row {
            assert_eq!(row.last_seen_at, START + Duration::from_millis(1));
        }
    }
}

/// A call that was interrupted between the row and its schedules is repeated.
#[tokio::test]
async fn unsubscribing_again_removes_schedules_that_were_left() {
    let world = World::new().await;
    let row = row(&world, None).await;
    let deleted = world.store.apply(&[Change::delete(&row)], START).await;
    assert_eq!(deleted.unwrap(), 1);
    let which = SubscriptionRef::Id(row.id);
    assert!(!world.engine.unsubscribe(which).await.unwrap());
    assert_eq!(world.store.schedules(Some(row.id)).await.unwrap(), []);
}

/// The page of a known subscription asks for a daily notification that the store has no room for.
#[tokio::test]
async fn a_known_row_outlives_a_registration_whose_schedule_is_refused() {
    let store = MemoryStore::with_max_rows(1);
    let world = World::on(store, OriginGates::IN_FLIGHT, TIMEOUT).await;
    let key = world.subscriber().await;
    let row = world.record(key).await;
    let full = schedule(SubscriptionId::random(), NotifyType::DailyCheck);
    world.store.put_schedule(&full).await.unwrap();
    let registration = Registration::new(row.subscription.clone());
    let registration = registration.daily(daily(NotifyType::DailyCheck));
    let refused = world.engine.register(registration, None).await.unwrap_err();
    assert_eq!(refused.kind(), RegisterErrorKind::StoreFull);
    assert_eq!(stored(&world, key).await.unwrap().id, row.id);
}

/// Its id stays, and of each type the notification that it had. Those of the row at the new endpoint come to it.
#[tokio::test]
async fn a_row_that_is_renewed_keeps_its_schedules_before_those_at_the_new_endpoint() {
    let world = World::new().await;
    let (old, new) = (row(&world, None).await, row(&world, None).await);
    let at = |hour| DailyTime::new(hour, 0).unwrap();
    let put = async |of: &SubscriptionRecord, notify_type, hour| {
        let daily = Daily::new(notify_type, at(hour), None).unwrap();
        let schedule = daily.schedule(of.id, START).unwrap();
        world.store.put_schedule(&schedule).await.unwrap();
    };
    put(&old, NotifyType::DailyCheck, 7).await;
    put(&new, NotifyType::DailyCheck, 8).await;
    put(&new, NotifyType::DirectNotification, 11).await;
    let replaces = old.subscription.endpoint().key();
    let registration = Registration::new(new.subscription.clone());
    let registered = world.engine.register(registration, Some(replaces));
    assert_eq!(registered.await.unwrap().id, old.id);
    let kept = world.store.schedules(Some(old.id)).await.unwrap();
    let mut kept: Vec<_> = kept
        .iter()
        .map(|one| (one.name(), one.time.clone()))
        .collect();
    kept.sort_by_key(|(name, _)| name.clone());
    let mut expected = vec![
        (
            ScheduleName::Subscriber(old.id, NotifyType::DailyCheck),
            at(7),
        ),
        (
            ScheduleName::Subscriber(old.id, NotifyType::DirectNotification),
            at(11),
        ),
    ];
    expected.sort_by_key(|(name, _)| name.clone());
    assert_eq!(kept, expected);
    assert_eq!(world.store.schedules(Some(new.id)).await.unwrap(), []);
}

/// Another page of the new user has been told that its daily notification is stored, at whatever moment that was.
#[tokio::test]
async fn a_row_that_changes_hands_keeps_the_schedules_of_its_new_user() {
    for skips_reads in [false, true] {
        let world = World::new().await;
        let row = row(&world, Some(alice())).await;
        bob_takes_over(&world, &row, NotifyType::DirectNotification);
        world.table.skips_reads.store(skips_reads, Relaxed);
        let registration = Registration::new(row.subscription.clone()).principal("bob");
        world.engine.register(registration, None).await.unwrap();
        assert!(world.table.meanwhile.lock().unwrap().is_none());
        let left = world.store.schedules(Some(row.id)).await.unwrap();
        let wanted = schedule(row.id, NotifyType::DirectNotification).name();
        assert!(left.iter().any(|one| one.name() == wanted), "{left:?}");
    }
}
