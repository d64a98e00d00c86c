//! A store in an SQLite file, the embedded default.

mod backup;
mod broadcasts;
mod claims;
mod connection;
mod content;
mod erase;
mod error;
mod identity;
mod ledger;
mod log;
mod pauses;
#[cfg(test)]
mod plans;
mod query;
mod schedules;
mod schema;
mod subscription_rows;
mod subscriptions;
mod tallies;
mod threads;
mod vapid_keys;
mod worker;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::oneshot;

use self::error::closed;
use self::identity::Identity;
use self::log::{Log, MAX_LOG};
use self::threads::{Threads, spawn};
use self::worker::ask;
use super::StoreError;

/// Connections that read: a long count does not keep pages and statuses waiting.
const READERS: usize = 3;

/// Keeps everything in one SQLite file, shared by any number of handles and processes on one machine.
///
/// While it is open the file has a write-ahead log and an index of it beside it: `push.db-wal` and `push.db-shm`. What a call
/// answered as stored survives a crash of the process and a loss of power (`synchronous = FULL`); changes that wait at
/// the same time share one sync of the disk. One thread writes and three read, so no call blocks the runtime.
///
/// The log is folded into the file when the store is closed, and then removed: [`close`](Self::close) does it and tells
/// when it is done. Dropping the last clone of the handle does the same, and blocks the dropping thread until it is
/// done: milliseconds, but as long as a read under way takes. After a crash the changes are in the log, and the
/// next process that opens the file takes them up. While it is open the log stays below 64 MiB, except
/// during a read of more than a second, or a transaction of another process, as of a backup.
///
/// If the file is deleted or replaced while it is open, every change is refused: it would be lost with the process.
///
/// Do not put the file on a network file system: SQLite's locks do not hold there. Do not copy the file while it is open:
/// see [`backup`](Self::backup).
///
/// # Cancel safety
///
/// A future that is dropped while it waits for its thread has done nothing. One that is dropped later has
/// done all of its change.
///
/// # Security
///
/// The file holds endpoints, message payloads, and VAPID keys as they were sealed. A new one is readable by
/// its owner only (mode 0600, on Unix), its log likewise; a file that exists keeps its mode.
///
/// What is deleted is overwritten with zeros in the file (`secure_delete = ON`). That does not cover:
///
/// - the log: what was deleted can be read there until the log is folded in, and its octets are overwritten only as
///   later changes come. A clean stop removes it, which frees its blocks and does not overwrite them;
/// - what another program deletes in the file: the setting belongs to a connection;
/// - copies that others hold: backups, snapshots, file systems that write each change to a new place, and flash disks, which
///   do that by themselves. Only an encrypted disk helps there.
#[derive(Clone)]
pub struct SqliteStore {
    path: Option<PathBuf>,
    threads: Arc<Threads>,
}

impl SqliteStore {
    /// Opens a file, and creates it with its tables where there is none.
    ///
    /// Writes to it once, so that a file that cannot be written is refused here and not by the first change.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](super::StoreErrorKind::Misconfigured) if the file or its folder cannot be written, or if the file is no
    /// database, is another application's, or was written by a newer version of this crate or before its first
    /// release: such a file is left as it is. [`Unavailable`](super::StoreErrorKind::Unavailable) if another process holds it for longer than ten
    /// seconds, or if the disk is full. The error's sources name the file and the reason.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may have created the file and its tables.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let threads = blocking("web-push-open", {
            let path = path.clone();
            move || Self::connect(&path).map_err(|error| error.about(path.display()))
        });
        Ok(Self {
            threads: Arc::new(threads.await?),
            path: Some(path),
        })
    }

    /// Opens a database of its own in memory: SQLite's behaviour without a file, for tests.
    ///
    /// # Errors
    ///
    /// Where SQLite or the operating system has no memory or no thread for it.
    pub async fn open_in_memory() -> Result<Self, StoreError> {
        let threads = Threads::start(connection::in_memory()?, Vec::new(), None, None)?;
        Ok(Self {
            path: None,
            threads: Arc::new(threads),
        })
    }

    fn connect(path: &Path) -> Result<Threads, StoreError> {
        let path = connection::absolute(path)?;
        let writer = connection::writer(&path)?;
        let identity = Identity::of(&path)?;
        let readers = (0..READERS).map(|_| connection::reader(&path));
        let readers = readers.collect::<Result<_, _>>()?;
        let log = Log::of(&path, MAX_LOG);
        Threads::start(writer, readers, Some(log), Some(identity))
    }

    /// Copies the store in the file `from` into a new file `to`, in one moment's state.
    ///
    /// The store may be in use, by this process and by others: readers and the writer go on. It need not be, and is left
    /// as it is. The copy is one file without a log, with nothing in it that was
    /// deleted. It is opened like any other.
    ///
    /// `to` is readable by its owner only (mode 0600, on Unix) and appears under its name when it is complete and on the
    /// disk. Until then it has a hidden name in the same folder, which a crash leaves behind.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](super::StoreErrorKind::Misconfigured) if `from` does not exist or is no store of this version of the crate, or if `to`
    /// exists, which is left as it is, or cannot be created.
    /// [`Corrupt`](super::StoreErrorKind::Corrupt) if the file is damaged. [`Unavailable`](super::StoreErrorKind::Unavailable) if the
    /// disk is full. The error's sources name the file and the reason.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it goes on in its thread to its end.
    ///
    /// # Security
    ///
    /// The copy holds what the store holds. Key-encryption keys are not in it: without them the VAPID keys in it
    /// cannot be used.
    pub async fn backup(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), StoreError> {
        let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
        blocking("web-push-backup", move || backup::copy(&from, &to)).await
    }

    /// Closes the database for all clones of this handle, when the calls that wait are done.
    ///
    /// Later calls answer [`Unavailable`](super::StoreErrorKind::Unavailable). After `Ok` the file holds everything: the
    /// write-ahead log is folded in. The log is removed too, unless another process has the file open: then it
    /// is empty, and the last process to close the file removes it. Of several that close at the same moment none may be the
    /// last: then the empty log stays.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](super::StoreErrorKind::Unavailable) if the log could not be folded in: another process was in the middle of
    /// a transaction for longer than a second, or the disk is full. The database is closed and nothing is lost, but the file
    /// is not complete without its `-wal`. Called again, it returns the same.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its turn in the queue of changes it has done nothing. Dropped later, the database is closed all the
    /// same.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.threads.close().await
    }

    /// Changes the database in the writer's next transaction.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        ask(self.threads.writer(), work).await
    }

    /// Looks at one state of the database.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        ask(self.threads.reader(), work).await
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Runs work that blocks in a thread of its own.
async fn blocking<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (answer, answered) = oneshot::channel();
    spawn(name, move || {
        let _ = answer.send(work());
    })?;
    answered.await.map_err(|_| closed())?
}
