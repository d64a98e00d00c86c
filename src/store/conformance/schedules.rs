//! D1 to D12: daily notifications.

use std::time::Duration;

use super::Handles;
use super::sample::{at, broadcast, unknown_id};
use crate::broadcast::{Audience, Tag};
use crate::clock::Timestamp;
use crate::message::{Message, Padding, Ttl, Urgency};
use crate::schedule::{
    DailyTime, NotifyType, Plan, Schedule, ScheduleLabel, ScheduleName, Weekdays, Zone,
};
use crate::store::{
    DAYS, DayCount, DeliveryLedger, Fired, Firing, Idempotency, NewBroadcast, ScheduleStore,
};
use crate::subscription::SubscriptionId;

fn id(number: u8) -> SubscriptionId {
    SubscriptionId::from_bytes([number; 16])
}

fn subscribers(number: u8, notify_type: NotifyType, message: Option<&str>) -> Plan {
    Plan::Subscriber {
        subscription: id(number),
        notify_type,
        message: message.map(str::to_owned),
    }
}

fn daily(number: u8, next: i64) -> Schedule {
    let time = DailyTime::new(number % 24, 30).unwrap();
    let plan = subscribers(number, NotifyType::DailyCheck, None);
    Schedule::new(plan, time, at(next))
}

fn direct(number: u8, next: i64) -> Schedule {
    let time = DailyTime::new(7, number % 60).unwrap();
    let plan = subscribers(number, NotifyType::DirectNotification, Some("Grüße 👋"));
    Schedule::new(plan, time, at(next))
}

/// An application schedule with every field set.
fn application(label: &str, next: i64) -> Schedule {
    let days = Weekdays::parse(["mon", "sun"]).unwrap();
    let time = DailyTime::new(23, 59)
        .unwrap()
        .in_zone(Zone::stored("Nowhere/At_All"))
        .on(days);
    let plan = Plan::Application {
        label: ScheduleLabel::parse(label).unwrap(),
        to: Audience::Tag(Tag::parse("news").unwrap()),
        message: Message::new("x").with_ttl(Ttl::from_secs(60)),
    };
    Schedule::new(plan, time, at(next))
}

async fn open_broadcasts<S: DeliveryLedger + ?Sized>(store: &S) -> usize {
    store.expandable(100, at(0)).await.unwrap().len()
}

/// Fires one schedule.
async fn fire<S: ScheduleStore + ?Sized>(
    store: &S,
    schedule: &Schedule,
    next: i64,
    broadcast: Option<NewBroadcast>,
) -> Fired {
    let firing = Firing::new(schedule, at(next), broadcast);
    let answers = store.fire(&[firing], at(0)).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers[0]
}

/// D1: one schedule of each type, replaced by the next.
pub async fn d1_a_schedule_is_inserted_or_replaced<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    store.put_schedule(&daily(1, 10)).await.unwrap();
    store.put_schedule(&direct(1, 20)).await.unwrap();
    let mut other = direct(1, 5);
    other.plan = subscribers(1, NotifyType::DirectNotification, None);
    other.time = DailyTime::new(23, 59).unwrap();
    store.put_schedule(&other).await.unwrap();
    let stored = h.second().schedules(Some(id(1))).await.unwrap();
    assert_eq!(stored, [daily(1, 10), other.clone()]);
    let due = store.due_schedules(9, at(30)).await.unwrap();
    assert_eq!(
        due,
        [other, daily(1, 10)],
        "it is due when it was said last"
    );
}

/// D1: with the same time its next fire time stays, whatever else changes.
pub async fn d1_the_same_time_stays_due<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    for schedule in [direct(1, 10), application("digest", 20)] {
        store.put_schedule(&schedule).await.unwrap();
    }
    let mut again = direct(1, 99);
    again.plan = subscribers(1, NotifyType::DirectNotification, Some("new"));
    store.put_schedule(&again).await.unwrap();
    again.next_fire_at = at(10);
    assert_eq!(h.second().schedules(Some(id(1))).await.unwrap(), [again]);
    let mut moved = application("digest", 99);
    moved.time = moved.time.in_zone(Zone::utc());
    store.put_schedule(&moved).await.unwrap();
    assert_eq!(h.second().schedules(None).await.unwrap(), [moved.clone()]);
    moved.time = moved.time.on(Weekdays::ALL);
    moved.next_fire_at = at(7);
    store.put_schedule(&moved).await.unwrap();
    assert_eq!(h.second().schedules(None).await.unwrap(), [moved]);
}

/// D2: lists the schedules of one subscription by type, and the application's by name.
pub async fn d2_schedules_are_listed_by_name<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    for schedule in [
        direct(1, 1),
        application("b", 4),
        daily(2, 2),
        application("a", 5),
        daily(1, 3),
    ] {
        store.put_schedule(&schedule).await.unwrap();
    }
    let stored = store.schedules(Some(id(1))).await.unwrap();
    assert_eq!(stored, [daily(1, 3), direct(1, 1)]);
    let stored = h.second().schedules(None).await.unwrap();
    assert_eq!(stored, [application("a", 5), application("b", 4)]);
    assert_eq!(store.schedules(Some(unknown_id())).await.unwrap(), []);
}

/// D3: removes one schedule, or all of a subscription.
pub async fn d3_schedules_are_removed<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    for schedule in [
        daily(1, 1),
        direct(1, 1),
        daily(2, 1),
        direct(2, 1),
        application("a", 1),
        application("b", 1),
    ] {
        store.put_schedule(&schedule).await.unwrap();
    }
    let one = ScheduleName::Subscriber(id(1), NotifyType::DailyCheck);
    assert!(store.remove_schedule(&one).await.unwrap());
    assert!(!store.remove_schedule(&one).await.unwrap());
    assert_eq!(store.schedules(Some(id(1))).await.unwrap(), [direct(1, 1)]);
    assert_eq!(store.remove_schedules(id(2)).await.unwrap(), 2);
    assert_eq!(store.remove_schedules(id(2)).await.unwrap(), 0);
    let name = application("a", 1).name();
    assert!(h.second().remove_schedule(&name).await.unwrap());
    let due = store.due_schedules(9, at(9)).await.unwrap();
    assert_eq!(due.len(), 2);
    assert!(due.contains(&direct(1, 1)) && due.contains(&application("b", 1)));
}

/// D4: existing schedules of the other subscription stay, the rest moves.
pub async fn d4_schedules_move_where_there_is_none<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    for schedule in [daily(1, 1), direct(1, 2), daily(2, 3)] {
        store.put_schedule(&schedule).await.unwrap();
    }
    store.move_schedules(id(1), id(2)).await.unwrap();
    assert_eq!(store.schedules(Some(id(1))).await.unwrap(), []);
    let mut moved = direct(1, 2);
    moved.plan = subscribers(2, NotifyType::DirectNotification, Some("Grüße 👋"));
    let expected = [daily(2, 3), moved.clone()];
    assert_eq!(store.schedules(Some(id(2))).await.unwrap(), expected);
    assert_eq!(
        store.due_schedules(9, at(9)).await.unwrap(),
        [moved, daily(2, 3)]
    );
    store.move_schedules(id(2), id(2)).await.unwrap();
    assert_eq!(store.schedules(Some(id(2))).await.unwrap(), expected);
    store.move_schedules(unknown_id(), id(2)).await.unwrap();
    assert_eq!(store.schedules(Some(id(2))).await.unwrap(), expected);
}

/// D5: the schedule that is due longest comes first.
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

/// D6: firing opens the broadcast and advances the schedule, only from the expected time.
pub async fn d6_fire_opens_and_moves_on<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let schedule = direct(1, 0);
    store.put_schedule(&schedule).await.unwrap();
    let new = broadcast();
    let fired = fire(store, &schedule, 100, Some(new.clone())).await;
    assert_eq!(fired, Fired::Fired);
    assert!(store.status(new.id, at(0)).await.unwrap().is_some());
    assert_eq!(
        store.schedules(Some(id(1))).await.unwrap(),
        [direct(1, 100)]
    );
    assert_eq!(store.due_schedules(9, at(99)).await.unwrap(), []);

    let again = broadcast();
    let stale = fire(h.second(), &schedule, 200, Some(again.clone())).await;
    assert_eq!(stale, Fired::Stale);
    let gone = fire(store, &direct(2, 0), 200, Some(again.clone())).await;
    assert_eq!(gone, Fired::Stale);
    assert_eq!(store.status(again.id, at(0)).await.unwrap(), None);
    assert_eq!(
        store.schedules(Some(id(1))).await.unwrap(),
        [direct(1, 100)]
    );

    assert_eq!(fire(store, &direct(1, 100), 200, None).await, Fired::Fired);
    assert_eq!(
        store.schedules(Some(id(1))).await.unwrap(),
        [direct(1, 200)]
    );
    assert_eq!(open_broadcasts(store).await, 1);
}

/// D6: several schedules fire in one call, independently.
pub async fn d6_many_fire_at_once<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    for schedule in [daily(1, 0), daily(2, 0), application("a", 0)] {
        store.put_schedule(&schedule).await.unwrap();
    }
    let firings = [
        Firing::new(&daily(1, 0), at(100), Some(broadcast())),
        Firing::new(&daily(2, 1), at(100), Some(broadcast())),
        Firing::new(&application("a", 0), at(100), Some(broadcast())),
    ];
    let answers = store.fire(&firings, at(0)).await.unwrap();
    assert_eq!(answers, [Fired::Fired, Fired::Stale, Fired::Fired]);
    assert_eq!(open_broadcasts(h.second()).await, 2);
    let due = h.second().due_schedules(9, at(9)).await.unwrap();
    assert_eq!(due, [daily(2, 0)]);
    let repeated = [firings[1].clone(), firings[1].clone()];
    let answers = store.fire(&repeated, at(0)).await.unwrap();
    assert_eq!(answers, [Fired::Stale, Fired::Stale]);
}

/// D6: one of several concurrent calls fires.
pub async fn d6_one_of_many_concurrent_calls_fires<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    h.store().put_schedule(&daily(1, 0)).await.unwrap();
    let answers = h
        .race(8, |store, _| async move {
            fire(&*store, &daily(1, 0), 100, Some(broadcast())).await
        })
        .await;
    let fired = answers.iter().filter(|answer| **answer == Fired::Fired);
    assert_eq!(fired.count(), 1);
    assert_eq!(open_broadcasts(h.second()).await, 1);
}

/// D6: a broadcast whose idempotency key is known still advances the schedule.
pub async fn d6_a_known_broadcast_is_not_opened_twice<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    store.put_schedule(&daily(1, 0)).await.unwrap();
    for next in [0, 100] {
        let mut new = broadcast();
        new.idempotency = Some(Idempotency::new("daily", [1; 32]));
        let fired = fire(store, &daily(1, 0), next, Some(new)).await;
        assert_eq!(fired, Fired::Fired);
    }
    assert_eq!(open_broadcasts(store).await, 1);
    assert_eq!(store.schedules(Some(id(1))).await.unwrap(), [daily(1, 100)]);
}

/// D7: the latest run is kept, recorded by any handle.
pub async fn d7_the_latest_run_is_kept<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    assert_eq!(store.last_run().await.unwrap(), None);
    for (secs, latest) in [(5, 5), (9, 9), (7, 9)] {
        store.record_run(at(secs)).await.unwrap();
        assert_eq!(h.second().last_run().await.unwrap(), Some(at(latest)));
    }
}

/// D8: the earliest fire time.
pub async fn d8_the_next_moment_is_the_earliest<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    assert_eq!(store.next_fire_at().await.unwrap(), None);
    for schedule in [daily(1, 30), application("a", 10), daily(2, 20)] {
        store.put_schedule(&schedule).await.unwrap();
    }
    assert_eq!(h.second().next_fire_at().await.unwrap(), Some(at(10)));
    fire(store, &application("a", 10), 40, None).await;
    assert_eq!(h.second().next_fire_at().await.unwrap(), Some(at(20)));
}

/// D9: a schedule is removed as it was read, and not what has taken its place. That it has fired is no change.
pub async fn d9_a_schedule_that_was_replaced_is_not_removed<S: ScheduleStore + ?Sized>(
    h: &Handles<S>,
) {
    let store = h.store();
    let label = application("digest", 10);
    let with = |change: fn(&mut Plan)| {
        let mut other = label.clone();
        change(&mut other.plan);
        other
    };
    let to_all = with(|plan| {
        if let Plan::Application { to, .. } = plan {
            *to = Audience::All;
        }
    });
    let of_another_message = with(|plan| {
        if let Plan::Application { message, .. } = plan {
            *message = Message::new("x").with_ttl(Ttl::from_secs(61));
        }
    });
    let of_message = |message: Message| {
        let mut other = label.clone();
        if let Plan::Application {
            message: stored, ..
        } = &mut other.plan
        {
            *stored = message;
        }
        other
    };
    let message = || Message::new("x").with_ttl(Ttl::from_secs(60));
    let of_other_messages = [
        Message::new("y").with_ttl(Ttl::from_secs(60)),
        Message::without_payload().with_ttl(Ttl::from_secs(60)),
        message().with_urgency(Urgency::Low),
        message().with_topic("news".parse().unwrap()),
        message().with_padding(Padding::Max),
    ];
    for replacement in of_other_messages.map(of_message) {
        store.put_schedule(&label).await.unwrap();
        h.second().put_schedule(&replacement).await.unwrap();
        assert!(!store.remove_unchanged_schedule(&label).await.unwrap());
        let removed = store.remove_unchanged_schedule(&replacement).await;
        assert!(removed.unwrap(), "{replacement:?}");
    }
    let mut in_another_zone = label.clone();
    in_another_zone.time = in_another_zone.time.in_zone(Zone::stored("Nowhere/Else"));
    let mut on_other_days = label.clone();
    on_other_days.time = on_other_days.time.on(Weekdays::ALL);
    let mut without_text = direct(1, 20);
    without_text.plan = subscribers(1, NotifyType::DirectNotification, None);
    let mut at_another_time = direct(1, 20);
    at_another_time.time = DailyTime::new(7, 2).unwrap();
    for (read, replacement) in [
        (&label, to_all),
        (&label, of_another_message),
        (&label, on_other_days),
        (&label, in_another_zone),
        (&direct(1, 20), without_text),
        (&direct(1, 20), at_another_time),
    ] {
        store.put_schedule(read).await.unwrap();
        h.second().put_schedule(&replacement).await.unwrap();
        assert!(!store.remove_unchanged_schedule(read).await.unwrap());
        let due = store.due_schedules(9, at(99)).await.unwrap();
        assert_eq!(due.len(), 1, "{due:?}");
        assert_eq!(due[0].plan, replacement.plan);
        let removed = store.remove_unchanged_schedule(&replacement).await;
        assert!(removed.unwrap(), "{replacement:?}");
    }
    for schedule in [daily(1, 10), direct(1, 20), label] {
        store.put_schedule(&schedule).await.unwrap();
        let fired = fire(h.second(), &schedule, 100, None).await;
        assert_eq!(fired, Fired::Fired);
        let removed = store.remove_unchanged_schedule(&schedule).await;
        assert!(removed.unwrap(), "{schedule:?}");
        let removed = store.remove_unchanged_schedule(&schedule).await;
        assert!(!removed.unwrap(), "{schedule:?}");
    }
    assert_eq!(store.next_fire_at().await.unwrap(), None);
}

/// D10: none is left out of those that can be read. Damage is made where it can be: see `tests/stores/any_damage`.
pub async fn d10_no_readable_schedule_is_left_out<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let mine = direct(1, 20);
    for schedule in [&mine, &application("digest", 10)] {
        store.put_schedule(schedule).await.unwrap();
    }
    for of in [None, Some(id(1)), Some(id(2))] {
        assert_eq!(h.second().unreadable_schedules(of).await.unwrap(), 0);
    }
}

const DAY: Duration = Duration::from_secs(86_400);

/// D11: the number of a day is never replaced, and the latest days are kept. A store that keeps none, as the default, is allowed.
pub async fn d11_a_day_keeps_its_first_number<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let noon = at(0);
    let today = DayCount::new(5, noon);
    store.record_days(&[today]).await.unwrap();
    if store.days(Timestamp::MAX).await.unwrap().is_empty() {
        return;
    }
    for live in [9, 0] {
        let again = [DayCount::new(live, noon)];
        h.second().record_days(&again).await.unwrap();
        assert_eq!(store.days(noon).await.unwrap(), [today]);
    }
    // Many days at once, one of them twice.
    let later = |days: usize| noon + DAY * u32::try_from(days).unwrap();
    let mut many: Vec<_> = (1..DAYS)
        .map(|days| DayCount::new(days as u64, later(days)))
        .collect();
    many.push(DayCount::new(1_000, later(1)));
    store.record_days(&many).await.unwrap();
    many.pop();
    many.insert(0, today);
    let end = later(DAYS + 365);
    assert_eq!(h.second().days(end).await.unwrap(), many);
    // A clock that is a year ahead.
    let ahead = DayCount::new(7, end);
    store.record_days(&[ahead]).await.unwrap();
    many.remove(0);
    assert_eq!(store.days(later(DAYS)).await.unwrap(), many);
    // A clock that is behind by more than what is kept.
    let behind = DayCount::new(8, at(-86_400));
    store.record_days(&[behind]).await.unwrap();
    many.push(ahead);
    assert_eq!(store.days(end).await.unwrap(), many);
}

/// D12: the earliest day is first, and none is listed before it comes.
pub async fn d12_days_are_listed_until_now<S: ScheduleStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    assert_eq!(store.days(at(0)).await.unwrap(), []);
    let days = [0, 1, 2, 3].map(|days| DayCount::new(u64::MAX >> 1, at(0) + DAY * days));
    for day in [2, 0, 3, 1] {
        store.record_days(&[days[day]]).await.unwrap();
    }
    if store.days(Timestamp::MAX).await.unwrap().is_empty() {
        return;
    }
    let (midnight, before) = (days[2].day, Duration::from_millis(1));
    for (now, expected) in [
        (days[0].day - before, &days[..0]),
        (at(0), &days[..1]),
        (midnight - before, &days[..2]),
        (midnight, &days[..3]),
        (Timestamp::MAX, &days[..]),
    ] {
        assert_eq!(h.second().days(now).await.unwrap(), expected, "{now:?}");
    }
}
