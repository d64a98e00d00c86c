//! Rows of the queue that cannot be read: another program, or a broken disk, has changed them.

use rusqlite::params;
use rusqlite::types::Value;

use super::broadcasts::Stored;
use super::connection::Connection;
use super::query::{all, execute, integer};
use crate::broadcast::FinalOutcome;
use crate::clock::Timestamp;
use crate::observe;
use crate::store::readable::readable_or_none;
use crate::store::{STEP, StoreError};

/// Reads the whole queue, and is used only when a row of it could not be read.
const UNREADABLE: &str = "SELECT broadcast, key FROM delivery \
     WHERE typeof(broadcast) <> 'integer' OR typeof(key) <> 'blob' OR length(key) <> 32 OR typeof(at) <> 'integer' \
     OR typeof(leased) <> 'integer' OR typeof(fence) <> 'integer' OR typeof(attempt) <> 'integer' \
     OR typeof(turn) NOT IN ('integer', 'null') OR typeof(band) <> 'integer' OR band NOT BETWEEN 0 AND 2 \
     OR origin NOT IN (SELECT id FROM origin) LIMIT ?1";
const DELETE: &str = "DELETE FROM delivery WHERE broadcast = ?1 AND key = ?2";

/// Ends rows of which nothing says where they belong. They count as failed. Returns their number.
pub(super) fn end_unreadable(conn: &Connection, now: Timestamp) -> Result<usize, StoreError> {
    let rows = all(conn, UNREADABLE, [integer(STEP)], |columns| {
        Ok((columns.get::<Value>()?, columns.get::<Value>()?))
    })?;
    for (broadcast, key) in &rows {
        execute(conn, DELETE, params![broadcast, key])?;
        if let Value::Integer(seq) = broadcast
            && let Some(mut stored) = readable_or_none(Stored::by_seq(conn, *seq))?
        {
            stored.progress.counts.add(FinalOutcome::Failed, 1);
            stored.save(conn, now)?;
        }
    }
    if !rows.is_empty() {
        observe::event!(
            ERROR,
            rows = rows.len(),
            "rows of the queue that cannot be read are counted as failed"
        );
    }
    Ok(rows.len())
}
