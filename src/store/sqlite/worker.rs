//! The threads that hold the connections: one writes, a few read.
//!
//! The writer takes everything that is waiting into one transaction, each change under a savepoint of its
//! own, and answers after the commit: with many callers at once the disk is synced once for all of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::error::{CommitError, closed, failed};
use super::identity::Identity;
use super::log::Log;
use crate::store::StoreError;

/// Callers that may wait for a thread before the next one waits for room.
pub(super) const QUEUE: usize = 256;
/// The most that one transaction takes in, so that nobody waits long for an answer.
const MAX_BATCH: usize = 64;
const MAX_BATCH_TIME: Duration = Duration::from_millis(50);

/// What a thread is sent.
pub(super) enum Command {
    Run(Box<dyn Job>),
    /// Finish what waits, and end.
    Close,
}

/// Work with its caller behind it.
pub(super) trait Job: Send {
    /// Whether nobody waits for it any more.
    fn is_abandoned(&self) -> bool;
    fn run(self: Box<Self>, conn: &Connection) -> Done;
    fn refuse(self: Box<Self>, error: StoreError);
}

/// Work that was done, and not yet answered.
pub(super) struct Done {
    is_ok: bool,
    answer: Box<Answer>,
}

/// Tells the caller, given why the transaction was not committed, if it was not.
type Answer = dyn FnOnce(Option<&CommitError>);

/// Sends work to a thread and waits for its answer.
///
/// # Cancel safety
///
/// Dropped before the thread takes it up, the work is not done; after that it is done wholly.
pub(super) async fn ask<T: Send + 'static>(
    thread: &mpsc::Sender<Command>,
    work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (answer, answered) = oneshot::channel();
    let job = Box::new(Task { work, answer });
    thread.send(Command::Run(job)).await.map_err(|_| closed())?;
    answered.await.map_err(|_| closed())?
}

struct Task<T, F> {
    work: F,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Task<T, F>
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
{
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    fn run(self: Box<Self>, conn: &Connection) -> Done {
        let result = (self.work)(conn);
        let answer = self.answer;
        Done {
            is_ok: result.is_ok(),
            answer: Box::new(move |commit| {
                let result = match commit {
                    Some(error) => result.and_then(|_| Err(error.to_store_error())),
                    None => result,
                };
                // Nobody may be waiting any more: then the change stands unannounced.
                let _ = answer.send(result);
            }),
        }
    }

    fn refuse(self: Box<Self>, error: StoreError) {
        let _ = self.answer.send(Err(error));
    }
}

/// Runs the writer until all handles are gone, or one has closed it.
pub(super) fn write(
    conn: &Connection,
    mut commands: mpsc::Receiver<Command>,
    mut log: Option<&mut Log>,
    identity: Option<&Identity>,
) {
    while let Some(command) = commands.blocking_recv() {
        match command {
            Command::Run(job) => {
                if let Some(Err(error)) = identity.map(Identity::check) {
                    job.refuse(error);
                    continue;
                }
                transaction(conn, job, &mut commands);
                if let Some(log) = &mut log {
                    log.bound(conn);
                }
            }
            Command::Close => commands.close(),
        }
    }
}

/// One transaction around `first` and what waits behind it.
fn transaction(conn: &Connection, first: Box<dyn Job>, commands: &mut mpsc::Receiver<Command>) {
    if first.is_abandoned() {
        return;
    }
    if let Err(error) = statement(conn, "BEGIN IMMEDIATE") {
        first.refuse(failed(error));
        return;
    }
    let started = Instant::now();
    let mut batch = Vec::new();
    let mut next = Some(first);
    let mut outcome = Ok(());
    while let Some(job) = next.take() {
        if !job.is_abandoned() {
            outcome = savepoint(conn, job, &mut batch);
        }
        if outcome.is_err() || batch.len() >= MAX_BATCH || started.elapsed() >= MAX_BATCH_TIME {
            break;
        }
        match commands.try_recv() {
            Ok(Command::Run(job)) => next = Some(job),
            Ok(Command::Close) => commands.close(),
            Err(_) => {}
        }
    }
    let outcome = outcome.and_then(|()| statement(conn, "COMMIT"));
    let error = outcome.err().map(CommitError::new);
    if error.is_some() && !conn.is_autocommit() {
        // It is over either way: without a commit the file is as it was.
        let _ = statement(conn, "ROLLBACK");
    }
    for done in batch {
        (done.answer)(error.as_ref());
    }
}

/// One job under its own savepoint: what fails leaves no trace, and the others in the transaction stand.
fn savepoint(
    conn: &Connection,
    job: Box<dyn Job>,
    batch: &mut Vec<Done>,
) -> Result<(), rusqlite::Error> {
    if let Err(error) = statement(conn, "SAVEPOINT job") {
        job.refuse(failed(error));
        return Ok(());
    }
    let done = job.run(conn);
    let is_ok = done.is_ok;
    batch.push(done);
    // On some errors (a full disk) SQLite itself rolls all of it back: then these statements fail, and
    // with them the whole batch.
    if !is_ok {
        statement(conn, "ROLLBACK TO job")?;
    }
    statement(conn, "RELEASE job")
}

fn statement(conn: &Connection, sql: &str) -> Result<(), rusqlite::Error> {
    conn.prepare_cached(sql)?.execute([]).map(|_| ())
}

/// Runs one of the readers; they share a queue.
pub(super) fn read(conn: &Connection, commands: &Arc<Mutex<mpsc::Receiver<Command>>>) {
    loop {
        // One waits for work holding the lock, the others for the lock.
        let command = {
            let mut commands = commands.lock().unwrap_or_else(PoisonError::into_inner);
            let command = commands.blocking_recv();
            if matches!(command, Some(Command::Close)) {
                commands.close();
            }
            command
        };
        match command {
            Some(Command::Run(job)) if job.is_abandoned() => {}
            // One transaction, so that all statements of one job see the same database.
            Some(Command::Run(job)) => match statement(conn, "BEGIN") {
                Ok(()) => {
                    let done = job.run(conn);
                    // Nothing was changed: how it ends does not matter.
                    let _ = statement(conn, "COMMIT");
                    (done.answer)(None);
                }
                Err(error) => job.refuse(failed(error)),
            },
            Some(Command::Close) | None => break,
        }
    }
}
