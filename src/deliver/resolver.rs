//! Name resolution.

use std::fmt;
use std::net::IpAddr;

use async_trait::async_trait;

use crate::error::{BoxError, error_struct};

/// Looks host names up.
///
/// The built-in client looks a name up once for each connection, and checks every address against its
/// [`EndpointPolicy`](super::EndpointPolicy) before it dials one; an implementation need not do so. The HTTP API looks a
/// name up before it stores an endpoint whose host is new ([the rules](crate::guide::what_the_push_service_said)).
#[async_trait]
pub trait Resolver: fmt::Debug + Send + Sync + 'static {
    /// Returns the addresses of a host name, the preferred ones first. An empty list counts as
    /// [`NotFound`](ResolveErrorKind::NotFound).
    ///
    /// # Errors
    ///
    /// [`NotFound`](ResolveErrorKind::NotFound) if the name certainly does not exist or has no address,
    /// [`Temporary`](ResolveErrorKind::Temporary) for every other failure.
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError>;
}

error_struct! {
    /// The addresses of a host name could not be found.
    ///
    /// As a cause of an HTTP client's error, [`NotFound`](ResolveErrorKind::NotFound) counts against the subscription:
    /// see [`DeliveryError::is_host_not_found`](super::DeliveryError::is_host_not_found).
    ResolveError, ResolveErrorKind
}

impl ResolveError {
    /// An error with its source.
    pub fn new(kind: ResolveErrorKind, source: impl Into<BoxError>) -> Self {
        Self::with_source(kind, source)
    }
}

/// The kinds of [`ResolveError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResolveErrorKind {
    /// The name does not exist, or has no address (NXDOMAIN or no data, RFC 2308 section 2).
    NotFound,
    /// The lookup failed or took too long. A later one may succeed.
    Temporary,
}

impl fmt::Display for ResolveErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "the host name does not exist",
            Self::Temporary => "the host name could not be looked up",
        })
    }
}

#[cfg(feature = "client")]
pub use system::SystemResolver;

#[cfg(feature = "client")]
mod system {
    use std::io;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs as _};

    use async_trait::async_trait;

    use super::{ResolveError, ResolveErrorKind, Resolver};
    use crate::deliver::endpoint_policy::is_local_host;
    use crate::deliver::lookup_threads::LOOKUP_THREADS;

    /// The operating system's resolver; `localhost` and names below it are loopback (RFC 6761 section 6.3).
    ///
    /// `getaddrinfo` cannot be interrupted, so each lookup runs in a thread of its own: at most one for 16 open files of
    /// the process' soft limit when the first lookup begins, from 8 to 64. A quarter is for the known push services. Lookups
    /// below one registrable domain use at most four. The threads are not tokio's: a silent name server delays neither
    /// blocking tasks nor the end of the runtime.
    ///
    /// The standard library returns the text of `getaddrinfo`'s error, not its code. The texts of glibc, musl, Apple
    /// and the BSDs for a name that does not exist are recognised, and the codes of Windows. Any other text, for example a
    /// translated one, counts as [`Temporary`](ResolveErrorKind::Temporary).
    #[derive(Clone, Copy, Debug, Default)]
    #[non_exhaustive]
    pub struct SystemResolver;

    #[async_trait]
    impl Resolver for SystemResolver {
        async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
            if is_local_host(host) {
                return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
            }
            let name = (host.to_owned(), 0);
            match LOOKUP_THREADS
                .run(host, move || name.to_socket_addrs())
                .await?
            {
                Ok(addrs) => Ok(addrs.map(|addr| addr.ip()).collect()),
                Err(error) => Err(ResolveError::new(kind_of(&error), error)),
            }
        }
    }

    fn kind_of(error: &io::Error) -> ResolveErrorKind {
        let is_not_found = match error.raw_os_error() {
            // WSAHOST_NOT_FOUND and WSANO_DATA. On Unix a number is the errno of EAI_SYSTEM: the lookup failed.
            Some(code) => cfg!(windows) && matches!(code, 11001 | 11004),
            None => {
                let text = error.to_string();
                NOT_FOUND.iter().any(|known| text.ends_with(known))
            }
        };
        if is_not_found {
            ResolveErrorKind::NotFound
        } else {
            ResolveErrorKind::Temporary
        }
    }

    /// The texts of `gai_strerror` for `EAI_NONAME` and `EAI_NODATA`.
    const NOT_FOUND: [&str; 7] = [
        // glibc
        ": Name or service not known",
        ": No address associated with hostname",
        // musl
        ": Name does not resolve",
        ": Name has no usable address",
        // Apple, FreeBSD, OpenBSD
        ": nodename nor servname provided, or not known",
        ": hostname nor servname provided, or not known",
        ": no address associated with name",
    ];

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn only_known_texts_count_as_not_found() {
            let kind = |said: &str| {
                let text = format!("failed to lookup address information: {said}");
                kind_of(&io::Error::other(text))
            };
            for said in NOT_FOUND {
                assert_eq!(
                    kind(said.trim_start_matches(": ")),
                    ResolveErrorKind::NotFound
                );
            }
            for said in [
                "Temporary failure in name resolution",
                "Try again",
                "Non-recoverable failure in name resolution",
                "Name oder Dienst nicht bekannt",
                "System error",
                "",
            ] {
                assert_eq!(kind(said), ResolveErrorKind::Temporary, "{said}");
            }
            let system = io::Error::from_raw_os_error(11001);
            assert_eq!(
                kind_of(&system) == ResolveErrorKind::NotFound,
                cfg!(windows)
            );
        }

        #[tokio::test]
        async fn local_names_are_loopback_without_a_lookup() {
            for host in ["localhost", "a.b.localhost"] {
                let addrs = SystemResolver.resolve(host).await.unwrap();
                assert!(addrs.iter().all(IpAddr::is_loopback), "{host}");
            }
        }
    }
}
