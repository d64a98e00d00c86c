//! Three servers, one of which is killed and one stopped in the middle, and a fourth that joins.
//!
//! `WEB_PUSH_TEST_RECIPIENTS=20000` sends to more of them.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tower_web_push::schedule::{DailyTime, NotifyType, Plan, Schedule};
use tower_web_push::store::SubscriptionRecord;
use tower_web_push::testing::RefusalReason;

use super::killed::ON_THE_WAY;
use super::traffic::now;
use super::world::{World, until};
use crate::support::servers::Kind;

/// The number of recipients with a daily notification that is due meanwhile.
const DAILY: usize = 300;
const PAUSE: Duration = Duration::from_secs(12);
/// For rows that were claimed before the pause was known.
const CLAIMED: Duration = Duration::from_secs(2);
/// The longest time between a request in flight at the kill, or with an unwritten outcome, and the kill: it times out
/// after 15 s.
pub(crate) const UNSETTLED: Duration = Duration::from_secs(20);
/// The lease is the request timeout (15 s) and 30 s: no other server sends a row before that a living one has claimed.
pub(crate) const LEASE: Duration = Duration::from_secs(45);

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres() {
    every_recipient_is_reached(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis() {
    every_recipient_is_reached(Kind::Redis).await;
}

async fn every_recipient_is_reached(kind: Kind) {
    let Some(world) = World::on(kind).await else {
        return;
    };
    let recipients = std::env::var("WEB_PUSH_TEST_RECIPIENTS").ok();
    let number: usize = recipients.map_or(8_000, |number| number.parse().unwrap());
    // All at once on an empty database: one of them makes the first key.
    let (first, killed, stopped) = tokio::join!(
        world.start("axum_server"),
        world.start("hyper_server"),
        world.start("axum_server"),
    );
    let key = first.vapid_key().await;
    assert_eq!(killed.vapid_key().await, key);
    assert_eq!(stopped.vapid_key().await, key);
    let recipients = world.subscribe(&key, number).await;

    due_soon(&world, &recipients[..DAILY]).await;
    let broadcast = first.notify(number).await;
    world.traffic.taken(number / 5).await;
    killed.process.kill().await;
    let killed_at = now();
    some_more(&world, number).await;
    assert_eq!(stopped.process.terminate().await.code(), Some(0));
    let fourth = world.start("hyper_server").await;
    assert_eq!(fourth.vapid_key().await, key);
    some_more(&world, number).await;
    // Another one, since the rest of the first is unknown.
    let another = fourth.notify(number).await;
    let to = world.pause(PAUSE).await;
    world.is_quiet([&first, &fourth]).await;
    let from = now() + CLAIMED;

    for server in [&fourth, &first] {
        server.done(&broadcast, number).await;
        server.done(&another, number).await;
    }
    // Daily notifications are other broadcasts.
    until("all is delivered", async || {
        world.traffic.by_delivery().len() == 2 * number + DAILY
    })
    .await;

    assert_eq!(
        world.traffic.came_between(from, to),
        0,
        "asked during its pause"
    );
    // Three deliveries to some, two to the others; and again only those that the killed server had in flight.
    let taken = world.traffic.by_delivery();
    let reached: HashSet<_> = taken.keys().map(|delivery| &delivery.path).collect();
    assert_eq!(reached.len(), number);
    let mut doubles = 0;
    for (delivery, times) in taken.iter().filter(|(_, times)| times.len() > 1) {
        doubles += 1;
        assert_eq!(times.len(), 2, "{delivery:?}");
        let (first, second) = (times[0].min(times[1]), times[0].max(times[1]));
        // What it had sent arrives a little later.
        assert!(
            first < killed_at + ON_THE_WAY && killed_at.since(first) < UNSETTLED,
            "{delivery:?} came at {first:?}, and the kill at {killed_at:?}"
        );
        assert!(second > killed_at, "{delivery:?}: {times:?}");
    }
    println!("{kind:?}: {doubles} doubles of {number}");
    let mut refusals = world.push_service.refusals();
    // The kill cuts requests off.
    refusals.retain(|refusal| refusal.reason() != RefusalReason::BrokenBody);
    assert_eq!(refusals, []);
    for server in [first, fourth] {
        assert_eq!(server.process.terminate().await.code(), Some(0));
    }
}

/// Waits for another tenth, or for the last one if they were accepted faster than servers start and stop.
async fn some_more(world: &World, number: usize) {
    let more = world.traffic.number_taken() + number / 10;
    world.traffic.taken(more.min(number)).await;
}

/// Stores daily notifications that are due while the broadcast is sent, for every server.
async fn due_soon(world: &World, recipients: &[SubscriptionRecord]) {
    let due = now() + Duration::from_secs(4);
    let minutes = due.as_secs() / 60;
    let time = |number: i64| u8::try_from(number).unwrap();
    let time = DailyTime::new(time(minutes / 60 % 24), time(minutes % 60)).unwrap();
    let plans = recipients.iter().map(|recipient| Plan::Subscriber {
        subscription: recipient.id,
        notify_type: NotifyType::DailyCheck,
        message: None,
    });
    let schedules = plans.map(|plan| Schedule::new(plan, time.clone(), due));
    let stored = stream::iter(schedules).map(async |schedule| {
        world.schedules.put_schedule(&schedule).await.unwrap();
    });
    stored.buffer_unordered(32).collect::<Vec<()>>().await;
}
