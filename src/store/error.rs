//! The error of a store.

use std::fmt;

use crate::error::{BoxError, error_struct};
#[cfg(any(feature = "postgres", feature = "redis"))]
use crate::tls::TlsError;

error_struct! {
    /// The reason why a store did not do what it was asked.
    StoreError, StoreErrorKind
}

impl StoreError {
    /// Makes an error for a store of your own, with its cause.
    #[must_use]
    pub fn new(kind: StoreErrorKind, source: impl Into<BoxError>) -> Self {
        Self::with_source(kind, source)
    }

    /// S16.
    pub(super) fn too_many_unproven() -> Self {
        Self::new(
            StoreErrorKind::Full,
            "there are as many subscriptions that no push was accepted for as the limit allows",
        )
    }

    /// Adds a context in front of the cause.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn about(self, what: impl fmt::Display) -> Self {
        let about = About {
            what: what.to_string(),
            source: self.source,
        };
        Self::with_source(self.kind, about)
    }
}

/// A context in front of a cause.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
#[derive(Debug)]
struct About {
    what: String,
    source: Option<BoxError>,
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl std::error::Error for About {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(any(feature = "postgres", feature = "redis"))]
impl From<TlsError> for StoreError {
    fn from(source: TlsError) -> Self {
        Self::with_source(StoreErrorKind::Misconfigured, source)
    }
}

/// The kind of a store's error, by what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Out of reach or overloaded: the same call may succeed later.
    Unavailable,
    /// The number of rows has reached a limit, which the source names. Nothing was changed.
    Full,
    /// A value that was read back is invalid: the schema of another version, or damage.
    Corrupt,
    /// The store is used in a wrong way: a bad path, a missing migration, a refused setting.
    Misconfigured,
}

impl StoreErrorKind {
    /// Every kind.
    #[cfg(feature = "metrics")]
    pub(crate) const ALL: &'static [Self] = &[
        Self::Unavailable,
        Self::Full,
        Self::Corrupt,
        Self::Misconfigured,
    ];

    /// The name in metrics and spans.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Full => "full",
            Self::Corrupt => "corrupt",
            Self::Misconfigured => "misconfigured",
        }
    }
}

impl fmt::Display for StoreErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "the store is unavailable",
            Self::Full => "the store is full",
            Self::Corrupt => "the store contains an unreadable value",
            Self::Misconfigured => "the store is misconfigured",
        })
    }
}
