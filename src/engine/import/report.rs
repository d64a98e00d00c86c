//! The report of an import.

use super::RefusedRow;

/// The number of rows by result. They add up to the rows given.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ImportReport {
    /// New rows.
    pub created: u64,
    /// Stored rows that got a missing daily notification.
    pub updated: u64,
    /// Stored rows without a difference.
    pub unchanged: u64,
    /// Rows stored with other keys, under another id or of another user, or renewed to another endpoint. The stored
    /// row stays.
    pub superseded: u64,
    /// Rows that could not be imported.
    pub refused: u64,
    /// New daily notifications.
    pub daily: u64,
    /// The first refusals, at most 32.
    pub refusals: Vec<RefusedRow>,
}

impl ImportReport {
    /// The most refusals that are kept.
    const MAX_REFUSALS: usize = 32;

    pub(super) fn refuse(&mut self, row: RefusedRow) {
        self.refused += 1;
        if self.refusals.len() < Self::MAX_REFUSALS {
            self.refusals.push(row);
        }
    }
}
