//! Samples of failed deliveries in PostgreSQL.

use std::collections::HashMap;

use super::connection::{Database, Tx};
use super::error::Failed;
use super::rows::{first, read};
use crate::broadcast::BroadcastId;
use crate::store::failure_sample::text as samples;
use crate::store::rules::sample;
use crate::store::{FailureSample, StoreError};

pub(super) const OF_ID: &str = "SELECT f.samples FROM web_push.broadcast AS b \
     CROSS JOIN LATERAL (SELECT samples FROM web_push.failure_sample WHERE broadcast = b.seq OFFSET 0) AS f WHERE b.id = $1";
pub(super) const OF_SEQS: &str =
    "SELECT broadcast, samples FROM web_push.failure_sample WHERE broadcast = ANY($1)";
pub(super) const SAVE: &str = "INSERT INTO web_push.failure_sample (broadcast, samples) \
     SELECT * FROM unnest($1::bigint[], $2::text[]) \
     ON CONFLICT (broadcast) DO UPDATE SET samples = excluded.samples";
pub(super) const FORGET: &str = "DELETE FROM web_push.failure_sample WHERE broadcast = ANY($1)";

pub(super) async fn of(
    database: &Database,
    id: BroadcastId,
) -> Result<Vec<FailureSample>, StoreError> {
    let rows = database.query(OF_ID, &[&id.as_bytes().as_slice()]).await?;
    let found = first(&rows, |columns| columns.get::<&str>().map(samples::read))?;
    Ok(found.unwrap_or_default())
}

/// Adds samples to broadcasts, which are locked.
pub(super) async fn add(
    tx: &mut Tx<'_>,
    fresh: HashMap<i64, Vec<FailureSample>>,
) -> Result<(), Failed> {
    if fresh.is_empty() {
        return Ok(());
    }
    let seqs: Vec<_> = fresh.keys().copied().collect();
    let rows = tx.query(OF_SEQS, &[&seqs]).await?;
    let stored = read(&rows, |columns| {
        let seq: i64 = columns.get()?;
        Ok((seq, samples::read(columns.get()?)))
    })?;
    let mut stored: HashMap<_, _> = stored.into_iter().collect();
    let (mut seqs, mut texts) = (Vec::new(), Vec::new());
    for (seq, fresh) in fresh {
        let mut kept = stored.remove(&seq).unwrap_or_default();
        let mut is_changed = false;
        for new in fresh {
            is_changed |= sample(&mut kept, new);
        }
        if is_changed {
            seqs.push(seq);
            texts.push(samples::text(&kept));
        }
    }
    if !seqs.is_empty() {
        tx.execute(SAVE, &[&seqs, &texts]).await?;
    }
    Ok(())
}
