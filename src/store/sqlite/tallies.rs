//! Recent outcome counts by origin, in SQLite.

use rusqlite::params;

use super::broadcasts::origin_id;
use super::connection::Connection;
use super::error::corrupt;
use super::query::{Columns, all, execute, first, integer};
use crate::clock::Timestamp;
use crate::store::readable::{ReadablePage, readable_or_none};
use crate::store::{StoreError, Tally};
use crate::subscription::Origin;

pub(super) const TALLY: &str = "SELECT accepted, gone FROM origin WHERE origin = ?1";
pub(super) const SAVE: &str =
    "UPDATE origin SET accepted = ?2, gone = ?3, tallied_at = ?4 WHERE id = ?1";
pub(super) const TALLIES: &str =
    "SELECT origin, accepted, gone FROM origin WHERE gone > 0 ORDER BY origin";

pub(super) fn tally(
    conn: &Connection,
    counts: &[(Origin, Tally)],
    now: Timestamp,
) -> Result<Vec<Tally>, StoreError> {
    let add = |(origin, new): &(Origin, Tally)| {
        // One that cannot be read starts anew.
        let stored = readable_or_none(first(conn, TALLY, [origin.as_str()], read))?;
        let stored = stored.flatten().unwrap_or_default();
        if *new == Tally::default() {
            return Ok(stored);
        }
        let sum = stored.plus(*new);
        let values = params![
            origin_id(conn, origin)?,
            integer(sum.accepted),
            integer(sum.gone),
            now.as_millis(),
        ];
        execute(conn, SAVE, values)?;
        Ok(sum)
    };
    counts.iter().map(add).collect()
}

pub(super) fn tallies(conn: &Connection) -> Result<Vec<(Origin, Tally)>, StoreError> {
    let named = |columns: &mut Columns<'_, '_>| {
        let origin: String = columns.get()?;
        let origin = Origin::parse(&origin).map_err(|_| corrupt("an origin"))?;
        Ok((origin, read(columns)?))
    };
    let mut tallies = ReadablePage::new(0);
    for tally in all(conn, TALLIES, [], |columns| Ok(named(columns)))? {
        tallies.push(tally)?;
    }
    Ok(tallies.finish("tallies"))
}

fn read(columns: &mut Columns<'_, '_>) -> Result<Tally, StoreError> {
    Ok(Tally::new(columns.count()?, columns.count()?))
}
