//! Errors of this process itself.

use std::fmt;
use std::io;

use super::error::find_source;
use crate::error::BoxError;

/// This process has no means to open a connection. It says nothing about the host.
#[derive(Debug)]
pub(super) struct LocalError {
    lack: Lack,
    source: Option<BoxError>,
}

/// What this process lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// Every connection of the budget is in use.
    Connections,
    /// No thread for a lookup.
    LookupThreads,
    /// The operating system has no file, buffer or port for a socket.
    Sockets,
    /// The resolver finds no name at all.
    Resolver,
    /// The resolver gives a host that the policy names an address that is not public.
    Addresses,
    /// The runtime of the task that opens or drives the connection has ended, or the task panicked.
    Runtime,
}

impl LocalError {
    /// An error with its source.
    pub(super) fn new(lack: Lack, source: impl Into<BoxError>) -> Self {
        Self {
            lack,
            source: Some(source.into()),
        }
    }

    /// Wraps an error of opening a socket if this process is the cause.
    pub(super) fn of_socket(error: BoxError) -> BoxError {
        if find_source::<io::Error>(error.as_ref()).is_some_and(is_local) {
            Self::new(Lack::Sockets, error).into()
        } else {
            error
        }
    }

    #[cfg(test)]
    pub(super) fn lack(&self) -> Lack {
        self.lack
    }
}

impl From<Lack> for LocalError {
    fn from(lack: Lack) -> Self {
        Self { lack, source: None }
    }
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.lack {
            Lack::Connections => "all connections that this process may open are in use",
            Lack::LookupThreads => "all threads for lookups are in use",
            Lack::Sockets => "the operating system has no socket left for this process",
            Lack::Resolver => "the resolver of this process finds no name",
            Lack::Addresses => {
                "the resolver of this process gives a push service an address that is not public"
            }
            Lack::Runtime => "the task of the connection was stopped",
        })
    }
}

impl std::error::Error for LocalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}

/// Returns whether no socket could be made, whatever the address.
fn is_local(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory
    ) || error
        .raw_os_error()
        .is_some_and(|code| OUT_OF_SOCKETS.contains(&code))
}

/// `ENFILE`, `EMFILE` and `ENOBUFS`.
#[cfg(any(target_os = "linux", target_os = "android"))]
const OUT_OF_SOCKETS: [i32; 3] = [23, 24, 105];
/// `ENFILE`, `EMFILE` and `ENOBUFS`, which Apple and the BSDs number alike.
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
const OUT_OF_SOCKETS: [i32; 3] = [23, 24, 55];
/// `WSAEMFILE` and `WSAENOBUFS`.
#[cfg(not(unix))]
const OUT_OF_SOCKETS: [i32; 2] = [10024, 10055];

#[cfg(test)]
mod tests {
    use super::super::{DeliveryError, PushService, ResolveError, ResolveErrorKind};
    use super::*;

    #[test]
    fn only_errors_of_this_process_are_local() {
        let is_local = |error: io::Error| {
            let error = LocalError::of_socket(error.into());
            find_source::<LocalError>(error.as_ref()).is_some()
        };
        for code in OUT_OF_SOCKETS {
            assert!(is_local(io::Error::from_raw_os_error(code)), "{code}");
        }
        assert!(is_local(io::ErrorKind::AddrNotAvailable.into()));
        for kind in [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::TimedOut,
            io::ErrorKind::HostUnreachable,
        ] {
            assert!(!is_local(kind.into()), "{kind}");
        }
    }

    #[test]
    fn an_attempt_that_fails_for_lack_of_anything_is_local() {
        for lack in [
            Lack::Connections,
            Lack::LookupThreads,
            Lack::Sockets,
            Lack::Resolver,
            Lack::Addresses,
            Lack::Runtime,
        ] {
            let cause = ResolveError::new(ResolveErrorKind::NotFound, "none");
            let error =
                DeliveryError::client(PushService::Other, LocalError::new(lack, cause).into());
            assert!(error.is_local(), "{lack:?}");
            assert!(!error.is_host_not_found(), "{lack:?}");
        }
        let cause = ResolveError::new(ResolveErrorKind::NotFound, "none");
        let error = DeliveryError::client(PushService::Other, cause.into());
        assert!(!error.is_local() && error.is_host_not_found());
    }
}
