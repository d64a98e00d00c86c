//! Daily notifications that the replaced server lost or sent twice: downtimes around midnight, crashes, several
//! loops.

use tower_web_push::schedule::{DailyTime, NotifyType, Plan, Schedule};
use tower_web_push::store::ScheduleStore as _;

use super::world::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A subscriber with a daily notification this long after the clock's 08:00.
async fn daily(world: &World, hour: u8, minute: u8, ahead: Duration) -> UserAgent {
    let (browser, record) = world.subscribe().await;
    let plan = Plan::Subscriber {
        subscription: record.id,
        notify_type: NotifyType::DirectNotification,
        message: Some(format!("{hour}:{minute}")),
    };
    let time = DailyTime::new(hour, minute).unwrap();
    let schedule = Schedule::new(plan, time, world.clock.now() + ahead);
    world.store.put_schedule(&schedule).await.unwrap();
    browser
}

async fn at_nine(world: &World, number: usize) -> Vec<UserAgent> {
    let mut browsers = Vec::new();
    for _ in 0..number {
        browsers.push(daily(world, 9, 0, HOUR).await);
    }
    browsers
}

fn received(browsers: &[UserAgent]) -> Vec<usize> {
    browsers.iter().map(|one| one.messages().len()).collect()
}

#[tokio::test]
async fn what_falls_between_midnight_and_the_days_first_run_is_sent_by_that_run() {
    let world = World::at(FCM).await;
    let browsers = [
        daily(&world, 23, 59, 16 * HOUR - MINUTE).await,
        daily(&world, 0, 0, 16 * HOUR).await,
        daily(&world, 0, 4, 16 * HOUR + 4 * MINUTE).await,
        daily(&world, 0, 6, 16 * HOUR + 6 * MINUTE).await,
    ];
    // The last run of a day is a minute before midnight, the first of the next day five minutes after it.
    world.clock.advance(16 * HOUR - 2 * MINUTE);
    world.settle().await;
    assert_eq!(received(&browsers), [0, 0, 0, 0]);
    world.clock.advance(7 * MINUTE);
    world.settle().await;
    assert_eq!(received(&browsers), [1, 1, 1, 0]);
    world.clock.advance(2 * MINUTE);
    world.settle().await;
    assert_eq!(received(&browsers), [1, 1, 1, 1]);
    // Further runs of that day send nothing.
    for _ in 0..23 {
        world.clock.advance(HOUR);
        world.settle().await;
    }
    assert_eq!(received(&browsers), [1, 1, 1, 1]);
    world.clock.advance(HOUR);
    world.settle().await;
    assert_eq!(received(&browsers), [2, 2, 2, 2]);
}

#[tokio::test]
async fn a_process_that_ends_after_firing_leaves_the_delivery_to_the_next() {
    let world = World::at(FCM).await;
    let browsers = at_nine(&world, 3).await;
    world.clock.advance(HOUR);
    let dying = world.replica().await;
    assert_eq!(dying.tick().await.unwrap().fired, 3);
    drop(dying);
    assert_eq!(received(&browsers), [0, 0, 0]);
    // The broadcasts are stored, and the fired schedules are not due any more.
    let now = world.clock.now();
    assert!(world.store.next_fire_at().await.unwrap() > Some(now));
    let next = world.replica().await;
    let tick = next.tick().await.unwrap();
    assert_eq!((tick.fired, tick.expanded, tick.attempted), (0, 0, 3));
    world.settle().await;
    assert_eq!(received(&browsers), [1, 1, 1]);
}

#[tokio::test]
async fn a_clock_that_is_set_back_after_firing_fires_no_date_again() {
    let world = World::at(FCM).await;
    let browsers = at_nine(&world, 2).await;
    let start = world.clock.now();
    world.clock.advance(HOUR + MINUTE);
    world.settle().await;
    for at in [start, start + HOUR, start + 20 * HOUR] {
        world.clock.set(at);
        world.settle().await;
        assert_eq!(received(&browsers), [1, 1]);
    }
    world.clock.set(start + DAY + HOUR + MINUTE);
    world.settle().await;
    assert_eq!(received(&browsers), [2, 2]);
}

#[tokio::test(start_paused = true)]
async fn two_loops_run_beside_each_other_and_each_occurrence_is_one_message() {
    let world = World::at(FCM).await;
    let browsers = at_nine(&world, 50).await;
    let other = world.replica().await;
    let mut stops = Vec::new();
    for push in [&world.push, &other] {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        stops.push(stop);
        tokio::spawn(push.run(async { stopped.await.unwrap_or_default() }));
    }
    for day in 1..=3 {
        world
            .clock
            .advance(if day == 1 { HOUR + MINUTE } else { DAY });
        let expected = 50 * day;
        world
            .service
            .wait_until(|counts| counts.accepted >= expected)
            .await;
        // Enough time for a repeat.
        tokio::time::sleep(5 * MINUTE).await;
        assert_eq!(world.service.counts().accepted, expected);
    }
    assert!(received(&browsers).iter().all(|number| *number == 3));
}

#[tokio::test]
async fn hundreds_that_are_due_together_are_on_their_way_within_a_few_steps() {
    let world = World::at(FCM).await;
    let browsers = at_nine(&world, 300).await;
    world.clock.advance(HOUR + MINUTE);
    let mut ticks = 0;
    while !world.push.tick().await.unwrap().is_idle() {
        ticks += 1;
    }
    assert!(received(&browsers).iter().all(|number| *number == 1));
    // Eight at once, since no answer takes any time.
    assert!(ticks < 45, "{ticks}");
}
