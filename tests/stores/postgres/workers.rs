//! Workers that end, are held for dead, or cannot write signs of life.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::NoTls;
use tower_web_push::broadcast::FinalOutcome;
use tower_web_push::store::deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tower_web_push::store::{
    ClaimRequest, Claimed, DeliveryLedger as _, PostgresStore, Settled, Settlement,
};

use super::world::{Schema, at, client, sending, until};

/// No test waits for the end of a lease.
fn claim(limit: usize) -> ClaimRequest {
    ClaimRequest::new(limit, Duration::from_secs(3600))
}

async fn claimed(store: &PostgresStore, secs: i64) -> Vec<Claimed> {
    store.claim(&claim(9), at(secs)).await.unwrap().rows
}

async fn settled(store: &PostgresStore, rows: &[Claimed]) -> Vec<Settled> {
    let accepted = Settlement::Finished(FinalOutcome::Accepted);
    let ends: Vec<_> = rows.iter().map(|row| (row.token, accepted)).collect();
    store.settle(&ends, at(9)).await.unwrap()
}

const WORKERS: &str = "SELECT count(*) FROM web_push.worker";

/// Waits until the last worker that has enlisted has written a beat more: claims name it from the answer to its first one on.
async fn next_beat(schema: &Schema) {
    let last = "SELECT coalesce((SELECT beat_at FROM web_push.worker ORDER BY id DESC LIMIT 1), 0)";
    until(async || (schema.number(last).await > 0).then_some(())).await;
    let first = schema.number(last).await;
    until(async || (schema.number(last).await != first).then_some(())).await;
}

/// Stores that have enlisted. The first claim of each waits for that for two seconds only.
async fn workers(schema: &Schema) -> (PostgresStore, PostgresStore) {
    (worker(schema, 1).await, worker(schema, 2).await)
}

async fn worker(schema: &Schema, number: i64) -> PostgresStore {
    let store = schema.store().await;
    assert!(claimed(&store, 0).await.is_empty());
    until(async || (schema.number(WORKERS).await == number).then_some(())).await;
    next_beat(schema).await;
    store
}

/// The epoch, once there is one: there is none while beats are late.
async fn epoch(store: &PostgresStore) -> u64 {
    until(async || store.epoch()).await
}

#[tokio::test]
async fn the_rows_of_a_worker_that_has_ended_are_due_long_before_its_lease_ends() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let (ended, other) = workers(&schema).await;
    sending(&ended, 5).await;
    let lost = claimed(&ended, 0).await;
    assert_eq!(lost.len(), 5);
    assert!(claimed(&other, 1).await.is_empty());
    assert_eq!(schema.number(WORKERS).await, 2);
    drop(ended);
    let again = until(async || Some(claimed(&other, 2).await).filter(|rows| !rows.is_empty()));
    let again = again.await;
    assert_eq!(again.len(), 5);
    assert!(again.iter().all(|row| row.attempt == 2));
    assert_eq!(settled(&other, &lost).await, [Settled::Lost; 5]);
    assert_eq!(settled(&other, &again).await, [Settled::Done; 5]);
    assert_eq!(schema.number(WORKERS).await, 1);
    assert_eq!(epoch(&other).await, 0);
}

/// Rows of a worker that has ended wait for a paused broadcast, and end with a cancelled one.
#[tokio::test]
async fn rows_of_a_dead_worker_are_put_aside_or_end() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let (ended, other) = workers(&schema).await;
    let paused = sending(&ended, 4).await;
    let cancelled = sending(&ended, 5).await;
    assert_eq!(claimed(&ended, 0).await.len(), 9);
    ended.hold(paused.id, true, at(1)).await.unwrap();
    ended.cancel(cancelled.id, at(1)).await.unwrap();
    assert!(claimed(&other, 1).await.is_empty());
    drop(ended);
    until(async || {
        assert!(claimed(&other, 2).await.is_empty());
        (schema.number(WORKERS).await == 1).then_some(())
    })
    .await;
    assert!(claimed(&other, 2).await.is_empty());
    let end = other.status(cancelled.id, at(2)).await.unwrap().unwrap();
    assert_eq!((end.counts.cancelled, end.counts.pending), (5, 0));
    let waits = other.status(paused.id, at(2)).await.unwrap().unwrap();
    assert_eq!(waits.counts.pending, 4);
    assert!(other.next_due(at(2)).await.unwrap() > Some(at(2)));
    other.hold(paused.id, false, at(3)).await.unwrap();
    let again = claimed(&other, 3).await;
    assert_eq!(again.len(), 4);
    assert!(again.iter().all(|row| row.attempt == 2));
}

/// A row that waits for its next attempt belongs to no process: the end of the one that made the last attempt does not make it due.
#[tokio::test]
async fn a_row_that_is_to_be_retried_outlives_its_worker() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let (ended, other) = workers(&schema).await;
    sending(&ended, 3).await;
    let rows = claimed(&ended, 0).await;
    let again = [
        (rows[0].token, Settlement::RetryAt(at(600))),
        (rows[1].token, Settlement::Deferred(at(700))),
    ];
    let settled = ended.settle(&again, at(0)).await.unwrap();
    assert_eq!(settled, [Settled::Done; 2]);
    assert!(claimed(&other, 1).await.is_empty());
    drop(ended);
    let due = until(async || Some(claimed(&other, 2).await).filter(|rows| !rows.is_empty()));
    let due: Vec<_> = due.await.iter().map(|row| row.token.key).collect();
    assert_eq!(due, [rows[2].token.key], "the one that was leased");
    assert_eq!(schema.number(WORKERS).await, 1);
    assert!(claimed(&other, 599).await.is_empty());
    assert_eq!(claimed(&other, 700).await.len(), 2);
}

/// After a restart of the only process.
#[tokio::test]
async fn a_worker_that_comes_later_finds_the_rows_of_the_one_before() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let ended = worker(&schema, 1).await;
    sending(&ended, 5).await;
    assert_eq!(claimed(&ended, 0).await.len(), 5);
    drop(ended);
    let next = schema.store().await;
    assert!(claimed(&next, 1).await.is_empty(), "nobody is judged yet");
    let rows = until(async || Some(claimed(&next, 2).await).filter(|rows| !rows.is_empty()));
    assert_eq!(rows.await.len(), 5);
}

#[tokio::test]
async fn a_worker_that_is_held_for_dead_enlists_again_in_another_epoch() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = worker(&schema, 1).await;
    sending(&store, 9).await;
    let few = store.claim(&claim(4), at(0)).await.unwrap().rows;
    assert_eq!(epoch(&store).await, 0);
    for (epoch, strike) in [
        (1, "UPDATE web_push.worker SET dead = true"),
        // As after a restore of a backup.
        (2, "DELETE FROM web_push.worker"),
    ] {
        schema.run(strike).await;
        until(async || (store.epoch() == Some(epoch)).then_some(())).await;
    }
    // A claim names the new number once it has beaten.
    next_beat(&schema).await;
    // Rows of before are its own until somebody else claims them, and it names the new number.
    let more = store.claim(&claim(4), at(1)).await.unwrap().rows;
    assert_eq!(more.len(), 4);
    let named = "SELECT count(DISTINCT worker) FROM web_push.delivery WHERE leased";
    assert_eq!(schema.number(named).await, 2);
    assert_eq!(settled(&store, &few).await, [Settled::Done; 4]);
}

#[tokio::test]
async fn a_store_that_claims_nothing_has_no_connection_more() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let named = format!("{}?application_name={}", schema.url, schema.name);
    let builder = schema.builder().pool_size(1);
    let store = builder.connect(&named).await.unwrap();
    sending(&store, 3).await;
    store.next_due(at(0)).await.unwrap();
    let connections = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}'",
        schema.name
    );
    assert_eq!(schema.number(&connections).await, 1);
    assert_eq!(schema.number(WORKERS).await, 0);
    assert_eq!(claimed(&store, 0).await.len(), 3);
    // The claim waits for that for two seconds only.
    until(async || (schema.number(WORKERS).await == 1).then_some(())).await;
    assert_eq!(schema.number(&connections).await, 2);
}

/// The server allows the pool and no connection more.
#[tokio::test]
async fn without_a_connection_for_signs_of_life_leases_end_by_their_time() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let role = format!("role_{}", schema.name);
    let admin = client(&schema.url).await;
    let make = format!(
        "CREATE ROLE {role} LOGIN CONNECTION LIMIT 1; CREATE SCHEMA {name} AUTHORIZATION {role}",
        name = schema.name
    );
    admin.batch_execute(&make).await.unwrap();
    let (_, rest) = schema.url.split_once('@').unwrap();
    let builder = schema.builder().pool_size(1);
    let url = format!("postgres://{role}@{rest}");
    let store = builder.connect(&url).await.unwrap();
    sending(&store, 5).await;
    let rows = store.claim(&claim(3), at(0)).await.unwrap().rows;
    assert_eq!(rows.len(), 3);
    let named = "SELECT count(*) FROM web_push.delivery WHERE worker IS NOT NULL";
    assert_eq!(schema.number(named).await, 0);
    assert_eq!(store.epoch(), Some(0));
    assert_eq!(settled(&store, &rows).await, [Settled::Done; 3]);
    // As soon as there is a connection, it enlists.
    let more = format!("ALTER ROLE {role} CONNECTION LIMIT 2");
    admin.batch_execute(&more).await.unwrap();
    until(async || (schema.number(WORKERS).await == 1).then_some(())).await;
    next_beat(&schema).await;
    assert_eq!(epoch(&store).await, 0);
    assert_eq!(claimed(&store, 1).await.len(), 2);
    assert_eq!(schema.number(named).await, 2);
    drop(store);
    while admin
        .batch_execute(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
        .await
        .is_err()
    {
        sleep(Duration::from_millis(20)).await;
    }
}

/// The application's pool gives the connection, for as long as the store lives.
#[tokio::test]
async fn a_store_on_the_applications_pool_is_a_worker_too() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let manager = Manager::from_config(
        schema.url.parse().unwrap(),
        NoTls,
        ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        },
    );
    let pool = Pool::builder(manager).max_size(2).build().unwrap();
    let store = schema.builder().with_pool(pool.clone()).await.unwrap();
    assert!(claimed(&store, 0).await.is_empty());
    next_beat(&schema).await;
    sending(&store, 5).await;
    assert_eq!(claimed(&store, 0).await.len(), 5);
    let named = "SELECT count(*) FROM web_push.delivery WHERE worker IS NOT NULL";
    assert_eq!(schema.number(named).await, 5);
    // It is not one of the pool's.
    let both = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop(both);
    drop(store);
    let other = schema.store().await;
    let rows = until(async || Some(claimed(&other, 2).await).filter(|rows| !rows.is_empty()));
    assert_eq!(rows.await.len(), 5);
}
