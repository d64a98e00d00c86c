//! Rows whose moment is later than any that a correct clock writes, in SQLite.

use rusqlite::{Connection, params};

use super::due_origins::bring_forward;
use super::query::{all, execute, integer};
use crate::clock::Timestamp;
use crate::store::{LONGEST_WAIT, STEP, StoreError};

/// Origins that one step looks at.
const ORIGINS: usize = 256;

/// The next origins by id, with the last moment of their rows.
pub(super) const LAST: &str = "SELECT id, (SELECT max(at) FROM delivery WHERE origin = o.id) FROM origin AS o \
     WHERE id > ?1 ORDER BY id LIMIT ?2";
/// Leased rows keep their token until they are claimed again.
pub(super) const PULL: &str = "UPDATE delivery SET at = ?2 WHERE (broadcast, key) IN \
     (SELECT broadcast, key FROM delivery WHERE origin = ?1 AND at > ?3 ORDER BY at DESC LIMIT ?4)";

/// Makes such rows due (L12), among the next origins of a walk. Returns the last origin for the next step.
pub(super) fn pull(conn: &Connection, after: i64, now: Timestamp) -> Result<i64, StoreError> {
    let latest = now + LONGEST_WAIT;
    let origins = all(conn, LAST, params![after, integer(ORIGINS)], |row| {
        Ok((row.get::<i64>()?, row.time_or_null()?))
    })?;
    for (origin, last) in &origins {
        if last.is_some_and(|last| last > latest) {
            let values = params![origin, now.as_millis(), latest.as_millis(), integer(STEP)];
            execute(conn, PULL, values)?;
            bring_forward(conn, *origin, now)?;
        }
    }
    // After the last origin the walk starts again.
    let next = origins.last().filter(|_| origins.len() == ORIGINS);
    Ok(next.map_or(i64::MIN, |(origin, _)| *origin))
}
