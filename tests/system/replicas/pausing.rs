//! A broadcast that is paused at one server is paused at all of them.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;

use super::beats::Beats;
use super::traffic::now;
use super::world::{Replica, TOKEN, World, until};
use crate::support::servers::Kind;

/// More than two servers send before the pause.
const RECIPIENTS: usize = 6_000;
/// Every server obeys within a second, and a busy machine needs another one for the requests that have begun.
const OBEYED: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres() {
    every_server_obeys(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis() {
    every_server_obeys(Kind::Redis).await;
}

async fn every_server_obeys(kind: Kind) {
    let Some(world) = World::on(kind).await else {
        return;
    };
    let (one, other) = tokio::join!(world.start("axum_server"), world.start("hyper_server"));
    let key = one.vapid_key().await;
    world.subscribe(&key, RECIPIENTS).await;
    let beats = Beats::watch(kind, &world).await;
    let broadcast = one.notify(RECIPIENTS).await;
    world.traffic.taken(RECIPIENTS / 20).await;

    assert_eq!(change(&one, &broadcast, "paused").await, StatusCode::OK);
    let paused_at = now();
    let mut from = paused_at;
    // The time begins anew where the servers had none for their work.
    until("they had time to obey", async || {
        from = beats.calm_since(paused_at, now()) + OBEYED;
        now() >= from + QUIET
    })
    .await;
    let sent = world.traffic.number_taken();
    assert!(sent < RECIPIENTS, "all were sent before the pause");
    assert_eq!(world.traffic.came_between(from, now()), 0);
    until("all that was sent is counted", async || {
        let status = other.get(&broadcast).await.json();
        assert_eq!(status["state"], "paused", "{status}");
        status["counts"]["accepted"] == sent
    })
    .await;

    assert_eq!(change(&other, &broadcast, "sending").await, StatusCode::OK);
    other.done(&broadcast, RECIPIENTS).await;
    // None got it twice.
    assert_eq!(world.traffic.number_taken(), RECIPIENTS);
    for server in [one, other] {
        assert_eq!(server.process.terminate().await.code(), Some(0));
    }
}

async fn change(server: &Replica, broadcast: &str, state: &str) -> StatusCode {
    let call = server.api.call(Method::PATCH, broadcast).bearer(TOKEN);
    call.json(&json!({ "state": state })).send().await.status
}
