//! Lists for operators in PostgreSQL.

use super::broadcasts::{Stored, stored_columns};
use super::connection::Database;
use super::rows::{Columns, Values, integer, read};
use super::subscription_rows::{principal_bytes, record, record_columns};
use crate::broadcast::BroadcastId;
use crate::clock::Timestamp;
use crate::store::listing::Listing;
use crate::store::rules::lists;
use crate::store::{
    BroadcastCursor, BroadcastFilter, BroadcastPage, Liveness, StoreError, SubscriptionFilter,
    SubscriptionPage,
};
use crate::subscription::EndpointKey;

pub(super) const BROADCASTS: &str = concat!(
    "SELECT created_at, id, ",
    stored_columns!(),
    " FROM web_push.broadcast WHERE (created_at, id) < ($1, $2) AND created_at > $3 \
     ORDER BY created_at DESC, id DESC LIMIT $4"
);
pub(super) const OPEN_BROADCASTS: &str = concat!(
    "SELECT created_at, id, ",
    stored_columns!(),
    " FROM web_push.broadcast WHERE ended_at IS NULL AND (created_at, id) < ($1, $2) AND created_at > $3 \
     ORDER BY created_at DESC, id DESC LIMIT $4"
);
pub(super) const SUBSCRIPTIONS: &str = concat!(
    "SELECT s.key, ",
    record_columns!(),
    " FROM web_push.subscription AS s WHERE s.key > $1 ORDER BY s.key LIMIT $2"
);
pub(super) const UNREACHABLE: &str = concat!(
    "SELECT s.key, ",
    record_columns!(),
    " FROM web_push.subscription AS s WHERE (s.retired_at IS NOT NULL OR s.stale_since IS NOT NULL) AND s.key > $1 \
     ORDER BY s.key LIMIT $2"
);
pub(super) const OF_USER: &str = concat!(
    "SELECT s.key, ",
    record_columns!(),
    " FROM web_push.subscription AS s WHERE s.principal = $3 AND s.key > $1 ORDER BY s.key LIMIT $2"
);
pub(super) const OF_TAG: &str = concat!(
    "SELECT s.key, ",
    record_columns!(),
    " FROM web_push.subscription_tag AS g JOIN web_push.subscription AS s ON s.key = g.key \
     WHERE g.tag = $3 AND g.key > $1 ORDER BY g.key LIMIT $2"
);

pub(super) async fn broadcasts(
    database: &Database,
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
        let values: Values<'_> = &[&before.as_millis(), &id, &oldest, &integer(wanted)];
        let rows = database.query(sql, values).await?;
        let rows = read(&rows, |columns| {
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

pub(super) async fn subscriptions(
    database: &Database,
    filter: &SubscriptionFilter,
    after: Option<&EndpointKey>,
    limit: usize,
    now: Timestamp,
) -> Result<SubscriptionPage, StoreError> {
    // The empty key sorts before all others.
    let after = after.map_or_else(Vec::new, |key| key.as_bytes().to_vec());
    let mut listing = Listing::new(limit, Some(after));
    while let Some((after, wanted)) = listing.wanted() {
        let (after, max) = (after.unwrap_or_default(), integer(wanted));
        let rows = match (&filter.user, &filter.tag, filter.liveness) {
            (Some(user), ..) => {
                let user = principal_bytes(user);
                database.query(OF_USER, &[&after, &max, &user]).await?
            }
            (_, Some(tag), _) => {
                let values: Values<'_> = &[&after, &max, &tag.as_str()];
                database.query(OF_TAG, values).await?
            }
            (.., Liveness::Stale | Liveness::Retired) => {
                database.query(UNREACHABLE, &[&after, &max]).await?
            }
            _ => database.query(SUBSCRIPTIONS, &[&after, &max]).await?,
        };
        let rows = read(&rows, |columns: &mut Columns<'_>| {
            let key: Vec<u8> = columns.get()?;
            let row = record(columns);
            Ok((key, row.map(|row| lists(filter, &row, now).then_some(row))))
        })?;
        listing.take(rows, wanted)?;
    }
    let (rows, next) = listing.finish("subscriptions");
    let next = next.and_then(|key| key.try_into().ok());
    Ok(SubscriptionPage {
        rows,
        next: next.map(EndpointKey::from_bytes),
    })
}
