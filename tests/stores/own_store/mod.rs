//! A store outside the crate that uses only public API: plain tables, which each call scans. `store::rules` implements the
//! contracts' decisions, so this is also what a back end for another database has to write.
//!
//! Subscriptions are a `MemoryStore`'s: the example `custom_store` has a table of its own for them.

mod calls;
mod ledger;
mod schedules;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use tower_web_push::broadcast::{Audience, Principal};
use tower_web_push::clock::Timestamp;
use tower_web_push::schedule::{Schedule, ScheduleName};
use tower_web_push::store::{
    Change, CountFilter, LiveCounts, MemoryStore, NewSubscription, StoreError, StoreErrorKind,
    StoredVapidKey, SubscriptionFilter, SubscriptionLimits, SubscriptionPage, SubscriptionRecord,
    SubscriptionRef, SubscriptionStore, Upserted, VapidKeyStore,
};
use tower_web_push::subscription::EndpointKey;
use tower_web_push::vapid::{KeyId, SealedVapidKey};

use ledger::Ledger;

#[derive(Default)]
pub(crate) struct OwnStore {
    subscriptions: MemoryStore,
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    vapid_keys: Vec<StoredVapidKey>,
    ledger: Ledger,
    schedules: BTreeMap<ScheduleName, Schedule>,
    last_run: Option<Timestamp>,
}

impl OwnStore {
    /// Stands for a transaction.
    fn begin(&self) -> Result<MutexGuard<'_, Tables>, StoreError> {
        let poisoned = |_| StoreError::from(StoreErrorKind::Unavailable);
        self.tables.lock().map_err(poisoned)
    }
}

impl fmt::Debug for OwnStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl VapidKeyStore for OwnStore {
    async fn keys(&self) -> Result<Vec<StoredVapidKey>, StoreError> {
        let mut keys = self.begin()?.vapid_keys.clone();
        keys.sort_by_key(|key| (Reverse(key.active), Reverse(key.created_at), key.id));
        Ok(keys)
    }

    async fn insert_first(&self, key: &StoredVapidKey) -> Result<bool, StoreError> {
        let keys = &mut self.begin()?.vapid_keys;
        if keys.is_empty() {
            let active = true;
            keys.push(StoredVapidKey {
                active,
                ..key.clone()
            });
            return Ok(true);
        }
        Ok(false)
    }

    async fn insert(&self, key: &StoredVapidKey) -> Result<(), StoreError> {
        let keys = &mut self.begin()?.vapid_keys;
        if key.active {
            keys.iter_mut().for_each(|key| key.active = false);
        }
        match keys.iter_mut().find(|stored| stored.id == key.id) {
            Some(stored) => stored.active |= key.active,
            None => keys.push(key.clone()),
        }
        Ok(())
    }

    async fn reseal(
        &self,
        id: &KeyId,
        expected: &SealedVapidKey,
        sealed: &SealedVapidKey,
    ) -> Result<bool, StoreError> {
        let keys = &mut self.begin()?.vapid_keys;
        let mut keys = keys.iter_mut();
        let found = keys.find(|key| key.id == *id && key.sealed == *expected);
        Ok(found.map(|key| key.sealed = sealed.clone()).is_some())
    }

    async fn remove(&self, id: &KeyId) -> Result<bool, StoreError> {
        let keys = &mut self.begin()?.vapid_keys;
        let before = keys.len();
        keys.retain(|key| key.id != *id || key.active);
        Ok(keys.len() < before)
    }
}

#[async_trait]
impl SubscriptionStore for OwnStore {
    async fn upsert(
        &self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<Upserted, StoreError> {
        self.subscriptions.upsert(new, limits, now).await
    }

    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        self.subscriptions.get(which).await
    }

    async fn page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.subscriptions.page(audience, after, limit, now).await
    }

    async fn owned_by(
        &self,
        principal: &Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.subscriptions.owned_by(principal, after, limit).await
    }

    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<SubscriptionPage, StoreError> {
        let subscriptions = &self.subscriptions;
        subscriptions
            .list_subscriptions(filter, after, limit, now)
            .await
    }

    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError> {
        self.subscriptions.count(filter, now).await
    }

    async fn count_live(&self, keys: &[KeyId], now: Timestamp) -> Result<LiveCounts, StoreError> {
        self.subscriptions.count_live(keys, now).await
    }

    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
        self.subscriptions.apply(changes, now).await
    }
}
