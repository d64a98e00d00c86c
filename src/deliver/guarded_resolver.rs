//! Lookups of the built-in client: addresses that the policy admits, and "not found" only from a resolver that works.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::EndpointPolicy;
use super::endpoint_policy::is_local_host;
use super::error::find_source;
use super::local_error::{Lack, LocalError};
use super::resolver::{ResolveError, ResolveErrorKind, Resolver};
use crate::error::BoxError;

/// A resolver whose addresses are checked by the policy. Cheap to clone; clones share the state.
///
/// If a host that the policy names has an address that is refused, it is not dialled either, but the resolver is at fault.
///
/// A resolver that works reports "not found" for a name that does not exist. One that has no network, or only the hosts
/// file, may report it for every name, and its failures say nothing about a host. So [`NotFound`](ResolveErrorKind::NotFound)
/// is passed on only if another name was found lately. Otherwise every failure is a [`LocalError`].
#[derive(Clone, Debug)]
pub(super) struct GuardedResolver {
    resolver: Arc<dyn Resolver>,
    policy: EndpointPolicy,
    found: Arc<Mutex<Option<Found>>>,
}

/// The last name that was found; the last one that the policy names, if there was one. Strangers can have their names come and
/// go.
#[derive(Clone, Debug)]
struct Found {
    host: Box<str>,
    is_named: bool,
    at: Instant,
    /// When it was last looked up to check the resolver.
    checked_at: Instant,
}

impl GuardedResolver {
    /// A name that was found within this time shows that the resolver works. After it the name is looked up again, at
    /// most once in the same time: connections to push services live for hours, and need no lookups meanwhile.
    const PROVES_FOR: Duration = Duration::from_secs(60);
    /// The limit on a lookup, of the 5 s in which a connection has to be open.
    const LOOKUP: Duration = Duration::from_secs(3);
    /// The limit on the lookup that checks the resolver. Both are over before the connection's time is.
    const CHECK: Duration = Duration::from_secs(1);
    /// The addresses of each family that are dialled. The connection's time is divided among them.
    const PER_FAMILY: usize = 4;

    pub(super) fn new(resolver: Arc<dyn Resolver>, policy: EndpointPolicy) -> Self {
        Self {
            resolver,
            policy,
            found: Arc::default(),
        }
    }

    /// The addresses to dial, in the order of the resolver.
    pub(super) async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, BoxError> {
        let mut addrs = match self.resolve(host, Self::LOOKUP).await {
            Ok(addrs) => addrs,
            Err(error) => return Err(self.judged(error).await.into()),
        };
        // One address that is refused refuses the name: a public and a private address together are an attempt at DNS
        // rebinding, and the next lookup may return the private one only.
        let refused = addrs
            .iter()
            .find_map(|addr| self.policy.check_addr(*addr).err());
        match refused {
            // No stranger has a say in the addresses of a host that the policy names. The resolver of a captive portal, or one
            // that blocks names, answers so for some minutes, and messages of that time are not lost.
            Some(_) if self.policy.names(host) => {
                return Err(LocalError::from(Lack::Addresses).into());
            }
            Some(refused) => return Err(refused.into()),
            None => {}
        }
        // Local names are found without a network.
        if !is_local_host(host) {
            self.was_found(host);
        }
        let (mut v4, mut v6) = (0_usize, 0_usize);
        addrs.retain(|addr| {
            let number = if addr.is_ipv4() { &mut v4 } else { &mut v6 };
            *number = number.saturating_add(1);
            *number <= Self::PER_FAMILY
        });
        Ok(addrs)
    }

    async fn resolve(&self, host: &str, limit: Duration) -> Result<Vec<IpAddr>, ResolveError> {
        match timeout(limit, self.resolver.resolve(host)).await {
            Ok(Ok(addrs)) if addrs.is_empty() => Err(ResolveErrorKind::NotFound.into()),
            Ok(result) => result,
            Err(elapsed) => Err(ResolveError::new(ResolveErrorKind::Temporary, elapsed)),
        }
    }

    /// Tells a failure of the resolver from one of the name.
    async fn judged(&self, error: ResolveError) -> ResolveError {
        if find_source::<LocalError>(&error).is_some() || self.works().await {
            return error;
        }
        let error = LocalError::new(Lack::Resolver, error);
        ResolveError::new(ResolveErrorKind::Temporary, error)
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
        let works = self.resolve(&host, Self::CHECK).await.is_ok();
        if works {
            self.was_found(&host);
        }
        works
    }

    fn was_found(&self, host: &str) {
        let at = Instant::now();
        let is_named = self.policy.names(host);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = found.take().filter(|kept| kept.is_named && !is_named);
        let (host, is_named) = kept.map_or((host.into(), is_named), |kept| (kept.host, true));
        *found = Some(Found {
            host,
            is_named,
            at,
            checked_at: at,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

    use async_trait::async_trait;

    use super::*;
    use crate::deliver::{PolicyError, PolicyErrorKind};

    /// A resolver that knows these names. While it is down it reports "not found" for all of them.
    #[derive(Debug, Default)]
    struct Names {
        known: HashMap<&'static str, &'static [&'static str]>,
        is_down: AtomicBool,
        gone: Mutex<Option<&'static str>>,
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
            let is_gone = self.is_down.load(Relaxed) || *self.gone.lock().unwrap() == Some(host);
            let known = self.known.get(host).filter(|_| !is_gone);
            let addrs = known.ok_or(ResolveErrorKind::NotFound)?;
            Ok(addrs.iter().map(|addr| addr.parse().unwrap()).collect())
        }
    }

    async fn kind(guarded: &GuardedResolver, host: &str) -> ResolveErrorKind {
        let error = guarded.look_up(host).await.unwrap_err();
        find_source::<ResolveError>(error.as_ref()).unwrap().kind()
    }

    #[tokio::test]
    async fn public_addresses_pass_in_order() {
        let (_, guarded) = Names::of([("push.example.com", &["2a00:1450::1", "8.8.8.8"])]);
        let addrs = guarded.look_up("push.example.com").await;
        let expected = ["2a00:1450::1", "8.8.8.8"].map(|addr| addr.parse::<IpAddr>().unwrap());
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

    #[tokio::test]
    async fn a_private_address_of_a_host_that_the_policy_names_is_an_error_of_the_resolver() {
        let policy = "known, public, push.example.com".parse().unwrap();
        let (names, _) = Names::of([
            ("fcm.googleapis.com", &["0.0.0.0"]),
            ("push.example.com", &["8.8.8.8", "fd00::1"]),
            ("a.example.com", &["10.0.0.1"]),
        ]);
        let guarded = GuardedResolver::new(names, policy);
        for host in ["fcm.googleapis.com", "push.example.com"] {
            let error = guarded.look_up(host).await.unwrap_err();
            let local = find_source::<LocalError>(error.as_ref());
            assert_eq!(local.unwrap().lack(), Lack::Addresses, "{host}");
            assert!(find_source::<PolicyError>(error.as_ref()).is_none());
        }
        let error = guarded.look_up("a.example.com").await.unwrap_err();
        assert!(find_source::<PolicyError>(error.as_ref()).is_some());
        // None of these addresses shows that the resolver works.
        let expected = ResolveErrorKind::Temporary;
        assert_eq!(kind(&guarded, "x.example.com").await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn not_found_is_passed_on_only_if_the_resolver_finds_other_names() {
        let (names, guarded) =
            Names::of([("a.example.com", &["8.8.8.8"]), ("empty.example.com", &[])]);
        assert_eq!(
            kind(&guarded, "x.example.com").await,
            ResolveErrorKind::Temporary
        );
        guarded.look_up("a.example.com").await.unwrap();
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
    async fn a_name_of_a_stranger_that_goes_does_not_make_the_resolver_one_that_does_not_work() {
        let (names, guarded) = Names::of([
            ("fcm.googleapis.com", &["8.8.8.8"]),
            ("a.example.com", &["8.8.8.8"]),
        ]);
        guarded.look_up("fcm.googleapis.com").await.unwrap();
        guarded.look_up("a.example.com").await.unwrap();
        tokio::time::advance(GuardedResolver::PROVES_FOR).await;
        *names.gone.lock().unwrap() = Some("a.example.com");
        let expected = ResolveErrorKind::NotFound;
        assert_eq!(kind(&guarded, "a.example.com").await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn many_names_that_do_not_exist_cost_one_additional_lookup_per_minute() {
        let (names, guarded) = Names::of([("a.example.com", &["8.8.8.8"])]);
        guarded.look_up("a.example.com").await.unwrap();
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
    async fn four_addresses_of_each_family_are_dialled() {
        const MANY: &[&str] = &[
            "8.8.8.1", "8.8.8.2", "2a00::1", "8.8.8.3", "2a00::2", "8.8.8.4", "8.8.8.5", "2a00::3",
            "2a00::4", "2a00::5",
        ];
        let (_, guarded) = Names::of([("push.example.com", MANY)]);
        let addrs = guarded.look_up("push.example.com").await.unwrap();
        assert_eq!(addrs.iter().filter(|addr| addr.is_ipv4()).count(), 4);
        assert_eq!(addrs.iter().filter(|addr| addr.is_ipv6()).count(), 4);
    }

    /// A resolver that never returns, except for one name while it works.
    #[derive(Debug)]
    struct Silent(AtomicBool);

    #[async_trait]
    impl Resolver for Silent {
        async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
            if host != "a.example.com" || !self.0.load(Relaxed) {
                std::future::pending::<()>().await;
            }
            Ok(vec!["8.8.8.8".parse().unwrap()])
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_has_a_limit_and_counts_against_the_host_only_if_others_are_found() {
        let silent = Arc::new(Silent(AtomicBool::new(true)));
        let guarded =
            GuardedResolver::new(Arc::clone(&silent) as _, EndpointPolicy::public_hosts());
        let is_local = async |host: &str| {
            let error = guarded.look_up(host).await.unwrap_err();
            let local = find_source::<LocalError>(error.as_ref());
            local
                .inspect(|local| assert_eq!(local.lack(), Lack::Resolver))
                .is_some()
        };
        assert!(is_local("x.example.com").await, "no name was found yet");
        guarded.look_up("a.example.com").await.unwrap();
        let begun = Instant::now();
        assert!(!is_local("x.example.com").await);
        assert_eq!(begun.elapsed(), GuardedResolver::LOOKUP);
        silent.0.store(false, Relaxed);
        tokio::time::advance(GuardedResolver::PROVES_FOR).await;
        let begun = Instant::now();
        assert!(is_local("x.example.com").await);
        assert_eq!(
            begun.elapsed(),
            GuardedResolver::LOOKUP + GuardedResolver::CHECK
        );
    }

    /// A resolver that could not even ask.
    #[derive(Debug)]
    struct WithoutThreads;

    #[async_trait]
    impl Resolver for WithoutThreads {
        async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, ResolveError> {
            let error = LocalError::from(Lack::LookupThreads);
            Err(ResolveError::new(ResolveErrorKind::Temporary, error))
        }
    }

    /// Operators are told what to look for.
    #[tokio::test]
    async fn a_lack_of_threads_is_no_fault_of_the_resolver() {
        let policy = EndpointPolicy::public_hosts();
        let guarded = GuardedResolver::new(Arc::new(WithoutThreads), policy);
        let error = guarded.look_up("push.example.com").await.unwrap_err();
        let local = find_source::<LocalError>(error.as_ref()).unwrap();
        assert_eq!(local.lack(), Lack::LookupThreads);
    }

    #[tokio::test]
    async fn a_local_name_is_no_evidence_that_the_resolver_works() {
        let (names, _) = Names::of([("a.localhost", &["127.0.0.1"])]);
        let guarded = GuardedResolver::new(names, EndpointPolicy::insecure_allow_local());
        guarded.look_up("a.localhost").await.unwrap();
        assert_eq!(
            kind(&guarded, "x.example.com").await,
            ResolveErrorKind::Temporary
        );
    }
}
