//! From a name to addresses, and only to addresses that may be dialled.

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

use super::EndpointPolicy;
use super::endpoint_policy::is_local_host;
use crate::error::BoxError;

/// Looks names up.
///
/// The client asks once for each connection, and checks every address against its
/// [`EndpointPolicy`] before it dials one of them: an implementation need not.
#[async_trait]
pub trait Resolver: fmt::Debug + Send + Sync + 'static {
    /// The addresses of a host name, the preferred ones first.
    ///
    /// # Errors
    ///
    /// Any; the attempt is [`Transient`](super::Outcome::Transient) then.
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, BoxError>;
}

/// The operating system's resolver; `localhost` and names below it are loopback (RFC 6761 section 6.3).
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, BoxError> {
        if is_local_host(host) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let addrs = tokio::net::lookup_host((host, 0)).await?;
        Ok(addrs.map(|addr| addr.ip()).collect())
    }
}

/// A resolver whose every answer the policy has seen.
#[derive(Clone, Debug)]
pub(super) struct GuardedResolver {
    resolver: Arc<dyn Resolver>,
    policy: EndpointPolicy,
}

impl GuardedResolver {
    pub(super) fn new(resolver: Arc<dyn Resolver>, policy: EndpointPolicy) -> Self {
        Self { resolver, policy }
    }
}

impl Service<Name> for GuardedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { resolver, policy } = self.clone();
        Box::pin(async move {
            let addrs = resolver.resolve(name.as_str()).await?;
            // One address that is not public spoils the name: whoever mixes them is up to something,
            // and the other addresses could be swapped for it at the next lookup.
            for addr in &addrs {
                policy.check_addr(*addr)?;
            }
            // Port 0: the connector puts in the endpoint's.
            let sockets = addrs.into_iter().map(|addr| SocketAddr::new(addr, 0));
            Ok(sockets.collect::<Vec<_>>().into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::error::find_source;
    use crate::deliver::{PolicyError, PolicyErrorKind};

    #[derive(Debug)]
    struct Fixed(&'static [&'static str]);

    #[async_trait]
    impl Resolver for Fixed {
        async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, BoxError> {
            Ok(self.0.iter().map(|addr| addr.parse().unwrap()).collect())
        }
    }

    async fn resolve(
        policy: EndpointPolicy,
        addrs: &'static [&'static str],
    ) -> Result<Vec<SocketAddr>, BoxError> {
        let mut guarded = GuardedResolver::new(Arc::new(Fixed(addrs)), policy);
        let name = "push.example.com".parse().unwrap();
        Ok(guarded.call(name).await?.collect())
    }

    #[tokio::test]
    async fn public_addresses_pass_in_order() {
        let addrs = resolve(EndpointPolicy::default(), &["2a00:1450::1", "8.8.8.8"]).await;
        let expected = ["[2a00:1450::1]:0", "8.8.8.8:0"].map(|addr| addr.parse().unwrap());
        assert_eq!(addrs.unwrap(), expected);
    }

    #[tokio::test]
    async fn one_private_address_refuses_the_whole_name() {
        for addrs in [
            &["127.0.0.1"][..],
            &["8.8.8.8", "127.0.0.1"],
            &["::ffff:10.0.0.1", "8.8.8.8"],
            &["8.8.8.8", "fd00::1", "8.8.4.4"],
            &["169.254.169.254"],
        ] {
            let error = resolve(EndpointPolicy::public_hosts(), addrs)
                .await
                .unwrap_err();
            let refusal = find_source::<PolicyError>(error.as_ref()).unwrap();
            assert_eq!(refusal.kind(), PolicyErrorKind::PrivateAddress, "{addrs:?}");
        }
    }

    #[tokio::test]
    async fn local_names_are_loopback_without_asking_anyone() {
        for host in ["localhost", "a.b.localhost"] {
            let addrs = SystemResolver.resolve(host).await.unwrap();
            assert!(addrs.iter().all(IpAddr::is_loopback), "{host}");
        }
    }
}
