//! Rows of the table `origin`, whose ids deliveries refer to.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::Row;

use super::connection::Tx;
use super::error::{Failed, corrupt, without_origins};
use super::rows::{Columns, read};
use crate::store::StoreError;
use crate::subscription::Origin;

/// Locks as a foreign key does: the rows cannot be deleted until the transaction ends. They are found before they are locked in
/// order: the planner could read all origins in this order instead.
pub(super) const IDS: &str = "SELECT origin, id, ready, turns FROM web_push.origin \
     WHERE id = ANY(ARRAY(SELECT id FROM web_push.origin WHERE origin = ANY($1))) ORDER BY id FOR KEY SHARE";
/// Inserts in one order, since concurrent inserts of one origin wait for each other, and in a transaction that holds nothing else
/// (see [`lock`]).
pub(super) const MAKE: &str = "INSERT INTO web_push.origin (origin) SELECT origin FROM unnest($1::text[]) AS fresh (origin) \
     ORDER BY origin ON CONFLICT DO NOTHING";

/// An origin at which rows are to be written.
pub(super) struct Place {
    pub(super) id: i64,
    /// Whether it is marked as having ready rows. Stays so until the transaction ends.
    pub(super) is_ready: bool,
    /// The highest turn claimed in each band.
    pub(super) turns: Vec<i64>,
}

/// Locks origins as [`lock`] does. The rows cannot be deleted until the transaction ends.
pub(super) async fn places<'a>(
    tx: &mut Tx<'_>,
    origins: impl IntoIterator<Item = &'a Origin>,
) -> Result<HashMap<Origin, Place>, Failed> {
    lock(tx, origins, IDS, |columns| {
        let origin = read_origin(columns)?;
        let place = Place {
            id: columns.get()?,
            is_ready: columns.get()?,
            turns: columns.get()?,
        };
        Ok((origin, place))
    })
    .await
}

/// Runs `lock`, a statement that locks rows of origins by name. Returns what it read.
///
/// # Errors
///
/// If an origin is not there, as one that is new or was pruned a moment ago, an error that lets the transaction be run again once
/// it was inserted. If this transaction, which has locked other origins, inserted it, others would wait for that, and could
/// hold what this one waits for next.
pub(super) async fn lock<'a, T>(
    tx: &mut Tx<'_>,
    origins: impl IntoIterator<Item = &'a Origin>,
    lock: &'static str,
    row: impl Fn(&mut Columns<'_>) -> Result<(Origin, T), StoreError>,
) -> Result<HashMap<Origin, T>, Failed> {
    let wanted: BTreeSet<_> = origins.into_iter().map(Origin::as_str).collect();
    let mut wanted: Vec<_> = wanted.into_iter().collect();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<Row> = tx.query(lock, &[&wanted]).await?;
    let found: HashMap<Origin, T> = read(&rows, &row)?.into_iter().collect();
    wanted.retain(|name| !found.keys().any(|origin| origin.as_str() == *name));
    match wanted.is_empty() {
        true => Ok(found),
        false => Err(without_origins(&wanted)),
    }
}

pub(super) fn read_origin(columns: &mut Columns<'_>) -> Result<Origin, StoreError> {
    let origin: &str = columns.get()?;
    Origin::parse(origin).map_err(|_| corrupt("an origin"))
}
