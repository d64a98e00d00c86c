//! Turns within an origin: the commands of a claim depend on its limit only.

use tower_web_push::store::{ClaimRequest, DeliveryLedger as _, STEP, Settlement};

use super::many_origins::Work;
use super::world::{LEASE, at, claim, sending, store};
use crate::support::servers::{Kind, Server};

#[tokio::test]
async fn a_claim_costs_the_same_behind_many_broadcasts_and_rows() {
    const LIMIT: usize = 100;
    let Some(server) = Server::start(Kind::Redis, &["--appendonly", "no"]).await else {
        return;
    };
    let store = store(&server.url(), "web-push").await;
    let mut work = Work::of(&server).await;
    let mut costs = Vec::new();
    let (mut broadcasts, mut rows) = (0, 10);
    for more in [200, 2000] {
        for _ in 0..more {
            sending(&store, rows, 1).await;
        }
        // One broadcast of many rows beside them.
        sending(&store, 10 * more, 1).await;
        broadcasts += more + 1;
        claim(&store, LIMIT, at(1)).await;
        work.done("opening").await;
        let claimed = claim(&store, LIMIT, at(1)).await;
        assert_eq!(claimed.len(), LIMIT);
        costs.push(
            work.done(&format!("a claim behind {broadcasts} broadcasts"))
                .await,
        );
        rows = 1;
    }
    let [few, many] = costs[..] else { panic!() };
    assert!(many < few + few / 2, "{costs:?}");
}

#[tokio::test]
async fn retries_that_are_due_at_one_moment_become_ready_in_steps() {
    const ROWS: usize = 5 * STEP;
    let Some(server) = Server::start(Kind::Redis, &["--appendonly", "no"]).await else {
        return;
    };
    let store = store(&server.url(), "web-push").await;
    let id = sending(&store, ROWS, 3).await;
    let rows = claim(&store, ROWS, at(0)).await;
    assert_eq!(rows.len(), ROWS);
    let retries: Vec<_> = rows
        .iter()
        .map(|row| (row.token, Settlement::RetryAt(at(30))))
        .collect();
    store.settle(&retries, at(1)).await.unwrap();
    let mut work = Work::of(&server).await;
    assert_eq!(claim(&store, ROWS, at(30)).await.len(), STEP);
    let commands = work.done("a claim of retries").await;
    assert!(commands < 40 * STEP as u64, "{commands}");
    assert_eq!(store.next_due(at(30)).await.unwrap(), Some(at(30)));
    work.done("next_due").await;
    // What is postponed ends with its broadcast, in one command.
    let status = store.cancel(id, at(31)).await.unwrap().unwrap();
    assert_eq!(status.counts.cancelled + status.counts.pending, ROWS as u64);
    work.done("cancelling").await;
    for _ in 0..ROWS / STEP {
        store.cancel(id, at(31)).await.unwrap();
    }
    let status = store.cancel(id, at(31)).await.unwrap().unwrap();
    assert_eq!(status.counts.pending, STEP as u64, "the leased ones");
    let request = ClaimRequest::new(9, LEASE);
    let claims = store.claim(&request, at(40) + LEASE).await.unwrap();
    assert_eq!(claims.rows.len(), 0);
}
