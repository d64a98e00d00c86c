//! A file whose locks or index are lost is left alone, and its connections are not closed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use rusqlite::Connection;

use super::super::connection::{reader, writer};
use super::super::log::beside;
use super::super::prefix::Prefix;
use super::*;
use crate::clock::Timestamp;
use crate::store::{ScheduleStore, SqliteStore};

/// Whether this process has SQLite's lock on a file, which each open connection keeps.
fn is_locked(path: &Path) -> bool {
    let inode = format!(":{}", fs::metadata(path).unwrap().ino());
    let process = std::process::id().to_string();
    let locks = fs::read_to_string("/proc/locks").unwrap();
    // "number: kind, mode, type, process, file, start, end".
    locks.lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        matches!(words[..], [_, "POSIX", _, _, of, file, ..] if of == process && file.ends_with(&inode))
    })
}

/// The number of tables and indexes in a file.
fn named(conn: &Connection) -> u32 {
    conn.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .unwrap()
}

/// An application's file and its connection, after something has removed the index of the log underneath.
fn without_index(folder: &Path) -> (PathBuf, Connection) {
    let path = folder.join("shop.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        .unwrap();
    fs::remove_file(beside(&path, "-shm")).unwrap();
    (path, conn)
}

#[tokio::test]
async fn a_store_whose_index_was_removed_stops_and_keeps_its_locks_and_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("push.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let now = Timestamp::from_secs(1_800_000_000);
    store.record_run(now).await.unwrap();
    fs::remove_file(beside(&path, "-shm")).unwrap();
    let mut refused = None;
    for _ in 0..1000 {
        refused = store.record_run(now).await.err();
        if refused.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(refused.unwrap().kind(), StoreErrorKind::Misconfigured);
    assert!(store.close().await.is_err());
    assert!(fs::metadata(beside(&path, "-wal")).unwrap().len() > 0);
    assert!(is_locked(&path));
}

/// The locks that it would give up are those of the whole process.
#[test]
fn no_connection_is_closed_after_a_check_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("push.db");
    fs::write(&path, "").unwrap();
    let (identity, prefix) = (Identity::of(&path).unwrap(), Prefix::default());
    let writer = writer(&path, &prefix, &identity).unwrap();
    let reader = reader(&path, &prefix, &identity).unwrap();
    assert!(!writer.is_lost() && !reader.is_lost());
    identity.is_lost().store(true, Ordering::Relaxed);
    assert!(writer.is_lost() && reader.is_lost());
}

#[tokio::test]
async fn a_file_whose_index_was_removed_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let (path, conn) = without_index(folder.path());
    let error = SqliteStore::open_in(&path, "web_push_").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
    assert_eq!(named(&conn), 1);
}

/// Another library may open the file at the same time.
#[test]
fn a_file_is_looked_at_once_more_before_it_is_changed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, conn) = without_index(folder.path());
    let identity = Identity::of(&path).unwrap();
    let prefix = Prefix::parse("web_push_").unwrap();
    let error = writer(&path, &prefix, &identity).err().unwrap();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
    assert_eq!(named(&conn), 1);
}

/// Closing a connection removes the log by its name. The store has nothing to do between the exchange and its end, and no change
/// that would be refused.
#[tokio::test]
async fn a_file_that_replaced_the_one_of_an_idle_store_keeps_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("push.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let now = Timestamp::from_secs(1_800_000_000);
    store.record_run(now).await.unwrap();
    let (restored, log) = (folder.path().join("restored.db"), beside(&path, "-wal"));
    fs::copy(&path, &restored).unwrap();
    fs::rename(&restored, &path).unwrap();
    // As if it had been opened, and changed.
    fs::remove_file(&log).unwrap();
    fs::write(&log, "of the new file").unwrap();
    let closed = store.close().await;
    assert_eq!(fs::read_to_string(&log).unwrap(), "of the new file");
    closed.unwrap_err();
}
