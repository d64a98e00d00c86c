//! Tests of the SQLite store in an application's file.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tower_web_push::broadcast::{Audience, FinalOutcome};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::store::{
    ClaimRequest, Cursor, DeliveryLedger, NewBroadcast, NewDelivery, ScheduleStore, Settlement,
    SqliteStore, StoreErrorKind,
};
use tower_web_push::subscription::{EndpointKey, Origin};

use crate::application_file::{ApplicationFile, PREFIX};
use crate::support::stored;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + secs)
}

fn claim_of(limit: usize) -> ClaimRequest {
    ClaimRequest::new(limit, Duration::from_secs(45))
}

/// A broadcast with this number of due rows.
async fn sending(store: &SqliteStore, rows: u8) -> NewBroadcast {
    let new = NewBroadcast::new(Audience::All, Message::new("x"), at(9999));
    store.open(&new, at(0)).await.unwrap();
    let origin = Origin::parse("https://push.example.net").unwrap();
    let rows: Vec<_> = (0..rows)
        .map(|n| NewDelivery::new(EndpointKey::from_bytes([n; 32]), origin.clone()))
        .collect();
    store
        .enqueue_page(new.id, &Cursor::Start, &rows, &Cursor::End, at(0))
        .await
        .unwrap();
    new
}

/// The reason why a file is refused, which is not changed.
async fn refusal(path: &Path, prefix: &str) -> String {
    let before = fs::read(path).ok();
    let error = SqliteStore::open_in(path, prefix).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{error:?}");
    assert_eq!(fs::read(path).ok(), before);
    format!("{error:?}")
}

#[tokio::test]
async fn everything_of_the_store_has_the_prefix() {
    let file = ApplicationFile::new();
    let store = file.store().await;
    stored::fill(&store).await;
    let conn = file.connect();
    let names = "SELECT count(*), count(nullif(tbl_name GLOB 'web_push_*', 0)) FROM sqlite_schema WHERE name LIKE '%web_push_%'";
    let (all, ours): (u32, u32) = conn
        .query_row(names, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert!(all > 40 && all == ours, "{all} {ours}");
    let description = store.description();
    assert!(description.contains("tables web_push_*"), "{description}");
    store.close().await.unwrap();
    file.assert_unchanged();
}

#[tokio::test]
async fn a_file_that_others_have_open_stays_whole_when_the_store_closes() {
    let file = ApplicationFile::new();
    let conn = file.connect();
    conn.execute_batch("BEGIN; SELECT * FROM orders").unwrap();
    let store = file.store().await;
    let new = sending(&store, 3).await;
    store.close().await.unwrap();
    conn.execute_batch("COMMIT").unwrap();
    let again = file.store().await;
    assert!(again.status(new.id, at(0)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_file_without_a_log_is_refused() {
    let file = ApplicationFile::new();
    for mode in ["DELETE", "TRUNCATE", "PERSIST"] {
        let conn = file.connect();
        conn.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |_| Ok(()))
            .unwrap();
        drop(conn);
        let reason = refusal(&file.path, PREFIX).await;
        assert!(reason.contains("PRAGMA journal_mode = WAL"), "{reason}");
    }
    let conn = file.connect();
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
        .unwrap();
}

#[tokio::test]
async fn what_is_not_the_applications_database_is_refused() {
    let file = ApplicationFile::new();
    let reason = refusal(&file.path, "no-prefix").await;
    assert!(reason.contains("ASCII letters"), "{reason}");
    let missing = file.path.with_file_name("missing.db");
    refusal(&missing, PREFIX).await;
    assert!(!missing.exists());
    let empty = file.path.with_file_name("empty.db");
    fs::write(&empty, "").unwrap();
    refusal(&empty, PREFIX).await;
    let text = file.path.with_file_name("text.db");
    fs::write(&text, "just some text\n".repeat(100)).unwrap();
    refusal(&text, PREFIX).await;
    file.connect()
        .execute_batch("CREATE TABLE push_subscription (endpoint TEXT)")
        .unwrap();
    let reason = refusal(&file.path, "push_").await;
    assert!(reason.contains("choose another prefix"), "{reason}");
    file.connect()
        .execute_batch("DROP TABLE push_subscription")
        .unwrap();
}

#[tokio::test]
async fn a_file_of_the_stores_own_is_not_one_with_a_prefix_and_the_other_way_round() {
    let file = ApplicationFile::new();
    file.store().await.close().await.unwrap();
    let error = SqliteStore::open(&file.path).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
    let copy = file.path.with_file_name("copy.db");
    let error = SqliteStore::backup(&file.path, &copy).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
    let own = file.path.with_file_name("push.db");
    SqliteStore::open(&own)
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
    let reason = refusal(&own, PREFIX).await;
    assert!(reason.contains("a store of its own"), "{reason}");
}

/// Also the second one may have the first one's rows only after the lease: a lock says that its worker lives.
#[tokio::test]
async fn two_stores_in_one_file_know_nothing_of_each_other() {
    let file = ApplicationFile::new();
    let one = file.store().await;
    let other = SqliteStore::open_in(&file.path, "web_push_2_")
        .await
        .unwrap();
    let new = sending(&one, 3).await;
    assert!(other.status(new.id, at(0)).await.unwrap().is_none());
    let rows = other.claim(&claim_of(9), at(0)).await.unwrap().rows;
    assert!(rows.is_empty());
    let claims = one.claim(&claim_of(9), at(0)).await.unwrap();
    assert_eq!(claims.rows.len(), 3);
    for worker in ["shop.db-web_push_worker-1", "shop.db-web_push_2_worker-1"] {
        assert!(file.path.with_file_name(worker).exists(), "{worker}");
    }
    // A third that has the first one's prefix waits for the end of the leases of a worker that lives, and not of one that ended.
    let third = file.store().await;
    let rows = third.claim(&claim_of(9), at(1)).await.unwrap().rows;
    assert!(rows.is_empty());
    one.close().await.unwrap();
    let rows = async || third.claim(&claim_of(9), at(2)).await.unwrap().rows;
    while rows().await.len() < 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The tables are the same ones, since SQLite ignores the case of their names: so must the workers be.
#[tokio::test]
async fn the_case_of_a_prefix_does_not_matter() {
    let file = ApplicationFile::new();
    let one = file.store().await;
    let other = SqliteStore::open_in(&file.path, "Web_PUSH_").await.unwrap();
    sending(&one, 3).await;
    assert_eq!(one.claim(&claim_of(9), at(0)).await.unwrap().rows.len(), 3);
    let rows = other.claim(&claim_of(9), at(1)).await.unwrap().rows;
    assert!(rows.is_empty());
    for worker in ["shop.db-web_push_worker-1", "shop.db-web_push_worker-2"] {
        assert!(file.path.with_file_name(worker).exists(), "{worker}");
    }
}

/// The application writes with a busy timeout beside a store that writes without a pause.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_writes_beside_a_busy_store() {
    let file = ApplicationFile::new();
    let store = file.store().await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let busy = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut rounds = 0;
            while !*stopped.borrow() {
                let settled = Settlement::Finished(FinalOutcome::Accepted);
                sending(&store, 50).await;
                let claims = store.claim(&claim_of(50), at(1)).await.unwrap();
                let rows: Vec<_> = claims.rows.iter().map(|row| (row.token, settled)).collect();
                store.settle(&rows, at(1)).await.unwrap();
                rounds += 1;
            }
            rounds
        })
    };
    let conn = file.connect();
    let writes = tokio::task::spawn_blocking(move || {
        for _ in 0..100 {
            conn.execute_batch(
                "BEGIN IMMEDIATE; INSERT INTO orders (state) VALUES ('new'); COMMIT",
            )
            .unwrap();
        }
        conn.execute("DELETE FROM orders WHERE state = 'new'", [])
            .unwrap()
    });
    assert_eq!(writes.await.unwrap(), 100);
    stop.send_replace(true);
    assert!(busy.await.unwrap() > 0);
}

#[tokio::test]
async fn a_change_waits_for_the_applications_transaction() {
    let file = ApplicationFile::new();
    let store = file.store().await;
    let conn = file.connect();
    conn.execute_batch("BEGIN IMMEDIATE; INSERT INTO orders (state) VALUES ('new')")
        .unwrap();
    let change = tokio::spawn({
        let store = store.clone();
        async move { store.record_run(at(1)).await }
    });
    // Read beside it.
    assert_eq!(store.last_run().await.unwrap(), None);
    assert!(!change.is_finished());
    conn.execute_batch("ROLLBACK").unwrap();
    change.await.unwrap().unwrap();
    assert_eq!(store.last_run().await.unwrap(), Some(at(1)));
}

/// Whether this process has SQLite's lock on a file, which each open connection keeps.
#[cfg(target_os = "linux")]
fn is_locked(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    let inode = format!(":{}", fs::metadata(path).unwrap().ino());
    let process = std::process::id().to_string();
    let locks = fs::read_to_string("/proc/locks").unwrap();
    // "number: kind, mode, type, process, file, start, end".
    locks.lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        matches!(words[..], [_, "POSIX", _, _, of, file, ..] if of == process && file.ends_with(&inode))
    })
}

/// SQLite's locks on a file are gone when anything in the process closes the file.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_store_keeps_the_locks_of_its_process() {
    let file = ApplicationFile::new();
    assert!(!is_locked(&file.path));
    let store = file.store().await;
    stored::fill(&store).await;
    store.claim(&claim_of(9), at(0)).await.unwrap();
    // Others come and go within the process.
    file.store().await.close().await.unwrap();
    drop(file.connect());
    assert!(is_locked(&file.path));
    // The control: what this crate must not do.
    drop(fs::File::open(&file.path).unwrap());
    assert!(!is_locked(&file.path));
    store.close().await.unwrap();
}
