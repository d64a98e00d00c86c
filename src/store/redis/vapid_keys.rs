//! VAPID keys in Redis.

use std::cmp::Reverse;

use async_trait::async_trait;

use super::pack::{Unpacked, pack};
use super::reply::{Reply, array, number, text, time};
use super::script::{
    Args, INSERT_FIRST_KEY, INSERT_KEY, LIST_KEYS, Operation, REMOVE_KEY, REPLACE_KEY,
};
use super::{RedisStore, StoreError};
use crate::store::{StoreErrorKind, StoredVapidKey, VapidKeyStore};
use crate::vapid::{KeyId, SealedVapidKey, VapidPublicKey};

fn pack_key(key: &StoredVapidKey) -> Vec<u8> {
    pack([
        key.public_key.as_bytes().as_slice(),
        key.sealed.secret_str().as_bytes(),
        key.created_at.as_millis().to_string().as_bytes(),
    ])
}

fn unpack_key(id: KeyId, raw: &[u8], is_active: bool) -> Result<StoredVapidKey, StoreError> {
    let mut parts = Unpacked::of(raw)?;
    let public_key = VapidPublicKey::from_bytes(parts.next()?)
        .map_err(|error| StoreError::new(StoreErrorKind::Corrupt, error))?;
    let sealed = SealedVapidKey::new(text(parts.next()?.to_vec())?);
    let created_at = time(parts.next()?)?;
    Ok(StoredVapidKey::new(
        id, public_key, sealed, created_at, is_active,
    ))
}

impl RedisStore {
    /// Returns the keys with their stored values, in no order.
    async fn stored_keys(&self) -> Result<Vec<(StoredVapidKey, Vec<u8>)>, StoreError> {
        let mut answer = Reply::of(self.run(&LIST_KEYS, &Args::default()).await?)?;
        let active = answer.bytes()?;
        let key = |(id, raw): (Vec<u8>, Vec<u8>)| {
            let name = KeyId::from_bytes(array(&id)?);
            Ok((unpack_key(name, &raw, id == active)?, raw))
        };
        answer.fields()?.into_iter().map(key).collect()
    }

    async fn change_key(
        &self,
        change: &Operation,
        id: &KeyId,
        values: &[&[u8]],
    ) -> Result<bool, StoreError> {
        let args = Args::default().with(*id.as_bytes());
        let args = values.iter().fold(args, |args, value| args.with(*value));
        Ok(number(self.run(change, &args).await?)? != 0)
    }
}

#[async_trait]
impl VapidKeyStore for RedisStore {
    async fn keys(&self) -> Result<Vec<StoredVapidKey>, StoreError> {
        let mut keys: Vec<_> = self
            .stored_keys()
            .await?
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        keys.sort_by_key(|key| (Reverse(key.active), Reverse(key.created_at), key.id));
        Ok(keys)
    }

    async fn insert_first(&self, key: &StoredVapidKey) -> Result<bool, StoreError> {
        self.change_key(&INSERT_FIRST_KEY, &key.id, &[&pack_key(key)])
            .await
    }

    async fn insert(&self, key: &StoredVapidKey) -> Result<(), StoreError> {
        let active = if key.active { b"1" } else { b"0" };
        self.change_key(&INSERT_KEY, &key.id, &[&pack_key(key), active])
            .await
            .map(|_| ())
    }

    async fn reseal(
        &self,
        id: &KeyId,
        expected: &SealedVapidKey,
        sealed: &SealedVapidKey,
    ) -> Result<bool, StoreError> {
        // Only the sealed form of a key ever changes: if the stored value is unchanged, so is the sealed form.
        let keys = self.stored_keys().await?;
        let found = keys.into_iter().find(|(key, _)| key.id == *id);
        let Some((mut key, raw)) = found.filter(|(key, _)| key.sealed == *expected) else {
            return Ok(false);
        };
        key.sealed = sealed.clone();
        self.change_key(&REPLACE_KEY, id, &[&raw, &pack_key(&key)])
            .await
    }

    async fn remove(&self, id: &KeyId) -> Result<bool, StoreError> {
        self.change_key(&REMOVE_KEY, id, &[]).await
    }
}
