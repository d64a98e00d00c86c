//! Two servers on one file.

use std::time::{Duration, Instant};

use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::store::{DeliveryLedger as _, Pause, PauseReason, SqliteStore};
use tower_web_push::subscription::Subscription;

use super::gate::Hold;
use super::world::{Broadcast, HOST, QUIET, Server, World, until};

const RECIPIENTS: usize = 2_000;

struct Two {
    world: World,
    store: SqliteStore,
    recipients: Vec<Subscription>,
    first: Server,
    second: Server,
    broadcast: Broadcast,
}

impl Two {
    /// A broadcast that the first has accepted, with requests of both in flight.
    async fn both_sending() -> Self {
        let world = World::new().await;
        let recipients = world.subscribe_at(HOST, RECIPIENTS).await;
        let first = world.start("axum_server").await;
        let second = world.start("hyper_server").await;
        let store = world.store().await;
        world.gate.hold(Hold::Requests);
        let broadcast = first.notify(RECIPIENTS).await;
        until("both are sending", async || {
            first.metric("web_push_in_flight").await > 0.0
                && second.metric("web_push_in_flight").await > 0.0
        })
        .await;
        Self {
            world,
            store,
            recipients,
            first,
            second,
            broadcast,
        }
    }

    fn got(&self, times: u64) -> usize {
        let got = |to: &&Subscription| self.world.accepted(to) == times;
        self.recipients.iter().filter(got).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_share_a_broadcast() {
    let two = Two::both_sending().await;
    two.world.gate.hold(Hold::Nothing);
    two.second.done(&two.broadcast).await;
    two.first.done(&two.broadcast).await;
    assert_eq!(two.got(1), RECIPIENTS);
    let mut finished = 0.0;
    for server in [&two.first, &two.second] {
        let own = server.metric("web_push_finished_total").await;
        assert!(own > 0.0);
        finished += own;
    }
    assert_eq!(finished, RECIPIENTS as f64);
    assert_eq!(two.world.push_service.counts().refused, 0);
    for server in [two.first, two.second] {
        assert_eq!(server.process.terminate().await.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_pause_holds_for_both_servers() {
    let two = Two::both_sending().await;
    let (world, store) = (&two.world, &two.store);
    // All claimed rows are in flight: nothing else can begin before a response frees a slot.
    until("all requests are there", async || {
        let leased = world.stats(store).await.leased;
        world.gate.under_way() as u64 == leased
    })
    .await;
    let origin = two.recipients[0].endpoint().origin().clone();
    let now = SystemClock::new().now();
    let pause = Pause::new(
        origin,
        now + Duration::from_secs(3),
        PauseReason::RateLimited,
    );
    store.pause(&pause, now).await.unwrap();
    let under_way = world.gate.under_way();
    // Both have free slots now.
    world.gate.hold(Hold::Nothing);
    two.second.done(&two.broadcast).await;
    assert_eq!(two.got(1), RECIPIENTS);
    let came = world.gate.traffic().came;
    assert_eq!(came.len(), RECIPIENTS);
    let during = came.iter().filter(|at| **at < pause.until).count();
    assert_eq!(during, under_way, "asked during its pause");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_continues_after_the_other_was_killed() {
    let Two {
        world,
        store,
        recipients,
        first,
        second,
        broadcast,
    } = Two::both_sending().await;
    // Some are accepted, but neither server gets all responses.
    world.gate.let_pass(RECIPIENTS / 4);
    world
        .push_service
        .wait_until(|counts| counts.accepted >= RECIPIENTS as u64 / 4)
        .await;
    world.gate.hold(Hold::Answers);
    until("all that is under way is held", async || {
        let held = world.gate.under_way() as f64;
        let of_first = first.metric("web_push_in_flight").await;
        of_first > 0.0 && of_first + second.metric("web_push_in_flight").await == held
    })
    .await;
    first.process.kill().await;
    world.gate.hold(Hold::Nothing);
    // The last remaining rows are those that the killed server had claimed.
    let (mut depth, mut since) = (u64::MAX, Instant::now());
    until("the rest is done", async || {
        let stats = world.stats(&store).await;
        let in_flight = second.metric("web_push_in_flight").await;
        if stats.depth != stats.leased || in_flight > 0.0 || stats.depth != depth {
            (depth, since) = (stats.depth, Instant::now());
        }
        since.elapsed() > QUIET
    })
    .await;
    let left = world.rows();
    assert!(!left.is_empty());
    let taken = |to: &&Subscription| {
        assert!(world.accepted(to) <= 1);
        world.accepted(to) == 1 && left.contains_key(&to.endpoint().key())
    };
    let unsettled = recipients.iter().filter(taken).count();
    assert_eq!(world.end_leases(), left.len());
    second.done(&broadcast).await;
    let got = |times| {
        recipients
            .iter()
            .filter(|to| world.accepted(to) == times)
            .count()
    };
    assert_eq!((got(1), got(2)), (RECIPIENTS - unsettled, unsettled));
    assert_eq!(second.process.terminate().await.code(), Some(0));
}
