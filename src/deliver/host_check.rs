//! The check at registration of endpoints whose host has not responded to this process yet.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::resolver::{ResolveError, ResolveErrorKind, Resolver};
use super::unproven_hosts::{Full, UnprovenHosts};
use super::{EndpointPolicy, OriginGates};
use crate::clock::Timestamp;
use crate::subscription::Endpoint;

/// The check of unproven hosts at registration.
///
/// Names that the policy lists individually are not checked, nor those from which this process has had an HTTP response.
/// Any other name is looked up before an endpoint is stored, and takes one of the places of its suffix. Without
/// this, strangers could make the server look up, and connect to, any number of names below a suffix.
pub(crate) struct HostCheck {
    /// `None` with a client of the application and no resolver: then places are taken without lookups.
    resolver: Option<Arc<dyn Resolver>>,
    policy: EndpointPolicy,
    gates: OriginGates,
    hosts: Mutex<UnprovenHosts<Lookup>>,
    /// Lookups go on if their caller is dropped: the system's resolver cannot be interrupted, so its lookup counts until it
    /// returns.
    lookups: Mutex<JoinSet<()>>,
}

/// The result of a lookup; `None` while it is under way.
type Lookup = watch::Receiver<Option<Found>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// It has addresses, and the policy admits all of them.
    Public,
    /// It has no address, or one that the policy refuses. One variant for both: the response must not reveal which names
    /// exist inside the network.
    NotAllowed,
    Unknown,
}

/// The reason why an endpoint is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unverified {
    /// The host does not exist, or has an address that is not public.
    NotAllowed,
    /// The lookup failed, or there are too many unproven hosts. The client may try again after this time.
    TryAgain(Duration),
}

impl HostCheck {
    /// The limit on the time that a registration waits for a lookup.
    const TIME_LIMIT: Duration = Duration::from_secs(5);
    /// Concurrent lookups: the system's resolver needs a thread for each.
    const LOOKUPS: usize = 16;
    /// Concurrent lookups below one suffix: a name server that does not respond must not block lookups below others.
    const LOOKUPS_PER_SUFFIX: usize = 4;
    /// The time after which a client may try again if the lookup failed or too many were under way.
    const AGAIN: Duration = Duration::from_secs(10);

    pub(crate) fn new(
        resolver: Option<Arc<dyn Resolver>>,
        policy: EndpointPolicy,
        gates: OriginGates,
    ) -> Self {
        Self {
            resolver,
            policy,
            gates,
            hosts: Mutex::new(UnprovenHosts::new()),
            lookups: Mutex::default(),
        }
    }

    /// Returns whether the host needs a check.
    pub(crate) fn is_unproven(&self, endpoint: &Endpoint) -> bool {
        self.policy.open_suffix(endpoint.host()).is_some()
            && !self.gates.has_answered(endpoint.origin())
    }

    /// Checks the host of an endpoint that the policy admits.
    ///
    /// # Cancel safety
    ///
    /// A lookup that has begun goes on; the next call gets its result.
    pub(crate) async fn check(
        &self,
        endpoint: &Endpoint,
        now: Timestamp,
    ) -> Result<(), Unverified> {
        let Some(suffix) = self.policy.open_suffix(endpoint.host()) else {
            return Ok(());
        };
        let mut lookup = self.lookup(endpoint, &suffix, now)?;
        let found = tokio::time::timeout(Self::TIME_LIMIT, lookup.wait_for(Option::is_some)).await;
        // The time is over, or the resolver panicked.
        let found = found.ok().and_then(Result::ok).and_then(|found| *found);
        match found.unwrap_or(Found::Unknown) {
            Found::Public => Ok(()),
            Found::NotAllowed => Err(Unverified::NotAllowed),
            Found::Unknown => Err(Unverified::TryAgain(Self::AGAIN)),
        }
    }

    /// The lookup of a host, shared by concurrent callers.
    fn lookup(
        &self,
        endpoint: &Endpoint,
        suffix: &str,
        now: Timestamp,
    ) -> Result<Lookup, Unverified> {
        let origin = endpoint.origin();
        let mut hosts = lock(&self.hosts);
        hosts.free(now, |origin, lookup| {
            let found = *lookup.borrow();
            // Only a name that exists keeps its place. Otherwise invented names could take all places.
            let is_over = found.map_or(lookup.has_changed().is_err(), |found| {
                found != Found::Public
            });
            is_over || self.gates.has_answered(origin)
        });
        if let Some(lookup) = hosts.get(origin) {
            return Ok(lookup.clone());
        }
        let full = |Full(wait)| Unverified::TryAgain(wait);
        let Some(resolver) = &self.resolver else {
            let (_, lookup) = watch::channel(Some(Found::Public));
            hosts
                .take(origin, suffix, now, lookup.clone())
                .map_err(full)?;
            return Ok(lookup);
        };
        let under_way = || hosts.iter().filter(|(_, lookup)| lookup.borrow().is_none());
        let of_suffix = under_way().filter(|(other, _)| *other == suffix);
        if of_suffix.count() >= Self::LOOKUPS_PER_SUFFIX || under_way().count() >= Self::LOOKUPS {
            return Err(Unverified::TryAgain(Self::AGAIN));
        }
        let (sender, lookup) = watch::channel(None);
        hosts
            .take(origin, suffix, now, lookup.clone())
            .map_err(full)?;
        let (resolver, policy) = (Arc::clone(resolver), self.policy.clone());
        let host = endpoint.host().to_owned();
        let mut lookups = lock(&self.lookups);
        while lookups.try_join_next().is_some() {}
        lookups.spawn(async move {
            let found = judge(resolver.resolve(&host).await, &policy);
            sender.send_replace(Some(found));
        });
        Ok(lookup)
    }
}

fn judge(addrs: Result<Vec<IpAddr>, ResolveError>, policy: &EndpointPolicy) -> Found {
    match addrs {
        Ok(addrs) if addrs.is_empty() => Found::NotAllowed,
        Ok(addrs) if addrs.iter().all(|addr| policy.check_addr(*addr).is_ok()) => Found::Public,
        Ok(_) => Found::NotAllowed,
        Err(error) => match error.kind() {
            ResolveErrorKind::NotFound => Found::NotAllowed,
            ResolveErrorKind::Temporary => Found::Unknown,
        },
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for HostCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostCheck")
            .field("resolver", &self.resolver)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "host_check_tests.rs"]
mod tests;
