//! Whole rows in PostgreSQL.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use async_trait::async_trait;

use super::PostgresStore;
use super::attempts::in_transaction;
use super::connection::Tx;
use super::error::{Failed, overtaken};
use super::rows::{Columns, integer, read};
use super::subscription_numbers::{Counted, Numbers};
use super::subscription_rows::{delete, principal_bytes, record, record_columns};
use super::subscriptions::LOCK;
use crate::broadcast::Tag;
use crate::clock::Timestamp;
use crate::push_service::PushService;
use crate::store::readable::{ReadablePage, readable_or_none};
use crate::store::rules::is_newer;
use crate::store::{PortableStore, ReasonWord, StoreError, SubscriptionRecord, Unreachable};
use crate::subscription::{EndpointKey, SubscriptionId};

pub(super) const RETIRED: &str = concat!(
    "SELECT s.retired_at, s.key, ",
    record_columns!(),
    " FROM web_push.subscription AS s WHERE s.retired_at >= $1 AND (s.retired_at, s.key) > ($1, $2) \
     ORDER BY s.retired_at, s.key LIMIT $3"
);
pub(super) const STALE: &str = concat!(
    "SELECT s.stale_since, s.key, ",
    record_columns!(),
    " FROM web_push.subscription AS s WHERE s.stale_since >= $1 AND (s.stale_since, s.key) > ($1, $2) \
     ORDER BY s.stale_since, s.key LIMIT $3"
);
pub(super) const KEYS_OF_IDS: &str =
    "SELECT s.key, s.id FROM web_push.subscription AS s WHERE s.id = ANY($1)";
/// The tags of a row are one text here, since arrays of arrays have rows of one length.
pub(super) const INSERT: &str = "INSERT INTO web_push.subscription (key, id, endpoint, p256dh, auth, expires_at, principal, \
     tags, vapid_key, push_service, created_at, keys_changed_at, last_seen_at, last_success_at, failure_streak, \
     failing_since, stale_since, retired_at, retire_reason, failed_at, failure_status, failure_reason) \
     SELECT key, id, endpoint, p256dh, auth, expires_at, principal, string_to_array(tags, ' '), vapid_key, push_service, \
     created_at, keys_changed_at, last_seen_at, last_success_at, failure_streak, failing_since, stale_since, retired_at, \
     retire_reason, failed_at, failure_status, failure_reason \
     FROM unnest($1::bytea[], $2::bytea[], $3::text[], $4::bytea[], $5::bytea[], $6::bigint[], $7::bytea[], $8::text[], \
         $9::bytea[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], \
         $16::bigint[], $17::bigint[], $18::bigint[], $19::text[], $20::bigint[], $21::integer[], $22::text[]) \
         AS fresh (key, id, endpoint, p256dh, auth, expires_at, principal, tags, vapid_key, push_service, created_at, \
         keys_changed_at, last_seen_at, last_success_at, failure_streak, failing_since, stale_since, retired_at, \
         retire_reason, failed_at, failure_status, failure_reason) \
     ORDER BY key ON CONFLICT DO NOTHING";
pub(super) const INSERT_TAGS: &str = "INSERT INTO web_push.subscription_tag (tag, key) \
     SELECT tag, key FROM unnest($1::text[], $2::bytea[]) AS fresh (tag, key) ORDER BY tag, key ON CONFLICT DO NOTHING";

/// Writes the rows that no stored row holds against (C2).
async fn put(tx: &mut Tx<'_>, rows: &[SubscriptionRecord]) -> Result<Vec<bool>, Failed> {
    let own_keys: Vec<_> = rows
        .iter()
        .map(|row| row.subscription.endpoint().key())
        .collect();
    let ids: Vec<_> = rows
        .iter()
        .map(|row| row.id.as_bytes().as_slice())
        .collect();
    let named = tx.query(KEYS_OF_IDS, &[&ids]).await?;
    let named: HashMap<_, _> = read(&named, |columns| {
        let key = EndpointKey::from_bytes(columns.bytes()?);
        Ok((key, SubscriptionId::from_bytes(columns.bytes()?)))
    })?
    .into_iter()
    .collect();
    let mut keys: BTreeSet<_> = own_keys.iter().copied().collect();
    keys.extend(named.keys());
    let keys: Vec<_> = keys.iter().map(|key| key.as_bytes().as_slice()).collect();
    // `None`: it cannot be read, and so is replaced.
    let stored = read(&tx.query(LOCK, &[&keys]).await?, |columns| {
        Ok((Counted::read(columns)?, readable_or_none(record(columns))?))
    })?;
    let mut by_key = HashMap::new();
    let mut by_id = HashMap::new();
    for (place, ((key, _), row)) in stored.iter().enumerate() {
        by_key.insert(*key, place);
        // One that cannot be read holds its id all the same.
        let id = row.as_ref().map(|row| row.id);
        if let Some(id) = id.or_else(|| named.get(key).copied()) {
            by_id.insert(id, place);
        }
    }
    let mut wanted = BTreeMap::new();
    let mut replaced = HashSet::new();
    let mut written = Vec::with_capacity(rows.len());
    for (key, row) in own_keys.iter().zip(rows) {
        let places: Vec<_> = [by_key.get(key), by_id.get(&row.id)]
            .into_iter()
            .flatten()
            .copied()
            .collect();
        let is_older = |place: &usize| {
            let stored = stored.get(*place).and_then(|(_, row)| row.as_ref());
            stored.is_none_or(|stored| is_newer(row, stored))
        };
        let holds = places.iter().all(is_older);
        written.push(holds);
        if holds {
            replaced.extend(places);
            wanted.insert(*key, row);
        }
    }
    let mut numbers = Numbers::default();
    let mut leaving = Vec::new();
    for ((key, counted), _) in replaced.iter().filter_map(|place| stored.get(*place)) {
        numbers.minus(counted);
        leaving.push(key.as_bytes().as_slice());
    }
    delete(tx, &leaving).await?;
    if insert(tx, &wanted).await? < wanted.len() as u64 {
        // A concurrent transaction has inserted one: the next attempt reads it.
        return Err(overtaken());
    }
    for (_, row) in Counted::find(tx, wanted.keys()).await? {
        numbers.plus(&row);
    }
    numbers.write(tx).await?;
    Ok(written)
}

/// Inserts rows with their tags. Returns their number.
async fn insert(
    tx: &mut Tx<'_>,
    rows: &BTreeMap<EndpointKey, &SubscriptionRecord>,
) -> Result<u64, Failed> {
    if rows.is_empty() {
        return Ok(0);
    }
    let millis = |at: Timestamp| at.as_millis();
    let bytes = |of: fn(&SubscriptionRecord) -> &[u8]| -> Vec<_> {
        rows.values().map(|row| of(row)).collect()
    };
    let time = |of: fn(&SubscriptionRecord) -> Timestamp| -> Vec<_> {
        rows.values().map(|row| millis(of(row))).collect()
    };
    let time_or_null = |of: fn(&SubscriptionRecord) -> Option<Timestamp>| -> Vec<_> {
        rows.values().map(|row| of(row).map(millis)).collect()
    };
    let keys: Vec<_> = rows.keys().map(|key| key.as_bytes().as_slice()).collect();
    let endpoints: Vec<_> = rows
        .values()
        .map(|row| row.subscription.endpoint().as_str())
        .collect();
    let principals: Vec<_> = rows
        .values()
        .map(|row| row.principal.as_ref().map(principal_bytes))
        .collect();
    let tags: Vec<_> = rows
        .values()
        .map(|row| {
            let tags: Vec<_> = row.tags.iter().map(Tag::as_str).collect();
            // Tags contain no spaces.
            tags.join(" ")
        })
        .collect();
    let services: Vec<_> = rows
        .values()
        .map(|row| PushService::of(row.subscription.endpoint()).as_str())
        .collect();
    let streaks: Vec<_> = rows
        .values()
        .map(|row| integer(row.failure_streak))
        .collect();
    let reasons: Vec<_> = rows
        .values()
        .map(|row| row.retired.map(|retired| retired.reason.as_str()))
        .collect();
    let failures: Vec<_> = rows
        .values()
        .map(|row| row.last_failure.map(|last| last.failure))
        .collect();
    let statuses: Vec<_> = failures
        .iter()
        .map(|failure| failure.and_then(|failure| failure.status).map(i32::from))
        .collect();
    let words: Vec<_> = failures
        .iter()
        .map(|failure| failure.as_ref().and_then(|failure| failure.reason.as_ref()))
        .map(|word| word.map(ReasonWord::as_str))
        .collect();
    let inserted = tx
        .execute(
            INSERT,
            &[
                &keys,
                &bytes(|row| row.id.as_bytes()),
                &endpoints,
                &bytes(|row| row.subscription.ua_public().as_bytes()),
                &bytes(|row| row.subscription.auth().secret_bytes()),
                &time_or_null(|row| row.subscription.expiration_time()),
                &principals,
                &tags,
                &bytes(|row| row.vapid_key.as_bytes()),
                &services,
                &time(|row| row.created_at),
                &time(|row| row.keys_changed_at),
                &time(|row| row.last_seen_at),
                &time_or_null(|row| row.last_success_at),
                &streaks,
                &time_or_null(|row| row.failing_since),
                &time_or_null(|row| row.stale_since),
                &time_or_null(|row| row.retired.map(|retired| retired.at)),
                &reasons,
                &time_or_null(|row| row.last_failure.map(|last| last.at)),
                &statuses,
                &words,
            ],
        )
        .await?;
    let (mut tags, mut tagged) = (Vec::new(), Vec::new());
    for (key, row) in rows {
        for tag in &row.tags {
            tags.push(tag.as_str());
            tagged.push(key.as_bytes().as_slice());
        }
    }
    if !tags.is_empty() {
        tx.execute(INSERT_TAGS, &[&tags, &tagged]).await?;
    }
    Ok(inserted)
}

#[async_trait]
impl PortableStore for PostgresStore {
    async fn unreachable(
        &self,
        state: Unreachable,
        after: Option<(Timestamp, EndpointKey)>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let sql = match state {
            Unreachable::Retired => RETIRED,
            Unreachable::Stale => STALE,
        };
        // The empty key sorts before all others.
        let (mut since, mut key) = after.map_or((i64::MIN, Vec::new()), |(since, key)| {
            (since.as_millis(), key.as_bytes().to_vec())
        });
        let mut page = ReadablePage::new(limit);
        while page.missing() > 0 {
            let wanted = page.missing();
            let rows = self
                .database()
                .query(sql, &[&since, &key, &integer(wanted)])
                .await?;
            for row in &rows {
                let mut columns = Columns::of(row);
                (since, key) = (columns.get()?, columns.get()?);
                page.push(record(&mut columns))?;
            }
            if rows.len() < wanted {
                break;
            }
        }
        Ok(page.finish("subscriptions"))
    }

    async fn put(&self, rows: &[SubscriptionRecord]) -> Result<Vec<bool>, StoreError> {
        in_transaction!(self.database(), |tx| put(tx, rows))
    }
}
