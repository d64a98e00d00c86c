//! Opening connections and setting them up.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::error::{failed_to_open, misconfigured};
use super::log::MAX_LOG;
use super::schema;
use crate::store::{StoreError, StoreErrorKind};

/// The longest wait for another process' transaction.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Prepared statements kept on each connection: more than the store has.
const STATEMENTS: usize = 128;

/// Opens the writer's connection and brings the schema up to date.
pub(super) fn writer(path: &Path) -> Result<Connection, StoreError> {
    create_private(path)?;
    let conn = open(path)?;
    try_to_write(&conn)?;
    schema::check(&conn)?;
    write_ahead(&conn)?;
    // FULL: a committed change survives a loss of power, not only a crash.
    set_up(&conn, "PRAGMA synchronous = FULL;")?;
    schema::migrate(&conn)?;
    Ok(conn)
}

/// Opens an existing file without changing it.
pub(super) fn existing(path: &Path) -> Result<Connection, StoreError> {
    let conn = open(path)?;
    set_up(&conn, "")?;
    Ok(conn)
}

/// Opens one of the readers' connections.
pub(super) fn reader(path: &Path) -> Result<Connection, StoreError> {
    let conn = open(path)?;
    set_up(&conn, "PRAGMA query_only = ON;")?;
    Ok(conn)
}

/// Opens a database that lives as long as its one connection.
pub(super) fn in_memory() -> Result<Connection, StoreError> {
    let conn = Connection::open_in_memory().map_err(failed_to_open)?;
    set_up(&conn, "")?;
    schema::migrate(&conn)?;
    Ok(conn)
}

/// Makes a path absolute. SQLite gives relative ones such as `:memory:` and `file:push.db` another meaning.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, StoreError> {
    std::path::absolute(path).map_err(|error| StoreError::new(StoreErrorKind::Misconfigured, error))
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    // SQLite's own error for these says only that it is unable to open the file.
    match std::fs::metadata(path) {
        Ok(file) if file.is_dir() => return Err(misconfigured("a directory, not a file")),
        Ok(file) if !file.is_file() => return Err(misconfigured("not a regular file")),
        Ok(_) => {}
        Err(error) => return Err(StoreError::new(StoreErrorKind::Misconfigured, error)),
    }
    // No mutex: each connection stays on its thread.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(failed_to_open)?;
    conn.busy_timeout(BUSY_TIMEOUT).map_err(failed_to_open)?;
    Ok(conn)
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
    let started = Instant::now();
    loop {
        let mode = conn.query_row("PRAGMA journal_mode = WAL", [], |row| {
            row.get::<_, String>(0)
        });
        match mode {
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
