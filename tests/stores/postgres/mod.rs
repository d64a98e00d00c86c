//! The store in PostgreSQL, against real servers.

mod cancelling;
mod damage;
mod hammer;
mod hints;
mod locks;
mod marks;
mod numbers;
mod opening;
mod opening_together;
mod outages;
mod outbox;
mod pooler;
mod reading_together;
mod refusals;
mod settling;
mod stored;
mod subscribing;
mod tls;
mod turns;
mod workers;
pub(crate) mod world;

use tower_web_push::store::PostgresStore;
use tower_web_push::store::conformance::Handles;

use world::Schema;

/// Two pools on one fresh schema, as in two processes.
async fn two_machines() -> Option<Handles<PostgresStore>> {
    let schema = Schema::fresh()?;
    let handles = Handles::two(schema.store().await, schema.store().await);
    Some(handles.keeping(schema))
}

tower_web_push::store_conformance!(conformance, two_machines);
tower_web_push::portable_conformance!(portable, two_machines);
