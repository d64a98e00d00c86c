//! Counting subscriptions in SQLite: by the numbers that triggers keep, or, for few rows, by an index.

use rusqlite::params;

use super::connection::Connection;
use super::error::corrupt;
use super::query::{Columns, all, first, integer};
use super::subscription_rows::find;
use super::subscriptions::keys_of;
use crate::broadcast::Audience;
use crate::clock::Timestamp;
use crate::store::groups::{Groups, kept_number};
use crate::store::rules::takes;
use crate::store::{CountFilter, Liveness, STEP, StoreError, SubscriptionRef};
use crate::vapid::KeyId;

/// The numbers by state and group, and those of live rows that have expired and are not purged yet: of at most ?2 rows.
pub(super) const GROUPS: &str = "SELECT kind, name, number FROM subscription_number \
         WHERE kind IN ('live', 'stale', 'retired') \
     UNION ALL SELECT 'expired', push_service || ':' || lower(hex(vapid_key)), count(*) FROM \
         (SELECT push_service, vapid_key FROM subscription INDEXED BY subscription_expiring \
             WHERE expires_at <= ?1 AND retired_at IS NULL AND stale_since IS NULL ORDER BY expires_at LIMIT ?2) \
         GROUP BY push_service, vapid_key";
pub(super) const LIVE_OF_TAG: &str = "SELECT \
     coalesce((SELECT number FROM subscription_number WHERE kind = 'tag' AND name = ?1), 0) - \
     (SELECT count(*) FROM (SELECT key FROM subscription INDEXED BY subscription_expiring \
             WHERE expires_at <= ?2 AND retired_at IS NULL AND stale_since IS NULL ORDER BY expires_at LIMIT ?3) AS s \
         CROSS JOIN subscription_tag g ON g.key = s.key AND g.tag = ?1)";
/// As a floating-point sum: damaged numbers make it wrong, not an error.
pub(super) const TOTAL: &str = "SELECT cast(total(number) AS INTEGER) FROM subscription_number \
     WHERE kind IN ('live', 'stale', 'retired')";
const UNPROVEN: &str = "SELECT value FROM meta WHERE name = 'unproven'";
/// A null state, push service or key matches any.
macro_rules! in_state {
    () => {
        " AND (?2 IS NULL OR s.state = ?2) \
         AND (?3 IS NULL OR s.state <> 'live' OR s.expires_at IS NULL OR s.expires_at > ?3) \
         AND (?4 IS NULL OR s.push_service = ?4) AND (?5 IS NULL OR s.vapid_key = ?5)"
    };
}
pub(super) const OF_USER: &str = concat!(
    "SELECT count(*) FROM subscription s WHERE s.principal = ?1",
    in_state!()
);
pub(super) const OF_TAG: &str = concat!(
    "SELECT count(*) FROM subscription_tag g CROSS JOIN subscription s ON s.key = g.key WHERE g.tag = ?1",
    in_state!()
);

/// Reads all rows if there is none.
const IS_USED: &str = "SELECT EXISTS (SELECT 1 FROM subscription WHERE vapid_key = ?1)";

/// The number of rows.
pub(super) fn total(conn: &Connection) -> Result<u64, StoreError> {
    Ok(first(conn, TOTAL, [], kept)?.unwrap_or(0))
}

/// The number of unproven rows (S16).
pub(super) fn unproven(conn: &Connection) -> Result<u64, StoreError> {
    first(conn, UNPROVEN, [], kept)?.ok_or_else(|| corrupt("the number of unproven subscriptions"))
}

fn is_used(conn: &Connection, vapid_key: &KeyId) -> Result<bool, StoreError> {
    let key = [vapid_key.as_bytes().as_slice()];
    Ok(first(conn, IS_USED, key, |row| row.flag())?.unwrap_or(false))
}

fn kept(columns: &mut Columns<'_, '_>) -> Result<u64, StoreError> {
    columns.get().map(kept_number)
}

pub(super) fn groups(conn: &Connection, now: Timestamp) -> Result<Groups, StoreError> {
    let mut groups = Groups::default();
    all(conn, GROUPS, [now.as_millis(), integer(STEP)], |row| {
        let (kind, name): (String, String) = (row.get()?, row.get()?);
        groups.add_named(&kind, &name, kept(row)?);
        Ok(())
    })?;
    Ok(groups)
}

pub(super) fn count(
    conn: &Connection,
    filter: &CountFilter,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let is_live_only = filter.liveness == Liveness::Live
        && filter.push_service.is_none()
        && filter.vapid_key.is_none();
    let number = |sql: &str, which: &str| -> Result<u64, StoreError> {
        let state = match filter.liveness {
            Liveness::Any => None,
            Liveness::Live => Some("live"),
            Liveness::Stale => Some("stale"),
            Liveness::Retired => Some("retired"),
        };
        let expired_at = state.map(|_| now.as_millis());
        let service = filter.push_service.map(|service| service.as_str());
        let key = filter.vapid_key.map(|key| key.as_bytes().to_vec());
        let values = params![which, state, expired_at, service, key];
        Ok(first(conn, sql, values, |row| row.count())?.unwrap_or(0))
    };
    match &filter.audience {
        Audience::All => {
            let rows = groups(conn, now)?.count(filter);
            match Groups::doubtful(filter, rows) {
                Some(key) if is_used(conn, key)? => Ok(Groups::contradicted(key)),
                _ => Ok(rows),
            }
        }
        Audience::Tag(tag) if is_live_only => {
            let values = params![tag.as_str(), now.as_millis(), integer(STEP)];
            Ok(first(conn, LIVE_OF_TAG, values, kept)?.unwrap_or(0))
        }
        Audience::Tag(tag) => number(OF_TAG, tag.as_str()),
        Audience::User(principal) => number(OF_USER, principal.as_str()),
        Audience::Ids(ids) => {
            let mut number = 0;
            for key in keys_of(conn, ids)? {
                let row = find(conn, SubscriptionRef::Key(key))?;
                number += u64::from(row.is_some_and(|row| takes(filter, &row, now)));
            }
            Ok(number)
        }
    }
}
