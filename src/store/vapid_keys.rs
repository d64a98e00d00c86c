//! The contract of a table of VAPID keys.

use std::fmt;

use async_trait::async_trait;

use super::StoreError;
use crate::clock::Timestamp;
use crate::vapid::{KeyId, SealedVapidKey, VapidPublicKey};

/// A store of VAPID keys: several live ones, one of them active.
///
/// # Stability
///
/// Open to implementations outside this crate: see [the module](crate::store#implementing-them). Before 1.0 a minor
/// version may add a required method.
///
/// # Contract
///
/// - **K1** [`insert_first`](Self::insert_first) inserts an active key only if the store has no keys, and returns
///   whether it did. Of N concurrent calls exactly one does.
/// - **K2** [`insert`](Self::insert) adds a key. If it is active, the previous active key becomes inactive in the
///   same transaction. A known key is made active or left as it is, and keeps its sealed form.
/// - **K3** There is at most one active key. `insert` of an inactive key does not change which.
/// - **K4** [`keys`](Self::keys) returns all keys: the active one first, then the newest first.
/// - **K5** [`reseal`](Self::reseal) replaces the sealed form of one key if it is the expected one.
/// - **K6** [`remove`](Self::remove) removes a key that is not active. An active key stays.
#[async_trait]
pub trait VapidKeyStore: fmt::Debug + Send + Sync + 'static {
    /// Returns all keys (K4).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn keys(&self) -> Result<Vec<StoredVapidKey>, StoreError>;

    /// Inserts the first key, active even if `key.active` is `false` (K1). Returns whether it did.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn insert_first(&self, key: &StoredVapidKey) -> Result<bool, StoreError>;

    /// Adds a key (K2, K3).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn insert(&self, key: &StoredVapidKey) -> Result<(), StoreError>;

    /// Replaces a key's sealed form (K5). Returns whether it did.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn reseal(
        &self,
        id: &KeyId,
        expected: &SealedVapidKey,
        sealed: &SealedVapidKey,
    ) -> Result<bool, StoreError>;

    /// Removes a key that is not active (K6). Returns whether it did.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn remove(&self, id: &KeyId) -> Result<bool, StoreError>;
}

/// A stored VAPID key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct StoredVapidKey {
    /// Its id, derived from the public key.
    pub id: KeyId,
    /// The public key.
    pub public_key: VapidPublicKey,
    /// The private key, sealed.
    pub sealed: SealedVapidKey,
    /// When it was made or imported.
    pub created_at: Timestamp,
    /// Whether new subscriptions use it.
    pub active: bool,
}

impl StoredVapidKey {
    /// Makes a key to store.
    #[must_use]
    pub const fn new(
        id: KeyId,
        public_key: VapidPublicKey,
        sealed: SealedVapidKey,
        created_at: Timestamp,
        active: bool,
    ) -> Self {
        Self {
            id,
            public_key,
            sealed,
            created_at,
            active,
        }
    }
}
