//! The error of `build`.

use std::fmt;

use crate::error::error_struct;
use crate::store::StoreError;
use crate::vapid::VapidError;

error_struct! {
    /// The reason why a [`WebPush`](crate::WebPush) could not be made.
    BuildError, BuildErrorKind
}

/// The kind of a [`BuildError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BuildErrorKind {
    /// A setting is out of range or cannot be read: the name of its method on
    /// [`WebPushBuilder`](crate::WebPushBuilder), or `contact`. The source says what it must be.
    InvalidSetting(&'static str),
    /// A setting would have no effect beside the others: the name of its method. `extra_root_ca_pem` is for the built-in
    /// client, `insecure_local_contact` for a contact, and
    /// [`seal_clear_keys`](crate::vapid::KeyEncryptionKeys::seal_clear_keys) for at least one key-encryption key.
    UnusedSetting(&'static str),
    /// Feature `client` is off and no client was given, or the built-in client has no TLS: see the source.
    NoClient,
    /// A stored VAPID key cannot be read, or no key could be made: see the source.
    VapidKey,
    /// The store is unavailable.
    Store,
    /// The store has no VAPID key, and [`create_store`](crate::WebPushBuilder::create_store) is `false`.
    EmptyStore,
    /// The store does not have the VAPID key of
    /// [`expect_vapid_key`](crate::WebPushBuilder::expect_vapid_key): see the source.
    OtherStore,
    /// This machine's clock and the database server's differ by more than 10 seconds: see the source.
    ClockSkew,
}

impl fmt::Display for BuildErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidSetting(name) => {
                return write!(f, "the setting `{name}` is invalid");
            }
            Self::UnusedSetting(name) => {
                return write!(
                    f,
                    "the setting `{name}` has no effect: remove it or what replaces it"
                );
            }
            Self::NoClient => "there is no HTTP client: enable feature `client` or set `client`",
            Self::VapidKey => "the VAPID keys cannot be read or made",
            Self::Store => "the store is unavailable",
            Self::EmptyStore => {
                "the store is empty, and it must not be created: check its address, or set `create_store`"
            }
            Self::OtherStore => "the store does not have the expected VAPID key: check its address",
            Self::ClockSkew => "this machine's clock differs from the database server's",
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
