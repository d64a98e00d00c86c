//! The threads of an open database, and closing it.

use std::sync::mpsc as asking;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};

use tokio::sync::{mpsc, watch};

use super::connection::Connection;
use super::error::closed;
use super::identity::Identity;
use super::liveness::Liveness;
use super::log::{self, Log, NotFolded};
use super::watch::{Asked, Watch, changes};
use super::worker::{self, Command, QUEUE};
use crate::store::{Changes, StoreError, StoreErrorKind};

/// The state that all clones of a handle share. Fields drop in order: the writer is joined after its sender is gone.
pub(super) struct Threads {
    writer: mpsc::Sender<Command>,
    /// `None` for a database in memory, which has a single connection.
    readers: Option<mpsc::Sender<Command>>,
    brief: Option<mpsc::Sender<Command>>,
    /// Ends at once for a database in memory, which has a single connection.
    watch: asking::Sender<Asked>,
    liveness: Arc<Mutex<Liveness>>,
    /// The result of closing, once the database is closed.
    closed: watch::Receiver<Option<Result<(), NotFolded>>>,
    _join: JoinOnDrop,
}

impl Threads {
    /// Starts one thread for each connection.
    pub(super) fn start(
        writer: Connection,
        readers: Vec<Connection>,
        brief: Option<Connection>,
        watch: Option<Watch>,
        mut log: Option<Log>,
        identity: Option<Identity>,
        liveness: Liveness,
    ) -> Result<Self, StoreError> {
        let (reads, mut reading) = start_readers(readers)?;
        let brief = brief.map(start_brief).transpose()?;
        let brief = brief.map(|(reads, thread)| {
            reading.push(thread);
            reads
        });
        let (ask, asked) = asking::channel();
        let watching = watch.map(|watch| spawn("web-push-watch", move || watch.run(&asked)));
        let watching = watching.transpose()?;
        let mut ids: Vec<_> = reading.iter().map(|reader| reader.thread().id()).collect();
        let (writes, commands) = mpsc::channel(QUEUE);
        let (close, closed) = watch::channel(None);
        let liveness = Arc::new(Mutex::new(liveness));
        let thread = spawn("web-push-write", {
            let reads: Vec<_> = reads.iter().chain(&brief).cloned().collect();
            let (ask, liveness) = (ask.clone(), Arc::clone(&liveness));
            move || {
                worker::write(&writer, commands, log.as_mut(), identity.as_ref());
                // A connection that must not be closed learns of it before the first one is.
                let _ = identity.as_ref().map(Identity::check_now);
                let _ = ask.send(Asked::Stop);
                // The readers end first: of connections that close at the same time each may take another for the last
                // one, and the log would stay.
                for reads in reads {
                    let _ = reads.blocking_send(Command::Close);
                }
                for reader in reading.into_iter().chain(watching) {
                    let _ = reader.join();
                }
                let ended = log::close(writer);
                // The handle may outlive the database.
                lock(&liveness).leave();
                close.send_replace(Some(ended));
            }
        })?;
        ids.push(thread.thread().id());
        Ok(Self {
            writer: writes,
            readers: reads,
            brief,
            watch: ask,
            liveness,
            closed,
            _join: JoinOnDrop {
                thread: Some(thread),
                ids,
            },
        })
    }

    pub(super) fn writer(&self) -> &mpsc::Sender<Command> {
        &self.writer
    }

    pub(super) fn reader(&self) -> &mpsc::Sender<Command> {
        self.readers.as_ref().unwrap_or(&self.writer)
    }

    /// The thread for work that reads a few rows.
    pub(super) fn brief(&self) -> &mpsc::Sender<Command> {
        self.brief.as_ref().unwrap_or(&self.writer)
    }

    /// The workers of the database, for use on its threads.
    pub(super) fn liveness(&self) -> Arc<Mutex<Liveness>> {
        Arc::clone(&self.liveness)
    }

    /// Hints of changes by others.
    pub(super) fn changes(&self) -> Changes {
        changes(&self.watch)
    }

    /// Stops the threads once their queues are empty.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        // An error means that it is closed already: the same result is returned again.
        let _ = self.writer.send(Command::Close).await;
        let mut ended = self.closed.clone();
        let ended = ended.wait_for(Option::is_some).await;
        match ended.map_err(|_| closed())?.as_ref() {
            Some(Err(error)) => Err(error.to_store_error()),
            _ => Ok(()),
        }
    }
}

/// Locks what the threads share.
pub(super) fn lock(liveness: &Mutex<Liveness>) -> MutexGuard<'_, Liveness> {
    liveness.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Joins the writer's thread, which joins the readers.
struct JoinOnDrop {
    thread: Option<JoinHandle<()>>,
    /// All threads. Dropped on one of them it does not join, which would be a deadlock.
    ids: Vec<ThreadId>,
}

impl Drop for JoinOnDrop {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take()
            && !self.ids.contains(&thread::current().id())
        {
            let _ = thread.join();
        }
    }
}

type Readers = (Option<mpsc::Sender<Command>>, Vec<JoinHandle<()>>);

fn start_readers(conns: Vec<Connection>) -> Result<Readers, StoreError> {
    if conns.is_empty() {
        return Ok((None, Vec::new()));
    }
    let (sender, commands) = mpsc::channel(QUEUE);
    let commands = Arc::new(Mutex::new(commands));
    let threads = conns.into_iter().map(|conn| {
        let commands = Arc::clone(&commands);
        spawn("web-push-read", move || worker::read(&conn, &commands))
    });
    Ok((Some(sender), threads.collect::<Result<_, _>>()?))
}

fn start_brief(conn: Connection) -> Result<(mpsc::Sender<Command>, JoinHandle<()>), StoreError> {
    let (sender, commands) = mpsc::channel(QUEUE);
    let thread = spawn("web-push-brief", move || {
        worker::read_together(&conn, commands)
    })?;
    Ok((sender, thread))
}

/// Starts a thread with a name.
pub(super) fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StoreError> {
    let thread = thread::Builder::new().name(name.to_owned());
    let spawned = thread.spawn(work);
    spawned.map_err(|error| StoreError::new(StoreErrorKind::Unavailable, error))
}
