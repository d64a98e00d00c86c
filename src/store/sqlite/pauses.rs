//! Pauses, and when there is something to do, in SQLite.

use rusqlite::{Connection, params};

use super::broadcasts::{expandable, origin_id};
use super::claims::heads;
use super::error::corrupt;
use super::query::{all, execute, first};
use crate::clock::Timestamp;
use crate::store::{LedgerStats, Pause, PauseReason, StoreError};
use crate::subscription::Origin;

/// What holds and ends later stays.
const PAUSE: &str = "UPDATE origin SET paused_until = ?2, pause_reason = ?3 \
     WHERE id = ?1 AND (paused_until IS NULL OR paused_until < ?2)";
pub(super) const PAUSES: &str =
    "SELECT origin, paused_until, pause_reason FROM origin WHERE paused_until > ?1";
pub(super) const NEXT_EXPANSION: &str =
    "SELECT min(expanded_at) FROM broadcast WHERE expanding = 1 AND expanded_at > ?1";
pub(super) const NEXT_DEADLINE: &str =
    "SELECT min(deadline) FROM broadcast WHERE ended_at IS NULL AND deadline > ?1";
pub(super) const DEPTH: &str = "SELECT coalesce(sum(written - accepted - gone - key_mismatch \
     - sender_fault - too_large - bad_request - refused - expired - failed - cancelled), 0) \
     FROM broadcast WHERE ended_at IS NULL";
pub(super) const LEASED: &str = "SELECT count(*) FROM delivery WHERE leased = 1 AND at > ?1";

pub(super) fn pause(conn: &Connection, pause: &Pause, now: Timestamp) -> Result<(), StoreError> {
    if pause.until <= now {
        let sql = "UPDATE origin SET paused_until = NULL, pause_reason = NULL WHERE origin = ?1";
        return execute(conn, sql, [pause.origin.as_str()]).map(|_| ());
    }
    let id = origin_id(conn, &pause.origin)?;
    let values = params![id, pause.until.as_millis(), pause.reason.as_str()];
    execute(conn, PAUSE, values).map(|_| ())
}

pub(super) fn pauses(conn: &Connection, now: Timestamp) -> Result<Vec<Pause>, StoreError> {
    all(conn, PAUSES, [now.as_millis()], |columns| {
        let origin: String = columns.get()?;
        let origin = Origin::parse(&origin).map_err(|_| corrupt("an origin"))?;
        let until = columns.time()?;
        let reason = PauseReason::from_name(&columns.get::<String>()?);
        let reason = reason.ok_or_else(|| corrupt("the reason of a pause"))?;
        Ok(Pause::new(origin, until, reason))
    })
}

pub(super) fn next_due(conn: &Connection, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    if !expandable(conn, 1, now)?.is_empty() {
        return Ok(Some(now));
    }
    let claims = heads(conn)?;
    let claims = claims.iter().map(|head| {
        head.paused_until
            .map_or(head.at, |until| until.max(head.at))
    });
    let next = |sql| first(conn, sql, [now.as_millis()], |row| row.time_or_null());
    let expansion = next(NEXT_EXPANSION)?.flatten();
    // A deadline is something to do for `expire`.
    let deadline = next(NEXT_DEADLINE)?.flatten();
    let next = claims.chain(expansion).chain(deadline).min();
    Ok(next.map(|next| next.max(now)))
}

pub(super) fn stats(conn: &Connection, now: Timestamp) -> Result<LedgerStats, StoreError> {
    let depth = first(conn, DEPTH, [], |row| row.count())?.unwrap_or(0);
    let leased = first(conn, LEASED, [now.as_millis()], |row| row.count())?.unwrap_or(0);
    let heads = heads(conn)?;
    let oldest_due = heads.iter().map(|head| head.at).min();
    let oldest_due = oldest_due.filter(|at| *at <= now);
    Ok(LedgerStats::new(depth, leased, oldest_due))
}
