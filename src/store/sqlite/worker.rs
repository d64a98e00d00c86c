//! The threads that hold the connections: one writer and a few readers.
//!
//! The writer runs all waiting changes in one transaction, and answers after the commit. Concurrent callers share one sync of
//! the disk. If one of them fails halfway, all of them are taken back and run again, each under a savepoint of its own, and so do
//! those that come behind them.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::connection::Connection;
use super::error::{CommitError, closed, failed};
use super::identity::Identity;
use super::log::Log;
use crate::store::{StoreError, StoreErrorKind};

/// The length of a thread's queue. Further callers wait until there is space.
pub(super) const QUEUE: usize = 256;
/// The limits of one transaction, which bound the wait for an answer.
const MAX_BATCH: usize = 64;
const MAX_BATCH_TIME: Duration = Duration::from_millis(50);
/// As [`MAX_BATCH_TIME`], in an application's file: the application's own changes wait as well.
const MAX_BATCH_TIME_IF_SHARED: Duration = Duration::from_millis(5);
/// The longest time for which an application's file is left after a transaction.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

const BEGIN: &str = "BEGIN IMMEDIATE";

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
    /// Runs it, again if what it did was taken back, and keeps the result. Returns the kind of its error.
    fn run(&mut self, conn: &Connection) -> Result<(), StoreErrorKind>;
    /// Sends the last result. After an error of the commit there is no success.
    fn answer(self: Box<Self>, commit: Option<&CommitError>);
    fn refuse(self: Box<Self>, error: StoreError);
}

/// Sends work to a thread and waits for its answer.
///
/// # Cancel safety
///
/// Dropped before the thread starts the work, nothing is done. Dropped later, all of it is done.
pub(super) async fn ask<T: Send + 'static>(
    thread: &mpsc::Sender<Command>,
    work: impl Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (job, answered) = Task::new(work);
    thread.send(Command::Run(job)).await.map_err(|_| closed())?;
    answered.await.map_err(|_| closed())?
}

struct Task<T, F> {
    work: F,
    result: Option<Result<T, StoreError>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Task<T, F> {
    fn new(work: F) -> (Box<Self>, oneshot::Receiver<Result<T, StoreError>>) {
        let (answer, answered) = oneshot::channel();
        let task = Self {
            work,
            result: None,
            answer,
        };
        (Box::new(task), answered)
    }
}

impl<T, F> Job for Task<T, F>
where
    T: Send + 'static,
    F: Fn(&Connection) -> Result<T, StoreError> + Send,
{
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    fn run(&mut self, conn: &Connection) -> Result<(), StoreErrorKind> {
        let result = self.result.insert((self.work)(conn)).as_ref();
        result.map(drop).map_err(StoreError::kind)
    }

    fn answer(self: Box<Self>, commit: Option<&CommitError>) {
        let result = self.result.unwrap_or_else(|| Err(closed()));
        let result = match commit {
            Some(error) => result.and_then(|_| Err(error.to_store_error())),
            None => result,
        };
        // Fails if the caller has gone. The change stays.
        let _ = self.answer.send(result);
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
/// Without savepoints: under one SQLite copies each page before its first change, and after each statement that fires a trigger
/// it goes through all copies. A change of a thousand rows would take three times as long.
fn transaction(
    conn: &Connection,
    first: Box<dyn Job>,
    commands: &mut mpsc::Receiver<Command>,
    identity: Option<&Identity>,
) -> Duration {
    if first.is_abandoned() {
        return Duration::ZERO;
    }
    if let Err(error) = statement(conn, BEGIN) {
        first.refuse(failed(error));
        return Duration::ZERO;
    }
    let mut started = Instant::now();
    let longest = match conn.is_shared() {
        true => MAX_BATCH_TIME_IF_SHARED,
        false => MAX_BATCH_TIME,
    };
    let mut jobs: Vec<Box<dyn Job>> = Vec::new();
    let mut next = Some(first);
    let mut held = Duration::ZERO;
    // Whether each job has a savepoint of its own.
    let mut is_careful = false;
    let mut ran = Ok(());
    while let Some(mut job) = next.take() {
        let is_halfway = match is_careful {
            true => {
                ran = savepoint(conn, &mut *job);
                false
            }
            false => run(conn, &mut *job) == Ran::Halfway,
        };
        jobs.push(job);
        if is_halfway {
            roll_back(conn);
            held += started.elapsed();
            if let [_] = jobs.as_slice() {
                answer(jobs, None);
                return held;
            }
            if let Err(error) = statement(conn, BEGIN).map_err(CommitError::failed) {
                answer(jobs, Some(&error));
                return held;
            }
            started = Instant::now();
            is_careful = true;
            ran = jobs
                .iter_mut()
                .try_for_each(|job| savepoint(conn, &mut **job));
        }
        // On some errors (a full disk) SQLite rolls the transaction back. What a job does in spite of that is committed by
        // itself: there is nothing to join, and the `COMMIT` fails.
        let is_over = ran.is_err() || conn.is_autocommit();
        while next.is_none() && !is_over && jobs.len() < MAX_BATCH && started.elapsed() < longest {
            match commands.try_recv() {
                Ok(Command::Run(job)) if job.is_abandoned() => {}
                Ok(Command::Run(job)) => next = Some(job),
                Ok(Command::Close) => commands.close(),
                Err(_) => break,
            }
        }
    }
    commit(conn, jobs, ran, identity);
    held + started.elapsed()
}

/// How a job ended.
#[derive(PartialEq, Eq)]
enum Ran {
    /// As a whole: it succeeded, or it refused and has changed nothing.
    Whole,
    /// It failed, and something of it may have been done.
    Halfway,
}

/// Runs a job without a savepoint.
fn run(conn: &Connection, job: &mut dyn Job) -> Ran {
    let changes = conn.total_changes();
    match job.run(conn) {
        Ok(()) => Ran::Whole,
        Err(StoreErrorKind::Full) if conn.total_changes() == changes => Ran::Whole,
        // A statement that fails on damage has changed what it could, and SQLite does not count that.
        Err(_) => Ran::Halfway,
    }
}

/// Commits what these jobs did, unless `ran` is an error, and answers.
fn commit(
    conn: &Connection,
    jobs: Vec<Box<dyn Job>>,
    ran: Result<(), rusqlite::Error>,
    identity: Option<&Identity>,
) {
    // The file was there when the transaction began. A job that joined it may be younger than the end of the file.
    let outcome = ran
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
    answer(jobs, error.as_ref());
}

fn answer(jobs: Vec<Box<dyn Job>>, error: Option<&CommitError>) {
    for job in jobs {
        job.answer(error);
    }
}

/// Ends the transaction, unless SQLite has done so: it does on some errors.
fn roll_back(conn: &Connection) {
    if !conn.is_autocommit() {
        // The result does not matter: without a commit the file is unchanged.
        let _ = statement(conn, "ROLLBACK");
    }
}

/// Runs one job under its own savepoint: a failed job is rolled back, the others in the transaction stay.
fn savepoint(conn: &Connection, job: &mut dyn Job) -> Result<(), rusqlite::Error> {
    statement(conn, "SAVEPOINT job")?;
    // On some errors (a full disk) SQLite rolls back the whole transaction: then these statements fail, and with them the
    // batch.
    if job.run(conn).is_err() {
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
            Some(Command::Run(mut job)) => match statement(conn, "BEGIN") {
                Ok(()) => {
                    // Its error is its caller's.
                    let _ = job.run(conn);
                    // Nothing was changed, so the result does not matter.
                    let _ = statement(conn, "COMMIT");
                    job.answer(None);
                }
                Err(error) => job.refuse(failed(error)),
            },
            Some(Command::Close) | None => break,
        }
    }
}

/// Runs the reader for brief work. All that waits has the same snapshot, which is younger than the calls: SQLite drops the pages
/// that a connection has read before at the first snapshot after a commit.
pub(super) fn read_together(conn: &Connection, mut commands: mpsc::Receiver<Command>) {
    let mut waiting = Vec::new();
    while commands.blocking_recv_many(&mut waiting, QUEUE) > 0 {
        let begun = statement(conn, "BEGIN").map_err(|error| Arc::new(failed(error)));
        for command in waiting.drain(..) {
            match (command, &begun) {
                (Command::Close, _) => commands.close(),
                (Command::Run(job), _) if job.is_abandoned() => {}
                (Command::Run(job), Err(error)) => {
                    job.refuse(StoreError::new(error.kind(), Arc::clone(error)));
                }
                (Command::Run(mut job), Ok(())) => {
                    // Its error is its caller's.
                    let _ = job.run(conn);
                    job.answer(None);
                    // On some errors SQLite ends the transaction: the next job has a snapshot for all of its statements too.
                    if conn.is_autocommit() {
                        let _ = statement(conn, "BEGIN");
                    }
                }
            }
        }
        // Nothing was changed, so the result does not matter.
        let _ = statement(conn, "COMMIT");
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
