//! The gate of one origin: the flow of requests, and "not before T because R".

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
#[cfg(feature = "client")]
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

use super::evidence::Row;
use super::flow::{Begun, Flow, Load};
use super::standing::{Observation, Standing};
use crate::clock::Timestamp;
use crate::push_service::{Pause, PauseReason};
use crate::subscription::Origin;

/// The gate of one origin.
pub struct OriginGate {
    origin: Origin,
    permits: Semaphore,
    lent: Mutex<Lent>,
    /// Held by the one request that waits for its time.
    turn: tokio::sync::Mutex<()>,
    standing: Mutex<Standing>,
    /// Whether the store was asked about the origin, and whether it has accepted a push from this server.
    is_recalled: AtomicBool,
    has_accepted: AtomicBool,
}

/// The flow, and what the semaphore has of it.
#[derive(Debug)]
struct Lent {
    flow: Flow,
    /// The permits that there are, lent or not. More than the limit until enough are returned.
    permits: usize,
}

impl OriginGate {
    pub(super) fn new(origin: Origin, least: usize, most: usize) -> Self {
        let flow = Flow::new(least, most);
        Self {
            standing: Mutex::new(Standing::new(origin.clone())),
            origin,
            permits: Semaphore::new(flow.limit()),
            turn: tokio::sync::Mutex::new(()),
            lent: Mutex::new(Lent {
                permits: flow.limit(),
                flow,
            }),
            is_recalled: AtomicBool::new(false),
            has_accepted: AtomicBool::new(false),
        }
    }

    /// Whether [`recall`](Self::recall) was called.
    pub(crate) fn is_recalled(&self) -> bool {
        self.is_recalled.load(Ordering::Relaxed)
    }

    /// Whether the origin has accepted a push from this server, as far as is known.
    pub(crate) fn has_accepted(&self) -> bool {
        self.has_accepted.load(Ordering::Relaxed)
    }

    /// Takes in whether the origin has accepted a push from this server, now or earlier.
    pub(crate) fn recall(&self, has_accepted: bool) {
        self.is_recalled.store(true, Ordering::Relaxed);
        if has_accepted {
            self.has_accepted.store(true, Ordering::Relaxed);
            self.standing().prove();
        }
    }

    /// The origin of this gate.
    pub(crate) const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The end and the reason of the pause if the gate is closed at `now`; `None` if it is open.
    #[must_use]
    pub fn closed_at(&self, now: Timestamp) -> Option<Closed> {
        let closed = self.standing().closed_at(now);
        closed.map(|(until, reason)| Closed::new(until, reason))
    }

    /// Closes the gate until `until`; a pause that ends later stays.
    pub(crate) fn pause(&self, until: Timestamp, reason: PauseReason) {
        let pause = Pause::new(self.origin.clone(), until, reason);
        self.standing().pause(&pause, Timestamp::MIN);
    }

    /// Admits one request, unless the gate is closed. After a pause that
    /// [is probed](PauseReason::is_probed) this request is the probe: all others wait for its response.
    pub(super) fn admit(&self, row: &Row, now: Timestamp) -> Result<(), Closed> {
        let admitted = self.standing().admit(row, now);
        admitted.map_err(|(until, reason)| Closed::new(until, reason))
    }

    /// Undoes [`admit`](Self::admit) for the request of a row that began then: it could not be made.
    pub(super) fn withdraw(&self, row: &Row, began: Timestamp) {
        self.standing().withdraw(row, began);
    }

    /// Takes in a response, or its absence.
    pub(super) fn observe(&self, seen: &Observation, now: Timestamp) {
        self.standing().observe(seen, now);
    }

    /// Takes in that the origin answers.
    #[cfg(test)]
    pub(crate) fn answers(&self) {
        self.standing().has_answered();
    }

    /// Returns pauses, and ends of pauses, that the other replicas do not know yet; each is returned once.
    pub(crate) fn take_unshared(&self) -> Vec<Pause> {
        self.standing().take_unshared()
    }

    /// Keeps a pause of [`take_unshared`](Self::take_unshared) that could not be shared: it is returned again, first.
    pub(crate) fn keep_unshared(&self, pause: Pause, is_lift: bool) {
        self.standing().keep_unshared(pause, is_lift);
    }

    /// Marks as shared what [`take_unshared`](Self::take_unshared) returned.
    pub(crate) fn shared(&self, now: Timestamp) {
        self.standing().shared(now);
    }

    /// The number of requests that may begin at once: the limit, less those that are in flight or about to begin.
    #[must_use]
    pub fn available(&self) -> usize {
        self.permits.available_permits()
    }

    /// The most requests in flight, as the responses have it.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.lent().flow.limit()
    }

    /// The requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.lent().flow.in_flight()
    }

    /// The most requests that begin in a second, if the origin limits them.
    #[must_use]
    pub fn per_second(&self) -> Option<u64> {
        self.lent().flow.per_second()
    }

    /// Takes a permit if one is free and it is time for a request.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        self.permits.try_acquire().ok()?.forget();
        let permit = Permit::new(self);
        let _turn = self.turn.try_lock().ok()?;
        self.take(Instant::now()).is_ok().then_some(permit)
    }

    /// Waits for a permit and for the time of the request, in order of arrival. Ignores the pause.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue and nothing else.
    pub(super) async fn acquire(self: &Arc<Self>) -> Permit {
        // The semaphore is never closed.
        match self.permits.acquire().await {
            Ok(permit) => permit.forget(),
            Err(_) => std::future::pending().await,
        }
        let permit = Permit::new(self);
        let _turn = self.turn.lock().await;
        // What the responses say changes the time.
        while let Err(at) = self.take(Instant::now()) {
            sleep_until(at).await;
        }
        permit
    }

    fn take(&self, now: Instant) -> Result<(), Instant> {
        self.lent().flow.take(now)
    }

    /// Changes the flow, and the number of permits to its limit.
    fn change<T>(&self, change: impl FnOnce(&mut Flow) -> T) -> T {
        let mut lent = self.lent();
        let result = change(&mut lent.flow);
        let limit = lent.flow.limit();
        if limit > lent.permits {
            self.permits.add_permits(limit - lent.permits);
            lent.permits = limit;
        } else if limit < lent.permits {
            // Those that are lent are kept back when they are returned.
            lent.permits -= self.permits.forget_permits(lent.permits - limit);
        }
        result
    }

    fn lent(&self) -> MutexGuard<'_, Lent> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for OriginGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginGate")
            .field("available", &self.available())
            .field("limit", &self.limit())
            .field("standing", &*self.standing())
            .finish()
    }
}

/// A permit for one request in flight; returned when dropped.
#[derive(Debug)]
#[must_use = "dropping it gives it back"]
pub(crate) struct Permit {
    gate: Arc<OriginGate>,
    begun: Option<Begun>,
}

impl Permit {
    fn new(gate: &Arc<OriginGate>) -> Self {
        Self {
            gate: Arc::clone(gate),
            begun: None,
        }
    }

    pub(super) fn gate(&self) -> &OriginGate {
        &self.gate
    }

    /// The request begins.
    pub(super) fn begin(&mut self) {
        self.begun = Some(self.gate.change(|flow| flow.begins(Instant::now())));
    }

    /// The request that began was sent only after this time.
    #[cfg(feature = "client")]
    pub(super) fn was_delayed(&mut self, delay: Duration) {
        if let Some(begun) = &mut self.begun {
            begun.delay(delay);
        }
    }

    /// Takes in what the attempt says about the load on the origin, at this moment.
    pub(super) fn learn(&self, row: &Row, load: Load, now: Timestamp) {
        if let Some(begun) = &self.begun {
            let row = (row, row.is_suspect(now));
            self.gate
                .change(|flow| flow.learn(begun, row, load, Instant::now()));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let gate = &self.gate;
        if self.begun.is_some() {
            gate.change(Flow::ends);
        }
        let mut lent = gate.lent();
        if lent.permits > lent.flow.limit() {
            lent.permits -= 1;
        } else {
            gate.permits.add_permits(1);
        }
    }
}

/// A closed gate: "not before T because R".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// The first moment at which a request may begin again.
    pub until: Timestamp,
    /// The reason of the pause.
    pub reason: PauseReason,
}

impl Closed {
    /// A gate that is closed until `until` because of `reason`.
    pub(crate) const fn new(until: Timestamp, reason: PauseReason) -> Self {
        Self { until, reason }
    }
}

#[cfg(test)]
#[path = "origin_gate_tests.rs"]
mod tests;
