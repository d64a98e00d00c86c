//! Cancelling, expiring and pruning in PostgreSQL: rows that end without an attempt, and old broadcasts.

use std::collections::HashMap;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::attempts::in_transaction;
use super::broadcasts::{FORGET_UNREADABLE, Stored, WIPE, save};
use super::connection::{Database, Tx};
use super::error::Failed;
use super::rows::{Columns, first, integer, read};
use super::samples;
use super::taking::PASSED_AT_LEAST;
use crate::broadcast::{BroadcastId, BroadcastStatus};
use crate::clock::Timestamp;
use crate::observe;
use crate::store::rules::aside_sql;
use crate::store::{Pruned, STEP, StoreError};

/// Late or cancelled broadcasts per transaction.
const BROADCASTS: usize = 256;
/// Transactions of late broadcasts per call.
const PARTS: usize = 8;
/// Waiting rows that a step of pruning reads.
const READ_AT_ONCE: usize = 10 * STEP;

/// Skips locked rows: they are being claimed or settled, and that transaction reads the broadcast afterwards.
pub(super) const END_OF_MANY: &str = concat!(
    "WITH ended AS MATERIALIZED (SELECT one.ctid \
     FROM unnest($1::bigint[]) AS late (seq) CROSS JOIN LATERAL (SELECT ctid FROM web_push.delivery \
         WHERE broadcast = late.seq AND (NOT leased OR at <= $2 OR at >= ",
    aside_sql!(),
    ") ORDER BY key LIMIT $3 \
         FOR UPDATE SKIP LOCKED) AS one LIMIT $3) \
     DELETE FROM web_push.delivery AS d WHERE d.ctid = ANY(ARRAY(SELECT ctid FROM ended)) \
     RETURNING d.broadcast, d.origin, d.fence"
);
/// Rows of cancelled broadcasts that stand in front of others at some origins. Reads as many as a claim passes over.
pub(super) const END_IN_FRONT: &str = "WITH ended AS MATERIALIZED (SELECT locked.ctid FROM unnest($1::bigint[]) AS asked (origin) \
         CROSS JOIN (VALUES (0::smallint), (1::smallint), (2::smallint)) AS bands (band) \
         CROSS JOIN LATERAL (SELECT ctid, turn, broadcast FROM web_push.delivery \
             WHERE origin = asked.origin AND band = bands.band AND turn IS NOT NULL ORDER BY turn LIMIT $3) AS next \
         CROSS JOIN LATERAL (SELECT d.ctid FROM web_push.delivery AS d WHERE d.ctid = next.ctid AND d.turn = next.turn \
             FOR UPDATE SKIP LOCKED) AS locked \
         WHERE coalesce((SELECT b.is_cancelled AND b.ended_at IS NULL FROM web_push.broadcast AS b \
             WHERE b.seq = next.broadcast), false) LIMIT $2) \
     DELETE FROM web_push.delivery AS d WHERE d.ctid = ANY(ARRAY(SELECT ctid FROM ended)) \
     RETURNING d.broadcast, d.origin, d.fence";
/// Late broadcasts, and whether nothing of them is left: their last row ended while their counts could not be read. Skips those
/// whose remaining rows are leased. With `OFFSET 0` the planner cannot read all rows instead.
pub(super) const LATE: &str = concat!(
    "SELECT seq, is_empty FROM (SELECT seq, deadline, expanding, \
         NOT expanding AND NOT EXISTS (SELECT 1 FROM web_push.delivery AS d WHERE d.broadcast = b.seq OFFSET 0) AS is_empty \
         FROM web_push.broadcast AS b WHERE ended_at IS NULL AND deadline <= $1) AS late \
     WHERE expanding OR is_empty OR EXISTS (SELECT 1 FROM web_push.delivery AS d WHERE d.broadcast = late.seq \
         AND (NOT leased OR at <= $1 OR at >= ",
    aside_sql!(),
    ")) ORDER BY deadline, seq LIMIT $2"
);
/// Cancelled broadcasts with rows whose lease has ended, or whose cancellation is not complete.
macro_rules! unswept {
    () => {
        concat!(
            "SELECT seq FROM web_push.broadcast AS b WHERE is_cancelled AND ended_at IS NULL \
             AND EXISTS (SELECT 1 FROM web_push.delivery AS d WHERE d.broadcast = b.seq \
                 AND (NOT leased OR at <= $1 OR at >= ",
            $crate::store::rules::aside_sql!(),
            ")) ORDER BY seq LIMIT $2"
        )
    };
}
pub(super) use unswept;
pub(super) const UNSWEPT: &str = unswept!();
/// Makes origins due for their next probe if an ended row was the probe. Probes are found by their fence, which is
/// unique: a recipient may have rows of several broadcasts.
pub(super) const END_PROBES: &str = "UPDATE web_push.origin SET paused_until = $3, probe_fence = NULL, probe_key = NULL \
     WHERE id = ANY(ARRAY(SELECT id FROM web_push.origin AS o JOIN unnest($1::bigint[], $2::bigint[]) AS ended (origin, fence) \
         ON o.id = ended.origin AND o.probe_fence = ended.fence WHERE o.id = ANY($1) ORDER BY o.id FOR NO KEY UPDATE OF o))";
pub(super) const PRUNE: &str = "WITH over AS MATERIALIZED (SELECT ctid, seq FROM web_push.broadcast WHERE ended_at < $1 \
     ORDER BY ended_at LIMIT $2 FOR UPDATE SKIP LOCKED), \
     samples AS (DELETE FROM web_push.failure_sample WHERE broadcast = ANY(ARRAY(SELECT seq FROM over))) \
     DELETE FROM web_push.broadcast AS b WHERE b.ctid = ANY(ARRAY(SELECT ctid FROM over))";
/// The last of the next origins by id.
pub(super) const NEXT_ORIGINS: &str =
    "SELECT id FROM web_push.origin WHERE id > $1 ORDER BY id LIMIT 1 OFFSET $2";
/// Origins within a range of ids whose pause and tally are old. Skips locked ones.
pub(super) const OLD_ORIGINS: &str = "SELECT id FROM web_push.origin WHERE (paused_until IS NULL OR paused_until <= $1) \
     AND (tallied_at IS NULL OR tallied_at <= $1) AND id > $2 AND id <= $3 ORDER BY id FOR UPDATE SKIP LOCKED";
/// A second statement, whose snapshot includes all rows written before the locks were taken. Waiting rows are not indexed
/// by origin. With very many of them the origins stay until a later call.
pub(super) const PRUNE_ORIGINS: &str = "WITH waiting AS MATERIALIZED (SELECT origin FROM web_push.delivery WHERE turn IS NULL LIMIT $2) \
     DELETE FROM web_push.origin AS o WHERE o.id = ANY($1) AND (SELECT count(*) FROM waiting) < $2 \
     AND o.id NOT IN (SELECT origin FROM waiting) \
     AND NOT EXISTS (SELECT 1 FROM web_push.delivery AS d WHERE d.origin = o.id AND d.turn IS NOT NULL OFFSET 0)";

/// Cancels a broadcast in a short transaction, after which none of its rows is claimed, then ends rows in one step (L9).
/// Claims do the rest if the caller does not.
pub(super) async fn cancel(
    database: &Database,
    id: BroadcastId,
    now: Timestamp,
) -> Result<Option<BroadcastStatus>, StoreError> {
    let Some(stopped) = in_transaction!(database, |tx| stop(tx, id, now))? else {
        return Ok(None);
    };
    match stopped {
        Stopped::Over(status) => Ok(Some(status)),
        Stopped::At(seq) => in_transaction!(database, |tx| end_some(tx, seq, now)),
    }
}

/// The state of a stopped broadcast.
enum Stopped {
    /// It has no rows to end.
    Over(BroadcastStatus),
    At(i64),
}

async fn stop(tx: &mut Tx<'_>, id: BroadcastId, now: Timestamp) -> Result<Option<Stopped>, Failed> {
    let Some(mut stored) = Stored::lock(tx, id).await? else {
        return Ok(None);
    };
    if stored.progress.cancel() {
        save(tx, [&mut stored], now).await?;
    }
    Ok(Some(match stored.ended_at {
        Some(_) => Stopped::Over(stored.progress.status(now)),
        None => Stopped::At(stored.seq),
    }))
}

/// Ends some rows of a cancelled broadcast. Returns its status, or `None` if it was deleted meanwhile.
async fn end_some(
    tx: &mut Tx<'_>,
    seq: i64,
    now: Timestamp,
) -> Result<Option<BroadcastStatus>, Failed> {
    let ended = Ended::some(tx, &[seq], STEP, now).await?;
    let mut locked = Stored::lock_all(tx, &[seq]).await?;
    ended.count(tx, &mut locked, now).await?;
    Ok(locked.get(&seq).map(|stored| stored.progress.status(now)))
}

/// Ends late rows (L12), of one part of the late broadcasts after another: those with one recipient are many.
pub(super) async fn expire(
    database: &Database,
    limit: usize,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let limit = limit.min(STEP);
    let mut ended = 0;
    for _ in 0..PARTS {
        let left = limit - ended;
        let (rows, has_more) = in_transaction!(database, |tx| expire_some(tx, left, now))?;
        // Not more than are left.
        ended += usize::try_from(rows).unwrap_or(left);
        if !has_more || ended >= limit {
            break;
        }
    }
    Ok(ended as u64)
}

/// Returns the number of ended rows, and whether there may be more late broadcasts.
async fn expire_some(tx: &mut Tx<'_>, limit: usize, now: Timestamp) -> Result<(u64, bool), Failed> {
    // Not bounded by `limit`: broadcasts without rows end too, and would hide the others.
    let rows = tx
        .query(LATE, &[&now.as_millis(), &integer(BROADCASTS)])
        .await?;
    let late = read(&rows, |columns| {
        Ok((columns.get::<i64>()?, columns.get::<bool>()?))
    })?;
    let (late, is_empty): (Vec<_>, Vec<_>) = late.into_iter().unzip();
    let has_more = late.len() == BROADCASTS;
    if late.is_empty() {
        return Ok((0, false));
    }
    // Locked before their rows are read, since a page may still be written.
    let mut locked = Stored::lock_all(tx, &late).await?;
    let ended = Ended::some(tx, &late, limit, now).await?;
    ended.count(tx, &mut locked, now).await?;
    let unreadable = late.iter().filter(|seq| !locked.contains_key(seq));
    let unreadable: Vec<_> = unreadable.copied().collect();
    if !unreadable.is_empty() {
        forget_unreadable(tx, &unreadable).await?;
    }
    let empty = late.iter().zip(is_empty).filter(|(_, is_empty)| *is_empty);
    let empty = empty.filter_map(|(seq, _)| locked.remove(seq)).collect();
    end_empty(tx, empty, now).await?;
    Ok((ended.rows(), has_more))
}

/// Ends broadcasts without rows whose counts can be read again: they would be listed for ever. What is missing in these counts
/// has expired.
async fn end_empty(tx: &mut Tx<'_>, mut empty: Vec<Stored>, now: Timestamp) -> Result<(), Failed> {
    // Another process may have ended one meanwhile.
    empty.retain(|stored| stored.ended_at.is_none());
    for Stored { progress, .. } in &mut empty {
        let (outcome, lost) = (progress.expire(), progress.rows());
        progress.counts.add(outcome, lost);
    }
    save(tx, &mut empty, now).await
}

/// Removes broadcasts past their deadline whose counts cannot be read, as far as they have no rows.
async fn forget_unreadable(tx: &mut Tx<'_>, seqs: &[i64]) -> Result<(), Failed> {
    let rows = tx.query(FORGET_UNREADABLE, &[&seqs]).await?;
    let over: Vec<i64> = read(&rows, |columns| columns.get())?;
    if !over.is_empty() {
        tx.execute(WIPE, &[&over]).await?;
        tx.execute(samples::FORGET, &[&over]).await?;
        observe::event!(
            ERROR,
            broadcasts = over.len(),
            "broadcasts whose counts cannot be read ended at their deadline"
        );
    }
    Ok(())
}

/// Continues incomplete cancellations, and ends rows of cancelled broadcasts whose lease has ended (L9): one step.
pub(super) async fn sweep(database: &Database, now: Timestamp) -> Result<u64, StoreError> {
    in_transaction!(database, |tx| sweep_some(tx, now))
}

async fn sweep_some(tx: &mut Tx<'_>, now: Timestamp) -> Result<u64, Failed> {
    let rows = tx
        .query(UNSWEPT, &[&now.as_millis(), &integer(BROADCASTS)])
        .await?;
    let cancelled: Vec<i64> = read(&rows, |columns| columns.get())?;
    let ended = Ended::some(tx, &cancelled, STEP, now).await?;
    ended.finish(tx, now).await?;
    Ok(ended.rows())
}

/// Ends rows of cancelled broadcasts in the order of their turns at origins where a claim has passed over as many as it may:
/// one step.
pub(super) async fn sweep_front(
    database: &Database,
    origins: &[i64],
    now: Timestamp,
) -> Result<(), StoreError> {
    in_transaction!(database, |tx| sweep_front_of(tx, origins, now))
}

async fn sweep_front_of(tx: &mut Tx<'_>, origins: &[i64], now: Timestamp) -> Result<(), Failed> {
    let each = (STEP / origins.len().max(1)).max(PASSED_AT_LEAST);
    let values: [&(dyn ToSql + Sync); 3] = [&origins, &integer(STEP), &integer(each)];
    let rows = tx.query(END_IN_FRONT, &values).await?;
    let ended = Ended::of(&rows)?;
    ended.finish(tx, now).await
}

/// Rows that this transaction has deleted and not yet counted.
#[derive(Default)]
struct Ended {
    /// The number of rows by broadcast.
    of: HashMap<i64, u64>,
    /// The origin and fence of rows that were claimed before.
    origins: Vec<i64>,
    fences: Vec<i64>,
}

impl Ended {
    /// Deletes up to `limit` rows of broadcasts, in their order, that are not leased at `now`.
    async fn some(
        tx: &mut Tx<'_>,
        seqs: &[i64],
        limit: usize,
        now: Timestamp,
    ) -> Result<Self, Failed> {
        let values = (now.as_millis(), integer(limit));
        let rows = tx
            .query(END_OF_MANY, &[&seqs, &values.0, &values.1])
            .await?;
        Ok(Self::of(&rows)?)
    }

    fn of(rows: &[Row]) -> Result<Self, StoreError> {
        let mut ended = Self::default();
        for row in rows {
            ended.push(&mut Columns::of(row))?;
        }
        Ok(ended)
    }

    /// Counts rows of cancelled broadcasts, and ends probes among them.
    async fn finish(&self, tx: &mut Tx<'_>, now: Timestamp) -> Result<(), Failed> {
        let seqs: Vec<_> = self.of.keys().copied().collect();
        let mut locked = Stored::lock_all(tx, &seqs).await?;
        self.count(tx, &mut locked, now).await?;
        self.end_probes(tx, now).await
    }

    fn push(&mut self, columns: &mut Columns<'_>) -> Result<(), StoreError> {
        *self.of.entry(columns.get()?).or_default() += 1;
        let (origin, fence) = (columns.get()?, columns.get()?);
        // 0 means never claimed.
        if fence > 0 {
            self.origins.push(origin);
            self.fences.push(fence);
        }
        Ok(())
    }

    fn rows(&self) -> u64 {
        self.of.values().sum()
    }

    /// Counts the rows in their broadcasts, and ends the expansion of those.
    ///
    /// If rows are deleted first, the order of locks is that of settling: rows, broadcasts, origins. The lock on a
    /// broadcast is held from here to the commit.
    async fn count(
        &self,
        tx: &mut Tx<'_>,
        locked: &mut HashMap<i64, Stored>,
        now: Timestamp,
    ) -> Result<(), Failed> {
        let mut changed = Vec::new();
        for (seq, stored) in locked {
            let rows = self.of.get(seq).copied().unwrap_or(0);
            if rows > 0 || stored.progress.expanding {
                let outcome = stored.progress.expire();
                stored.progress.counts.add(outcome, rows);
                changed.push(stored);
            }
        }
        save(tx, changed, now).await
    }

    /// Makes the origins whose probe is among the rows due for their next probe.
    async fn end_probes(&self, tx: &mut Tx<'_>, now: Timestamp) -> Result<(), Failed> {
        if !self.fences.is_empty() {
            let now = now.as_millis();
            tx.execute(END_PROBES, &[&self.origins, &self.fences, &now])
                .await?;
        }
        Ok(())
    }
}

/// Removes old broadcasts and old origins with ids after `last_origin`. Returns the last id for the next step.
pub(super) async fn prune(
    tx: &mut Tx<'_>,
    ended_before: Timestamp,
    last_origin: i64,
) -> Result<(Pruned, i64), Failed> {
    let (before, step) = (ended_before.as_millis(), integer(STEP));
    let broadcasts = tx.execute(PRUNE, &[&before, &step]).await?;
    let rows = tx.query(NEXT_ORIGINS, &[&last_origin, &(step - 1)]).await?;
    let next: Option<i64> = first(&rows, |columns| columns.get())?;
    let end = next.unwrap_or(i64::MAX);
    let rows = tx
        .query(OLD_ORIGINS, &[&before, &last_origin, &end])
        .await?;
    let ids: Vec<i64> = read(&rows, |columns| columns.get())?;
    if !ids.is_empty() {
        tx.execute(PRUNE_ORIGINS, &[&ids, &integer(READ_AT_ONCE)])
            .await?;
    }
    let pruned = Pruned {
        broadcasts,
        more: broadcasts == STEP as u64 || next.is_some(),
    };
    // After the last origin the walk starts again.
    Ok((pruned, next.unwrap_or(i64::MIN)))
}
