//! The store in PostgreSQL, against real servers.
#![allow(clippy::unwrap_used, reason = "a test says what failed")]

mod cancelling;
mod hammer;
mod hints;
mod opening;
mod outages;
#[path = "../support/servers.rs"]
mod servers;
mod stored;
#[path = "../support/stored.rs"]
mod support;
mod tls;
mod world;

use tower_web_push::store::PostgresStore;
use tower_web_push::store::conformance::Handles;

use world::Schema;

/// Two pools on one fresh schema, as two machines have them.
async fn two_machines() -> Option<Handles<PostgresStore>> {
    let schema = Schema::fresh()?;
    let handles = Handles::two(schema.store().await, schema.store().await);
    Some(handles.keeping(schema))
}

tower_web_push::store_conformance!(conformance, two_machines);
