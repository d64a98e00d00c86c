//! What the crate's error types share.
//!
//! Every family of operations has one opaque error struct: `kind()` names what the caller should do
//! next, `source()` carries the cause, and `Display` prints this level only, without the cause's text.

/// A boxed error from a layer, a body or a store that is not ours.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Writes one error struct around its `kind` enum.
///
/// The enum must implement `Display` (lower case, no full stop, no cause text), `Copy` and `Debug`.
macro_rules! error_struct {
    ($(#[$doc:meta])* $name:ident, $kind:ident) => {
        $(#[$doc])*
        pub struct $name {
            kind: $kind,
            source: Option<$crate::error::BoxError>,
        }

        // Not every family uses every constructor.
        #[allow(dead_code)]
        impl $name {
            pub(crate) fn with_source(
                kind: $kind,
                source: impl Into<$crate::error::BoxError>,
            ) -> Self {
                Self { kind, source: Some(source.into()) }
            }

            /// What went wrong, by what the caller can do about it.
            #[must_use]
            pub const fn kind(&self) -> $kind {
                self.kind
            }
        }

        impl From<$kind> for $name {
            fn from(kind: $kind) -> Self {
                Self { kind, source: None }
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                let mut debug = f.debug_struct(stringify!($name));
                debug.field("kind", &self.kind);
                if let Some(source) = &self.source {
                    debug.field("source", source);
                }
                debug.finish()
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(&self.kind, f)
            }
        }

        impl ::std::error::Error for $name {
            fn source(&self) -> Option<&(dyn ::std::error::Error + 'static)> {
                self.source.as_deref().map(|source| source as &(dyn ::std::error::Error + 'static))
            }
        }
    };
}

pub(crate) use error_struct;

/// Writes an error struct for the one thing that can be wrong.
#[cfg(feature = "_engine")]
macro_rules! unit_error {
    ($(#[$doc:meta])* $name:ident, $text:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(());

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str($text)
            }
        }

        impl ::std::error::Error for $name {}
    };
}

#[cfg(feature = "_engine")]
pub(crate) use unit_error;
