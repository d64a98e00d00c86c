//! What an import came to.

use super::RefusedRow;

/// How many rows came to what. They add up to what was handed over.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ImportReport {
    /// New here.
    pub created: u64,
    /// Here already; a daily notification that was missing is new.
    pub updated: u64,
    /// Here already, with all there is to it.
    pub unchanged: u64,
    /// Here already with other keys, under another id or of another user, or renewed to another endpoint: what is
    /// stored here stays.
    pub superseded: u64,
    /// Not imported.
    pub refused: u64,
    /// New daily notifications, in all.
    pub daily: u64,
    /// Some of those refused, 32 at most.
    pub refusals: Vec<RefusedRow>,
}

impl ImportReport {
    /// How many refusals are kept.
    const MAX_REFUSALS: usize = 32;

    pub(super) fn refuse(&mut self, row: RefusedRow) {
        self.refused += 1;
        if self.refusals.len() < Self::MAX_REFUSALS {
            self.refusals.push(row);
        }
    }
}
