//! VAPID keys that rows name and this server does not have: how they are reported, and how one is given up.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::Engine;
use crate::broadcast::Audience;
use crate::clock::Timestamp;
use crate::observe;
use crate::store::{
    Change, CountFilter, Failure, Liveness, STEP, StoreError, StoreErrorKind, SubscriptionFilter,
};
use crate::vapid::KeyId;

/// The reason word of a subscription whose key was given up.
const GIVEN_UP: &str = "key-given-up";

/// The ids of missing keys that attempts met: at most 64, since a server has few keys.
#[derive(Debug, Default)]
pub(crate) struct MissingKeys(Mutex<BTreeSet<KeyId>>);

impl MissingKeys {
    const MAX: usize = 64;

    /// Adds a key. Returns whether it is new.
    fn add(&self, id: KeyId) -> bool {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.len() < Self::MAX && ids.insert(id)
    }

    /// Forgets a key until an attempt meets it again.
    fn forget(&self, id: &KeyId) {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.remove(id);
    }

    fn ids(&self, is_missing: impl Fn(&KeyId) -> bool) -> Vec<KeyId> {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.retain(is_missing);
        ids.iter().copied().collect()
    }
}

impl Engine {
    /// Reports that rows name a key that is neither in memory nor in the store: once, as an error.
    pub(super) async fn key_is_missing(&self, id: KeyId, now: Timestamp) {
        if !self.signals.missing_keys.add(id) {
            return;
        }
        // The alarm does not depend on the count.
        let rows = self.rows_of_key(id, now).await.unwrap_or_default();
        observe::event!(
            ERROR,
            key = %id,
            rows,
            "a VAPID key is missing: the subscriptions made with it get nothing until it is back; restore the stored keys \
             or set VAPID_PRIVATE_KEY (vapid_key); no subscription is judged without its own key"
        );
        let _ = rows;
    }

    /// Forgets missing keys that no live row names any more: their users have left, or they were given up.
    pub(super) async fn forget_missing_keys_without_rows(
        &self,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for id in self.missing_key_ids() {
            if self.rows_of_key(id, now).await? == 0 {
                self.signals.missing_keys.forget(&id);
            }
        }
        Ok(())
    }

    /// Gives up a key that is lost for good: marks the live rows that were made with it as stale. Returns their number.
    pub(crate) async fn give_up_key(&self, id: KeyId) -> Result<u64, StoreError> {
        self.check_missing(&id).await?;
        let (filter, mut after, mut given_up) = (SubscriptionFilter::default(), None, 0);
        loop {
            let now = self.now();
            let list = self
                .subscriptions
                .list_subscriptions(&filter, after.as_ref(), STEP, now);
            let list = list.await?;
            let of_it = list
                .rows
                .iter()
                .filter(|row| row.vapid_key == id && row.is_live(now));
            let changes: Vec<_> = of_it
                .map(|row| Change::Stale {
                    key: row.subscription.endpoint().key(),
                    // A browser that registers again meanwhile does so with another key.
                    observed_at: row.last_seen_at,
                    failure: Failure::new(None, Some(GIVEN_UP)),
                })
                .collect();
            if !changes.is_empty() {
                // The key may be back by now.
                self.check_missing(&id).await?;
                given_up += self.subscriptions.apply(&changes, now).await?;
            }
            after = list.next;
            if after.is_none() {
                break;
            }
        }
        self.signals.missing_keys.forget(&id);
        observe::event!(WARN, key = %id, subscriptions = given_up, "a missing VAPID key was given up");
        Ok(given_up)
    }

    async fn check_missing(&self, id: &KeyId) -> Result<(), StoreError> {
        let read = self.refresh_keys().await;
        read.map_err(|error| StoreError::new(StoreErrorKind::Unavailable, error))?;
        if self.key_ring.get(id).is_some() {
            let why = "the store has this VAPID key: messages reach its subscriptions";
            return Err(StoreError::new(StoreErrorKind::Misconfigured, why));
        }
        Ok(())
    }

    /// The missing keys that were met, each with the number of live rows that name it, if there are any.
    #[cfg(feature = "api")]
    pub(crate) async fn missing_keys(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(KeyId, u64)>, StoreError> {
        let mut missing = Vec::new();
        for id in self.missing_key_ids() {
            let rows = self.rows_of_key(id, now).await?;
            if rows > 0 {
                missing.push((id, rows));
            }
        }
        Ok(missing)
    }

    /// The number of missing keys that were met. Nothing of it asks the store: counting the rows of a key can take long.
    #[cfg(feature = "metrics")]
    pub(super) fn count_missing_keys(&self) -> usize {
        self.missing_key_ids().len()
    }

    fn missing_key_ids(&self) -> Vec<KeyId> {
        let is_missing = |id: &KeyId| self.key_ring.get(id).is_none();
        self.signals.missing_keys.ids(is_missing)
    }

    async fn rows_of_key(&self, id: KeyId, now: Timestamp) -> Result<u64, StoreError> {
        let mut filter = CountFilter::new(Audience::All, Liveness::Live);
        filter.vapid_key = Some(id);
        self.subscriptions.count(&filter, now).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_reported_once_until_it_is_back() {
        let keys = MissingKeys::default();
        let id = |n| KeyId::from_bytes([n; KeyId::LEN]);
        assert!(keys.add(id(1)) && keys.add(id(2)) && !keys.add(id(1)));
        assert_eq!(keys.ids(|key| *key != id(1)), [id(2)]);
        assert!(keys.add(id(1)), "missing once more");
        keys.forget(&id(2));
        assert_eq!(keys.ids(|_| true), [id(1)]);
        for n in 0..100 {
            keys.add(id(n));
        }
        assert_eq!(keys.ids(|_| true).len(), MissingKeys::MAX);
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
#[path = "missing_keys_tests.rs"]
mod races;
