//! A store in this process's memory.

mod due_origins;
mod erase;
mod holding;
mod ledger;
mod ledger_claim;
mod ledger_state;
mod portable;
mod schedules;
mod subscriptions;
mod turns;
mod vapid_keys;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use self::ledger_state::Ledger;
use self::schedules::Schedules;
use self::subscriptions::Subscriptions;
use super::{StoreError, StoreErrorKind, StoredVapidKey};

/// Keeps everything in memory, for tests and for small applications in one process.
///
/// Nothing survives the process. Clones share one state. Each kind of row (subscriptions, broadcasts, deliveries,
/// schedules) has a maximum number, above which calls return [`Full`](StoreErrorKind::Full).
#[derive(Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    max_rows: usize,
    /// The epoch of its claims, which the tests of the engine change.
    #[cfg(test)]
    pub(crate) epoch: Arc<Mutex<Option<u64>>>,
}

impl MemoryStore {
    const DEFAULT_MAX_ROWS: usize = 1_000_000;

    /// Creates an empty store for at most a million rows of each kind.
    #[must_use]
    pub fn new() -> Self {
        Self::with_max_rows(Self::DEFAULT_MAX_ROWS)
    }

    /// Creates an empty store for at most `max_rows` rows of each kind.
    #[must_use]
    pub fn with_max_rows(max_rows: usize) -> Self {
        Self {
            state: Arc::default(),
            max_rows,
            #[cfg(test)]
            epoch: Arc::new(Mutex::new(Some(0))),
        }
    }

    /// Locks the state. Each call locks once, which makes it a transaction.
    fn lock(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        self.state.lock().map_err(|_| {
            StoreError::new(
                StoreErrorKind::Corrupt,
                "a thread panicked while changing it",
            )
        })
    }

    /// Returns `Full` if `more` rows beside `rows` exceed the maximum.
    fn room_for(&self, rows: usize, more: usize) -> Result<(), StoreError> {
        if rows.saturating_add(more) > self.max_rows {
            return Err(StoreErrorKind::Full.into());
        }
        Ok(())
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("max_rows", &self.max_rows)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    subscriptions: Subscriptions,
    vapid_keys: Vec<StoredVapidKey>,
    ledger: Ledger,
    schedules: Schedules,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::Audience;
    use crate::clock::Timestamp;
    use crate::message::Message;
    use crate::store::{
        Cursor, DeliveryLedger as _, NewBroadcast, NewDelivery, PageWrite, StoreErrorKind,
    };
    use crate::subscription::{EndpointKey, Origin};

    #[test]
    fn it_is_full_at_its_maximum() {
        let store = MemoryStore::with_max_rows(2);
        assert!(store.room_for(1, 1).is_ok());
        let full = store.room_for(2, 1).unwrap_err();
        assert_eq!(full.kind(), StoreErrorKind::Full);
        assert!(store.room_for(usize::MAX, usize::MAX).is_err());
    }

    /// Else its writer would take the store for full, and wait.
    #[tokio::test]
    async fn a_stale_page_is_stale_also_in_a_full_store() {
        let store = MemoryStore::with_max_rows(2);
        let now = Timestamp::from_secs(1);
        let mut new = NewBroadcast::new(Audience::All, Message::new("x"), Timestamp::from_secs(9));
        new.recipients = 3;
        store.open(&new, now).await.unwrap();
        let row = |number| {
            let origin = Origin::parse("https://push.example.com").unwrap();
            NewDelivery::new(EndpointKey::from_bytes([number; 32]), origin)
        };
        let rows = [row(1), row(2)];
        let (start, middle) = (Cursor::Start, Cursor::After(rows[1].key));
        let write = async |expected: &Cursor, rows: &[NewDelivery]| {
            let page = store.enqueue_page(new.id, expected, rows, &middle, now);
            page.await.map_err(|error| error.kind())
        };
        assert_eq!(write(&start, &rows).await, Ok(PageWrite::Stored));
        assert_eq!(write(&start, &rows).await, Ok(PageWrite::Stale));
        let full = write(&middle, &[row(3)]).await;
        assert_eq!(full, Err(StoreErrorKind::Full));
    }
}
