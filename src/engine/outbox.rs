//! The outbox: broadcasts that the application wrote in transactions of its own are opened.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use tokio::task::JoinSet;

use super::Engine;
use super::accept::check;
use crate::broadcast::{Broadcast, BroadcastId};
use crate::clock::Timestamp;
use crate::observe;
use crate::store::{
    NewBroadcast, OutboxEntry, OutboxRefusal, OutboxSettled, OutboxSettlement, StoreError,
    StoreErrorKind,
};

/// The most entries that are settled in one transaction.
pub(super) const ENTRIES: usize = 100;
/// The parts of [`ENTRIES`] of which a look chooses one while others settle entries too.
const PARTS: usize = 8;
/// The most audiences that are read at the same time.
const READS: usize = 16;
/// Refuse an entry that has panicked after it was put off this often, in some 20 minutes of panics alone: those that wait are read by each look.
const PUT_OFFS: u32 = 8;
/// The code of such a refusal.
const PANICKED: &str = "panicked";

/// The result of one look at the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    /// Entries that were settled.
    pub(super) settled: usize,
    /// Whether there may be more.
    pub(super) more: bool,
}

/// Opens the broadcasts of waiting entries, at most [`ENTRIES`]. Refuses entries that cannot be sent.
///
/// An entry whose audience cannot be read, or whose broadcast cannot be stored, is put off. The others are settled. One at
/// which the application's store panics again and again is refused. If other
/// processes were settling the same entries, it chooses among more of them.
///
/// # Errors
///
/// Returns an error if the store is unavailable and no entry was settled.
///
/// # Cancel safety
///
/// If dropped, each entry is settled as a whole or not at all.
pub(super) async fn look(engine: &Engine, now: Timestamp) -> Result<Looked, StoreError> {
    let parked = &engine.signals.parked;
    let parts = match engine.signals.has_rivals.load(Ordering::Relaxed) {
        true => PARTS,
        false => 1,
    };
    // Those that were put off stay at the front.
    let limit = parts * ENTRIES + parked.len(now);
    let mut entries = engine.ledger.outbox(limit).await?;
    let is_full = entries.len() >= limit;
    entries.retain(|entry| !parked.is_parked(&entry.id, now));
    let more = is_full || entries.len() > ENTRIES;
    if !more {
        engine.signals.has_rivals.store(false, Ordering::Relaxed);
    }
    // Without a random number the first ones.
    let entries = part(entries, getrandom::u32().unwrap_or_default());
    let ids: HashMap<_, _> = entries.iter().map(|entry| (entry.seq, entry.id)).collect();
    let (settlements, mut failed) = settlements(engine, entries, &ids, now).await;
    let mut settled = 0;
    match settle(engine, &settlements, &ids, now).await {
        Ok(number) => settled = number,
        Err(error) if error.kind() == StoreErrorKind::Unavailable => {
            failed.get_or_insert(error);
        }
        // One of them is the cause. It does not keep the others from being settled.
        Err(_) => {
            for alone in settlements.chunks(1) {
                match settle(engine, alone, &ids, now).await {
                    Ok(number) => settled += number,
                    Err(error) => {
                        for (seq, _) in alone {
                            put_off(engine, *seq, &ids, &error, now);
                        }
                        if error.kind() == StoreErrorKind::Unavailable {
                            failed.get_or_insert(error);
                            break;
                        }
                    }
                }
            }
        }
    }
    if settled > 0 {
        engine.signals.wake.notify_one();
    }
    match failed {
        Some(error) if settled == 0 => Err(error),
        _ => Ok(Looked { settled, more }),
    }
}

/// Chooses one of the parts of [`ENTRIES`].
fn part(entries: Vec<OutboxEntry>, random: u32) -> Vec<OutboxEntry> {
    let parts = entries.len().div_ceil(ENTRIES).max(1);
    let chosen = usize::try_from(random).unwrap_or_default() % parts;
    let part = entries.into_iter().skip(chosen * ENTRIES);
    part.take(ENTRIES).collect()
}

/// Settles entries in one transaction. Returns their number.
async fn settle(
    engine: &Engine,
    settlements: &[(i64, OutboxSettlement)],
    ids: &HashMap<i64, BroadcastId>,
    now: Timestamp,
) -> Result<usize, StoreError> {
    if settlements.is_empty() {
        return Ok(0);
    }
    let settled = engine.ledger.settle_outbox(settlements, now).await?;
    if settled.contains(&OutboxSettled::Taken) {
        engine.signals.has_rivals.store(true, Ordering::Relaxed);
    }
    let parked = &engine.signals.parked;
    if parked.len(now) > 0 {
        for id in settlements.iter().filter_map(|(seq, _)| ids.get(seq)) {
            parked.unpark(id);
        }
    }
    Ok(note(settlements, &settled, ids))
}

/// Passes over an entry for a while, which grows each time.
fn put_off(
    engine: &Engine,
    seq: i64,
    ids: &HashMap<i64, BroadcastId>,
    error: &StoreError,
    now: Timestamp,
) {
    let Some(id) = ids.get(&seq) else { return };
    let parked = &engine.signals.parked;
    if !parked.knows(id) {
        observe::event!(
            ERROR,
            entry = seq,
            broadcast = %id,
            error = %observe::causes(error),
            "an entry of the outbox cannot be settled: it is tried again"
        );
    }
    parked.park(*id, error, now);
}

/// What to do with each entry, in their order; and the first error. Entries that are missing are put off, or come next time.
async fn settlements(
    engine: &Engine,
    entries: Vec<OutboxEntry>,
    ids: &HashMap<i64, BroadcastId>,
    now: Timestamp,
) -> (Vec<(i64, OutboxSettlement)>, Option<StoreError>) {
    let mut settlements = Vec::with_capacity(entries.len());
    let mut failed = None;
    let mut entries = entries.into_iter();
    let mut reads = JoinSet::new();
    let mut read_by = HashMap::new();
    loop {
        while failed.is_none()
            && reads.len() < READS
            && let Some(entry) = entries.next()
        {
            let (engine, seq) = (engine.clone(), entry.seq);
            let task = reads.spawn(async move { (seq, settlement(&engine, &entry, now).await) });
            read_by.insert(task.id(), seq);
        }
        match reads.join_next().await {
            None => break,
            Some(Ok((seq, Ok(settlement)))) => settlements.push((seq, settlement)),
            // Most likely the next ones would fail too.
            Some(Ok((seq, Err(error)))) => {
                put_off(engine, seq, ids, &error, now);
                failed.get_or_insert(error);
            }
            Some(Err(error)) => {
                observe::event!(ERROR, error = %error, "reading an entry of the outbox panicked");
                let Some(seq) = read_by.get(&error.id()).copied() else {
                    continue;
                };
                let id = ids.get(&seq);
                if id.is_some_and(|id| engine.signals.parked.times(id) >= PUT_OFFS) {
                    let detail =
                        "The store of subscriptions panicked each time its audience was read.";
                    settlements.push((seq, refuse(PANICKED, detail.to_owned())));
                    continue;
                }
                let error = StoreError::new(StoreErrorKind::Corrupt, error);
                put_off(engine, seq, ids, &error, now);
            }
        }
    }
    settlements.sort_unstable_by_key(|(seq, _)| *seq);
    (settlements, failed)
}

async fn settlement(
    engine: &Engine,
    entry: &OutboxEntry,
    now: Timestamp,
) -> Result<OutboxSettlement, StoreError> {
    let read = Broadcast::from_outbox(&entry.audience, &entry.message, &entry.opts);
    let (broadcast, id) = match read {
        Ok(read) => read,
        Err(refusal) => return Ok(refuse(refusal.code(), refusal.detail())),
    };
    if let Err(kind) = check(&broadcast, now) {
        return Ok(refuse(kind.code(), format!("{kind}.")));
    }
    let span = observe::Span::enqueue(broadcast.trace_parent.as_ref());
    let resolved = span.around(resolve(engine, broadcast, now)).await;
    let mut new = resolved.inspect_err(|_| span.outcome("store_unavailable"))?;
    new.id = id.unwrap_or(entry.id);
    span.broadcast(new.id);
    span.recipients(new.recipients);
    span.outcome("resolved");
    Ok(OutboxSettlement::Open(Box::new(new)))
}

async fn resolve(
    engine: &Engine,
    broadcast: Broadcast,
    now: Timestamp,
) -> Result<NewBroadcast, StoreError> {
    match engine.resolve(broadcast.clone(), now).await {
        Err(error) if error.kind() == StoreErrorKind::Unavailable => Err(error),
        // Its expansion finds the same error, and waits for its end.
        Err(_) => Ok(engine.unresolved(broadcast, now)),
        Ok(new) => Ok(new),
    }
}

fn refuse(code: &str, detail: String) -> OutboxSettlement {
    OutboxSettlement::Refuse(OutboxRefusal::new(code, detail))
}

/// Logs what was refused. Returns the number of entries that were settled.
fn note(
    settlements: &[(i64, OutboxSettlement)],
    settled: &[OutboxSettled],
    ids: &HashMap<i64, BroadcastId>,
) -> usize {
    let mut number = 0;
    for ((seq, settlement), settled) in settlements.iter().zip(settled) {
        let refusal = match (settled, settlement) {
            (OutboxSettled::Taken, _) => continue,
            (OutboxSettled::Refused, OutboxSettlement::Refuse(refusal)) => Some(refusal.clone()),
            (OutboxSettled::Conflict, _) => Some(OutboxRefusal::conflict()),
            _ => None,
        };
        number += 1;
        observe::count_outbox(refusal.as_ref().map_or("opened", |_| "refused"));
        if let Some(refusal) = refusal {
            let id = ids.get(seq).map(ToString::to_string).unwrap_or_default();
            observe::event!(
                ERROR,
                entry = seq,
                broadcast = %id,
                code = %refusal.code,
                detail = %refusal.detail,
                "an entry of the outbox is refused: it is kept until it is retried or dropped"
            );
            let _ = (id, refusal);
        }
    }
    number
}

impl Engine {
    /// Lets a refused entry wait again.
    pub(crate) async fn retry_outbox(&self, seq: i64) -> Result<bool, StoreError> {
        let is_known = self.ledger.retry_outbox(seq).await?;
        self.signals.wake.notify_one();
        Ok(is_known)
    }
}

#[cfg(test)]
#[cfg(all(feature = "sqlite", feature = "testing"))]
#[path = "outbox_tests.rs"]
mod tests;
