//! VAPID keys in SQLite.

use async_trait::async_trait;
use rusqlite::params;

use super::SqliteStore;
use super::connection::Connection;
use super::query::{Columns, all, execute};
use crate::store::{StoreError, StoreErrorKind, StoredVapidKey, VapidKeyStore};
use crate::vapid::{KeyId, SealedVapidKey, VapidPublicKey};

const KEYS: &str = "SELECT id, public_key, sealed, created_at, active FROM vapid_key \
     ORDER BY active DESC, created_at DESC, id";
const INSERT_FIRST: &str = "INSERT INTO vapid_key (id, public_key, sealed, created_at, active) \
     SELECT ?1, ?2, ?3, ?4, 1 WHERE NOT EXISTS (SELECT 1 FROM vapid_key)";
const INSERT: &str = "INSERT INTO vapid_key (id, public_key, sealed, created_at, active) \
     VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (id) DO UPDATE SET active = max(active, excluded.active)";

fn key(columns: &mut Columns<'_, '_>) -> Result<StoredVapidKey, StoreError> {
    let id = KeyId::from_bytes(columns.bytes()?);
    let public_key = VapidPublicKey::from_bytes(&columns.get::<Vec<u8>>()?)
        .map_err(|error| StoreError::new(StoreErrorKind::Corrupt, error))?;
    let sealed = SealedVapidKey::new(columns.get::<String>()?);
    let created_at = columns.time()?;
    let active = columns.flag()?;
    Ok(StoredVapidKey::new(
        id, public_key, sealed, created_at, active,
    ))
}

fn insert(conn: &Connection, key: &StoredVapidKey) -> Result<(), StoreError> {
    if key.active {
        execute(conn, "UPDATE vapid_key SET active = 0 WHERE active = 1", [])?;
    }
    let values = params![
        key.id.as_bytes(),
        key.public_key.as_bytes(),
        key.sealed.secret_str(),
        key.created_at.as_millis(),
        key.active,
    ];
    execute(conn, INSERT, values).map(|_| ())
}

#[async_trait]
impl VapidKeyStore for SqliteStore {
    async fn keys(&self) -> Result<Vec<StoredVapidKey>, StoreError> {
        self.read(|conn| all(conn, KEYS, [], key)).await
    }

    async fn insert_first(&self, key: &StoredVapidKey) -> Result<bool, StoreError> {
        let key = key.clone();
        self.write(move |conn| {
            let values = params![
                key.id.as_bytes(),
                key.public_key.as_bytes(),
                key.sealed.secret_str(),
                key.created_at.as_millis(),
            ];
            Ok(execute(conn, INSERT_FIRST, values)? > 0)
        })
        .await
    }

    async fn insert(&self, key: &StoredVapidKey) -> Result<(), StoreError> {
        let key = key.clone();
        self.write(move |conn| insert(conn, &key)).await
    }

    async fn reseal(
        &self,
        id: &KeyId,
        expected: &SealedVapidKey,
        sealed: &SealedVapidKey,
    ) -> Result<bool, StoreError> {
        let (id, expected, sealed) = (*id, expected.clone(), sealed.clone());
        self.write(move |conn| {
            let sql = "UPDATE vapid_key SET sealed = ?3 WHERE id = ?1 AND sealed = ?2";
            let values = params![id.as_bytes(), expected.secret_str(), sealed.secret_str()];
            Ok(execute(conn, sql, values)? > 0)
        })
        .await
    }

    async fn remove(&self, id: &KeyId) -> Result<bool, StoreError> {
        let id = *id;
        self.write(move |conn| {
            let sql = "DELETE FROM vapid_key WHERE id = ?1 AND active = 0";
            Ok(execute(conn, sql, [id.as_bytes()])? > 0)
        })
        .await
    }
}
