//! What a store answers when it cannot do what it was asked.

use std::fmt;

use crate::error::{BoxError, error_struct};
#[cfg(any(feature = "postgres", feature = "redis"))]
use crate::tls::TlsError;

error_struct! {
    /// Why a store did not do what it was asked.
    StoreError, StoreErrorKind
}

impl StoreError {
    /// An error of a store of your own, with its cause.
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

    /// The same, with what it is about in front of its cause.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn about(self, what: impl fmt::Display) -> Self {
        let about = About {
            what: what.to_string(),
            source: self.source,
        };
        Self::with_source(self.kind, about)
    }
}

/// What an error is about.
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

/// What went wrong in a store, by what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Out of reach or overloaded: the same call may succeed later.
    Unavailable,
    /// The number of rows has reached a limit, which the source names; nothing was changed.
    Full,
    /// What was read back makes no sense: another version's schema, or damage.
    Corrupt,
    /// The store is used wrongly: a bad path, a missing migration, a refused setting.
    Misconfigured,
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
