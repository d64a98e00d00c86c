//! SIGTERM in the middle of a broadcast.

use std::time::Instant;

use super::gate::Hold;
use super::world::{HOST, QUIET, World, until};

/// The host whose push service holds requests back. The other one always answers.
const HELD: &str = "127.0.0.1";
const EACH: usize = 800;

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_finish_and_none_begins() {
    stopped("axum_server").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_finish_and_none_begins_on_hyper_alone() {
    stopped("hyper_server").await;
}

async fn stopped(name: &str) {
    let world = World::new().await;
    let mut recipients = world.subscribe_at(HOST, EACH).await;
    recipients.extend(world.subscribe_at(HELD, EACH).await);
    let server = world.start(name).await;
    world.gate.hold(Hold::Requests);
    let broadcast = server.notify(recipients.len()).await;
    // From here on all requests are held, in any state.
    let some = EACH / 4;
    world.gate.let_pass(some);
    world
        .push_service
        .wait_until(|counts| counts.accepted >= some as u64)
        .await;
    until("both have some", async || {
        [HOST, HELD]
            .iter()
            .all(|host| world.gate.under_way_at(host) > 0)
    })
    .await;

    server.process.ask_to_end().await;
    until("it has heard", async || {
        server.process.printed().contains("draining")
    })
    .await;
    // Those at one origin continue.
    world.gate.hold(Hold::RequestsTo(HELD));
    let store = world.store().await;
    let (mut came, mut since) = (world.gate.came(), Instant::now());
    until("no request begins", async || {
        // Rows that are claimed and not in flight are not released yet.
        let leased = world.stats(&store).await.leased;
        if world.gate.came() > came || world.gate.under_way() as u64 != leased {
            (came, since) = (world.gate.came(), Instant::now());
        }
        since.elapsed() > QUIET
    })
    .await;
    let under_way = world.gate.under_way();
    let accepted = world.push_service.counts().accepted;
    assert!(under_way > 0, "it waits for these");
    world.gate.hold(Hold::Nothing);
    let status = server.process.ended().await;
    assert_eq!(status.code(), Some(0));

    // Requests in flight were finished, and none began.
    assert_eq!(world.gate.came(), came);
    let sent = world.push_service.counts().accepted;
    assert_eq!(sent, accepted + under_way as u64);
    // All outcomes are stored, and the other rows are not leased.
    assert_eq!(world.stats(&store).await.leased, 0);
    let rows = world.rows();
    let (left, sent): (Vec<_>, Vec<_>) = recipients
        .iter()
        .partition(|to| rows.contains_key(&to.endpoint().key()));
    assert!(left.iter().all(|to| world.accepted(to) == 0));
    assert!(sent.iter().all(|to| world.accepted(to) == 1));
    for host in [HOST, HELD] {
        let origin = world.origin(host);
        assert!(left.iter().any(|to| *to.endpoint().origin() == origin));
    }

    let server = world.start(name).await;
    server.done(&broadcast).await;
    assert!(recipients.iter().all(|to| world.accepted(to) == 1));
    assert_eq!(server.process.terminate().await.code(), Some(0));
}
