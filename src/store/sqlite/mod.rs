//! A store in an SQLite file, the embedded default.

mod backup;
mod broadcasts;
mod claims;
mod connection;
mod content;
mod damage;
mod due_origins;
mod erase;
mod error;
mod expansion;
mod far_rows;
mod holding;
mod identity;
mod ledger;
mod library;
mod listing;
mod liveness;
mod lock_file;
mod log;
mod outbox;
mod part;
mod pauses;
#[cfg(test)]
mod plans;
mod portable;
mod prefix;
mod query;
mod samples;
mod schedules;
mod schema;
mod subscription_count;
mod subscription_rows;
mod subscriptions;
mod tallies;
mod threads;
mod turns;
mod vapid_keys;
mod watch;
mod worker;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

pub use ::rusqlite;
use tokio::sync::oneshot;

use self::connection::Connection;
use self::error::closed;
use self::identity::Identity;
use self::liveness::Liveness;
use self::log::{Log, MAX_LOG};
use self::prefix::Prefix;
use self::threads::{Threads, spawn};
use self::watch::Watch;
use self::worker::ask;
use super::StoreError;
use super::readable::KnownDamage;

/// Number of reader connections, beside the one for brief reads: a long count does not block pages and lists.
const READERS: usize = 2;

/// Keeps everything in one SQLite file, shared by any number of handles and processes on one machine.
///
/// The file is one of its own ([`open`](Self::open)), or the application's, where the names of its tables begin with a
/// prefix ([`open_in`](Self::open_in)).
///
/// While it is open the file has a write-ahead log and an index of it beside it: `push.db-wal` and `push.db-shm`. A change
/// that a call returned as stored survives a crash of the process and a loss of power (`synchronous = FULL`). Changes that
/// wait at the same time share one sync of the disk. One thread writes and three read, so no call blocks the runtime. Another
/// looks for commits of other programs every 50 milliseconds while a worker runs, in an application's file every 5.
///
/// Closing the store writes the log into the file and removes it. [`close`](Self::close) does so and returns when it is
/// done. Dropping the last clone of the handle does the same and blocks the dropping thread: for milliseconds, or until
/// an active read ends. After a crash the changes are in the log, and the next process that opens the file applies them.
/// While it is open the log stays below 64 MiB, except during a read of more than a second, or a transaction of another
/// process such as a backup.
///
/// A store that claims rows has locked a file with its number beside the database, such as `push.db-worker-1`, until it is
/// closed or its process ends. Another store that gets the lock makes the rows that it had claimed due at once (L19): after
/// a crash the next process does so at its first claim, and one that runs within a second. The files are empty, used again,
/// and not deleted. Where files cannot be locked, leases end by their time only, and the log has a warning.
///
/// If the file is deleted or replaced while it is open, every change is refused: it would be lost with the process. So is,
/// on Linux, every change after another SQLite library in this process has opened the file: the locks of two libraries in
/// one process do not hold against each other, and they would damage the file. The store looks once a second, for one that has
/// the file open or has removed the index when it closed it. One that opens and closes the file between two looks and leaves
/// the index in place is not noticed. From then on no connection of the store is closed until the process ends, since
/// closing takes away locks and removes the log.
///
/// A purge, a cancellation, a pruning and an erasure change at most 1,000 rows in a transaction, which takes about 20 ms on a
/// fast disk. Other writers wait for one such transaction, and for a checkpoint of the log every 64 MiB.
///
/// Do not put the file on a network file system: SQLite's locks do not work there. Do not copy the file while it is open:
/// see [`backup`](Self::backup). Do not open the file or its `-shm` by other means than SQLite in a process that has the
/// store open: closing it again takes the locks away from SQLite.
///
/// Use SQLite 3.51.3 or later, 3.50.7 or 3.44.6 in all programs that have the file open: others can damage it in rare cases.
/// With such a version in this process the log has a warning.
///
/// # Cancel safety
///
/// A future that is dropped while it waits for its thread has changed nothing. One that is dropped later has made all of
/// its change.
///
/// # Security
///
/// The file holds endpoints, message payloads and sealed VAPID keys. A new file and its log are readable by their owner
/// only (mode 0600, on Unix). An existing file keeps its mode.
///
/// Deleted data is overwritten with zeros in the file (`secure_delete = ON`). That does not cover:
///
/// - the log: deleted data is readable there until later changes overwrite it. A clean stop removes the log, which frees
///   its blocks and does not overwrite them;
/// - data that another program deletes in the file: the setting belongs to a connection;
/// - copies elsewhere: backups, snapshots, copy-on-write file systems and flash disks. Use an encrypted disk against those.
#[derive(Clone)]
pub struct SqliteStore {
    path: Option<PathBuf>,
    prefix: Prefix,
    threads: Arc<Threads>,
    /// The last origin that a step of pruning has looked at.
    pruned_origin: Arc<AtomicI64>,
    /// The number of lists of broadcasts to expand so far.
    listings: Arc<AtomicU64>,
    /// When the queue may be searched for rows that cannot be read: a search reads all of it.
    searched_until: Arc<AtomicI64>,
    /// The numbers of days that cannot be read.
    damaged_days: Arc<KnownDamage>,
}

impl SqliteStore {
    /// Opens a file. Creates it with its tables if it does not exist.
    ///
    /// Writes to it once, so that a file without write permission is refused here and not by the first change.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](super::StoreErrorKind::Misconfigured) if the file or its folder cannot be written, or if the file is
    /// not a database, belongs to another application, or was written by a newer version of this crate or before its first
    /// release. Such a file is not changed. [`Unavailable`](super::StoreErrorKind::Unavailable) if another process locks it
    /// for longer than ten seconds, or if the disk is full. The error's sources name the file and the reason.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have created the file and its tables.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path.as_ref().to_owned(), Prefix::default()).await
    }

    /// Opens the application's database file and creates the store's tables in it if they do not exist, with names that
    /// begin with `prefix`, such as `"web_push_"`.
    ///
    /// The application writes messages into the table `web_push_outbox` in transactions of its own: a message is sent if, and
    /// only if, the transaction commits. See [`enqueue_in`](Self::enqueue_in) and
    /// [the guide](crate::guide::in_your_own_transaction). One backup has the data of both. All else in
    /// the file stays as it is: other tables, `user_version`, `application_id` and the journal mode. Several stores with
    /// different prefixes can be in one file.
    ///
    /// The file has to exist, and to have a write-ahead log (`PRAGMA journal_mode = WAL`, once). Its tables are plain ones:
    /// every program with SQLite 3.31 (2020) or later can read the file.
    ///
    /// The store writes in transactions of about 5 milliseconds, or of one call that takes longer, and leaves as much time
    /// between two of them, at most 100 milliseconds. Each process does so by itself. An application
    /// with a busy timeout of a second or more writes beside it. Closing it runs no
    /// checkpoint unless it is the last to close the file. With Litestream's table `_litestream_seq` in it, it runs none.
    ///
    /// Tools that compare the tables of a file with a schema (of an object-relational mapper) have to leave out names with
    /// the prefix. Use one SQLite library in the process: this crate's `rusqlite` resolves to the one of the application's
    /// own rusqlite or sqlx.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](super::StoreErrorKind::Misconfigured) if the prefix is not 1 to 32 ASCII letters, digits and
    /// underscores, begins with a digit or with `sqlite_`; if the file does not exist, cannot be written, is not a database
    /// or has no write-ahead log; if it has tables of these names that are not the store's or of another version of this
    /// crate; or if another SQLite library in this process has it open (noticed on Linux).
    /// [`Unavailable`](super::StoreErrorKind::Unavailable) if another connection locks it for longer than ten seconds, or if
    /// the disk is full. The error's sources name the file and the reason.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have created the tables.
    ///
    /// # Security
    ///
    /// The file then holds endpoints, secrets of subscriptions, payloads and sealed VAPID keys, and keeps its mode: make it
    /// readable by its owner only, with its `-wal` and `-shm`. Who can write to it can send messages to every subscription.
    pub async fn open_in(path: impl AsRef<Path>, prefix: &str) -> Result<Self, StoreError> {
        let prefix = Prefix::parse(prefix)?;
        Self::open_with(path.as_ref().to_owned(), prefix).await
    }

    async fn open_with(path: PathBuf, prefix: Prefix) -> Result<Self, StoreError> {
        let threads = blocking("web-push-open", {
            let (path, prefix) = (path.clone(), prefix.clone());
            move || Self::connect(&path, &prefix).map_err(|error| error.about(path.display()))
        });
        Ok(Self::new(threads.await?, Some(path), prefix))
    }

    fn new(threads: Threads, path: Option<PathBuf>, prefix: Prefix) -> Self {
        Self {
            path,
            prefix,
            threads: Arc::new(threads),
            pruned_origin: Arc::new(AtomicI64::new(i64::MIN)),
            listings: Arc::default(),
            searched_until: Arc::new(AtomicI64::new(i64::MIN)),
            damaged_days: Arc::default(),
        }
    }

    /// Opens a new database in memory: SQLite's behaviour without a file, for tests.
    ///
    /// # Errors
    ///
    /// Returns an error if SQLite or the operating system has no memory or thread left.
    pub async fn open_in_memory() -> Result<Self, StoreError> {
        let writer = connection::in_memory()?;
        let threads = Threads::start(
            writer,
            Vec::new(),
            None,
            None,
            None,
            None,
            Liveness::default(),
        )?;
        Ok(Self::new(threads, None, Prefix::default()))
    }

    fn connect(path: &Path, prefix: &Prefix) -> Result<Threads, StoreError> {
        library::warn_of_known_bugs();
        let path = connection::absolute(path)?;
        if prefix.is_empty() {
            connection::create_private(&path)?;
        }
        let identity = Identity::of(&path)?;
        // A file that is refused here has no connection of ours that must stay open.
        identity.check_now()?;
        let writer = connection::writer(&path, prefix, &identity)?;
        let readers = (0..READERS).map(|_| connection::reader(&path, prefix, &identity));
        let readers = readers.collect::<Result<_, _>>()?;
        let brief = connection::reader(&path, prefix, &identity)?;
        let watch = Watch::new(connection::reader(&path, prefix, &identity)?);
        let log = Log::of(&path, MAX_LOG);
        let liveness = Liveness::of(&path, prefix);
        Threads::start(
            writer,
            readers,
            Some(brief),
            Some(watch),
            Some(log),
            Some(identity),
            liveness,
        )
    }

    /// Copies a snapshot of the store in the file `from` into a new file `to`.
    ///
    /// Of a file of the store's own: an application's file is backed up by the application, with all that is in it.
    ///
    /// This process and others may use the store meanwhile: readers and the writer are not blocked. The store is not
    /// changed. The copy is one file without a log and without deleted data, and is opened like any other.
    ///
    /// `to` is readable by its owner only (mode 0600, on Unix) and gets its name when it is complete and synced. Until then
    /// it has a hidden name in the same folder, which remains after a crash.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](super::StoreErrorKind::Misconfigured) if `from` does not exist or is not a store of this version of
    /// the crate, or if `to` exists (it is not changed) or cannot be created.
    /// [`Corrupt`](super::StoreErrorKind::Corrupt) if the file is damaged.
    /// [`Unavailable`](super::StoreErrorKind::Unavailable) if the disk is full. The error's sources name the file and the
    /// reason.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped, its thread stops within moments, and removes what it has written.
    ///
    /// # Security
    ///
    /// The copy holds everything that the store holds. Key-encryption keys are not in it: without them its VAPID keys
    /// cannot be used.
    pub async fn backup(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), StoreError> {
        let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
        let stop = Arc::<backup::Stop>::default();
        let _stops = backup::StopOnDrop(Arc::clone(&stop));
        blocking("web-push-backup", move || backup::copy(&from, &to, &stop)).await
    }

    /// Closes the database for all clones of this handle, after the queued calls.
    ///
    /// Later calls return [`Unavailable`](super::StoreErrorKind::Unavailable). After `Ok` a file of its own holds everything: the
    /// write-ahead log was written into it. The log is removed too, unless another process has the file open: then it is
    /// empty, and the last process to close the file removes it. If several close at the same time, the empty log may
    /// remain.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](super::StoreErrorKind::Unavailable) if the checkpoint failed: another process had an open transaction
    /// for longer than a second, or the disk is full. The database is closed and nothing is lost, but the file is not
    /// complete without its `-wal`. A second call returns the same. Also if the file was deleted or replaced, or another SQLite
    /// library was noticed: then the connections stay open.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its turn in the queue of changes, it has done nothing. Dropped later, the database is closed anyway.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.threads.close().await
    }

    /// Runs a change in the writer's next transaction; again if another change of this transaction fails.
    async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        ask(self.threads.writer(), work).await
    }

    /// Reads from one snapshot of the database.
    async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        ask(self.threads.reader(), work).await
    }

    /// The same for work that reads a few rows, found by an index: it waits for none that may take long, and shares a snapshot with
    /// others.
    async fn read_briefly<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        ask(self.threads.brief(), work).await
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.path)
            .field("prefix", &self.prefix.to_string())
            .finish_non_exhaustive()
    }
}

/// Runs blocking work in a thread of its own.
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
