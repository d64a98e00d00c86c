//! Callbacks that compose daily notifications: slow ones, failing ones, and those without a message.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use tower_web_push::error::BoxError;
use tower_web_push::schedule::{Compose, DailyTime, Schedule, ScheduleLabel, ScheduleName};
use tower_web_push::store::ScheduleStore as _;

use super::world::*;

const HOUR: Duration = Duration::from_secs(3600);
/// The number of schedules that are composed together.
const AT_ONCE: usize = 256;

/// A callback whose behaviour is in the schedule's name.
#[derive(Clone, Debug, Default)]
struct Obedient {
    asked: Arc<AtomicUsize>,
}

#[async_trait]
impl Compose for Obedient {
    async fn compose(&self, of: &Schedule, message: Message) -> Result<Option<Message>, BoxError> {
        self.asked.fetch_add(1, Relaxed);
        let ScheduleName::Application(label) = of.name() else {
            return Ok(Some(message));
        };
        match label
            .as_str()
            .trim_end_matches(|c: char| c.is_ascii_digit())
        {
            "panic" => panic!("a broken callback"),
            "hang" => std::future::pending().await,
            "slow" => sleep(Duration::from_secs(5)).await,
            "silent" => return Ok(None),
            _ => {}
        }
        Ok(Some(message))
    }
}

async fn world() -> (World, Obedient) {
    let callback = Obedient::default();
    let composer = callback.clone();
    let configure = |builder: WebPushBuilder| builder.compose(composer).poll_interval(SECOND);
    (World::with(FCM, configure).await, callback)
}

const SECOND: Duration = Duration::from_secs(1);

/// A message to everyone, this number of minutes past nine. The clock shows 08:00.
async fn schedule(push: &WebPush, name: &str, minute: u8) {
    let label = ScheduleLabel::parse(name).unwrap();
    let time = DailyTime::new(9, minute).unwrap();
    let message = Message::new(name.to_owned());
    push.schedule(label, time, Audience::All, message)
        .await
        .unwrap();
}

fn texts(browser: &UserAgent) -> Vec<String> {
    let texts = browser.messages();
    let texts = texts.iter().map(|message| message.text().unwrap());
    let mut texts: Vec<_> = texts.map(str::to_owned).collect();
    texts.sort();
    texts
}

#[tokio::test]
async fn a_callback_that_panics_delays_no_other() {
    let (world, _) = world().await;
    let (browser, _) = world.subscribe().await;
    for name in ["a", "panic", "z"] {
        schedule(&world.push, name, 0).await;
    }
    world.clock.advance(HOUR);
    let tick = world.push.tick().await.unwrap();
    assert_eq!((tick.fired, tick.skipped), (2, 1));
    world.settle().await;
    assert_eq!(texts(&browser), ["a", "z"]);
}

#[tokio::test(start_paused = true)]
async fn callbacks_that_hang_are_awaited_concurrently() {
    let (world, callback) = world().await;
    let (browser, _) = world.subscribe().await;
    for number in 0..100 {
        schedule(&world.push, &format!("hang{number}"), 0).await;
    }
    schedule(&world.push, "other", 0).await;
    world.clock.advance(HOUR);
    let began = Instant::now();
    let tick = world.push.tick().await.unwrap();
    assert!(began.elapsed() < MINUTE, "{:?}", began.elapsed());
    assert_eq!((tick.fired, tick.skipped), (1, 100));
    assert_eq!(callback.asked.load(Relaxed), 101);
    world.settle().await;
    assert_eq!(texts(&browser), ["other"]);
}

#[tokio::test]
async fn many_callbacks_without_a_message_are_not_an_idle_tick() {
    let (world, _) = world().await;
    let (browser, _) = world.subscribe().await;
    for number in 0..AT_ONCE {
        schedule(&world.push, &format!("silent{number}"), 0).await;
    }
    schedule(&world.push, "last", 1).await;
    world.clock.advance(HOUR + MINUTE);
    // Until a tick reports that there is nothing to do.
    world.settle().await;
    assert_eq!(texts(&browser), ["last"]);
}

#[tokio::test(start_paused = true)]
async fn a_schedule_ahead_makes_no_pause_longer() {
    let often = Duration::from_millis(100);
    let world = World::with(FCM, |builder| builder.poll_interval(often)).await;
    world.subscribe().await;
    schedule(&world.push, "ahead", 0).await;
    let (_stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let _running = tokio::spawn(world.push.run(async { stopped.await.unwrap_or_default() }));
    // Not at a full second.
    sleep(MINUTE + often * 3 / 2).await;
    let other = world.replica().await;
    let began = Instant::now();
    other
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    let service = &world.service;
    service.wait_until(|counts| counts.accepted == 1).await;
    assert!(began.elapsed() < 3 * often, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_look_that_takes_longer_than_the_pause_between_two_is_not_begun_again_and_holds_up_no_delivery()
 {
    let (world, callback) = world().await;
    let (browser, _) = world.subscribe().await;
    let (_stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let _running = tokio::spawn(world.push.run(async { stopped.await.unwrap_or_default() }));
    schedule(&world.push, "slow", 0).await;
    let began = Instant::now();
    world.clock.advance(HOUR);
    while callback.asked.load(Relaxed) == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    let other = Message::new("between");
    world.push.enqueue(Audience::All, other).await.unwrap();
    let accepted = async |number| {
        let service = &world.service;
        service.wait_until(|counts| counts.accepted == number).await;
        began.elapsed()
    };
    let took = accepted(1).await;
    assert_eq!(texts(&browser), ["between"]);
    assert!(took < 4 * SECOND, "{took:?}");
    let took = accepted(2).await;
    assert_eq!(texts(&browser), ["between", "slow"]);
    assert!(took < 10 * SECOND, "{took:?}");
    assert_eq!(callback.asked.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_while_it_composes_leaves_the_occurrence_to_the_next() {
    let (world, callback) = world().await;
    let (browser, _) = world.subscribe().await;
    schedule(&world.push, "slow", 0).await;
    world.clock.advance(HOUR);
    let due = world.store.next_fire_at().await.unwrap();
    let composer = callback.clone();
    let dying = world
        .replica_with(|builder| builder.compose(composer))
        .await;
    let cut = tokio::time::timeout(SECOND, dying.tick()).await;
    assert!(cut.is_err(), "it was composing");
    assert_eq!(callback.asked.load(Relaxed), 1);
    assert_eq!(world.store.next_fire_at().await.unwrap(), due);
    // It is dropped with the process.
    sleep(MINUTE).await;
    assert_eq!(world.store.next_fire_at().await.unwrap(), due);
    world.settle().await;
    assert_eq!(texts(&browser), ["slow"]);
    assert_eq!(callback.asked.load(Relaxed), 2);
}
