//! The turns of rows within their origin (L18): start-time fair queueing.
//!
//! A row waits (leased, or to be retried) or is ready, with a turn: a virtual time of its origin and band. A row that
//! becomes ready has the turn after that of the row before it of its broadcast, or after the highest turn claimed if that
//! is later. So broadcasts take turns, and one that comes later begins where the others are.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::params;

use super::broadcasts::origin_id;
use super::connection::Connection;
use super::due_origins;
use super::error::corrupt;
use super::query::{Columns, all, execute, first, integer};
use crate::clock::Timestamp;
use crate::store::readable::readable_or_none;
use crate::store::rules::BANDS;
use crate::store::{STEP, StoreError};
use crate::subscription::Origin;

/// The highest turn claimed in each band, and whether claims read the origin.
pub(super) const CLAIMED: &str = "SELECT id, high, normal, low, ready FROM origin WHERE id = ?1";
pub(super) const CLAIMED_BY_NAME: &str =
    "SELECT id, high, normal, low, ready FROM origin WHERE origin = ?1";
pub(super) const LAST: &str = "SELECT turn FROM flow WHERE broadcast = ?1 AND origin = ?2";
const KEEP: &str = "INSERT INTO flow (broadcast, origin, turn) VALUES (?1, ?2, ?3) \
     ON CONFLICT (broadcast, origin) DO UPDATE SET turn = excluded.turn";
pub(super) const FORGET: &str = "DELETE FROM flow WHERE broadcast = ?1";
pub(super) const DUE: &str = "SELECT broadcast, key, origin, band FROM delivery INDEXED BY delivery_waiting \
     WHERE turn IS NULL AND leased = ?1 AND at <= ?2 ORDER BY at LIMIT ?3";
pub(super) const MAKE_READY: &str =
    "UPDATE delivery SET turn = ?3 WHERE broadcast = ?1 AND key = ?2";

/// Turns that are given in one transaction.
pub(super) struct Turns<'a> {
    conn: &'a Connection,
    /// Whether the broadcasts had no rows before.
    are_new: bool,
    ids: HashMap<Origin, i64>,
    origins: HashMap<i64, Claimed>,
    /// By broadcast and origin.
    flows: HashMap<(i64, i64), Flow>,
}

/// The highest turn claimed at an origin.
struct Claimed {
    bands: [i64; BANDS],
    /// Whether claims read the origin, as far as is known.
    is_read: bool,
    /// Whether a turn was given there.
    is_given: bool,
}

impl Claimed {
    /// In an application's file a number may be damaged so that it is none.
    fn read(row: &mut Columns<'_, '_>) -> Result<(i64, Self), StoreError> {
        let id = row.get()?;
        let mut number = || readable_or_none(row.get::<i64>()).map(Option::unwrap_or_default);
        let claimed = Self {
            bands: [number()?, number()?, number()?],
            is_read: number()? == 1,
            is_given: false,
        };
        Ok((id, claimed))
    }
}

/// The rows of one broadcast at one origin.
struct Flow {
    last: i64,
    is_stored: bool,
    /// The number of turns given.
    rows: usize,
}

impl<'a> Turns<'a> {
    pub(super) fn new(conn: &'a Connection) -> Self {
        Self {
            conn,
            are_new: false,
            ids: HashMap::new(),
            origins: HashMap::new(),
            flows: HashMap::new(),
        }
    }

    /// For a broadcast without rows.
    pub(super) fn of_new(conn: &'a Connection) -> Self {
        Self {
            are_new: true,
            ..Self::new(conn)
        }
    }

    /// Returns the number of an origin, which it gets if it is unknown.
    pub(super) fn origin(&mut self, origin: &Origin) -> Result<i64, StoreError> {
        if let Some(id) = self.ids.get(origin) {
            return Ok(*id);
        }
        let id = match first(self.conn, CLAIMED_BY_NAME, [origin.as_str()], Claimed::read)? {
            Some((id, claimed)) => {
                self.origins.insert(id, claimed);
                id
            }
            None => origin_id(self.conn, origin)?,
        };
        self.ids.insert(origin.clone(), id);
        Ok(id)
    }

    /// Returns the turn of the next row of a broadcast that becomes ready at an origin.
    pub(super) fn next(
        &mut self,
        broadcast: i64,
        origin: i64,
        band: usize,
    ) -> Result<i64, StoreError> {
        let at_origin = match self.origins.entry(origin) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let read = first(self.conn, CLAIMED, [origin], Claimed::read)?;
                let (_, claimed) = read.ok_or_else(|| corrupt("a row without an origin"))?;
                entry.insert(claimed)
            }
        };
        at_origin.is_given = true;
        let claimed = at_origin.bands.get(band);
        let claimed = claimed.ok_or_else(|| corrupt("a band"))?;
        let flow = match self.flows.entry((broadcast, origin)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let stored = match self.are_new {
                    true => None,
                    false => first(self.conn, LAST, [broadcast, origin], |row| {
                        readable_or_none(row.get())
                    })?,
                };
                entry.insert(Flow {
                    last: stored.flatten().unwrap_or_default(),
                    is_stored: stored.is_some(),
                    rows: 0,
                })
            }
        };
        flow.last = flow.last.max(*claimed).saturating_add(1);
        flow.rows += 1;
        Ok(flow.last)
    }

    /// Takes back the last turn of a broadcast at an origin, of a row that exists already.
    pub(super) fn take_back(&mut self, broadcast: i64, origin: i64) {
        if let Some(flow) = self.flows.get_mut(&(broadcast, origin)) {
            flow.last -= 1;
            flow.rows -= 1;
        }
    }

    /// Stores the last turns, and makes sure that the origins are read by claims. `more` says whether the broadcasts may
    /// get more rows: for one row alone nothing is stored, because no other stands behind it.
    pub(super) fn save(self, more: bool) -> Result<(), StoreError> {
        for ((broadcast, origin), flow) in self.flows {
            if flow.rows > 1 || flow.rows > 0 && (more || flow.is_stored) {
                execute(self.conn, KEEP, [broadcast, origin, flow.last])?;
            }
        }
        for (origin, claimed) in self.origins {
            if claimed.is_given && !claimed.is_read {
                due_origins::bring_forward(self.conn, origin)?;
            }
        }
        Ok(())
    }
}

/// Makes rows ready whose lease has expired or whose time has come, in one step. Returns whether there may be more.
pub(super) fn wake(conn: &Connection, now: Timestamp) -> Result<bool, StoreError> {
    let mut turns = Turns::new(conn);
    let mut left = STEP;
    for leased in [true, false] {
        let values = params![leased, now.as_millis(), integer(left)];
        let rows = all(conn, DUE, values, |row| {
            let (broadcast, key) = (row.get::<i64>()?, row.bytes::<32>()?);
            Ok((broadcast, key, row.get::<i64>()?, row.get::<u8>()?))
        })?;
        for (broadcast, key, origin, band) in &rows {
            let turn = turns.next(*broadcast, *origin, usize::from(*band))?;
            execute(conn, MAKE_READY, params![broadcast, key, turn])?;
        }
        left -= rows.len();
    }
    turns.save(false)?;
    Ok(left == 0)
}

/// Forgets the turns of a broadcast that is over.
pub(super) fn forget(conn: &Connection, broadcast: i64) -> Result<(), StoreError> {
    execute(conn, FORGET, [broadcast]).map(|_| ())
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
