//! Errors of this process itself.

use std::fmt;
use std::io;
use std::net::IpAddr;

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
    /// The operating system has no file or buffer for a socket.
    Sockets,
    /// The operating system has no port for a connection to the host.
    Ports,
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

    /// Wraps an error of opening a connection to one of these addresses if this process is the cause.
    pub(super) fn of_socket(error: BoxError, addrs: &[IpAddr]) -> BoxError {
        let io = find_source::<io::Error>(error.as_ref());
        match io.and_then(|io| lack_of_socket(io, addrs)) {
            Some(lack) => Self::new(lack, error).into(),
            None => error,
        }
    }

    pub(super) const fn lack(&self) -> Lack {
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
            Lack::Ports => "the operating system has no port left for a connection to the host",
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

/// What this process lacks if it could make no socket for any of these addresses.
fn lack_of_socket(error: &io::Error, addrs: &[IpAddr]) -> Option<Lack> {
    let is_out = |code| OUT_OF_SOCKETS.contains(&code);
    match error.kind() {
        _ if error.raw_os_error().is_some_and(is_out) => Some(Lack::Sockets),
        io::ErrorKind::OutOfMemory => Some(Lack::Sockets),
        // A machine without an IPv6 address says the same of each IPv6 address, and that does not pass. Which of the addresses
        // the error is about is not known.
        io::ErrorKind::AddrNotAvailable if addrs.iter().all(IpAddr::is_ipv4) => Some(Lack::Ports),
        _ => None,
    }
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
        let [v4, v6] = ["192.0.2.1", "2001:db8::1"].map(|addr| addr.parse().unwrap());
        let lack = |error: io::Error, addrs: &[IpAddr]| {
            let error = LocalError::of_socket(error.into(), addrs);
            find_source::<LocalError>(error.as_ref()).map(LocalError::lack)
        };
        for code in OUT_OF_SOCKETS {
            let lack = lack(io::Error::from_raw_os_error(code), &[v6]);
            assert_eq!(lack, Some(Lack::Sockets), "{code}");
        }
        let no_port = || io::ErrorKind::AddrNotAvailable.into();
        assert_eq!(lack(no_port(), &[v4]), Some(Lack::Ports));
        for addrs in [&[v6][..], &[v4, v6]] {
            assert_eq!(lack(no_port(), addrs), None, "a machine without IPv6");
        }
        for kind in [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::TimedOut,
            io::ErrorKind::HostUnreachable,
        ] {
            assert_eq!(lack(kind.into(), &[v4, v6]), None, "{kind}");
        }
    }

    #[test]
    fn an_attempt_that_fails_for_lack_of_anything_is_local() {
        for lack in [
            Lack::Connections,
            Lack::LookupThreads,
            Lack::Sockets,
            Lack::Ports,
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
