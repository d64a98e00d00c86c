//! Errors in one line.

use std::error::Error;

/// An error and what caused it, in one line. Some say their cause themselves.
pub(crate) fn with_causes(error: impl Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}
