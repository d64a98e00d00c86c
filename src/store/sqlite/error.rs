//! What SQLite's errors mean to whoever uses a store.

use std::fmt;
use std::sync::Arc;

use rusqlite::{Error, ErrorCode};

use crate::store::{StoreError, StoreErrorKind};

/// The meaning of an error while the store is in use.
pub(super) fn failed(error: Error) -> StoreError {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreErrorKind::Corrupt,
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::ConstraintViolation
            // "No such table": the schema was changed behind our back.
            | ErrorCode::Unknown,
        ) => StoreErrorKind::Misconfigured,
        Some(_) => StoreErrorKind::Unavailable,
        None => StoreErrorKind::Corrupt,
    };
    StoreError::new(kind, error)
}

/// The meaning of an error while the store is opened: what is no database was never ours.
pub(super) fn failed_to_open(error: Error) -> StoreError {
    if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) {
        return StoreError::new(StoreErrorKind::Misconfigured, error);
    }
    failed(error)
}

/// A value that was read back and makes no sense.
pub(super) fn corrupt(what: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, Reason(what))
}

/// A store that cannot be used as it is.
pub(super) fn misconfigured(why: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Misconfigured, Reason(why))
}

/// The threads of the store are gone.
pub(super) fn closed() -> StoreError {
    let reason = Reason("the database is closed");
    StoreError::new(StoreErrorKind::Unavailable, reason)
}

/// A short text as a cause.
#[derive(Debug)]
struct Reason(&'static str);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Reason {}

/// One error for all the changes of one transaction.
#[derive(Clone, Debug)]
pub(super) struct CommitError(Arc<Error>);

impl CommitError {
    pub(super) fn new(error: Error) -> Self {
        Self(Arc::new(error))
    }

    /// For one of the changes.
    pub(super) fn to_store_error(&self) -> StoreError {
        StoreError::new(StoreErrorKind::Unavailable, self.clone())
    }
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the transaction was not committed")
    }
}

impl std::error::Error for CommitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}
