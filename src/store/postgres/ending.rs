//! Rows that come to their end without an attempt, and broadcasts that are forgotten, in PostgreSQL.

use std::collections::HashMap;

use super::broadcasts::{Stored, save};
use super::connection::Tx;
use super::error::Failed;
use super::rows::{first, integer, read};
use crate::broadcast::{BroadcastId, BroadcastStatus, FinalOutcome};
use crate::clock::Timestamp;
use crate::store::StoreError;

/// Rows that one statement takes.
const AT_ONCE: usize = 10_000;
/// Late or cancelled broadcasts that one call looks at.
const BROADCASTS: usize = 256;

/// Rows that somebody holds at this moment are about to be claimed or settled, and whoever does that looks at the
/// broadcast afterwards: nobody waits for them here.
pub(super) const END: &str = "WITH ended AS MATERIALIZED (SELECT ctid FROM web_push.delivery \
     WHERE broadcast = $1 AND key > $2 AND (NOT leased OR at <= $3) ORDER BY key LIMIT $4 \
     FOR UPDATE SKIP LOCKED) \
     DELETE FROM web_push.delivery AS d WHERE d.ctid = ANY(ARRAY(SELECT ctid FROM ended)) \
     RETURNING d.key";
pub(super) const END_OF_MANY: &str = "WITH ended AS MATERIALIZED (SELECT one.ctid \
     FROM unnest($1::bigint[]) AS late (seq) CROSS JOIN LATERAL (SELECT ctid FROM web_push.delivery \
         WHERE broadcast = late.seq AND (NOT leased OR at <= $2) ORDER BY key LIMIT $3 \
         FOR UPDATE SKIP LOCKED) AS one LIMIT $3) \
     DELETE FROM web_push.delivery AS d WHERE d.ctid = ANY(ARRAY(SELECT ctid FROM ended)) \
     RETURNING d.broadcast, d.origin, d.fence";
/// Those whose last rows are leased are left alone.
pub(super) const LATE: &str = "SELECT seq FROM web_push.broadcast AS b WHERE ended_at IS NULL AND deadline <= $1 \
     AND (expanding OR EXISTS (SELECT 1 FROM web_push.delivery AS d WHERE d.broadcast = b.seq \
         AND (NOT leased OR at <= $1))) \
     ORDER BY deadline, seq LIMIT $2";
/// Cancelled ones with rows that were leased then, and are no more.
pub(super) const UNSWEPT: &str = "SELECT seq FROM web_push.broadcast AS b WHERE is_cancelled AND ended_at IS NULL \
     AND EXISTS (SELECT 1 FROM web_push.delivery AS d WHERE d.broadcast = b.seq AND (NOT leased OR at <= $1)) \
     ORDER BY seq LIMIT $2";
/// A row that was a probe came to its end: it makes room for the next. Known by its fence, which no other row has: a
/// recipient may have rows of several broadcasts.
pub(super) const END_PROBES: &str = "UPDATE web_push.origin SET paused_until = $3, probe_fence = NULL, probe_key = NULL \
     WHERE id IN (SELECT id FROM web_push.origin AS o JOIN unnest($1::bigint[], $2::bigint[]) AS ended (origin, fence) \
         ON o.id = ended.origin AND o.probe_fence = ended.fence ORDER BY o.id FOR NO KEY UPDATE OF o)";
pub(super) const PRUNE: &str = "WITH over AS MATERIALIZED (SELECT ctid FROM web_push.broadcast WHERE ended_at < $1 \
     ORDER BY ended_at LIMIT $2 FOR UPDATE SKIP LOCKED) \
     DELETE FROM web_push.broadcast AS b WHERE b.ctid = ANY(ARRAY(SELECT ctid FROM over))";
/// Origins that do not wait; who is in use at this moment is left alone.
pub(super) const OLD_ORIGINS: &str = "SELECT id FROM web_push.origin WHERE (paused_until IS NULL OR paused_until <= $1) \
     AND (tallied_at IS NULL OR tallied_at <= $1) AND id > $2 ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED";
/// A statement of its own, so that it sees what was written until they were locked.
pub(super) const PRUNE_ORIGINS: &str = "DELETE FROM web_push.origin AS o WHERE o.id = ANY($1) \
     AND NOT EXISTS (SELECT 1 FROM web_push.delivery AS d WHERE d.origin = o.id)";

/// One transaction, since a cancellation is whole or none; its statements are bounded.
pub(super) async fn cancel(
    tx: &mut Tx<'_>,
    id: BroadcastId,
    now: Timestamp,
) -> Result<Option<BroadcastStatus>, Failed> {
    let Some(mut stored) = Stored::lock(tx, id).await? else {
        return Ok(None);
    };
    if !stored.progress.cancelled && stored.ended_at.is_none() {
        stored.progress.cancelled = true;
        stored.progress.give_up_unwritten(FinalOutcome::Cancelled);
        let mut last: Vec<u8> = Vec::new();
        loop {
            let values = (stored.seq, now.as_millis(), integer(AT_ONCE));
            let rows = tx
                .query(END, &[&values.0, &last, &values.1, &values.2])
                .await?;
            let keys = read(&rows, |columns| columns.get::<Vec<u8>>())?;
            let ended = keys.len();
            let cancelled = FinalOutcome::Cancelled;
            stored.progress.counts.add(cancelled, ended as u64);
            // From there on: what was deleted is not looked at again.
            last = keys.into_iter().max().unwrap_or_default();
            if ended < AT_ONCE {
                break;
            }
        }
        save(tx, [&mut stored], now).await?;
    }
    Ok(Some(stored.progress.status(now)))
}

pub(super) async fn expire(tx: &mut Tx<'_>, limit: usize, now: Timestamp) -> Result<u64, Failed> {
    let at_most = limit.min(BROADCASTS);
    let rows = tx
        .query(LATE, &[&now.as_millis(), &integer(at_most)])
        .await?;
    let late: Vec<i64> = read(&rows, |columns| columns.get())?;
    end_unleased(tx, &late, limit, now).await
}

/// Ends rows of cancelled broadcasts whose lease has ended (L9); how many.
pub(super) async fn sweep(tx: &mut Tx<'_>, now: Timestamp) -> Result<u64, Failed> {
    let rows = tx
        .query(UNSWEPT, &[&now.as_millis(), &integer(BROADCASTS)])
        .await?;
    let cancelled: Vec<i64> = read(&rows, |columns| columns.get())?;
    end_unleased(tx, &cancelled, AT_ONCE, now).await
}

/// Ends up to `limit` rows of broadcasts, in their order, that are not leased at `now`, and stops their expansion.
async fn end_unleased(
    tx: &mut Tx<'_>,
    seqs: &[i64],
    limit: usize,
    now: Timestamp,
) -> Result<u64, Failed> {
    let mut locked = Stored::lock_all(tx, seqs).await?;
    if locked.is_empty() {
        return Ok(0);
    }
    let rows = tx
        .query(
            END_OF_MANY,
            &[&seqs, &now.as_millis(), &integer(limit.min(AT_ONCE))],
        )
        .await?;
    let mut ended: HashMap<i64, u64> = HashMap::new();
    let (mut origins, mut fences) = (Vec::new(), Vec::new());
    for (seq, origin, fence) in read(&rows, |columns| {
        Ok((
            columns.get::<i64>()?,
            columns.get::<i64>()?,
            columns.get::<i64>()?,
        ))
    })? {
        *ended.entry(seq).or_default() += 1;
        origins.push(origin);
        fences.push(fence);
    }
    let mut changed = Vec::new();
    for (seq, stored) in &mut locked {
        let outcome = if stored.progress.cancelled {
            FinalOutcome::Cancelled
        } else {
            FinalOutcome::Expired
        };
        let rows = ended.get(seq).copied().unwrap_or(0);
        if rows > 0 || stored.progress.expanding {
            stored.progress.give_up_unwritten(outcome);
            stored.progress.counts.add(outcome, rows);
            changed.push(stored);
        }
    }
    save(tx, changed, now).await?;
    if !fences.is_empty() {
        let now = now.as_millis();
        tx.execute(END_PROBES, &[&origins, &fences, &now]).await?;
    }
    Ok(rows.len() as u64)
}

pub(super) async fn prune(tx: &mut Tx<'_>, ended_before: Timestamp) -> Result<u64, Failed> {
    let (before, at_once) = (ended_before.as_millis(), integer(AT_ONCE));
    let mut pruned = 0;
    loop {
        let some = tx.execute(PRUNE, &[&before, &at_once]).await?;
        pruned += some;
        if some < AT_ONCE as u64 {
            break;
        }
    }
    let mut last = i64::MIN;
    loop {
        let rows = tx.query(OLD_ORIGINS, &[&before, &last, &at_once]).await?;
        let ids: Vec<i64> = read(&rows, |columns| columns.get())?;
        let Some(newest) = ids.last() else {
            break;
        };
        last = *newest;
        tx.execute(PRUNE_ORIGINS, &[&ids]).await?;
    }
    Ok(pruned)
}

/// Whether there is something to sweep.
pub(super) async fn is_unswept(
    database: &super::connection::Database,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let rows = database.query(UNSWEPT, &[&now.as_millis(), &1_i64]).await?;
    Ok(first(&rows, |columns| columns.get::<i64>())?.is_some())
}
