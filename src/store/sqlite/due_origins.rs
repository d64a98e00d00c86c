//! The origins that can be claimed from, and when others can.
//!
//! An origin with rows waits until its first row is due and its pause is over. Then it is ready and has a place in the
//! order of turns, by the fence of the last claim of its rows. Claims read the first ones. What is stored may be too early
//! (a row was deleted, a pause was written), never too late: an origin that is not due when it is read waits again.

use rusqlite::{Connection, params};

use super::error::corrupt;
use super::query::{Columns, all, execute, first, integer};
use crate::clock::Timestamp;
use crate::store::{ClaimRequest, PauseReason, STEP, StoreError};
use crate::subscription::Origin;

/// Origins read by one statement.
const PAGE: usize = 256;

pub(super) const FIRST: &str = "SELECT at FROM delivery WHERE origin = ?1 ORDER BY at LIMIT 1";
pub(super) const WAKE: &str = "UPDATE origin SET turn = served WHERE id IN (SELECT id FROM origin \
     WHERE turn IS NULL AND first_at IS NOT NULL AND due_at <= ?1 ORDER BY due_at LIMIT ?2)";
pub(super) const READY: &str = "SELECT id, paused_until, turn, origin, pause_reason FROM origin \
     WHERE turn IS NOT NULL AND (turn, id) > (?1, ?2) ORDER BY turn, id LIMIT ?3";
pub(super) const WAITING: &str = "SELECT id, paused_until, due_at FROM origin INDEXED BY origin_waiting \
     WHERE turn IS NULL AND first_at IS NOT NULL ORDER BY due_at LIMIT ?1";
pub(super) const OLDEST: &str = "SELECT id, first_at FROM origin INDEXED BY origin_first \
     WHERE first_at IS NOT NULL ORDER BY first_at LIMIT ?1";
pub(super) const PLACE: &str = "UPDATE origin SET first_at = ?2, turn = ?3 WHERE id = ?1";
pub(super) const SERVED: &str = "UPDATE origin SET served = ?2 WHERE id = ?1";
pub(super) const BRING_FORWARD: &str =
    "UPDATE origin SET first_at = ?2 WHERE id = ?1 AND (first_at IS NULL OR first_at > ?2)";

/// An origin with due rows.
pub(super) struct Head {
    pub(super) id: i64,
    pub(super) origin: Origin,
    pub(super) is_probed: bool,
}

/// The place of an origin that is ready.
struct Ready {
    id: i64,
    paused_until: Option<Timestamp>,
    turn: i64,
    origin: Origin,
    is_probed: bool,
}

impl Ready {
    fn read(columns: &mut Columns<'_, '_>) -> Result<Self, StoreError> {
        let (id, paused_until, turn) = (columns.get()?, columns.time_or_null()?, columns.get()?);
        let origin: String = columns.get()?;
        let reason: Option<String> = columns.get()?;
        Ok(Self {
            id,
            paused_until,
            turn,
            origin: Origin::parse(&origin).map_err(|_| corrupt("an origin"))?,
            is_probed: reason
                .and_then(|reason| PauseReason::from_name(&reason))
                .is_some_and(PauseReason::is_probed),
        })
    }
}

fn first_row(conn: &Connection, origin: i64) -> Result<Option<Timestamp>, StoreError> {
    first(conn, FIRST, [origin], |row| row.time())
}

fn place(
    conn: &Connection,
    origin: i64,
    first_at: Option<Timestamp>,
    turn: Option<i64>,
) -> Result<(), StoreError> {
    let first_at = first_at.map(Timestamp::as_millis);
    execute(conn, PLACE, params![origin, first_at, turn]).map(|_| ())
}

/// Returns origins with due rows that the request has room for, those served longest ago first, and the number of origins
/// that were read: at most as many as there are rows to claim, origins without room, and origins that are not due.
pub(super) fn ready(
    conn: &Connection,
    request: &ClaimRequest,
    now: Timestamp,
) -> Result<(Vec<Head>, usize), StoreError> {
    execute(conn, WAKE, params![now.as_millis(), integer(STEP)])?;
    let most = request.limit.saturating_add(request.rooms.len()) + STEP;
    let (mut heads, mut reads) = (Vec::new(), 0);
    let mut last = (i64::MIN, i64::MIN);
    while reads < most && heads.len() < request.limit {
        let page = PAGE.min(request.limit - heads.len());
        let values = params![last.0, last.1, integer(page)];
        let origins = all(conn, READY, values, Ready::read)?;
        let is_last = origins.len() < page;
        for origin in origins {
            reads += 1;
            last = (origin.turn, origin.id);
            if request.room_for(&origin.origin) == 0 {
                continue;
            }
            let at = first_row(conn, origin.id)?;
            let is_due = at.is_some_and(|at| at <= now)
                && origin.paused_until.is_none_or(|until| until <= now);
            if is_due {
                heads.push(Head {
                    id: origin.id,
                    origin: origin.origin,
                    is_probed: origin.is_probed,
                });
            } else {
                place(conn, origin.id, at, None)?;
            }
        }
        if is_last {
            break;
        }
    }
    Ok((heads, reads))
}

/// Gives an origin its next turn, after a claim of its rows.
pub(super) fn serve(
    conn: &Connection,
    origin: i64,
    fence: u64,
    now: Timestamp,
) -> Result<(), StoreError> {
    execute(conn, SERVED, params![origin, integer(fence)])?;
    let at = first_row(conn, origin)?;
    let turn = at.is_some_and(|at| at <= now).then(|| integer(fence));
    place(conn, origin, at, turn)
}

/// Makes sure that an origin is read when a row of it is due.
pub(super) fn bring_forward(
    conn: &Connection,
    origin: i64,
    at: Timestamp,
) -> Result<(), StoreError> {
    execute(conn, BRING_FORWARD, params![origin, at.as_millis()]).map(|_| ())
}

/// The time from which a row can be claimed; `now` or earlier if one can be now.
pub(super) fn next(conn: &Connection, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let due = |id, paused_until: Option<Timestamp>| {
        let at = first_row(conn, id)?;
        Ok::<_, StoreError>(at.map(|at| paused_until.map_or(at, |until| until.max(at))))
    };
    let mut next: Option<Timestamp> = None;
    let values = params![i64::MIN, i64::MIN, integer(STEP)];
    let ready = all(conn, READY, values, |row| {
        Ok((row.get::<i64>()?, row.time_or_null()?))
    })?;
    for (id, paused_until) in ready {
        let at = due(id, paused_until)?;
        if at.is_some_and(|at| at <= now) {
            return Ok(at);
        }
        next = next.into_iter().chain(at).min();
    }
    let waiting = all(conn, WAITING, [integer(STEP)], |row| {
        Ok((row.get::<i64>()?, row.time_or_null()?, row.time()?))
    })?;
    for (id, paused_until, due_at) in waiting {
        if next.is_some_and(|next| next <= due_at) {
            break;
        }
        next = next.into_iter().chain(due(id, paused_until)?).min();
    }
    Ok(next)
}

/// The time of the first row of all.
pub(super) fn oldest(conn: &Connection) -> Result<Option<Timestamp>, StoreError> {
    let origins = all(conn, OLDEST, [integer(STEP)], |row| {
        Ok((row.get::<i64>()?, row.time()?))
    })?;
    let mut oldest: Option<Timestamp> = None;
    for (id, first_at) in origins {
        if oldest.is_some_and(|oldest| oldest <= first_at) {
            break;
        }
        oldest = oldest.into_iter().chain(first_row(conn, id)?).min();
    }
    Ok(oldest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{claims, connection};
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    /// One broadcast with a due row at each of `origins` origins, and the same number of origins that are paused or not due.
    fn filled(origins: usize) -> Connection {
        let conn = connection::in_memory().unwrap();
        let sql = format!(
            "BEGIN;
             INSERT INTO broadcast (seq, id, created_at, due_at, deadline, expected, written, expanding, expanded_at)
                 VALUES (1, x'000102030405060708090a0b0c0d0e0f', 0, 0, 9000, 0, {origins}, 0, 0);
             INSERT INTO content (broadcast, audience, ttl, urgency, padding, forget_when_over)
                 VALUES (1, '\"all\"', 60, 'normal', 'none', 0);
             WITH RECURSIVE many(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many LIMIT 3 * {origins})
                 INSERT INTO origin (id, origin, first_at, paused_until, pause_reason)
                 SELECT n, 'https://push' || n || '.example', CASE n % 3 WHEN 2 THEN 5000 ELSE 1 END,
                     CASE n % 3 WHEN 0 THEN 5000 END, CASE n % 3 WHEN 0 THEN 'rate_limited' END FROM many;
             INSERT INTO delivery (broadcast, key, origin, at)
                 SELECT 1, CAST(printf('%032d', id) AS BLOB), id, first_at FROM origin;
             COMMIT"
        );
        conn.execute_batch(&sql).unwrap();
        conn
    }

    #[test]
    fn a_claim_reads_as_many_origins_with_ten_as_with_ten_thousand() {
        let mut reads = Vec::new();
        for origins in [10, 10_000] {
            let conn = filled(origins);
            let request = ClaimRequest::new(8, Duration::from_secs(45));
            // All that are due become ready, in steps.
            for _ in 0..origins.div_ceil(STEP) {
                execute(&conn, WAKE, params![4000, integer(STEP)]).unwrap();
            }
            let now = at(4000);
            let (heads, read) = ready(&conn, &request, now).unwrap();
            assert_eq!(heads.len(), 8);
            assert!(oldest(&conn).unwrap() == Some(at(1)));
            assert_eq!(next(&conn, now).unwrap(), Some(at(1)));
            let claims = claims::claim(&conn, &request, now).unwrap();
            assert_eq!(claims.rows.len(), 8);
            reads.push(read);
        }
        assert_eq!(reads, [8, 8]);
    }
}
