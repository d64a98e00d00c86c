//! The upsert of a subscription that is probably unknown, in one round trip. A transaction that reads first would take a round trip
//! for each statement, and hold its locks for as long.

use tokio_postgres::types::ToSql;

use super::connection::Database;
use super::error::corrupt;
use super::rows::{Values, first, integer};
use super::subscription_count::Totals;
use super::subscription_numbers::{Counted, NumberColumns, Numbers};
use super::subscription_rows::{Inserted, principal_bytes};
use super::subscriptions::LOCK_PRINCIPAL;
use crate::clock::Timestamp;
use crate::store::rules::merge;
use crate::store::{NewSubscription, StoreError, SubscriptionLimits, Upserted};

/// Inserts a row with its tags and numbers, unless it is known or a limit is reached: then nothing. Locks as a transaction does
/// that writes the row, then its numbers in their order, then the totals. Waits only for concurrent inserts of the same key, and
/// for writers of the same numbers: a known row is not tried, since that would wait for its writers.
///
/// Returns whether the row was inserted, whether it was known before, and the totals before.
pub(super) const INSERT_UNKNOWN: &str = "WITH total AS MATERIALIZED (SELECT coalesce(sum(number), 0)::bigint AS number, \
         coalesce(sum(unproven), 0)::bigint AS unproven FROM web_push.subscription_count), \
     fresh AS (INSERT INTO web_push.subscription (key, id, endpoint, p256dh, auth, expires_at, principal, \
             tags, vapid_key, push_service, created_at, keys_changed_at, last_seen_at, last_success_at, failure_streak) \
         SELECT $1::bytea, $2::bytea, $3::text, $4::bytea, $5::bytea, $6::bigint, $7::bytea, $8::text[], $9::bytea, $10::text, \
             $11::bigint, $12::bigint, $13::bigint, $14::bigint, $15::bigint FROM total \
         WHERE NOT EXISTS (SELECT 1 FROM web_push.subscription AS s WHERE s.key = $1::bytea) \
             AND total.number < $16::bigint AND ($17::bigint = 0 OR total.unproven < $18::bigint) AND ($7::bytea IS NULL OR \
             (SELECT count(*) FROM web_push.subscription AS s WHERE s.principal = $7::bytea) < $19::bigint) \
         ON CONFLICT (key) DO NOTHING RETURNING key), \
     tagged AS (INSERT INTO web_push.subscription_tag (tag, key) \
         SELECT tag, fresh.key FROM fresh CROSS JOIN unnest($8::text[]) AS given (tag) ORDER BY tag ON CONFLICT DO NOTHING), \
     numbered AS (INSERT INTO web_push.subscription_number AS n (kind, name, part, number) \
         SELECT kind, name, part, number FROM fresh \
             CROSS JOIN unnest($20::text[], $21::text[], $22::integer[], $23::bigint[]) AS change (kind, name, part, number) \
         ORDER BY kind, name, part \
         ON CONFLICT (kind, name, part) DO UPDATE SET number = n.number + excluded.number RETURNING n.part), \
     totalled AS (UPDATE web_push.subscription_count SET number = number + 1, unproven = unproven + $17::bigint \
         WHERE part = pg_backend_pid() % 16 AND (SELECT count(*) FROM numbered) > 0) \
     SELECT EXISTS (SELECT 1 FROM fresh), \
         EXISTS (SELECT 1 FROM web_push.subscription AS s WHERE s.key = $1::bytea), number, unproven FROM total";

/// Inserts a subscription if it is unknown. Returns `None` if it is to be done in a transaction that reads first: it is known or
/// replaces another, or makes its principal's rows too many.
pub(super) async fn insert_unknown(
    database: &Database,
    new: &NewSubscription,
    limits: &SubscriptionLimits,
    now: Timestamp,
) -> Result<Option<Upserted>, StoreError> {
    // One that is assigned is known.
    if new.replaced_key().is_some() || new.assign.is_some() {
        return Ok(None);
    }
    let Some(merged) = merge(None, None, new, now) else {
        return Ok(None);
    };
    let key = new.key();
    let mut numbers = Numbers::default();
    numbers.plus(&Counted::of(&key, &merged.record, None));
    let NumberColumns {
        kinds,
        names,
        parts,
        changes,
    } = &numbers.columns();
    let total = integer(limits.total);
    let is_unproven = i64::from(merged.record.is_unproven());
    let most_unproven = integer(limits.unproven);
    let per_principal = i64::from(limits.per_principal);
    let columns = Inserted::of(&key, &merged.record);
    let mut values = columns.values().to_vec();
    let more: Values<'_> = &[
        &total,
        &is_unproven,
        &most_unproven,
        &per_principal,
        kinds,
        names,
        parts,
        changes,
    ];
    values.extend(more);
    let principal = merged.record.principal.as_ref().map(principal_bytes);
    let locked: [&(dyn ToSql + Sync); 1] = [&principal];
    let lock = principal.map(|_| (LOCK_PRINCIPAL, locked.as_slice()));
    let rows = database.query_after(lock, INSERT_UNKNOWN, &values).await?;
    let answer = first(&rows, |columns| {
        let (is_inserted, is_known): (bool, bool) = (columns.get()?, columns.get()?);
        Ok((is_inserted, is_known, Totals::read(columns)?))
    })?;
    let (is_inserted, is_known, before) = answer.ok_or_else(|| corrupt("an answer"))?;
    if is_inserted {
        return Ok(Some(merged.into()));
    }
    if !is_known && merged.adds_unproven() && before.unproven >= most_unproven {
        // A flood costs a read each, and leaves no dead rows.
        return Err(StoreError::too_many_unproven());
    }
    Ok(None)
}
