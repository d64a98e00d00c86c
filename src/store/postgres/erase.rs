//! Erasing a user's pending deliveries in PostgreSQL.

use std::collections::HashMap;

use super::broadcasts::{Stored, save};
use super::connection::{Database, Tx, in_transaction};
use super::error::Failed;
use super::rows::read;
use super::{content, ending};
use crate::broadcast::{Audience, BroadcastId, FinalOutcome, Principal};
use crate::clock::Timestamp;
use crate::store::{Erased, StoreError, SubscriptionRecord};

/// Broadcasts to one user, or to some subscriptions.
pub(super) const ADDRESSED: &str = "SELECT broadcast, audience FROM web_push.content \
     WHERE audience = $1 OR audience LIKE '{\"ids\":%'";
/// Waits for concurrent claims and settlements of these rows.
pub(super) const ERASE: &str = "DELETE FROM web_push.delivery AS d USING web_push.broadcast AS b \
     WHERE b.ended_at IS NULL AND d.broadcast = b.seq AND d.key = ANY($1) \
     RETURNING d.broadcast, d.origin, d.fence";

/// Erases rows and cancels broadcasts in one transaction (L17), then ends the rest of the cancelled ones as a cancellation
/// does.
pub(super) async fn erase(
    database: &Database,
    user: &Principal,
    subscriptions: &[SubscriptionRecord],
    now: Timestamp,
) -> Result<Erased, StoreError> {
    let (mut erased, cancelled) =
        in_transaction!(database, |tx| erase_in(tx, user, subscriptions, now))?;
    for id in cancelled {
        erased.broadcasts += 1;
        ending::cancel(database, id, now).await?;
    }
    Ok(erased)
}

/// Returns what was erased, and the cancelled broadcasts, whose other rows are still to be ended.
async fn erase_in(
    tx: &mut Tx<'_>,
    user: &Principal,
    subscriptions: &[SubscriptionRecord],
    now: Timestamp,
) -> Result<(Erased, Vec<BroadcastId>), Failed> {
    let keys: Vec<_> = subscriptions
        .iter()
        .map(|row| row.subscription.endpoint().key())
        .collect();
    let keys: Vec<_> = keys.iter().map(|key| key.as_bytes().as_slice()).collect();
    let rows = read(&tx.query(ERASE, &[&keys]).await?, |columns| {
        Ok((columns.get()?, columns.get()?, columns.get()?))
    })?;
    let ids: Vec<_> = subscriptions.iter().map(|row| row.id).collect();
    let text = content::audience_text(&Audience::User(user.clone()))?;
    let addressed = read(&tx.query(ADDRESSED, &[&text]).await?, |columns| {
        Ok((columns.get::<i64>()?, content::audience(columns)?))
    })?;
    // The number of ended rows by broadcast, and whether the broadcast is cancelled.
    let mut ended: HashMap<i64, (u64, bool)> = HashMap::new();
    for (seq, audience) in &addressed {
        if audience.is_only_for(user, &ids) {
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
    let erased = Erased {
        deliveries: rows.len() as u64,
        broadcasts: 0,
    };
    Ok((erased, cancelled))
}
