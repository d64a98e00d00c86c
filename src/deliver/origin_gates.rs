//! The gates of all origins: one for each.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use tokio::sync::Semaphore;

use super::concurrency::Concurrency;
use super::origin_gate::{Closed, OriginGate};
use crate::clock::Timestamp;
use crate::push_service::{Pause, PauseReason};
use crate::subscription::Origin;

/// The gates of all origins. Cheap to clone; clones share them.
///
/// A gate finds out by itself how many requests its origin takes: from 8, twice as many after each round trip up to 600, then
/// one more after each. Losses of several subscriptions (429, 503, no answer in time) halve the number, once for all requests
/// that were in flight; slow answers keep it from growing. If the origin limits requests by time (429), they are spread over
/// the time as well.
///
/// At most 4096 gates are kept. The least recently used gates are dropped first, except those in use: an origin never
/// gets a second set of permits while the first is out. A pause that is dropped with its gate comes back with the next
/// [`load`](Self::load).
///
/// # Examples
///
/// ```
/// use tower_web_push::clock::Timestamp;
/// use tower_web_push::deliver::OriginGates;
/// use tower_web_push::store::PauseReason;
/// use tower_web_push::subscription::Origin;
///
/// let gates = OriginGates::new();
/// let origin = Origin::parse("https://push.example.com")?;
/// let now = Timestamp::from_secs(100);
/// gates.pause(&origin, Timestamp::from_secs(160), PauseReason::RateLimited);
/// assert!(gates.gate(&origin).closed_at(now).is_some());
/// assert!(gates.gate(&origin).closed_at(Timestamp::from_secs(160)).is_none());
/// # Ok::<(), tower_web_push::subscription::SubscriptionError>(())
/// ```
#[derive(Clone)]
pub struct OriginGates(Arc<Inner>);

struct Inner {
    gates: Mutex<LruCache<Origin, Arc<OriginGate>>>,
    least: usize,
    most: usize,
}

impl OriginGates {
    /// The number of gates that are kept if none is in use.
    const CAPACITY: usize = 4096;
    /// The default of the most requests in flight per origin: the streams of six HTTP/2 connections, if the server allows
    /// 100 on each, as most do.
    pub const IN_FLIGHT: usize = 600;
    /// The limit for an origin that has not answered yet, or has stopped answering.
    pub(crate) const UNPROVEN: usize = Concurrency::START;

    /// Gates with 1 to [`IN_FLIGHT`](Self::IN_FLIGHT) requests in flight each.
    #[must_use]
    pub fn new() -> Self {
        Self::with_in_flight(Self::IN_FLIGHT)
    }

    /// Gates with at most `most` requests in flight each, and at least one.
    #[must_use]
    pub fn with_in_flight(most: usize) -> Self {
        Self::with_in_flight_between(1, most)
    }

    /// Gates whose limit on requests in flight stays from `least` to `most`; each is at least one, and `most` at least
    /// `least`. Equal numbers make a fixed limit.
    #[must_use]
    pub fn with_in_flight_between(least: usize, most: usize) -> Self {
        let least = least.clamp(1, Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner {
            // `make_room` bounds the cache; it skips gates that are in use.
            gates: Mutex::new(LruCache::unbounded()),
            least,
            most: most.clamp(least, Semaphore::MAX_PERMITS),
        }))
    }

    /// The gate of an origin.
    #[must_use]
    pub fn gate(&self, origin: &Origin) -> Arc<OriginGate> {
        self.find(&mut self.lock(), origin)
    }

    /// The gate of each of these origins.
    pub(crate) fn of_each<'a>(
        &self,
        origins: impl Iterator<Item = &'a Origin>,
    ) -> Vec<Arc<OriginGate>> {
        let mut gates = self.lock();
        origins
            .map(|origin| self.find(&mut gates, origin))
            .collect()
    }

    fn find(
        &self,
        gates: &mut LruCache<Origin, Arc<OriginGate>>,
        origin: &Origin,
    ) -> Arc<OriginGate> {
        if let Some(gate) = gates.get(origin) {
            return Arc::clone(gate);
        }
        make_room(gates);
        let gate = Arc::new(OriginGate::new(origin.clone(), self.0.least, self.0.most));
        gates.put(origin.clone(), Arc::clone(&gate));
        gate
    }

    /// Closes the gate of an origin until `until`; a pause that ends later stays.
    pub fn pause(&self, origin: &Origin, until: Timestamp, reason: PauseReason) {
        self.gate(origin).pause(until, reason);
    }

    /// Opens the gate of an origin, whatever closed it.
    pub fn resume(&self, origin: &Origin) {
        if let Some(gate) = self.lock().peek(origin) {
            gate.standing().resume();
        }
    }

    /// Replaces the loaded pauses by `shared`, those that all replicas share.
    ///
    /// Pauses that this process decided on stay until they are shared.
    pub fn load(&self, shared: impl IntoIterator<Item = Pause>, now: Timestamp) {
        let mut shared: HashMap<_, _> = shared
            .into_iter()
            .map(|pause| (pause.origin.clone(), pause))
            .collect();
        for (origin, gate) in self.lock().iter() {
            gate.standing().load(shared.remove(origin), now);
        }
        for (origin, pause) in shared {
            self.gate(&origin).standing().load(Some(pause), now);
        }
    }

    /// The limit on requests in flight of each known origin; 0 if its gate is closed.
    pub(crate) fn limits(&self, now: Timestamp) -> HashMap<Origin, usize> {
        let limit = |gate: &OriginGate| {
            let standing = gate.standing();
            match standing.closed_at(now) {
                Some(_) => 0,
                None if standing.is_trusted(now) => gate.limit(),
                None => gate.limit().min(Self::UNPROVEN),
            }
        };
        let gates = self.lock();
        let limits = gates
            .iter()
            .map(|(origin, gate)| (origin.clone(), limit(gate)));
        limits.collect()
    }

    /// The known origins that do not get as many requests at once as one that answers: see [`limits`](Self::limits).
    pub(crate) fn untrusted(&self, now: Timestamp) -> HashSet<Origin> {
        let gates = self.lock();
        let untrusted = gates
            .iter()
            .filter(|(_, gate)| !gate.standing().is_trusted(now));
        untrusted.map(|(origin, _)| origin.clone()).collect()
    }

    /// The limit of an origin without a gate.
    pub(crate) fn limit_of_unknown(&self) -> usize {
        Self::UNPROVEN.clamp(self.0.least, self.0.most)
    }

    /// The most requests in flight that an origin may ever have.
    pub(crate) fn most(&self) -> usize {
        self.0.most
    }

    /// The gates that were used since this process started and were not forgotten, with most requests in flight first.
    #[cfg(any(feature = "api", feature = "metrics"))]
    pub(crate) fn all(&self) -> Vec<Arc<OriginGate>> {
        let mut gates: Vec<_> = self
            .lock()
            .iter()
            .map(|(_, gate)| Arc::clone(gate))
            .collect();
        gates.sort_by_key(|gate| std::cmp::Reverse(gate.in_flight()));
        gates
    }

    /// Whether this process has had an HTTP response from an origin, and the origin was not unreachable since.
    pub(crate) fn has_answered(&self, origin: &Origin) -> bool {
        let gates = self.lock();
        gates
            .peek(origin)
            .is_some_and(|gate| gate.standing().answers())
    }

    /// Every gate that is closed at `now`, with the reason.
    #[must_use]
    pub fn closed(&self, now: Timestamp) -> Vec<(Origin, Closed)> {
        self.lock()
            .iter()
            .filter_map(|(origin, gate)| Some((origin.clone(), gate.closed_at(now)?)))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Origin, Arc<OriginGate>>> {
        // Nothing panics while holding the lock.
        self.0.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops the least recently used gates until a new one fits.
///
/// Checks only a few gates each time: gates in use were used recently, so they are rarely among them.
fn make_room(gates: &mut LruCache<Origin, Arc<OriginGate>>) {
    const CHECKED: usize = 8;
    let mut left = CHECKED;
    while gates.len() >= OriginGates::CAPACITY && left > 0 {
        left = left.saturating_sub(1);
        let Some((origin, gate)) = gates.pop_lru() else {
            return;
        };
        // A permit holds its gate.
        if Arc::strong_count(&gate) > 1 {
            gates.put(origin, gate);
        }
    }
}

impl Default for OriginGates {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for OriginGates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginGates")
            .field("gates", &self.lock().len())
            .field("in_flight", &(self.0.least..=self.0.most))
            .finish()
    }
}

#[cfg(test)]
#[path = "origin_gates_tests.rs"]
mod tests;
