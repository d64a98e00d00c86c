//! The kinds of SQLite's errors.

use std::fmt;
use std::sync::Arc;

use rusqlite::{Error, ErrorCode, ffi};

use crate::store::reason::because;
pub(super) use crate::store::reason::{corrupt, misconfigured};
use crate::store::{StoreError, StoreErrorKind};

/// A value of another type than that of its column in a `STRICT` table. Bindings for SQLite before 3.37 lack it.
const DATATYPE: i32 = ffi::SQLITE_CONSTRAINT | (12 << 8);

/// Maps an error while the store is in use.
pub(super) fn failed(error: Error) -> StoreError {
    let code = error.sqlite_error().map(|error| error.extended_code);
    let kind = match error.sqlite_error_code() {
        // The store's own values have the types of their columns: a damaged number has become too large for an integer.
        Some(ErrorCode::ConstraintViolation) if code == Some(DATATYPE) => {
            StoreErrorKind::Corrupt
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreErrorKind::Corrupt,
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::ConstraintViolation
            // "No such table": another program changed the schema.
            | ErrorCode::Unknown,
        ) => StoreErrorKind::Misconfigured,
        Some(_) => StoreErrorKind::Unavailable,
        // "No such column": the same.
        None if matches!(error, Error::SqlInputError { .. }) => StoreErrorKind::Misconfigured,
        None => StoreErrorKind::Corrupt,
    };
    StoreError::new(kind, error)
}

/// Maps an error while the store is opened. A file that is not a database is a wrong setting, and missing write
/// permission gets its own text, since SQLite's does not distinguish the file from its folder.
pub(super) fn failed_to_open(error: Error) -> StoreError {
    let code = error.sqlite_error().map(|error| error.extended_code);
    let why = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            return StoreError::new(StoreErrorKind::Misconfigured, error);
        }
        Some(ErrorCode::ReadOnly) if code == Some(ffi::SQLITE_READONLY_DIRECTORY) => {
            "its folder cannot be written, and its log has to be there"
        }
        Some(ErrorCode::ReadOnly) => "the file can be read and not written",
        Some(ErrorCode::CannotOpen) => {
            "the file, or its -wal or -shm, cannot be read and written with its permissions"
        }
        _ => return failed(error),
    };
    failed(error).about(why)
}

/// The error after the store's threads have ended.
pub(super) fn closed() -> StoreError {
    because(StoreErrorKind::Unavailable, "the database is closed")
}

/// One error for all changes of one transaction.
#[derive(Clone, Debug)]
pub(super) enum CommitError {
    Failed(Arc<Error>),
    /// The file is not to be written any more. Each change is told so in the words in which later ones are.
    Refused(Arc<StoreError>),
}

impl CommitError {
    pub(super) fn failed(error: Error) -> Self {
        Self::Failed(Arc::new(error))
    }

    pub(super) fn refused(error: StoreError) -> Self {
        Self::Refused(Arc::new(error))
    }

    /// The error for one of the changes.
    pub(super) fn to_store_error(&self) -> StoreError {
        let kind = match self {
            Self::Failed(_) => StoreErrorKind::Unavailable,
            Self::Refused(error) => error.kind(),
        };
        StoreError::new(kind, self.clone())
    }
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(_) => f.write_str("the transaction was not committed"),
            Self::Refused(error) => match std::error::Error::source(&**error) {
                Some(source) => fmt::Display::fmt(source, f),
                None => fmt::Display::fmt(error, f),
            },
        }
    }
}

impl std::error::Error for CommitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Refused(error) => std::error::Error::source(&**error)?.source(),
        }
    }
}
