//! Errors in one line.

use std::error::Error;

/// An error and its causes in one line. A cause that the error's own message repeats is left out.
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
