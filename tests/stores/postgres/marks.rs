//! Origins are marked as long as they have ready rows, and claims read marked ones only: a row without a mark would never be
//! sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tower_web_push::broadcast::FinalOutcome;
use tower_web_push::store::{
    ClaimRequest, Claims, Cursor, DeliveryLedger as _, Pause, PauseReason, PostgresStore,
    Settlement,
};

use super::world::{Schema, at, broadcast, claim_of, delivery};

/// More than the number of marks without rows that claims leave in place.
const ORIGINS: u32 = 100;
const ACCEPTED: Settlement = Settlement::Finished(FinalOutcome::Accepted);
const MARKS: &str = "SELECT count(*) FROM web_push.origin WHERE ready";
const HELD: &str = "SELECT count(*) FROM web_push.origin WHERE held";

/// One row at each origin.
async fn sending_to_all(store: &PostgresStore, secs: i64) {
    let new = broadcast();
    store.open(&new, at(secs)).await.unwrap();
    let rows: Vec<_> = (0..ORIGINS)
        .map(|number| delivery(number, number))
        .collect();
    let page = store.enqueue_page(new.id, &Cursor::Start, &rows, &Cursor::End, at(secs));
    page.await.unwrap();
}

async fn settle(store: &PostgresStore, claims: &Claims, settlement: Settlement, secs: i64) {
    let ends: Vec<_> = claims
        .rows
        .iter()
        .map(|row| (row.token, settlement))
        .collect();
    store.settle(&ends, at(secs)).await.unwrap();
}

#[tokio::test]
async fn origins_are_marked_while_they_have_ready_rows() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    sending_to_all(&store, 0).await;
    assert_eq!(schema.number(MARKS).await, i64::from(ORIGINS));
    let claims = store.claim(&claim_of(1000), at(0)).await.unwrap();
    assert_eq!(claims.rows.len(), ORIGINS as usize);
    settle(&store, &claims, Settlement::RetryAt(at(30)), 1).await;
    // All rows wait, so that no origin has a ready one.
    let none = store.claim(&claim_of(1000), at(2)).await.unwrap();
    assert_eq!((none.rows.len(), schema.number(MARKS).await), (0, 0));
    assert_eq!(store.next_due(at(2)).await.unwrap(), Some(at(30)));
    let claims = store.claim(&claim_of(1000), at(30)).await.unwrap();
    assert_eq!(claims.rows.len(), ORIGINS as usize);
    settle(&store, &claims, ACCEPTED, 31).await;
    store.claim(&claim_of(1000), at(31)).await.unwrap();
    assert_eq!(schema.number(MARKS).await, 0);
    assert_eq!(store.next_due(at(31)).await.unwrap(), None);

    sending_to_all(&store, 40).await;
    for number in 0..ORIGINS / 2 {
        let origin = delivery(number, number).origin;
        let pause = Pause::new(origin, at(500), PauseReason::RateLimited);
        store.pause(&pause, at(40)).await.unwrap();
    }
    let half = i64::from(ORIGINS / 2);
    let claims = store.claim(&claim_of(1000), at(41)).await.unwrap();
    assert_eq!(claims.rows.len(), half as usize);
    assert_eq!(schema.number(HELD).await, half);
    settle(&store, &claims, ACCEPTED, 42).await;
    assert_eq!(store.next_due(at(42)).await.unwrap(), Some(at(500)));
    assert_eq!(store.stats(at(42)).await.unwrap().oldest_due, Some(at(40)));
    // One pause is lifted, the others end.
    let origin = delivery(0, 0).origin;
    let lifted = Pause::new(origin, at(43), PauseReason::RateLimited);
    store.pause(&lifted, at(43)).await.unwrap();
    assert_eq!(store.next_due(at(43)).await.unwrap(), Some(at(43)));
    let claims = store.claim(&claim_of(1000), at(43)).await.unwrap();
    assert_eq!(claims.rows.len(), 1);
    let claims = store.claim(&claim_of(1000), at(500)).await.unwrap();
    assert_eq!(claims.rows.len(), half as usize);
    assert_eq!(schema.number(HELD).await, 0);
}

/// Marks are removed while rows are written, retried and released.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_is_left_without_a_mark() {
    const BROADCASTS: u32 = 150;
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let stores = [
        schema.store().await,
        schema.store().await,
        schema.store().await,
    ];
    sending_to_all(&stores[0], 0).await;
    let is_written = AtomicBool::new(false);
    let write = async {
        for number in 0..BROADCASTS {
            let new = broadcast();
            stores[0].open(&new, at(0)).await.unwrap();
            let rows = [
                delivery(2 * number, number * 7 % ORIGINS),
                delivery(2 * number + 1, number * 13 % ORIGINS),
            ];
            let page = stores[0].enqueue_page(new.id, &Cursor::Start, &rows, &Cursor::End, at(0));
            page.await.unwrap();
        }
        is_written.store(true, Ordering::SeqCst);
    };
    // Each row is retried once.
    let work = async |store: &PostgresStore| {
        let request = ClaimRequest::new(7, Duration::from_secs(45));
        let mut idle = 0;
        while idle < 20 || !is_written.load(Ordering::SeqCst) {
            let claims = store.claim(&request, at(0)).await.unwrap();
            idle = if claims.rows.is_empty() { idle + 1 } else { 0 };
            let ends: Vec<_> = claims
                .rows
                .iter()
                .map(|row| match row.attempt {
                    1 => (row.token, Settlement::RetryAt(at(0))),
                    _ => (row.token, ACCEPTED),
                })
                .collect();
            store.settle(&ends, at(0)).await.unwrap();
        }
    };
    tokio::join!(write, work(&stores[1]), work(&stores[2]));
    let left = "SELECT count(*) FROM web_push.delivery";
    assert_eq!(schema.number(left).await, 0);
    let flows = "SELECT count(*) FROM web_push.flow";
    assert_eq!(schema.number(flows).await, 0);
    assert_eq!(stores[0].next_due(at(0)).await.unwrap(), None);
}

/// Rows that are leased, or wait for their retries, are not indexed by origin. Very many of them are not read all.
#[tokio::test]
async fn no_origin_is_pruned_whose_rows_wait_behind_very_many() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let new = broadcast();
    store.open(&new, at(0)).await.unwrap();
    let rows = [delivery(0, 0), delivery(1, 1)];
    let page = store.enqueue_page(new.id, &Cursor::Start, &rows, &Cursor::End, at(0));
    page.await.unwrap();
    let claims = store.claim(&claim_of(9), at(0)).await.unwrap();
    settle(&store, &claims, Settlement::RetryAt(at(500)), 1).await;
    // At one of the origins.
    let sql = "INSERT INTO web_push.delivery (broadcast, key, origin, at, turn, band) \
               SELECT broadcast, sha256(n::text::bytea), origin, 0, NULL, band \
               FROM web_push.delivery, generate_series(1, 10000) AS n \
               WHERE origin = (SELECT min(id) FROM web_push.origin)";
    schema.run(sql).await;
    while store.prune(at(9000)).await.unwrap().more {}
    let origins = "SELECT count(*) FROM web_push.origin";
    assert_eq!(schema.number(origins).await, 2);
    schema
        .run("DELETE FROM web_push.delivery WHERE at = 0")
        .await;
    while store.prune(at(9000)).await.unwrap().more {}
    assert_eq!(schema.number(origins).await, 2);
    schema.run("DELETE FROM web_push.delivery").await;
    while store.prune(at(9000)).await.unwrap().more {}
    assert_eq!(schema.number(origins).await, 0);
}

/// A walk over them takes steps, and passes over none between two.
#[tokio::test]
async fn every_origin_without_rows_is_pruned() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let sql = "INSERT INTO web_push.origin (origin) \
               SELECT 'https://o' || n || '.example' FROM generate_series(1, 2500) AS n";
    schema.run(sql).await;
    let mut steps = 1;
    while store.prune(at(9)).await.unwrap().more {
        steps += 1;
    }
    let origins = "SELECT count(*) FROM web_push.origin";
    assert_eq!((schema.number(origins).await, steps), (0, 3));
}
