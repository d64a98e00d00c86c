//! PgBouncer between the store and the server.

use std::time::Duration;

use tower_web_push::broadcast::{BroadcastState, FinalOutcome};
use tower_web_push::store::{
    ClaimRequest, DeliveryLedger as _, PostgresStore, Settlement, StoreErrorKind,
};

use super::world::{Schema, at, client, sending, until};
use crate::support::servers::{Kind, Server};

/// A pooler in front of the shared server, and a store's URL through it.
async fn pooler(schema: &Schema, mode: &str) -> Option<(Server, String)> {
    let port = schema.url.rsplit_once(':')?.1.split('/').next()?;
    let server = Server::start(Kind::PgBouncer, &[port, mode]).await?;
    let url = server.url();
    Some((server, url))
}

async fn connect(
    schema: &Schema,
    url: &str,
) -> Result<PostgresStore, tower_web_push::store::StoreError> {
    let builder = PostgresStore::builder().schema(&schema.name);
    builder
        .connect_timeout(Duration::from_secs(30))
        .connect(url)
        .await
}

/// Works with a store: opens, claims and settles.
async fn deliver(store: &PostgresStore) {
    let new = sending(store, 3).await;
    let request = ClaimRequest::new(9, Duration::from_secs(9));
    let rows = store.claim(&request, at(0)).await.unwrap().rows;
    assert_eq!(rows.len(), 3);
    let accepted = Settlement::Finished(FinalOutcome::Accepted);
    let ends: Vec<_> = rows.iter().map(|row| (row.token, accepted)).collect();
    store.settle(&ends, at(1)).await.unwrap();
    let status = store.status(new.id, at(1)).await.unwrap().unwrap();
    assert_eq!(
        (status.state, status.counts.accepted),
        (BroadcastState::Done, 3)
    );
}

#[tokio::test]
async fn a_pooler_in_session_mode_works() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let Some((_server, url)) = pooler(&schema, "session").await else {
        return;
    };
    deliver(&connect(&schema, &url).await.unwrap()).await;
}

/// Whether a statement is unknown once another client has the server's connection on which it was prepared.
async fn loses_statements(url: &str) -> bool {
    let (one, other) = (client(url).await, client(url).await);
    let statement = one.prepare("SELECT 1").await.unwrap();
    other.batch_execute("BEGIN").await.unwrap();
    one.query(&statement, &[]).await.is_err()
}

/// Before version 1.21 PgBouncer loses prepared statements. Newer ones keep them, and the store works.
#[tokio::test]
async fn a_pooler_in_transaction_mode_works_or_is_refused_by_its_name() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let Some((_server, url)) = pooler(&schema, "transaction").await else {
        return;
    };
    let is_refused = loses_statements(&url).await;
    match connect(&schema, &url).await {
        Ok(store) => {
            assert!(!is_refused);
            deliver(&store).await;
            let beats = "SELECT max(beat_at) FROM web_push.worker";
            let first = schema.number(beats).await;
            until(async || (schema.number(beats).await > first).then_some(())).await;
            // There is none while beats are late.
            assert_eq!(until(async || store.epoch()).await, 0);
        }
        Err(error) => {
            assert!(is_refused, "{error:?}");
            assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
            let why = std::error::Error::source(&error).unwrap().to_string();
            assert!(why.contains("PgBouncer in transaction mode"), "{why}");
            assert!(why.contains("`max_prepared_statements`"), "{why}");
        }
    }
}
