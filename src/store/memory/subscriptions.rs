//! Subscriptions in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::ops::Bound;

use async_trait::async_trait;

use super::MemoryStore;
use crate::broadcast::{Audience, Principal, Tag};
use crate::clock::Timestamp;
use crate::push_service::PushService;
use crate::store::merge::{Merged, merge};
use crate::store::{
    Change, CountFilter, LiveCounts, NewSubscription, Retired, StoreError, StoreErrorKind,
    SubscriptionLimits, SubscriptionRecord, SubscriptionRef, SubscriptionStore, Upserted,
};
use crate::subscription::{EndpointKey, SubscriptionId};
use crate::vapid::KeyId;

/// The rows, and who is found how.
#[derive(Default)]
pub(super) struct Subscriptions {
    rows: BTreeMap<EndpointKey, SubscriptionRecord>,
    by_id: HashMap<SubscriptionId, EndpointKey>,
    by_principal: HashMap<Principal, BTreeSet<EndpointKey>>,
    by_tag: HashMap<Tag, BTreeSet<EndpointKey>>,
    /// How many rows are unproven (S16).
    unproven: u64,
}

impl Subscriptions {
    fn insert(&mut self, key: EndpointKey, record: SubscriptionRecord) {
        self.by_id.insert(record.id, key);
        if let Some(principal) = &record.principal {
            let keys = self.by_principal.entry(principal.clone()).or_default();
            keys.insert(key);
        }
        for tag in &record.tags {
            self.by_tag.entry(tag.clone()).or_default().insert(key);
        }
        self.unproven += u64::from(record.is_unproven());
        self.rows.insert(key, record);
    }

    fn remove(&mut self, key: &EndpointKey) -> Option<SubscriptionRecord> {
        let record = self.rows.remove(key)?;
        self.unproven -= u64::from(record.is_unproven());
        self.by_id.remove(&record.id);
        if let Some(principal) = &record.principal {
            unindex(&mut self.by_principal, principal, key);
        }
        for tag in &record.tags {
            unindex(&mut self.by_tag, tag, key);
        }
        Some(record)
    }

    fn upsert(
        &mut self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        max_rows: usize,
        now: Timestamp,
    ) -> Result<Upserted, StoreError> {
        let key = new.subscription.endpoint().key();
        let replaces = new.replaces.filter(|replaced| *replaced != key);
        let replaced = replaces.and_then(|key| self.rows.get(&key));
        let standing = self.rows.get(&key).cloned();
        let Some(merged) = merge(standing, replaced, new, now) else {
            return Ok(Upserted::Conflict);
        };
        let Merged {
            record,
            created,
            superseded,
        } = merged;
        let named = self.by_id.get(&record.id);
        if named.is_some_and(|named| *named != key && Some(*named) != replaces) {
            // S1: ids are unique, and this one is another row's.
            return Err(StoreErrorKind::Misconfigured.into());
        }
        // Decided before the first change, so that a refusal leaves everything as it was.
        let mut leaving = self.surplus(&record, key, replaces, limits.per_principal);
        leaving.extend(replaces.filter(|key| self.rows.contains_key(key)));
        let total = usize::try_from(limits.total).map_or(max_rows, |total| total.min(max_rows));
        if created && (self.rows.len() + 1).saturating_sub(leaving.len()) > total {
            return Err(StoreErrorKind::Full.into());
        }
        let is_fresh = created && replaced.is_none();
        if is_fresh && record.is_unproven() && self.unproven >= limits.unproven {
            return Err(StoreError::too_many_unproven());
        }
        for leaving in leaving {
            self.remove(&leaving);
        }
        self.remove(&key);
        self.insert(key, record.clone());
        Ok(Upserted::Stored {
            record: Box::new(record),
            created,
            superseded,
        })
    }

    /// The principal's least recently seen rows that have to go when it gets this one (S6).
    fn surplus(
        &self,
        record: &SubscriptionRecord,
        key: EndpointKey,
        replaces: Option<EndpointKey>,
        per_principal: u32,
    ) -> Vec<EndpointKey> {
        let others = record
            .principal
            .as_ref()
            .and_then(|principal| self.by_principal.get(principal));
        let mut others: Vec<_> = others
            .into_iter()
            .flatten()
            .filter(|other| **other != key && Some(**other) != replaces)
            .filter_map(|other| Some((self.rows.get(other)?.last_seen_at, *other)))
            .collect();
        let room = usize::try_from(per_principal).unwrap_or(usize::MAX);
        let surplus = (others.len() + 1).saturating_sub(room.max(1));
        others.sort_unstable();
        others.truncate(surplus);
        others.into_iter().map(|(_, key)| key).collect()
    }

    /// The keys of an audience after `after`, in order.
    fn walk<'a>(
        &'a self,
        audience: &Audience,
        after: Option<&EndpointKey>,
    ) -> Box<dyn Iterator<Item = EndpointKey> + 'a> {
        let range = (
            after.map_or(Bound::Unbounded, |after| Bound::Excluded(*after)),
            Bound::Unbounded,
        );
        let index = match audience {
            Audience::All => return Box::new(self.rows.range(range).map(|(key, _)| *key)),
            Audience::Ids(ids) => {
                let keys = ids.iter().filter_map(|id| self.by_id.get(id));
                let keys: BTreeSet<_> = keys.copied().collect();
                let keys: Vec<_> = keys.range(range).copied().collect();
                return Box::new(keys.into_iter());
            }
            Audience::User(principal) => self.by_principal.get(principal),
            Audience::Tag(tag) => self.by_tag.get(tag),
        };
        Box::new(
            index
                .into_iter()
                .flat_map(move |keys| keys.range(range).copied()),
        )
    }

    /// Makes one change; how many rows it changed.
    fn apply(&mut self, change: &Change, now: Timestamp) -> u64 {
        let changed = match change {
            Change::Delete(key) => self.remove(key).is_some(),
            Change::PurgeRetired { before } => {
                let is_old = |retired: Retired| retired.at < *before;
                let old = |(key, row): (&EndpointKey, &SubscriptionRecord)| {
                    row.retired.is_some_and(is_old).then_some(*key)
                };
                let keys: Vec<_> = self.rows.iter().filter_map(old).collect();
                return keys.iter().filter_map(|key| self.remove(key)).count() as u64;
            }
            Change::Retire {
                key,
                reason,
                observed_at,
            } => self.change(key, |row| {
                let applies = row.retired.is_none() && row.last_seen_at <= *observed_at;
                if applies {
                    row.retired = Some(Retired::new(now, *reason));
                }
                applies
            }),
            Change::Stale { key, observed_at } => self.change(key, |row| {
                let applies = !row.stale && row.last_seen_at <= *observed_at;
                row.stale |= applies;
                applies
            }),
            Change::Accepted(key) => self.change(key, |row| {
                row.last_success_at = Some(now);
                row.failure_streak = 0;
                row.failing_since = None;
                true
            }),
            Change::Failed(key) => self.change(key, |row| {
                row.failure_streak = row.failure_streak.saturating_add(1);
                row.failing_since.get_or_insert(now);
                true
            }),
            Change::UseVapidKey { key, vapid_key } => self.change(key, |row| {
                row.vapid_key = *vapid_key;
                true
            }),
        };
        u64::from(changed)
    }

    /// Changes what no index knows of, and what can only prove a row.
    fn change(
        &mut self,
        key: &EndpointKey,
        change: impl FnOnce(&mut SubscriptionRecord) -> bool,
    ) -> bool {
        let Some(row) = self.rows.get_mut(key) else {
            return false;
        };
        let was_unproven = row.is_unproven();
        let changed = change(row);
        if was_unproven && !row.is_unproven() {
            self.unproven -= 1;
        }
        changed
    }
}

fn unindex<K: Eq + Hash>(
    index: &mut HashMap<K, BTreeSet<EndpointKey>>,
    name: &K,
    key: &EndpointKey,
) {
    if let Some(keys) = index.get_mut(name) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(name);
        }
    }
}

#[async_trait]
impl SubscriptionStore for MemoryStore {
    async fn upsert(
        &self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<Upserted, StoreError> {
        let mut state = self.lock()?;
        state.subscriptions.upsert(new, limits, self.max_rows, now)
    }

    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        let state = self.lock()?;
        let Subscriptions { rows, by_id, .. } = &state.subscriptions;
        let row = |which: &SubscriptionRef| match which {
            SubscriptionRef::Id(id) => rows.get(by_id.get(id)?),
            SubscriptionRef::Key(key) => rows.get(key),
        };
        Ok(which.iter().map(|which| row(which).cloned()).collect())
    }

    async fn page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let state = self.lock()?;
        let subscriptions = &state.subscriptions;
        Ok(subscriptions
            .walk(audience, after)
            .filter_map(|key| subscriptions.rows.get(&key))
            .filter(|row| row.is_live(now))
            .take(limit)
            .cloned()
            .collect())
    }

    async fn owned_by(
        &self,
        principal: &Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let state = self.lock()?;
        let subscriptions = &state.subscriptions;
        Ok(subscriptions
            .walk(&Audience::User(principal.clone()), after)
            .filter_map(|key| subscriptions.rows.get(&key))
            .take(limit)
            .cloned()
            .collect())
    }

    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError> {
        let state = self.lock()?;
        let subscriptions = &state.subscriptions;
        Ok(subscriptions
            .walk(&filter.audience, None)
            .filter_map(|key| subscriptions.rows.get(&key))
            .filter(|row| filter.takes(row, now))
            .count() as u64)
    }

    async fn count_live(&self, keys: &[KeyId], now: Timestamp) -> Result<LiveCounts, StoreError> {
        let mut counts = LiveCounts::none(keys);
        for row in self.lock()?.subscriptions.rows.values() {
            if row.is_live(now) {
                let service = PushService::of(row.subscription.endpoint());
                counts.add(service.as_str(), &row.vapid_key, 1);
            }
        }
        Ok(counts)
    }

    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
        let mut state = self.lock()?;
        let subscriptions = &mut state.subscriptions;
        Ok(changes
            .iter()
            .map(|change| subscriptions.apply(change, now))
            .sum())
    }
}
