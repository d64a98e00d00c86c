//! Lookups of the built-in client: addresses that the policy admits, and "not found" only from a resolver that works.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::dns::Name;
use tokio::time::Instant;
use tower_service::Service;

use super::EndpointPolicy;
use super::endpoint_policy::is_local_host;
use super::resolver::{ResolveError, ResolveErrorKind, Resolver};
use crate::error::BoxError;

/// A resolver whose addresses are checked by the policy. Cheap to clone; clones share the state.
///
/// A resolver that works reports "not found" for a name that does not exist. One that has no network, or only the hosts
/// file, may report it for every name. So [`NotFound`](ResolveErrorKind::NotFound) is passed on only if another name
/// was found lately, and is [`Temporary`](ResolveErrorKind::Temporary) otherwise.
#[derive(Clone, Debug)]
pub(super) struct GuardedResolver {
    resolver: Arc<dyn Resolver>,
    policy: EndpointPolicy,
    found: Arc<Mutex<Option<Found>>>,
}

/// The last name that was found.
#[derive(Clone, Debug)]
struct Found {
    host: Box<str>,
    at: Instant,
    /// When it was last looked up to check the resolver.
    checked_at: Instant,
}

impl GuardedResolver {
    /// A name that was found within this time shows that the resolver works. After it the name is looked up again, at
    /// most once in the same time: connections to push services live for hours, and need no lookups meanwhile.
    const PROVES_FOR: Duration = Duration::from_secs(60);

    pub(super) fn new(resolver: Arc<dyn Resolver>, policy: EndpointPolicy) -> Self {
        Self {
            resolver,
            policy,
            found: Arc::default(),
        }
    }

    async fn look_up(self, host: &str) -> Result<Vec<SocketAddr>, BoxError> {
        let addrs = match self.resolver.resolve(host).await {
            Ok(addrs) if addrs.is_empty() => Err(ResolveErrorKind::NotFound.into()),
            result => result,
        };
        let addrs = match addrs {
            Ok(addrs) => addrs,
            Err(error) if error.kind() == ResolveErrorKind::NotFound && !self.works().await => {
                return Err(ResolveError::new(ResolveErrorKind::Temporary, error).into());
            }
            Err(error) => return Err(error.into()),
        };
        // Local names are found without a network.
        if !is_local_host(host) {
            self.was_found(host);
        }
        // One address that is refused refuses the name: a public and a private address together are an attempt at DNS
        // rebinding, and the next lookup may return the private one only.
        for addr in &addrs {
            self.policy.check_addr(*addr)?;
        }
        // Port 0: the connector sets the endpoint's.
        let sockets = addrs.into_iter().map(|addr| SocketAddr::new(addr, 0));
        Ok(sockets.collect())
    }

    /// Returns whether the resolver finds any name.
    async fn works(&self) -> bool {
        let now = Instant::now();
        let is_recent = |at: Instant| now.duration_since(at) < Self::PROVES_FOR;
        let host = {
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *found {
                None => return false,
                Some(found) if is_recent(found.at) => return true,
                Some(found) if is_recent(found.checked_at) => return false,
                Some(found) => {
                    found.checked_at = now;
                    found.host.clone()
                }
            }
        };
        let works = matches!(self.resolver.resolve(&host).await, Ok(addrs) if !addrs.is_empty());
        if works {
            self.was_found(&host);
        }
        works
    }

    fn was_found(&self, host: &str) {
        let at = Instant::now();
        let found = Found {
            host: host.into(),
            at,
            checked_at: at,
        };
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
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
        let this = self.clone();
        Box::pin(async move { Ok(this.look_up(name.as_str()).await?.into_iter()) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::IpAddr;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

    use async_trait::async_trait;

    use super::*;
    use crate::deliver::error::find_source;
    use crate::deliver::{PolicyError, PolicyErrorKind};

    /// A resolver that knows these names. While it is down it reports "not found" for all of them.
    #[derive(Debug, Default)]
    struct Names {
        known: HashMap<&'static str, &'static [&'static str]>,
        is_down: AtomicBool,
        asked: AtomicUsize,
    }

    impl Names {
        fn of<const N: usize>(
            known: [(&'static str, &'static [&'static str]); N],
        ) -> (Arc<Self>, GuardedResolver) {
            let names = Arc::new(Self {
                known: known.into(),
                ..Self::default()
            });
            let resolver = Arc::clone(&names) as Arc<dyn Resolver>;
            let guarded = GuardedResolver::new(resolver, EndpointPolicy::public_hosts());
            (names, guarded)
        }
    }

    #[async_trait]
    impl Resolver for Names {
        async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
            self.asked.fetch_add(1, Relaxed);
            let known = self.known.get(host).filter(|_| !self.is_down.load(Relaxed));
            let addrs = known.ok_or(ResolveErrorKind::NotFound)?;
            Ok(addrs.iter().map(|addr| addr.parse().unwrap()).collect())
        }
    }

    async fn kind(guarded: &GuardedResolver, host: &str) -> ResolveErrorKind {
        let error = guarded.clone().look_up(host).await.unwrap_err();
        find_source::<ResolveError>(error.as_ref()).unwrap().kind()
    }

    #[tokio::test]
    async fn public_addresses_pass_in_order() {
        let (_, guarded) = Names::of([("push.example.com", &["2a00:1450::1", "8.8.8.8"])]);
        let addrs = guarded.look_up("push.example.com").await;
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
            let (_, guarded) = Names::of([("push.example.com", addrs)]);
            let error = guarded.look_up("push.example.com").await.unwrap_err();
            let refusal = find_source::<PolicyError>(error.as_ref()).unwrap();
            assert_eq!(refusal.kind(), PolicyErrorKind::PrivateAddress, "{addrs:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn not_found_is_passed_on_only_if_the_resolver_finds_other_names() {
        let (names, guarded) =
            Names::of([("a.example.com", &["8.8.8.8"]), ("empty.example.com", &[])]);
        assert_eq!(
            kind(&guarded, "x.example.com").await,
            ResolveErrorKind::Temporary
        );
        guarded.clone().look_up("a.example.com").await.unwrap();
        for host in ["x.example.com", "empty.example.com"] {
            assert_eq!(
                kind(&guarded, host).await,
                ResolveErrorKind::NotFound,
                "{host}"
            );
        }
        // A find counts for a minute; then the name that was found is looked up again.
        names.is_down.store(true, Relaxed);
        tokio::time::advance(GuardedResolver::PROVES_FOR).await;
        assert_eq!(
            kind(&guarded, "x.example.com").await,
            ResolveErrorKind::Temporary
        );
        names.is_down.store(false, Relaxed);
        tokio::time::advance(GuardedResolver::PROVES_FOR).await;
        assert_eq!(
            kind(&guarded, "x.example.com").await,
            ResolveErrorKind::NotFound
        );
    }

    #[tokio::test(start_paused = true)]
    async fn many_names_that_do_not_exist_cost_one_additional_lookup_per_minute() {
        let (names, guarded) = Names::of([("a.example.com", &["8.8.8.8"])]);
        guarded.clone().look_up("a.example.com").await.unwrap();
        names.is_down.store(true, Relaxed);
        tokio::time::advance(GuardedResolver::PROVES_FOR).await;
        for _ in 0..100 {
            assert_eq!(
                kind(&guarded, "x.example.com").await,
                ResolveErrorKind::Temporary
            );
        }
        assert_eq!(names.asked.load(Relaxed), 1 + 100 + 1);
    }

    #[tokio::test]
    async fn a_local_name_is_no_evidence_that_the_resolver_works() {
        let (names, _) = Names::of([("a.localhost", &["127.0.0.1"])]);
        let guarded = GuardedResolver::new(names, EndpointPolicy::insecure_allow_local());
        guarded.clone().look_up("a.localhost").await.unwrap();
        assert_eq!(
            kind(&guarded, "x.example.com").await,
            ResolveErrorKind::Temporary
        );
    }
}
