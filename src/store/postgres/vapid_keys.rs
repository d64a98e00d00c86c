//! VAPID keys in PostgreSQL.

use async_trait::async_trait;

use super::PostgresStore;
use super::attempts::in_transaction;
use super::connection::Tx;
use super::error::Failed;
use super::rows::{Columns, read};
use crate::store::{StoreError, StoreErrorKind, StoredVapidKey, VapidKeyStore};
use crate::vapid::{KeyId, SealedVapidKey, VapidPublicKey};

const KEYS: &str = "SELECT id, public_key, sealed, created_at, active FROM web_push.vapid_key \
     ORDER BY active DESC, created_at DESC, id";
/// Serializes inserts, so that later ones see earlier ones. There are few keys and inserts are rare.
const LOCK: &str = "LOCK TABLE web_push.vapid_key IN SHARE ROW EXCLUSIVE MODE";
const INSERT_FIRST: &str = "INSERT INTO web_push.vapid_key (id, public_key, sealed, created_at, active) \
     SELECT $1, $2, $3, $4, true WHERE NOT EXISTS (SELECT 1 FROM web_push.vapid_key)";
const RETIRE: &str = "UPDATE web_push.vapid_key SET active = false WHERE active";
const INSERT: &str = "INSERT INTO web_push.vapid_key (id, public_key, sealed, created_at, active) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO UPDATE SET active = vapid_key.active OR excluded.active";
const RESEAL: &str = "UPDATE web_push.vapid_key SET sealed = $3 WHERE id = $1 AND sealed = $2";
const REMOVE: &str = "DELETE FROM web_push.vapid_key WHERE id = $1 AND NOT active";

fn key(columns: &mut Columns<'_>) -> Result<StoredVapidKey, StoreError> {
    let id = KeyId::from_bytes(columns.bytes()?);
    let public_key = VapidPublicKey::from_bytes(columns.get()?)
        .map_err(|error| StoreError::new(StoreErrorKind::Corrupt, error))?;
    let sealed = SealedVapidKey::new(columns.get::<String>()?);
    let created_at = columns.time()?;
    let active = columns.get()?;
    Ok(StoredVapidKey::new(
        id, public_key, sealed, created_at, active,
    ))
}

async fn insert_first(tx: &mut Tx<'_>, key: &StoredVapidKey) -> Result<bool, Failed> {
    tx.execute(LOCK, &[]).await?;
    let (id, public_key) = (
        key.id.as_bytes().as_slice(),
        key.public_key.as_bytes().as_slice(),
    );
    let (sealed, created_at) = (key.sealed.secret_str(), key.created_at.as_millis());
    let inserted = tx
        .execute(INSERT_FIRST, &[&id, &public_key, &sealed, &created_at])
        .await?;
    Ok(inserted > 0)
}

async fn insert(tx: &mut Tx<'_>, key: &StoredVapidKey) -> Result<(), Failed> {
    tx.execute(LOCK, &[]).await?;
    if key.active {
        tx.execute(RETIRE, &[]).await?;
    }
    let (id, public_key) = (
        key.id.as_bytes().as_slice(),
        key.public_key.as_bytes().as_slice(),
    );
    let (sealed, created_at) = (key.sealed.secret_str(), key.created_at.as_millis());
    tx.execute(
        INSERT,
        &[&id, &public_key, &sealed, &created_at, &key.active],
    )
    .await
    .map(|_| ())
}

#[async_trait]
impl VapidKeyStore for PostgresStore {
    async fn keys(&self) -> Result<Vec<StoredVapidKey>, StoreError> {
        read(&self.database().query(KEYS, &[]).await?, key)
    }

    async fn insert_first(&self, key: &StoredVapidKey) -> Result<bool, StoreError> {
        in_transaction!(self.database(), |tx| insert_first(tx, key))
    }

    async fn insert(&self, key: &StoredVapidKey) -> Result<(), StoreError> {
        in_transaction!(self.database(), |tx| insert(tx, key))
    }

    async fn reseal(
        &self,
        id: &KeyId,
        expected: &SealedVapidKey,
        sealed: &SealedVapidKey,
    ) -> Result<bool, StoreError> {
        let id = id.as_bytes().as_slice();
        let (expected, sealed) = (expected.secret_str(), sealed.secret_str());
        let changed = self
            .database()
            .execute(RESEAL, &[&id, &expected, &sealed])
            .await?;
        Ok(changed > 0)
    }

    async fn remove(&self, id: &KeyId) -> Result<bool, StoreError> {
        let id = id.as_bytes().as_slice();
        Ok(self.database().execute(REMOVE, &[&id]).await? > 0)
    }
}
