//! Paging and counting subscriptions in Redis.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use redis::Value;

use super::reply::{Reply, array, bytes, bytes_or_nil, number};
use super::rows::{principal_text, unpack_row};
use super::script::{Args, NUMBERS, ROWS, TAGGED, WALK};
use super::{RedisStore, StoreError};
use crate::broadcast::{Audience, Principal};
use crate::clock::Timestamp;
use crate::push_service::PushService;
use crate::store::readable::ReadablePage;
use crate::store::reason::corrupt;
use crate::store::rules::{is_member, takes};
use crate::store::{CountFilter, LiveCounts, Liveness, SubscriptionRecord, SubscriptionRef};
use crate::subscription::{EndpointKey, SubscriptionId};
use crate::vapid::KeyId;

/// Rows that one script reads.
const READ_AT_ONCE: usize = 500;

/// The number of rows of one state, push service and VAPID key.
struct Group {
    state: u8,
    push_service: String,
    vapid_key: KeyId,
    rows: u64,
    /// Rows that have not expired.
    unexpired: u64,
}

impl Group {
    fn read(entry: Value) -> Result<Self, StoreError> {
        let damaged = || corrupt("the name of a number");
        let mut entry = Reply::of(entry)?;
        let name = entry.bytes()?;
        let (rows, expired) = (entry.number()?, entry.number()?);
        let (state, group) = name.split_first().ok_or_else(damaged)?;
        let (group, vapid_key) = group.split_last_chunk().ok_or_else(damaged)?;
        let push_service = group.strip_suffix(b"|").ok_or_else(damaged)?;
        let push_service = std::str::from_utf8(push_service).map_err(|_| damaged())?;
        Ok(Self {
            state: *state,
            push_service: push_service.to_owned(),
            vapid_key: KeyId::from_bytes(*vapid_key),
            rows,
            unexpired: rows.saturating_sub(expired),
        })
    }
}

impl RedisStore {
    /// Reads rows by key or id.
    pub(super) async fn rows(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        let rows = self.each_row(which).await?;
        rows.into_iter().map(Option::transpose).collect()
    }

    /// Reads rows by key or id, of which some may be damaged.
    async fn each_row(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<Result<SubscriptionRecord, StoreError>>>, StoreError> {
        let unpack = |raw: Option<Vec<u8>>| raw.map(|raw| unpack_row(&raw));
        let rows = self.raw_rows(which).await?;
        Ok(rows.into_iter().map(unpack).collect())
    }

    /// Reads packed rows by key or id.
    pub(super) async fn raw_rows(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let mut found = Vec::with_capacity(which.len());
        for which in which.chunks(READ_AT_ONCE) {
            let mut args = Args::default();
            for which in which {
                args = match which {
                    SubscriptionRef::Id(id) => args.with("id").with(*id.as_bytes()),
                    SubscriptionRef::Key(key) => args.with("key").with(*key.as_bytes()),
                };
            }
            for raw in Reply::of(self.run(&ROWS, &args).await?)? {
                found.push(bytes_or_nil(raw)?);
            }
        }
        Ok(found)
    }

    pub(super) async fn live_page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let keys = match audience {
            Audience::All => {
                let page = self.walk("all", after, limit, |row| row.is_live(now));
                return Ok(page.await?.finish("subscriptions"));
            }
            Audience::Tag(tag) => {
                let set = format!("t:{}", tag.as_str());
                let page = self.walk(&set, after, limit, |row| row.is_live(now));
                return Ok(page.await?.finish("subscriptions"));
            }
            // In one script: each row is a member while it is read.
            Audience::User(principal) => {
                let rows = self.rows_of_principal(principal).await?;
                return page_among(rows, after, limit, |row| row.is_live(now));
            }
            Audience::Ids(ids) if ids.len() <= READ_AT_ONCE => {
                let ids: Vec<_> = ids.iter().copied().map(SubscriptionRef::Id).collect();
                let rows = self.each_row(&ids).await?.into_iter().flatten();
                return page_among(rows, after, limit, |row| row.is_live(now));
            }
            Audience::Ids(ids) => self.keys_of_ids(ids).await?,
        };
        let keys: Vec<_> = keys
            .into_iter()
            .filter(|key| after.is_none_or(|after| key > after))
            .collect();
        let live = self.live_members(audience, &keys, limit, now);
        live.await
    }

    /// Returns up to `limit` live rows of these keys, which were members of an audience when the keys were read.
    async fn live_members(
        &self,
        audience: &Audience,
        keys: &[EndpointKey],
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        // Both the owner and the id of a row may have changed since (S3, S5).
        let ids: HashSet<_> = match audience {
            Audience::Ids(ids) => ids.iter().collect(),
            _ => HashSet::new(),
        };
        let is_of = |row: &SubscriptionRecord| match audience {
            // A broadcast may have many ids.
            Audience::Ids(_) => ids.contains(&row.id),
            audience => is_member(audience, row),
        };
        self.page_of(keys, limit, |row| row.is_live(now) && is_of(row))
            .await
    }

    /// Returns the first wanted rows with these keys.
    async fn page_of(
        &self,
        keys: &[EndpointKey],
        limit: usize,
        is_wanted: impl Fn(&SubscriptionRecord) -> bool,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let mut page = ReadablePage::new(limit);
        for keys in keys.chunks(READ_AT_ONCE.min(limit.max(1))) {
            let keys: Vec<_> = keys.iter().copied().map(SubscriptionRef::Key).collect();
            for row in self.each_row(&keys).await?.into_iter().flatten() {
                if page.missing() > 0 && row.as_ref().map_or(true, &is_wanted) {
                    page.push(row)?;
                }
            }
            if page.missing() == 0 {
                break;
            }
        }
        Ok(page.finish("subscriptions"))
    }

    pub(super) async fn owned_page(
        &self,
        principal: &Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let rows = self.rows_of_principal(principal).await?;
        page_among(rows, after, limit, |_| true)
    }

    /// Returns the next wanted rows of a set, by key. An index entry without a row counts as damaged.
    async fn walk(
        &self,
        set: &str,
        after: Option<&EndpointKey>,
        limit: usize,
        is_wanted: impl Fn(&SubscriptionRecord) -> bool,
    ) -> Result<ReadablePage<SubscriptionRecord>, StoreError> {
        let mut page = ReadablePage::new(limit);
        let mut after = after.map(|key| key.as_bytes().to_vec());
        let mut wanted = READ_AT_ONCE.min(limit);
        while page.missing() > 0 {
            let from = after.clone().unwrap_or_default();
            let args = Args::default().with(set).with(from).number(wanted);
            let mut answer = Reply::of(self.run(&WALK, &args).await?)?;
            let (keys, rows) = (answer.list()?, answer.list()?);
            let mut seen = 0;
            for (key, raw) in keys.zip(rows) {
                if page.missing() == 0 {
                    break;
                }
                seen += 1;
                after = Some(bytes(key)?);
                let raw = bytes_or_nil(raw)?.ok_or_else(|| corrupt("an index of rows"));
                let row = raw.and_then(|raw| unpack_row(&raw));
                if row.as_ref().map_or(true, &is_wanted) {
                    page.push(row)?;
                }
            }
            if seen < wanted {
                break;
            }
            // Rows that are not wanted may be many.
            wanted = READ_AT_ONCE;
        }
        Ok(page)
    }

    /// Returns a principal's rows, of which some may be damaged. Their number is bounded by the limit per principal.
    async fn rows_of_principal(
        &self,
        principal: &Principal,
    ) -> Result<Vec<Result<SubscriptionRecord, StoreError>>, StoreError> {
        let set = format!("u:{}", principal_text(Some(principal)));
        let mut rows = Vec::new();
        for raw in Reply::of(self.owned_shared(set).await?)? {
            rows.extend(bytes_or_nil(raw)?.map(|raw| unpack_row(&raw)));
        }
        Ok(rows)
    }

    /// Returns the keys of a principal's rows, sorted. Their number is bounded by the limit per principal.
    async fn keys_of_principal(
        &self,
        principal: &Principal,
    ) -> Result<BTreeSet<EndpointKey>, StoreError> {
        let set = format!("u:{}", principal_text(Some(principal)));
        let keys = Reply::of(self.read("ZRANGE", &set, &["0", "-1"]).await?)?;
        keys.map(|key| array(&bytes(key)?).map(EndpointKey::from_bytes))
            .collect()
    }

    /// Returns the keys of the rows with these ids, deduplicated and sorted.
    async fn keys_of_ids(
        &self,
        ids: &[SubscriptionId],
    ) -> Result<BTreeSet<EndpointKey>, StoreError> {
        let mut keys = BTreeSet::new();
        for ids in ids.chunks(READ_AT_ONCE) {
            let which: Vec<_> = ids.iter().copied().map(SubscriptionRef::Id).collect();
            let mut page = ReadablePage::new(which.len());
            for row in self.each_row(&which).await?.into_iter().flatten() {
                page.push(row)?;
            }
            let rows = page.finish("subscriptions").into_iter();
            keys.extend(rows.map(|row| row.subscription.endpoint().key()));
        }
        Ok(keys)
    }

    pub(super) async fn count_rows(
        &self,
        filter: &CountFilter,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        match &filter.audience {
            Audience::All => self.count_all(filter, now).await,
            Audience::Tag(tag) => {
                let live = CountFilter::new(filter.audience.clone(), Liveness::Live);
                if *filter == live {
                    let args = Args::at(now).with(tag.as_str());
                    return number(self.run(&TAGGED, &args).await?);
                }
                let takes = |row: &SubscriptionRecord| takes(filter, row, now);
                let mut count = 0;
                for kind in ["t", "tx"] {
                    let set = format!("{kind}:{}", tag.as_str());
                    count += self.count_walking(&set, takes).await?;
                }
                Ok(count)
            }
            Audience::User(principal) => {
                let keys = self.keys_of_principal(principal).await?;
                self.count_keys(keys, filter, now).await
            }
            Audience::Ids(ids) => self.count_ids(ids, filter, now).await,
        }
    }

    /// Counts rows of any number of ids, each looked up once.
    async fn count_ids(
        &self,
        ids: &[SubscriptionId],
        filter: &CountFilter,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let ids: BTreeSet<_> = ids.iter().copied().collect();
        let ids: Vec<_> = ids.into_iter().map(SubscriptionRef::Id).collect();
        // A row found by its id belongs to the audience: checking that again would search the list for each row.
        let mut of_any = CountFilter::new(Audience::All, filter.liveness);
        of_any.push_service = filter.push_service;
        of_any.vapid_key = filter.vapid_key;
        self.count_named(&ids, &of_any, now).await
    }

    /// Counts from the stored counts by push service, VAPID key and state.
    async fn count_all(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError> {
        let mut count = 0;
        for group in self.groups(now).await? {
            let is_of = |wanted: PushService| wanted.as_str() == group.push_service;
            let is_wanted = filter.push_service.is_none_or(is_of)
                && filter.vapid_key.is_none_or(|key| key == group.vapid_key);
            if is_wanted {
                count += match (filter.liveness, group.state) {
                    (Liveness::Live, b'L') => group.unexpired,
                    (Liveness::Any, _) | (Liveness::Stale, b'S') | (Liveness::Retired, b'R') => {
                        group.rows
                    }
                    (Liveness::Live | Liveness::Stale | Liveness::Retired, _) => 0,
                };
            }
        }
        Ok(count)
    }

    pub(super) async fn count_live_rows(
        &self,
        keys: &[KeyId],
        now: Timestamp,
    ) -> Result<LiveCounts, StoreError> {
        let mut counts = LiveCounts::none(keys);
        for group in self.groups(now).await? {
            if group.state == b'L' {
                counts.add(&group.push_service, &group.vapid_key, group.unexpired);
            }
        }
        Ok(counts)
    }

    async fn groups(&self, now: Timestamp) -> Result<Vec<Group>, StoreError> {
        Reply::of(self.run(&NUMBERS, &Args::at(now)).await?)?
            .map(Group::read)
            .collect()
    }

    async fn count_walking(
        &self,
        set: &str,
        takes: impl Fn(&SubscriptionRecord) -> bool,
    ) -> Result<u64, StoreError> {
        let mut count = 0;
        let mut after = None;
        loop {
            let page = self.walk(set, after.as_ref(), READ_AT_ONCE, |_| true);
            let page = page.await?.finish("subscriptions");
            count += page.iter().filter(|row| takes(row)).count() as u64;
            match page.last() {
                Some(last) if page.len() == READ_AT_ONCE => {
                    after = Some(last.subscription.endpoint().key());
                }
                _ => return Ok(count),
            }
        }
    }

    async fn count_keys(
        &self,
        keys: BTreeSet<EndpointKey>,
        filter: &CountFilter,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let keys: Vec<_> = keys.into_iter().map(SubscriptionRef::Key).collect();
        self.count_named(&keys, filter, now).await
    }

    async fn count_named(
        &self,
        which: &[SubscriptionRef],
        filter: &CountFilter,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut count = 0;
        for which in which.chunks(READ_AT_ONCE) {
            let rows = self.rows(which).await?;
            let taken = rows.iter().flatten().filter(|row| takes(filter, row, now));
            count += taken.count() as u64;
        }
        Ok(count)
    }
}

/// Returns the first wanted ones of rows, by key, each once.
fn page_among(
    rows: impl IntoIterator<Item = Result<SubscriptionRecord, StoreError>>,
    after: Option<&EndpointKey>,
    limit: usize,
    is_wanted: impl Fn(&SubscriptionRecord) -> bool,
) -> Result<Vec<SubscriptionRecord>, StoreError> {
    let mut page = ReadablePage::new(limit);
    for row in rows {
        page.push(row)?;
    }
    let rows = page.finish("subscriptions").into_iter();
    let rows = rows.map(|row| (row.subscription.endpoint().key(), row));
    let rows: BTreeMap<_, _> = rows
        .filter(|(key, row)| after.is_none_or(|after| key > after) && is_wanted(row))
        .collect();
    Ok(rows.into_values().take(limit).collect())
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use super::*;
    use crate::store::{NewSubscription, SubscriptionLimits, SubscriptionStore as _, servers};
    use crate::testing::TestPushService;

    /// Between the two reads of a page its id moves to another endpoint, and the first one is subscribed anew.
    #[tokio::test]
    async fn a_row_whose_id_has_moved_is_not_a_member() {
        let Some(url) = servers::shared(servers::Kind::Redis) else {
            return;
        };
        let prefix = SubscriptionId::random().to_string();
        let store = RedisStore::builder().prefix(prefix).connect(&url).await;
        let store = store.unwrap();
        let vapid_key = KeyId::from_bytes([1; KeyId::LEN]);
        let service = TestPushService::new();
        let key = crate::vapid::VapidKey::generate().unwrap();
        let fresh = || service.user_agent().subscribe(key.public_key()).unwrap();
        let put = async |new: &NewSubscription| {
            let (limits, now) = (SubscriptionLimits::default(), Timestamp::from_secs(1));
            store.upsert(new, &limits, now).await.unwrap();
        };
        let first = NewSubscription::new(fresh(), vapid_key);
        put(&first).await;
        let mut second = NewSubscription::new(fresh(), vapid_key);
        second.replaces = Some(first.key());
        put(&second).await;
        let again = NewSubscription::new(first.subscription.clone(), vapid_key);
        put(&again).await;
        let members = async |id| {
            let (ids, now) = (Audience::Ids(vec![id]), Timestamp::from_secs(2));
            let keys = [first.key()];
            let live = store.live_members(&ids, &keys, 9, now).await.unwrap();
            live.len()
        };
        assert_eq!((members(first.id).await, members(again.id).await), (0, 1));
    }
}
