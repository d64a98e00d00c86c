//! Lookups at registration: what is refused, what is bounded, what is shared.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::*;
use crate::deliver::Outcome;
use crate::deliver::evidence::Row;
use crate::deliver::standing::Observation;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);
const PUBLIC: &str = "8.8.8.8";

/// A resolver whose result depends on the first label of the name. It returns when the test adds a permit.
#[derive(Debug)]
struct ByLabel {
    asked: AtomicUsize,
    permits: Semaphore,
}

#[async_trait]
impl Resolver for ByLabel {
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        self.asked.fetch_add(1, Relaxed);
        let _permit = self.permits.acquire().await;
        let addrs: &[&str] = match host.split('.').next() {
            Some("missing") => return Err(ResolveErrorKind::NotFound.into()),
            Some("broken") => return Err(ResolveErrorKind::Temporary.into()),
            Some("panics") => panic!("a resolver of the application"),
            Some("empty") => &[],
            Some("private") => &[PUBLIC, "10.0.0.1"],
            _ => &[PUBLIC],
        };
        Ok(addrs.iter().map(|addr| addr.parse().unwrap()).collect())
    }
}

struct World {
    resolver: Arc<ByLabel>,
    gates: OriginGates,
    check: Arc<HostCheck>,
}

impl World {
    /// A resolver with this many permits.
    fn answering(lookups: usize) -> Self {
        let resolver = Arc::new(ByLabel {
            asked: AtomicUsize::new(0),
            permits: Semaphore::new(lookups),
        });
        let gates = OriginGates::new();
        let policy = "known, *.example.com, *.example.net, *.example.org, *.example.edu, *.test.example, listed.example"
            .parse()
            .unwrap();
        let as_resolver = Arc::clone(&resolver) as Arc<dyn Resolver>;
        let check = HostCheck::new(Some(as_resolver), policy, gates.clone());
        let check = Arc::new(check);
        Self {
            resolver,
            gates,
            check,
        }
    }

    async fn check(&self, host: &str) -> Result<(), Unverified> {
        self.check_at(host, NOW).await
    }

    async fn check_at(&self, host: &str, now: Timestamp) -> Result<(), Unverified> {
        self.check.check(&endpoint(host), now).await
    }

    /// Checks in a task that waits for the lookup.
    fn begin(&self, host: &str) -> tokio::task::JoinHandle<Result<(), Unverified>> {
        let (check, endpoint) = (Arc::clone(&self.check), endpoint(host));
        tokio::spawn(async move { check.check(&endpoint, NOW).await })
    }

    fn asked(&self) -> usize {
        self.resolver.asked.load(Relaxed)
    }

    fn has_answered(&self, host: &str) {
        let endpoint = endpoint(host);
        let seen = Observation {
            row: Row {
                key: endpoint.key(),
                is_proven: false,
                has_same_key: false,
                failing_since: None,
                is_test: false,
            },
            began: NOW,
            outcome: Outcome::Gone,
            has_answered: true,
            broke_off: false,
            retry_after: None,
        };
        self.gates.gate(endpoint.origin()).observe(&seen, NOW);
    }
}

fn endpoint(host: &str) -> Endpoint {
    Endpoint::parse(&format!("https://{host}/x")).unwrap()
}

const AGAIN: Result<(), Unverified> = Err(Unverified::TryAgain(HostCheck::AGAIN));

#[tokio::test]
async fn a_host_without_a_public_address_is_refused_with_one_error() {
    let world = World::answering(1);
    assert_eq!(world.check("good.example.com").await, Ok(()));
    for host in ["missing", "empty", "private"] {
        let checked = world.check(&format!("{host}.example.com")).await;
        assert_eq!(checked, Err(Unverified::NotAllowed), "{host}");
    }
    for host in ["broken", "panics"] {
        let checked = world.check(&format!("{host}.example.com")).await;
        assert_eq!(checked, AGAIN, "{host}");
    }
    assert_eq!(world.asked(), 6);
    // Of these only the first keeps its place; the others are looked up again.
    for host in ["good", "missing", "broken", "panics"] {
        let _ = world.check(&format!("{host}.example.com")).await;
    }
    assert_eq!(world.asked(), 9);
}

#[tokio::test]
async fn listed_hosts_and_hosts_that_have_responded_are_not_checked() {
    let world = World::answering(0);
    for host in ["listed.example", "fcm.googleapis.com", "web.push.apple.com"] {
        assert!(!world.check.is_unproven(&endpoint(host)), "{host}");
        assert_eq!(world.check(host).await, Ok(()), "{host}");
    }
    assert!(world.check.is_unproven(&endpoint("a.example.com")));
    world.has_answered("a.example.com");
    assert!(!world.check.is_unproven(&endpoint("a.example.com")));
    assert!(world.check.is_unproven(&endpoint("b.example.com")));
    assert_eq!(world.asked(), 0);
}

#[tokio::test]
async fn a_suffix_has_64_places_for_hosts_that_have_not_responded() {
    let world = World::answering(1);
    for number in 0..64 {
        assert_eq!(
            world.check(&format!("h{number}.push.apple.com")).await,
            Ok(())
        );
    }
    let hour = Duration::from_secs(3600);
    let full = Err(Unverified::TryAgain(hour));
    assert_eq!(world.check("h64.push.apple.com").await, full);
    assert_eq!(world.asked(), 64, "no lookup without a place");
    assert_eq!(
        world.check("h0.push.apple.com").await,
        Ok(()),
        "it has its place"
    );
    assert_eq!(world.check("h64.notify.windows.com").await, Ok(()));
    // A response frees a place, and so does time.
    world.has_answered("h7.push.apple.com");
    assert_eq!(world.check("h64.push.apple.com").await, Ok(()));
    assert_eq!(world.check("h65.push.apple.com").await, full);
    assert_eq!(
        world.check_at("h65.push.apple.com", NOW + hour).await,
        Ok(())
    );
}

#[tokio::test]
async fn hosts_that_do_not_exist_take_no_places() {
    let world = World::answering(1);
    for number in 0..200 {
        let host = format!("missing.h{number}.push.apple.com");
        assert_eq!(world.check(&host).await, Err(Unverified::NotAllowed));
    }
    assert_eq!(world.check("good.push.apple.com").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn concurrent_callers_share_one_lookup() {
    let world = World::answering(0);
    let waiting: Vec<_> = (0..100).map(|_| world.begin("a.example.com")).collect();
    tokio::task::yield_now().await;
    world.resolver.permits.add_permits(1);
    for one in waiting {
        assert_eq!(one.await.unwrap(), Ok(()));
    }
    assert_eq!(world.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn lookups_that_hang_are_bounded_per_suffix_and_in_all_until_they_end() {
    let world = World::answering(0);
    let suffixes = ["example.com", "example.net", "example.org", "example.edu"];
    for suffix in suffixes {
        let begun: Vec<_> = (0..4)
            .map(|n| world.begin(&format!("h{n}.{suffix}")))
            .collect();
        // The callers return after 5 s; the lookups go on.
        for one in begun {
            assert_eq!(one.await.unwrap(), AGAIN);
        }
        assert_eq!(world.check(&format!("h4.{suffix}")).await, AGAIN);
    }
    assert_eq!(world.check("h0.test.example").await, AGAIN);
    assert_eq!(world.asked(), 16);
    world.resolver.permits.add_permits(16);
    for host in ["h0.example.com", "h4.example.com", "h0.test.example"] {
        assert_eq!(world.check(host).await, Ok(()), "{host}");
    }
    assert_eq!(world.asked(), 18);
}

#[tokio::test(start_paused = true)]
async fn a_lookup_goes_on_when_its_caller_is_dropped() {
    let world = World::answering(0);
    let dropped = world.begin("a.example.com");
    tokio::task::yield_now().await;
    dropped.abort();
    world.resolver.permits.add_permits(1);
    assert_eq!(world.check("a.example.com").await, Ok(()));
    assert_eq!(world.asked(), 1);
}

#[tokio::test]
async fn without_a_resolver_places_are_taken_without_lookups() {
    let check = HostCheck::new(None, EndpointPolicy::public_hosts(), OriginGates::new());
    for number in 0..64 {
        let host = endpoint(&format!("missing.h{number}.example.com"));
        assert_eq!(check.check(&host, NOW).await, Ok(()));
    }
    let full = check.check(&endpoint("x.example.com"), NOW).await;
    assert!(matches!(full, Err(Unverified::TryAgain(_))));
}
