//! Lists for operators in SQLite.

use rusqlite::params;

use super::broadcasts::{Stored, stored_columns};
use super::connection::Connection;
use super::query::{Columns, all, integer};
use super::subscription_rows::{record, record_columns};
use crate::broadcast::BroadcastId;
use crate::clock::Timestamp;
use crate::store::listing::Listing;
use crate::store::rules::lists;
use crate::store::{
    BroadcastCursor, BroadcastFilter, BroadcastPage, Liveness, StoreError, SubscriptionFilter,
    SubscriptionPage, SubscriptionRecord,
};
use crate::subscription::EndpointKey;

pub(super) const BROADCASTS: &str = concat!(
    "SELECT created_at, id, ",
    stored_columns!(),
    " FROM broadcast INDEXED BY broadcast_created WHERE (created_at, id) < (?1, ?2) AND created_at > ?3 \
     ORDER BY created_at DESC, id DESC LIMIT ?4"
);
pub(super) const OPEN_BROADCASTS: &str = concat!(
    "SELECT created_at, id, ",
    stored_columns!(),
    " FROM broadcast INDEXED BY broadcast_open_created WHERE ended_at IS NULL \
     AND (created_at, id) < (?1, ?2) AND created_at > ?3 ORDER BY created_at DESC, id DESC LIMIT ?4"
);
pub(super) const SUBSCRIPTIONS: &str = concat!(
    "SELECT s.key, ",
    record_columns!(),
    " FROM subscription s WHERE s.key > ?1 ORDER BY s.key LIMIT ?2"
);
pub(super) const UNREACHABLE: &str = concat!(
    "SELECT s.key, ",
    record_columns!(),
    " FROM subscription s INDEXED BY subscription_unreachable \
     WHERE (s.retired_at IS NOT NULL OR s.stale_since IS NOT NULL) AND s.key > ?1 ORDER BY s.key LIMIT ?2"
);
pub(super) const OF_USER: &str = concat!(
    "SELECT s.key, ",
    record_columns!(),
    " FROM subscription s INDEXED BY subscription_principal WHERE s.principal = ?3 AND s.key > ?1 ORDER BY s.key LIMIT ?2"
);
// The cross join keeps the order of the tables: the tag's rows lead.
pub(super) const OF_TAG: &str = concat!(
    "SELECT s.key, ",
    record_columns!(),
    " FROM subscription_tag g CROSS JOIN subscription s ON s.key = g.key \
     WHERE g.tag = ?3 AND g.key > ?1 ORDER BY g.key LIMIT ?2"
);

pub(super) fn broadcasts(
    conn: &Connection,
    filter: &BroadcastFilter,
    after: Option<&BroadcastCursor>,
    limit: usize,
    now: Timestamp,
) -> Result<BroadcastPage, StoreError> {
    let sql = match filter.is_of_open() {
        true => OPEN_BROADCASTS,
        false => BROADCASTS,
    };
    let oldest = filter.created_after.unwrap_or(Timestamp::MIN).as_millis();
    let mut listing = Listing::new(limit, after.copied());
    while let Some((after, wanted)) = listing.wanted() {
        let (before, id) = filter.end(after.as_ref());
        let values = params![before.as_millis(), id, oldest, integer(wanted)];
        let rows = all(conn, sql, values, |columns| {
            let created_at = columns.time()?;
            let id: Vec<u8> = columns.get()?;
            // Of one that cannot be read the others of its millisecond are passed over too.
            let id = BroadcastId::from_bytes(id.try_into().unwrap_or_default());
            let status = Stored::read(columns).map(|stored| stored.progress.status(now));
            let row = status.map(|status| filter.takes(&status).then_some(status));
            Ok((BroadcastCursor::new(created_at, id), row))
        })?;
        listing.take(rows, wanted)?;
    }
    let (broadcasts, next) = listing.finish("broadcasts");
    Ok(BroadcastPage { broadcasts, next })
}

pub(super) fn subscriptions(
    conn: &Connection,
    filter: &SubscriptionFilter,
    after: Option<&EndpointKey>,
    limit: usize,
    now: Timestamp,
) -> Result<SubscriptionPage, StoreError> {
    // The empty key sorts before all others.
    let after = after.map_or_else(Vec::new, |key| key.as_bytes().to_vec());
    let mut listing = Listing::new(limit, Some(after));
    let read = |columns: &mut Columns<'_, '_>| {
        let key: Vec<u8> = columns.get()?;
        let row = record(columns);
        let row = row.map(|row: SubscriptionRecord| lists(filter, &row, now).then_some(row));
        Ok((key, row))
    };
    while let Some((after, wanted)) = listing.wanted() {
        let (after, max) = (after.unwrap_or_default(), integer(wanted));
        let rows = match (&filter.user, &filter.tag, filter.liveness) {
            (Some(user), ..) => all(conn, OF_USER, params![after, max, user.as_str()], read),
            (_, Some(tag), _) => all(conn, OF_TAG, params![after, max, tag.as_str()], read),
            (.., Liveness::Stale | Liveness::Retired) => {
                all(conn, UNREACHABLE, params![after, max], read)
            }
            _ => all(conn, SUBSCRIPTIONS, params![after, max], read),
        };
        listing.take(rows?, wanted)?;
    }
    let (rows, next) = listing.finish("subscriptions");
    let next = next.and_then(|key| key.try_into().ok());
    Ok(SubscriptionPage {
        rows,
        next: next.map(EndpointKey::from_bytes),
    })
}
