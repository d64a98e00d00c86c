//! Pauses, the next due time and statistics, in SQLite.

use rusqlite::params;

use super::broadcasts::origin_id;
use super::connection::Connection;
use super::error::corrupt;
use super::expansion::expandable;
use super::query::{Columns, all, execute, first};
use super::{due_origins, holding};
use crate::clock::Timestamp;
use crate::store::readable::{ReadablePage, readable_or_none};
use crate::store::rules::aside_sql;
use crate::store::{LedgerStats, Pause, PauseReason, StoreError};
use crate::subscription::Origin;

pub(super) const PAUSE: &str = "UPDATE origin SET paused_until = ?2, pause_reason = ?3, closures = ?4, pause_contact = ?5, \
     probe_fence = NULL, probe_key = NULL WHERE id = ?1";
/// Returns few rows: pauses that are over are overwritten or pruned.
pub(super) const PAUSES: &str = "SELECT origin, paused_until, pause_reason, closures, pause_contact FROM origin INDEXED BY origin_paused \
     WHERE paused_until IS NOT NULL";
pub(super) const LIFT: &str = "UPDATE origin SET paused_until = NULL, pause_reason = NULL, probe_fence = NULL, probe_key = NULL \
     WHERE origin = ?1";
pub(super) const PAUSE_OF: &str = "SELECT origin, paused_until, pause_reason, closures, pause_contact FROM origin \
     WHERE origin = ?1 AND paused_until IS NOT NULL";
pub(super) const NEXT_EXPANSION: &str = "SELECT min(expand_at) FROM broadcast INDEXED BY broadcast_expanding WHERE expanding = 1 AND is_held = 0 AND is_urgent = ?2 AND expand_at > ?1";
pub(super) const NEXT_DEADLINE: &str = "SELECT min(deadline) FROM broadcast INDEXED BY broadcast_open WHERE ended_at IS NULL AND deadline > ?1";
/// Damaged counts make it wrong, not an error.
pub(super) const DEPTH: &str = "SELECT max(cast(total(written - accepted - gone - key_mismatch \
     - sender_fault - too_large - bad_request - refused - expired - failed - cancelled) AS INTEGER), 0) \
     FROM broadcast INDEXED BY broadcast_open WHERE ended_at IS NULL";
pub(super) const LEASED: &str = concat!(
    "SELECT count(*) FROM delivery INDEXED BY delivery_waiting WHERE turn IS NULL AND leased = 1 AND at > ?1 AND at < ",
    aside_sql!()
);

pub(super) fn pause(conn: &Connection, pause: &Pause, now: Timestamp) -> Result<(), StoreError> {
    // One that cannot be read is replaced.
    let stored = readable_or_none(first(conn, PAUSE_OF, [pause.origin.as_str()], read))?;
    let stored = stored.flatten();
    let Some(merged) = pause.on_top_of(stored.as_ref(), now) else {
        return execute(conn, LIFT, [pause.origin.as_str()]).map(|_| ());
    };
    let values = params![
        origin_id(conn, &pause.origin)?,
        merged.until.as_millis(),
        merged.reason.as_str(),
        merged.closures,
        merged.contact,
    ];
    execute(conn, PAUSE, values).map(|_| ())
}

pub(super) fn pauses(conn: &Connection, now: Timestamp) -> Result<Vec<Pause>, StoreError> {
    let mut read_ones = ReadablePage::new(0);
    for pause in all(conn, PAUSES, [], |columns| Ok(read(columns)))? {
        read_ones.push(pause)?;
    }
    let mut pauses = read_ones.finish("pauses");
    pauses.retain(|pause| !pause.is_over(now));
    Ok(pauses)
}

fn read(columns: &mut Columns<'_, '_>) -> Result<Pause, StoreError> {
    let origin: String = columns.get()?;
    let origin = Origin::parse(&origin).map_err(|_| corrupt("an origin"))?;
    let until = columns.time()?;
    let reason = PauseReason::from_name(&columns.get::<String>()?);
    let reason = reason.ok_or_else(|| corrupt("the reason of a pause"))?;
    let mut pause = Pause::new(origin, until, reason);
    pause.closures = columns.get()?;
    pause.contact = columns.get()?;
    Ok(pause)
}

pub(super) fn next_due(
    conn: &Connection,
    worker: Option<i64>,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    if holding::is_resuming(conn)? || !expandable(conn, 1, 0, now)?.is_empty() {
        return Ok(Some(now));
    }
    let claim = due_origins::next(conn, worker, now)?;
    let expansion = |is_urgent: bool| {
        let values = params![now.as_millis(), is_urgent];
        first(conn, NEXT_EXPANSION, values, |row| row.time_or_null())
    };
    let expansions = [expansion(true)?, expansion(false)?].map(Option::flatten);
    // At a deadline `expire` has work.
    let deadline = first(conn, NEXT_DEADLINE, [now.as_millis()], |row| {
        row.time_or_null()
    })?;
    let next = [claim, deadline.flatten()].into_iter().chain(expansions);
    let next = next.flatten().min();
    Ok(next.map(|next| next.max(now)))
}

pub(super) fn stats(conn: &Connection, now: Timestamp) -> Result<LedgerStats, StoreError> {
    let depth = first(conn, DEPTH, [], |row| row.count())?.unwrap_or(0);
    let leased = first(conn, LEASED, [now.as_millis()], |row| row.count())?.unwrap_or(0);
    let oldest = due_origins::oldest(conn)?.until(now);
    Ok(LedgerStats::by_push_service(depth, leased, oldest))
}
