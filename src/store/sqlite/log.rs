//! The write-ahead log: its limit, and checkpoints that write it into the database file.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Error, ErrorCode};

use super::connection::{BUSY_TIMEOUT, Connection};
use crate::observe::event;
use crate::store::{StoreError, StoreErrorKind};

/// The size of the log, in octets, at which the writer runs a checkpoint.
///
/// SQLite runs one by itself at 16 MiB, and at 4 in an application's file, but restarts the log only while no reader is
/// active. With overlapping readers the log would grow with every change.
pub(super) const MAX_LOG: u64 = 64 * 1024 * 1024;
/// How long a checkpoint waits for readers in other processes. Writes wait as long.
const PATIENCE: Duration = Duration::from_secs(1);
/// As [`PATIENCE`], in an application's file: there the application's writes wait, and a tool such as Litestream may read
/// for good.
const PATIENCE_IF_SHARED: Duration = Duration::from_millis(100);

/// The log of one file, as seen by its writer.
pub(super) struct Log {
    path: PathBuf,
    max: u64,
    /// The size at which the next attempt is made.
    fold_at: u64,
}

impl Log {
    /// The log of the database in `path`.
    pub(super) fn of(path: &Path, max: u64) -> Self {
        Self {
            path: beside(path, "-wal"),
            max,
            fold_at: max,
        }
    }

    /// Runs a checkpoint if the log is too large. Called after every commit.
    ///
    /// Not in a file that Litestream replicates: its log is Litestream's, which would have to start again with a snapshot.
    pub(super) fn bound(&mut self, conn: &Connection) {
        let size = fs::metadata(&self.path).map_or(0, |file| file.len());
        if size < self.fold_at || conn.is_replicated() {
            return;
        }
        self.fold_at = match fold_in(conn, patience(conn)) {
            Ok(()) => self.max,
            // A transaction stays open, such as a backup's: not waited for after every commit.
            Err(error) => {
                event!(WARN, octets = size, %error, "write-ahead log is large: the checkpoint failed");
                #[cfg(not(feature = "tracing"))]
                let _ = error;
                size.saturating_add(self.max)
            }
        };
    }
}

fn patience(conn: &Connection) -> Duration {
    match conn.is_shared() {
        true => PATIENCE_IF_SHARED,
        false => PATIENCE,
    }
}

/// The path of a file beside the database.
///
/// SQLite follows symbolic links and keeps the log beside the target.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut path = path.into_os_string();
    path.push(suffix);
    path.into()
}

/// Runs a checkpoint, unless the file is the application's, and closes the connection. The last connection of all processes
/// removes the log. One that must not be closed stays as it is.
pub(super) fn close(conn: Connection) -> Result<(), NotFolded> {
    if conn.is_lost() {
        return Err(NotFolded::Lost);
    }
    let folded = match conn.is_shared() {
        true => Ok(()),
        false => fold_in(&conn, PATIENCE),
    };
    let closed = conn.into_inner().close();
    folded.and(closed.map_err(|(_, error)| NotFolded::failed(error)))
}

/// Writes the log into the file and truncates it.
fn fold_in(conn: &Connection, patience: Duration) -> Result<(), NotFolded> {
    let started = Instant::now();
    let folded = loop {
        let left = patience.saturating_sub(started.elapsed());
        conn.busy_timeout(left).map_err(NotFolded::failed)?;
        match checkpoint(conn) {
            // SQLite's busy timeout covers readers, but not another process' checkpoint, as when several stop at once.
            Err(NotFolded::InUse) if started.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(10));
            }
            folded => break folded,
        }
    };
    conn.busy_timeout(BUSY_TIMEOUT).map_err(NotFolded::failed)?;
    folded
}

fn checkpoint(conn: &Connection) -> Result<(), NotFolded> {
    let is_busy = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        row.get::<_, bool>(0)
    });
    match is_busy {
        Ok(false) => Ok(()),
        Ok(true) => Err(NotFolded::InUse),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
            Err(NotFolded::InUse)
        }
        Err(error) => Err(NotFolded::failed(error)),
    }
}

/// The reason why the log still holds changes. None of them is lost.
#[derive(Clone, Debug)]
pub(super) enum NotFolded {
    InUse,
    Lost,
    Failed(Arc<Error>),
}

impl NotFolded {
    fn failed(error: Error) -> Self {
        Self::Failed(Arc::new(error))
    }

    pub(super) fn to_store_error(&self) -> StoreError {
        StoreError::new(StoreErrorKind::Unavailable, self.clone())
    }
}

impl fmt::Display for NotFolded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InUse => {
                "the write-ahead log was not folded in: another process is reading the database"
            }
            Self::Lost => {
                "the write-ahead log was not folded in: the database file was deleted or replaced, or SQLite's locks on it do \
                 not hold"
            }
            Self::Failed(_) => "the write-ahead log was not folded in",
        })
    }
}

impl std::error::Error for NotFolded {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::InUse | Self::Lost => None,
            Self::Failed(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::super::connection;
    use super::super::identity::Identity;
    use super::super::prefix::Prefix;
    use super::*;

    fn open(path: &Path) -> Connection {
        Connection::new(rusqlite::Connection::open(path).unwrap(), Prefix::default())
    }

    /// Two alternating readers: at any time at least one has an open transaction.
    fn read_on_and_on(path: &Path, end: &mpsc::Receiver<()>) {
        let begin = || {
            let conn = open(path);
            conn.busy_timeout(BUSY_TIMEOUT).unwrap();
            conn.execute_batch("BEGIN; SELECT * FROM t LIMIT 1")
                .unwrap();
            conn
        };
        let mut reading = begin();
        while matches!(end.try_recv(), Err(mpsc::TryRecvError::Empty)) {
            reading = begin();
        }
        drop(reading);
    }

    #[test]
    fn readers_that_overlap_do_not_make_the_log_grow() {
        const MAX: u64 = 8 * 1024 * 1024;
        /// An upper bound for what one commit writes.
        const COMMIT: u64 = 1024 * 1024;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("push.db");
        let conn = open(&path);
        conn.busy_timeout(BUSY_TIMEOUT).unwrap();
        conn.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; CREATE TABLE t (n INTEGER PRIMARY KEY, octets)",
        )
        .unwrap();
        let (end, ended) = mpsc::channel();
        let mut log = Log::of(&path, MAX);
        thread::scope(|scope| {
            let path = &path;
            scope.spawn(move || read_on_and_on(path, &ended));
            for _ in 0..80 {
                conn.execute_batch(
                    "WITH RECURSIVE many(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many LIMIT 150)
                     INSERT OR REPLACE INTO t SELECT n, randomblob(4000) FROM many",
                )
                .unwrap();
                log.bound(&conn);
                let size = fs::metadata(folder.path().join("push.db-wal"))
                    .unwrap()
                    .len();
                assert!(size < MAX + COMMIT, "{size}");
            }
            drop(end);
        });
    }

    #[test]
    fn the_log_of_a_file_that_litestream_replicates_is_left_to_it() {
        for is_replicated in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("shop.db");
            let application = rusqlite::Connection::open(&path).unwrap();
            let name = match is_replicated {
                true => "_litestream_seq",
                false => "litestream_seq",
            };
            application
                .execute_batch(&format!(
                    "PRAGMA journal_mode = WAL; CREATE TABLE {name} (id)"
                ))
                .unwrap();
            let prefix = Prefix::parse("web_push_").unwrap();
            let identity = Identity::of(&path).unwrap();
            let conn = connection::writer(&path, &prefix, &identity).unwrap();
            let size = || fs::metadata(&path).unwrap().len();
            let before = size();
            Log::of(&path, 1).bound(&conn);
            let pages: i64 = conn
                .query_row("PRAGMA wal_autocheckpoint", [], |row| row.get(0))
                .unwrap();
            assert_eq!(size() == before, is_replicated);
            assert_eq!(pages == 0, is_replicated);
            // Ours is the last one.
            drop(application);
            close(conn).unwrap();
            assert_eq!(size() == before, is_replicated);
        }
    }

    #[test]
    fn an_applications_file_keeps_the_checkpoints_that_its_application_expects() {
        let folder = tempfile::tempdir().unwrap();
        for (prefix, pages) in [("", 4_000), ("web_push_", 1_000)] {
            let path = folder.path().join(format!("{prefix}push.db"));
            open(&path)
                .execute_batch("PRAGMA journal_mode = WAL")
                .unwrap();
            let prefix = match prefix {
                "" => Prefix::default(),
                prefix => Prefix::parse(prefix).unwrap(),
            };
            let identity = Identity::of(&path).unwrap();
            let conn = connection::writer(&path, &prefix, &identity).unwrap();
            let set: i64 = conn
                .query_row("PRAGMA wal_autocheckpoint", [], |row| row.get(0))
                .unwrap();
            assert_eq!(set, pages);
        }
    }

    #[test]
    fn an_applications_writes_wait_for_a_tenth_of_the_time() {
        let shared = connection::in_memory_with(Prefix::parse("web_push_").unwrap()).unwrap();
        let own = connection::in_memory().unwrap();
        assert_eq!(10 * patience(&shared), patience(&own));
    }

    #[test]
    fn a_transaction_that_stays_open_is_waited_for_once_in_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("push.db");
        let conn = open(&path);
        conn.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n)")
            .unwrap();
        let reader = open(&path);
        reader.execute_batch("BEGIN; SELECT * FROM t; ").unwrap();
        conn.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        let mut log = Log::of(&path, 1);
        log.bound(&conn);
        assert!(log.fold_at > 1, "it was tried in vain");
        drop(reader);
        log.fold_at = 1;
        log.bound(&conn);
        assert_eq!(log.fold_at, 1, "it was folded in");
    }

    /// Else changes would wait for others no longer than a checkpoint does.
    #[test]
    fn the_writer_is_as_patient_after_a_checkpoint_as_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.db");
        let application = rusqlite::Connection::open(&path).unwrap();
        application
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE orders (id)")
            .unwrap();
        let prefix = Prefix::parse("web_push_").unwrap();
        let identity = Identity::of(&path).unwrap();
        let conn = connection::writer(&path, &prefix, &identity).unwrap();
        for is_read in [false, true] {
            if is_read {
                application
                    .execute_batch("BEGIN; SELECT * FROM orders")
                    .unwrap();
            }
            conn.execute_batch(
                "DELETE FROM web_push_worker; INSERT INTO web_push_worker VALUES (1)",
            )
            .unwrap();
            let mut log = Log::of(&path, 1);
            log.bound(&conn);
            assert_eq!(log.fold_at > 1, is_read, "whether it was tried in vain");
            let timeout: u32 = conn
                .query_row("PRAGMA busy_timeout", [], |row| row.get(0))
                .unwrap();
            assert_eq!(Duration::from_millis(timeout.into()), BUSY_TIMEOUT);
        }
    }
}
