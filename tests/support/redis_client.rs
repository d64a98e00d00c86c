//! Connections to Redis that wait for a busy machine: by default an answer may take half a second.

use std::time::Duration;

use tower_web_push::store::redis_rs::aio::MultiplexedConnection;
use tower_web_push::store::redis_rs::{AsyncConnectionConfig, Client};

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn connect(url: &str) -> MultiplexedConnection {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(LIMIT))
        .set_response_timeout(Some(LIMIT));
    let client = Client::open(url).unwrap();
    let connected = client.get_multiplexed_async_connection_with_config(&config);
    connected.await.unwrap()
}
