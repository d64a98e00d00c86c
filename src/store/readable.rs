//! Rows that cannot be read, among others that can.

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
use std::time::Duration;

use super::{StoreError, StoreErrorKind};
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
use crate::observe;

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
/// How long rows of an origin whose name cannot be read wait for another look. They end at their deadline.
pub(super) const UNREADABLE_ORIGIN: Duration = Duration::from_secs(3600);
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
/// What stands for a [`PauseReason`](super::PauseReason) in the pause of such an origin. It cannot be read either, so it is in no
/// list and holds until its end (L11).
pub(super) const UNREADABLE_REASON: &str = "unreadable";

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
/// Says that origins have names that cannot be read.
pub(super) fn report_unreadable_origins(origins: usize) {
    observe::event!(
        ERROR,
        origins,
        "origins whose names the store cannot read: their rows wait for an hour"
    );
    observe::count_unreadable("origins", origins as u64);
}

/// Returns a value, or `None` if it is damaged.
///
/// # Errors
///
/// Any error but [`Corrupt`](StoreErrorKind::Corrupt).
pub(super) fn readable_or_none<T>(value: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == StoreErrorKind::Corrupt => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
/// A page of rows of which some may be damaged: these are left out, and the page goes on behind them.
pub(super) struct ReadablePage<T> {
    rows: Vec<T>,
    limit: usize,
    damaged: u64,
    /// The first error of a damaged row.
    error: Option<StoreError>,
}

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
impl<T> ReadablePage<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            rows: Vec::new(),
            limit,
            damaged: 0,
            error: None,
        }
    }

    /// The number of rows that the page has room for.
    pub(super) fn missing(&self) -> usize {
        self.limit.saturating_sub(self.rows.len())
    }

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// Any error but [`Corrupt`](StoreErrorKind::Corrupt).
    pub(super) fn push(&mut self, row: Result<T, StoreError>) -> Result<(), StoreError> {
        match row {
            Ok(row) => self.rows.push(row),
            Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                self.damaged += 1;
                self.error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Returns the rows, or the first error if all are damaged.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](StoreErrorKind::Corrupt) if there are rows and none could be read.
    pub(super) fn finish_or_fail(mut self, what: &'static str) -> Result<Vec<T>, StoreError> {
        match self.error.take() {
            Some(error) if self.rows.is_empty() => Err(error),
            _ => Ok(self.finish(what)),
        }
    }

    /// The number of damaged rows.
    pub(super) const fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Returns the rows of a table that is read whole and often. A damaged row is in the log and in the metrics once, until it
    /// is repaired.
    pub(super) fn finish_once(mut self, what: &'static str, known: &KnownDamage) -> Vec<T> {
        let before = known.0.swap(self.damaged, Ordering::Relaxed);
        self.damaged = self.damaged.saturating_sub(before);
        self.finish(what)
    }

    /// Returns the rows. `what` names them in the log if some were left out.
    pub(super) fn finish(self, what: &'static str) -> Vec<T> {
        if self.damaged > 0 {
            observe::event!(
                ERROR,
                rows = self.damaged,
                what,
                "rows that the store cannot read are left out"
            );
            observe::count_unreadable(what, self.damaged);
        }
        self.rows
    }
}

/// The number of damaged rows that the last look at a table found.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
#[derive(Debug, Default)]
pub(super) struct KnownDamage(AtomicU64);

#[cfg(test)]
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
mod tests {
    use super::*;

    #[test]
    fn the_others_are_returned_and_no_other_error_is_hidden() {
        let corrupt = || Err(StoreErrorKind::Corrupt.into());
        let unavailable = || Err(StoreErrorKind::Unavailable.into());
        let page = |rows: Vec<Result<u8, StoreError>>| {
            let mut page = ReadablePage::new(rows.len());
            for row in rows {
                page.push(row).map_err(|error| error.kind())?;
            }
            Ok((page.missing(), page))
        };
        let kind = |result: Result<Vec<u8>, StoreError>| result.map_err(|error| error.kind());
        let (missing, read) = page(vec![Ok(1), corrupt(), Ok(2)]).unwrap();
        assert_eq!(missing, 1);
        assert_eq!(kind(read.finish_or_fail("rows")), Ok(vec![1, 2]));
        let (_, none) = page(vec![corrupt(), corrupt()]).unwrap();
        let none = kind(none.finish_or_fail("rows"));
        assert_eq!(none, Err(StoreErrorKind::Corrupt));
        let (_, left_out) = page(vec![corrupt()]).unwrap();
        assert!(left_out.finish("rows").is_empty());
        let failed = page(vec![Ok(1), unavailable()]).map(|_| ());
        assert_eq!(failed, Err(StoreErrorKind::Unavailable));
    }
}
