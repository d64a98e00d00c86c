use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::broadcast::Principal;
use crate::encoding::base64url;
use crate::store::{
    Change, NewSubscription, StoreErrorKind, SubscriptionFilter, SubscriptionLimits,
    SubscriptionPage, SubscriptionRecord, SubscriptionRef, Upserted,
};
use crate::subscription::EndpointKey;
use crate::vapid::SealedVapidKey;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

/// A table that counts its reads and fails on request.
#[derive(Debug, Default)]
struct Table {
    rows: std::sync::Mutex<Vec<StoredVapidKey>>,
    reads: AtomicUsize,
    broken: AtomicBool,
}

impl Table {
    fn rows(&self) -> Result<std::sync::MutexGuard<'_, Vec<StoredVapidKey>>, StoreError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(StoreErrorKind::Unavailable.into());
        }
        Ok(self.rows.lock().unwrap())
    }
}

#[async_trait]
impl VapidKeyStore for Table {
    async fn keys(&self) -> Result<Vec<StoredVapidKey>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let mut rows = self.rows()?.clone();
        rows.sort_by_key(|row| std::cmp::Reverse((row.active, row.created_at)));
        // Other tasks run during a read, as with a real store.
        tokio::task::yield_now().await;
        Ok(rows)
    }

    async fn insert_first(&self, key: &StoredVapidKey) -> Result<bool, StoreError> {
        let mut rows = self.rows()?;
        if rows.is_empty() {
            let active = true;
            rows.push(StoredVapidKey {
                active,
                ..key.clone()
            });
            return Ok(true);
        }
        Ok(false)
    }

    async fn insert(&self, key: &StoredVapidKey) -> Result<(), StoreError> {
        let mut rows = self.rows()?;
        if key.active {
            rows.iter_mut().for_each(|row| row.active = false);
        }
        match rows.iter_mut().find(|row| row.id == key.id) {
            Some(row) => row.active |= key.active,
            None => rows.push(key.clone()),
        }
        Ok(())
    }

    async fn reseal(
        &self,
        id: &KeyId,
        expected: &SealedVapidKey,
        sealed: &SealedVapidKey,
    ) -> Result<bool, StoreError> {
        let mut rows = self.rows()?;
        let found = rows
            .iter_mut()
            .find(|row| row.id == *id && row.sealed == *expected);
        Ok(found.map(|row| row.sealed = sealed.clone()).is_some())
    }

    async fn remove(&self, id: &KeyId) -> Result<bool, StoreError> {
        let mut rows = self.rows()?;
        let before = rows.len();
        rows.retain(|row| row.id != *id || row.active);
        Ok(rows.len() < before)
    }
}

/// Subscriptions that use these keys; only counting is implemented.
#[derive(Debug, Default)]
struct Naming(HashSet<KeyId>);

#[async_trait]
impl SubscriptionStore for Naming {
    async fn count(&self, filter: &CountFilter, _: Timestamp) -> Result<u64, StoreError> {
        assert_eq!(filter.liveness, Liveness::Any);
        Ok(u64::from(self.0.contains(&filter.vapid_key.unwrap())))
    }

    async fn upsert(
        &self,
        _: &NewSubscription,
        _: &SubscriptionLimits,
        _: Timestamp,
    ) -> Result<Upserted, StoreError> {
        unreachable!()
    }

    async fn get(
        &self,
        _: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        unreachable!()
    }

    async fn page(
        &self,
        _: &Audience,
        _: Option<&EndpointKey>,
        _: usize,
        _: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        unreachable!()
    }

    async fn owned_by(
        &self,
        _: &Principal,
        _: Option<&EndpointKey>,
        _: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        unreachable!()
    }

    async fn list_subscriptions(
        &self,
        _: &SubscriptionFilter,
        _: Option<&EndpointKey>,
        _: usize,
        _: Timestamp,
    ) -> Result<SubscriptionPage, StoreError> {
        unreachable!()
    }

    async fn apply(&self, _: &[Change], _: Timestamp) -> Result<u64, StoreError> {
        unreachable!()
    }
}

fn keks(octets: &[u8]) -> KeyEncryptionKeys {
    let keys = octets
        .iter()
        .map(|octet| base64url(&Sha256::digest([*octet])));
    KeyEncryptionKeys::parse(&keys.collect::<Vec<_>>().join(",")).unwrap()
}

async fn ring(table: &Arc<Table>, keks: KeyEncryptionKeys) -> Result<KeyRing, VapidError> {
    open(table, keks, None).await
}

async fn open(
    table: &Arc<Table>,
    keks: KeyEncryptionKeys,
    adopt: Option<VapidKey>,
) -> Result<KeyRing, VapidError> {
    let store: Arc<Table> = Arc::clone(table);
    KeyRing::open(store, keks, adopt, START).await
}

#[tokio::test]
async fn the_first_key_is_made_once_and_found_again() {
    let table = Arc::new(Table::default());
    let first = ring(&table, keks(&[1])).await.unwrap();
    assert_eq!(first.live().len(), 1);
    assert!(table.rows.lock().unwrap()[0].sealed.is_encrypted());
    let second = ring(&table, keks(&[1])).await.unwrap();
    assert_eq!(second.active().id(), first.active().id());
    assert_eq!(second.live().len(), 1);
}

#[tokio::test]
async fn processes_that_start_at_once_agree_on_one_key() {
    let table = Arc::new(Table::default());
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let table = Arc::clone(&table);
        starts.spawn(async move { ring(&table, keks(&[1])).await.unwrap().active().id() });
    }
    let ids: HashSet<KeyId> = starts.join_all().await.into_iter().collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(table.rows.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_configured_key_is_active_only_where_it_is_the_first() {
    let key = VapidKey::generate().unwrap();
    let text = key.secret_to_raw_base64url();
    let again = || Some(VapidKey::parse(text.as_str()).unwrap());

    let table = Arc::new(Table::default());
    let fresh = open(&table, keks(&[1]), again()).await.unwrap();
    assert_eq!(fresh.active().id(), key.id());
    let restarted = open(&table, keks(&[1]), again()).await.unwrap();
    assert_eq!(restarted.live().len(), 1);

    let table = Arc::new(Table::default());
    let generated = ring(&table, keks(&[1])).await.unwrap().active().id();
    let joined = open(&table, keks(&[1]), again()).await.unwrap();
    assert_eq!(joined.active().id(), generated);
    assert!(joined.get(&key.id()).is_some());
    assert_eq!(joined.live().len(), 2);
}

#[tokio::test]
async fn rotation_keeps_the_old_keys() {
    let table = Arc::new(Table::default());
    let ring = ring(&table, keks(&[1])).await.unwrap();
    let old = ring.active().id();
    let new = ring.rotate(START + HOUR).await.unwrap().id();
    assert_ne!(old, new);
    assert_eq!(ring.active().id(), new);
    let ids: Vec<KeyId> = ring.live().iter().map(|key| key.id()).collect();
    assert_eq!(ids, [new, old]);
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn the_store_is_read_for_unknown_keys_once_a_second() {
    let table = Arc::new(Table::default());
    let here = ring(&table, keks(&[1])).await.unwrap();
    let there = ring(&table, keks(&[1])).await.unwrap();
    let new = there.rotate(START).await.unwrap().id();
    assert!(here.get(&new).is_none());
    let reads = || table.reads.load(Ordering::Relaxed);

    let before = reads();
    let unknown = KeyId::from_bytes([7; 16]);
    assert!(here.find(&unknown, START).await.unwrap().is_none());
    assert_eq!(reads(), before + 1);
    assert_eq!(here.active().id(), new, "the same read found the new key");
    let soon = START + KeyRing::LOOK_AGAIN - Duration::from_millis(1);
    assert!(here.find(&unknown, soon).await.unwrap().is_none());
    assert_eq!(reads(), before + 1);
    assert!(here.find(&new, soon).await.unwrap().is_some());
    assert_eq!(reads(), before + 1);
    // After a second, and when the clock was set back.
    for (now, expected) in [(START + KeyRing::LOOK_AGAIN, 2), (START - HOUR, 3)] {
        assert!(here.find(&unknown, now).await.unwrap().is_none());
        assert_eq!(reads(), before + expected);
    }
}

#[tokio::test]
async fn a_failing_store_leaves_the_keys_in_memory() {
    let table = Arc::new(Table::default());
    let ring = ring(&table, keks(&[1])).await.unwrap();
    let active = ring.active().id();
    table.broken.store(true, Ordering::Relaxed);
    let error = ring.rotate(START).await.unwrap_err();
    assert_eq!(error.kind(), VapidErrorKind::Store);
    assert!(std::error::Error::source(&error).is_some());
    assert!(ring.refresh().await.is_err());
    let unknown = KeyId::from_bytes([7; 16]);
    // The store is read once, and the next call gets the same error instead of `None`.
    let reads = table.reads.load(Ordering::Relaxed);
    for _ in 0..2 {
        let error = ring.find(&unknown, START).await.unwrap_err();
        assert_eq!(error.kind(), VapidErrorKind::Store);
    }
    assert_eq!(table.reads.load(Ordering::Relaxed), reads + 1);
    assert_eq!(ring.active().id(), active);
    table.broken.store(false, Ordering::Relaxed);
    ring.refresh().await.unwrap();
    assert_eq!(ring.live().len(), 1);
}

#[tokio::test]
async fn lost_keys_are_written_back_as_they_were() {
    let table = Arc::new(Table::default());
    let here = ring(&table, keks(&[1])).await.unwrap();
    let there = ring(&table, keks(&[1])).await.unwrap();
    here.rotate(START + HOUR).await.unwrap();
    there.refresh().await.unwrap();
    let before = table.rows().unwrap().clone();
    table.rows().unwrap().clear();
    let (one, other) = tokio::join!(here.refresh(), there.refresh());
    one.and(other).unwrap();
    let facts = |rows: &[StoredVapidKey]| {
        let mut facts: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    row.id,
                    row.active,
                    row.created_at,
                    row.sealed.is_encrypted(),
                )
            })
            .collect();
        facts.sort();
        facts
    };
    assert_eq!(facts(&table.rows().unwrap()), facts(&before));

    // A store with another key is another store: the lost key is live there, and its own key stays active.
    let other = VapidKey::generate().unwrap();
    let row = stored(&keks(&[1]), &other, true, START).unwrap();
    *table.rows().unwrap() = vec![row];
    let lost = here.active().id();
    here.refresh().await.unwrap();
    assert_eq!(here.active().id(), other.id());
    let live: Vec<_> = here.live().iter().map(|key| key.id()).collect();
    assert_eq!(live, [other.id(), lost]);
}

#[tokio::test]
async fn a_read_that_was_dropped_does_not_count() {
    let table = Arc::new(Table::default());
    let here = ring(&table, keks(&[1])).await.unwrap();
    let there = ring(&table, keks(&[1])).await.unwrap();
    let new = there.rotate(START).await.unwrap().id();
    assert!(here.find(&new, START).now_or_never().is_none());
    assert!(here.find(&new, START).await.unwrap().is_some());
}

#[tokio::test]
async fn rows_under_older_keys_are_sealed_again_at_start() {
    let table = Arc::new(Table::default());
    let id = ring(&table, KeyEncryptionKeys::none())
        .await
        .unwrap()
        .active()
        .id();
    let sealed = || table.rows.lock().unwrap()[0].sealed.clone();
    assert!(!sealed().is_encrypted());
    for octets in [&[1][..], &[2, 1], &[2]] {
        // No effect if all keys are encrypted.
        let sealing = keks(octets).seal_clear_keys(true);
        let ring = ring(&table, sealing).await.unwrap();
        assert_eq!(ring.active().id(), id);
        assert!(keks(octets).is_current(&sealed()), "{octets:?}");
    }
    let before = sealed();
    ring(&table, keks(&[2, 3])).await.unwrap();
    assert_eq!(before, sealed(), "nothing to do, nothing done");
}

#[tokio::test]
async fn a_key_in_the_clear_is_refused_except_by_the_start_that_encrypts_it() {
    let table = Arc::new(Table::default());
    let clear = ring(&table, KeyEncryptionKeys::none()).await.unwrap();
    let id = clear.active().id();
    let before = table.rows.lock().unwrap().clone();
    let same = VapidKey::from_secret_bytes(clear.active().secret_bytes().as_slice()).unwrap();
    // The same with that key in the configuration. The store is not changed.
    for adopt in [None, Some(same)] {
        let error = open(&table, keks(&[1]), adopt).await.unwrap_err();
        assert_eq!(error.kind(), VapidErrorKind::ClearKey);
        assert!(
            error.to_string().contains("SEAL_CLEAR_KEYS=true"),
            "{error}"
        );
        assert_eq!(*table.rows.lock().unwrap(), before);
    }
    let converting = keks(&[1]).seal_clear_keys(true);
    let converted = ring(&table, converting.clone()).await.unwrap();
    assert_eq!(converted.active().id(), id);
    assert!(keks(&[1]).is_current(&table.rows.lock().unwrap()[0].sealed));
    // The next start needs no setting.
    ring(&table, keks(&[1])).await.unwrap();
    ring(&table, converting).await.unwrap();
}

/// While this setting is on, anyone with write access to the table can add a key of their own.
#[cfg(all(feature = "tracing", any(feature = "api", feature = "sqlite")))]
#[test]
fn each_start_that_trusts_keys_in_the_clear_warns() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.build().unwrap();
    let table = Arc::new(Table::default());
    for (seals, lines) in [(false, 0), (true, 1), (true, 1), (false, 0)] {
        let log = crate::observe::logged(|| {
            let ring = ring(&table, keks(&[1]).seal_clear_keys(seals));
            runtime.block_on(ring).unwrap();
        });
        let warned = log.lines().filter(|line| line.contains("SEAL_CLEAR_KEYS"));
        assert_eq!(warned.count(), lines, "{log}");
    }
}

#[tokio::test]
async fn a_running_process_never_trusts_a_planted_key() {
    // Also by a process that was started to encrypt keys in the clear.
    for seal in [false, true] {
        let table = Arc::new(Table::default());
        let keks = keks(&[1]).seal_clear_keys(seal);
        let ring = ring(&table, keks).await.unwrap();
        let active = ring.active().id();
        let planted = VapidKey::generate().unwrap();
        let row = stored(&KeyEncryptionKeys::none(), &planted, true, START).unwrap();
        table.insert(&row).await.unwrap();
        let found = [
            ring.refresh().await.unwrap_err(),
            ring.find(&planted.id(), START).await.unwrap_err(),
            ring.rotate(START).await.unwrap_err(),
        ];
        for error in found {
            assert_eq!(error.kind(), VapidErrorKind::ClearKey);
        }
        assert_eq!(ring.active().id(), active);
        assert!(ring.get(&planted.id()).is_none());
    }
}

#[tokio::test]
async fn an_unreadable_key_stops_the_start_and_changes_nothing() {
    let table = Arc::new(Table::default());
    ring(&table, keks(&[1])).await.unwrap();
    let adopt = || Some(VapidKey::generate().unwrap());
    for (keks, expected) in [
        (keks(&[2]), VapidErrorKind::UnknownEncryptionKey),
        (
            KeyEncryptionKeys::none(),
            VapidErrorKind::UnknownEncryptionKey,
        ),
    ] {
        let error = open(&table, keks, adopt()).await.unwrap_err();
        assert_eq!(error.kind(), expected);
    }
    let other = VapidKey::generate().unwrap();
    let good = table.rows.lock().unwrap()[0].clone();
    let damaged: [fn(&mut StoredVapidKey, &VapidKey); 3] = [
        |row, _| row.sealed = SealedVapidKey::new("v1.damaged"),
        |row, other| row.public_key = *other.public_key(),
        |row, other| row.id = other.id(),
    ];
    for damage in damaged {
        damage(&mut table.rows.lock().unwrap()[0], &other);
        let error = open(&table, keks(&[1]), adopt()).await.unwrap_err();
        assert_eq!(error.kind(), VapidErrorKind::UnreadableKey);
        assert_eq!(table.rows.lock().unwrap().len(), 1);
        table.rows.lock().unwrap()[0] = good.clone();
    }
    table.rows.lock().unwrap()[0].active = false;
    let error = open(&table, keks(&[1]), adopt()).await.unwrap_err();
    assert_eq!(error.kind(), VapidErrorKind::NoActiveKey);
}

#[tokio::test]
async fn only_old_unused_keys_are_removed() {
    let table = Arc::new(Table::default());
    let adopted = VapidKey::generate().unwrap();
    let ring = ring(&table, keks(&[1])).await.unwrap();
    let unnamed = ring.active().id();
    let named = ring.rotate(START + HOUR).await.unwrap().id();
    ring.adopt(&adopted, START).await.unwrap();
    let active = ring.rotate(START + HOUR * 2).await.unwrap().id();
    let subscriptions = Naming(HashSet::from([named]));

    let due = START + HOUR * 2 + KeyRing::KEEP_UNUSED;
    let early = due - Duration::from_millis(1);
    let forgotten = ring.forget_unused(&subscriptions, early).await.unwrap();
    assert_eq!(forgotten, []);
    let forgotten = ring.forget_unused(&subscriptions, due).await.unwrap();
    assert_eq!(forgotten, [unnamed]);
    let left: HashSet<KeyId> = ring.live().iter().map(|key| key.id()).collect();
    assert_eq!(left, HashSet::from([active, named, adopted.id()]));

    // The active key stays even if no subscription uses it.
    let forgotten = ring.forget_unused(&Naming::default(), due).await.unwrap();
    assert_eq!(forgotten, [named]);
    assert_eq!(ring.active().id(), active);
}

/// An import, or another replica, has adopted it from its configuration: its rows come later.
#[tokio::test]
async fn a_young_key_of_another_process_is_not_removed() {
    let table = Arc::new(Table::default());
    let here = ring(&table, keks(&[1])).await.unwrap();
    let there = ring(&table, keks(&[1])).await.unwrap();
    let key = VapidKey::generate().unwrap();
    let adopted = START + KeyRing::KEEP_UNUSED;
    there.adopt(&key, adopted).await.unwrap();
    let due = adopted + KeyRing::KEEP_UNUSED;
    for (now, expected) in [
        (adopted, vec![]),
        (due - Duration::from_millis(1), vec![]),
        (due, vec![key.id()]),
    ] {
        let forgotten = here.forget_unused(&Naming::default(), now).await;
        assert_eq!(forgotten.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_configured_key_is_not_removed() {
    let table = Arc::new(Table::default());
    ring(&table, keks(&[1])).await.unwrap();
    let key = VapidKey::generate().unwrap();
    let text = key.secret_to_raw_base64url();
    let again = VapidKey::parse(text.as_str()).unwrap();
    let joined = open(&table, keks(&[1]), Some(again)).await.unwrap();
    let due = START + KeyRing::KEEP_UNUSED;
    let forgotten = joined.forget_unused(&Naming::default(), due).await;
    assert_eq!(forgotten.unwrap(), []);
    assert!(joined.get(&key.id()).is_some());
}
