//! The store that the application and all workers share.

use std::sync::Arc;

use tower_web_push::store::{DeliveryLedger, SqliteStore, SubscriptionStore, VapidKeyStore};

use crate::Error;

/// The parts of a store that an engine needs: subscriptions, VAPID keys, and of the ledger the pauses of push
/// services and [`tally`](DeliveryLedger::tally), which counts their "gone" responses.
pub(crate) trait Store: SubscriptionStore + VapidKeyStore + DeliveryLedger {}

impl<S: SubscriptionStore + VapidKeyStore + DeliveryLedger> Store for S {}

pub(crate) async fn open(url: &str) -> Result<Arc<dyn Store>, Error> {
    match url.split_once("://") {
        // SQLite would make them part of the file's name.
        Some(("sqlite", path)) if path.contains(['?', '#', '%']) || path.ends_with(":memory:") => {
            Err("STORE_URL: only a file follows sqlite://".into())
        }
        Some(("sqlite", path)) => Ok(Arc::new(SqliteStore::open(path).await?)),
        #[cfg(feature = "postgres")]
        Some(("postgres" | "postgresql", _)) => {
            use tower_web_push::store::PostgresStore;
            Ok(Arc::new(PostgresStore::connect(url).await?))
        }
        #[cfg(feature = "redis")]
        Some(("redis" | "rediss", _)) => {
            use tower_web_push::store::RedisStore;
            Ok(Arc::new(RedisStore::connect(url).await?))
        }
        // Not the whole URL: it may contain a password.
        Some((scheme, _)) => Err(format!("STORE_URL: no {scheme} store in this build").into()),
        None => Err("STORE_URL: not sqlite://FILE".into()),
    }
}
