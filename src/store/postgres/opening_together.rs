//! Broadcasts that are opened at the same time share a statement and its commit: alone, each would cost the database a
//! transaction and a write to its disk.
//!
//! Whatever is not plain goes alone, as if there were no others: what has an idempotency key or is the first for an origin here,
//! and all of a statement that the server refused or that met a lock.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;

use super::error::Failed;
use super::opening::{self, Openings};
use super::{Inner, PostgresStore};
use crate::clock::Timestamp;
use crate::store::together::{ROWS, Shared, Sharing as _, Together, ask};
use crate::store::{NewBroadcast, NewDelivery, Opened, StoreError};
use crate::subscription::Origin;

/// The most origins that are remembered as known to the database.
const ORIGINS: usize = 4_096;

/// The broadcasts that wait for the next statement.
#[derive(Default)]
pub(super) struct OpeningTogether {
    waiting: Together<Opening>,
    /// Origins that the database knew.
    known: Mutex<HashSet<Origin>>,
}

/// A broadcast to open, and the time of its call.
pub(super) struct Opening {
    new: NewBroadcast,
    now: Timestamp,
}

impl OpeningTogether {
    fn known(&self) -> MutexGuard<'_, HashSet<Origin>> {
        // Nothing that holds the lock panics.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a broadcast may share a statement. One with an idempotency key may wait for a transaction that has inserted the
    /// same key, which may be an application's and last. A first page without rows, or of an origin that is new to the database,
    /// takes more transactions.
    fn takes(&self, new: &NewBroadcast) -> bool {
        let rows = new.page.as_ref().map(|page| page.rows.as_slice());
        let known = self.known();
        let is_plain = |rows: &[NewDelivery]| {
            !rows.is_empty()
                && rows.len() <= ROWS
                && rows.iter().all(|row| known.contains(&row.origin))
        };
        new.idempotency.is_none() && rows.is_none_or(is_plain)
    }

    /// Remembers the origins of a broadcast that was opened.
    fn remember(&self, new: &NewBroadcast) {
        let mut known = self.known();
        for row in new.page.iter().flat_map(|page| &page.rows) {
            if !known.contains(&row.origin) {
                if known.len() >= ORIGINS {
                    known.clear();
                }
                known.insert(row.origin.clone());
            }
        }
    }
}

/// The hint that a broadcast was opened. Dropped before it was sent, because the caller has gone, it is sent by a task: else no
/// worker would wake.
pub(super) struct Hint(Option<Arc<Inner>>);

impl Hint {
    fn new(inner: &Arc<Inner>) -> Self {
        Self(Some(Arc::clone(inner)))
    }

    async fn tell(mut self) {
        if let Some(inner) = &self.0 {
            inner.hints.tell(&inner.database).await;
        }
        self.0 = None;
    }
}

impl Drop for Hint {
    fn drop(&mut self) {
        if let Some(inner) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move { inner.hints.tell(&inner.database).await });
        }
    }
}

impl Shared for Opening {
    type Store = Inner;
    type Answer = Hint;
    type Error = Failed;

    fn together(inner: &Inner) -> &Together<Self> {
        &inner.opening.waiting
    }

    fn rows(&self) -> usize {
        self.new.page.as_ref().map_or(0, |page| page.rows.len())
    }

    async fn run(inner: &Arc<Inner>, calls: &[Self]) -> Result<Vec<Option<Hint>>, Failed> {
        let each = calls.iter().map(|call| (&call.new, call.now));
        let openings = Openings::at_their_times(each)?;
        let opened = opening::open_shared(&inner.database, &openings).await?;
        let Some(mut opened) = opened else {
            // An origin was removed.
            let mut known = inner.opening.known();
            for page in calls.iter().filter_map(|call| call.new.page.as_ref()) {
                for row in &page.rows {
                    known.remove(&row.origin);
                }
            }
            return Ok(calls.iter().map(|_| None).collect());
        };
        // Of two with one id the first is new.
        let mut is_new = |call: &Self| opened.remove(call.new.id.as_bytes());
        Ok(calls
            .iter()
            .map(|call| is_new(call).then(|| Hint::new(inner)))
            .collect())
    }
}

/// Opens a broadcast, together with those of other calls that wait, and notifies listening workers.
pub(super) async fn open(
    store: &PostgresStore,
    new: &NewBroadcast,
    now: Timestamp,
) -> Result<Opened, StoreError> {
    let inner = &store.inner;
    if inner.opening.takes(new) {
        let call = Opening {
            new: new.clone(),
            now,
        };
        if let Some(hint) = ask(inner, call, inner.longest_answer()).await? {
            hint.tell().await;
            return Ok(Opened::New);
        }
    }
    let opened = opening::open(&inner.database, new, now).await?;
    if opened == Opened::New {
        inner.opening.remember(new);
        Hint::new(inner).tell().await;
    }
    Ok(opened)
}
