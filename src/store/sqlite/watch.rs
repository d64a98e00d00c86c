//! Hints of changes by others: applications that write into the outbox, and other processes that open broadcasts.
//!
//! SQLite tells no other connection about a commit. But each connection knows a number that is another one after others have committed,
//! and reading it takes some microseconds: `PRAGMA data_version`. A thread with a connection of its own reads it all the
//! time.

use std::pin::Pin;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::mpsc as hints;

use super::connection::Connection;
use super::error::corrupt;
use super::outbox;
use super::query::first;
use crate::store::{Changes, StoreError};

/// The time between two looks at an application's file, while there are listeners.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// The same for a file of the store's own, which seldom has more than one process.
const LOOK_AGAIN_ALONE: Duration = Duration::from_millis(50);

const VERSION: &str = "PRAGMA data_version";
pub(super) const NEWEST: &str = "SELECT max(seq) FROM broadcast";

/// What is asked of the thread.
pub(super) enum Asked {
    /// Hints, from now on.
    Hints(hints::Sender<()>),
    Stop,
}

/// A connection that knows what was there when it last looked.
pub(super) struct Watch {
    conn: Connection,
    version: Option<i64>,
    newest: Option<i64>,
}

impl Watch {
    pub(super) const fn new(conn: Connection) -> Self {
        Self {
            conn,
            version: None,
            newest: None,
        }
    }

    /// Looks until it is told to stop.
    pub(super) fn run(mut self, asked: &mpsc::Receiver<Asked>) {
        let mut listeners: Vec<hints::Sender<()>> = Vec::new();
        let pause = match self.conn.is_shared() {
            true => LOOK_AGAIN,
            false => LOOK_AGAIN_ALONE,
        };
        loop {
            let asked = match listeners.is_empty() {
                true => asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => asked.recv_timeout(pause),
            };
            match asked {
                Ok(Asked::Hints(listener)) => {
                    // The worker may have taken its first step before this look: neither of them would
                    // see what was committed between them.
                    self.look_for(&listeners);
                    let _ = listener.try_send(());
                    listeners.push(listener);
                }
                Err(RecvTimeoutError::Timeout) => {
                    listeners.retain(|listener| !listener.is_closed());
                    self.look_for(&listeners);
                }
                Ok(Asked::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    }

    /// Looks, and tells these listeners of news.
    fn look_for(&mut self, listeners: &[hints::Sender<()>]) {
        // After an error it looks again.
        if self.look().unwrap_or(false) {
            for listener in listeners {
                // One that has not read its last hint needs no other.
                let _ = listener.try_send(());
            }
        }
    }

    /// Whether others have committed an entry of the outbox or opened a broadcast since the last look. What could not be
    /// read is looked at again.
    fn look(&mut self) -> Result<bool, StoreError> {
        let version = first(&self.conn, VERSION, [], |row| row.get())?;
        let version: i64 = version.ok_or_else(|| corrupt("the version of the data"))?;
        if self.version == Some(version) {
            return Ok(false);
        }
        let newest = first(&self.conn, NEWEST, [], |row| row.get::<Option<i64>>())?.flatten();
        let has_entries = self.conn.is_shared() && outbox::has_entries(&self.conn)?;
        self.version = Some(version);
        let has_news = newest != self.newest;
        self.newest = newest;
        Ok(has_news || has_entries)
    }
}

/// The hints of one worker.
struct Hints(hints::Receiver<()>);

impl Stream for Hints {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<()>> {
        self.0.poll_recv(context)
    }
}

/// Asks a thread for hints.
pub(super) fn changes(thread: &mpsc::Sender<Asked>) -> Changes {
    let (sender, receiver) = hints::channel(1);
    match thread.send(Asked::Hints(sender)) {
        Ok(()) => Changes::new(Hints(receiver)),
        // The database is closed.
        Err(_) => Changes::none(),
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
