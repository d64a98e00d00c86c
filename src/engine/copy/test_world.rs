//! Two stores and a journal, for the tests of copies.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use async_trait::async_trait;
use tempfile::TempDir;

use super::*;
use crate::schedule::{Daily, DailyTime, NotifyType, Schedule};
use crate::store::{
    Assignment, Change, LiveCounts, MemoryStore, NewSubscription, StoreError, StoreErrorKind,
    StoredVapidKey, SubscriptionFilter, SubscriptionLimits, SubscriptionPage, SubscriptionRecord,
    SubscriptionRef, SubscriptionStore, Upserted,
};
use crate::subscription::{AuthSecret, Endpoint, Subscription, SubscriptionId, UaPublicKey};
use crate::vapid::{KeyEncryptionKeys, VapidKey};

const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";

/// Two stores and a journal.
pub(super) struct World {
    pub(super) folder: TempDir,
    pub(super) from: MemoryStore,
    pub(super) to: MemoryStore,
}

pub(super) fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + secs)
}

pub(super) fn endpoint(number: usize) -> Endpoint {
    Endpoint::parse(&format!(
        "https://updates.push.services.mozilla.com/{number}"
    ))
    .unwrap()
}

pub(super) fn named(number: usize) -> SubscriptionRef {
    SubscriptionRef::from(&endpoint(number))
}

pub(super) fn new(number: usize) -> NewSubscription {
    let auth = AuthSecret::from_bytes(&[1; AuthSecret::LEN]).unwrap();
    let keys = UaPublicKey::parse(P256DH).unwrap();
    let subscription = Subscription::new(endpoint(number), keys, auth);
    NewSubscription::new(subscription, KeyId::from_bytes([1; KeyId::LEN]))
}

pub(super) async fn subscribe(
    store: &MemoryStore,
    new: &NewSubscription,
    now: Timestamp,
) -> SubscriptionId {
    let limits = SubscriptionLimits::default().with_unproven(u64::MAX);
    match store.upsert(new, &limits, now).await.unwrap() {
        Upserted::Stored { record, .. } => record.id,
        Upserted::Conflict => panic!("a conflict"),
    }
}

pub(super) async fn row(store: &MemoryStore, number: usize) -> Option<SubscriptionRecord> {
    store.get(&[named(number)]).await.unwrap().remove(0)
}

pub(super) async fn unsubscribe(store: &MemoryStore, number: usize) {
    let row = row(store, number).await.unwrap();
    let gone = store.apply(&[Change::delete(&row)], at(99)).await.unwrap();
    assert_eq!(gone, 1);
    store.remove_schedules(row.id).await.unwrap();
}

pub(super) fn daily(id: SubscriptionId, notify_type: NotifyType, hour: u8) -> Schedule {
    let time = DailyTime::new(hour, 0).unwrap();
    let daily = Daily::new(notify_type, time, None).unwrap();
    daily.schedule(id, at(0)).unwrap()
}

pub(super) fn key(created_at: Timestamp) -> StoredVapidKey {
    let key = VapidKey::generate().unwrap();
    let sealed = KeyEncryptionKeys::default().seal(&key).unwrap();
    StoredVapidKey::new(key.id(), *key.public_key(), sealed, created_at, true)
}

pub(super) async fn active(store: &MemoryStore) -> KeyId {
    store.keys().await.unwrap()[0].id
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            from: MemoryStore::new(),
            to: MemoryStore::new(),
        }
    }

    pub(super) async fn with_rows(rows: usize) -> Self {
        let world = Self::new();
        for number in 0..rows {
            subscribe(&world.from, &new(number), at(0)).await;
        }
        world
    }

    pub(super) fn copy(&self) -> Copy {
        let journal = self.folder.path().join("journal");
        Copy::new(self.from.clone(), self.to.clone(), journal)
    }

    pub(super) async fn pass(&self) -> CopyReport {
        self.copy().pass(|_| {}).await.unwrap()
    }

    pub(super) async fn is_same(&self, numbers: std::ops::Range<usize>) {
        let all: Vec<_> = numbers.map(named).collect();
        let theirs = self.from.get(&all).await.unwrap();
        assert_eq!(theirs, self.to.get(&all).await.unwrap());
    }
}

/// As an administrator does.
pub(super) async fn assign(store: &MemoryStore, number: usize, user: &str) {
    let row = row(store, number).await.unwrap();
    let assignment = Assignment {
        principal: Some(Some(user.into())),
        tags: Some(["news".parse().unwrap()].into()),
    };
    let new = NewSubscription::assigning(&row, assignment);
    let limits = SubscriptionLimits::default();
    store.upsert(&new, &limits, at(5)).await.unwrap();
}

/// A store whose writes fail from some page on.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) store: MemoryStore,
    pub(super) pages: AtomicUsize,
    /// Whether it has written what it says it has not.
    pub(super) loses_answers: bool,
    /// The reads after which it takes no call.
    pub(super) reads: AtomicUsize,
    /// Whether it cannot read any row.
    pub(super) is_damaged: bool,
}

/// A store that takes no row before its VAPID key.
#[derive(Debug)]
pub(super) struct Strict(pub(super) MemoryStore);

#[async_trait]
impl SubscriptionStore for Failing {
    async fn upsert(
        &self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<Upserted, StoreError> {
        match self.reads.load(Relaxed) {
            0 => Err(StoreErrorKind::Unavailable.into()),
            _ => self.store.upsert(new, limits, now).await,
        }
    }

    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        if self.is_damaged {
            return Err(StoreErrorKind::Corrupt.into());
        }
        let take = |left: usize| left.checked_sub(1);
        match self.reads.fetch_update(Relaxed, Relaxed, take) {
            Ok(_) => self.store.get(which).await,
            Err(_) => Err(StoreErrorKind::Unavailable.into()),
        }
    }

    async fn page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.store.page(audience, after, limit, now).await
    }

    async fn owned_by(
        &self,
        principal: &crate::broadcast::Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.store.owned_by(principal, after, limit).await
    }

    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<SubscriptionPage, StoreError> {
        self.store
            .list_subscriptions(filter, after, limit, now)
            .await
    }

    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError> {
        self.store.count(filter, now).await
    }

    async fn count_live(&self, keys: &[KeyId], now: Timestamp) -> Result<LiveCounts, StoreError> {
        self.store.count_live(keys, now).await
    }

    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
        self.store.apply(changes, now).await
    }
}

#[async_trait]
impl PortableStore for Failing {
    async fn unreachable(
        &self,
        state: Unreachable,
        after: Option<(Timestamp, EndpointKey)>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.store.unreachable(state, after, limit).await
    }

    async fn put(&self, rows: &[SubscriptionRecord]) -> Result<Vec<bool>, StoreError> {
        assert!(rows.len() <= crate::store::STEP);
        if self
            .pages
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
            .is_err()
        {
            if self.loses_answers {
                self.store.put(rows).await?;
            }
            return Err(StoreError::new(
                StoreErrorKind::Unavailable,
                "the disk is full",
            ));
        }
        self.store.put(rows).await
    }
}

#[async_trait]
impl SubscriptionStore for Strict {
    async fn upsert(
        &self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<Upserted, StoreError> {
        self.0.upsert(new, limits, now).await
    }

    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        self.0.get(which).await
    }

    async fn page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.0.page(audience, after, limit, now).await
    }

    async fn owned_by(
        &self,
        principal: &crate::broadcast::Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.0.owned_by(principal, after, limit).await
    }

    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<SubscriptionPage, StoreError> {
        self.0.list_subscriptions(filter, after, limit, now).await
    }

    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError> {
        self.0.count(filter, now).await
    }

    async fn count_live(&self, keys: &[KeyId], now: Timestamp) -> Result<LiveCounts, StoreError> {
        self.0.count_live(keys, now).await
    }

    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
        self.0.apply(changes, now).await
    }
}

#[async_trait]
impl PortableStore for Strict {
    async fn unreachable(
        &self,
        state: Unreachable,
        after: Option<(Timestamp, EndpointKey)>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.0.unreachable(state, after, limit).await
    }

    async fn put(&self, rows: &[SubscriptionRecord]) -> Result<Vec<bool>, StoreError> {
        let keys = self.0.keys().await?;
        let has_key = |row: &SubscriptionRecord| keys.iter().any(|key| key.id == row.vapid_key);
        assert!(rows.iter().all(has_key), "a row came before its key");
        self.0.put(rows).await
    }
}

/// When the daily notifications of a subscription are.
pub(super) async fn hours(store: &MemoryStore, id: SubscriptionId) -> Vec<u8> {
    let schedules = store.schedules(Some(id)).await.unwrap();
    schedules.iter().map(|one| one.time.hour()).collect()
}

pub(super) async fn of(
    user: &str,
    number: usize,
    store: &MemoryStore,
    now: Timestamp,
) -> SubscriptionId {
    let mut new = new(number);
    new.principal = Some(user.into());
    subscribe(store, &new, now).await
}

pub(super) fn new_row(number: usize) -> SubscriptionRecord {
    let NewSubscription {
        id,
        subscription,
        default_vapid_key,
        ..
    } = new(number);
    SubscriptionRecord::new(id, subscription, default_vapid_key, at(0))
}
