//! A process that stands still within a transaction, or whose network is gone, holds up no other one for long.

use std::time::Duration;

use super::PostgresStore;
use super::origins::MAKE;
use crate::clock::Timestamp;
use crate::store::servers;
use crate::store::{DeliveryLedger as _, Pause, PauseReason};
use crate::subscription::Origin;

#[tokio::test]
async fn what_a_frozen_process_has_locked_is_free_again() {
    let Some(url) = servers::shared(servers::Kind::Postgres) else {
        return;
    };
    let name = format!("frozen_{}", uuid::Uuid::new_v4().simple());
    let builder = PostgresStore::builder().schema(&name).pool_size(2);
    let other = builder.clone().connect(&url).await.unwrap();
    let frozen = builder.statement_timeout(Duration::from_secs(3));
    let frozen = frozen.connect(&url).await.unwrap();
    let at = Timestamp::from_secs;
    let origin = Origin::parse("https://push.example.net").unwrap();
    let mut tx = frozen.database().begin().await.unwrap();
    let made = tx.query(MAKE, &[&vec![origin.as_str()]]).await;
    assert!(made.is_ok());
    // It waits for the end of the transaction that has inserted the origin, not as long as its own timeout.
    let pause = Pause::new(origin, at(60), PauseReason::RateLimited);
    other.pause(&pause, at(0)).await.unwrap();
    assert!(tx.end(Ok(())).await.is_err(), "it has ended");
    let object = other.database().pool.get().await.unwrap();
    let drop = format!("DROP SCHEMA \"{name}\" CASCADE");
    object.batch_execute(&drop).await.unwrap();
}
