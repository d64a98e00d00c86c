//! Helpers that run statements and read their rows, with the store's own errors.

use rusqlite::types::FromSql;
use rusqlite::{Params, Row};

use super::connection::Connection;
use super::error::{corrupt, failed};
use crate::clock::Timestamp;
use crate::store::StoreError;

/// Runs a statement. Returns the number of changed rows.
pub(super) fn execute(
    conn: &Connection,
    sql: &str,
    params: impl Params,
) -> Result<usize, StoreError> {
    let mut statement = conn.prepare_cached(sql).map_err(failed)?;
    statement.execute(params).map_err(failed)
}

/// Reads all rows of a query.
pub(super) fn all<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    mut read: impl FnMut(&mut Columns<'_, '_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = conn.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query(params).map_err(failed)?;
    let mut answers = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        answers.push(read(&mut Columns { row, next: 0 })?);
    }
    Ok(answers)
}

/// Reads rows of a query until `read` returns `false`.
pub(super) fn each(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    mut read: impl FnMut(&mut Columns<'_, '_>) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let mut statement = conn.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query(params).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        if !read(&mut Columns { row, next: 0 })? {
            break;
        }
    }
    Ok(())
}

/// Reads the first row of a query.
pub(super) fn first<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&mut Columns<'_, '_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut statement = conn.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query(params).map_err(failed)?;
    match rows.next().map_err(failed)? {
        Some(row) => read(&mut Columns { row, next: 0 }).map(Some),
        None => Ok(None),
    }
}

/// A row, read column by column from the first.
pub(super) struct Columns<'a, 'stmt> {
    row: &'a Row<'stmt>,
    next: usize,
}

impl Columns<'_, '_> {
    /// Reads the next column. A value of another type is an error of kind `Corrupt`.
    pub(super) fn get<T: FromSql>(&mut self) -> Result<T, StoreError> {
        let column = self.next;
        self.next += 1;
        self.row.get(column).map_err(failed)
    }

    /// Reads the columns again, from the first.
    pub(super) const fn again(&mut self) -> &mut Self {
        self.next = 0;
        self
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let bytes: Vec<u8> = self.get()?;
        bytes.try_into().map_err(|_| corrupt("a key's length"))
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, StoreError> {
        self.get().map(Timestamp::from_millis)
    }

    pub(super) fn time_or_null(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let millis: Option<i64> = self.get()?;
        Ok(millis.map(Timestamp::from_millis))
    }

    pub(super) fn flag(&mut self) -> Result<bool, StoreError> {
        self.get()
    }

    /// Reads a number that is not negative.
    pub(super) fn count(&mut self) -> Result<u64, StoreError> {
        let number: i64 = self.get()?;
        u64::try_from(number).map_err(|_| corrupt("a count below zero"))
    }
}

/// Converts a number to SQLite's integer, saturating.
pub(super) fn integer(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
