//! Which processes live: the rows of one that has ended are due at once (L19).
//!
//! A store that claims is a worker. It has a number and keeps a file locked beside the database, `push.db-worker-1` (in an
//! application's file the tables' prefix is in its name: two stores in one file have their own workers). The
//! rows that it has leased name the number. A worker that gets the lock of another number knows that its owner has ended. All
//! of this happens within the writer's transactions, so that one process at a time looks.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::params;

use super::claims::END_PROBE;
use super::connection::Connection;
use super::lock_file::LockFile;
use super::log;
use super::prefix::Prefix;
use super::query::{all, execute, first, integer};
use crate::clock::Timestamp;
use crate::observe::event;
use crate::store::rules::aside_sql;
use crate::store::{STEP, StoreError};

/// The time between two looks at the other workers.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The largest number of a worker. There are about as many files as processes that ran at the same time.
const MOST: i64 = 1024;

const WORKERS: &str = "SELECT id FROM worker ORDER BY id";
pub(super) const ENLIST: &str = "INSERT INTO worker (id) VALUES (?1) ON CONFLICT (id) DO NOTHING";
pub(super) const STRIKE: &str = "DELETE FROM worker WHERE id = ?1";
pub(super) const OTHERS: &str = "SELECT 1 FROM worker WHERE id <> ?1 LIMIT 1";
pub(super) const LEASED_BY: &str = concat!(
    "SELECT broadcast, key, fence FROM delivery INDEXED BY delivery_waiting \
     WHERE turn IS NULL AND leased = 1 AND at > ?2 AND at < ",
    aside_sql!(),
    " AND worker = ?1 ORDER BY at LIMIT ?3"
);
/// The row keeps its token until it is claimed again.
pub(super) const END_LEASE: &str = "UPDATE delivery SET at = ?3 WHERE broadcast = ?1 AND key = ?2";

/// The workers of one database, as seen by one of them.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    /// The path of a lock file without its number. `None` for a database in memory, and where locks do not work: there
    /// leases end by their time only.
    files: Option<PathBuf>,
    own: Option<(i64, LockFile)>,
    /// When the others were last looked at. `None` if there is more to do at once.
    looked: Option<Instant>,
}

impl Liveness {
    /// Of the workers of the database in `path`.
    pub(super) fn of(path: &Path, prefix: &Prefix) -> Self {
        Self {
            files: Some(log::beside(path, &format!("-{prefix}worker-"))),
            ..Self::default()
        }
    }

    /// This worker's number.
    pub(super) fn own(&self) -> Option<i64> {
        self.own.as_ref().map(|(id, _)| *id)
    }

    /// Whether the other workers are to be looked at. Asked once for each claim: its transaction may run again.
    pub(super) fn is_due(&self) -> bool {
        self.looked
            .is_none_or(|looked| looked.elapsed() >= LOOK_AGAIN)
    }

    /// Called by each claim: makes sure that this worker is known, and ends the leases of those that have ended.
    pub(super) fn tend(
        &mut self,
        conn: &Connection,
        is_due: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if is_due {
            self.keep_number(conn)?;
        }
        let Some(own) = self.own() else {
            return Ok(());
        };
        // Each time: the transaction in which it was written may have failed.
        execute(conn, ENLIST, [own])?;
        if is_due {
            let is_all = self.look(conn, own, now)?;
            self.looked = is_all.then(Instant::now);
        }
        Ok(())
    }

    /// Gives up the number. Its rows are due as soon as another worker looks.
    pub(super) fn leave(&mut self) {
        *self = Self::default();
    }

    /// Takes a number that no row names, unless this worker has one whose file is in place.
    fn keep_number(&mut self, conn: &Connection) -> Result<(), StoreError> {
        let Some(files) = &self.files else {
            return Ok(());
        };
        let is_kept = |own: &(i64, LockFile)| own.1.is_in_place();
        if self.own.as_ref().is_some_and(is_kept) {
            return Ok(());
        }
        self.own = None;
        let known: Vec<i64> = all(conn, WORKERS, [], |row| row.get())?;
        let free = (1..=MOST).filter(|id| !known.contains(id));
        for id in free {
            let error = match LockFile::make(&file(files, id)) {
                Ok(None) => continue,
                Ok(Some(lock)) if lock.is_exclusive() => {
                    self.own = Some((id, lock));
                    return Ok(());
                }
                Ok(Some(_)) => ErrorKind::Unsupported.into(),
                Err(error) => error,
            };
            event!(
                WARN,
                %error,
                "files beside the database cannot be locked: after a crash, messages in flight are sent again \
                 when their leases end"
            );
            let _ = error;
            self.files = None;
            return Ok(());
        }
        Ok(())
    }

    /// Ends leases of workers that have ended, at most a step of them. Returns whether those were all.
    fn look(&self, conn: &Connection, own: i64, now: Timestamp) -> Result<bool, StoreError> {
        let Some(files) = &self.files else {
            return Ok(true);
        };
        let mut left = STEP;
        let others: Vec<i64> = all(conn, WORKERS, [], |row| row.get())?;
        for id in others.into_iter().filter(|id| *id != own) {
            // Held until its rows are due, so that no other worker takes the number before.
            let _lock = match LockFile::existing(&file(files, id)) {
                Ok(Some(lock)) => lock,
                // The file was deleted: whether its worker lives is unknown, but it takes another number.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    if leased_by(conn, id, now, 1)?.is_empty() {
                        execute(conn, STRIKE, [id])?;
                    }
                    continue;
                }
                Ok(None) | Err(_) => continue,
            };
            let rows = leased_by(conn, id, now, left)?;
            for (broadcast, key, fence) in &rows {
                execute(conn, END_LEASE, params![broadcast, key, now.as_millis()])?;
                execute(conn, END_PROBE, params![fence, key, now.as_millis()])?;
            }
            if !rows.is_empty() {
                event!(
                    WARN,
                    worker = id,
                    rows = rows.len(),
                    "a process has ended without settling its rows: they are due again"
                );
            }
            left -= rows.len();
            if left == 0 {
                return Ok(false);
            }
            execute(conn, STRIKE, [id])?;
        }
        Ok(true)
    }
}

/// A row that is leased: its broadcast, key and fence.
type Leased = (i64, [u8; 32], i64);

fn leased_by(
    conn: &Connection,
    worker: i64,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<Leased>, StoreError> {
    let values = params![worker, now.as_millis(), integer(limit)];
    all(conn, LEASED_BY, values, |row| {
        Ok((row.get()?, row.bytes()?, row.get()?))
    })
}

/// When to claim at the latest while rows are leased: another worker may end.
pub(super) fn next_look(
    conn: &Connection,
    own: Option<i64>,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    // The first claim of a store looks in any case.
    let Some(own) = own else {
        return Ok(None);
    };
    let has_others = first(conn, OTHERS, [own], |_| Ok(()))?.is_some();
    Ok(has_others.then(|| now + LOOK_AGAIN))
}

fn file(files: &Path, id: i64) -> PathBuf {
    let mut path = files.as_os_str().to_owned();
    path.push(id.to_string());
    path.into()
}

#[cfg(test)]
#[path = "liveness_tests.rs"]
mod tests;
