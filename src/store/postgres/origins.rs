//! Rows of the table `origin`, whose ids deliveries refer to.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::Row;

use super::connection::Tx;
use super::error::{Failed, corrupt};
use super::rows::{Columns, read};
use crate::store::StoreError;
use crate::subscription::Origin;

/// Locks as a foreign key does: the rows cannot be deleted until the transaction ends. They are found before they are locked in
/// order: the planner could read all origins in this order instead.
pub(super) const IDS: &str = "SELECT origin, id, ready, turns FROM web_push.origin \
     WHERE id = ANY(ARRAY(SELECT id FROM web_push.origin WHERE origin = ANY($1))) ORDER BY id FOR KEY SHARE";
/// Inserts in one order, since concurrent inserts of one origin wait for each other.
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

/// Locks origins, inserting unknown ones. The rows cannot be deleted until the transaction ends.
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

/// Runs `lock`, a statement that locks rows of origins by name, inserting unknown ones. Returns what it read.
pub(super) async fn lock<'a, T>(
    tx: &mut Tx<'_>,
    origins: impl IntoIterator<Item = &'a Origin>,
    lock: &'static str,
    row: impl Fn(&mut Columns<'_>) -> Result<(Origin, T), StoreError>,
) -> Result<HashMap<Origin, T>, Failed> {
    let wanted: BTreeSet<_> = origins.into_iter().map(Origin::as_str).collect();
    let mut wanted: Vec<_> = wanted.into_iter().collect();
    let mut found = HashMap::new();
    while !wanted.is_empty() {
        let rows: Vec<Row> = tx.query(lock, &[&wanted]).await?;
        found.extend(read(&rows, &row)?);
        wanted.retain(|name| !found.keys().any(|origin: &Origin| origin.as_str() == *name));
        // An origin that is deleted between its insertion and its lock is inserted again.
        if !wanted.is_empty() {
            tx.execute(MAKE, &[&wanted]).await?;
        }
    }
    Ok(found)
}

pub(super) fn read_origin(columns: &mut Columns<'_>) -> Result<Origin, StoreError> {
    let origin: &str = columns.get()?;
    Origin::parse(origin).map_err(|_| corrupt("an origin"))
}
