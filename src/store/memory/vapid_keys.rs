//! VAPID keys in memory.

use std::cmp::Reverse;

use async_trait::async_trait;

use super::MemoryStore;
use crate::store::{StoreError, StoredVapidKey, VapidKeyStore};
use crate::vapid::{KeyId, SealedVapidKey};

#[async_trait]
impl VapidKeyStore for MemoryStore {
    async fn keys(&self) -> Result<Vec<StoredVapidKey>, StoreError> {
        let mut keys = self.lock()?.vapid_keys.clone();
        keys.sort_by_key(|key| (Reverse(key.active), Reverse(key.created_at), key.id));
        Ok(keys)
    }

    async fn insert_first(&self, key: &StoredVapidKey) -> Result<bool, StoreError> {
        let mut state = self.lock()?;
        if !state.vapid_keys.is_empty() {
            return Ok(false);
        }
        let mut key = key.clone();
        key.active = true;
        state.vapid_keys.push(key);
        Ok(true)
    }

    async fn insert(&self, key: &StoredVapidKey) -> Result<(), StoreError> {
        let mut state = self.lock()?;
        let keys = &mut state.vapid_keys;
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
        let mut state = self.lock()?;
        let found = state
            .vapid_keys
            .iter_mut()
            .find(|key| key.id == *id && key.sealed == *expected);
        let Some(key) = found else {
            return Ok(false);
        };
        key.sealed = sealed.clone();
        Ok(true)
    }

    async fn remove(&self, id: &KeyId) -> Result<bool, StoreError> {
        let mut state = self.lock()?;
        let before = state.vapid_keys.len();
        state.vapid_keys.retain(|key| key.id != *id || key.active);
        Ok(state.vapid_keys.len() < before)
    }
}
