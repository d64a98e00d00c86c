//! Causes that no driver names: a short text.

use std::error::Error;
use std::fmt;

use super::{StoreError, StoreErrorKind};

/// A value that was read back and makes no sense.
pub(super) fn corrupt(what: &'static str) -> StoreError {
    because(StoreErrorKind::Corrupt, what)
}

/// A store that cannot be used as it is.
pub(super) fn misconfigured(why: &'static str) -> StoreError {
    because(StoreErrorKind::Misconfigured, why)
}

pub(super) fn because(kind: StoreErrorKind, why: &'static str) -> StoreError {
    StoreError::new(kind, Reason(why))
}

#[derive(Debug)]
struct Reason(&'static str);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Reason {}
