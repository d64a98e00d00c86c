//! Paused broadcasts in SQLite (L21).
//!
//! A ready row that a claim meets is put aside: it waits for a moment that is its broadcast's own and never comes. So the
//! rows of one broadcast are found among those that wait.

use rusqlite::params;

use super::broadcasts::Stored;
use super::connection::Connection;
use super::query::{execute, first, integer};
use crate::broadcast::{BroadcastId, BroadcastStatus};
use crate::clock::Timestamp;
use crate::store::rules::aside;
use crate::store::{STEP, StoreError};
use crate::subscription::EndpointKey;

pub(super) const HOLD: &str = "UPDATE broadcast SET is_held = ?2, resuming = ?3 WHERE seq = ?1";
/// If rows of a broadcast that goes on were put aside, its next rows stand in line behind the highest claimed turns: its last
/// turns are those of rows that are in line no more.
pub(super) const STAND_IN_FRONT: &str = "UPDATE flow SET turn = 0 WHERE broadcast = ?1 \
     AND EXISTS (SELECT 1 FROM delivery WHERE turn IS NULL AND leased IN (0, 1) AND at = ?2)";
pub(super) const PUT_ASIDE: &str =
    "UPDATE delivery SET turn = NULL, at = ?3 WHERE broadcast = ?1 AND key = ?2";
pub(super) const RESUMING: &str = "SELECT seq FROM broadcast INDEXED BY broadcast_resuming \
     WHERE resuming = 1 ORDER BY seq LIMIT 1";
pub(super) const BRING_BACK: &str = "UPDATE delivery SET at = ?3 WHERE (broadcast, key) IN \
     (SELECT broadcast, key FROM delivery WHERE turn IS NULL AND leased = ?1 AND at = ?2 LIMIT ?4)";

pub(super) fn hold(
    conn: &Connection,
    id: BroadcastId,
    is_held: bool,
    now: Timestamp,
) -> Result<Option<BroadcastStatus>, StoreError> {
    let Some(mut stored) = Stored::by_id(conn, id)? else {
        return Ok(None);
    };
    if stored.progress.hold(is_held) {
        execute(conn, HOLD, params![stored.seq, is_held, !is_held])?;
        if !is_held {
            let at = aside(stored.seq).as_millis();
            execute(conn, STAND_IN_FRONT, params![stored.seq, at])?;
        }
    }
    bring_back(conn, STEP, now)?;
    Ok(Some(stored.progress.status(now)))
}

/// Puts a ready row of a paused broadcast aside.
pub(super) fn put_aside(
    conn: &Connection,
    broadcast: i64,
    key: EndpointKey,
) -> Result<(), StoreError> {
    let at = aside(broadcast).as_millis();
    execute(conn, PUT_ASIDE, params![broadcast, key.as_bytes(), at]).map(|_| ())
}

/// Whether rows of broadcasts that go on may still be aside.
pub(super) fn is_resuming(conn: &Connection) -> Result<bool, StoreError> {
    Ok(first(conn, RESUMING, [], |_| Ok(()))?.is_some())
}

/// Makes up to `limit` rows due that were put aside while their broadcast was paused. Returns their number.
pub(super) fn bring_back(
    conn: &Connection,
    limit: usize,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let mut left = limit;
    while left > 0
        && let Some(seq) = first(conn, RESUMING, [], |row| row.get::<i64>())?
    {
        for leased in [true, false] {
            let at = aside(seq).as_millis();
            let values = params![leased, at, now.as_millis(), integer(left)];
            left -= execute(conn, BRING_BACK, values)?;
        }
        if left > 0 {
            execute(conn, HOLD, params![seq, false, false])?;
        }
    }
    Ok(limit - left)
}
