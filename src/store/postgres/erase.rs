//! Erasing a user's pending deliveries in PostgreSQL.

use std::collections::HashMap;

use super::attempts::in_transaction;
use super::broadcasts::{Stored, save};
use super::connection::{Database, Tx};
use super::error::Failed;
use super::rows::{integer, read};
use super::{content, ending};
use crate::broadcast::{BroadcastId, FinalOutcome, Principal};
use crate::clock::Timestamp;
use crate::store::{Erased, STEP, StoreError, SubscriptionRecord};

/// The next open broadcasts: others have no content.
pub(super) const OPEN: &str = "SELECT broadcast, audience FROM web_push.content \
     WHERE broadcast > $1 ORDER BY broadcast LIMIT $2";
/// Waits for concurrent claims and settlements of these rows.
pub(super) const ERASE: &str = "DELETE FROM web_push.delivery AS d \
     USING unnest($1::bigint[]) AS open (seq) CROSS JOIN unnest($2::bytea[]) AS theirs (key) \
     WHERE d.broadcast = open.seq AND d.key = theirs.key \
     RETURNING d.broadcast, d.origin, d.fence";

/// Erases rows and cancels broadcasts (L17) in steps of one transaction each, then ends the rest of the cancelled ones as
/// a cancellation does.
pub(super) async fn erase(
    database: &Database,
    user: &Principal,
    subscriptions: &[SubscriptionRecord],
    now: Timestamp,
) -> Result<Erased, StoreError> {
    let mut erased = Erased::default();
    let mut last = Some(i64::MIN);
    while let Some(after) = last {
        let step = in_transaction!(database, |tx| erase_in(tx, user, subscriptions, after, now))?;
        erased.deliveries += step.deliveries;
        for id in step.cancelled {
            erased.broadcasts += 1;
            ending::cancel(database, id, now).await?;
        }
        last = step.last;
    }
    Ok(erased)
}

/// The result of one step.
struct Step {
    deliveries: u64,
    /// The cancelled broadcasts, whose other rows are still to be ended.
    cancelled: Vec<BroadcastId>,
    /// The last broadcast; `None` if there are no more.
    last: Option<i64>,
}

/// Erases from the next open broadcasts. One step looks for at most about [`STEP`] rows.
async fn erase_in(
    tx: &mut Tx<'_>,
    user: &Principal,
    subscriptions: &[SubscriptionRecord],
    after: i64,
    now: Timestamp,
) -> Result<Step, Failed> {
    let limit = (STEP / subscriptions.len().max(1)).max(1);
    let open = read(
        &tx.query(OPEN, &[&after, &integer(limit)]).await?,
        |columns| {
            // One that cannot be read holds up no erasure: it is not expanded either.
            Ok((columns.get::<i64>()?, content::audience(columns).ok()))
        },
    )?;
    let last = open.last().filter(|_| open.len() == limit);
    let last = last.map(|(seq, _)| *seq);
    let seqs: Vec<_> = open.iter().map(|(seq, _)| *seq).collect();
    let keys: Vec<_> = subscriptions
        .iter()
        .map(|row| row.subscription.endpoint().key())
        .collect();
    let keys: Vec<_> = keys.iter().map(|key| key.as_bytes().as_slice()).collect();
    let rows = read(&tx.query(ERASE, &[&seqs, &keys]).await?, |columns| {
        Ok((columns.get()?, columns.get()?, columns.get()?))
    })?;
    let ids: Vec<_> = subscriptions.iter().map(|row| row.id).collect();
    // The number of ended rows by broadcast, and whether the broadcast is cancelled.
    let mut ended: HashMap<i64, (u64, bool)> = HashMap::new();
    for (seq, audience) in &open {
        let audience = audience.as_ref();
        if audience.is_some_and(|audience| audience.is_only_for(user, &ids)) {
            ended.insert(*seq, (0, true));
        }
    }
    let (mut origins, mut fences): (Vec<i64>, Vec<i64>) = Default::default();
    for (seq, origin, fence) in &rows {
        ended.entry(*seq).or_default().0 += 1;
        origins.push(*origin);
        fences.push(*fence);
    }
    let mut seqs: Vec<_> = ended.keys().copied().collect();
    seqs.sort_unstable();
    let mut locked = Stored::lock_all(tx, &seqs).await?;
    let mut cancelled = Vec::new();
    for (seq, stored) in &mut locked {
        let (rows, is_theirs) = ended.get(seq).copied().unwrap_or_default();
        let progress = &mut stored.progress;
        // Cancelled before its rows are counted: a broadcast without rows would be over.
        if is_theirs && progress.cancel() {
            cancelled.push(progress.id);
        }
        progress.counts.add(FinalOutcome::Cancelled, rows);
    }
    save(tx, locked.values_mut(), now).await?;
    if !rows.is_empty() {
        let now = now.as_millis();
        tx.execute(ending::END_PROBES, &[&origins, &fences, &now])
            .await?;
    }
    Ok(Step {
        deliveries: rows.len() as u64,
        cancelled,
        last,
    })
}
