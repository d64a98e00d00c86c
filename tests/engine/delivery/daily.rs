//! Daily notifications: fired once per local date, late if necessary, and never twice.

use std::collections::HashSet;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tower_web_push::Notification;
use tower_web_push::engine::SendErrorKind;
use tower_web_push::error::BoxError;
use tower_web_push::schedule::{
    Compose, DailyTime, NotifyType, Plan, Schedule, ScheduleLabel, Zone,
};
use tower_web_push::store::{BroadcastFilter, Failure, PortableStore as _, ScheduleStore as _};

use super::order::tampered;
use super::world::*;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn label(name: &str) -> ScheduleLabel {
    ScheduleLabel::parse(name).unwrap()
}

fn utc(hour: u8, minute: u8) -> DailyTime {
    DailyTime::new(hour, minute).unwrap()
}

/// The clock shows Friday, 08:00 UTC.
async fn world() -> World {
    World::at(FCM).await
}

/// A subscriber with a daily notification at 09:00.
async fn at_nine(world: &World) -> (UserAgent, SubscriptionRecord) {
    let (browser, record) = world.subscribe().await;
    let now = world.clock.now();
    let plan = Plan::Subscriber {
        subscription: record.id,
        notify_type: NotifyType::DailyCheck,
        message: None,
    };
    let schedule = Schedule::new(plan, utc(9, 0), now + HOUR);
    world.store.put_schedule(&schedule).await.unwrap();
    (browser, record)
}

#[tokio::test]
async fn it_fires_once_a_day_at_its_time() {
    let world = world().await;
    let (browser, _) = at_nine(&world).await;
    world.settle().await;
    assert_eq!(browser.messages().len(), 0);
    // Within the minute: each subscriber at a second of its own.
    world.clock.advance(HOUR + MINUTE);
    for day in 1..=3 {
        world.settle().await;
        world.settle().await;
        assert_eq!(browser.messages().len(), day);
        world.clock.advance(DAY);
    }
}

#[tokio::test]
async fn what_fell_into_a_downtime_over_midnight_is_sent_late() {
    let world = world().await;
    let (browser, _) = at_nine(&world).await;
    // A downtime from before its time until 05:00 the next day.
    world.clock.advance(21 * HOUR);
    let fresh = world.replica().await;
    let tick = fresh.tick().await.unwrap();
    assert_eq!((tick.fired, tick.skipped), (1, 0));
    world.settle().await;
    assert_eq!(browser.messages().len(), 1);
    // Today's occurrence is sent at its time.
    world.clock.advance(4 * HOUR + MINUTE);
    world.settle().await;
    assert_eq!(browser.messages().len(), 2);
}

#[tokio::test]
async fn after_a_longer_downtime_the_latest_is_sent_and_the_others_are_counted() {
    let world = world().await;
    let (browser, _) = at_nine(&world).await;
    world.clock.advance(10 * DAY + 2 * HOUR);
    let tick = world.push.tick().await.unwrap();
    assert_eq!((tick.fired, tick.skipped), (1, 10));
    world.settle().await;
    assert_eq!(browser.messages().len(), 1);
}

#[tokio::test]
async fn two_loops_at_once_and_a_crash_in_between_fire_once() {
    let world = world().await;
    let mut browsers = Vec::new();
    for _ in 0..600 {
        browsers.push(at_nine(&world).await.0);
    }
    world.clock.advance(HOUR);
    let other = world.replica().await;
    // One of them is dropped in the middle.
    let dying = world.replica().await;
    drop(tokio::time::timeout(Duration::from_millis(3), dying.tick()).await);
    let (a, b) = tokio::join!(world.push.tick(), other.tick());
    a.and(b).unwrap();
    // Its claims expire.
    world.clock.advance(MINUTE);
    for _ in 0..5 {
        let (a, b) = tokio::join!(world.push.tick(), other.tick());
        a.and(b).unwrap();
    }
    world.settle().await;
    let received: Vec<_> = browsers.iter().map(|one| one.messages().len()).collect();
    assert!(received.iter().all(|number| *number == 1), "{received:?}");
}

#[tokio::test]
async fn posting_the_same_time_again_keeps_what_is_due() {
    let world = world().await;
    let (browser, record) = at_nine(&world).await;
    world.clock.advance(2 * HOUR);
    // Its page posts it again before a poll.
    let plan = Plan::Subscriber {
        subscription: record.id,
        notify_type: NotifyType::DailyCheck,
        message: None,
    };
    let again = Schedule::new(plan, utc(9, 0), world.clock.now() + 22 * HOUR);
    world.store.put_schedule(&again).await.unwrap();
    world.settle().await;
    assert_eq!(browser.messages().len(), 1);
}

#[tokio::test]
async fn a_schedule_whose_subscriber_is_gone_goes_too_and_a_retired_ones_waits() {
    let world = world().await;
    let (_, deleted) = at_nine(&world).await;
    let (browser, retired) = at_nine(&world).await;
    let now = world.clock.now();
    let key = |record: &SubscriptionRecord| record.subscription.endpoint().key();
    let changes = [
        Change::delete(&deleted),
        Change::Retire {
            key: key(&retired),
            reason: tower_web_push::store::RetireReason::Gone,
            observed_at: now,
            failure: Failure::default(),
        },
    ];
    world.store.apply(&changes, now).await.unwrap();
    world.clock.advance(HOUR);
    let tick = world.push.tick().await.unwrap();
    assert_eq!(tick.fired, 0);
    let left = async |of: &SubscriptionRecord| world.store.schedules(Some(of.id)).await.unwrap();
    assert_eq!(left(&deleted).await, []);
    assert_eq!(left(&retired).await.len(), 1);
    // It subscribes again, and gets the next day's occurrence.
    let new = NewSubscription::new(browser.subscription().unwrap(), retired.vapid_key);
    let (limits, now) = (SubscriptionLimits::default(), world.clock.now());
    world.store.upsert(&new, &limits, now).await.unwrap();
    world.clock.advance(DAY + MINUTE);
    world.settle().await;
    assert_eq!(browser.messages().len(), 1);
}

/// A copy between stores writes the row and a schedule of its id while the worker removes one.
#[tokio::test(start_paused = true)]
async fn a_schedule_whose_subscriber_comes_meanwhile_stays() {
    for is_replaced in [false, true] {
        let world = world().await;
        let (_, row) = at_nine(&world).await;
        let now = world.clock.now();
        world
            .store
            .apply(&[Change::delete(&row)], now)
            .await
            .unwrap();
        let mut expected = world.store.schedules(Some(row.id)).await.unwrap();
        world.clock.advance(HOUR);
        let (store, push) = tampered(&world).await;
        store.delay("remove_unchanged_schedule", 2 * SECOND);
        let copied = async {
            tokio::time::sleep(SECOND).await;
            world.store.put(std::slice::from_ref(&row)).await.unwrap();
            if is_replaced {
                expected[0].time = utc(10, 0);
                world.store.put_schedule(&expected[0]).await.unwrap();
            }
        };
        let (ticked, ()) = tokio::join!(push.tick(), copied);
        ticked.unwrap();
        assert!(store.take_calls().contains(&"remove_unchanged_schedule"));
        let left = world.store.schedules(Some(row.id)).await.unwrap();
        assert_eq!(left.len(), 1, "{is_replaced}");
        assert_eq!(left[0].time, expected[0].time);
    }
}

/// It replaces the schedule while the worker looks whether the row is back.
#[tokio::test(start_paused = true)]
async fn a_schedule_that_comes_with_its_subscriber_is_not_replaced_by_the_former_one() {
    let world = world().await;
    let (_, row) = at_nine(&world).await;
    let now = world.clock.now();
    let gone = [Change::delete(&row)];
    world.store.apply(&gone, now).await.unwrap();
    let mut schedule = world.store.schedules(Some(row.id)).await.unwrap().remove(0);
    world.clock.advance(HOUR);
    let (store, push) = tampered(&world).await;
    store.delay("get", 2 * SECOND);
    let copied = async {
        tokio::time::sleep(3 * SECOND).await;
        assert_eq!(world.store.schedules(Some(row.id)).await.unwrap(), []);
        world.store.put(std::slice::from_ref(&row)).await.unwrap();
        schedule.time = utc(10, 0);
        world.store.put_schedule(&schedule).await.unwrap();
    };
    let (ticked, ()) = tokio::join!(push.tick(), copied);
    ticked.unwrap();
    let left = world.store.schedules(Some(row.id)).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].time, utc(10, 0));
}

/// It counts what it has fired itself.
#[tokio::test(start_paused = true)]
async fn a_process_does_not_count_what_another_one_has_fired_meanwhile() {
    let world = world().await;
    at_nine(&world).await;
    world.clock.advance(HOUR + MINUTE);
    let (store, push) = tampered(&world).await;
    store.delay("fire", 2 * SECOND);
    let other = async {
        tokio::time::sleep(SECOND).await;
        world.push.tick().await.unwrap().fired
    };
    let (late, fired) = tokio::join!(push.tick(), other);
    assert_eq!((late.unwrap().fired, fired), (0, 1));
    assert!(store.take_calls().contains(&"fire"));
}

/// Each has its own recipients, and the application can list the broadcast of its own one.
#[tokio::test]
async fn schedules_of_the_application_fire_beside_those_of_subscribers() {
    let world = world().await;
    let (first, _) = at_nine(&world).await;
    let (second, _) = world.subscribe().await;
    for (name, minute) in [("early", 59), ("late", 58)] {
        let time = utc(8, minute);
        let to = Audience::All;
        let scheduled = world
            .push
            .schedule(label(name), time, to, Message::new(name));
        scheduled.await.unwrap();
    }
    world.clock.advance(HOUR + MINUTE);
    for _ in 0..2 {
        world.settle().await;
    }
    let texts = |browser: &UserAgent| {
        let messages = browser.messages();
        let mut texts: Vec<_> = messages
            .iter()
            .map(|message| message.text().unwrap().to_owned())
            .collect();
        texts.sort_unstable();
        texts
    };
    assert_eq!(texts(&second), ["early", "late"]);
    assert_eq!(
        texts(&first),
        ["early", "late", r#"{"title":"DAILY_CHECK"}"#]
    );
    let filter = BroadcastFilter::default();
    let listed = world.push.broadcasts(&filter, None, 10).await.unwrap();
    assert_eq!(listed.broadcasts.len(), 2);
}

#[tokio::test]
async fn an_application_schedules_a_message_to_an_audience() {
    let world = world().await;
    let (first, _) = world.subscribe().await;
    let digest = async |message| {
        let to = Audience::All;
        world
            .push
            .schedule(label("digest"), utc(9, 0), to, Message::new(message))
            .await
    };
    digest("old").await.unwrap();
    digest("new").await.unwrap();
    assert_eq!(world.push.schedules().await.unwrap().len(), 1);
    // The audience is resolved then.
    let (second, _) = world.subscribe().await;
    world.clock.advance(HOUR);
    world.settle().await;
    for browser in [&first, &second] {
        let texts: Vec<_> = browser.messages();
        assert_eq!(texts.len(), 1);
        assert_eq!(texts[0].text(), Some("new"));
    }
    assert!(world.push.unschedule(&label("digest")).await.unwrap());
    assert!(!world.push.unschedule(&label("digest")).await.unwrap());
    world.clock.advance(DAY);
    world.settle().await;
    assert_eq!(first.messages().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_scheduled_is_refused() {
    let world = world().await;
    let schedule = async |time, message: Vec<u8>| {
        let to = Audience::All;
        let message = Message::new(message);
        let result = world.push.schedule(label("x"), time, to, message).await;
        result.unwrap_err().kind()
    };
    let large = vec![b'x'; 3994];
    assert_eq!(
        schedule(utc(9, 0), large).await,
        SendErrorKind::PayloadTooLarge
    );
    let nowhere = utc(9, 0).in_zone(Zone::stored("Europe/Atlantis"));
    assert_eq!(schedule(nowhere, vec![]).await, SendErrorKind::NeverDue);
    assert_eq!(world.push.schedules().await.unwrap(), []);
    for name in ["", "a b", "ä", &"x".repeat(65)] {
        assert!(ScheduleLabel::parse(name).is_err(), "{name}");
    }
}

/// A callback with an answer of the test, which records its calls.
#[derive(Clone, Debug, Default)]
struct Composer {
    asked: Arc<AtomicUsize>,
    says: Arc<Mutex<Option<&'static str>>>,
}

#[async_trait]
impl Compose for Composer {
    async fn compose(&self, _: &Schedule, message: Message) -> Result<Option<Message>, BoxError> {
        self.asked.fetch_add(1, Relaxed);
        let says = *self.says.lock().unwrap();
        match says {
            None => Ok(None),
            Some("fail") => Err("the database is down".into()),
            Some("hang") => std::future::pending().await,
            Some("large") => Ok(Some(Message::new(vec![0; 4000]))),
            Some("as it is") => Ok(Some(message)),
            Some(text) => Ok(Some(Message::new(text).with_ttl(Ttl::MAX))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_callback_decides_when_it_is_due_whether_to_send() {
    let composer = Composer::default();
    let callback = composer.clone();
    let world = World::with(FCM, |builder| builder.compose(callback)).await;
    let (browser, _) = at_nine(&world).await;
    world.clock.advance(HOUR + MINUTE);
    for (day, (says, fired, skipped)) in [
        (None, 0, 0),
        (Some("fail"), 0, 1),
        (Some("hang"), 0, 1),
        (Some("large"), 0, 1),
        (Some("3 unread"), 1, 0),
        (Some("as it is"), 1, 0),
    ]
    .into_iter()
    .enumerate()
    {
        *composer.says.lock().unwrap() = says;
        let tick = world.push.tick().await.unwrap();
        assert_eq!((tick.fired, tick.skipped), (fired, skipped), "{says:?}");
        assert_eq!(composer.asked.load(Relaxed), day + 1);
        world.settle().await;
        world.clock.advance(DAY);
    }
    let messages = browser.messages();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0].text(), Some("3 unread"));
    let ttl = messages[0].ttl().as_secs();
    assert!(
        ttl <= 86_400 && ttl > 86_400 - 120,
        "until the next one: {ttl}"
    );
    assert_eq!(messages[1].text(), Some(r#"{"title":"DAILY_CHECK"}"#));
}

/// With one tag, today's notification would replace yesterday's without an alert.
#[tokio::test]
async fn each_day_has_a_random_tag_of_its_own_and_keeps_one_that_was_given() {
    for (tag, days) in [("", 2), ("digest", 1)] {
        let world = world().await;
        let (browser, _) = world.subscribe().await;
        let digest = Notification::new("Good morning").tag(tag);
        let at_nine = utc(9, 0);
        world
            .push
            .schedule(label("digest"), at_nine, Audience::All, digest)
            .await
            .unwrap();
        for _ in 0..2 {
            world.clock.advance(DAY);
            world.settle().await;
            world.settle().await;
        }
        let messages = browser.messages();
        let distinct: HashSet<_> = messages.iter().map(|message| message.text()).collect();
        assert_eq!((messages.len(), distinct.len()), (2, days));
    }
}

#[tokio::test(start_paused = true)]
async fn a_running_worker_wakes_for_a_schedule_that_is_due_sooner_than_it_knew() {
    // The schedules were read a minute ago, or so lately that they are not read again without a reason.
    for idle in [MINUTE, Duration::from_millis(100)] {
        let world = world().await;
        let (browser, _) = world.subscribe().await;
        let (_stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let _running = tokio::spawn(world.push.run(async { stopped.await.unwrap_or_default() }));
        tokio::time::sleep(idle).await;
        let (time, to) = (utc(8, 1), Audience::All);
        let message = Message::new("x");
        world
            .push
            .schedule(label("soon"), time, to, message)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.clock.advance(MINUTE);
        let began = tokio::time::Instant::now();
        world
            .service
            .wait_until(|counts| counts.accepted == 1)
            .await;
        assert!(began.elapsed() <= MINUTE, "{idle:?}: {:?}", began.elapsed());
        assert_eq!(browser.messages().len(), 1);
    }
}
