//! K1 to K6: VAPID keys.

use super::Handles;
use super::sample::at;
use crate::store::{StoredVapidKey, VapidKeyStore};
use crate::vapid::{KeyId, SealedVapidKey, VapidKey};

fn key(created_at: i64, active: bool) -> StoredVapidKey {
    let public_key = *VapidKey::generate().unwrap().public_key();
    let sealed = SealedVapidKey::new(format!("sealed {}", public_key.id()));
    StoredVapidKey::new(public_key.id(), public_key, sealed, at(created_at), active)
}

async fn ids<S: VapidKeyStore + ?Sized>(store: &S) -> Vec<KeyId> {
    let keys = store.keys().await.unwrap();
    let active = keys.iter().filter(|key| key.active).count();
    assert!(active <= 1, "K3");
    keys.iter().map(|key| key.id).collect()
}

/// K1: the first key is inserted only if there is none, and is active.
pub async fn k1_the_first_key_is_inserted_once<S: VapidKeyStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    assert_eq!(store.keys().await.unwrap(), []);
    let mut first = key(1, false);
    assert!(store.insert_first(&first).await.unwrap());
    assert!(!store.insert_first(&key(2, true)).await.unwrap());
    first.active = true;
    assert_eq!(store.keys().await.unwrap(), [first]);
}

/// K1: one of several concurrent first keys is inserted, and every handle sees it.
pub async fn k1_one_of_many_concurrent_first_keys_wins<S: VapidKeyStore + ?Sized>(h: &Handles<S>) {
    let won = h
        .race(6, |store, _| async move {
            let key = key(1, true);
            (store.insert_first(&key).await.unwrap(), key.id)
        })
        .await;
    let winners: Vec<_> = won
        .iter()
        .filter(|(won, _)| *won)
        .map(|(_, id)| *id)
        .collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(ids(h.store()).await, winners);
    assert_eq!(ids(h.second()).await, winners);
}

/// K2: a new active key replaces the active one. A known key keeps its sealed form.
pub async fn k2_an_active_key_replaces_the_active_one<S: VapidKeyStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let (old, new) = (key(1, true), key(2, true));
    store.insert(&old).await.unwrap();
    store.insert(&new).await.unwrap();
    assert_eq!(ids(store).await, [new.id, old.id]);
    let mut again = old.clone();
    again.sealed = SealedVapidKey::new("other");
    again.created_at = at(9);
    store.insert(&again).await.unwrap();
    let keys = store.keys().await.unwrap();
    assert_eq!(keys[0], old, "active again, otherwise as it was");
    assert!(!keys[1].active);
}

/// K3: an inactive key does not change the active one.
pub async fn k3_an_inactive_key_leaves_the_active_one<S: VapidKeyStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let (active, other) = (key(1, true), key(2, false));
    store.insert(&other).await.unwrap();
    assert!(!store.keys().await.unwrap()[0].active, "there may be none");
    store.insert(&active).await.unwrap();
    store.insert(&other).await.unwrap();
    let mut known = active.clone();
    known.active = false;
    store.insert(&known).await.unwrap();
    assert_eq!(store.keys().await.unwrap(), [active, other]);
}

/// K4: the active key first, then the newest.
pub async fn k4_keys_are_listed_the_active_one_first<S: VapidKeyStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let keys = [key(5, false), key(9, false), key(1, true), key(7, false)];
    for key in &keys {
        store.insert(key).await.unwrap();
    }
    let expected = [2, 1, 3, 0].map(|place: usize| keys[place].id);
    assert_eq!(ids(store).await, expected);
}

/// K5: a sealed form is replaced only if it is the expected one.
pub async fn k5_resealing_compares_first<S: VapidKeyStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let mut stored = key(1, true);
    store.insert(&stored).await.unwrap();
    let sealed = SealedVapidKey::new("resealed");
    let unknown = key(2, false);
    for (id, expected) in [(stored.id, &sealed), (unknown.id, &stored.sealed)] {
        assert!(!store.reseal(&id, expected, &sealed).await.unwrap());
    }
    assert_eq!(store.keys().await.unwrap(), [stored.clone()]);
    assert!(
        store
            .reseal(&stored.id, &stored.sealed, &sealed)
            .await
            .unwrap()
    );
    assert!(
        !store
            .reseal(&stored.id, &stored.sealed, &sealed)
            .await
            .unwrap()
    );
    stored.sealed = sealed;
    assert_eq!(store.keys().await.unwrap(), [stored]);
}

/// K6: the active key stays.
pub async fn k6_only_inactive_keys_are_removed<S: VapidKeyStore + ?Sized>(h: &Handles<S>) {
    let store = h.store();
    let (active, other) = (key(1, true), key(2, false));
    store.insert(&active).await.unwrap();
    store.insert(&other).await.unwrap();
    assert!(!store.remove(&active.id).await.unwrap());
    assert!(store.remove(&other.id).await.unwrap());
    assert!(!store.remove(&other.id).await.unwrap());
    assert_eq!(ids(store).await, [active.id]);
}
