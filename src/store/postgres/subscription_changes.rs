//! Changes to stored subscriptions in PostgreSQL: in order, many in one statement.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::connection::Tx;
use super::error::Failed;
use super::rows::{Values, integer, read};
use super::subscription_numbers::{Counted, Numbers, counted_columns, unproven};
use super::subscription_rows::{delete, principal_bytes};
use crate::clock::Timestamp;
use crate::store::{Change, RetireReason, STEP};
use crate::subscription::EndpointKey;

/// Locks in one order.
pub(super) const LOCK: &str = concat!(
    "SELECT s.key, s.principal, s.last_seen_at, ",
    unproven!(),
    " FROM web_push.subscription AS s WHERE s.key = ANY($1) ORDER BY s.key FOR UPDATE"
);
/// Skips locked rows: they are being renewed.
pub(super) const RETIRED_BEFORE: &str = concat!(
    "SELECT ",
    counted_columns!(),
    " FROM web_push.subscription AS s WHERE s.retired_at < $1 ORDER BY s.retired_at LIMIT $2 FOR UPDATE SKIP LOCKED"
);
pub(super) const STALE_BEFORE: &str = concat!(
    "SELECT ",
    counted_columns!(),
    " FROM web_push.subscription AS s WHERE s.stale_since < $1 ORDER BY s.stale_since LIMIT $2 FOR UPDATE SKIP LOCKED"
);
/// Of those that are retired or stale.
pub(super) const EXPIRED_BEFORE: &str = concat!(
    "SELECT ",
    counted_columns!(),
    " FROM web_push.subscription AS s WHERE s.expires_at < $1 AND (s.retired_at IS NOT NULL OR s.stale_since IS NOT NULL) \
     ORDER BY s.expires_at LIMIT $2 FOR UPDATE SKIP LOCKED"
);
/// Those that are neither retired nor stale, and whether they expired before $3.
pub(super) const EXPIRED: &str = concat!(
    "SELECT s.expires_at < $3, ",
    counted_columns!(),
    " FROM web_push.subscription AS s WHERE s.expires_at <= $1 AND s.retired_at IS NULL AND s.stale_since IS NULL \
     ORDER BY s.expires_at LIMIT $2 FOR UPDATE SKIP LOCKED"
);
pub(super) const RETIRE: &str =
    "UPDATE web_push.subscription SET retired_at = $1, retire_reason = $2 WHERE key = ANY($3)";
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

/// Changes that were made.
pub(super) struct Made {
    /// The number of changed and deleted rows.
    pub(super) rows: u64,
    /// To write last in the transaction.
    pub(super) numbers: Numbers,
}

pub(super) async fn apply(
    tx: &mut Tx<'_>,
    changes: &[Change],
    now: Timestamp,
) -> Result<u64, Failed> {
    let made = make(tx, changes, now).await?;
    made.numbers.write(tx).await?;
    Ok(made.rows)
}

/// Makes changes, except for the numbers.
pub(super) async fn make(
    tx: &mut Tx<'_>,
    changes: &[Change],
    now: Timestamp,
) -> Result<Made, Failed> {
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
    let changes: Vec<_> = changes.iter().filter(is_for_us).collect();
    let moving: BTreeSet<_> = changes
        .iter()
        .filter_map(|change| {
            let key = change.key()?;
            (may_recount(change) || unproven.contains(key)).then_some(key)
        })
        .collect();
    let mut before: HashMap<_, _> = Counted::find(tx, moving).await?.into_iter().collect();
    let mut changed = 0;
    let mut deleted = 0;
    for turn in turns(changes.into_iter()) {
        match turn {
            Turn::Purge(unreachable_before, expired_before) => {
                let mut left = STEP;
                for (rows, at) in [
                    (RETIRED_BEFORE, unreachable_before),
                    (STALE_BEFORE, unreachable_before),
                    (EXPIRED_BEFORE, expired_before),
                ] {
                    let purged = purge(tx, rows, at, left).await?;
                    left -= purged.len();
                    deleted += purged.len() as u64;
                    for (key, row) in purged {
                        before.entry(key).or_insert(row);
                    }
                }
                let expired = expire(tx, left, expired_before, now).await?;
                changed += expired.len() as u64;
                for (key, row) in expired {
                    before.entry(key).or_insert(row);
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
    let mut numbers = Numbers::default();
    for row in before.values() {
        numbers.minus(row);
    }
    for (_, row) in Counted::find(tx, before.keys()).await? {
        numbers.plus(&row);
    }
    let rows = changed + deleted;
    Ok(Made { rows, numbers })
}

/// Whether a row may be counted as something else after a change. A change can prove a row too, but not the reverse: most are
/// proven.
const fn may_recount(change: &Change) -> bool {
    match change {
        Change::Accepted(_) | Change::Failed(_) => false,
        Change::Delete { .. }
        | Change::Retire { .. }
        | Change::Stale { .. }
        | Change::UseVapidKey { .. }
        | Change::Purge { .. } => true,
    }
}

/// Changes that can be made in one statement.
enum Turn<'a> {
    /// Changes of distinct rows.
    Rows(Vec<&'a Change>),
    /// Deletes rows that are retired or stale since before the first time, or expired before the second, and deletes or retires
    /// those that have expired.
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

/// Deletes up to `limit` rows that one of the three statements finds. Returns what they were counted as, by key.
async fn purge(
    tx: &mut Tx<'_>,
    rows_before: &'static str,
    before: Timestamp,
    limit: usize,
) -> Result<Vec<(EndpointKey, Counted)>, Failed> {
    let values: Values<'_> = &[&before.as_millis(), &integer(limit)];
    let rows = read(&tx.query(rows_before, values).await?, Counted::read)?;
    let keys: Vec<_> = rows
        .iter()
        .map(|(key, _)| key.as_bytes().as_slice())
        .collect();
    delete(tx, &keys).await?;
    Ok(rows)
}

/// Of up to `limit` live rows that have expired deletes those that are unproven or expired before a time, and retires the others
/// (S13). Returns what they were counted as, by key.
async fn expire(
    tx: &mut Tx<'_>,
    limit: usize,
    before: Timestamp,
    now: Timestamp,
) -> Result<Vec<(EndpointKey, Counted)>, Failed> {
    let (now, before) = (now.as_millis(), before.as_millis());
    let until = now.max(before.saturating_sub(1));
    let values: Values<'_> = &[&until, &integer(limit), &before];
    let rows = read(&tx.query(EXPIRED, values).await?, |columns| {
        let is_old: bool = columns.get()?;
        Ok((is_old, Counted::read(columns)?))
    })?;
    let (mut purged, mut others) = (Vec::new(), Vec::new());
    for (is_old, (key, row)) in &rows {
        let keys = match *is_old || row.is_unproven() {
            true => &mut purged,
            false => &mut others,
        };
        keys.push(key.as_bytes().as_slice());
    }
    delete(tx, &purged).await?;
    if !others.is_empty() {
        let reason = RetireReason::Expired.as_str();
        tx.execute(RETIRE, &[&now, &reason, &others]).await?;
    }
    Ok(rows.into_iter().map(|(_, row)| row).collect())
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
