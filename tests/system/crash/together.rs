//! Two servers on one file.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::sleep;
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::store::{DeliveryLedger as _, Pause, PauseReason, SqliteStore};
use tower_web_push::subscription::{EndpointKey, Subscription};

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
        recipients,
        first,
        second,
        broadcast,
        ..
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
    // While another process locks the file, the second server does not take the rows of the first one.
    let other = world.connection();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    first.process.kill().await;
    let left = until_known(&world).await;
    let leases_end = world.leases_end();
    let accepted = |to: &&Subscription| {
        assert!(world.accepted(to) <= 1);
        world.accepted(to) == 1 && left.contains(&to.endpoint().key())
    };
    let unsettled = recipients.iter().filter(accepted).count();
    assert!(unsettled > 0);
    drop(other);
    world.gate.hold(Hold::Nothing);
    until("what it had leased is due", async || {
        world.rows_of_the_dead().is_empty()
    })
    .await;
    assert!(SystemClock::new().now() < leases_end);
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

/// A process that is stopped may continue, so its rows are not taken before their leases expire.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_stopped_for_a_while_keeps_its_rows() {
    let two = Two::both_sending().await;
    two.first.process.signal("STOP").await;
    let rows = two.world.rows();
    // The second server looks once a second, and at the other one's rows each time that it claims.
    sleep(3 * QUIET).await;
    assert!(two.world.rows_of_the_dead().is_empty());
    let still = two.world.rows();
    assert!(rows.iter().filter(|row| *row.1).all(|row| still[row.0]));
    two.first.process.signal("CONT").await;
    two.world.gate.hold(Hold::Nothing);
    two.first.done(&two.broadcast).await;
    assert_eq!(two.got(1), RECIPIENTS);
    for server in [two.first, two.second] {
        assert_eq!(server.process.terminate().await.code(), Some(0));
    }
}

/// Waits until the kernel has released the lock of the killed server. Returns its rows.
async fn until_known(world: &World) -> HashSet<EndpointKey> {
    let mut rows = HashSet::new();
    until("the killed server is dead", async || {
        rows = world.rows_of_the_dead();
        !rows.is_empty()
    })
    .await;
    rows
}
