//! D1 to D7: daily notifications.

use super::Handles;
use super::sample::{at, broadcast, unknown_id};
use crate::schedule::{DailyTime, NotifyType, Schedule};
use crate::store::{DeliveryLedger, Fired, Idempotency, ScheduleStore};
use crate::subscription::SubscriptionId;

fn id(number: u8) -> SubscriptionId {
    SubscriptionId::from_bytes([number; 16])
}

fn daily(number: u8, next: i64) -> Schedule {
    let time = DailyTime::new(number % 24, 30).unwrap();
    Schedule::new(id(number), NotifyType::DailyCheck, time, at(next))
}

fn direct(number: u8, next: i64) -> Schedule {
    let time = DailyTime::new(7, number % 60).unwrap();
    let mut schedule = Schedule::new(id(number), NotifyType::DirectNotification, time, at(next));
    schedule.message = Some("Grüße 👋".into());
    schedule
}

async fn open_broadcasts<S: DeliveryLedger + ?Sized>(store: &S) -> usize {
    store.expandable(100, at(0)).await.unwrap().len()
}

/// D1: one schedule of each type, replaced by the next.
pub async fn d1_a_schedule_is_inserted_or_replaced<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    store.put_schedule(&daily(1, 10)).await.unwrap();
    store.put_schedule(&direct(1, 20)).await.unwrap();
    let mut other = direct(1, 5);
    other.message = None;
    other.time = DailyTime::new(23, 59).unwrap();
    store.put_schedule(&other).await.unwrap();
    let stored = h.second().schedules(id(1)).await.unwrap();
    assert_eq!(stored, [daily(1, 10), other.clone()]);
    let due = store.due_schedules(9, at(30)).await.unwrap();
    assert_eq!(
        due,
        [other, daily(1, 10)],
        "it is due when it was said last"
    );
}

/// D2: those of one subscription, by type.
pub async fn d2_schedules_are_listed_by_type<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    for schedule in [direct(1, 1), daily(2, 2), daily(1, 3)] {
        store.put_schedule(&schedule).await.unwrap();
    }
    let stored = store.schedules(id(1)).await.unwrap();
    assert_eq!(stored, [daily(1, 3), direct(1, 1)]);
    assert_eq!(store.schedules(unknown_id()).await.unwrap(), []);
}

/// D3: one type, or all.
pub async fn d3_schedules_are_removed<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    for schedule in [daily(1, 1), direct(1, 1), daily(2, 1), direct(2, 1)] {
        store.put_schedule(&schedule).await.unwrap();
    }
    let one = Some(NotifyType::DailyCheck);
    assert_eq!(store.remove_schedules(id(1), one).await.unwrap(), 1);
    assert_eq!(store.remove_schedules(id(1), one).await.unwrap(), 0);
    assert_eq!(store.schedules(id(1)).await.unwrap(), [direct(1, 1)]);
    assert_eq!(store.remove_schedules(id(2), None).await.unwrap(), 2);
    assert_eq!(store.schedules(id(2)).await.unwrap(), []);
    assert_eq!(store.due_schedules(9, at(9)).await.unwrap(), [direct(1, 1)]);
}

/// D4: what the other one has stays, the rest moves.
pub async fn d4_schedules_move_where_there_is_none<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    for schedule in [daily(1, 1), direct(1, 2), daily(2, 3)] {
        store.put_schedule(&schedule).await.unwrap();
    }
    store.move_schedules(id(1), id(2)).await.unwrap();
    assert_eq!(store.schedules(id(1)).await.unwrap(), []);
    let mut moved = direct(1, 2);
    moved.subscription = id(2);
    let expected = [daily(2, 3), moved.clone()];
    assert_eq!(store.schedules(id(2)).await.unwrap(), expected);
    assert_eq!(
        store.due_schedules(9, at(9)).await.unwrap(),
        [moved, daily(2, 3)]
    );
    store.move_schedules(id(2), id(2)).await.unwrap();
    assert_eq!(store.schedules(id(2)).await.unwrap(), expected);
    store.move_schedules(unknown_id(), id(2)).await.unwrap();
    assert_eq!(store.schedules(id(2)).await.unwrap(), expected);
}

/// D5: who is due longest is first.
pub async fn d5_due_schedules_are_listed_oldest_first<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    for schedule in [daily(1, 30), daily(2, 10), direct(3, 20), daily(4, 31)] {
        store.put_schedule(&schedule).await.unwrap();
    }
    let due = store.due_schedules(9, at(30)).await.unwrap();
    assert_eq!(due, [daily(2, 10), direct(3, 20), daily(1, 30)]);
    let two = store.due_schedules(2, at(30)).await.unwrap();
    assert_eq!(two, due[..2]);
    assert_eq!(store.due_schedules(9, at(9)).await.unwrap(), []);
}

/// D6: firing opens the broadcast and moves on, from the expected moment only.
pub async fn d6_fire_opens_and_moves_on<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let schedule = direct(1, 0);
    store.put_schedule(&schedule).await.unwrap();
    let new = broadcast();
    let fired = store.fire(&schedule, at(100), Some(&new), at(0)).await;
    assert_eq!(fired.unwrap(), Fired::Fired);
    assert!(store.status(new.id, at(0)).await.unwrap().is_some());
    assert_eq!(store.schedules(id(1)).await.unwrap(), [direct(1, 100)]);
    assert_eq!(store.due_schedules(9, at(99)).await.unwrap(), []);

    let again = broadcast();
    let stale = h
        .second()
        .fire(&schedule, at(200), Some(&again), at(0))
        .await;
    assert_eq!(stale.unwrap(), Fired::Stale);
    let gone = store
        .fire(&direct(2, 0), at(200), Some(&again), at(0))
        .await;
    assert_eq!(gone.unwrap(), Fired::Stale);
    assert_eq!(store.status(again.id, at(0)).await.unwrap(), None);
    assert_eq!(store.schedules(id(1)).await.unwrap(), [direct(1, 100)]);

    let skipped = store.fire(&direct(1, 100), at(200), None, at(0)).await;
    assert_eq!(skipped.unwrap(), Fired::Fired);
    assert_eq!(store.schedules(id(1)).await.unwrap(), [direct(1, 200)]);
    assert_eq!(open_broadcasts(store).await, 1);
}

/// D6: of concurrent calls one fires.
pub async fn d6_one_of_many_concurrent_calls_fires<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    h.store().put_schedule(&daily(1, 0)).await.unwrap();
    let answers = h
        .race(8, |store, _| async move {
            let new = broadcast();
            store
                .fire(&daily(1, 0), at(100), Some(&new), at(0))
                .await
                .unwrap()
        })
        .await;
    let fired = answers.iter().filter(|answer| **answer == Fired::Fired);
    assert_eq!(fired.count(), 1);
    assert_eq!(open_broadcasts(h.second()).await, 1);
}

/// D6: a broadcast that is open already, by its idempotency key, still moves the schedule on.
pub async fn d6_a_known_broadcast_is_not_opened_twice<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    store.put_schedule(&daily(1, 0)).await.unwrap();
    for next in [0, 100] {
        let mut new = broadcast();
        new.idempotency = Some(Idempotency::new("daily", [1; 32]));
        let fired = store.fire(&daily(1, 0), at(next), Some(&new), at(0)).await;
        assert_eq!(fired.unwrap(), Fired::Fired);
    }
    assert_eq!(open_broadcasts(store).await, 1);
    assert_eq!(store.schedules(id(1)).await.unwrap(), [daily(1, 100)]);
}

/// D7: the latest run is kept, whoever noted it.
pub async fn d7_the_latest_run_is_kept<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    assert_eq!(store.last_run().await.unwrap(), None);
    for (secs, latest) in [(5, 5), (9, 9), (7, 9)] {
        store.record_run(at(secs)).await.unwrap();
        assert_eq!(h.second().last_run().await.unwrap(), Some(at(latest)));
    }
}
