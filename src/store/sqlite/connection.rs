//! Opening connections and setting them up.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::error::{failed_to_open, misconfigured};
use super::log::MAX_LOG;
use super::schema;
use crate::store::{StoreError, StoreErrorKind};

/// How long a process waits for another one's transaction.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Statements kept prepared on each connection: more than there are.
const STATEMENTS: usize = 128;

/// Opens the writer's connection and brings the schema up to date.
pub(super) fn writer(path: &Path) -> Result<Connection, StoreError> {
    create_private(path)?;
    let conn = open(path)?;
    try_to_write(&conn)?;
    schema::check(&conn)?;
    write_ahead(&conn)?;
    // FULL: what was answered as stored survives a loss of power too, not only a crash.
    set_up(&conn, "PRAGMA synchronous = FULL;")?;
    schema::migrate(&conn)?;
    Ok(conn)
}

/// Opens a file that exists, as it is.
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

/// A path that SQLite takes for a path: relative ones like `:memory:` and `file:push.db` mean other things to it.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, StoreError> {
    std::path::absolute(path).map_err(|error| StoreError::new(StoreErrorKind::Misconfigured, error))
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    // SQLite says of these only that it is unable to open them.
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
    // Endpoints, secrets and payloads are overwritten where they are deleted, on pages that become free too: FAST leaves
    // those, which is where the payloads are. The answer is a row, which a batch would not take from older versions of
    // SQLite.
    conn.query_row("PRAGMA secure_delete = ON", [], |_| Ok(()))
        .map_err(failed_to_open)?;
    conn.execute_batch(more).map_err(failed_to_open)
}

/// Finds out whether the file was opened for reading only, as SQLite opens one that cannot be written.
///
/// It is asked before anything is read: a log that belongs to a file without write permission is made without it, too, and
/// would stay so. Nothing is changed.
fn try_to_write(conn: &Connection) -> Result<(), StoreError> {
    let written = conn.execute_batch("BEGIN; PRAGMA user_version = 0;");
    let rolled_back = conn.execute_batch("ROLLBACK");
    written.and(rolled_back).map_err(failed_to_open)
}

/// Switches to a write-ahead log: readers and the writer do not wait for each other.
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
            // While another process switches, SQLite does not wait by itself.
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

/// Creates a new file that nobody else can read: it holds keys, endpoints and secrets.
///
/// SQLite gives the write-ahead log the same rights. A file that exists keeps its own.
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
