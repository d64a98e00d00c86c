//! The threads that hold the connections: one writer and a few readers.
//!
//! The writer runs all waiting changes in one transaction, each after the first under a savepoint of its own, and answers after
//! the commit. Concurrent callers share one sync of the disk.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::connection::Connection;
use super::error::{CommitError, closed, failed};
use super::identity::Identity;
use super::log::Log;
use crate::store::StoreError;

/// The length of a thread's queue. Further callers wait until there is space.
pub(super) const QUEUE: usize = 256;
/// The limits of one transaction, which bound the wait for an answer.
const MAX_BATCH: usize = 64;
const MAX_BATCH_TIME: Duration = Duration::from_millis(50);
/// As [`MAX_BATCH_TIME`], in an application's file: the application's own changes wait as well.
const MAX_BATCH_TIME_IF_SHARED: Duration = Duration::from_millis(5);
/// The longest time for which an application's file is left after a transaction.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A command to a thread.
pub(super) enum Command {
    Run(Box<dyn Job>),
    /// Finishes the queue and stops.
    Close,
}

/// Work with a caller that waits for it.
pub(super) trait Job: Send {
    /// Returns whether the caller has gone.
    fn is_abandoned(&self) -> bool;
    fn run(self: Box<Self>, conn: &Connection) -> Done;
    fn refuse(self: Box<Self>, error: StoreError);
}

/// Finished work whose answer is not sent yet.
pub(super) struct Done {
    is_ok: bool,
    answer: Box<Answer>,
}

/// Sends the answer, or the error of the commit.
type Answer = dyn FnOnce(Option<&CommitError>);

/// Sends work to a thread and waits for its answer.
///
/// # Cancel safety
///
/// Dropped before the thread starts the work, nothing is done. Dropped later, all of it is done.
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
                // Fails if the caller has gone. The change stays.
                let _ = answer.send(result);
            }),
        }
    }

    fn refuse(self: Box<Self>, error: StoreError) {
        let _ = self.answer.send(Err(error));
    }
}

/// Runs the writer until all handles are dropped or one closes it.
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
                let took = transaction(conn, job, &mut commands, identity);
                if conn.is_shared() {
                    give_way(took);
                }
                if let Some(log) = &mut log {
                    log.bound(conn);
                }
            }
            Command::Close => commands.close(),
        }
    }
}

/// Leaves the file to the application's changes for as long as our transaction took. SQLite has no line of waiting writers:
/// each asks again after a pause, and would hardly meet the moment between two transactions. What is asked of the store
/// meanwhile shares the next one.
fn give_way(took: Duration) {
    thread::sleep(took.min(LONGEST_PAUSE));
}

/// Runs `first` and the jobs queued behind it in one transaction. Returns for how long others could not write.
///
/// The first one needs no savepoint: if it fails, there is nothing else to keep. Under a savepoint SQLite copies each page before
/// its first change, and after each statement that fires a trigger it goes through all copies: a change of a thousand rows would
/// take three times as long.
fn transaction(
    conn: &Connection,
    first: Box<dyn Job>,
    commands: &mut mpsc::Receiver<Command>,
    identity: Option<&Identity>,
) -> Duration {
    if first.is_abandoned() {
        return Duration::ZERO;
    }
    if let Err(error) = statement(conn, "BEGIN IMMEDIATE") {
        first.refuse(failed(error));
        return Duration::ZERO;
    }
    let started = Instant::now();
    let longest = match conn.is_shared() {
        true => MAX_BATCH_TIME_IF_SHARED,
        false => MAX_BATCH_TIME,
    };
    let done = first.run(conn);
    if !done.is_ok {
        roll_back(conn);
        (done.answer)(None);
        return started.elapsed();
    }
    let mut batch = vec![done];
    // On some errors (a full disk) SQLite rolls the transaction back. What a job does in spite of that is committed by itself:
    // there is nothing to join, and the `COMMIT` fails.
    let is_over = conn.is_autocommit();
    let mut outcome = Ok(());
    while !is_over && batch.len() < MAX_BATCH && started.elapsed() < longest {
        match commands.try_recv() {
            Ok(Command::Run(job)) if job.is_abandoned() => {}
            Ok(Command::Run(job)) => outcome = savepoint(conn, job, &mut batch),
            Ok(Command::Close) => commands.close(),
            Err(_) => break,
        }
        if outcome.is_err() {
            break;
        }
    }
    // The file was there when the transaction began. A job that joined it may be younger than the end of the file.
    let outcome = outcome
        .map_err(CommitError::failed)
        .and_then(|()| {
            identity
                .map_or(Ok(()), Identity::check)
                .map_err(CommitError::refused)
        })
        .and_then(|()| statement(conn, "COMMIT").map_err(CommitError::failed));
    let error = outcome.err();
    if error.is_some() {
        roll_back(conn);
    }
    let took = started.elapsed();
    for done in batch {
        (done.answer)(error.as_ref());
    }
    took
}

/// Ends the transaction, unless SQLite has done so: it does on some errors.
fn roll_back(conn: &Connection) {
    if !conn.is_autocommit() {
        // The result does not matter: without a commit the file is unchanged.
        let _ = statement(conn, "ROLLBACK");
    }
}

/// Runs one job under its own savepoint: a failed job is rolled back, the others in the transaction stay.
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
    // On some errors (a full disk) SQLite rolls back the whole transaction: then these statements fail, and with them the
    // batch.
    if !is_ok {
        statement(conn, "ROLLBACK TO job")?;
    }
    statement(conn, "RELEASE job")
}

fn statement(conn: &Connection, sql: &str) -> Result<(), rusqlite::Error> {
    conn.prepare_cached(sql)?.execute([]).map(|_| ())
}

/// Runs one of the readers, which share a queue.
pub(super) fn read(conn: &Connection, commands: &Arc<Mutex<mpsc::Receiver<Command>>>) {
    loop {
        // One reader waits for work and holds the lock. The others wait for the lock.
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
            // One transaction, so that all statements of one job see the same snapshot.
            Some(Command::Run(job)) => match statement(conn, "BEGIN") {
                Ok(()) => {
                    let done = job.run(conn);
                    // Nothing was changed, so the result does not matter.
                    let _ = statement(conn, "COMMIT");
                    (done.answer)(None);
                }
                Err(error) => job.refuse(failed(error)),
            },
            Some(Command::Close) | None => break,
        }
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
