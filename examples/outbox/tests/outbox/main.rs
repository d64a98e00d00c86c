//! Orders are shipped by each driver, by SQL and by other languages: what was committed is sent, once, and nothing else.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod drivers;
mod other_languages;
mod proof;
mod sql;
mod support;
