//! The database is stopped in the middle and started again.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use tokio::time::timeout;

use super::comings_and_goings::{LEASE, UNSETTLED};
use super::world::{TOKEN, World, path_of, until};
use crate::support::http_client::HttpClient;
use crate::support::servers::Kind;

const RECIPIENTS: usize = 5_000;
/// A request without a database gets an error within this time.
const SOON: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
enum End {
    Kill,
    Stop,
    /// Its connections stay open, without responses.
    Freeze,
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_killed_and_started_again() {
    servers_recover_by_themselves(Kind::Postgres, End::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_stopped_and_started_again() {
    servers_recover_by_themselves(Kind::Postgres, End::Stop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_killed_and_started_again() {
    servers_recover_by_themselves(Kind::Redis, End::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_does_not_answer_for_a_while() {
    servers_recover_by_themselves(Kind::Redis, End::Freeze).await;
}

async fn servers_recover_by_themselves(kind: Kind, end: End) {
    let Some(mut world) = World::on(kind).await else {
        return;
    };
    let (one, other) = tokio::join!(world.start("axum_server"), world.start("hyper_server"));
    let key = one.vapid_key().await;
    let recipients = world.subscribe(&key, RECIPIENTS).await;
    for server in [&one, &other] {
        until("it is ready", async || {
            server.ready().await == StatusCode::OK
        })
        .await;
    }
    let broadcast = one.notify(RECIPIENTS).await;
    let accepted = tokio::spawn(broadcasts_until_the_store_fails(one.api.clone()));
    world.traffic.taken(RECIPIENTS / 5).await;
    match end {
        End::Kill => world.database.kill().await,
        End::Stop => world.database.stop().await,
        End::Freeze => world.database.freeze().await,
    }
    for server in [&one, &other] {
        until("it is not ready", async || {
            server.ready().await == StatusCode::SERVICE_UNAVAILABLE
        })
        .await;
        assert_eq!(server.get("/web-push/ready").await.json()["store"], false);
        // The key is in memory, so a page gets it. Requests that store something fail.
        assert_eq!(server.vapid_key().await, key);
        let subscription = serde_json::to_value(&recipients[0].subscription).unwrap();
        let refused = timeout(SOON, server.api.post("/web-push/subscribe", &subscription));
        let refused = refused.await.expect("it hangs");
        assert_eq!(
            refused.status,
            StatusCode::SERVICE_UNAVAILABLE,
            "{refused:?}"
        );
        assert_eq!(refused.json()["success"], json!(false));
    }
    match end {
        End::Kill | End::Stop => world.database.start_again().await,
        End::Freeze => world.database.thaw().await,
    }
    for server in [&one, &other] {
        until("it is ready again", async || {
            server.ready().await == StatusCode::OK
        })
        .await;
        server.done(&broadcast, RECIPIENTS).await;
    }
    let taken = world.traffic.by_delivery();
    assert_eq!(taken.len(), RECIPIENTS);
    // Outcomes of that time were kept and written afterwards: only after longer than a lease another server sends
    // again.
    let mut doubles = 0;
    for (delivery, times) in taken.iter().filter(|(_, times)| times.len() > 1) {
        doubles += 1;
        assert_eq!(times.len(), 2, "{delivery:?}");
        let apart = times[0].max(times[1]).since(times[0].min(times[1]));
        assert!(apart > LEASE - UNSETTLED, "{delivery:?}: {times:?}");
    }
    println!("{kind:?}: {doubles} doubles of {RECIPIENTS}");
    let accepted = accepted.await.unwrap();
    assert!(!accepted.is_empty());
    for broadcast in accepted {
        let status = one.get(&broadcast).await.status;
        assert_eq!(
            status,
            StatusCode::OK,
            "{broadcast} was accepted and is lost"
        );
    }
    for server in [one, other] {
        assert_eq!(server.process.terminate().await.code(), Some(0));
    }
}

/// Accepts broadcasts without recipients, until the store fails.
async fn broadcasts_until_the_store_fails(api: HttpClient) -> Vec<String> {
    let mut accepted = Vec::new();
    loop {
        let call = api.call(Method::POST, "/web-push/notify").bearer(TOKEN);
        let to_nobody = json!({"title": "Hello", "audience": {"user": "nobody"}});
        let answer = call.json(&to_nobody).send().await;
        if answer.status != StatusCode::ACCEPTED {
            return accepted;
        }
        accepted.push(path_of(&answer));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_refuses_writes_and_every_recipient_is_reached() {
    let Some(world) = World::on(Kind::Redis).await else {
        return;
    };
    let (one, other) = tokio::join!(world.start("axum_server"), world.start("hyper_server"));
    let key = one.vapid_key().await;
    world.subscribe(&key, RECIPIENTS).await;
    let broadcast = one.notify(RECIPIENTS).await;
    world.traffic.taken(RECIPIENTS / 5).await;
    world.redis_memory(1).await;
    let call = one.api.call(Method::POST, "/web-push/notify").bearer(TOKEN);
    let refused = call.json(&json!({"title": "Hello"})).send().await;
    assert!(refused.status.is_server_error(), "{refused:?}");
    // Even if the others are started again.
    assert_eq!(one.process.terminate().await.code(), Some(0));
    let third = world.start("axum_server").await;
    for server in [&other, &third] {
        server.done(&broadcast, RECIPIENTS).await;
    }
    for server in [other, third] {
        assert_eq!(server.process.terminate().await.code(), Some(0));
    }
}
