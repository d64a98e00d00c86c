//! Settling and releasing claimed rows in PostgreSQL.

use std::collections::{HashMap, HashSet};

use tokio_postgres::types::ToSql;

use super::broadcasts::{Stored, save};
use super::connection::Tx;
use super::error::Failed;
use super::rows::{Columns, integer, read};
use super::samples;
use super::subscription_changes;
use crate::broadcast::FinalOutcome;
use crate::clock::Timestamp;
use crate::store::readable::readable_or_none;
use crate::store::rules::due_at;
use crate::store::{Change, ClaimToken, FailureSample, Settled, Settlement, StoreError};

/// Locks the rows with valid tokens in one order, and returns their places. Waits only for other holders of a row's token.
///
/// `LATERAL` with a lock of its own, or with `OFFSET 0`, keeps the planner from reversing the lookups: right after a
/// vacuum of an almost empty queue it takes the table for one row, and would scan all of it. For the same reason `leased`
/// is hidden from the partial index.
pub(super) const HELD: &str = "WITH asked AS MATERIALIZED (SELECT token.place, b.seq, token.key, token.fence \
         FROM unnest($1::bytea[], $2::bytea[], $3::bigint[]) WITH ORDINALITY AS token (id, key, fence, place) \
         CROSS JOIN LATERAL (SELECT seq FROM web_push.broadcast WHERE broadcast.id = token.id OFFSET 0) AS b \
         ORDER BY b.seq, token.key) \
     SELECT asked.place, asked.seq, held.origin, held.ctid::text FROM asked CROSS JOIN LATERAL ( \
         SELECT d.origin, d.ctid FROM web_push.delivery AS d WHERE d.broadcast = asked.seq AND d.key = asked.key \
             AND CASE WHEN d.leased THEN d.fence END = asked.fence FOR UPDATE) AS held";
/// By `ctid`: the rows are locked, so that it does not change.
pub(super) const FINISH: &str = "DELETE FROM web_push.delivery WHERE ctid = ANY($1::text[]::tid[])";
pub(super) const POSTPONE: &str = "UPDATE web_push.delivery AS d SET leased = false, worker = NULL, at = again.at, turn = NULL, \
     attempt = greatest(d.attempt, again.untried) - again.untried \
     FROM unnest($1::text[]::tid[], $2::bigint[], $3::bigint[]) AS again (place, at, untried) \
     WHERE d.ctid = again.place";
/// The probes of paused origins. Usually none.
pub(super) const PROBES: &str = "SELECT id, probe_fence, probe_key FROM web_push.origin \
     WHERE id = ANY($1) AND probe_fence IS NOT NULL ORDER BY id FOR NO KEY UPDATE";
/// Makes probed origins due for their next probe.
pub(super) const END_PROBES: &str = "UPDATE web_push.origin SET paused_until = $2, probe_fence = NULL, probe_key = NULL \
     WHERE id = ANY($1)";

/// A row with a valid token.
struct Held {
    place: usize,
    seq: i64,
    origin: i64,
    /// The row's place, valid until the transaction ends.
    ctid: String,
}

/// The order of locks is rows, broadcasts, origins. The holder of a broadcast's lock waits for no row, so that there are
/// no deadlocks. A broadcast's counts are locked from here to the commit.
pub(super) async fn settle(
    tx: &mut Tx<'_>,
    ends: &[(ClaimToken, Settlement)],
    now: Timestamp,
) -> Result<Vec<Settled>, Failed> {
    let mut answers = vec![Settled::Lost; ends.len()];
    let held = lock(tx, ends).await?;
    let mut seqs: Vec<_> = held.iter().map(|row| row.seq).collect();
    seqs.sort_unstable();
    seqs.dedup();
    let mut broadcasts = Stored::lock_all(tx, &seqs).await?;
    let mut changes = Changes::default();
    let mut counted = HashSet::new();
    let mut failed: HashMap<_, Vec<_>> = HashMap::new();
    for row in &held {
        let (Some((token, end)), Some(answer)) = (ends.get(row.place), answers.get_mut(row.place))
        else {
            continue;
        };
        // Without readable counts nothing is counted, and the rows are settled all the same.
        let mut stored = broadcasts.get_mut(&row.seq);
        let is_cancelled = stored.as_ref().is_some_and(|row| row.progress.cancelled);
        let end = match end {
            // L9: it was leased when the broadcast was cancelled.
            Settlement::RetryAt(_) | Settlement::Deferred(_) if is_cancelled => {
                Settlement::Finished(FinalOutcome::Cancelled)
            }
            end => *end,
        };
        if let (Settlement::Finished(outcome) | Settlement::Failed(outcome, _), Some(stored)) =
            (end, &mut stored)
        {
            stored.progress.counts.add(outcome, 1);
            counted.insert(row.seq);
        }
        if let Settlement::Failed(outcome, cause) = end {
            failed.entry(row.seq).or_default().push(FailureSample {
                key: token.key,
                at: now,
                outcome,
                cause,
            });
        }
        changes.push(row, token, end);
        *answer = Settled::Done;
    }
    changes.write(tx).await?;
    // Before the broadcasts, which may be forgotten.
    samples::add(tx, failed).await?;
    broadcasts.retain(|seq, _| counted.contains(seq));
    save(tx, broadcasts.values_mut(), now).await?;
    changes.end_probes(tx, now).await?;
    Ok(answers)
}

/// Makes changes of subscriptions, then settles. Nothing that locks deliveries waits for subscriptions afterwards, so that
/// there are no deadlocks. The numbers of subscriptions come last: while they are locked, this waits for nothing else.
pub(super) async fn settle_with(
    tx: &mut Tx<'_>,
    changes: &[Change],
    ends: &[(ClaimToken, Settlement)],
    now: Timestamp,
) -> Result<Vec<Settled>, Failed> {
    let made = subscription_changes::make(tx, changes, now).await?;
    let settled = settle(tx, ends, now).await?;
    made.numbers.write(tx).await?;
    Ok(settled)
}

/// Locks the rows with valid tokens, each once.
async fn lock(tx: &mut Tx<'_>, ends: &[(ClaimToken, Settlement)]) -> Result<Vec<Held>, Failed> {
    if ends.is_empty() {
        return Ok(Vec::new());
    }
    let (mut ids, mut keys, mut fences) = (Vec::new(), Vec::new(), Vec::new());
    for (token, _) in ends {
        ids.push(token.broadcast.as_bytes().as_slice());
        keys.push(token.key.as_bytes().as_slice());
        fences.push(integer(token.fence));
    }
    let rows = tx.query(HELD, &[&ids, &keys, &fences]).await?;
    let read_held = |columns: &mut Columns<'_>| -> Result<Held, StoreError> {
        let place: i64 = columns.get()?;
        Ok(Held {
            place: usize::try_from(place - 1).unwrap_or(usize::MAX),
            seq: columns.get()?,
            origin: columns.get()?,
            ctid: columns.get()?,
        })
    };
    let mut held = read(&rows, read_held)?;
    // If a token occurs twice, the first settlement spends it.
    held.sort_by_key(|row| row.place);
    let mut seen = HashSet::new();
    held.retain(|row| {
        let token = ends.get(row.place).map(|(token, _)| *token);
        seen.insert(token)
    });
    Ok(held)
}

/// The columns of the changes as arrays.
#[derive(Default)]
struct Changes<'a> {
    finished: Vec<&'a str>,
    again: Vec<&'a str>,
    /// The due times of retried rows, and the attempts that they take back.
    at: Vec<i64>,
    untried: Vec<i64>,
    /// The origin, fence and key of each row.
    all: HashSet<(i64, i64, [u8; 32])>,
}

impl<'a> Changes<'a> {
    fn push(&mut self, row: &'a Held, token: &ClaimToken, end: Settlement) {
        match end {
            Settlement::Finished(_) | Settlement::Failed(..) => self.finished.push(&row.ctid),
            Settlement::RetryAt(at) | Settlement::Deferred(at) => {
                self.again.push(&row.ctid);
                self.at.push(due_at(at));
                self.untried
                    .push(i64::from(matches!(end, Settlement::Deferred(_))));
            }
        }
        self.all
            .insert((row.origin, integer(token.fence), *token.key.as_bytes()));
    }

    async fn write(&self, tx: &mut Tx<'_>) -> Result<(), Failed> {
        if !self.finished.is_empty() {
            tx.execute(FINISH, &[&self.finished]).await?;
        }
        if !self.again.is_empty() {
            let values: [&(dyn ToSql + Sync); 3] = [&self.again, &self.at, &self.untried];
            tx.execute(POSTPONE, &values).await?;
        }
        Ok(())
    }

    async fn end_probes(&self, tx: &mut Tx<'_>, now: Timestamp) -> Result<(), Failed> {
        let mut origins: Vec<_> = self.all.iter().map(|(origin, ..)| *origin).collect();
        origins.sort_unstable();
        origins.dedup();
        if origins.is_empty() {
            return Ok(());
        }
        let rows = tx.query(PROBES, &[&origins]).await?;
        // One that cannot be read is no row's: its pause ends in time.
        let probes = read(&rows, |columns| {
            let mut probe = || Ok((columns.get()?, columns.get()?, columns.bytes::<32>()?));
            readable_or_none(probe())
        })?;
        let mut probes: Vec<_> = probes.into_iter().flatten().collect();
        probes.retain(|probe| self.all.contains(probe));
        let ended: Vec<_> = probes.iter().map(|(origin, ..)| *origin).collect();
        if !ended.is_empty() {
            tx.execute(END_PROBES, &[&ended, &now.as_millis()]).await?;
        }
        Ok(())
    }
}
