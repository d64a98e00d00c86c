//! Samples of failed deliveries in SQLite.

use rusqlite::params;

use super::connection::Connection;
use super::query::{execute, first};
use crate::broadcast::BroadcastId;
use crate::store::failure_sample::text::{read, text};
use crate::store::readable::readable_or_none;
use crate::store::{FailureSample, StoreError};

pub(super) const SEQ: &str = "SELECT seq FROM broadcast WHERE id = ?1";
pub(super) const OF_SEQ: &str = "SELECT samples FROM failure_sample WHERE broadcast = ?1";
pub(super) const SAVE: &str = "INSERT INTO failure_sample (broadcast, samples) VALUES (?1, ?2) \
     ON CONFLICT (broadcast) DO UPDATE SET samples = excluded.samples";

pub(super) fn of(conn: &Connection, id: BroadcastId) -> Result<Vec<FailureSample>, StoreError> {
    match first(conn, SEQ, [id.as_bytes()], |row| row.get())? {
        Some(seq) => load(conn, seq),
        None => Ok(Vec::new()),
    }
}

pub(super) fn load(conn: &Connection, seq: i64) -> Result<Vec<FailureSample>, StoreError> {
    // Outcomes do not depend on samples.
    let samples =
        readable_or_none(first(conn, OF_SEQ, [seq], |row| row.get::<String>()))?.flatten();
    Ok(samples.map_or_else(Vec::new, |samples| read(&samples)))
}

pub(super) fn save(
    conn: &Connection,
    seq: i64,
    samples: &[FailureSample],
) -> Result<(), StoreError> {
    execute(conn, SAVE, params![seq, text(samples)]).map(|_| ())
}
