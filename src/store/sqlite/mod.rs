//! A store in an SQLite file, the embedded default.

mod broadcasts;
mod claims;
mod connection;
mod content;
mod error;
mod ledger;
mod pauses;
#[cfg(test)]
mod plans;
mod query;
mod schedules;
mod schema;
mod subscription_rows;
mod subscriptions;
mod tallies;
mod vapid_keys;
mod worker;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use self::error::closed;
use self::worker::{Command, QUEUE, ask};
use super::{StoreError, StoreErrorKind};

/// Connections that read: a long count does not keep pages and statuses waiting.
const READERS: usize = 3;

/// Keeps everything in one SQLite file, shared by any number of handles and processes on one machine.
///
/// The file has a write-ahead log beside it. What a call answered as stored survives a crash of the process
/// and a loss of power (`synchronous = FULL`); changes that wait at the same time share one sync of the
/// disk. One thread writes and a few read, so no call blocks the runtime; they end when the last clone of
/// the handle is dropped, or with [`close`](Self::close).
///
/// Do not put the file on a network file system: SQLite's locks do not hold there.
///
/// # Cancel safety
///
/// A future that is dropped while it waits for its thread has done nothing. One that is dropped later has
/// done all of its change.
///
/// # Security
///
/// The file holds endpoints, message payloads, and VAPID keys as they were sealed. A new one is readable by
/// its owner only (mode 0600, on Unix); a file that exists keeps its mode. What is deleted is overwritten
/// where that costs nothing, which is no promise.
#[derive(Clone)]
pub struct SqliteStore {
    path: Option<PathBuf>,
    writer: mpsc::Sender<Command>,
    /// None of its own for a database in memory: its one connection does everything.
    readers: Option<mpsc::Sender<Command>>,
    threads: Arc<Threads>,
}

/// Each thread holds a receiver of its channel as long as it holds its connection.
#[derive(Default)]
struct Threads {
    readers: watch::Sender<()>,
    writer: watch::Sender<()>,
}

impl SqliteStore {
    /// Opens a file, creates it where there is none, and brings its tables up to date.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](StoreErrorKind::Misconfigured) where the path cannot be written, is no database, is
    /// another application's, or was written by a newer version of this crate: such a file is left as it
    /// is. [`Unavailable`](StoreErrorKind::Unavailable) where another process holds it for longer than ten
    /// seconds.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may have created the file and its tables.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let (opened, answer) = oneshot::channel();
        spawn("web-push-open", {
            let path = path.clone();
            move || {
                let connected = Self::connect(&path);
                let _ = opened.send(connected.map_err(|error| error.about(path.display())));
            }
        })?;
        let (writer, readers) = answer.await.map_err(|_| closed())??;
        let threads = Threads::default();
        Ok(Self {
            path: Some(path),
            writer: start_writer(writer, &threads.writer.subscribe())?,
            readers: Some(start_readers(readers, &threads.readers.subscribe())?),
            threads: Arc::new(threads),
        })
    }

    /// Opens a database of its own in memory: SQLite's behaviour without a file, for tests.
    ///
    /// # Errors
    ///
    /// Where SQLite or the operating system has no memory or no thread for it.
    pub async fn open_in_memory() -> Result<Self, StoreError> {
        let threads = Threads::default();
        Ok(Self {
            path: None,
            writer: start_writer(connection::in_memory()?, &threads.writer.subscribe())?,
            readers: None,
            threads: Arc::new(threads),
        })
    }

    fn connect(path: &Path) -> Result<(Connection, Vec<Connection>), StoreError> {
        let writer = connection::writer(path)?;
        let readers = (0..READERS).map(|_| connection::reader(path));
        Ok((writer, readers.collect::<Result<_, _>>()?))
    }

    /// Closes the database for all clones of this handle, when what waits is done.
    ///
    /// Later calls answer [`Unavailable`](StoreErrorKind::Unavailable). Dropping the last clone closes it as
    /// well; this one can be waited for.
    pub async fn close(&self) {
        // Closed already, or closed in the meantime: both are what is wanted.
        if let Some(readers) = &self.readers {
            let _ = readers.send(Command::Close).await;
        }
        self.threads.readers.closed().await;
        // The last connection folds the log in. Of several that end at once each may take another for the last.
        let _ = self.writer.send(Command::Close).await;
        self.threads.writer.closed().await;
    }

    /// Changes the database in the writer's next transaction.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        ask(&self.writer, work).await
    }

    /// Looks at one state of the database.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        ask(self.readers.as_ref().unwrap_or(&self.writer), work).await
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn start_writer(
    conn: Connection,
    alive: &watch::Receiver<()>,
) -> Result<mpsc::Sender<Command>, StoreError> {
    let (sender, commands) = mpsc::channel(QUEUE);
    let alive = alive.clone();
    spawn("web-push-write", move || {
        worker::write(&conn, commands);
        // The last connection folds the write-ahead log into the file; only then it is closed.
        drop(conn);
        drop(alive);
    })?;
    Ok(sender)
}

fn start_readers(
    conns: Vec<Connection>,
    alive: &watch::Receiver<()>,
) -> Result<mpsc::Sender<Command>, StoreError> {
    let (sender, commands) = mpsc::channel(QUEUE);
    let commands = Arc::new(Mutex::new(commands));
    for conn in conns {
        let (commands, alive) = (Arc::clone(&commands), alive.clone());
        spawn("web-push-read", move || {
            worker::read(&conn, &commands);
            drop(conn);
            drop(alive);
        })?;
    }
    Ok(sender)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    let thread = thread::Builder::new().name(name.to_owned());
    let spawned = thread.spawn(work);
    // The thread is not joined: it ends by itself when its last sender is gone.
    spawned
        .map(|_| ())
        .map_err(|error| StoreError::new(StoreErrorKind::Unavailable, error))
}
