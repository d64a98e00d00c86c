//! Errors in one line.

use std::error::Error;

/// An error and what caused it, in one line.
pub(crate) fn with_causes(error: impl Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}
