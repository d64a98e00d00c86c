//! Subscriptions in SQLite.

use std::collections::BTreeSet;

use async_trait::async_trait;
use rusqlite::types::Value;
use rusqlite::{params, params_from_iter};

use super::SqliteStore;
use super::connection::Connection;
use super::listing;
use super::query::{all, each, execute, first, integer};
use super::subscription_count::{count, groups, total, unproven};
use super::subscription_rows::{find, limit as row_limit, record, record_columns, write};
use crate::broadcast::{Audience, Principal};
use crate::clock::Timestamp;
use crate::store::readable::ReadablePage;
use crate::store::rules::merge;
use crate::store::{
    Change, CountFilter, Failure, LiveCounts, NewSubscription, ReasonWord, RetireReason, STEP,
    StoreError, StoreErrorKind, SubscriptionFilter, SubscriptionLimits, SubscriptionPage,
    SubscriptionRecord, SubscriptionRef, SubscriptionStore, Upserted,
};
use crate::subscription::{EndpointKey, SubscriptionId};
use crate::vapid::KeyId;

/// The most rows of a brief read.
const BRIEF: usize = 100;

macro_rules! live {
    () => {
        "(s.retired_at IS NULL AND s.stale_since IS NULL AND (s.expires_at IS NULL OR s.expires_at > ?2))"
    };
}

// The statements of walks: the next ?3 rows after the key ?1, and which of them are wanted.
pub(super) const PAGE_ALL: &str = concat!(
    "SELECT s.key, ",
    live!(),
    ", ",
    record_columns!(),
    " FROM subscription s WHERE s.key > ?1 ORDER BY s.key LIMIT ?3"
);
pub(super) const PAGE_USER: &str = concat!(
    "SELECT s.key, ",
    live!(),
    ", ",
    record_columns!(),
    " FROM subscription s INDEXED BY subscription_principal WHERE s.principal = ?4 AND s.key > ?1 ORDER BY s.key LIMIT ?3"
);
pub(super) const OWNED: &str = concat!(
    "SELECT s.key, 1, ",
    record_columns!(),
    " FROM subscription s INDEXED BY subscription_principal WHERE s.principal = ?4 AND s.key > ?1 ORDER BY s.key LIMIT ?3"
);
// The cross join keeps the order of the tables: the tag's rows lead.
pub(super) const PAGE_TAG: &str = concat!(
    "SELECT s.key, ",
    live!(),
    ", ",
    record_columns!(),
    " FROM subscription_tag g CROSS JOIN subscription s ON s.key = g.key \
     WHERE g.tag = ?4 AND g.key > ?1 ORDER BY g.key LIMIT ?3"
);
pub(super) const EVICT: &str = "DELETE FROM subscription WHERE key IN (SELECT key FROM subscription INDEXED BY subscription_principal \
     WHERE principal = ?1 AND key <> ?2 ORDER BY last_seen_at, key LIMIT ?3)";
pub(super) const PURGE_RETIRED: &str = "DELETE FROM subscription WHERE key IN \
     (SELECT key FROM subscription WHERE retired_at < ?1 ORDER BY retired_at LIMIT ?2)";
pub(super) const PURGE_STALE: &str = "DELETE FROM subscription WHERE key IN \
     (SELECT key FROM subscription WHERE stale_since < ?1 ORDER BY stale_since LIMIT ?2)";
pub(super) const PURGE_EXPIRED: &str = "DELETE FROM subscription WHERE key IN \
     (SELECT key FROM subscription INDEXED BY subscription_expires WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2)";
pub(super) const EXPIRED: &str = "SELECT key, unproven FROM subscription INDEXED BY subscription_expiring \
     WHERE expires_at <= ?1 AND retired_at IS NULL AND stale_since IS NULL ORDER BY expires_at LIMIT ?2";
const DELETE: &str = "DELETE FROM subscription WHERE key = ?1";
const RETIRE: &str = "UPDATE subscription SET retired_at = ?2, retire_reason = ?3 \
     WHERE key = ?1 AND retired_at IS NULL AND last_seen_at <= ?4";

/// The same with the response that showed it (S19).
const RETIRE_FAILED: &str = "UPDATE subscription SET retired_at = ?2, retire_reason = ?3, failed_at = ?2, \
     failure_status = ?5, failure_reason = ?6 WHERE key = ?1 AND retired_at IS NULL AND last_seen_at <= ?4";

fn upsert(
    conn: &Connection,
    new: &NewSubscription,
    limits: &SubscriptionLimits,
    now: Timestamp,
) -> Result<Upserted, StoreError> {
    let key = new.key();
    let standing = find(conn, SubscriptionRef::Key(key))?;
    let replaces = new.replaced_key();
    let replaced = match replaces {
        Some(key) => find(conn, SubscriptionRef::Key(key))?,
        None => None,
    };
    let Some(merged) = merge(standing, replaced.as_ref(), new, now) else {
        return Ok(Upserted::Conflict);
    };
    // Checked before the first write, so that a flood costs one read each.
    if merged.adds_unproven() && unproven(conn)? >= limits.unproven {
        return Err(StoreError::too_many_unproven());
    }
    if let (Some(key), true) = (replaces, replaced.is_some()) {
        delete(conn, &key)?;
    }
    write(conn, &key, &merged.record, merged.created)?;
    if let Some(principal) = &merged.record.principal {
        make_room(conn, principal, &key, limits.per_principal)?;
    }
    if merged.created && total(conn)? > limits.total {
        // What this call has done is rolled back.
        return Err(StoreErrorKind::Full.into());
    }
    Ok(merged.into())
}

/// Removes the principal's least recently seen other rows above the limit (S6).
fn make_room(
    conn: &Connection,
    principal: &Principal,
    key: &EndpointKey,
    per_principal: u32,
) -> Result<(), StoreError> {
    let sql = "SELECT count(*) FROM subscription WHERE principal = ?1";
    let rows = first(conn, sql, [principal.as_str()], |row| row.count())?.unwrap_or(0);
    let surplus = rows.saturating_sub(u64::from(per_principal));
    if surplus > 0 {
        let values = params![principal.as_str(), key.as_bytes(), integer(surplus)];
        execute(conn, EVICT, values)?;
    }
    Ok(())
}

fn delete(conn: &Connection, key: &EndpointKey) -> Result<usize, StoreError> {
    execute(conn, DELETE, [key.as_bytes()])
}

fn page(
    conn: &Connection,
    audience: &Audience,
    after: Option<&EndpointKey>,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<SubscriptionRecord>, StoreError> {
    match audience {
        Audience::All => walk(conn, PAGE_ALL, None, after, limit, now),
        Audience::User(principal) => {
            walk(conn, PAGE_USER, Some(principal.as_str()), after, limit, now)
        }
        Audience::Tag(tag) => walk(conn, PAGE_TAG, Some(tag.as_str()), after, limit, now),
        Audience::Ids(ids) => {
            let mut page = ReadablePage::new(limit);
            for key in keys_of(conn, ids)? {
                if page.missing() == 0 {
                    break;
                }
                if after.is_none_or(|after| key > *after) {
                    let row = find(conn, SubscriptionRef::Key(key)).transpose();
                    let is_wanted = |row: &Result<SubscriptionRecord, _>| {
                        row.as_ref().is_ok_and(|row| row.is_live(now)) || row.is_err()
                    };
                    if let Some(row) = row.filter(is_wanted) {
                        page.push(row)?;
                    }
                }
            }
            Ok(page.finish("subscriptions"))
        }
    }
}

/// Reads rows by key, until there are enough that are wanted and can be read. A statement reads at most [`STEP`] rows, however
/// many of them are not live, or as many as the page has room for. `which` is the user or the tag.
fn walk(
    conn: &Connection,
    sql: &str,
    which: Option<&str>,
    after: Option<&EndpointKey>,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<SubscriptionRecord>, StoreError> {
    // The empty key sorts before all others.
    let mut after = after.map_or_else(Vec::new, |key| key.as_bytes().to_vec());
    let mut page = ReadablePage::new(limit);
    let mut is_over = false;
    while page.missing() > 0 && !is_over {
        let max = page.missing().max(STEP);
        let mut seen = 0;
        let mut values = vec![after.clone().into(), now.as_millis().into()];
        values.push(Value::from(row_limit(max)));
        values.extend(which.map(|which| Value::from(which.to_owned())));
        each(conn, sql, params_from_iter(values), |columns| {
            // The key may be damaged too.
            after = columns.get()?;
            if columns.flag()? {
                page.push(record(columns))?;
            }
            seen += 1;
            Ok(page.missing() > 0)
        })?;
        is_over = seen < max;
    }
    Ok(page.finish("subscriptions"))
}

/// Returns the keys of the rows with these ids, deduplicated and sorted.
pub(super) fn keys_of(
    conn: &Connection,
    ids: &[SubscriptionId],
) -> Result<BTreeSet<EndpointKey>, StoreError> {
    let mut keys = BTreeSet::new();
    for id in ids {
        let sql = "SELECT key FROM subscription WHERE id = ?1";
        let key = first(conn, sql, [id.as_bytes()], |row| row.bytes())?;
        keys.extend(key.map(EndpointKey::from_bytes));
    }
    Ok(keys)
}

/// Makes changes, in order. Returns the number of changed rows.
pub(super) fn apply_all(
    conn: &Connection,
    changes: &[Change],
    now: Timestamp,
) -> Result<u64, StoreError> {
    let mut changed = 0;
    for change in changes {
        changed += apply(conn, change, now)? as u64;
    }
    Ok(changed)
}

fn apply(conn: &Connection, change: &Change, now: Timestamp) -> Result<usize, StoreError> {
    let now = now.as_millis();
    match change {
        Change::Delete {
            key,
            principal,
            observed_at,
        } => {
            let sql = "DELETE FROM subscription \
                       WHERE key = ?1 AND principal IS ?2 AND last_seen_at <= ?3";
            let principal = principal.as_ref().map(Principal::as_str);
            let values = params![key.as_bytes(), principal, observed_at.as_millis()];
            execute(conn, sql, values)
        }
        Change::Retire {
            key,
            reason,
            observed_at,
            failure,
        } => {
            let observed_at = observed_at.as_millis();
            let (status, why) = failure_values(failure);
            let reason = reason.as_str();
            let values = params![key.as_bytes(), now, reason, observed_at, status, why];
            execute(conn, RETIRE_FAILED, values)
        }
        Change::Stale {
            key,
            observed_at,
            failure,
        } => {
            let sql = "UPDATE subscription SET stale_since = ?2, failed_at = ?2, failure_status = ?3, failure_reason = ?4 \
                       WHERE key = ?1 AND stale_since IS NULL AND last_seen_at <= ?5";
            let observed_at = observed_at.as_millis();
            let (status, why) = failure_values(failure);
            let values = params![key.as_bytes(), now, status, why, observed_at];
            execute(conn, sql, values)
        }
        Change::Accepted(key) => {
            let sql = "UPDATE subscription SET last_success_at = ?2, failure_streak = 0, \
                       failing_since = NULL WHERE key = ?1";
            execute(conn, sql, params![key.as_bytes(), now])
        }
        Change::Failed { key, failure } => {
            let sql = "UPDATE subscription SET failure_streak = failure_streak + 1, \
                       failing_since = coalesce(failing_since, ?2), failed_at = ?2, failure_status = ?3, \
                       failure_reason = ?4 WHERE key = ?1";
            let (status, why) = failure_values(failure);
            execute(conn, sql, params![key.as_bytes(), now, status, why])
        }
        Change::UseVapidKey { key, vapid_key } => {
            let sql = "UPDATE subscription SET vapid_key = ?2 WHERE key = ?1";
            execute(conn, sql, params![key.as_bytes(), vapid_key.as_bytes()])
        }
        Change::Purge {
            before,
            expired_before,
        } => {
            let mut purged = 0;
            for (sql, moment) in [
                (PURGE_RETIRED, before),
                (PURGE_STALE, before),
                (PURGE_EXPIRED, expired_before),
            ] {
                let values = params![moment.as_millis(), row_limit(STEP - purged)];
                purged += execute(conn, sql, values)?;
            }
            Ok(purged + expire(conn, STEP - purged, now)?)
        }
    }
}

/// The status and the reason of a failure, as they are stored.
fn failure_values(failure: &Failure) -> (Option<u16>, Option<&str>) {
    let reason = failure.reason.as_ref().map(ReasonWord::as_str);
    (failure.status, reason)
}

/// Deletes the unproven ones of the first rows that have expired, and retires the others (S13). Returns their number.
fn expire(conn: &Connection, limit: usize, now: i64) -> Result<usize, StoreError> {
    let rows: Vec<(Vec<u8>, bool)> = all(conn, EXPIRED, [now, row_limit(limit)], |row| {
        Ok((row.get()?, row.flag()?))
    })?;
    let reason = RetireReason::Expired.as_str();
    for (key, is_unproven) in &rows {
        match is_unproven {
            true => execute(conn, DELETE, [key])?,
            false => execute(conn, RETIRE, params![key, now, reason, i64::MAX])?,
        };
    }
    Ok(rows.len())
}

#[async_trait]
impl SubscriptionStore for SqliteStore {
    async fn upsert(
        &self,
        new: &NewSubscription,
        limits: &SubscriptionLimits,
        now: Timestamp,
    ) -> Result<Upserted, StoreError> {
        let (new, limits) = (new.clone(), *limits);
        self.write(move |conn| upsert(conn, &new, &limits, now))
            .await
    }

    async fn get(
        &self,
        which: &[SubscriptionRef],
    ) -> Result<Vec<Option<SubscriptionRecord>>, StoreError> {
        let which = which.to_vec();
        let is_brief = which.len() <= BRIEF;
        let read = move |conn: &Connection| which.iter().map(|which| find(conn, *which)).collect();
        match is_brief {
            true => self.read_briefly(read).await,
            false => self.read(read).await,
        }
    }

    async fn page(
        &self,
        audience: &Audience,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let (audience, after) = (audience.clone(), after.copied());
        let is_brief = match &audience {
            Audience::User(_) => limit <= BRIEF,
            Audience::Ids(ids) => ids.len() <= BRIEF,
            Audience::All | Audience::Tag(_) => false,
        };
        let read = move |conn: &Connection| page(conn, &audience, after.as_ref(), limit, now);
        match is_brief {
            true => self.read_briefly(read).await,
            false => self.read(read).await,
        }
    }

    async fn owned_by(
        &self,
        principal: &Principal,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let (principal, after) = (principal.as_str().to_owned(), after.copied());
        self.read(move |conn| {
            let (which, now) = (Some(principal.as_str()), Timestamp::MIN);
            walk(conn, OWNED, which, after.as_ref(), limit, now)
        })
        .await
    }

    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
        after: Option<&EndpointKey>,
        limit: usize,
        now: Timestamp,
    ) -> Result<SubscriptionPage, StoreError> {
        let (filter, after) = (filter.clone(), after.copied());
        self.read(move |conn| listing::subscriptions(conn, &filter, after.as_ref(), limit, now))
            .await
    }

    async fn count(&self, filter: &CountFilter, now: Timestamp) -> Result<u64, StoreError> {
        let filter = filter.clone();
        self.read(move |conn| count(conn, &filter, now)).await
    }

    async fn count_live(&self, keys: &[KeyId], now: Timestamp) -> Result<LiveCounts, StoreError> {
        let groups = self.read(move |conn| groups(conn, now)).await?;
        Ok(groups.count_live(keys))
    }

    async fn apply(&self, changes: &[Change], now: Timestamp) -> Result<u64, StoreError> {
        let changes = changes.to_vec();
        self.write(move |conn| apply_all(conn, &changes, now)).await
    }
}
