//! Daily notifications and the schedules of the application in copies.

use super::test_world::*;
use super::*;
use crate::message::Notification;
use crate::schedule::{Daily, DailyTime, NotifyType, Plan, Schedule, ScheduleLabel, ScheduleName};
use crate::store::{DayCount, Firing, MemoryStore};
use crate::subscription::SubscriptionId;

#[tokio::test]
async fn daily_notifications_are_added_changed_and_removed() {
    use NotifyType::{DailyCheck, DirectNotification};
    let world = World::with_rows(0).await;
    let mut ids = Vec::new();
    for number in 0..6 {
        let id = subscribe(&world.from, &new(number), at(0)).await;
        world
            .from
            .put_schedule(&daily(id, DailyCheck, 7))
            .await
            .unwrap();
        ids.push(id);
    }
    assert_eq!(world.pass().await.schedules, 6);
    let (from, to) = (&world.from, &world.to);
    let name = |number: usize| ScheduleName::Subscriber(ids[number], DailyCheck);
    // Added, removed and changed in the source.
    from.put_schedule(&daily(ids[0], DirectNotification, 8))
        .await
        .unwrap();
    from.remove_schedule(&name(1)).await.unwrap();
    from.put_schedule(&daily(ids[2], DailyCheck, 9))
        .await
        .unwrap();
    // Added, removed and changed in the target: the last by a registration, as all changes are.
    to.put_schedule(&daily(ids[3], DirectNotification, 8))
        .await
        .unwrap();
    to.remove_schedule(&name(4)).await.unwrap();
    subscribe(to, &new(5), at(10)).await;
    to.put_schedule(&daily(ids[5], DailyCheck, 9))
        .await
        .unwrap();
    assert_eq!(world.pass().await.schedules, 3);
    let mut found = Vec::new();
    for id in &ids {
        found.push(hours(to, *id).await);
    }
    assert_eq!(
        found,
        [vec![7, 8], vec![], vec![9], vec![7, 8], vec![], vec![9]]
    );
    assert!(world.pass().await.is_unchanged());
}

/// What the source has sent is not sent again by the target.
#[tokio::test]
async fn an_occurrence_that_the_source_has_sent_is_skipped() {
    let world = World::with_rows(0).await;
    let id = subscribe(&world.from, &new(0), at(0)).await;
    let schedule = daily(id, NotifyType::DailyCheck, 7);
    world.from.put_schedule(&schedule).await.unwrap();
    world.from.record_run(at(5)).await.unwrap();
    let (past, future) = (1_700_000_000, 4_000_000_000);
    let days = [(3, past), (4, future)];
    let days = days.map(|(live, at)| DayCount::new(live, Timestamp::from_secs(at)));
    world.from.record_days(&days).await.unwrap();
    world.pass().await;
    let next = schedule.next_fire_at + std::time::Duration::from_secs(24 * 3600);
    let firing = Firing::new(&schedule, next, None);
    world.from.fire(&[firing], at(0)).await.unwrap();
    world.pass().await;
    let there = world.to.schedules(Some(id)).await.unwrap();
    assert_eq!(there[0].next_fire_at, next);
    assert_eq!(world.to.last_run().await.unwrap(), Some(at(5)));
    // The second day has not come by the clock of the copy.
    assert_eq!(world.to.days(Timestamp::MAX).await.unwrap(), days[..1]);
    // The target is never moved back.
    let firing = Firing::new(
        &there[0],
        next + std::time::Duration::from_secs(24 * 3600),
        None,
    );
    world.to.fire(&[firing], at(0)).await.unwrap();
    assert!(world.pass().await.is_unchanged());
}

/// Those that it has are its own.
#[tokio::test]
async fn an_id_is_given_the_types_that_it_does_not_have() {
    use NotifyType::{DailyCheck, DirectNotification};
    let world = World::new();
    let [former, id] = [SubscriptionId::random(), SubscriptionId::random()];
    for schedule in [
        daily(former, DailyCheck, 7),
        daily(former, DirectNotification, 8),
        daily(id, DailyCheck, 9),
    ] {
        world.to.put_schedule(&schedule).await.unwrap();
    }
    let given = world.copy().ledgers().give(former, id).await.unwrap();
    let missing = daily(id, DirectNotification, 8).name();
    assert!(given.iter().map(Schedule::name).eq([missing]));
    let mut hours = hours(&world.to, id).await;
    hours.sort_unstable();
    assert_eq!(hours, [8, 9]);
}

fn scheduled(label: &str, hour: u8, text: &str) -> Schedule {
    let plan = Plan::Application {
        label: ScheduleLabel::parse(label).unwrap(),
        to: Audience::All,
        message: Notification::new(text).into(),
    };
    Schedule::new(plan, DailyTime::new(hour, 0).unwrap(), at(0))
}

/// The names of the application's schedules, with the hour and the number of octets of each.
async fn of_the_application(store: &MemoryStore) -> Vec<(String, u8, usize)> {
    let mut all = Vec::new();
    for schedule in store.schedules(None).await.unwrap() {
        let Plan::Application { label, .. } = &schedule.plan else {
            panic!("a subscriber's");
        };
        all.push((
            label.to_string(),
            schedule.time.hour(),
            octets_of(&schedule),
        ));
    }
    all
}

#[tokio::test]
async fn the_schedules_of_the_application_come_along() {
    let world = World::new();
    let schedule = scheduled("morning", 7, "hello");
    world.from.put_schedule(&schedule).await.unwrap();
    assert_eq!(world.pass().await.schedules, 1);
    assert_eq!(world.to.schedules(None).await.unwrap(), [schedule]);
    assert!(world.pass().await.is_unchanged());
}

/// By `unschedule`, or by `forget` for its only user.
#[tokio::test]
async fn a_schedule_of_the_application_that_the_target_removed_is_not_written_again() {
    let world = World::new();
    for label in ["digest", "morning"] {
        let schedule = scheduled(label, 7, "hello");
        world.from.put_schedule(&schedule).await.unwrap();
    }
    assert_eq!(world.pass().await.schedules, 2);
    let digest = scheduled("digest", 7, "").name();
    assert!(world.to.remove_schedule(&digest).await.unwrap());
    for _ in 0..2 {
        assert!(world.pass().await.is_unchanged());
        let left = of_the_application(&world.to).await;
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].0, "morning");
    }
    // Also if the old servers, which still run, have changed it meanwhile.
    let changed = scheduled("digest", 8, "hello again");
    world.from.put_schedule(&changed).await.unwrap();
    assert!(world.pass().await.is_unchanged());
    // It has left both. What is new in the source is copied.
    world.from.remove_schedule(&digest).await.unwrap();
    assert!(world.pass().await.is_unchanged());
    world.from.put_schedule(&changed).await.unwrap();
    assert_eq!(world.pass().await.schedules, 1);
}

#[tokio::test]
async fn schedules_of_the_application_are_changed_and_removed_as_in_the_source() {
    let world = World::new();
    let (from, to) = (&world.from, &world.to);
    let put = async |store: &MemoryStore, label, hour, text| {
        let schedule = scheduled(label, hour, text);
        store.put_schedule(&schedule).await.unwrap();
    };
    let name = |label| scheduled(label, 0, "").name();
    for label in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        put(from, label, 7, "hello").await;
    }
    // The target had made one of its own before the first pass.
    put(to, "h", 9, "of the target").await;
    assert_eq!(world.pass().await.schedules, 7);
    // In the source: another time, another text, removed.
    put(from, "a", 8, "hello").await;
    put(from, "b", 7, "hello to all").await;
    from.remove_schedule(&name("c")).await.unwrap();
    // Only in the target: another text. In both: another one each; removed here and changed there.
    put(to, "d", 7, "of the target").await;
    put(from, "e", 8, "hello").await;
    put(to, "e", 9, "of the target").await;
    from.remove_schedule(&name("f")).await.unwrap();
    put(to, "f", 9, "of the target").await;
    // The same again, as servers that start do: only the drawn tag is another one.
    put(to, "g", 7, "hello").await;
    put(from, "h", 7, "hello").await;
    put(to, "i", 9, "of the target").await;
    assert_eq!(world.pass().await.schedules, 3);
    let of_target = octets_of(&scheduled("a", 0, "of the target"));
    let hello = octets_of(&scheduled("a", 0, "hello"));
    let expected = [
        ("a", 8, hello),
        ("b", 7, octets_of(&scheduled("a", 0, "hello to all"))),
        ("d", 7, of_target),
        ("e", 9, of_target),
        ("f", 9, of_target),
        ("g", 7, hello),
        ("h", 9, of_target),
        ("i", 9, of_target),
    ];
    let expected = expected.map(|(label, hour, octets)| (label.to_owned(), hour, octets));
    assert_eq!(of_the_application(to).await, expected);
    assert!(world.pass().await.is_unchanged());
    assert_eq!(of_the_application(to).await, expected);
}

fn octets_of(schedule: &Schedule) -> usize {
    let Plan::Application { message, .. } = &schedule.plan else {
        panic!("a subscriber's");
    };
    message.payload().map_or(0, |payload| payload.len())
}

/// What the source has sent of it is not sent again by the target, which is never moved back.
#[tokio::test]
async fn an_occurrence_of_the_application_that_the_source_has_sent_is_skipped() {
    let world = World::new();
    let schedule = scheduled("digest", 7, "x");
    world.from.put_schedule(&schedule).await.unwrap();
    world.pass().await;
    let day = std::time::Duration::from_secs(24 * 3600);
    let next = schedule.next_fire_at + day;
    let firing = Firing::new(&schedule, next, None);
    world.from.fire(&[firing], at(0)).await.unwrap();
    assert_eq!(world.pass().await.schedules, 1);
    let there = world.to.schedules(None).await.unwrap();
    assert_eq!(there[0].next_fire_at, next);
    let firing = Firing::new(&there[0], next + day, None);
    world.to.fire(&[firing], at(0)).await.unwrap();
    assert!(world.pass().await.is_unchanged());
    let there = world.to.schedules(None).await.unwrap();
    assert_eq!(there[0].next_fire_at, next + day);
}

#[tokio::test]
async fn another_text_of_a_daily_notification_comes_along() {
    let world = World::with_rows(1).await;
    let id = row(&world.from, 0).await.unwrap().id;
    let put = async |store: &MemoryStore, text| {
        let time = DailyTime::new(7, 0).unwrap();
        let daily = Daily::new(NotifyType::DirectNotification, time, Some(text)).unwrap();
        let schedule = daily.schedule(id, at(0)).unwrap();
        store.put_schedule(&schedule).await.unwrap();
    };
    let text = async || match &world.to.schedules(Some(id)).await.unwrap()[0].plan {
        Plan::Subscriber { message, .. } => message.clone().unwrap(),
        Plan::Application { .. } => panic!("the application's"),
    };
    put(&world.from, "a").await;
    world.pass().await;
    put(&world.from, "b").await;
    assert_eq!(world.pass().await.schedules, 1);
    assert_eq!(text().await, "b");
    assert!(world.pass().await.is_unchanged());
    // A later registration in the target has another one.
    subscribe(&world.to, &new(0), at(10)).await;
    put(&world.to, "c").await;
    assert!(world.pass().await.is_unchanged());
    assert_eq!(text().await, "c");
}
