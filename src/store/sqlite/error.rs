//! What SQLite's errors mean to whoever uses a store.

use std::fmt;
use std::sync::Arc;

use rusqlite::{Error, ErrorCode};

use crate::store::reason::because;
pub(super) use crate::store::reason::{corrupt, misconfigured};
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

/// The threads of the store are gone.
pub(super) fn closed() -> StoreError {
    because(StoreErrorKind::Unavailable, "the database is closed")
}

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
