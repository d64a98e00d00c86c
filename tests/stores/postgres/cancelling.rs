//! A cancellation takes effect at once, and any process may end its rows afterwards.

use tokio_postgres::Client;
use tower_web_push::broadcast::{BroadcastId, BroadcastState, BroadcastStatus, FinalOutcome};
use tower_web_push::store::{
    Cursor, DeliveryLedger as _, NewBroadcast, PageWrite, PostgresStore, STEP, Settled, Settlement,
};

use super::world::{Schema, at, broadcast, claim_of, client, delivery, sending, until};

const ACCEPTED: Settlement = Settlement::Finished(FinalOutcome::Accepted);

async fn status(store: &PostgresStore, id: BroadcastId) -> BroadcastStatus {
    let status = store.status(id, at(1)).await.unwrap().unwrap();
    let counts = status.counts;
    assert_eq!(counts.pending + counts.finished(), status.recipients);
    status
}

/// Blocks changes of deliveries until it is dropped.
async fn holding(schema: &Schema) -> Client {
    let client = client(&schema.url).await;
    let lock = format!("BEGIN; LOCK TABLE {}.delivery IN SHARE MODE", schema.name);
    client.batch_execute(&lock).await.unwrap();
    client
}

/// Cancels with a call that is dropped before it ends a row.
async fn stopped(schema: &Schema, store: &PostgresStore, id: BroadcastId) {
    let held = holding(schema).await;
    let cancel = tokio::spawn({
        let store = store.clone();
        async move { store.cancel(id, at(1)).await }
    });
    // It is in effect although no row has ended.
    until(async || {
        let now = status(store, id).await;
        (now.state == BroadcastState::Cancelled).then_some(())
    })
    .await;
    // Its server process ends first: otherwise its rows would still be locked.
    let waiting = "FROM pg_locks WHERE relation = 'web_push.delivery'::regclass AND mode = 'RowExclusiveLock' \
                   AND NOT granted";
    let count = format!("SELECT count(*) {waiting}");
    until(async || (schema.number(&count).await == 1).then_some(())).await;
    cancel.abort();
    assert!(cancel.await.unwrap_err().is_cancelled());
    let end = format!("SELECT count(pg_terminate_backend(pid)) {waiting}");
    assert_eq!(schema.number(&end).await, 1);
    until(async || (schema.number(&count).await == 0).then_some(())).await;
    held.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn what_a_canceller_leaves_behind_is_never_sent_and_claims_end_it() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let (store, other) = (schema.store().await, schema.store().await);
    let cancelled = sending(&store, 300).await;
    let before = store.claim(&claim_of(10), at(0)).await.unwrap();
    assert_eq!(before.rows.len(), 10);
    let kept = sending(&store, 20).await;
    stopped(&schema, &store, cancelled.id).await;

    let claims = other.claim(&claim_of(1000), at(2)).await.unwrap();
    assert_eq!(claims.rows.len(), 20);
    let is_kept = |id: BroadcastId| id == kept.id;
    assert!(claims.rows.iter().all(|row| is_kept(row.token.broadcast)));
    let end = status(&other, cancelled.id).await;
    assert_eq!((end.counts.cancelled, end.counts.pending), (290, 10));
    // Leased rows are settled as usual.
    let ends: Vec<_> = before
        .rows
        .iter()
        .map(|row| (row.token, ACCEPTED))
        .collect();
    let settled = store.settle(&ends, at(3)).await.unwrap();
    assert!(settled.iter().all(|one| *one == Settled::Done));
    let end = status(&other, cancelled.id).await;
    assert_eq!((end.counts.cancelled, end.counts.accepted), (290, 10));
    assert_eq!(end.counts.pending, 0);
    let left = "SELECT count(*) FROM web_push.content";
    assert_eq!(schema.number(left).await, 1);
}

#[tokio::test]
async fn cancelling_again_goes_on_and_so_does_the_deadline() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let first = sending(&store, 300).await;
    stopped(&schema, &store, first.id).await;
    let again = store.cancel(first.id, at(2)).await.unwrap().unwrap();
    assert_eq!((again.counts.cancelled, again.counts.pending), (300, 0));
    let second = sending(&store, 300).await;
    stopped(&schema, &store, second.id).await;
    assert_eq!(store.expire(1000, at(9999)).await.unwrap(), 300);
    let end = status(&store, second.id).await;
    assert_eq!((end.counts.cancelled, end.counts.expired), (300, 0));
    assert_eq!(store.next_due(at(9999)).await.unwrap(), None);
}

/// Claims pass over the rows of a cancelled broadcast that stand between those of another one. More and more stand in front then,
/// while steps end those of an older one elsewhere. Claims end them there too, and no others that they pass over.
#[tokio::test]
async fn cancelled_rows_in_front_of_others_do_not_wait_for_those_elsewhere() {
    const ROWS: u32 = 3 * STEP as u32;
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let write = async |numbers: u32, origin: u32| {
        let new = broadcast();
        store.open(&new, at(0)).await.unwrap();
        let rows: Vec<_> = (0..numbers)
            .map(|number| delivery(number, origin))
            .collect();
        let written = store.enqueue_page(new.id, &Cursor::Start, &rows, &Cursor::End, at(0));
        assert_eq!(written.await.unwrap(), PageWrite::Stored);
        new.id
    };
    let elsewhere = write(8 * STEP as u32, 1).await;
    let cancelled = write(ROWS, 0).await;
    let paused = write(20, 0).await;
    let sent = write(ROWS, 0).await;
    store.cancel(elsewhere, at(1)).await.unwrap();
    // With a call that is dropped after its first part, as above, none of its rows has ended.
    let sql = "UPDATE web_push.broadcast SET is_cancelled = true WHERE seq = 2";
    schema.run(sql).await;
    store.hold(paused, true, at(1)).await.unwrap();
    let mut claimed = 0;
    for _ in 0..6 {
        let claims = store.claim(&claim_of(900), at(2)).await.unwrap();
        assert!(claims.rows.iter().all(|row| row.token.broadcast == sent));
        claimed += claims.rows.len();
    }
    assert!(claimed > STEP * 3 / 2, "{claimed}");
    assert!(status(&store, cancelled).await.counts.cancelled > STEP as u64);
    let kept = status(&store, paused).await.counts;
    assert_eq!((kept.pending, kept.cancelled), (20, 0));
    store.hold(paused, false, at(3)).await.unwrap();
    let back = store.claim(&claim_of(ROWS as usize), at(3)).await.unwrap();
    let back = back.rows.iter().filter(|row| row.token.broadcast == paused);
    assert_eq!(back.count(), 20);
}

/// More rows than one step ends, with concurrent claims, pages and cancellations.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_steps_and_many_hands_count_each_row_once() {
    const PAGES: u32 = 25;
    const PAGE: u32 = 1000;
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let stores = [schema.store().await, schema.store().await];
    let mut new: NewBroadcast = broadcast();
    new.recipients = u64::from(PAGES * PAGE) + 7;
    stores[0].open(&new, at(0)).await.unwrap();
    let mut cursor = Cursor::Start;
    for page in 0..PAGES {
        let rows: Vec<_> = (page * PAGE..(page + 1) * PAGE)
            .map(|number| delivery(number, number % 3))
            .collect();
        let next = Cursor::After(rows[rows.len() - 1].key);
        let write = stores[0].enqueue_page(new.id, &cursor, &rows, &next, at(0));
        assert_eq!(write.await.unwrap(), PageWrite::Stored);
        cursor = next;
    }
    let claims = stores[0].claim(&claim_of(500), at(0)).await.unwrap();
    let ends: Vec<_> = claims
        .rows
        .iter()
        .map(|row| (row.token, ACCEPTED))
        .collect();
    let first = stores[0].cancel(new.id, at(1)).await.unwrap().unwrap();
    let unwritten = 7;
    assert_eq!(first.counts.cancelled, unwritten + STEP as u64, "one step");
    let cancel = async |which: usize| {
        let mut last = None;
        loop {
            let status = stores[which].cancel(new.id, at(1)).await.unwrap().unwrap();
            if last == Some(status.counts.pending) {
                break;
            }
            last = Some(status.counts.pending);
        }
    };
    let settle = async {
        for ends in ends.chunks(50) {
            let settled = stores[1].settle(ends, at(1)).await.unwrap();
            assert!(settled.iter().all(|one| *one == Settled::Done));
        }
    };
    let sweep = async {
        for _ in 0..3 {
            stores[0].claim(&claim_of(1), at(1)).await.unwrap();
        }
    };
    tokio::join!(cancel(0), cancel(1), settle, sweep);
    // All rows have ended, except those claimed before the cancellation.
    stores[0].claim(&claim_of(1), at(100)).await.unwrap();
    let end = status(&stores[0], new.id).await;
    assert_eq!(end.counts.accepted, 500);
    assert_eq!((end.recipients, end.counts.pending), (new.recipients, 0));
    assert_eq!(end.counts.cancelled, new.recipients - 500);
    let left =
        "SELECT (SELECT count(*) FROM web_push.delivery) + (SELECT count(*) FROM web_push.content)";
    assert_eq!(schema.number(left).await, 0);
}

/// Those that were claimed would be lost until their lease ends.
#[tokio::test]
async fn rows_are_claimed_though_those_of_a_paused_broadcast_cannot_be_put_aside() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.store().await;
    let paused = sending(&store, 3).await;
    let other = sending(&store, 2).await;
    store.hold(paused.id, true, at(1)).await.unwrap();
    schema
        .run(
            "CREATE FUNCTION web_push.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON web_push.delivery FOR EACH ROW
                 WHEN (OLD.turn IS NOT NULL AND NEW.turn IS NULL AND NOT NEW.leased) EXECUTE FUNCTION web_push.refuse()",
        )
        .await;
    let claims = store.claim(&claim_of(10), at(2)).await.unwrap();
    assert_eq!(claims.rows.len(), 2);
    assert!(
        claims
            .rows
            .iter()
            .all(|row| row.token.broadcast == other.id)
    );
    // Without any the error is told.
    assert!(store.claim(&claim_of(10), at(3)).await.is_err());
}
