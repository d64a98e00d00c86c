//! The contract of the VAPID keys' table.

use std::fmt;

use async_trait::async_trait;

use super::StoreError;
use crate::clock::Timestamp;
use crate::vapid::{KeyId, SealedVapidKey, VapidPublicKey};

/// Keeps VAPID keys: several live, one active.
///
/// # Stability
///
/// Open to implementations outside this crate: see [the module](crate::store#implementing-them). Before 1.0 a minor
/// version may add a required method.
///
/// # Contract
///
/// - **K1** [`insert_first`](Self::insert_first) inserts an active key only where there is none at all, and says
///   whether it did. Of N concurrent calls exactly one does.
/// - **K2** [`insert`](Self::insert) adds a key; when it is active, the one that was is not any more, in the same
///   transaction. A key that is there already is made active or left as it is, and keeps its sealed form.
/// - **K3** There is at most one active key, and `insert` of an inactive key never changes which.
/// - **K4** [`keys`](Self::keys) answers all keys, the active one first, then the youngest first.
/// - **K5** [`reseal`](Self::reseal) replaces the sealed form of one key where it still is the expected one.
/// - **K6** [`remove`](Self::remove) removes a key that is not active; an active one stays.
#[async_trait]
pub trait VapidKeyStore: fmt::Debug + Send + Sync + 'static {
    /// All keys (K4).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn keys(&self) -> Result<Vec<StoredVapidKey>, StoreError>;

    /// Inserts the first key, active whatever `key.active` says (K1); whether it did.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn insert_first(&self, key: &StoredVapidKey) -> Result<bool, StoreError>;

    /// Adds a key (K2, K3).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn insert(&self, key: &StoredVapidKey) -> Result<(), StoreError>;

    /// Replaces a key's sealed form (K5); whether it did.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn reseal(
        &self,
        id: &KeyId,
        expected: &SealedVapidKey,
        sealed: &SealedVapidKey,
    ) -> Result<bool, StoreError>;

    /// Removes a key that is not active (K6); whether it did.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn remove(&self, id: &KeyId) -> Result<bool, StoreError>;
}

/// A VAPID key as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle all of it: see `store`"
)]
pub struct StoredVapidKey {
    /// Its name, derived from the public key.
    pub id: KeyId,
    /// The public key.
    pub public_key: VapidPublicKey,
    /// The private key, sealed.
    pub sealed: SealedVapidKey,
    /// When it was made or adopted.
    pub created_at: Timestamp,
    /// Whether new subscriptions use it.
    pub active: bool,
}

impl StoredVapidKey {
    /// A key to store.
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
