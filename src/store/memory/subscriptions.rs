//! Subscriptions in memory.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::ops::Bound;

use async_trait::async_trait;

use super::MemoryStore;
use crate::broadcast::{Audience, Principal, Tag};
use crate::clock::Timestamp;
use crate::push_service::PushService;
use crate::store::groups::{Groups, Kind};
use crate::store::listing::Listing;
use crate::store::rules::{self, Applied, evicted, merge, takes};
use crate::store::{
    Change, CountFilter, Failure, LiveCounts, Liveness, NewSubscription, RetireReason, STEP,
    StoreError, StoreErrorKind, SubscriptionFilter, SubscriptionLimits, SubscriptionPage,
    SubscriptionRecord, SubscriptionRef, SubscriptionStore, Unreachable, Upserted,
};
use crate::subscription::{EndpointKey, SubscriptionId};
use crate::vapid::KeyId;

/// The rows and their indexes.
#[derive(Default)]
pub(super) struct Subscriptions {
    rows: BTreeMap<EndpointKey, SubscriptionRecord>,
    by_id: HashMap<SubscriptionId, EndpointKey>,
    by_principal: HashMap<Principal, BTreeSet<EndpointKey>>,
    by_tag: HashMap<Tag, BTreeSet<EndpointKey>>,
    /// The numbers of rows, from which most counts are made. Numbers of 0 are absent.
    numbers: HashMap<(Kind, PushService, KeyId), u64>,
    /// The number of live rows of each tag, expired ones included.
    live_by_tag: HashMap<Tag, u64>,
    /// The number of unproven rows (S16).
    unproven: u64,
    /// Rows that are retired, and rows that are stale, by the time since which they are.
    unreachable: [BTreeSet<(Timestamp, EndpointKey)>; 2],
    /// Rows that expire: whether they are retired or stale, and their expiration.
    expiring: BTreeSet<(bool, Timestamp, EndpointKey)>,
}

/// The states in [`Subscriptions::unreachable`].
const UNREACHABLE: [Unreachable; 2] = [Unreachable::Retired, Unreachable::Stale];

/// The times since which a row is in each of these states.
fn unreachable_since(record: &SubscriptionRecord) -> [Option<Timestamp>; 2] {
    UNREACHABLE.map(|state| state.since(record))
}

/// The place of a row in [`Subscriptions::expiring`].
fn expiration(record: &SubscriptionRecord) -> Option<(bool, Timestamp, EndpointKey)> {
    let at = record.subscription.expiration_time()?;
    let key = record.subscription.endpoint().key();
    Some((counted_as(record).0 != Kind::Live, at, key))
}

/// What a row is counted as, expired or not: its state and its VAPID key.
const fn counted_as(record: &SubscriptionRecord) -> (Kind, KeyId) {
    let kind = match (&record.retired, &record.stale_since) {
        (Some(_), _) => Kind::Retired,
        (None, Some(_)) => Kind::Stale,
        (None, None) => Kind::Live,
    };
    (kind, record.vapid_key)
}

fn add_one<K: Eq + Hash>(numbers: &mut HashMap<K, u64>, name: K) {
    *numbers.entry(name).or_default() += 1;
}

fn subtract_one<K: Eq + Hash>(numbers: &mut HashMap<K, u64>, name: K) {
    if let Entry::Occupied(mut number) = numbers.entry(name) {
        *number.get_mut() -= 1;
        if *number.get() == 0 {
            number.remove();
        }
    }
}

impl Subscriptions {
    /// Counts a row.
    fn count(&mut self, record: &SubscriptionRecord) {
        let (kind, vapid_key) = counted_as(record);
        let service = PushService::of(record.subscription.endpoint());
        add_one(&mut self.numbers, (kind, service, vapid_key));
        if kind == Kind::Live {
            for tag in &record.tags {
                add_one(&mut self.live_by_tag, tag.clone());
            }
        }
    }

    /// Counts a row no more that was counted as `kind` and `vapid_key`.
    fn discount(&mut self, record: &SubscriptionRecord, (kind, vapid_key): (Kind, KeyId)) {
        let service = PushService::of(record.subscription.endpoint());
        subtract_one(&mut self.numbers, (kind, service, vapid_key));
        if kind == Kind::Live {
            for tag in &record.tags {
                subtract_one(&mut self.live_by_tag, tag.clone());
            }
        }
    }

    /// The first [`STEP`] live rows that have expired and are not purged yet.
    fn expired(&self, now: Timestamp) -> impl Iterator<Item = &SubscriptionRecord> {
        let until = (false, now, EndpointKey::from_bytes([0xff; 32]));
        let keys = self.expiring.range(..=until).take(STEP);
        keys.filter_map(|(_, _, key)| self.rows.get(key))
    }

    fn groups(&self, now: Timestamp) -> Groups {
        let mut groups = Groups::default();
        for ((kind, service, key), rows) in &self.numbers {
            groups.add(*kind, service.as_str(), Some(*key), *rows);
        }
        for row in self.expired(now) {
            let service = PushService::of(row.subscription.endpoint());
            groups.add(Kind::Expired, service.as_str(), Some(row.vapid_key), 1);
        }
        groups
    }

    fn count_live_of_tag(&self, tag: &Tag, now: Timestamp) -> u64 {
        let live = self.live_by_tag.get(tag).copied().unwrap_or_default();
        let expired = self.expired(now).filter(|row| row.tags.contains(tag));
        live - expired.count() as u64
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn row(&self, key: &EndpointKey) -> Option<&SubscriptionRecord> {
        self.rows.get(key)
    }

    pub(super) fn key_of(&self, id: SubscriptionId) -> Option<&EndpointKey> {
        self.by_id.get(&id)
    }

    /// Returns the rows of a state after a place, by the time since which they are in it.
    pub(super) fn unreachable_after(
        &self,
        state: Unreachable,
        after: Option<(Timestamp, EndpointKey)>,
    ) -> impl Iterator<Item = &SubscriptionRecord> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let states = UNREACHABLE.iter().zip(&self.unreachable);
        let places = states.filter(move |(of, _)| **of == state);
        let places = places.flat_map(move |(_, places)| places.range((after, Bound::Unbounded)));
        places.filter_map(|(_, key)| self.rows.get(key))
    }

    /// Moves a row to the times since which it is in each state.
    fn move_unreachable(
        &mut self,
        key: EndpointKey,
        from: [Option<Timestamp>; 2],
        to: [Option<Timestamp>; 2],
    ) {
        for (places, (from, to)) in self.unreachable.iter_mut().zip(from.into_iter().zip(to)) {
            if let Some(from) = from {
                places.remove(&(from, key));
            }
            places.extend(to.map(|to| (to, key)));
        }
    }

    pub(super) fn insert(&mut self, key: EndpointKey, record: SubscriptionRecord) {
        self.count(&record);
        self.by_id.insert(record.id, key);
        if let Some(principal) = &record.principal {
            let keys = self.by_principal.entry(principal.clone()).or_default();
            keys.insert(key);
        }
        for tag in &record.tags {
            self.by_tag.entry(tag.clone()).or_default().insert(key);
        }
        self.unproven += u64::from(record.is_unproven());
        self.move_unreachable(key, [None; 2], unreachable_since(&record));
        self.expiring.extend(expiration(&record));
        self.rows.insert(key, record);
    }

    pub(super) fn remove(&mut self, key: &EndpointKey) {
        let Some(record) = self.rows.remove(key) else {
            return;
        };
        self.discount(&record, counted_as(&record));
        self.unproven -= u64::from(record.is_unproven());
        self.by_id.remove(&record.id);
        if let Some(principal) = &record.principal {
            unindex(&mut self.by_principal, principal, key);
        }
        for tag in &record.tags {
            unindex(&mut self.by_tag, tag, key);
        }
        self.move_unreachable(*key, unreachable_since(&record), [None; 2]);
        if let Some(expiration) = expiration(&record) {
            self.expiring.remove(&expiration);
        }
    }

    fn upsert(
        &mut self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        max_rows: usize,
        now: Timestamp,
    ) -> Result<Upserted, StoreError> {
        let key = new.key();
        let replaces = new.replaced_key();
        let replaced = replaces.and_then(|key| self.rows.get(&key));
        let standing = self.rows.get(&key).cloned();
        let Some(merged) = merge(standing, replaced, new, now) else {
            return Ok(Upserted::Conflict);
        };
        let record = &merged.record;
        let is_other = |other: &EndpointKey| *other != key && Some(*other) != replaces;
        if self.by_id.get(&record.id).is_some_and(is_other) {
            // S1: ids are unique, and this one belongs to another row.
            return Err(StoreErrorKind::Misconfigured.into());
        }
        // Checked before the first change, so that a refusal changes nothing.
        let principal = record.principal.as_ref();
        let theirs = principal.and_then(|principal| self.by_principal.get(principal));
        let others = theirs.into_iter().flatten().filter(|other| is_other(other));
        let seen = |other: &EndpointKey| Some((self.rows.get(other)?.last_seen_at, *other));
        let mut leaving = evicted(others.filter_map(seen), limits);
        leaving.extend(replaces.filter(|key| self.rows.contains_key(key)));
        let others = self.rows.len() - leaving.len() - usize::from(!merged.created);
        let mut limits = *limits;
        limits.total = limits.total.min(max_rows as u64);
        merged.check(&limits, others as u64, self.unproven)?;
        for leaving in leaving {
            self.remove(&leaving);
        }
        self.remove(&key);
        self.insert(key, merged.record.clone());
        Ok(merged.into())
    }

    /// Returns the keys of an audience after `after`, in order.
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

    fn list(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> SubscriptionPage {
        let index = match (&filter.user, &filter.tag) {
            (Some(user), _) => Audience::User(user.clone()),
            (None, Some(tag)) => Audience::Tag(tag.clone()),
            (None, None) => Audience::All,
        };
        let mut listing = Listing::new(limit, after.copied());
        let rows = self.walk(&index, after);
        let mut rows = rows.filter_map(|key| Some((key, self.rows.get(&key)?)));
        while let Some((_, wanted)) = listing.wanted() {
            let some = rows.by_ref().take(wanted);
            listing.look(
                some.map(|(key, row)| (key, rules::lists(filter, row, now).then(|| row.clone()))),
                wanted,
            );
        }
        let (rows, next) = listing.finish("subscriptions");
        SubscriptionPage { rows, next }
    }

    /// Makes one change. Returns the number of changed rows.
    pub(super) fn apply(&mut self, change: &Change, now: Timestamp) -> u64 {
        if let Change::Purge {
            before,
            expired_before,
        } = change
        {
            return self.purge(*before, *expired_before, now);
        }
        let row = change.key().and_then(|key| self.rows.get_mut(key));
        let Some(row) = row else {
            return 0;
        };
        let key = row.subscription.endpoint().key();
        let (was_unproven, was_unreachable) = (row.is_unproven(), unreachable_since(row));
        let (was_counted_as, was_expiring) = (counted_as(row), expiration(row));
        let applied = rules::apply(change, row, now);
        // A change can prove a row, but not the reverse.
        self.unproven -= u64::from(was_unproven && !row.is_unproven());
        let since = unreachable_since(row);
        let moves = (counted_as(row) != was_counted_as).then(|| row.clone());
        self.move_unreachable(key, was_unreachable, since);
        if let Some(row) = moves {
            if let Some(was_expiring) = was_expiring {
                self.expiring.remove(&was_expiring);
                self.expiring.extend(expiration(&row));
            }
            self.discount(&row, was_counted_as);
            self.count(&row);
        }
        if applied == Applied::Deleted {
            self.remove(&key);
        }
        u64::from(applied != Applied::Unchanged)
    }

    /// Deletes or retires up to [`STEP`] rows that a purge names (S13).
    fn purge(&mut self, before: Timestamp, expired_before: Timestamp, now: Timestamp) -> u64 {
        let first = EndpointKey::from_bytes([0; 32]);
        let unreachable = self.unreachable.iter();
        let unreachable = unreachable.flat_map(|places| places.range(..(before, first)));
        let unreachable = unreachable.map(|(_, key)| *key);
        let long_expired = [false, true].into_iter().flat_map(|is_lost| {
            let since = (is_lost, Timestamp::MIN, first);
            self.expiring.range(since..(is_lost, expired_before, first))
        });
        let long_expired = long_expired.map(|(_, _, key)| *key);
        let expired = self.expired(now);
        let expired = expired.map(|row| row.subscription.endpoint().key());
        // A row may be in more than one.
        let mut keys = BTreeSet::new();
        for key in unreachable.chain(long_expired).chain(expired) {
            if keys.len() == STEP {
                break;
            }
            keys.insert(key);
        }
        for key in &keys {
            let row = self.rows.get(key);
            if row.is_some_and(|row| row.is_purged(before, expired_before, now)) {
                self.remove(key);
            } else {
                let retire = Change::Retire {
                    key: *key,
                    reason: RetireReason::Expired,
                    observed_at: Timestamp::MAX,
                    failure: Failure::default(),
                };
                // That it has expired is no failure (S19).
                let last_failure = self.rows.get(key).and_then(|row| row.last_failure);
                self.apply(&retire, now);
                if let Some(row) = self.rows.get_mut(key) {
                    row.last_failure = last_failure;
                }
            }
        }
        keys.len() as u64
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
        let mut page = Vec::new();
        let mut after = after.copied();
        // Others use the store between the parts: rows that are not live may be many.
        loop {
            let state = self.lock()?;
            let Subscriptions { rows, .. } = &state.subscriptions;
            let keys = state.subscriptions.walk(audience, after.as_ref());
            let mut seen = 0;
            for key in keys.take(STEP) {
                if page.len() >= limit {
                    return Ok(page);
                }
                let row = rows.get(&key).filter(|row| row.is_live(now));
                page.extend(row.cloned());
                after = Some(key);
                seen += 1;
            }
            if seen < STEP {
                return Ok(page);
            }
        }
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

    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<SubscriptionPage, StoreError> {
        let state = self.lock()?;
        Ok(state.subscriptions.list(filter, after, limit, now))
    }

    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError> {
        let state = self.lock()?;
        let subscriptions = &state.subscriptions;
        match filter {
            CountFilter {
                audience: Audience::All,
                ..
            } => Ok(subscriptions.groups(now).count(filter)),
            CountFilter {
                audience: Audience::Tag(tag),
                liveness: Liveness::Live,
                push_service: None,
                vapid_key: None,
            } => Ok(subscriptions.count_live_of_tag(tag, now)),
            _ => Ok(subscriptions
                .walk(&filter.audience, None)
                .filter_map(|key| subscriptions.rows.get(&key))
                .filter(|row| takes(filter, row, now))
                .count() as u64),
        }
    }

    async fn count_live(&self, keys: &[KeyId], now: Timestamp) -> Result<LiveCounts, StoreError> {
        let state = self.lock()?;
        Ok(state.subscriptions.groups(now).count_live(keys))
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
