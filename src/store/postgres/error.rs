//! The kinds of PostgreSQL's errors.

use std::error::Error;
use std::fmt;

use deadpool_postgres::PoolError;
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::store::reason::because;
pub(super) use crate::store::reason::{corrupt, misconfigured};
use crate::store::together::Unshared;
use crate::store::{StoreError, StoreErrorKind};

/// The error of a statement, and what follows for its transaction and connection.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: StoreError,
    /// Why another attempt of the transaction may succeed.
    pub(super) again: Option<Again>,
    /// The connection must not be reused.
    pub(super) broken: bool,
    /// The server has not answered the statement: it may have run it.
    pub(super) unanswered: bool,
}

/// Why another attempt of a transaction may succeed.
#[derive(Debug)]
pub(super) enum Again {
    /// It failed by a conflict.
    Conflict,
    /// It needs these origins, which were not there. They are inserted before the next attempt, by a transaction that holds no
    /// other locks.
    WithOrigins(Vec<String>),
}

impl From<Failed> for Unshared {
    fn from(failed: Failed) -> Self {
        match failed.unanswered {
            false => Self::Alone(failed.error),
            true => Self::Failed(failed.error),
        }
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self {
            error,
            again: None,
            broken: false,
            unanswered: false,
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
            // A broken connection, or a peer that does not speak the protocol.
            return Self {
                error: StoreError::new(StoreErrorKind::Unavailable, error),
                again: None,
                broken: true,
                unanswered: true,
            };
        };
        let code = answer.code();
        let is_fatal = !matches!(answer.parsed_severity(), Some(Severity::Error));
        // A statement that is no longer prepared, or was prepared before a migration: a new connection prepares it again.
        let is_outdated = [
            SqlState::INVALID_SQL_STATEMENT_NAME,
            SqlState::DUPLICATE_PSTATEMENT,
            SqlState::FEATURE_NOT_SUPPORTED,
        ]
        .contains(code);
        let is_conflict = [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
        ]
        .contains(code)
            // Two concurrent inserts of one schedule: the second attempt sees the first.
            || (*code == SqlState::UNIQUE_VIOLATION
                && answer.constraint() == Some("schedule_pkey"));
        Self {
            again: is_conflict.then_some(Again::Conflict),
            broken: is_fatal || is_outdated,
            // A server that ends the connection may do so after a commit.
            unanswered: is_fatal,
            error: StoreError::new(meaning(code), ServerError::new(answer)),
        }
    }
}

/// Maps an SQLSTATE to a kind.
fn meaning(code: &SqlState) -> StoreErrorKind {
    let text = code.code();
    match text.get(..2).unwrap_or_default() {
        // Corrupted data, index or page.
        "XX" if text != SqlState::INTERNAL_ERROR.code() => StoreErrorKind::Corrupt,
        _ if [
            SqlState::FEATURE_NOT_SUPPORTED,
            SqlState::DUPLICATE_PSTATEMENT,
        ]
        .contains(code) =>
        {
            StoreErrorKind::Unavailable
        }
        // Password, database, schema, permission, table, size, a refusal of `enqueue`: waiting does not help. Nor does it where a
        // constraint, a trigger or a function that others have added refuses a row.
        "28" | "3D" | "3F" | "42" | "54" | "0L" | "0P" | "WP" | "21" | "22" | "23" | "27"
        | "2F" | "38" | "39" | "44" | "45" | "P0" => StoreErrorKind::Misconfigured,
        _ => StoreErrorKind::Unavailable,
    }
}

/// The error for an answer that exceeds its timeout.
pub(super) fn too_late() -> Failed {
    Failed {
        error: because(
            StoreErrorKind::Unavailable,
            "the server did not answer in time",
        ),
        again: None,
        broken: true,
        unanswered: true,
    }
}

/// A conflict with a concurrent transaction, whose result the next attempt reads.
pub(super) fn overtaken() -> Failed {
    Failed {
        error: because(
            StoreErrorKind::Unavailable,
            "others were faster again and again",
        ),
        again: Some(Again::Conflict),
        broken: false,
        unanswered: false,
    }
}

/// The transaction needs origins that are not there.
pub(super) fn without_origins(names: &[&str]) -> Failed {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Failed {
        again: Some(Again::WithOrigins(names)),
        ..overtaken()
    }
}

/// Maps an error of the pool.
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

/// The server's message and code, without the parts that quote rows, which hold endpoints and secrets.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that is out of reach is asked again for all rows, and one that refuses a row for each of them.
    #[test]
    fn what_refuses_one_row_is_no_store_that_is_out_of_reach() {
        for (code, kind) in [
            ("22012", StoreErrorKind::Misconfigured),
            ("23514", StoreErrorKind::Misconfigured),
            ("45000", StoreErrorKind::Misconfigured),
            ("P0001", StoreErrorKind::Misconfigured),
            ("42501", StoreErrorKind::Misconfigured),
            ("25006", StoreErrorKind::Unavailable),
            ("40001", StoreErrorKind::Unavailable),
            ("53100", StoreErrorKind::Unavailable),
            ("57P01", StoreErrorKind::Unavailable),
            ("XX000", StoreErrorKind::Unavailable),
            ("XX001", StoreErrorKind::Corrupt),
        ] {
            assert_eq!(meaning(&SqlState::from_code(code)), kind, "{code}");
        }
    }

    /// What was shared is not made again by each of its callers: it may have been done, and the server is out of reach.
    #[test]
    fn an_error_that_is_no_answer_leaves_open_what_was_done() {
        let error = "host=".parse::<tokio_postgres::Config>().err();
        let error = error.or_else(|| "nonsense".parse::<tokio_postgres::Config>().err());
        let failed = Failed::from(error.unwrap());
        assert!(failed.broken && failed.unanswered);
        assert!(matches!(failed.into(), Unshared::Failed(_)));
    }
}
