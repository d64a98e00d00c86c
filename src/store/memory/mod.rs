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
    use crate::schedule::{DailyTime, Plan, Schedule, ScheduleLabel};
    use crate::store::{
        CountFilter, Cursor, DeliveryLedger as _, Fired, Firing, Liveness, NewBroadcast,
        NewDelivery, NewSubscription, Opened, Page, PageWrite, PortableStore as _,
        ScheduleStore as _, SubscriptionLimits, SubscriptionRecord, SubscriptionStore as _,
    };
    use crate::subscription::{
        AuthSecret, Endpoint, EndpointKey, Origin, Subscription, SubscriptionId, UaPublicKey,
    };
    use crate::vapid::KeyId;

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

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn broadcast() -> NewBroadcast {
        NewBroadcast::new(Audience::All, Message::new("x"), at(9))
    }

    #[tokio::test]
    async fn it_opens_no_broadcast_above_its_maximum() {
        let store = MemoryStore::with_max_rows(2);
        let new = [(); 3].map(|()| broadcast());
        store.open(&new[0], at(1)).await.unwrap();
        store.open(&new[1], at(1)).await.unwrap();
        let full = store.open(&new[2], at(1)).await.unwrap_err();
        assert_eq!(full.kind(), StoreErrorKind::Full);
        let known = store.open(&new[1], at(1)).await.unwrap();
        assert!(matches!(known, Opened::Repeat(_)), "{known:?}");

        let plan = Plan::Application {
            label: ScheduleLabel::parse("news").unwrap(),
            to: Audience::All,
            message: Message::new("x"),
        };
        let schedule = Schedule::new(plan, DailyTime::new(7, 0).unwrap(), at(1));
        store.put_schedule(&schedule).await.unwrap();
        let fire = async |broadcast| {
            let firing = Firing::new(&schedule, at(5), broadcast);
            let fired = store.fire(&[firing], at(1)).await;
            fired.map_err(|error| error.kind())
        };
        assert_eq!(fire(Some(broadcast())).await, Err(StoreErrorKind::Full));
        assert_eq!(store.next_fire_at().await.unwrap(), Some(at(1)));
        assert_eq!(fire(None).await.unwrap(), [Fired::Fired]);
    }

    /// It is accepted, and its rows follow when there is room.
    #[tokio::test]
    async fn it_writes_no_first_page_above_its_maximum() {
        let store = MemoryStore::with_max_rows(2);
        for (rows, depth) in [(3, 0), (2, 2)] {
            let origin = Origin::parse("https://push.example.com").unwrap();
            let row =
                |number| NewDelivery::new(EndpointKey::from_bytes([number; 32]), origin.clone());
            let mut new = broadcast();
            new.page = Some(Page::new((0..rows).map(row).collect(), Cursor::End));
            assert_eq!(store.open(&new, at(1)).await.unwrap(), Opened::New);
            assert_eq!(store.stats(at(1)).await.unwrap().depth, depth);
            let expandable = store.expandable(9, at(1)).await.unwrap();
            let cursors: Vec<_> = expandable
                .iter()
                .map(|expansion| expansion.cursor)
                .collect();
            assert_eq!(cursors, [Cursor::Start]);
        }
    }

    #[tokio::test]
    async fn it_stores_no_subscription_above_its_maximum() {
        const P256DH: &str = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
        let subscription = |number: u8| {
            let endpoint = Endpoint::parse(&format!("https://push.example.com/{number}")).unwrap();
            let auth = AuthSecret::from_bytes(&[1; AuthSecret::LEN]).unwrap();
            Subscription::new(endpoint, UaPublicKey::parse(P256DH).unwrap(), auth)
        };
        let key = KeyId::from_bytes([1; KeyId::LEN]);
        let number = async |store: &MemoryStore| {
            let all = CountFilter::new(Audience::All, Liveness::Any);
            store.count(&all, at(1)).await.unwrap()
        };
        let store = MemoryStore::with_max_rows(2);
        let subscribe = async |number: u8| {
            let new = NewSubscription::new(subscription(number), key);
            let limits = SubscriptionLimits::default();
            let stored = store.upsert(&new, &limits, at(1)).await;
            stored.map(drop).map_err(|error| error.kind())
        };
        let answers = [subscribe(1).await, subscribe(2).await, subscribe(3).await];
        assert_eq!(answers, [Ok(()), Ok(()), Err(StoreErrorKind::Full)]);
        assert_eq!(subscribe(2).await, Ok(()), "it is there");
        assert_eq!(number(&store).await, 2);

        let store = MemoryStore::with_max_rows(2);
        let row = |number| {
            SubscriptionRecord::new(SubscriptionId::random(), subscription(number), key, at(1))
        };
        let rows = [row(1), row(2), row(3)];
        let full = store.put(&rows).await.unwrap_err();
        assert_eq!(full.kind(), StoreErrorKind::Full);
        assert_eq!(number(&store).await, 0);
        assert_eq!(store.put(&rows[1..]).await.unwrap(), [true; 2]);
    }
}
