//! Broadcasts that are opened at the same time share a transaction, and nothing else.
//!
//! All calls of a test begin before the task runs that works on them, since they have one thread.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;
use tower_web_push::message::Message;
use tower_web_push::store::deadpool_postgres::{Manager, Pool};
use tower_web_push::store::{
    Cursor, DeliveryLedger as _, Idempotency, NewBroadcast, Opened, Page, PostgresStore,
    StoreError, StoreErrorKind,
};

use super::world::{LIMIT, Schema, at, broadcast, client, delivery, until};

/// Each transaction has another number, which every row that it inserts has.
const TRANSACTIONS: &str = "SELECT count(DISTINCT xmin::text) FROM web_push.broadcast";
const BROADCASTS: &str = "SELECT count(*) FROM web_push.broadcast";
/// The origins that each store here has opened broadcasts for.
const ORIGINS: u32 = 3;

fn to_one(number: u32, origin: u32) -> NewBroadcast {
    let mut new = broadcast();
    new.page = Some(Page::new(vec![delivery(number, origin)], Cursor::End));
    new.recipients = 1;
    new
}

/// The first broadcast for an origin goes alone.
async fn know(store: &PostgresStore) {
    for origin in 0..ORIGINS {
        let opened = store.open(&to_one(1_000, origin), at(0)).await.unwrap();
        assert_eq!(opened, Opened::New);
    }
}

async fn open_all(store: &PostgresStore, all: &[NewBroadcast]) -> Vec<Result<Opened, StoreError>> {
    join_all(all.iter().map(async |new| store.open(new, at(0)).await)).await
}

fn is_new(opened: &Result<Opened, StoreError>) -> bool {
    matches!(opened, Ok(Opened::New))
}

#[tokio::test]
async fn those_that_wait_share_a_transaction() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    know(&store).await;
    let all: Vec<_> = (0..40)
        .map(|number| to_one(number, number % ORIGINS))
        .collect();
    let opened = open_all(&store, &all).await;
    assert!(opened.iter().all(is_new), "{opened:?}");
    assert_eq!(schema.number(TRANSACTIONS).await, i64::from(ORIGINS) + 1);
    for new in &all {
        let status = store.status(new.id, at(1)).await.unwrap().unwrap();
        assert_eq!(status.counts.pending, 1, "{status:?}");
    }
    let repeated = store.open(&all[7], at(1)).await.unwrap();
    assert!(matches!(repeated, Opened::Repeat(_)), "{repeated:?}");
}

#[tokio::test]
async fn more_than_a_statement_takes_are_opened_in_several() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    know(&store).await;
    let of_many = |number: u32| {
        let rows = (0..90).map(|row| delivery(number * 100 + row, row % ORIGINS));
        let mut new = to_one(0, 0);
        new.page = Some(Page::new(rows.collect(), Cursor::End));
        new.recipients = 90;
        new
    };
    let large = (0..25).map(of_many);
    let all: Vec<_> = large
        .chain((0..150).map(|number| to_one(number, 1)))
        .collect();
    let opened = open_all(&store, &all).await;
    assert!(opened.iter().all(is_new), "{opened:?}");
    let rows = schema
        .number("SELECT count(*) FROM web_push.delivery")
        .await;
    assert_eq!(rows, i64::from(ORIGINS) + 25 * 90 + 150);
    // Eleven of the large ones, eleven, three with 61 others, and 64, and 25.
    assert_eq!(schema.number(TRANSACTIONS).await, i64::from(ORIGINS) + 5);
}

#[tokio::test]
async fn one_that_cannot_be_stored_fails_alone() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    know(&store).await;
    schema
        .run(
            "CREATE FUNCTION web_push.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF NEW.payload = 'bad' THEN RAISE EXCEPTION 'refused' USING ERRCODE = 'check_violation'; END IF; RETURN NEW; END $$; \
             CREATE TRIGGER refuse BEFORE INSERT ON web_push.content FOR EACH ROW EXECUTE FUNCTION web_push.refuse()",
        )
        .await;
    let mut all: Vec<_> = (0..10).map(|number| to_one(number, 1)).collect();
    let mut bad = to_one(90, 1);
    bad.message = Message::new("bad");
    all.insert(5, bad);
    let mut opened = open_all(&store, &all).await;
    opened.remove(5).unwrap_err();
    assert!(opened.iter().all(is_new), "{opened:?}");
    assert_eq!(schema.number(BROADCASTS).await, i64::from(ORIGINS) + 10);
}

/// L2 for calls at the same time.
#[tokio::test]
async fn of_two_with_one_id_the_second_is_a_repetition() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    know(&store).await;
    let new = to_one(1, 1);
    let opened = open_all(&store, &[to_one(2, 1), new.clone(), new]).await;
    assert_eq!(
        opened.iter().filter(|opened| is_new(opened)).count(),
        2,
        "{opened:?}"
    );
    assert!(matches!(opened[2], Ok(Opened::Repeat(_))), "{opened:?}");
}

/// The transaction of an application may hold the same key for as long as it likes.
#[tokio::test]
async fn one_that_waits_for_its_idempotency_key_keeps_no_other_waiting() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    know(&store).await;
    let application = client(&schema.url).await;
    let key = "BEGIN; INSERT INTO web_push.broadcast (id, created_at, due_at, deadline, expected, expand_at, idempotency_key, fingerprint, \
               forget_when_over, band, written, expanding) SELECT '\\x00112233445566778899aabbccddeeff', created_at, due_at, deadline, \
               expected, expand_at, 'the same', '\\x01', forget_when_over, band, written, expanding FROM web_push.broadcast LIMIT 1";
    let key = key.replace("web_push.", &format!("{}.", schema.name));
    application.batch_execute(&key).await.unwrap();
    let mut waiting = to_one(1, 1);
    waiting.idempotency = Some(Idempotency::new("the same", [1; 32]));
    let others = async {
        sleep(Duration::from_millis(50)).await;
        let others: Vec<_> = (2..5).map(|number| to_one(number, 1)).collect();
        let opened = timeout(LIMIT / 6, open_all(&store, &others)).await.unwrap();
        assert!(opened.iter().all(is_new), "{opened:?}");
        application.batch_execute("ROLLBACK").await.unwrap();
    };
    let (opened, ()) = tokio::join!(store.open(&waiting, at(0)), others);
    assert_eq!(opened.unwrap(), Opened::New);
}

#[tokio::test]
async fn one_whose_origin_is_locked_keeps_those_of_others_waiting_for_a_moment_only() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    know(&store).await;
    let other = client(&schema.url).await;
    let lock = "BEGIN; SELECT 1 FROM web_push.origin WHERE origin = 'https://push1.example.net' FOR UPDATE";
    let lock = lock.replace("web_push.", &format!("{}.", schema.name));
    other.batch_execute(&lock).await.unwrap();
    let locked = to_one(1, 1);
    let others = async {
        let others: Vec<_> = (2..5).map(|number| to_one(number, 2)).collect();
        // The lock is held for longer than that.
        let opened = timeout(LIMIT / 6, open_all(&store, &others)).await.unwrap();
        assert!(opened.iter().all(is_new), "{opened:?}");
        other.batch_execute("COMMIT").await.unwrap();
    };
    let (opened, ()) = tokio::join!(store.open(&locked, at(0)), others);
    assert_eq!(opened.unwrap(), Opened::New);
}

/// A pooler may have forgotten the prepared statements of a connection. The server says so, and the connection is not used again.
#[tokio::test]
async fn a_statement_that_is_prepared_no_more_fails_none_of_them() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let manager = Manager::new(schema.url.parse().unwrap(), NoTls);
    let pool = Pool::builder(manager).max_size(1).build().unwrap();
    let store = schema.builder().with_pool(pool.clone()).await.unwrap();
    know(&store).await;
    let all = |from| (from..from + 5).map(|number| to_one(number, 1));
    let opened = open_all(&store, &all(0).collect::<Vec<_>>()).await;
    assert!(opened.iter().all(is_new), "{opened:?}");
    let connection = pool.get().await.unwrap();
    connection.batch_execute("DEALLOCATE ALL").await.unwrap();
    drop(connection);
    let opened = open_all(&store, &all(5).collect::<Vec<_>>()).await;
    assert!(opened.iter().all(is_new), "{opened:?}");
}

/// Its place is given to the others, and nothing is sent for it.
#[tokio::test]
async fn a_call_that_is_dropped_before_its_statement_opens_nothing() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    know(&store).await;
    let dropped = to_one(99, 1);
    begin(store.open(&dropped, at(0)));
    let all: Vec<_> = (0..5).map(|number| to_one(number, 1)).collect();
    let opened = open_all(&store, &all).await;
    assert!(opened.iter().all(is_new), "{opened:?}");
    assert_eq!(store.status(dropped.id, at(1)).await.unwrap(), None);
}

/// Begins a call, and drops it.
fn begin(call: impl Future) {
    let mut call = pin!(call);
    let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
}

#[test]
fn the_end_of_a_runtime_keeps_no_call_of_another_waiting() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let store = second.block_on(schema.store());
    second.block_on(know(&store));
    // Its task never runs.
    first.block_on(async { begin(store.open(&to_one(1, 1), at(0))) });
    let waiting = thread::spawn({
        let store = store.clone();
        move || {
            let opened = async { timeout(LIMIT / 6, store.open(&to_one(2, 1), at(0))).await };
            second.block_on(opened)
        }
    });
    thread::sleep(Duration::from_millis(200));
    drop(first);
    assert_eq!(waiting.join().unwrap().unwrap().unwrap(), Opened::New);
}

#[test]
fn a_runtime_that_stands_still_keeps_calls_of_another_waiting_for_a_timeout_only() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    // The migration may take longer than the time limit of this test.
    drop(second.block_on(schema.store()));
    let builder = schema.builder().statement_timeout(Duration::from_secs(1));
    let store = second.block_on(until(async || {
        builder.clone().connect(&schema.url).await.ok()
    }));
    for origin in 0..ORIGINS {
        second.block_on(until(async || {
            store.open(&to_one(1_000, origin), at(0)).await.ok()
        }));
    }
    first.block_on(async { begin(store.open(&to_one(1, 1), at(0))) });
    // Three seconds each.
    let all_fail = (2..10).take_while(|number| {
        let opened = second.block_on(store.open(&to_one(*number, 1), at(0)));
        match opened {
            Ok(opened) => {
                assert_eq!(opened, Opened::New);
                false
            }
            Err(error) => {
                assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
                true
            }
        }
    });
    let failed = all_fail.count();
    assert!((1..=3).contains(&failed), "{failed}");
    drop(first);
}
