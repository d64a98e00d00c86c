//! Opening connections and setting them up.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, ErrorCode, OpenFlags};

use super::error::{failed_to_open, misconfigured};
use super::identity::Identity;
use super::log::MAX_LOG;
use super::prefix::Prefix;
use super::schema;
use crate::store::{StoreError, StoreErrorKind};

/// The longest wait for another process' transaction.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// The pages of the log at which a commit runs a checkpoint, in a file of the store's own: 16 MiB. SQLite's own 1,000 would write
/// pages that change often into the file more often. Up to 4,062 are found in one table of the log's index.
const CHECKPOINT_AT: u32 = 4_000;
/// Prepared statements kept on each connection: more than the store has.
const STATEMENTS: usize = 128;

/// A connection to a file with the store's tables.
pub(super) struct Connection {
    /// `None` only at its end.
    conn: Option<rusqlite::Connection>,
    prefix: Prefix,
    is_lost: Arc<AtomicBool>,
    /// Statements as they are for this file, by their constants. Empty without a prefix.
    rewritten: RefCell<HashMap<Box<str>, Arc<str>>>,
}

impl Connection {
    pub(super) fn new(conn: rusqlite::Connection, prefix: Prefix) -> Self {
        Self {
            conn: Some(conn),
            prefix,
            is_lost: Arc::default(),
            rewritten: RefCell::default(),
        }
    }

    /// Prepares a statement that has the plain names of the store's tables, or returns it as it was prepared before.
    pub(super) fn prepare_cached(&self, sql: &str) -> Result<CachedStatement<'_>, rusqlite::Error> {
        if self.prefix.is_empty() {
            return self.deref().prepare_cached(sql);
        }
        let mut rewritten = self.rewritten.borrow_mut();
        let known = rewritten.get(sql).map(Arc::clone);
        let sql = known.unwrap_or_else(|| {
            let own: Arc<str> = self.prefix.rewrite(sql).into();
            rewritten.insert(sql.into(), Arc::clone(&own));
            own
        });
        self.deref().prepare_cached(&sql)
    }

    /// What the names of the store's tables begin with.
    pub(super) const fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// Whether the file belongs to the application.
    pub(super) fn is_shared(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// Whether it is an application's file that Litestream replicates, which alone decides when the log is written into it.
    pub(super) fn is_replicated(&self) -> bool {
        let sql = "SELECT 1 FROM sqlite_master WHERE name = '_litestream_seq'";
        self.is_shared() && self.query_row(sql, [], |_| Ok(())).is_ok()
    }

    /// Whether closing it would do harm: see [`Identity::is_lost`].
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    /// The connection without the names of the tables.
    pub(super) fn into_inner(mut self) -> rusqlite::Connection {
        self.conn.take().expect(ONLY_AT_ITS_END)
    }
}

const ONLY_AT_ITS_END: &str = "a connection is taken at its end only";

impl Drop for Connection {
    fn drop(&mut self) {
        if self.is_lost() {
            // Stays open until the process ends.
            std::mem::forget(self.conn.take());
        }
    }
}

/// For what concerns the whole file. Statements with the names of tables go through
/// [`prepare_cached`](Self::prepare_cached).
impl Deref for Connection {
    type Target = rusqlite::Connection;

    fn deref(&self) -> &rusqlite::Connection {
        self.conn.as_ref().expect(ONLY_AT_ITS_END)
    }
}

/// Opens the writer's connection and brings the schema up to date.
pub(super) fn writer(
    path: &Path,
    prefix: &Prefix,
    identity: &Identity,
) -> Result<Connection, StoreError> {
    let conn = open_checked(path, prefix, identity)?;
    try_to_write(&conn)?;
    if conn.is_shared() {
        has_log(&conn)?;
    }
    schema::check(&conn)?;
    // The connection has mapped the index of an existing log, and nothing is changed yet.
    identity.check_now()?;
    if !conn.is_shared() {
        write_ahead(&conn)?;
        let sql = format!("PRAGMA wal_autocheckpoint = {CHECKPOINT_AT}");
        conn.query_row(&sql, [], |_| Ok(()))
            .map_err(failed_to_open)?;
    }
    // FULL: a committed change survives a loss of power, not only a crash.
    set_up(&conn, "PRAGMA synchronous = FULL;")?;
    schema::migrate(&conn)?;
    // Of a new log.
    identity.check_now()?;
    Ok(conn)
}

/// Opens an existing file of the store's own without changing it.
pub(super) fn existing(path: &Path) -> Result<Connection, StoreError> {
    let conn = open(path, &Prefix::default())?;
    set_up(&conn, "")?;
    Ok(conn)
}

/// Opens one of the readers' connections.
pub(super) fn reader(
    path: &Path,
    prefix: &Prefix,
    identity: &Identity,
) -> Result<Connection, StoreError> {
    let conn = open_checked(path, prefix, identity)?;
    set_up(&conn, "PRAGMA query_only = ON;")?;
    Ok(conn)
}

/// Opens a database that lives as long as its one connection.
pub(super) fn in_memory() -> Result<Connection, StoreError> {
    in_memory_with(Prefix::default())
}

/// Opens a database in memory whose tables have a prefix.
pub(super) fn in_memory_with(prefix: Prefix) -> Result<Connection, StoreError> {
    let conn = rusqlite::Connection::open_in_memory().map_err(failed_to_open)?;
    let conn = Connection::new(conn, prefix);
    set_up(&conn, "")?;
    schema::migrate(&conn)?;
    Ok(conn)
}

/// Makes a path absolute. SQLite gives relative ones such as `:memory:` and `file:push.db` another meaning.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, StoreError> {
    std::path::absolute(path).map_err(|error| StoreError::new(StoreErrorKind::Misconfigured, error))
}

/// Opens a connection that is closed at its end unless a check of the file has failed.
fn open_checked(
    path: &Path,
    prefix: &Prefix,
    identity: &Identity,
) -> Result<Connection, StoreError> {
    let mut conn = open(path, prefix)?;
    conn.is_lost = identity.is_lost();
    Ok(conn)
}

fn open(path: &Path, prefix: &Prefix) -> Result<Connection, StoreError> {
    // SQLite's own error for these says only that it is unable to open the file.
    match std::fs::metadata(path) {
        Ok(file) if file.is_dir() => return Err(misconfigured("a directory, not a file")),
        Ok(file) if !file.is_file() => return Err(misconfigured("not a regular file")),
        Ok(_) => {}
        Err(error) => return Err(StoreError::new(StoreErrorKind::Misconfigured, error)),
    }
    // No mutex: each connection stays on its thread.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = rusqlite::Connection::open_with_flags(path, flags).map_err(failed_to_open)?;
    conn.busy_timeout(BUSY_TIMEOUT).map_err(failed_to_open)?;
    Ok(Connection::new(conn, prefix.clone()))
}

fn set_up(conn: &Connection, more: &str) -> Result<(), StoreError> {
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    let pragmas = format!(
        "
        PRAGMA foreign_keys = ON;
        PRAGMA temp_store = MEMORY;
        PRAGMA cache_size = -16384;
        PRAGMA journal_size_limit = {MAX_LOG};
        "
    );
    conn.execute_batch(&pragmas).map_err(failed_to_open)?;
    // Deleted endpoints, secrets and payloads are overwritten, on freed pages too: FAST would leave those, which hold the
    // payloads. A query, since the pragma returns a row, which older versions of SQLite refuse in a batch.
    conn.query_row("PRAGMA secure_delete = ON", [], |_| Ok(()))
        .map_err(failed_to_open)?;
    // Else a statement whose LIMIT is a parameter is compiled again for each value.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map_err(failed_to_open)?;
    if conn.is_replicated() {
        conn.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))
            .map_err(failed_to_open)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .map_err(failed_to_open)?;
    }
    conn.execute_batch(more).map_err(failed_to_open)
}

/// Returns an error if SQLite opened the file read-only, as it does without write permission.
///
/// Called before the first read: SQLite would create the log without write permission as well, and it would stay so.
/// Changes nothing.
fn try_to_write(conn: &Connection) -> Result<(), StoreError> {
    let written = conn.execute_batch("BEGIN; PRAGMA user_version = 0;");
    let rolled_back = conn.execute_batch("ROLLBACK");
    written.and(rolled_back).map_err(failed_to_open)
}

/// Switches to a write-ahead log, with which readers and the writer do not wait for each other.
fn write_ahead(conn: &Connection) -> Result<(), StoreError> {
    switched(|| conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)))
}

/// Switches once no other process does so.
fn switched(mut switch: impl FnMut() -> Result<String, rusqlite::Error>) -> Result<(), StoreError> {
    let started = Instant::now();
    loop {
        match switch() {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(_) => {
                return Err(misconfigured(
                    "the file system does not support a write-ahead log",
                ));
            }
            // SQLite's busy timeout does not cover a switch by another process.
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && started.elapsed() < BUSY_TIMEOUT =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(failed_to_open(error)),
        }
    }
}

/// Returns an error if an application's file has no write-ahead log: without one our readers would keep its writers
/// waiting, and its readers ours. The mode is kept in the file, so that switching is the application's decision.
fn has_log(conn: &Connection) -> Result<(), StoreError> {
    let mode: String = conn
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .map_err(failed_to_open)?;
    match &*mode {
        "wal" => Ok(()),
        mode => Err(misconfigured(format!(
            "the database has the journal mode `{mode}`: run `PRAGMA journal_mode = WAL` on it once, which the file \
             keeps, so that readers and writers do not wait for each other"
        ))),
    }
}

/// Creates a new file that only its owner can read: it holds keys, endpoints and secrets.
///
/// SQLite gives the write-ahead log the same mode. An existing file keeps its mode.
pub(super) fn create_private(path: &Path) -> Result<(), StoreError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(StoreError::new(StoreErrorKind::Misconfigured, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    /// Several processes start at the same time with a new file.
    #[test]
    fn a_switch_that_meets_the_one_of_another_process_is_tried_again() {
        let failed = |code| Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        let mut answers = [failed(ffi::SQLITE_BUSY), Ok("wal".to_owned())].into_iter();
        switched(|| answers.next().unwrap()).unwrap();
        let mut answers = [failed(ffi::SQLITE_IOERR)].into_iter();
        assert!(switched(|| answers.next().unwrap()).is_err());
    }

    /// Below FULL the log is not synced at each commit, and what was accepted goes with the power.
    #[test]
    fn a_commit_waits_for_the_disk() {
        const FULL: i64 = 2;
        let folder = tempfile::tempdir().unwrap();
        for prefix in [Prefix::default(), Prefix::parse("web_push_").unwrap()] {
            let path = folder.path().join(format!("{prefix}push.db"));
            rusqlite::Connection::open(&path)
                .unwrap()
                .execute_batch("PRAGMA journal_mode = WAL")
                .unwrap();
            let identity = Identity::of(&path).unwrap();
            let conn = writer(&path, &prefix, &identity).unwrap();
            let set: i64 = conn
                .query_row("PRAGMA synchronous", [], |row| row.get(0))
                .unwrap();
            assert_eq!(set, FULL, "{prefix}");
        }
    }
}
