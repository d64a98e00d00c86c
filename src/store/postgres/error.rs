//! What PostgreSQL's errors mean to whoever uses a store.

use std::error::Error;
use std::fmt;

use deadpool_postgres::PoolError;
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::store::reason::because;
pub(super) use crate::store::reason::{corrupt, misconfigured};
use crate::store::{StoreError, StoreErrorKind};

/// Why a statement failed, and what that means for its transaction and its connection.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: StoreError,
    /// The transaction lost against another one: the same again may succeed.
    pub(super) again: bool,
    /// The connection is of no more use.
    pub(super) broken: bool,
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self {
            error,
            again: false,
            broken: false,
        }
    }
}

impl From<StoreErrorKind> for Failed {
    fn from(kind: StoreErrorKind) -> Self {
        StoreError::from(kind).into()
    }
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(answer) = error.as_db_error() else {
            // A connection that broke, or an answer that is no PostgreSQL.
            return Self {
                error: StoreError::new(StoreErrorKind::Unavailable, error),
                again: false,
                broken: true,
            };
        };
        let code = answer.code();
        let is_fatal = !matches!(answer.parsed_severity(), Some(Severity::Error));
        // A statement that is not prepared any more, or was before a migration: another connection knows better.
        let is_outdated = [
            SqlState::INVALID_SQL_STATEMENT_NAME,
            SqlState::DUPLICATE_PSTATEMENT,
            SqlState::FEATURE_NOT_SUPPORTED,
        ]
        .contains(code);
        Self {
            again: [
                SqlState::T_R_SERIALIZATION_FAILURE,
                SqlState::T_R_DEADLOCK_DETECTED,
            ]
            .contains(code)
                // Two that were put at one place at the same time: the other try sees the first.
                || (*code == SqlState::UNIQUE_VIOLATION
                    && answer.constraint() == Some("schedule_pkey")),
            broken: is_fatal || is_outdated,
            error: StoreError::new(meaning(code), ServerError::new(answer)),
        }
    }
}

/// What the caller can do about an SQLSTATE.
fn meaning(code: &SqlState) -> StoreErrorKind {
    let text = code.code();
    match text.get(..2).unwrap_or_default() {
        // Index or page corrupted, data corrupted.
        "XX" if text != SqlState::INTERNAL_ERROR.code() => StoreErrorKind::Corrupt,
        _ if [
            SqlState::FEATURE_NOT_SUPPORTED,
            SqlState::DUPLICATE_PSTATEMENT,
        ]
        .contains(code) =>
        {
            StoreErrorKind::Unavailable
        }
        // A password, a database, a schema, a right, a table, a size: nothing that waiting helps.
        "28" | "3D" | "3F" | "42" | "22" | "23" | "54" | "0L" | "0P" => {
            StoreErrorKind::Misconfigured
        }
        _ => StoreErrorKind::Unavailable,
    }
}

/// No answer within the time that there is for one.
pub(super) fn too_late() -> Failed {
    Failed {
        error: because(
            StoreErrorKind::Unavailable,
            "the server did not answer in time",
        ),
        again: false,
        broken: true,
    }
}

/// Somebody else was faster, and the same again finds what he did.
pub(super) fn overtaken() -> Failed {
    Failed {
        error: because(
            StoreErrorKind::Unavailable,
            "others were faster again and again",
        ),
        again: true,
        broken: false,
    }
}

/// No connection.
pub(super) fn not_connected(error: PoolError) -> Failed {
    match error {
        PoolError::Backend(error) => error.into(),
        PoolError::Closed => because(StoreErrorKind::Unavailable, "the pool is closed").into(),
        PoolError::Timeout(_) => because(
            StoreErrorKind::Unavailable,
            "no connection came free in time",
        )
        .into(),
        PoolError::NoRuntimeSpecified => {
            misconfigured("the pool has time limits and no runtime").into()
        }
        PoolError::PostCreateHook(_) => because(
            StoreErrorKind::Unavailable,
            "the pool refused a connection that it had made",
        )
        .into(),
    }
}

/// What the server said, without the parts that quote rows: those hold endpoints and secrets.
#[derive(Debug)]
struct ServerError {
    code: String,
    message: String,
}

impl ServerError {
    fn new(error: &DbError) -> Self {
        Self {
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code)
    }
}

impl Error for ServerError {}
