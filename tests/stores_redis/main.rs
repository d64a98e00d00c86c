//! Redis and Valkey against the contracts.
#![allow(clippy::unwrap_used, reason = "a test says what failed")]

#[path = "../support/servers.rs"]
mod servers;

use servers::Kind;
use tower_web_push::broadcast::BroadcastId;
use tower_web_push::store::RedisStore;
use tower_web_push::store::conformance::Handles;

/// Two handles under a prefix of their own, as two machines have them.
async fn on(kind: Kind) -> Option<Handles<RedisStore>> {
    let url = servers::shared(kind)?;
    let prefix = BroadcastId::random().to_string();
    let store = async || {
        RedisStore::builder()
            .prefix(&prefix)
            .connect(&url)
            .await
            .unwrap()
    };
    Some(Handles::two(store().await, store().await))
}

async fn on_redis() -> Option<Handles<RedisStore>> {
    on(Kind::Redis).await
}

async fn on_valkey() -> Option<Handles<RedisStore>> {
    on(Kind::Valkey).await
}

tower_web_push::store_conformance!(redis, on_redis);
tower_web_push::store_conformance!(valkey, on_valkey);
