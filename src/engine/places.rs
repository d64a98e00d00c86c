//! How many attempts a worker may have under way: in all, at each origin, and at the hosts of strangers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Engine;
use crate::clock::Timestamp;
use crate::deliver::OriginGate;
use crate::store::ClaimRequest;
use crate::subscription::Origin;

/// The most attempts under way, over all origins. High, so that origins that do not answer leave enough for others.
const IN_FLIGHT: usize = 4096;
/// The attempts under way at which hosts that the endpoint policy does not name get no more, in eighths of the places: those
/// that do not answer, and all of them. Strangers can add any number of such hosts, which hang, or answer once and then hang.
const STRANGERS: (usize, usize) = (4, 5);
/// Do not claim with fewer free places than this: a transaction costs more than waiting for more to come free.
const FREE_AT_LEAST: usize = 128;
/// The most rows claimed in one transaction.
const CLAIM: usize = 1024;

/// The places of a worker, one for each attempt under way.
#[derive(Debug)]
pub(super) struct Places {
    engine: Engine,
    under_way: Arc<UnderWay>,
}

/// The number of attempts under way at each origin that has any.
#[derive(Debug, Default)]
struct UnderWay(Mutex<HashMap<Origin, usize>>);

impl Places {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            engine,
            under_way: Arc::default(),
        }
    }

    /// Takes a place for an attempt at the origin of this gate.
    pub(super) fn take(&self, gate: Arc<OriginGate>) -> Place {
        let mut under_way = self.under_way.lock();
        *under_way.entry(gate.origin().clone()).or_default() += 1;
        Place {
            gate,
            under_way: Arc::clone(&self.under_way),
        }
    }

    /// What to claim for the free places; `None` if they are too few.
    pub(super) fn request(&self, now: Timestamp, is_calm: bool) -> Option<ClaimRequest> {
        let under_way = self.under_way.lock();
        let free = self.most().saturating_sub(under_way.values().sum());
        if free < FREE_AT_LEAST {
            return None;
        }
        let mut request = ClaimRequest::new(free.min(CLAIM), self.engine.lease);
        request.origins = self.free(&under_way, now, is_calm);
        request.per_origin = self.engine.gates.limit_of_unknown();
        self.keep_for_named(&mut request, &under_way, now);
        Some(request)
    }

    /// The number of places.
    fn most(&self) -> usize {
        IN_FLIGHT.max(self.engine.gates.most().saturating_mul(2))
    }

    /// Leaves the hosts of strangers out while they have their part of the places.
    fn keep_for_named(
        &self,
        request: &mut ClaimRequest,
        under_way: &HashMap<Origin, usize>,
        now: Timestamp,
    ) {
        let most = self.most();
        let (silent, all) = (most / 8 * STRANGERS.0, most / 8 * STRANGERS.1);
        if under_way.values().sum::<usize>() + request.limit <= silent {
            return;
        }
        let policy = &self.engine.endpoint_policy;
        let untrusted = self.engine.gates.untrusted(now);
        let (mut of_silent, mut of_all) = (0, 0);
        for (origin, number) in under_way {
            if !policy.names_origin(origin) {
                of_all += number;
                of_silent += usize::from(untrusted.contains(origin)) * number;
            }
        }
        // All of this claim may be theirs: with more they would have places that are others'. With fewer than are worth a claim
        // it would keep others waiting for as long as theirs are in flight.
        let left = |most: usize, number| {
            most.checked_sub(number)
                .filter(|left| *left >= FREE_AT_LEAST)
        };
        let (of_silent, of_all) = (left(silent, of_silent), left(all, of_all));
        if let (Some(of_silent), Some(of_all)) = (of_silent, of_all) {
            request.limit = request.limit.min(of_silent).min(of_all);
            return;
        }
        let is_full = of_all.is_none();
        let unknown = std::mem::replace(&mut request.per_origin, 0);
        for (origin, most) in &mut request.origins {
            if (is_full || untrusted.contains(origin)) && !policy.names_origin(origin) {
                *most = 0;
            }
        }
        // Those of a process that has just started.
        for origin in policy.named_origins() {
            request.origins.entry(origin).or_insert(unknown);
        }
    }

    /// The number of attempts that each known origin has free places for.
    fn free(
        &self,
        under_way: &HashMap<Origin, usize>,
        now: Timestamp,
        is_calm: bool,
    ) -> HashMap<Origin, usize> {
        let mut free = self.engine.gates.limits(now);
        for (origin, left) in &mut free {
            let Some(under_way) = under_way.get(origin) else {
                continue;
            };
            let limit = *left;
            *left = limit.saturating_sub(*under_way);
            // While attempts end, wait for more free places than a few: each claim is a transaction.
            if !is_calm && *left < limit / 8 {
                *left = 0;
            }
        }
        free
    }
}

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, HashMap<Origin, usize>> {
        // Nothing panics while holding the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one attempt. It is free again when this is dropped, also by a panic.
#[derive(Debug)]
#[must_use = "dropping it gives it back"]
pub(super) struct Place {
    gate: Arc<OriginGate>,
    under_way: Arc<UnderWay>,
}

impl Place {
    /// The gate of the attempt.
    pub(super) const fn gate(&self) -> &Arc<OriginGate> {
        &self.gate
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock();
        let origin = self.gate.origin();
        let Some(number) = under_way.get_mut(origin) else {
            return;
        };
        *number = number.saturating_sub(1);
        if *number == 0 {
            under_way.remove(origin);
        }
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
#[path = "places_tests.rs"]
mod tests;
