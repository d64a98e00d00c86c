//! Rows whose moment is later than any that a correct clock writes, in SQLite.

use rusqlite::params;

use super::connection::Connection;
use super::query::{execute, integer};
use crate::clock::Timestamp;
use crate::store::rules::aside_sql;
use crate::store::{LONGEST_WAIT, STEP, StoreError};

/// Leased rows keep their token until they are claimed again.
pub(super) const PULL: &str = concat!(
    "UPDATE delivery SET at = ?2 WHERE (broadcast, key) IN \
     (SELECT broadcast, key FROM delivery WHERE turn IS NULL AND leased = ?1 AND at > ?3 AND at < ",
    aside_sql!(),
    " ORDER BY at DESC LIMIT ?4)"
);

/// Makes such rows due, in one step (L12).
pub(super) fn pull(conn: &Connection, now: Timestamp) -> Result<(), StoreError> {
    let latest = now + LONGEST_WAIT;
    for leased in [true, false] {
        let values = params![leased, now.as_millis(), latest.as_millis(), integer(STEP)];
        execute(conn, PULL, values)?;
    }
    Ok(())
}
