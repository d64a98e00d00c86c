//! The number of index entries that claims read: independent of the backlog, of the number of broadcasts and of the number
//! of origins with rows.
//!
//! The long form, with a million rows: `WEB_PUSH_TEST_ROWS=1000000 cargo test --all-features --lib cost_tests`

use std::time::Duration;

use super::PostgresStore;
use super::plans::{ended, forget_scans};
use crate::broadcast::FinalOutcome;
use crate::clock::Timestamp;
use crate::store::servers;
use crate::store::{ClaimRequest, DeliveryLedger as _, STEP, Settlement};
use crate::subscription::Origin;

const ROWS: &str = "WEB_PUSH_TEST_ROWS";

#[derive(Clone, Copy)]
struct Backlog {
    rows: i64,
    broadcasts: i64,
    origins: i64,
    /// The number of broadcasts that are cancelled and whose rows are still there.
    cancelled: i64,
    claims: i64,
    /// The rows of a claim.
    limit: usize,
    /// Whether the request admits the first origin only.
    is_named: bool,
}

fn rows() -> i64 {
    let rows = std::env::var(ROWS).ok();
    rows.map_or(50_000, |rows| rows.parse().unwrap())
}

/// Without autovacuum, whose ANALYZE keeps dead index entries from being passed over while it runs.
///
/// Broadcasts with rows at the first origin, one row at each other origin, and as many paused origins with a row each.
fn fill(backlog: Backlog) -> String {
    let Backlog {
        rows,
        broadcasts,
        origins,
        cancelled,
        ..
    } = backlog;
    format!(
        "SET synchronous_commit = off; \
         ALTER TABLE web_push.delivery SET (autovacuum_enabled = off); \
         INSERT INTO web_push.broadcast (id, created_at, due_at, deadline, expected, written, expanding, expand_at, \
             forget_when_over, band, is_cancelled) \
         SELECT int8send(i) || int8send(i), 1, 1, 9000000, {rows}, {rows}, false, 1, false, 1, i <= {cancelled} \
             FROM generate_series(1, {broadcasts}) AS i; \
         INSERT INTO web_push.content (broadcast, audience, payload, ttl, urgency, padding) \
         SELECT i, '\"all\"', 'x', 60, 'normal', 'none' FROM generate_series(1, {broadcasts}) AS i; \
         INSERT INTO web_push.origin (origin, ready, held, paused_until) \
         SELECT 'https://push' || i || '.example.net', true, i > {origins}, CASE WHEN i > {origins} THEN 8000000 END \
             FROM generate_series(1, 2 * {origins}) AS i; \
         INSERT INTO web_push.delivery (broadcast, key, origin, at, turn, band) \
         SELECT 1 + i % {broadcasts}, decode(md5(i::text) || md5(i::text), 'hex'), \
             CASE WHEN i <= 2 * {origins} THEN i ELSE 1 END, 1, 1 + i / {broadcasts}, 1 FROM generate_series(1, {rows}) AS i; \
         VACUUM ANALYZE web_push.delivery; VACUUM ANALYZE web_push.origin; VACUUM ANALYZE web_push.broadcast"
    )
}

/// Returns the number of index entries and rows that claims read, or `None` without a server.
async fn reads(backlog: Backlog) -> Option<i64> {
    // As long as a transaction of any other test runs, in any database, entries of deleted rows are counted again.
    let server = servers::Server::start(servers::Kind::Postgres, &[]).await?;
    let url = server.url();
    let name = format!("costs_{}", uuid::Uuid::new_v4().simple());
    let builder = PostgresStore::builder()
        .schema(&name)
        .statement_timeout(Duration::from_secs(120));
    let watching = builder.clone().connect(&url).await.unwrap();
    let watcher = watching.database().pool.get().await.unwrap();
    for sql in fill(backlog).split("; ") {
        let sql = sql.replace("web_push.", &format!("\"{name}\"."));
        watcher.batch_execute(&sql).await.unwrap();
    }
    forget_scans(&watcher, &name).await;
    let named = format!("{url}?application_name={name}");
    let store = builder.connect(&named).await.unwrap();
    let now = Timestamp::from_millis(2000);
    let mut short = 0;
    for _ in 0..backlog.claims {
        let mut request = ClaimRequest::new(backlog.limit, Duration::from_secs(9));
        if backlog.is_named {
            request.per_origin = 0;
            let origin = Origin::parse("https://push1.example.net").unwrap();
            request.origins.insert(origin, backlog.limit);
        }
        let claims = store.claim(&request, now).await.unwrap();
        short += i64::from(claims.rows.len() < backlog.limit);
        let ends: Vec<_> = claims
            .rows
            .iter()
            .map(|row| (row.token, Settlement::Finished(FinalOutcome::Accepted)))
            .collect();
        store.settle(&ends, now).await.unwrap();
    }
    // A claim that has passed over too many cancelled rows ends them.
    assert!(short <= backlog.claims / 4, "{short} claims were short");
    assert!(short == 0 || backlog.cancelled > 0);
    drop(store);
    ended(&watcher, &name).await;
    let sql = "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE schemaname = $1";
    let read = watcher.query_one(sql, &[&name]).await.unwrap().get(0);
    let sql = "SELECT sum(seq_tup_read)::bigint FROM pg_stat_user_tables WHERE schemaname = $1 AND relname <> 'meta'";
    let scanned: i64 = watcher.query_one(sql, &[&name]).await.unwrap().get(0);
    assert!(scanned < 100, "{scanned} rows were scanned");
    Some(read)
}

#[tokio::test]
async fn a_claim_reads_the_same_with_few_rows_and_with_very_many() {
    let few = Backlog {
        rows: 4_000,
        broadcasts: 200,
        origins: 100,
        cancelled: 0,
        claims: 8,
        limit: 64,
        is_named: false,
    };
    let many = Backlog {
        rows: rows(),
        broadcasts: 1_000,
        origins: rows() / 10,
        cancelled: 0,
        claims: 8,
        limit: 64,
        is_named: false,
    };
    let (Some(few), Some(many)) = (reads(few).await, reads(many).await) else {
        return;
    };
    println!("index entries read: {few} and {many}");
    // Rows of more broadcasts are claimed at once.
    assert!(many < 2 * few, "{few} and {many}");
}

/// Hosts of strangers that hold their share of places are not read, however many they are.
#[tokio::test]
async fn a_claim_for_one_origin_reads_no_others() {
    let few = Backlog {
        rows: 4_000,
        broadcasts: 200,
        origins: 10,
        cancelled: 0,
        claims: 8,
        limit: 64,
        is_named: true,
    };
    let many = Backlog {
        rows: rows(),
        origins: rows() / 10,
        ..few
    };
    let (Some(few), Some(many)) = (reads(few).await, reads(many).await) else {
        return;
    };
    println!("index entries read: {few} and {many}");
    assert!(many < few + few / 4, "{few} and {many}");
}

#[tokio::test]
async fn rows_of_cancelled_broadcasts_are_passed_over_with_a_bound() {
    let cancelled = Backlog {
        rows: rows(),
        broadcasts: 2,
        origins: 1,
        cancelled: 1,
        claims: 20,
        limit: 256,
        is_named: false,
    };
    let Some(reads) = reads(cancelled).await else {
        return;
    };
    println!("index entries read: {reads}");
    // A step of the cancellation, and the rows that one origin's claim looks at.
    let bound = 20 * i64::try_from(8 * STEP).unwrap();
    assert!(reads < bound, "{reads}");
}
