//! The times of the next step and the next settlement. No I/O, no clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::store::StoreError;

/// The pause after a call to the store failed: a store in trouble gets one request a second.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(1);
/// Settle in batches of this many rows, or after this time.
const SETTLE_AT: usize = 256;
pub(super) const SETTLE_WITHIN: Duration = Duration::from_millis(20);
/// Step at once when this many attempts have ended: fast push services do not wait for slow ones.
const WORTH_A_STEP: usize = 50;
/// The shortest time between two steps while attempts are in flight and fewer than that have ended.
const SHORTEST_STEP: Duration = Duration::from_millis(5);
/// The rest after a step, as a multiple of its time, at most [`SETTLE_WITHIN`]. The slower a store commits, the more rows
/// share a transaction: on a disk that takes 5 ms, those of 25 ms.
const REST: u32 = 4;
/// The shortest pause while due rows wait for a gate, and the longest while there is work: what becomes due by time is not
/// asked for then.
pub(super) const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// The times of the next step and the next settlement.
#[derive(Debug)]
pub(super) struct Pacer {
    /// No step before this, while attempts are in flight and few have ended.
    next_step: Instant,
    /// The same after a hint that there is new work.
    soonest: Instant,
    /// The end of the rest after the last step.
    rested: Instant,
    /// Whether this rest is longer than the shortest time between two steps.
    is_slow: bool,
    /// The next step, if nothing happens before.
    wake: Instant,
    /// When to settle; `None` if there is nothing to settle.
    settle_by: Option<Instant>,
    /// No settlement before this: the store is in trouble.
    settle_from: Instant,
    /// No step before this, whatever happens: the store is in trouble.
    step_from: Instant,
}

/// The work to come, as known after a step.
#[derive(Debug)]
pub(super) struct Outlook {
    /// Whether the step did any work.
    pub(super) more: bool,
    /// Whether no attempt is in flight.
    pub(super) is_idle: bool,
    /// When the next row or broadcast is due.
    pub(super) next_due: Result<Option<Timestamp>, StoreError>,
}

impl Outlook {
    /// The pause until work is due, at most `longest`. New work and the end of an attempt cut it short.
    pub(super) fn pause(&self, longest: Duration, now: Timestamp) -> Duration {
        match self.next_due {
            Ok(Some(at)) if self.more && at <= now => Duration::ZERO,
            // Due, but not claimed: its gate is busy or, if nothing is in flight, closed in this process.
            Ok(Some(at)) => {
                let is_closed = self.is_idle && at <= now;
                let shortest = if is_closed {
                    STORE_PAUSE
                } else {
                    SHORTEST_PAUSE
                };
                at.since(now).clamp(shortest, longest.max(shortest))
            }
            Ok(None) => longest,
            Err(_) => STORE_PAUSE,
        }
    }
}

impl Pacer {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            next_step: now,
            soonest: now,
            rested: now,
            is_slow: false,
            wake: now,
            settle_by: None,
            settle_from: now,
            step_from: now,
        }
    }

    /// Whether to settle and whether to take a step now. If the store takes long for both, they share a transaction.
    pub(super) fn due(
        &mut self,
        unsettled: usize,
        in_flight: usize,
        ended_lately: usize,
        now: Instant,
    ) -> (bool, bool) {
        // Enough are in flight until as many have ended. At an origin that allows few these are no [`WORTH_A_STEP`], and their
        // places stay empty until the next step.
        if ended_lately > 0 && ended_lately >= in_flight {
            self.step_for_new();
        }
        let settles = self.is_settlement_due(unsettled, in_flight, now);
        let steps = self.is_step_due(in_flight, ended_lately, now);
        let may_settle = unsettled > 0 && now >= self.settle_from;
        let may_step = now >= self.step_from;
        if self.is_slow && may_settle && may_step && in_flight > 0 && (settles || steps) {
            self.settle_by = None;
            return (true, true);
        }
        (settles, steps)
    }

    /// Whether to take a step now. Thousands of attempts end per second, and not each causes a poll of the store.
    fn is_step_due(&self, in_flight: usize, ended_lately: usize, now: Instant) -> bool {
        // During the rest there are enough in flight until as many have ended.
        let is_rested = now >= self.rested || ended_lately >= in_flight;
        let is_due =
            in_flight == 0 || (ended_lately >= WORTH_A_STEP && is_rested) || now >= self.next_step;
        is_due && now >= self.step_from
    }

    /// Records a step and the time that it took. The next one may wait for `pause`.
    pub(super) fn stepped(&mut self, pause: Duration, took: Duration, now: Instant) {
        let rest = took.saturating_mul(REST).min(SETTLE_WITHIN);
        self.is_slow = rest > SHORTEST_STEP;
        self.rested = now + rest;
        self.soonest = now + SHORTEST_STEP;
        self.next_step = self.rested.max(self.soonest);
        self.wake = now + pause;
    }

    /// Takes the next step after the rest, or as soon as the shortest time since the last step is over.
    pub(super) fn step_soon(&mut self) {
        self.wake = self.wake.min(self.next_step);
    }

    /// Takes the next step as soon as the shortest time since the last one is over: there is new work, or room for it.
    pub(super) fn step_for_new(&mut self) {
        self.next_step = self.next_step.min(self.soonest);
        self.step_soon();
    }

    /// Takes the next step after this pause at the latest.
    pub(super) fn step_within(&mut self, pause: Duration, now: Instant) {
        self.wake = self.wake.min(now + pause);
    }

    /// Takes the next step at once.
    pub(super) const fn step_now(&mut self, now: Instant) {
        self.next_step = now;
    }

    /// The time of the next step or settlement, if nothing happens before.
    pub(super) fn next(&self) -> Instant {
        let step = self.wake.max(self.next_step).max(self.step_from);
        self.settle_by.map_or(step, |by| by.min(step))
    }

    /// Settles within [`SETTLE_WITHIN`] if anything is unsettled.
    pub(super) fn settle_soon(&mut self, unsettled: usize, now: Instant) {
        if unsettled > 0 {
            self.settle_by.get_or_insert(now + SETTLE_WITHIN);
        }
    }

    /// Whether to settle now: a batch is full, has waited long enough, or no attempt is in flight that could join it. After a
    /// failure none of these is a reason before [`STORE_PAUSE`] is over.
    fn is_settlement_due(&mut self, unsettled: usize, in_flight: usize, now: Instant) -> bool {
        let is_late = self.settle_by.is_some_and(|by| by <= now);
        let is_due = unsettled > 0
            && now >= self.settle_from
            && (is_late || in_flight == 0 || unsettled >= SETTLE_AT);
        if is_due {
            self.settle_by = None;
        }
        is_due
    }

    /// Records a failed claim: no step for [`STORE_PAUSE`], whatever happens. New work and the ends of chores would else ask a
    /// store in trouble again and again.
    pub(super) fn claim_failed(&mut self, now: Instant) {
        self.step_from = now + STORE_PAUSE;
    }

    /// Records a failed settlement: no step and no settlement for [`STORE_PAUSE`].
    pub(super) fn settlement_failed(&mut self, now: Instant) {
        self.wake = now + STORE_PAUSE;
        self.next_step = self.wake;
        self.soonest = self.wake;
        self.rested = self.wake;
        self.is_slow = false;
        self.settle_by = Some(self.wake);
        self.settle_from = self.wake;
    }
}

#[cfg(test)]
#[path = "pacer_tests.rs"]
mod tests;
