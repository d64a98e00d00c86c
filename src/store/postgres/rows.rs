//! Reading rows with the store's own errors, and integers for PostgreSQL.

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};

use super::error::corrupt;
use crate::clock::Timestamp;
use crate::store::{StoreError, StoreErrorKind};

/// The values of a statement.
pub(super) type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A row, read column by column from the first.
pub(super) struct Columns<'a> {
    row: &'a Row,
    next: usize,
}

impl<'a> Columns<'a> {
    pub(super) const fn of(row: &'a Row) -> Self {
        Self { row, next: 0 }
    }

    /// Reads the next column. A value of another type is an error of kind `Corrupt`.
    pub(super) fn get<T: FromSql<'a>>(&mut self) -> Result<T, StoreError> {
        let column = self.next;
        self.next += 1;
        self.row
            .try_get(column)
            .map_err(|error| StoreError::new(StoreErrorKind::Corrupt, error))
    }

    /// Passes over columns.
    pub(super) const fn skip(&mut self, columns: usize) {
        self.next += columns;
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let bytes: &[u8] = self.get()?;
        bytes.try_into().map_err(|_| corrupt("a key's length"))
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, StoreError> {
        self.get().map(Timestamp::from_millis)
    }

    pub(super) fn time_or_null(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let millis: Option<i64> = self.get()?;
        Ok(millis.map(Timestamp::from_millis))
    }

    /// Reads a number that is not negative.
    pub(super) fn count(&mut self) -> Result<u64, StoreError> {
        let number: i64 = self.get()?;
        u64::try_from(number).map_err(|_| corrupt("a count below zero"))
    }
}

/// Reads all rows.
pub(super) fn read<T>(
    rows: &[Row],
    read: impl Fn(&mut Columns<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    rows.iter().map(|row| read(&mut Columns::of(row))).collect()
}

/// Reads the first row, if any.
pub(super) fn first<T>(
    rows: &[Row],
    read: impl FnOnce(&mut Columns<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    rows.first()
        .map(|row| read(&mut Columns::of(row)))
        .transpose()
}

/// Converts a number to PostgreSQL's `bigint`, saturating.
pub(super) fn integer(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// Converts the number of a band to PostgreSQL's `smallint`.
pub(super) fn band_number(band: usize) -> i16 {
    band.try_into().unwrap_or(i16::MAX)
}
