//! One gate per origin: how many requests may be in flight, and "not before T because R".

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use tokio::sync::Semaphore;

use super::standing::{Observation, Standing};
use crate::clock::Timestamp;
use crate::push_service::{Pause, PauseReason};
use crate::subscription::Origin;

/// The gates of all origins. Cheap to clone; clones share them.
///
/// At most 4096 gates are kept; the least recently used ones make room, but for
/// those in use: an origin never gets a second set of permits while the first is out. A pause that goes
/// with its gate comes back with the next [`load`](Self::load).
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
    in_flight: usize,
}

impl OriginGates {
    /// How many gates are kept when none is in use.
    const CAPACITY: usize = 4096;
    /// How many requests may be in flight per origin where nothing else is said.
    pub const IN_FLIGHT: usize = 100;
    /// How many of them may go to an origin that has not answered yet, or no longer does.
    pub(crate) const UNPROVEN: usize = 8;

    /// Gates with [`IN_FLIGHT`](Self::IN_FLIGHT) permits each.
    #[must_use]
    pub fn new() -> Self {
        Self::with_in_flight(Self::IN_FLIGHT)
    }

    /// Gates with so many permits each, at least one.
    #[must_use]
    pub fn with_in_flight(permits: usize) -> Self {
        Self(Arc::new(Inner {
            // The room is made by `make_room`, which looks at what is in use.
            gates: Mutex::new(LruCache::unbounded()),
            in_flight: permits.clamp(1, Semaphore::MAX_PERMITS),
        }))
    }

    /// The gate of an origin.
    #[must_use]
    pub fn gate(&self, origin: &Origin) -> Arc<OriginGate> {
        let mut gates = self.lock();
        if let Some(gate) = gates.get(origin) {
            return Arc::clone(gate);
        }
        make_room(&mut gates);
        let gate = Arc::new(OriginGate::new(origin.clone(), self.0.in_flight));
        gates.put(origin.clone(), Arc::clone(&gate));
        gate
    }

    /// Closes the gate of an origin until then; a pause that ends later stays.
    pub fn pause(&self, origin: &Origin, until: Timestamp, reason: PauseReason) {
        self.gate(origin).pause(until, reason);
    }

    /// Opens the gate of an origin, whoever closed it.
    pub fn resume(&self, origin: &Origin) {
        if let Some(gate) = self.lock().peek(origin) {
            gate.standing().resume();
        }
    }

    /// Takes over the pauses that all replicas share, in place of those loaded before.
    ///
    /// Pauses that this process came to itself stay until they are shared.
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

    /// How many requests may be in flight at each origin that is known: none where the gate is closed.
    pub(crate) fn rooms(&self, now: Timestamp) -> HashMap<Origin, usize> {
        let room = |gate: &OriginGate| {
            let standing = gate.standing();
            match standing.closed_at(now) {
                Some(_) => 0,
                None if standing.answers() => self.0.in_flight,
                None => self.0.in_flight.min(Self::UNPROVEN),
            }
        };
        let gates = self.lock();
        let rooms = gates
            .iter()
            .map(|(origin, gate)| (origin.clone(), room(gate)));
        rooms.collect()
    }

    /// Whether this process has had an HTTP answer from an origin, and it did not fall silent since.
    pub(crate) fn has_answered(&self, origin: &Origin) -> bool {
        let gates = self.lock();
        gates
            .peek(origin)
            .is_some_and(|gate| gate.standing().answers())
    }

    /// Every gate that is closed at `now`, and why.
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
/// Only a few are looked at each time: whatever is in use was used recently, so it is rarely among them.
fn make_room(gates: &mut LruCache<Origin, Arc<OriginGate>>) {
    const LOOKED_AT: usize = 8;
    let mut left = LOOKED_AT;
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
            .field("in_flight", &self.0.in_flight)
            .finish()
    }
}

/// The gate of one origin.
pub struct OriginGate {
    origin: Origin,
    permits: Semaphore,
    standing: Mutex<Standing>,
}

impl OriginGate {
    fn new(origin: Origin, permits: usize) -> Self {
        Self {
            standing: Mutex::new(Standing::new(origin.clone())),
            origin,
            permits: Semaphore::new(permits),
        }
    }

    /// The origin of the gate.
    pub(crate) const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Why and until when the gate is closed at `now`; `None` when it is open.
    #[must_use]
    pub fn closed_at(&self, now: Timestamp) -> Option<Closed> {
        let closed = self.standing().closed_at(now);
        closed.map(|(until, reason)| Closed::new(until, reason))
    }

    /// Closes the gate until then; a pause that ends later stays.
    pub(crate) fn pause(&self, until: Timestamp, reason: PauseReason) {
        let pause = Pause::new(self.origin.clone(), until, reason);
        self.standing().pause(&pause, Timestamp::MIN);
    }

    /// Lets one request begin, unless the gate is closed. Of a pause that is over and
    /// [is probed](PauseReason::is_probed) the request is the probe: all others wait for its answer.
    pub(super) fn admit(&self, now: Timestamp) -> Result<(), Closed> {
        let admitted = self.standing().admit(now);
        admitted.map_err(|(until, reason)| Closed::new(until, reason))
    }

    /// Takes back that a request begins: it could not be made.
    pub(super) fn withdraw(&self) {
        self.standing().withdraw();
    }

    /// Draws the conclusions from an answer.
    pub(super) fn observe(&self, seen: &Observation, now: Timestamp) {
        self.standing().observe(seen, now);
    }

    /// Pauses, and ends of pauses, that the other replicas should know of; each is handed out once.
    pub(crate) fn take_news(&self) -> Vec<Pause> {
        self.standing().take_news()
    }

    /// What was handed out is shared now.
    pub(crate) fn shared(&self, now: Timestamp) {
        self.standing().shared(now);
    }

    /// How many requests may start right now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.permits.available_permits()
    }

    /// A permit, when one is free.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        self.permits.try_acquire().ok()?.forget();
        Some(Permit(Arc::clone(self)))
    }

    /// A permit as soon as one is free, in the order of asking. The pause is not looked at.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue and nothing else.
    pub(super) async fn acquire(self: &Arc<Self>) -> Permit {
        // The semaphore is never closed; if it were, waiting for ever would be right.
        match self.permits.acquire().await {
            Ok(permit) => permit.forget(),
            Err(_) => std::future::pending().await,
        }
        Permit(Arc::clone(self))
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for OriginGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginGate")
            .field("available", &self.available())
            .field("standing", &*self.standing())
            .finish()
    }
}

/// The right to one request in flight; given back when dropped.
#[derive(Debug)]
#[must_use = "dropping it gives it back"]
pub(crate) struct Permit(Arc<OriginGate>);

impl Permit {
    pub(super) fn gate(&self) -> &OriginGate {
        &self.0
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.permits.add_permits(1);
    }
}

/// A closed gate: "not before T because R".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// The first moment at which the origin may be asked again.
    pub until: Timestamp,
    /// Why it may not before.
    pub reason: PauseReason,
}

impl Closed {
    /// Not before `until`, because of `reason`.
    pub(crate) const fn new(until: Timestamp, reason: PauseReason) -> Self {
        Self { until, reason }
    }
}

#[cfg(test)]
#[path = "origin_gate_tests.rs"]
mod tests;
