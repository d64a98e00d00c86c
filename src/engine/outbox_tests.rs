//! Looks at the outbox of an application's file.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, params};
use tempfile::TempDir;
use tokio::task::yield_now;

use super::super::test_world::{START, World};
use super::*;
use crate::broadcast::{Audience, Principal};
use crate::store::{
    Change, CountFilter, DeliveryLedger as _, MemoryStore, NewSubscription, SqliteStore,
    SubscriptionFilter, SubscriptionLimits, SubscriptionPage, SubscriptionRecord, SubscriptionRef,
    SubscriptionStore, Upserted,
};
use crate::subscription::EndpointKey;

/// An application's table of subscriptions, which has none. Reading those of mallory panics.
#[derive(Debug, Default)]
struct Users {
    none: MemoryStore,
    panics: AtomicUsize,
    /// Whether the next count takes its time.
    is_slow: AtomicBool,
    /// Another process, which looks when this one has read the entries.
    rival: Mutex<Option<Engine>>,
}

#[async_trait]
impl SubscriptionStore for Users {
    async fn upsert(
        &self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<Upserted, StoreError> {
        self.none.upsert(new, limits, now).await
    }

    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        self.none.get(which).await
    }

    async fn page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        if *audience == Audience::user("mallory") {
            self.panics.fetch_add(1, Relaxed);
            panic!("a table that panics");
        }
        let rival = self.rival.lock().unwrap().take();
        if let Some(rival) = rival {
            assert_eq!(look(&rival, now).await.unwrap().settled, ENTRIES);
        }
        self.none.page(audience, after, limit, now).await
    }

    async fn owned_by(
        &self,
        principal: &Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.none.owned_by(principal, after, limit).await
    }

    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<SubscriptionPage, StoreError> {
        self.none
            .list_subscriptions(filter, after, limit, now)
            .await
    }

    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError> {
        if self.is_slow.swap(false, Relaxed) {
            for _ in 0..99 {
                yield_now().await;
            }
        }
        self.none.count(filter, now).await
    }

    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
        self.none.apply(changes, now).await
    }
}

/// An application with its file.
struct Shop {
    _folder: TempDir,
    path: PathBuf,
    store: SqliteStore,
}

impl Shop {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.db");
        let conn = Connection::open(&path).unwrap();
        conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
            .unwrap();
        let store = SqliteStore::open_in(&path, "web_push_").await.unwrap();
        Self {
            _folder: folder,
            path,
            store,
        }
    }

    /// Commits an entry to each user.
    fn write(&self, users: impl IntoIterator<Item = String>) {
        let mut conn = Connection::open(&self.path).unwrap();
        let transaction = conn.transaction().unwrap();
        let insert = "INSERT INTO web_push_outbox (audience, message) VALUES (?1, ?2)";
        for user in users {
            let audience = serde_json::json!({ "user": user }).to_string();
            let values = params![audience, r#"{"title":"Shipped"}"#];
            transaction.execute(insert, values).unwrap();
        }
        transaction.commit().unwrap();
    }

    async fn engine(&self, users: &Arc<Users>) -> Engine {
        let world = World::new().await;
        world.engine_on(Arc::clone(users) as _, Arc::new(self.store.clone()))
    }

    async fn first(&self) -> Option<i64> {
        let entries = self.store.outbox(1).await.unwrap();
        entries.first().map(|entry| entry.seq)
    }
}

/// However long it takes to read the audience of one of them.
#[tokio::test]
async fn entries_are_opened_in_the_order_in_which_they_were_written() {
    let shop = Shop::new().await;
    let conn = Connection::open(&shop.path).unwrap();
    for _ in 0..4 {
        let insert = "INSERT INTO web_push_outbox (audience, message) VALUES (?1, ?2)";
        let values = params![r#""all""#, r#"{"title":"Shipped"}"#];
        conn.execute(insert, values).unwrap();
    }
    let entries = shop.store.outbox(9).await.unwrap();
    let written: Vec<_> = entries.iter().map(|entry| entry.id).collect();
    let users = Arc::new(Users::default());
    users.is_slow.store(true, Relaxed);
    let engine = shop.engine(&users).await;
    assert_eq!(look(&engine, START).await.unwrap().settled, 4);
    let opened = shop.store.expandable(9, START).await.unwrap();
    let opened: Vec<_> = opened.iter().map(|one| one.id).collect();
    assert_eq!(opened, written);
}

#[tokio::test]
async fn an_entry_that_panics_is_put_off_as_one_that_fails() {
    let shop = Shop::new().await;
    shop.write(["mallory", "alice"].map(str::to_owned));
    let users = Arc::new(Users::default());
    let engine = shop.engine(&users).await;
    let later = START + Duration::from_secs(11);
    for (now, settled, panics) in [(START, 1, 1), (START, 0, 1), (later, 0, 2), (later, 0, 2)] {
        let looked = look(&engine, now).await.unwrap();
        assert_eq!(
            (looked.settled, users.panics.load(Relaxed)),
            (settled, panics)
        );
    }
    assert!(shop.first().await.is_some(), "it waits");
}

/// It waits for an operator then, and no look reads it any more.
#[tokio::test]
async fn an_entry_that_panics_again_and_again_is_refused() {
    let shop = Shop::new().await;
    shop.write(["mallory", "alice"].map(str::to_owned));
    let users = Arc::new(Users::default());
    let engine = shop.engine(&users).await;
    assert_eq!(look(&engine, START).await.unwrap().settled, 1);
    let (mut now, mut looks) = (START, 1);
    while shop.first().await.is_some() {
        assert!(looks <= PUT_OFFS, "it is read for ever");
        let pause = Duration::from_secs((10 << (looks - 1)).min(600));
        now = now + pause + Duration::from_secs(1);
        looks += 1;
        look(&engine, now).await.unwrap();
    }
    assert_eq!(looks, PUT_OFFS + 1);
    assert_eq!(users.panics.load(Relaxed), looks as usize);
    let refused = shop.store.refused_outbox(9).await.unwrap();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].refusal.code, PANICKED);
    assert_eq!(engine.signals.parked.len(now), 0);
    // An operator who has mended the store lets it wait again: it is tried as often.
    assert!(engine.retry_outbox(refused[0].entry.seq).await.unwrap());
    look(&engine, now).await.unwrap();
    assert!(shop.first().await.is_some());
}

#[tokio::test]
async fn entries_that_are_put_off_hold_up_none_behind_them() {
    let shop = Shop::new().await;
    shop.write((0..ENTRIES + 50).map(|_| "mallory".to_owned()));
    shop.write((0..10).map(|number| format!("user {number}")));
    let users = Arc::new(Users::default());
    let engine = shop.engine(&users).await;
    assert_eq!(look(&engine, START).await.unwrap().settled, 0);
    assert_eq!(look(&engine, START).await.unwrap().settled, 10);
}

#[tokio::test]
async fn processes_that_read_the_same_entries_choose_others() {
    let shop = Shop::new().await;
    shop.write((0..3_000).map(|number| format!("user {number}")));
    let users = Arc::new(Users::default());
    let (engine, rival) = (shop.engine(&users).await, shop.engine(&users).await);
    *users.rival.lock().unwrap() = Some(rival);
    let looked = look(&engine, START).await.unwrap();
    assert_eq!(
        (looked.settled, looked.more),
        (0, true),
        "the rival was faster"
    );
    let mut passed = 0;
    for _ in 0..12 {
        let first = shop.first().await;
        assert_eq!(look(&engine, START).await.unwrap().settled, ENTRIES);
        passed += usize::from(shop.first().await == first);
    }
    // All of twelve choices of one in eight.
    assert!(passed > 0);
    while look(&engine, START).await.unwrap().more {}
    assert_eq!(shop.first().await, None);
    // Without rivals there is no need to read more than is settled.
    assert!(!engine.signals.has_rivals.load(Relaxed));
}

#[test]
fn each_entry_is_in_one_of_the_parts() {
    let entries = |number| {
        let entry = |seq| OutboxEntry::new(seq, BroadcastId::random(), "", "", "");
        (0..number).map(entry).collect::<Vec<_>>()
    };
    for (number, parts) in [(0, 1), (1, 1), (100, 1), (101, 2), (800, 8)] {
        let chosen = |random| part(entries(number), random);
        assert!((0..99).all(|random| chosen(random).len() <= ENTRIES));
        let all = (0..parts).flat_map(chosen).map(|entry| entry.seq);
        assert!(all.eq(0..number), "{number}");
    }
}
