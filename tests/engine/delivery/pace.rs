//! The pace of a broadcast.

use std::num::NonZeroU32;

use tokio::time::{Instant, sleep};
use tower_web_push::Broadcast;
use tower_web_push::clock::Clock;

use super::world::*;

/// A clock that goes with the paused time of the runtime.
#[derive(Debug)]
struct RuntimeClock(Instant);

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_800_001_000) + self.0.elapsed()
    }
}

async fn enqueue(push: &WebPush, per_second: u32) -> BroadcastId {
    let paced = Broadcast::to(Audience::All, Message::new("x"));
    let paced = paced.pace(NonZeroU32::new(per_second).unwrap());
    push.enqueue_broadcast(paced).await.unwrap().broadcast
}

/// The number of messages that were accepted so far, after several replicas did what they could.
async fn accepted(world: &World, replicas: &[WebPush], id: BroadcastId) -> u64 {
    loop {
        let mut are_idle = true;
        for push in replicas {
            are_idle &= push.tick().await.unwrap().is_idle();
        }
        if are_idle {
            return world.status(id).await.counts.accepted;
        }
    }
}

#[tokio::test]
async fn several_replicas_keep_one_pace() {
    let world = World::at(FCM).await;
    world.subscribers(60).await;
    let replicas = [world.push.clone(), world.replica().await];
    let id = enqueue(&world.push, 40).await;
    assert_eq!(world.status(id).await.pace, NonZeroU32::new(40));
    let mut after = Vec::new();
    for _ in 0..6 {
        after.push(accepted(&world, &replicas, id).await);
        world.clock.advance(Duration::from_millis(249));
        assert_eq!(
            accepted(&world, &replicas, id).await,
            after[after.len() - 1]
        );
        world.clock.advance(Duration::from_millis(1));
    }
    assert_eq!(after, [10, 20, 30, 40, 50, 60]);
    accepted(&world, &replicas, id).await;
    assert_eq!(world.status(id).await.state, BroadcastState::Done);
}

#[tokio::test]
async fn an_outage_is_not_followed_by_a_burst() {
    let world = World::at(FCM).await;
    world.subscribers(100).await;
    let replicas = [world.push.clone(), world.replica().await];
    let id = enqueue(&world.push, 40).await;
    assert_eq!(accepted(&world, &replicas, id).await, 10);
    world.clock.advance(60 * MINUTE);
    assert_eq!(accepted(&world, &replicas, id).await, 30, "two pages");
    world.clock.advance(Duration::from_millis(250));
    assert_eq!(accepted(&world, &replicas, id).await, 40);
}

#[tokio::test]
async fn others_do_not_wait_for_the_pace_of_one() {
    let world = World::at(FCM).await;
    world.subscribers(20).await;
    let slow = enqueue(&world.push, 1).await;
    let fast = world.enqueue().await;
    world.settle().await;
    assert_eq!(world.status(fast).await.counts.accepted, 20);
    assert_eq!(world.status(slow).await.counts.accepted, 1);
}

/// Nothing else wakes the worker.
#[tokio::test(start_paused = true)]
async fn run_wakes_up_for_each_page() {
    let clock = RuntimeClock(Instant::now());
    let world = World::with(FCM, |builder| builder.clock(clock)).await;
    world.subscribers(21).await;
    let id = enqueue(&world.push, 20).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(world.push.run(async { stopped.await.unwrap_or_default() }));
    for (millis, expected) in [(125, 5), (250, 10), (250, 15), (250, 20), (250, 21)] {
        sleep(Duration::from_millis(millis)).await;
        assert_eq!(world.status(id).await.counts.accepted, expected);
    }
    assert_eq!(world.status(id).await.state, BroadcastState::Done);
    drop(stop);
    running.await.unwrap().unwrap();
}
