//! A database whose data is deleted while a server runs.

use http::StatusCode;
use tower_web_push::store::redis_rs;

use super::world::{World, until};
use crate::support::redis_client;
use crate::support::servers::Kind;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_writes_its_vapid_key_back_after_flushall() {
    let Some(world) = World::on(Kind::Redis).await else {
        return;
    };
    let server = world.start("axum_server").await;
    let key = server.vapid_key().await;
    world.subscribe(&key, 3).await;
    let mut connection = redis_client::connect(&world.database.url()).await;
    let flush = redis_rs::cmd("FLUSHALL");
    let flushed: String = flush.query_async(&mut connection).await.unwrap();
    assert_eq!(flushed, "OK");
    server.notify(0).await;
    until("it says so", async || {
        server
            .process
            .printed()
            .contains("the store lost the active VAPID key")
    })
    .await;
    until("it is ready", async || {
        server.ready().await == StatusCode::OK
    })
    .await;
    assert_eq!(server.process.terminate().await.code(), Some(0));

    let server = world.start("axum_server").await;
    assert_eq!(server.vapid_key().await, key);
    world.subscribe(&key, 2).await;
    let broadcast = server.notify(2).await;
    server.done(&broadcast, 2).await;
    assert_eq!(server.process.terminate().await.code(), Some(0));
}
