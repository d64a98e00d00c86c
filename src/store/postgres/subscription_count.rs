//! Counting subscriptions in PostgreSQL: by the numbers that writers keep, or, for few rows, by an index.

use super::connection::{Database, Tx};
use super::error::Failed;
use super::rows::{Columns, Values, first, integer};
use super::subscription_rows::principal_bytes;
use crate::broadcast::Audience;
use crate::clock::Timestamp;
use crate::store::groups::{Groups, kept_number};
use crate::store::{CountFilter, LiveCounts, Liveness, STEP, StoreError};
use crate::vapid::KeyId;

const TOTALS: &str = "SELECT coalesce(sum(number), 0)::bigint, coalesce(sum(unproven), 0)::bigint \
     FROM web_push.subscription_count";
/// The numbers by state and group, and those of live rows that have expired and are not purged yet: of at most $2 rows.
pub(super) const GROUPS: &str = "SELECT kind, name, sum(number)::bigint FROM web_push.subscription_number \
         WHERE kind = ANY('{live,stale,retired}') GROUP BY kind, name \
     UNION ALL SELECT 'expired', push_service || ':' || encode(vapid_key, 'hex'), count(*) \
         FROM (SELECT push_service, vapid_key FROM web_push.subscription \
             WHERE expires_at <= $1 AND retired_at IS NULL AND stale_since IS NULL ORDER BY expires_at LIMIT $2) AS expired \
         GROUP BY push_service, vapid_key";
pub(super) const LIVE_OF_TAG: &str = "SELECT coalesce((SELECT sum(number) FROM web_push.subscription_number \
         WHERE kind = 'tag' AND name = $2), 0)::bigint - \
     (SELECT count(*) FROM (SELECT tags FROM web_push.subscription \
             WHERE expires_at <= $1 AND retired_at IS NULL AND stale_since IS NULL ORDER BY expires_at LIMIT $3) AS expired \
         WHERE $2 = ANY(tags))";
macro_rules! in_state {
    () => {
        " AND CASE $2::text WHEN 'live' THEN s.retired_at IS NULL AND s.stale_since IS NULL \
             AND (s.expires_at IS NULL OR s.expires_at > $1) \
         WHEN 'stale' THEN s.retired_at IS NULL AND s.stale_since IS NOT NULL \
         WHEN 'retired' THEN s.retired_at IS NOT NULL ELSE true END \
         AND ($3::text IS NULL OR s.push_service = $3) AND ($4::bytea IS NULL OR s.vapid_key = $4)"
    };
}
/// Rows of a principal, a tag or given ids: few, or found by an index.
pub(super) const OF_USER: &str = concat!(
    "SELECT count(*) FROM web_push.subscription AS s WHERE s.principal = $5",
    in_state!()
);
pub(super) const OF_TAG: &str = concat!(
    "SELECT count(*) FROM web_push.subscription_tag AS g JOIN web_push.subscription AS s ON s.key = g.key \
     WHERE g.tag = $5",
    in_state!()
);
pub(super) const OF_IDS: &str = concat!(
    "SELECT count(*) FROM web_push.subscription AS s WHERE s.id = ANY($5)",
    in_state!()
);

/// Reads all rows if there is none.
const IS_USED: &str =
    "SELECT EXISTS (SELECT 1 FROM web_push.subscription WHERE vapid_key = $1::bytea)";

/// The numbers of all rows, for their limits.
#[derive(Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) rows: i64,
    /// Unproven rows (S16).
    pub(super) unproven: i64,
}

impl Totals {
    pub(super) fn read(columns: &mut Columns<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            rows: columns.get()?,
            unproven: columns.get()?,
        })
    }
}

pub(super) async fn totals(tx: &mut Tx<'_>) -> Result<Totals, Failed> {
    let totals = first(&tx.query(TOTALS, &[]).await?, Totals::read)?;
    Ok(totals.unwrap_or_default())
}

pub(super) async fn count(
    database: &Database,
    filter: &CountFilter,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let now = now.as_millis();
    let service = filter.push_service.map(|service| service.as_str());
    let key = filter
        .vapid_key
        .as_ref()
        .map(|key| key.as_bytes().as_slice());
    let state = match filter.liveness {
        Liveness::Any => "any",
        Liveness::Live => "live",
        Liveness::Stale => "stale",
        Liveness::Retired => "retired",
    };
    match &filter.audience {
        Audience::User(principal) => {
            let which = principal_bytes(principal);
            one(database, OF_USER, &[&now, &state, &service, &key, &which]).await
        }
        Audience::Tag(tag) if state == "live" && service.is_none() && key.is_none() => {
            let values: Values<'_> = &[&now, &tag.as_str(), &integer(STEP)];
            one(database, LIVE_OF_TAG, values).await
        }
        Audience::Tag(tag) => {
            let which = tag.as_str();
            one(database, OF_TAG, &[&now, &state, &service, &key, &which]).await
        }
        Audience::Ids(ids) => {
            let which: Vec<_> = ids.iter().map(|id| id.as_bytes().as_slice()).collect();
            one(database, OF_IDS, &[&now, &state, &service, &key, &which]).await
        }
        Audience::All => {
            let rows = groups(database, now).await?.count(filter);
            match Groups::doubtful(filter, rows) {
                Some(key) if is_used(database, key).await? => Ok(Groups::contradicted(key)),
                _ => Ok(rows),
            }
        }
    }
}

pub(super) async fn count_live(
    database: &Database,
    keys: &[KeyId],
    now: Timestamp,
) -> Result<LiveCounts, StoreError> {
    let groups = groups(database, now.as_millis()).await?;
    Ok(groups.count_live(keys))
}

async fn groups(database: &Database, now: i64) -> Result<Groups, StoreError> {
    let mut groups = Groups::default();
    for row in &database.query(GROUPS, &[&now, &integer(STEP)]).await? {
        let mut columns = Columns::of(row);
        let (kind, name): (&str, &str) = (columns.get()?, columns.get()?);
        let number: i64 = columns.get()?;
        groups.add_named(kind, name, kept_number(number));
    }
    Ok(groups)
}

async fn is_used(database: &Database, vapid_key: &KeyId) -> Result<bool, StoreError> {
    let key = vapid_key.as_bytes().as_slice();
    let used = first(&database.query(IS_USED, &[&key]).await?, |columns| {
        columns.get()
    })?;
    Ok(used.unwrap_or(false))
}

async fn one(
    database: &Database,
    sql: &'static str,
    values: Values<'_>,
) -> Result<u64, StoreError> {
    let counted = first(&database.query(sql, values).await?, |columns| {
        columns.get::<i64>()
    })?;
    Ok(kept_number(counted.unwrap_or(0)))
}
