//! Redis and Valkey: contracts, connecting, outages, clusters, backlogs.

mod backlog;
mod cluster;
mod connecting;
mod damage;
mod hammer;
mod hints;
mod holding;
mod many_origins;
mod outages;
mod sharing;
mod stored;
mod turns;
mod workers;
pub(crate) mod world;

use crate::support::servers::{self, Kind};
use tower_web_push::store::RedisStore;
use tower_web_push::store::conformance::Handles;

/// Two handles of one prefix, as in two processes.
async fn on(kind: Kind) -> Option<Handles<RedisStore>> {
    let url = servers::shared(kind)?;
    let prefix = world::fresh_prefix();
    let first = world::store(&url, &prefix).await;
    Some(Handles::two(first, world::store(&url, &prefix).await))
}

async fn on_redis() -> Option<Handles<RedisStore>> {
    on(Kind::Redis).await
}

async fn on_valkey() -> Option<Handles<RedisStore>> {
    on(Kind::Valkey).await
}

tower_web_push::store_conformance!(redis, on_redis);
tower_web_push::store_conformance!(valkey, on_valkey);
tower_web_push::portable_conformance!(redis_portable, on_redis);
tower_web_push::portable_conformance!(valkey_portable, on_valkey);
