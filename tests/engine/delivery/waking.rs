//! What wakes a running worker that has nothing to do: its next poll is an hour away.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use tokio::time::{Instant, sleep};
use tower_web_push::clock::Clock;
use tower_web_push::schedule::{DailyTime, Plan, Schedule, ScheduleLabel};
use tower_web_push::store::{NewBroadcast, ScheduleStore as _};

use super::order::tampered_with;
use super::world::*;
use crate::support::tampered_store::TamperedStore;

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(86_400);

/// The clocks of a machine, which go with the paused time of the runtime. The wall clock can be set.
#[derive(Clone, Debug)]
struct Machine {
    began: Instant,
    /// How far the wall clock was set ahead, in milliseconds.
    ahead: Arc<AtomicI64>,
}

impl Machine {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            ahead: Arc::default(),
        }
    }

    fn set_ahead(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).unwrap();
        self.ahead.store(millis, Relaxed);
    }
}

impl Clock for Machine {
    fn now(&self) -> Timestamp {
        let millis = Timestamp::from_secs(1_800_001_000).as_millis() + self.ahead.load(Relaxed);
        Timestamp::from_millis(millis) + self.began.elapsed()
    }

    fn monotonic(&self) -> Option<Duration> {
        Some(self.began.elapsed())
    }
}

/// A worker that runs on a store with an outbox, and has had nothing to do for three seconds.
async fn idle(world: &World, clock: impl Clock + 'static) -> (Arc<TamperedStore>, WebPush) {
    let (store, push) = tampered_with(world, |builder| builder.clock(clock)).await;
    store.open_outbox();
    tokio::spawn(push.run(std::future::pending()));
    sleep(3000 * MILLISECOND).await;
    store.take_calls();
    (store, push)
}

/// Whenever that is: the worker looks by itself once a second.
#[tokio::test(start_paused = true)]
async fn a_gate_that_is_opened_is_sent_through_at_once() {
    for part in [200, 700] {
        let world = World::at(FCM).await;
        let (browser, _) = world.subscriber().await;
        let origin = Origin::parse(FCM).unwrap();
        let until = world.clock.now() + 60 * MINUTE;
        let pause = Pause::new(origin.clone(), until, PauseReason::RateLimited);
        world.store.pause(&pause, world.clock.now()).await.unwrap();
        let run = tokio::spawn(world.push.run(std::future::pending()));
        world.enqueue().await;
        sleep(MINUTE + part * MILLISECOND).await;
        assert_eq!(world.asked(), 0);
        assert!(world.push.open_gate(&origin).await.unwrap());
        assert_eq!(soon(browser.next()).await.text(), Some("x"));
        run.abort();
    }
}

/// Whoever reads the clock first: until the store's clock is asked, nothing is done.
#[tokio::test(start_paused = true)]
async fn a_jump_of_the_clock_is_compared_with_the_store_at_once() {
    let world = World::at(FCM).await;
    let machine = Machine::new();
    let (store, push) = idle(&world, machine.clone()).await;
    machine.set_ahead(DAY);
    push.status(BroadcastId::random()).await.unwrap();
    sleep(30 * MILLISECOND).await;
    let calls = store.take_calls();
    assert!(calls.contains(&"server_time"), "{calls:?}");
}

/// What another process writes may be an entry of the outbox.
#[tokio::test(start_paused = true)]
async fn a_hint_lets_the_outbox_be_looked_at() {
    let world = World::at(FCM).await;
    let (store, _push) = idle(&world, world.clock.clone()).await;
    looks_after(&store, async || store.hint()).await;
}

/// So may be what this one does.
#[tokio::test(start_paused = true)]
async fn a_wake_lets_the_outbox_be_looked_at() {
    let world = World::at(FCM).await;
    let (store, push) = idle(&world, world.clock.clone()).await;
    looks_after(&store, async || {
        assert!(!push.retry_outbox(1).await.unwrap());
    })
    .await;
}

async fn looks_after(store: &TamperedStore, something: impl AsyncFnOnce()) {
    sleep(30 * MILLISECOND).await;
    let calls = store.take_calls();
    assert!(!calls.contains(&"outbox"), "it looks anyway: {calls:?}");
    something().await;
    sleep(30 * MILLISECOND).await;
    let calls = store.take_calls();
    assert!(calls.contains(&"outbox"), "{calls:?}");
}

/// Deadlines of what is opened count from now, so that it waits until the time is known.
#[tokio::test(start_paused = true)]
async fn the_outbox_is_not_looked_at_while_clocks_disagree() {
    let world = World::at(FCM).await;
    let machine = Machine::new();
    let (store, _push) = idle(&world, machine.clone()).await;
    machine.set_ahead(DAY);
    for _ in 0..10 {
        store.hint();
        sleep(400 * MILLISECOND).await;
    }
    let calls = store.take_calls();
    assert!(!calls.contains(&"outbox"), "{calls:?}");
    machine.set_ahead(Duration::ZERO);
    sleep(1100 * MILLISECOND).await;
    assert!(store.take_calls().contains(&"outbox"));
}

/// Written by another process, right after this one has read the schedules.
#[tokio::test(start_paused = true)]
async fn a_hint_lets_the_schedules_be_read() {
    let world = World::at(FCM).await;
    let (browser, _) = world.subscriber().await;
    let (store, push) = tampered_with(&world, |builder| builder).await;
    tokio::spawn(push.run(std::future::pending()));
    sleep(100 * MILLISECOND).await;
    let plan = Plan::Application {
        label: ScheduleLabel::parse("soon").unwrap(),
        to: Audience::All,
        message: Message::new("x"),
    };
    let time = DailyTime::new(9, 0).unwrap();
    let schedule = Schedule::new(plan, time, world.clock.now());
    world.store.put_schedule(&schedule).await.unwrap();
    store.hint();
    assert_eq!(soon(browser.next()).await.text(), Some("x"));
}

/// A purge of many broadcasts is done in parts, each a second after the one before, and not at the next poll.
#[tokio::test(start_paused = true)]
async fn a_long_purge_of_broadcasts_goes_on_after_its_pause() {
    let world = World::at(FCM).await;
    let now = world.clock.now();
    for _ in 0..8_100 {
        let new = NewBroadcast::new(Audience::All, Message::new("x"), now + MINUTE);
        world.store.open(&new, now).await.unwrap();
        world.store.cancel(new.id, now).await.unwrap();
    }
    world.clock.advance(8 * DAY);
    let (store, push) = tampered_with(&world, |builder| builder).await;
    tokio::spawn(push.run(std::future::pending()));
    sleep(500 * MILLISECOND).await;
    let pruned = |calls: Vec<&str>| calls.iter().filter(|call| **call == "prune").count();
    // As many as are done in a row, of 1,000 broadcasts each.
    assert_eq!(pruned(store.take_calls()), 8);
    sleep(1000 * MILLISECOND).await;
    assert_eq!(pruned(store.take_calls()), 1);
}
