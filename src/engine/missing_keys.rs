//! VAPID keys that rows name and this server does not have.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::Engine;
use crate::broadcast::Audience;
use crate::clock::Timestamp;
use crate::observe;
use crate::store::{CountFilter, Liveness, StoreError};
use crate::vapid::KeyId;

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

    #[cfg(any(feature = "api", feature = "metrics", test))]
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

    /// The missing keys that were met, each with the number of live rows that name it.
    #[cfg(feature = "api")]
    pub(crate) async fn missing_keys(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(KeyId, u64)>, StoreError> {
        let mut missing = Vec::new();
        for id in self.missing_key_ids() {
            missing.push((id, self.rows_of_key(id, now).await?));
        }
        Ok(missing)
    }

    /// The number of missing keys that were met. Nothing of it asks the store: counting the rows of a key can take long.
    #[cfg(feature = "metrics")]
    pub(super) fn count_missing_keys(&self) -> usize {
        self.missing_key_ids().len()
    }

    #[cfg(any(feature = "api", feature = "metrics"))]
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
        for n in 0..100 {
            keys.add(id(n));
        }
        assert_eq!(keys.ids(|_| true).len(), MissingKeys::MAX);
    }
}
