//! Changes to stored subscriptions in PostgreSQL: in order, many in one statement.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::connection::Tx;
use super::error::Failed;
use super::rows::{first, integer, read};
use super::subscription_count::{Totals, add};
use super::subscription_rows::{delete, principal_bytes};
use crate::clock::Timestamp;
use crate::store::{Change, STEP};
use crate::subscription::EndpointKey;

/// The same condition as [`SubscriptionRecord::is_unproven`](crate::store::SubscriptionRecord::is_unproven) (S16).
macro_rules! unproven {
    () => {
        "(s.principal IS NULL AND s.last_success_at IS NULL AND s.retired_at IS NULL AND s.stale_since IS NULL)"
    };
}

/// Locks in one order.
pub(super) const LOCK: &str = concat!(
    "SELECT s.key, s.principal, s.last_seen_at, ",
    unproven!(),
    " FROM web_push.subscription AS s WHERE s.key = ANY($1) ORDER BY s.key FOR UPDATE"
);
/// A change can prove a row, but not the reverse. Most rows are proven and are not queried.
pub(super) const STILL_UNPROVEN: &str = concat!(
    "SELECT count(*) FROM web_push.subscription AS s WHERE s.key = ANY($1) AND ",
    unproven!()
);
/// Skips locked rows: they are being renewed.
pub(super) const RETIRED_BEFORE: &str = concat!(
    "SELECT s.key, ",
    unproven!(),
    " FROM web_push.subscription AS s WHERE s.retired_at < $1 ORDER BY s.retired_at LIMIT $2 FOR UPDATE SKIP LOCKED"
);
pub(super) const STALE_BEFORE: &str = concat!(
    "SELECT s.key, ",
    unproven!(),
    " FROM web_push.subscription AS s WHERE s.stale_since < $1 ORDER BY s.stale_since LIMIT $2 FOR UPDATE SKIP LOCKED"
);
pub(super) const EXPIRED_BEFORE: &str = concat!(
    "SELECT s.key, ",
    unproven!(),
    " FROM web_push.subscription AS s WHERE s.expires_at < $1 ORDER BY s.expires_at LIMIT $2 FOR UPDATE SKIP LOCKED"
);
/// Applies one change of any kind to each row.
pub(super) const CHANGE: &str = "UPDATE web_push.subscription AS s SET \
     retired_at = CASE change.kind WHEN 'retire' THEN $1 ELSE s.retired_at END, \
     retire_reason = CASE change.kind WHEN 'retire' THEN change.reason ELSE s.retire_reason END, \
     stale_since = CASE change.kind WHEN 'stale' THEN $1 ELSE s.stale_since END, \
     last_success_at = CASE change.kind WHEN 'accepted' THEN $1 ELSE s.last_success_at END, \
     failure_streak = CASE change.kind WHEN 'accepted' THEN 0 WHEN 'failed' THEN s.failure_streak + 1 \
         ELSE s.failure_streak END, \
     failing_since = CASE change.kind WHEN 'accepted' THEN NULL WHEN 'failed' THEN coalesce(s.failing_since, $1) \
         ELSE s.failing_since END, \
     vapid_key = CASE change.kind WHEN 'use' THEN change.vapid_key ELSE s.vapid_key END \
     FROM unnest($2::bytea[], $3::text[], $4::bigint[], $5::text[], $6::bytea[]) \
         AS change (key, kind, observed_at, reason, vapid_key) \
     WHERE s.key = change.key AND CASE change.kind \
         WHEN 'retire' THEN s.retired_at IS NULL AND s.last_seen_at <= change.observed_at \
         WHEN 'stale' THEN s.stale_since IS NULL AND s.last_seen_at <= change.observed_at ELSE true END";

pub(super) async fn apply(
    tx: &mut Tx<'_>,
    changes: &[Change],
    now: Timestamp,
) -> Result<u64, Failed> {
    // All rows are locked first, and rows inserted later are ignored, so that later statements wait for no lock and
    // cannot deadlock.
    let keys: BTreeSet<_> = changes.iter().filter_map(Change::key).collect();
    let mut standing = HashMap::new();
    let mut unproven: HashSet<EndpointKey> = HashSet::new();
    if !keys.is_empty() {
        let keys: Vec<_> = keys.iter().map(|key| key.as_bytes().as_slice()).collect();
        let rows = tx.query(LOCK, &[&keys]).await?;
        for (key, principal, last_seen_at, is_unproven) in read(&rows, |columns| {
            let key = EndpointKey::from_bytes(columns.bytes()?);
            let principal: Option<&[u8]> = columns.get()?;
            let principal = principal.map(<[u8]>::to_vec);
            Ok((key, principal, columns.time()?, columns.get()?))
        })? {
            standing.insert(key, (principal, last_seen_at));
            if is_unproven {
                unproven.insert(key);
            }
        }
    }
    // No change has an effect on what a deletion depends on (S18), so that is decided once.
    let is_for_us = |change: &&Change| match change {
        Change::Delete {
            key,
            principal,
            observed_at,
        } => standing.get(key).is_some_and(|(owner, seen)| {
            owner.as_deref() == principal.as_ref().map(principal_bytes) && seen <= observed_at
        }),
        change => change.key().is_none_or(|key| standing.contains_key(key)),
    };
    let mut changed = 0;
    let mut deleted = 0;
    let mut purged_unproven = 0;
    for turn in turns(changes.iter().filter(is_for_us)) {
        match turn {
            Turn::Purge(before, expired_before) => {
                let mut left = integer(STEP);
                for (rows, before) in [
                    (RETIRED_BEFORE, before),
                    (STALE_BEFORE, before),
                    (EXPIRED_BEFORE, expired_before),
                ] {
                    let purged = purge(tx, rows, before, left, &unproven).await?;
                    left -= integer(purged.0);
                    deleted += purged.0;
                    purged_unproven += purged.1;
                }
            }
            Turn::Rows(changes) => {
                let is_deletion = |change: &&&Change| matches!(change, Change::Delete { .. });
                let deletions = changes.iter().filter(is_deletion);
                let keys: Vec<_> = deletions
                    .filter_map(|change| Some(change.key()?.as_bytes().as_slice()))
                    .collect();
                deleted += delete(tx, &keys).await?;
                changed += change_rows(tx, &changes, now).await?;
            }
        }
    }
    let change = Totals {
        rows: -integer(deleted),
        unproven: -proven(tx, &unproven).await? - purged_unproven,
    };
    add(tx, change).await?;
    Ok(changed + deleted)
}

/// Returns how many of these unproven rows are now proven or deleted.
async fn proven(tx: &mut Tx<'_>, unproven: &HashSet<EndpointKey>) -> Result<i64, Failed> {
    if unproven.is_empty() {
        return Ok(0);
    }
    let keys: Vec<_> = unproven
        .iter()
        .map(|key| key.as_bytes().as_slice())
        .collect();
    let rows = tx.query(STILL_UNPROVEN, &[&keys]).await?;
    let still: i64 = first(&rows, |columns| columns.get())?.unwrap_or(0);
    Ok(integer(unproven.len()) - still)
}

/// Changes that can be made in one statement.
enum Turn<'a> {
    /// Changes of distinct rows.
    Rows(Vec<&'a Change>),
    /// Deletes rows that are retired or stale since before the first time, or expired before the second.
    Purge(Timestamp, Timestamp),
}

/// Groups the changes without changing their effect: those of one row stay in order, a purge comes after all before it.
fn turns<'a>(changes: impl Iterator<Item = &'a Change>) -> Vec<Turn<'a>> {
    let mut turns = Vec::new();
    let mut since_purge: Vec<Vec<&Change>> = Vec::new();
    let mut of_row: HashMap<EndpointKey, usize> = HashMap::new();
    for change in changes {
        match (change, change.key()) {
            (_, Some(key)) => {
                let turn = of_row.entry(*key).or_default();
                if since_purge.len() <= *turn {
                    since_purge.push(Vec::new());
                }
                if let Some(rows) = since_purge.get_mut(*turn) {
                    rows.push(change);
                }
                *turn += 1;
            }
            (
                Change::Purge {
                    before,
                    expired_before,
                },
                None,
            ) => {
                turns.extend(since_purge.drain(..).map(Turn::Rows));
                of_row.clear();
                turns.push(Turn::Purge(*before, *expired_before));
            }
            (_, None) => {}
        }
    }
    turns.extend(since_purge.into_iter().map(Turn::Rows));
    turns
}

async fn change_rows(tx: &mut Tx<'_>, changes: &[&Change], now: Timestamp) -> Result<u64, Failed> {
    let (mut keys, mut kinds, mut observed) = (Vec::new(), Vec::new(), Vec::new());
    let (mut reasons, mut vapid_keys) = (Vec::new(), Vec::new());
    for change in changes {
        let (key, kind) = match change {
            Change::Retire { key, .. } => (key, "retire"),
            Change::Stale { key, .. } => (key, "stale"),
            Change::Accepted(key) => (key, "accepted"),
            Change::Failed(key) => (key, "failed"),
            Change::UseVapidKey { key, .. } => (key, "use"),
            Change::Delete { .. } | Change::Purge { .. } => continue,
        };
        keys.push(key.as_bytes().as_slice());
        kinds.push(kind);
        observed.push(match change {
            Change::Retire { observed_at, .. } | Change::Stale { observed_at, .. } => {
                Some(observed_at.as_millis())
            }
            _ => None,
        });
        reasons.push(match change {
            Change::Retire { reason, .. } => Some(reason.as_str()),
            _ => None,
        });
        vapid_keys.push(match change {
            Change::UseVapidKey { vapid_key, .. } => Some(vapid_key.as_bytes().as_slice()),
            _ => None,
        });
    }
    if keys.is_empty() {
        return Ok(0);
    }
    let now = now.as_millis();
    tx.execute(
        CHANGE,
        &[&now, &keys, &kinds, &observed, &reasons, &vapid_keys],
    )
    .await
}

/// Deletes up to `limit` rows that one of the three statements finds. Returns their number, and how many of them were
/// unproven and are not `counted` elsewhere.
async fn purge(
    tx: &mut Tx<'_>,
    rows_before: &'static str,
    before: Timestamp,
    limit: i64,
    counted: &HashSet<EndpointKey>,
) -> Result<(u64, i64), Failed> {
    let rows = tx
        .query(rows_before, &[&before.as_millis(), &limit])
        .await?;
    let rows = read(&rows, |columns| {
        let key = EndpointKey::from_bytes(columns.bytes()?);
        Ok((key, columns.get::<bool>()?))
    })?;
    let is_counted_here =
        |(key, is_unproven): &&(EndpointKey, bool)| *is_unproven && !counted.contains(key);
    let unproven = integer(rows.iter().filter(is_counted_here).count());
    let keys: Vec<_> = rows
        .iter()
        .map(|(key, _)| key.as_bytes().as_slice())
        .collect();
    Ok((delete(tx, &keys).await?, unproven))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_one_row_keep_their_order_and_a_purge_its_place() {
        let [a, b] = [1, 2].map(|n| EndpointKey::from_bytes([n; 32]));
        let purge = Change::Purge {
            before: Timestamp::from_secs(1),
            expired_before: Timestamp::from_secs(2),
        };
        let changes = [
            Change::Failed(a),
            Change::Accepted(b),
            Change::Accepted(a),
            purge.clone(),
            Change::Delete {
                key: a,
                principal: None,
                observed_at: Timestamp::MAX,
            },
        ];
        let turns: Vec<_> = turns(changes.iter())
            .into_iter()
            .map(|turn| match turn {
                Turn::Rows(rows) => rows.into_iter().cloned().collect(),
                Turn::Purge(before, expired_before) => vec![Change::Purge {
                    before,
                    expired_before,
                }],
            })
            .collect();
        let [first, second, third, fourth, fifth] = changes;
        assert_eq!(
            turns,
            [vec![first, second], vec![third], vec![fourth], vec![fifth]]
        );
    }
}
