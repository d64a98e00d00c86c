//! Causes without a driver's error: a short text.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use super::{StoreError, StoreErrorKind};

/// An error for a stored value that is invalid.
pub(super) fn corrupt(what: &'static str) -> StoreError {
    because(StoreErrorKind::Corrupt, what)
}

/// An error for a store that cannot be used with its settings.
pub(super) fn misconfigured(why: impl Into<Cow<'static, str>>) -> StoreError {
    because(StoreErrorKind::Misconfigured, why)
}

pub(super) fn because(kind: StoreErrorKind, why: impl Into<Cow<'static, str>>) -> StoreError {
    StoreError::new(kind, Reason(why.into()))
}

/// An error for a URL parameter, by its name. Its value may be a secret.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(super) fn parameter(name: &str, why: impl fmt::Display) -> StoreError {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    misconfigured(
        match (1..=64).contains(&name.len()) && name.bytes().all(is_plain) {
            true => format!("the URL's parameter `{name}` {why}"),
            false => "the URL has a parameter with a name that none has".to_owned(),
        },
    )
}

#[derive(Debug)]
struct Reason(Cow<'static, str>);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Reason {}
