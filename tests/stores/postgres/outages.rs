//! Servers that die and freeze, connections that break, calls that are dropped.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout};
use tower_web_push::broadcast::{BroadcastState, FinalOutcome};
use tower_web_push::store::{
    Cursor, DeliveryLedger as _, PostgresStore, ScheduleStore as _, Settled, Settlement,
    StoreError, StoreErrorKind, SubscriptionLimits, SubscriptionRef, SubscriptionStore as _,
};

use super::world::{
    LIMIT, Schema, at, broadcast, claim_of, client, delivery, sending, subscription, until,
};
use crate::support::servers::{Kind, Server};

/// A short timeout for tests.
const STATEMENT: Duration = Duration::from_secs(1);

/// A store with long timeouts, so that a slow machine does not end a call.
async fn patient(server: &Server) -> PostgresStore {
    let builder = PostgresStore::builder()
        .pool_size(2)
        .connect_timeout(LIMIT)
        .statement_timeout(LIMIT);
    until(async || builder.clone().connect(&server.url()).await.ok()).await
}

/// A store with short timeouts on existing tables.
async fn impatient(server: &Server) -> PostgresStore {
    let builder = PostgresStore::builder()
        .pool_size(2)
        .connect_timeout(STATEMENT)
        .statement_timeout(STATEMENT);
    until(async || builder.clone().connect(&server.url()).await.ok()).await
}

fn unavailable<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    assert_eq!(answer.unwrap_err().kind(), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn a_server_that_was_killed_and_started_again_is_used_again() {
    let Some(mut server) = Server::start(Kind::Postgres, &[]).await else {
        return;
    };
    let store = patient(&server).await;
    let new = sending(&store, 3).await;
    let claimed = store.claim(&claim_of(2), at(0)).await.unwrap().rows;
    server.kill().await;
    unavailable(store.status(new.id, at(1)).await);
    server.start_again().await;
    let status = until(async || store.status(new.id, at(1)).await.ok()).await;
    let status = status.unwrap();
    assert_eq!(
        (status.state, status.counts.pending),
        (BroadcastState::Sending, 3)
    );
    // Earlier claims stay valid, and no token is reused.
    let ends = Settlement::Finished(FinalOutcome::Accepted);
    let settled = store
        .settle(&[(claimed[0].token, ends)], at(1))
        .await
        .unwrap();
    assert_eq!(settled, [Settled::Done]);
    let later = store.claim(&claim_of(9), at(50)).await.unwrap().rows;
    assert_eq!(later.len(), 2);
    assert!(
        later
            .iter()
            .all(|row| row.token.fence > claimed[1].token.fence)
    );
}

#[tokio::test]
async fn calls_to_a_frozen_server_time_out() {
    let Some(server) = Server::start(Kind::Postgres, &[]).await else {
        return;
    };
    let patient = patient(&server).await;
    let new = sending(&patient, 3).await;
    let store = impatient(&server).await;
    server.freeze().await;
    let started = Instant::now();
    let asked = async {
        // On open connections and on new ones, several times.
        for _ in 0..2 {
            unavailable(store.status(new.id, at(1)).await);
            unavailable(store.claim(&claim_of(2), at(0)).await);
            let (new, limits) = (subscription(1), SubscriptionLimits::default());
            unavailable(store.upsert(&new, &limits, at(0)).await);
        }
    };
    timeout(Duration::from_secs(40), asked).await.unwrap();
    assert!(started.elapsed() > STATEMENT);
    server.thaw().await;
    let status = until(async || store.status(new.id, at(1)).await.ok()).await;
    assert_eq!(status.unwrap().counts.pending, 3);
    let which = SubscriptionRef::Key(subscription(1).subscription.endpoint().key());
    assert_eq!(patient.get(&[which]).await.unwrap(), [None]);
    let claimed = patient.claim(&claim_of(9), at(0)).await.unwrap();
    assert_eq!(claimed.rows.len(), 3);
}

/// Every call, dropped after any number of polls, has done all of its change or none, and the counts match the rows.
#[tokio::test]
async fn a_dropped_call_has_done_all_of_it_or_none() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let (mut done, mut undone) = (0, 0);
    for round in 0..60 {
        let new = broadcast();
        store.open(&new, at(0)).await.unwrap();
        let rows: Vec<_> = (0..50).map(|n| delivery(n, n % 3)).collect();
        // Dropped after this many answers of the server.
        let (cursor, end) = (Cursor::Start, Cursor::End);
        let enqueue = store.enqueue_page(new.id, &cursor, &rows, &end, at(0));
        dropped_after(round / 3, enqueue).await;
        // A call that waits for the row's lock returns after the dropped one has ended.
        store.cancel(new.id, at(0)).await.unwrap();
        let status = store.status(new.id, at(0)).await.unwrap().unwrap();
        let rows = schema
            .number("SELECT count(*) FROM web_push.delivery")
            .await;
        assert_eq!(rows, 0);
        match status.recipients {
            50 => done += 1,
            0 => undone += 1,
            other => panic!("{other} of 50"),
        }
        assert_eq!(status.counts.cancelled, status.recipients);
    }
    assert!(done > 0 && undone > 0, "{done} done, {undone} not");
}

/// Polls a call after this many wake-ups, then drops it.
async fn dropped_after<T>(looks: usize, call: impl Future<Output = T>) {
    let mut call = Box::pin(call);
    let mut left = looks;
    std::future::poll_fn(|context| {
        if left == 0 || call.poll_unpin(context).is_ready() {
            return std::task::Poll::Ready(());
        }
        left -= 1;
        std::task::Poll::Pending
    })
    .await;
}

#[tokio::test]
async fn a_call_that_is_dropped_while_it_waits_leaves_no_connection_behind() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema
        .builder()
        .pool_size(1)
        .connect(&schema.url)
        .await
        .unwrap();
    let new = sending(&store, 5).await;
    let locker = client(&schema.url).await;
    let lock = format!("BEGIN; SELECT * FROM {}.broadcast FOR UPDATE", schema.name);
    locker.batch_execute(&lock).await.unwrap();
    let cancel = timeout(Duration::from_millis(300), store.cancel(new.id, at(0))).await;
    assert!(cancel.is_err());
    // The only connection is replaced.
    assert_eq!(store.last_run().await.unwrap(), None);
    locker.batch_execute("ROLLBACK").await.unwrap();
    let status = store.status(new.id, at(0)).await.unwrap().unwrap();
    assert_eq!(status.state, BroadcastState::Sending);
}

#[tokio::test]
async fn a_lock_is_waited_for_until_the_statement_timeout() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let patient = schema.store().await;
    let new = sending(&patient, 5).await;
    let builder = schema.builder().pool_size(1).statement_timeout(STATEMENT);
    let store = until(async || builder.clone().connect(&schema.url).await.ok()).await;
    let locker = client(&schema.url).await;
    let lock = format!("BEGIN; SELECT * FROM {}.broadcast FOR UPDATE", schema.name);
    locker.batch_execute(&lock).await.unwrap();
    let error = store.cancel(new.id, at(0)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(format!("{error:?}").contains("57014"), "{error:?}");
    // Claims do not wait for locks.
    assert_eq!(
        patient.claim(&claim_of(2), at(0)).await.unwrap().rows.len(),
        2
    );
    locker.batch_execute("ROLLBACK").await.unwrap();
    let status = patient.cancel(new.id, at(0)).await.unwrap().unwrap();
    assert_eq!(status.counts.cancelled, 3);
}

#[tokio::test]
async fn a_connection_that_the_server_ended_is_replaced() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    // The name identifies the test's connections.
    let url = format!("{}?application_name={}", schema.url, schema.name);
    let store = schema.builder().pool_size(2).connect(&url).await.unwrap();
    store.record_run(at(1)).await.unwrap();
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{}'",
        schema.name
    );
    let ended = client(&schema.url).await.query(&end, &[]).await.unwrap();
    assert!(!ended.is_empty());
    // The first call may fail.
    let run = until(async || store.last_run().await.ok()).await;
    assert_eq!(run, Some(at(1)));
}
