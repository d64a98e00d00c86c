//! SIGKILL at each step of a delivery.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::sleep;
use tower_web_push::clock::{Clock as _, SystemClock, Timestamp};
use tower_web_push::subscription::{EndpointKey, Subscription};

use super::gate::Hold;
use super::world::{Broadcast, LOOK_AGAIN, Rows, Server, World, until};

const FEW: usize = 60;
/// Several pages of the expansion.
const MANY: usize = 3_000;

/// The state when a server was killed.
struct Remains {
    /// The messages of each recipient.
    accepted: HashMap<EndpointKey, u64>,
    /// The remaining rows.
    rows: Rows,
    /// When the first of its leases expires.
    leases_end: Timestamp,
    /// Whether the expansion was incomplete.
    is_expanding: bool,
}

impl Remains {
    /// Kills a server, and reads its state once all its requests have arrived.
    async fn of(world: &World, server: Server, recipients: &[Subscription]) -> Self {
        server.process.kill().await;
        world.gate.wait_until_empty().await;
        let accepted = recipients
            .iter()
            .map(|to| (to.endpoint().key(), world.accepted(to)))
            .collect();
        let sql = "SELECT count(*) FROM broadcast WHERE expanding = 1";
        let expanding: u32 = world
            .connection()
            .query_row(sql, [], |row| row.get(0))
            .unwrap();
        Self {
            accepted,
            rows: world.rows(),
            leases_end: world.leases_end(),
            is_expanding: expanding > 0,
        }
    }

    fn leased(&self) -> usize {
        self.rows.values().filter(|is_leased| **is_leased).count()
    }

    /// Returns the number of accepted messages whose outcome is not in the file.
    fn unsettled(&self) -> usize {
        let keys = self.rows.keys();
        keys.filter(|key| self.accepted[key] > 0).count()
    }

    /// Starts another server: it sends the remaining messages, each once, and nothing else. It does not wait for a lease to
    /// expire.
    async fn are_dealt_with(
        self,
        world: &World,
        name: &str,
        broadcast: &Broadcast,
        recipients: &[Subscription],
    ) {
        let server = world.start(name).await;
        until("what it had leased is due", async || {
            world.rows_of_the_dead().is_empty()
        })
        .await;
        assert!(SystemClock::new().now() < self.leases_end);
        server.done(broadcast).await;
        assert_eq!(world.push_service.counts().refused, 0);
        for to in recipients {
            let key = to.endpoint().key();
            let before = self.accepted[&key];
            let is_left = self.rows.contains_key(&key) || (self.is_expanding && before == 0);
            assert_eq!(world.accepted(to), before + u64::from(is_left));
            // A repeat only if it was in flight: neither waiting nor settled.
            assert!(before == 0 || self.rows.get(&key) != Some(&false));
        }
        assert!(world.rows().is_empty());
        assert_eq!(server.process.terminate().await.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_commit() {
    let world = World::new().await;
    let server = world.start("axum_server").await;
    let recipients = world.subscribe(&server, FEW).await;
    world.gate.hold(Hold::Requests);
    let broadcast = server.notify(FEW).await;
    let remains = Remains::of(&world, server, &recipients).await;
    assert_eq!(remains.unsettled(), 0);
    world.gate.hold(Hold::Nothing);
    remains
        .are_dealt_with(&world, "axum_server", &broadcast, &recipients)
        .await;
    assert!(recipients.iter().all(|to| world.accepted(to) == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn during_the_expansion() {
    let world = World::new().await;
    let recipients = world.subscribe_at(super::world::HOST, MANY).await;
    let server = world.start("axum_server").await;
    let store = world.store().await;
    world.gate.hold(Hold::Requests);
    let broadcast = server.notify(MANY).await;
    // While another process locks the file, the server waits between two pages.
    let mut other = world.connection();
    // SQLite itself would retry at growing intervals, and miss the moments between two pages.
    let wait = |_: i32| {
        std::thread::sleep(Duration::from_millis(1));
        true
    };
    other.busy_handler(Some(wait)).unwrap();
    let depth = loop {
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let depth = world.stats(&store).await.depth;
        if depth > 0 {
            break depth;
        }
        other.execute_batch("ROLLBACK").unwrap();
        sleep(LOOK_AGAIN).await;
    };
    assert!(depth < MANY as u64, "{depth}");
    let remains = Remains::of(&world, server, &recipients).await;
    drop(other);
    assert!(remains.is_expanding && remains.rows.len() == depth as usize);
    assert_eq!(remains.unsettled(), 0);
    world.gate.hold(Hold::Nothing);
    remains
        .are_dealt_with(&world, "axum_server", &broadcast, &recipients)
        .await;
    assert!(recipients.iter().all(|to| world.accepted(to) == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_claim_before_anything_is_sent() {
    // The kernel completes the TCP handshake, and the TLS handshake gets no response.
    let mut world = World::unanswered().await;
    let server = world.start("axum_server").await;
    let recipients = world.subscribe(&server, FEW).await;
    let store = world.store().await;
    let broadcast = server.notify(FEW).await;
    until("a claim", async || world.stats(&store).await.leased > 0).await;
    let remains = Remains::of(&world, server, &recipients).await;
    assert!(remains.leased() > 0);
    assert_eq!(remains.unsettled(), 0);
    world.open_push_service();
    remains
        .are_dealt_with(&world, "axum_server", &broadcast, &recipients)
        .await;
    assert!(recipients.iter().all(|to| world.accepted(to) == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_send_before_the_answer() {
    killed_before_the_answer("axum_server").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_send_before_the_answer_on_hyper_alone() {
    killed_before_the_answer("hyper_server").await;
}

async fn killed_before_the_answer(name: &str) {
    let world = World::new().await;
    let server = world.start(name).await;
    let recipients = world.subscribe(&server, FEW).await;
    let store = world.store().await;
    world.gate.hold(Hold::Answers);
    let broadcast = server.notify(FEW).await;
    // All that it claimed is accepted.
    until("all requests are there", async || {
        let leased = world.stats(&store).await.leased;
        leased > 0 && world.push_service.counts().accepted == leased
    })
    .await;
    let remains = Remains::of(&world, server, &recipients).await;
    let unsettled = remains.unsettled();
    assert!(unsettled > 0 && unsettled == remains.leased());
    world.gate.hold(Hold::Nothing);
    remains
        .are_dealt_with(&world, name, &broadcast, &recipients)
        .await;
    let twice = |to: &&Subscription| world.accepted(to) == 2;
    assert_eq!(recipients.iter().filter(twice).count(), unsettled);
}

/// A server is killed again and again, with requests in flight each time. `WEB_PUSH_TEST_KILLS=50` does it more often.
#[tokio::test(flavor = "multi_thread")]
async fn again_and_again() {
    let kills = std::env::var("WEB_PUSH_TEST_KILLS").ok();
    let kills: usize = kills.map_or(5, |kills| kills.parse().unwrap());
    let world = World::new().await;
    let recipients = world.subscribe_at(super::world::HOST, MANY).await;
    let mut server = world.start("axum_server").await;
    world.gate.hold(Hold::Requests);
    let broadcast = server.notify(MANY).await;
    let once = recipients.iter().map(|to| (to.endpoint().key(), 1));
    let mut expected: HashMap<_, u64> = once.collect();
    for _ in 0..kills {
        // Some are sent and settled. Then responses are held.
        let passed = MANY / (2 * kills);
        let accepted = world.push_service.counts().accepted + passed as u64;
        world.gate.let_pass(passed);
        world
            .push_service
            .wait_until(|counts| counts.accepted >= accepted)
            .await;
        world.gate.hold(Hold::Answers);
        until("requests are in flight", async || {
            world.gate.under_way() > 0 && world.push_service.counts().accepted > accepted
        })
        .await;
        let remains = Remains::of(&world, server, &recipients).await;
        assert!(remains.leased() > 0);
        for (key, is_leased) in &remains.rows {
            if remains.accepted[key] == expected[key] {
                assert!(is_leased);
                *expected.get_mut(key).unwrap() += 1;
            }
        }
        world.gate.hold(Hold::Requests);
        server = world.start("axum_server").await;
        until("what it had leased is due", async || {
            world.rows_of_the_dead().is_empty()
        })
        .await;
        assert!(SystemClock::new().now() < remains.leases_end);
    }
    world.gate.hold(Hold::Nothing);
    server.done(&broadcast).await;
    for to in &recipients {
        assert_eq!(world.accepted(to), expected[&to.endpoint().key()]);
    }
    assert_eq!(server.process.terminate().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_answer_before_the_settle() {
    let world = World::new().await;
    let server = world.start("axum_server").await;
    let recipients = world.subscribe(&server, FEW).await;
    let store = world.store().await;
    world.gate.hold(Hold::Requests);
    let broadcast = server.notify(FEW).await;
    until("a claim", async || world.stats(&store).await.leased > 0).await;
    // Another process locks the file from now on: no row is claimed, and no outcome is written.
    let other = world.connection();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let leased = world.stats(&store).await.leased;
    world.gate.hold(Hold::Nothing);
    until("all answers are there", async || {
        server.metric("web_push_attempts_total").await == leased as f64
    })
    .await;
    let remains = Remains::of(&world, server, &recipients).await;
    drop(other);
    let unsettled = remains.unsettled() as u64;
    assert_eq!((unsettled, remains.leased() as u64), (leased, leased));
    remains
        .are_dealt_with(&world, "axum_server", &broadcast, &recipients)
        .await;
    let twice = |to: &&Subscription| world.accepted(to) == 2;
    assert_eq!(recipients.iter().filter(twice).count() as u64, leased);
}
