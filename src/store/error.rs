//! What a store answers when it cannot do what it was asked.

use std::fmt;

use crate::error::{BoxError, error_struct};

error_struct! {
    /// Why a store did not do what it was asked.
    StoreError, StoreErrorKind
}

impl StoreError {
    /// An error of a store of your own, with its cause.
    #[must_use]
    pub fn new(kind: StoreErrorKind, source: impl Into<BoxError>) -> Self {
        Self::with_source(kind, source)
    }
}

/// What went wrong in a store, by what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Out of reach or overloaded: the same call may succeed later.
    Unavailable,
    /// The total number of rows has reached its cap; nothing was changed.
    Full,
    /// What was read back makes no sense: another version's schema, or damage.
    Corrupt,
    /// The store is used wrongly: a bad path, a missing migration, a refused setting.
    Misconfigured,
}

impl fmt::Display for StoreErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "the store is unavailable",
            Self::Full => "the store is full",
            Self::Corrupt => "the store holds something unreadable",
            Self::Misconfigured => "the store is misconfigured",
        })
    }
}
