//! The workers that the database knows, and their signs of life (L19): the rules of `store::heartbeat`, which the stores on
//! servers follow.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{sleep, timeout};

use super::store::Database;
use super::world::START;
use crate::clock::Timestamp;
use crate::store::heartbeat::{Other, Pulse, Silent, WorkerId};
use crate::store::{ClaimToken, StoreError, StoreErrorKind};

/// The longest wait for the reply to a beat, as on PostgreSQL.
const WAIT: Duration = Duration::from_secs(2);

/// The table of workers.
#[derive(Debug, Default)]
pub(super) struct Workers {
    last: WorkerId,
    entries: BTreeMap<WorkerId, Entry>,
}

#[derive(Debug)]
struct Entry {
    beat_at: Timestamp,
    is_dead: bool,
    /// What it has claimed.
    rows: Vec<ClaimToken>,
}

impl Workers {
    pub(super) fn claimed(&mut self, worker: WorkerId, rows: impl Iterator<Item = ClaimToken>) {
        if let Some(entry) = self.entries.get_mut(&worker) {
            entry.rows.extend(rows);
        }
    }

    pub(super) fn settled<'a>(&mut self, rows: impl Iterator<Item = &'a ClaimToken>) {
        for token in rows {
            for entry in self.entries.values_mut() {
                entry.rows.retain(|row| row != token);
            }
        }
    }

    /// Marks silent workers as dead, and takes their rows.
    pub(super) fn take_dead(&mut self, silent: &Silent) -> Vec<ClaimToken> {
        let mut rows = Vec::new();
        for worker in &silent.workers {
            let Some(entry) = self.entries.get_mut(worker) else {
                continue;
            };
            if entry.is_dead
                || silent
                    .horizon
                    .is_some_and(|horizon| entry.beat_at < horizon)
            {
                rows.append(&mut entry.rows);
                self.entries.remove(worker);
            }
        }
        rows
    }

    /// Whether others than `own` may have rows.
    pub(super) fn have_rows(&self, others: &[WorkerId]) -> bool {
        let mut entries = others.iter().filter_map(|other| self.entries.get(other));
        entries.any(|entry| !entry.rows.is_empty())
    }
}

/// The connection on which a replica beats.
pub(super) struct Beating {
    pub(super) database: Database,
    pub(super) workers: Arc<Mutex<Workers>>,
}

impl Beating {
    /// Reaches the database. Returns its time.
    async fn reach(&self) -> Result<Timestamp, StoreError> {
        let database = &self.database;
        let now = database.clock.true_now();
        let delay = {
            let mut world = database.world.lock().unwrap();
            let call = world.call(now);
            if call.is_refused || call.is_reply_lost {
                return Err(StoreErrorKind::Unavailable.into());
            }
            (now < world.sluggish.1).then_some(call.before)
        };
        let reached = timeout(WAIT, async {
            if let Some(delay) = delay {
                sleep(delay).await;
            }
            database.connected().await
        });
        let late = |elapsed| Err(StoreError::new(StoreErrorKind::Unavailable, elapsed));
        reached.await.unwrap_or_else(late)?;
        Ok(START + database.clock.true_now())
    }
}

#[async_trait]
impl Pulse for Beating {
    async fn enlist(&mut self) -> Result<(WorkerId, Timestamp), StoreError> {
        let now = self.reach().await?;
        let mut workers = self.workers.lock().unwrap();
        workers.last += 1;
        let id = workers.last;
        let entry = Entry {
            beat_at: now,
            is_dead: false,
            rows: Vec::new(),
        };
        workers.entries.insert(id, entry);
        Ok((id, now))
    }

    async fn beat(&mut self, id: WorkerId) -> Result<Option<Timestamp>, StoreError> {
        let now = self.reach().await?;
        let mut workers = self.workers.lock().unwrap();
        let entry = workers.entries.get_mut(&id).filter(|entry| !entry.is_dead);
        Ok(entry.map(|entry| {
            entry.beat_at = now;
            now
        }))
    }

    async fn others(&mut self, id: WorkerId) -> Result<Vec<Other>, StoreError> {
        self.reach().await?;
        let workers = self.workers.lock().unwrap();
        let others = workers.entries.iter().filter(|(other, _)| **other != id);
        let others = others.map(|(id, entry)| Other {
            id: *id,
            beat_at: entry.beat_at,
            is_dead: entry.is_dead,
        });
        Ok(others.collect())
    }
}
