//! The VAPID keys of a deployment, in memory and in the store.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;

use crate::broadcast::Audience;
use crate::clock::Timestamp;
use crate::observe::event;
use crate::store::{
    CountFilter, Liveness, StoreError, StoredVapidKey, SubscriptionStore, VapidKeyStore,
};
use crate::vapid::{KeyEncryptionKeys, KeyId, VapidError, VapidErrorKind, VapidKey};

/// The live VAPID keys of a deployment: an active one, which new subscriptions use, and older ones, which the
/// subscriptions made with them need (RFC 8292 section 4).
///
/// Keys are read from the store and decrypted once. Reading them from memory takes a short lock. Other processes may
/// rotate keys at any time: [`candidates`](Self::candidates) reads the store again for an unknown key.
///
/// # Cancel safety
///
/// A call changes the store first and then the memory. If it is dropped in between, the memory is up to date after the
/// next read of the store.
#[derive(Debug)]
pub struct KeyRing {
    store: Arc<dyn VapidKeyStore>,
    keks: KeyEncryptionKeys,
    keys: RwLock<Arc<Keys>>,
    /// The last read of the store for an unknown key. Locked during a read, so that the later of two reads is kept.
    reading: Mutex<Option<LastRead>>,
    /// Keys from the configuration, which are kept even if no subscription uses them.
    adopted: RwLock<Vec<KeyId>>,
}

/// A completed read of the store.
#[derive(Clone, Copy, Debug)]
struct LastRead {
    at: Timestamp,
    /// Whether it succeeded.
    is_ok: bool,
}

/// A snapshot of the keys; the active one is always among them.
#[derive(Debug)]
struct Keys {
    active: Arc<VapidKey>,
    /// The active key first, then the others by age, youngest first.
    live: Arc<[Arc<VapidKey>]>,
    /// When each of them was made or adopted.
    created_at: Vec<Timestamp>,
}

impl KeyRing {
    /// Retention of a key that no subscription uses, after it was made and after a rotation: pages opened before may
    /// still subscribe with it.
    const KEEP_UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);

    /// The shortest time between two reads of the store for unknown keys.
    pub const LOOK_AGAIN: Duration = Duration::from_secs(1);

    /// The store of the keys.
    pub(super) fn store(&self) -> &dyn VapidKeyStore {
        &*self.store
    }

    /// Reads all keys. If there is none, makes the first one: exactly one, even if several processes start at once.
    ///
    /// `adopt` is a key from the configuration. It becomes live, and active if it is the first. Stored keys that are not
    /// encrypted with the first of `keks` are encrypted again; a key in the clear only with
    /// [`seal_clear_keys`](KeyEncryptionKeys::seal_clear_keys).
    ///
    /// # Errors
    ///
    /// [`ClearKey`](VapidErrorKind::ClearKey),
    /// [`UnknownEncryptionKey`](VapidErrorKind::UnknownEncryptionKey),
    /// [`UnreadableKey`](VapidErrorKind::UnreadableKey) or
    /// [`NoActiveKey`](VapidErrorKind::NoActiveKey) if a stored key cannot be read or none is active. A new key is
    /// never made in its place, since that would orphan every subscription.
    /// [`NoRandomness`](VapidErrorKind::NoRandomness), [`Store`](VapidErrorKind::Store).
    pub async fn open(
        store: Arc<dyn VapidKeyStore>,
        keks: KeyEncryptionKeys,
        adopt: Option<VapidKey>,
        now: Timestamp,
    ) -> Result<Self, VapidError> {
        let mut rows = store.keys().await.map_err(failed)?;
        if rows.is_empty() {
            let first = match &adopt {
                Some(key) => stored(&keks, key, true, now)?,
                None => stored(&keks, &VapidKey::generate()?, true, now)?,
            };
            // If several processes start at once, one of them inserts its key and the others use that.
            let is_first = store.insert_first(&first).await.map_err(failed)?;
            if is_first && adopt.is_none() {
                event!(
                    WARN,
                    key = %first.id,
                    "made the first VAPID key, since the store had none: a browser that subscribed with \
                     another key has to subscribe again"
                );
            }
            rows = store.keys().await.map_err(failed)?;
        }
        let mut keys = Keys::read(&rows, &keks, None)?;
        if let Some(key) = &adopt
            && keys.get(&key.id()).is_none()
        {
            let row = stored(&keks, key, false, now)?;
            store.insert(&row).await.map_err(failed)?;
            rows = store.keys().await.map_err(failed)?;
            keys = Keys::read(&rows, &keks, Some(&keys))?;
        }
        if keks.converts() {
            let clear = rows.iter().filter(|row| !row.sealed.is_encrypted());
            let clear = clear.count();
            event!(
                WARN,
                clear,
                "SEAL_CLEAR_KEYS (seal_clear_keys) is on: VAPID keys in the clear are trusted and encrypted; switch it \
                 off before the next start"
            );
            let _ = clear;
        }
        for (row, key) in rows.iter().zip(keys.live.iter()) {
            if !keks.is_current(&row.sealed) {
                let sealed = keks.seal(key)?;
                let resealed = store.reseal(&row.id, &row.sealed, &sealed).await;
                // `false`: another process has done it.
                resealed.map_err(failed)?;
            }
        }
        Ok(Self {
            store,
            // Trusted at start only.
            keks: keks.seal_clear_keys(false),
            keys: RwLock::new(Arc::new(keys)),
            reading: Mutex::new(None),
            adopted: RwLock::new(adopt.iter().map(VapidKey::id).collect()),
        })
    }

    /// The key that new subscriptions use.
    #[must_use]
    pub fn active(&self) -> Arc<VapidKey> {
        Arc::clone(&self.keys().active)
    }

    /// All live keys: the active one first, then the others by age, youngest first.
    pub(crate) fn live(&self) -> Arc<[Arc<VapidKey>]> {
        Arc::clone(&self.keys().live)
    }

    /// A live key in memory.
    pub(crate) fn get(&self, id: &KeyId) -> Option<Arc<VapidKey>> {
        self.keys().get(id)
    }

    /// A live key. For a key that is not in memory the store is read, at most once in
    /// [`LOOK_AGAIN`](Self::LOOK_AGAIN) for all callers, since ids come from outside. Returns `None` only after a
    /// successful read: the subscription of a missing key becomes stale.
    ///
    /// # Errors
    ///
    /// As [`refresh`](Self::refresh); and after a failed read until the next one.
    pub(crate) async fn find(
        &self,
        id: &KeyId,
        now: Timestamp,
    ) -> Result<Option<Arc<VapidKey>>, VapidError> {
        if let Some(key) = self.get(id) {
            return Ok(Some(key));
        }
        let mut last = self.reading.lock().await;
        // Another call may have read the store meanwhile.
        if let Some(key) = self.get(id) {
            return Ok(Some(key));
        }
        // A failed read counts too: a store in trouble is not asked more often.
        let is_recent = |read: &LastRead| read.at <= now && now.since(read.at) < Self::LOOK_AGAIN;
        match last.filter(is_recent) {
            Some(read) if read.is_ok => return Ok(None),
            Some(_) => return Err(VapidErrorKind::Store.into()),
            None => {}
        }
        let read = self.read().await;
        // Not before: a read that was dropped does not count.
        *last = Some(LastRead {
            at: now,
            is_ok: read.is_ok(),
        });
        read?;
        Ok(self.get(id))
    }

    /// The keys to try for a subscription made with this key: this one first, if it is live, then the others, in case the
    /// subscription was made with one of them. For a key that is not in memory the store is read, at most once in
    /// [`LOOK_AGAIN`](Self::LOOK_AGAIN) for all callers, since ids come from outside.
    ///
    /// # Errors
    ///
    /// [`Store`](VapidErrorKind::Store), also after a failed read until the next one, or as [`open`](Self::open) for a new
    /// key.
    pub async fn candidates(
        &self,
        id: &KeyId,
        now: Timestamp,
    ) -> Result<Vec<Arc<VapidKey>>, VapidError> {
        let own = self.find(id, now).await?;
        let live = self.live();
        let others = live.iter().filter(|key| key.id() != *id).cloned();
        Ok(own.into_iter().chain(others).collect())
    }

    /// Reads the store again. If that fails, the keys in memory stay.
    ///
    /// If the store has lost the active key, which no call of this crate removes, the key is written back: browsers
    /// subscribed with it. A store without any key gets all of them, the active one as such. One with other keys is
    /// another store, or an old copy: then the key is live there, and not active.
    ///
    /// # Errors
    ///
    /// [`Store`](VapidErrorKind::Store), or as [`open`](Self::open) for a new key.
    pub(crate) async fn refresh(&self) -> Result<(), VapidError> {
        let _reading = self.reading.lock().await;
        let known = self.keys();
        let rows = self.store.keys().await.map_err(failed)?;
        if !rows.iter().any(|row| row.id == known.active.id()) {
            self.write_back(&known, rows.is_empty()).await?;
        }
        self.read().await
    }

    async fn write_back(&self, keys: &Keys, is_empty: bool) -> Result<(), VapidError> {
        event!(
            ERROR,
            key = %keys.active.id(),
            is_empty,
            "the store lost the active VAPID key, which is written back: its data was deleted or replaced while this \
             process was running"
        );
        // The active key is the first of them.
        let lost = if is_empty { keys.live.len() } else { 1 };
        let lost = keys.live.iter().zip(&keys.created_at).take(lost);
        for (key, created_at) in lost {
            let row = stored(&self.keks, key, false, *created_at)?;
            // Active in an empty store. If another process was faster, its key is.
            if !self.store.insert_first(&row).await.map_err(failed)? {
                self.store.insert(&row).await.map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Must be called with `reading` locked.
    async fn read(&self) -> Result<(), VapidError> {
        let rows = self.store.keys().await.map_err(failed)?;
        let keys = Keys::read(&rows, &self.keks, Some(&self.keys()))?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(())
    }

    /// Makes a new active key. The others stay live, so every subscription keeps working.
    ///
    /// # Errors
    ///
    /// [`NoRandomness`](VapidErrorKind::NoRandomness), or as [`candidates`](Self::candidates).
    pub async fn rotate(&self, now: Timestamp) -> Result<Arc<VapidKey>, VapidError> {
        let key = VapidKey::generate()?;
        let id = key.id();
        let row = stored(&self.keks, &key, true, now)?;
        self.store.insert(&row).await.map_err(failed)?;
        self.refresh().await?;
        // Another process may have rotated since; this key is live all the same.
        Ok(self.get(&id).unwrap_or_else(|| self.active()))
    }

    /// Adds a key made elsewhere. It is live, not active, and never removed by this process.
    ///
    /// # Errors
    ///
    /// [`NoRandomness`](VapidErrorKind::NoRandomness), or as [`refresh`](Self::refresh).
    pub(crate) async fn adopt(&self, key: &VapidKey, now: Timestamp) -> Result<(), VapidError> {
        self.take_in(key, false, now).await
    }

    /// Adds an unknown key as [`adopt`](Self::adopt) does, and makes it the active one if no row of `subscriptions` uses
    /// the present one. A known key is left as it is, since it may have been replaced by a rotation.
    ///
    /// # Errors
    ///
    /// As [`adopt`](Self::adopt), and [`Store`](VapidErrorKind::Store) if the subscriptions cannot be counted.
    pub(crate) async fn adopt_as_active(
        &self,
        key: &VapidKey,
        subscriptions: &dyn SubscriptionStore,
        now: Timestamp,
    ) -> Result<(), VapidError> {
        self.refresh().await?;
        if self.get(&key.id()).is_some() {
            return Ok(());
        }
        let mut filter = CountFilter::new(Audience::All, Liveness::Any);
        filter.vapid_key = Some(self.active().id());
        let users = subscriptions.count(&filter, now).await.map_err(failed)?;
        // A subscription made with the other key at this moment works, since that key stays live.
        self.take_in(key, users == 0, now).await
    }

    async fn take_in(
        &self,
        key: &VapidKey,
        active: bool,
        now: Timestamp,
    ) -> Result<(), VapidError> {
        let row = stored(&self.keks, key, active, now)?;
        if !self.is_adopted(&key.id()) {
            let mut adopted = self.adopted.write().unwrap_or_else(PoisonError::into_inner);
            adopted.push(key.id());
        }
        self.store.insert(&row).await.map_err(failed)?;
        self.refresh().await
    }

    /// Removes the keys that no row of `subscriptions` uses, retired rows included. Returns the removed ones.
    ///
    /// Keeps the active key, adopted keys and keys younger than [`KEEP_UNUSED`](Self::KEEP_UNUSED), and all keys for
    /// that long after a rotation. A subscription made with a key at the moment of its removal becomes stale, and its
    /// page subscribes again.
    ///
    /// # Errors
    ///
    /// [`Store`](VapidErrorKind::Store), or as [`refresh`](Self::refresh). Keys removed before the error stay removed.
    pub(crate) async fn forget_unused(
        &self,
        subscriptions: &dyn SubscriptionStore,
        now: Timestamp,
    ) -> Result<Vec<KeyId>, VapidError> {
        let rows = self.store.keys().await.map_err(failed)?;
        let young = |row: &StoredVapidKey| now.since(row.created_at) < Self::KEEP_UNUSED;
        let mut forgotten = Vec::new();
        if rows.iter().any(|row| row.active && young(row)) {
            return Ok(forgotten);
        }
        for row in rows {
            if row.active || young(&row) || self.is_adopted(&row.id) {
                continue;
            }
            let mut filter = CountFilter::new(Audience::All, Liveness::Any);
            filter.vapid_key = Some(row.id);
            if subscriptions.count(&filter, now).await.map_err(failed)? == 0
                && self.store.remove(&row.id).await.map_err(failed)?
            {
                forgotten.push(row.id);
            }
        }
        if !forgotten.is_empty() {
            self.refresh().await?;
        }
        Ok(forgotten)
    }

    fn is_adopted(&self, id: &KeyId) -> bool {
        let adopted = self.adopted.read().unwrap_or_else(PoisonError::into_inner);
        adopted.contains(id)
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Keys {
    /// Decrypts every row whose key is not in `known`.
    fn read(
        rows: &[StoredVapidKey],
        keks: &KeyEncryptionKeys,
        known: Option<&Self>,
    ) -> Result<Self, VapidError> {
        let open = |row: &StoredVapidKey| match known.and_then(|known| known.get(&row.id)) {
            Some(key) => Ok(key),
            None if row.public_key.id() == row.id => {
                keks.open(&row.sealed, &row.public_key).map(Arc::new)
            }
            None => Err(VapidErrorKind::UnreadableKey.into()),
        };
        let live: Arc<[_]> = rows.iter().map(open).collect::<Result<_, _>>()?;
        // The store returns the active key first (contract K4).
        match (rows.first(), live.first()) {
            (Some(row), Some(active)) if row.active => Ok(Self {
                active: Arc::clone(active),
                live,
                created_at: rows.iter().map(|row| row.created_at).collect(),
            }),
            _ => Err(VapidErrorKind::NoActiveKey.into()),
        }
    }

    fn get(&self, id: &KeyId) -> Option<Arc<VapidKey>> {
        self.live.iter().find(|key| key.id() == *id).map(Arc::clone)
    }
}

fn stored(
    keks: &KeyEncryptionKeys,
    key: &VapidKey,
    active: bool,
    now: Timestamp,
) -> Result<StoredVapidKey, VapidError> {
    let sealed = keks.seal(key)?;
    let public_key = *key.public_key();
    Ok(StoredVapidKey::new(
        key.id(),
        public_key,
        sealed,
        now,
        active,
    ))
}

fn failed(source: StoreError) -> VapidError {
    VapidError::with_source(VapidErrorKind::Store, source)
}

#[cfg(test)]
mod tests;
