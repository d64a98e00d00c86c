//! Why a configuration was refused.

use std::fmt;

use crate::error::error_struct;
use crate::store::StoreError;
use crate::vapid::VapidError;

error_struct! {
    /// Why a [`WebPush`](crate::WebPush) could not be made.
    BuildError, BuildErrorKind
}

/// What was wrong with a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BuildErrorKind {
    /// The contact is not one that push services take: see the source.
    InvalidContact,
    /// The lease is not longer than the request timeout, by 5 seconds at least.
    LeaseTooShort,
    /// The extra root certificates cannot be read.
    InvalidRootCa,
    /// Feature `client` is off and no client was given.
    NoClient,
    /// A stored VAPID key cannot be read, or no key could be made: see the source.
    VapidKey,
    /// The store does not answer.
    Store,
    /// This machine's clock and the database server's differ by more than 10 seconds: see the source.
    ClockSkew,
}

impl fmt::Display for BuildErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidContact => "the contact is not one that push services take",
            Self::LeaseTooShort => "the lease is not 5 seconds longer than the request timeout",
            Self::InvalidRootCa => "the extra root certificates cannot be read",
            Self::NoClient => "there is no HTTP client: enable feature `client` or give one",
            Self::VapidKey => "the VAPID keys cannot be read or made",
            Self::Store => "the store does not answer",
            Self::ClockSkew => "the clock is not the store's",
        })
    }
}

impl From<VapidError> for BuildError {
    fn from(source: VapidError) -> Self {
        Self::with_source(BuildErrorKind::VapidKey, source)
    }
}

impl From<StoreError> for BuildError {
    fn from(source: StoreError) -> Self {
        Self::with_source(BuildErrorKind::Store, source)
    }
}
