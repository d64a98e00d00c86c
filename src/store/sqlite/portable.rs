//! Whole rows in SQLite.

use async_trait::async_trait;
use rusqlite::params;

use super::SqliteStore;
use super::connection::Connection;
use super::query::{Columns, all, execute};
use super::subscription_rows::{find, limit as row_limit, record, record_columns, write};
use crate::clock::Timestamp;
use crate::store::readable::{ReadablePage, readable_or_none};
use crate::store::rules::is_newer;
use crate::store::{
    PortableStore, ReasonWord, StoreError, SubscriptionRecord, SubscriptionRef, Unreachable,
};
use crate::subscription::EndpointKey;

pub(super) const RETIRED: &str = concat!(
    "SELECT s.retired_at, s.key, ",
    record_columns!(),
    " FROM subscription s INDEXED BY subscription_retired WHERE s.retired_at IS NOT NULL \
     AND (s.retired_at, s.key) > (?1, ?2) ORDER BY s.retired_at, s.key LIMIT ?3"
);
pub(super) const STALE: &str = concat!(
    "SELECT s.stale_since, s.key, ",
    record_columns!(),
    " FROM subscription s INDEXED BY subscription_stale_since WHERE s.stale_since IS NOT NULL \
     AND (s.stale_since, s.key) > (?1, ?2) ORDER BY s.stale_since, s.key LIMIT ?3"
);
pub(super) const DELETE_KEY: &str = "DELETE FROM subscription WHERE key = ?1";
pub(super) const DELETE_ID: &str = "DELETE FROM subscription WHERE id = ?1";
/// What a row has that is not new.
pub(super) const COMPLETE: &str = "UPDATE subscription SET failing_since = ?2, stale_since = ?3, retired_at = ?4, \
     retire_reason = ?5, failed_at = ?6, failure_status = ?7, failure_reason = ?8 WHERE key = ?1";

type Placed = ((i64, Vec<u8>), Result<SubscriptionRecord, StoreError>);

/// Reads a place, whose key may be damaged too, and the row.
fn placed(columns: &mut Columns<'_, '_>) -> Result<Placed, StoreError> {
    Ok(((columns.get()?, columns.get()?), record(columns)))
}

fn unreachable(
    conn: &Connection,
    state: Unreachable,
    after: Option<(Timestamp, EndpointKey)>,
    limit: usize,
) -> Result<Vec<SubscriptionRecord>, StoreError> {
    let sql = match state {
        Unreachable::Retired => RETIRED,
        Unreachable::Stale => STALE,
    };
    // The empty key sorts before all others.
    let mut after = after.map_or((i64::MIN, Vec::new()), |(since, key)| {
        (since.as_millis(), key.as_bytes().to_vec())
    });
    let mut page = ReadablePage::new(limit);
    while page.missing() > 0 {
        let wanted = page.missing();
        let values = params![after.0, after.1, row_limit(wanted)];
        let rows = all(conn, sql, values, placed)?;
        let is_last = rows.len() < wanted;
        for (place, row) in rows {
            after = place;
            page.push(row)?;
        }
        if is_last {
            break;
        }
    }
    Ok(page.finish("subscriptions"))
}

/// Writes a row unless a stored one holds.
fn put(conn: &Connection, row: &SubscriptionRecord) -> Result<bool, StoreError> {
    let key = row.subscription.endpoint().key();
    for which in [SubscriptionRef::Key(key), SubscriptionRef::Id(row.id)] {
        let stored = readable_or_none(find(conn, which))?.flatten();
        if stored.is_some_and(|stored| !is_newer(row, &stored)) {
            return Ok(false);
        }
    }
    execute(conn, DELETE_KEY, [key.as_bytes()])?;
    execute(conn, DELETE_ID, [row.id.as_bytes()])?;
    write(conn, &key, row, true)?;
    let is_new = row.failing_since.is_none()
        && row.stale_since.is_none()
        && row.retired.is_none()
        && row.last_failure.is_none();
    if !is_new {
        let failure = row.last_failure.map(|last| last.failure);
        let reason = failure.and_then(|failure| failure.reason);
        let values = params![
            key.as_bytes(),
            row.failing_since.map(|at| at.as_millis()),
            row.stale_since.map(|at| at.as_millis()),
            row.retired.map(|retired| retired.at.as_millis()),
            row.retired.map(|retired| retired.reason.as_str()),
            row.last_failure.map(|last| last.at.as_millis()),
            failure.and_then(|failure| failure.status),
            reason.as_ref().map(ReasonWord::as_str),
        ];
        execute(conn, COMPLETE, values)?;
    }
    Ok(true)
}

#[async_trait]
impl PortableStore for SqliteStore {
    async fn unreachable(
        &self,
        state: Unreachable,
        after: Option<(Timestamp, EndpointKey)>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.read(move |conn| unreachable(conn, state, after, limit))
            .await
    }

    async fn put(&self, rows: &[SubscriptionRecord]) -> Result<Vec<bool>, StoreError> {
        let rows = rows.to_vec();
        self.write(move |conn| rows.iter().map(|row| put(conn, row)).collect())
            .await
    }
}
