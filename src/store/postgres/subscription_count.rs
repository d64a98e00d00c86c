//! Counting subscriptions in PostgreSQL.

use super::connection::{Database, Tx};
use super::error::Failed;
use super::rows::{Columns, Values, first};
use super::subscription_rows::principal_bytes;
use crate::broadcast::Audience;
use crate::clock::Timestamp;
use crate::store::{CountFilter, LiveCounts, Liveness, StoreError};
use crate::vapid::KeyId;

pub(super) const TOTAL: &str =
    "SELECT coalesce(sum(number), 0)::bigint FROM web_push.subscription_count";
const TOTALS: &str = "SELECT coalesce(sum(number), 0)::bigint, coalesce(sum(unproven), 0)::bigint \
     FROM web_push.subscription_count";
/// Changes one of sixteen parts, chosen by server process, so that concurrent writers rarely share one.
pub(super) const ADD: &str = "UPDATE web_push.subscription_count SET number = number + $1, unproven = unproven + $2 \
     WHERE part = pg_backend_pid() % 16";
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
/// All rows in a state, from that state's index alone. A null service or key matches any.
pub(super) const LIVE: &str = "SELECT count(*) FROM web_push.subscription WHERE retired_at IS NULL AND stale_since IS NULL \
     AND (expires_at IS NULL OR expires_at > $1) \
     AND ($2::text IS NULL OR push_service = $2) AND ($3::bytea IS NULL OR vapid_key = $3)";
pub(super) const LIVE_IN_GROUPS: &str = "SELECT push_service, vapid_key, count(*) FROM web_push.subscription \
     WHERE retired_at IS NULL AND stale_since IS NULL AND (expires_at IS NULL OR expires_at > $1) \
     GROUP BY push_service, vapid_key";
pub(super) const STALE: &str = "SELECT count(*) FROM web_push.subscription WHERE retired_at IS NULL AND stale_since IS NOT NULL \
     AND ($1::text IS NULL OR push_service = $1) AND ($2::bytea IS NULL OR vapid_key = $2)";
pub(super) const RETIRED: &str = "SELECT count(*) FROM web_push.subscription WHERE retired_at IS NOT NULL \
     AND ($1::text IS NULL OR push_service = $1) AND ($2::bytea IS NULL OR vapid_key = $2)";

/// The numbers of rows as counted by writers, or changes to them.
#[derive(Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) rows: i64,
    /// Unproven rows (S16).
    pub(super) unproven: i64,
}

pub(super) async fn totals(tx: &mut Tx<'_>) -> Result<Totals, Failed> {
    let totals = first(&tx.query(TOTALS, &[]).await?, |columns| {
        Ok(Totals {
            rows: columns.get()?,
            unproven: columns.get()?,
        })
    })?;
    Ok(totals.unwrap_or_default())
}

/// Changes the totals. Called last in a transaction, so that the lock is held shortly.
pub(super) async fn add(tx: &mut Tx<'_>, change: Totals) -> Result<(), Failed> {
    let Totals { rows, unproven } = change;
    if rows != 0 || unproven != 0 {
        tx.execute(ADD, &[&rows, &unproven]).await?;
    }
    Ok(())
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
        Audience::Tag(tag) => {
            let which = tag.as_str();
            one(database, OF_TAG, &[&now, &state, &service, &key, &which]).await
        }
        Audience::Ids(ids) => {
            let which: Vec<_> = ids.iter().map(|id| id.as_bytes().as_slice()).collect();
            one(database, OF_IDS, &[&now, &state, &service, &key, &which]).await
        }
        Audience::All => match filter.liveness {
            Liveness::Live => one(database, LIVE, &[&now, &service, &key]).await,
            Liveness::Stale => one(database, STALE, &[&service, &key]).await,
            Liveness::Retired => one(database, RETIRED, &[&service, &key]).await,
            Liveness::Any if service.is_none() && key.is_none() => one(database, TOTAL, &[]).await,
            Liveness::Any => {
                let expired = Timestamp::MIN.as_millis();
                let live = one(database, LIVE, &[&expired, &service, &key]).await?;
                let stale = one(database, STALE, &[&service, &key]).await?;
                let retired = one(database, RETIRED, &[&service, &key]).await?;
                Ok(live + stale + retired)
            }
        },
    }
}

pub(super) async fn count_live(
    database: &Database,
    keys: &[KeyId],
    now: Timestamp,
) -> Result<LiveCounts, StoreError> {
    let mut counts = LiveCounts::none(keys);
    let rows = database.query(LIVE_IN_GROUPS, &[&now.as_millis()]).await?;
    for row in &rows {
        let mut columns = Columns::of(row);
        let service: &str = columns.get()?;
        let key = KeyId::from_bytes(columns.bytes()?);
        counts.add(service, &key, columns.count()?);
    }
    Ok(counts)
}

async fn one(
    database: &Database,
    sql: &'static str,
    values: Values<'_>,
) -> Result<u64, StoreError> {
    let counted = first(&database.query(sql, values).await?, |columns| {
        columns.get::<i64>()
    })?;
    Ok(u64::try_from(counted.unwrap_or(0)).unwrap_or(0))
}
