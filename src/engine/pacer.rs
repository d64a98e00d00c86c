//! When to look at the store next, and when to write down what has ended. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::store::StoreError;

/// The pause after the store failed, so that a dead store is not hammered.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(1);
/// Settle in batches: this many rows, or what there is after this time.
const SETTLE_AT: usize = 256;
pub(super) const SETTLE_WITHIN: Duration = Duration::from_millis(20);
/// Look at the store at once when this many attempts have ended: fast push services do not wait for slow ones.
const WORTH_A_STEP: usize = 50;
/// The shortest time between two steps while attempts are under way and fewer have ended.
const SHORTEST_STEP: Duration = Duration::from_millis(5);
/// The shortest pause while due rows wait for a gate.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// The times of the driving future's next step and next settlement.
#[derive(Debug)]
pub(super) struct Pacer {
    /// No step before this, while attempts are under way and few have ended.
    next_step: Instant,
    /// A step then, if nothing happens before.
    wake: Instant,
    /// When what has ended is written, if any has.
    settle_by: Option<Instant>,
}

/// What is known after a step of the work to come.
#[derive(Debug)]
pub(super) struct Outlook {
    /// Whether the step did something.
    pub(super) more: bool,
    /// Whether no attempt is under way.
    pub(super) is_idle: bool,
    /// When the next row or broadcast is due.
    pub(super) next_due: Result<Option<Timestamp>, StoreError>,
    /// When the next schedule is due.
    pub(super) next_fire: Result<Option<Timestamp>, StoreError>,
}

impl Outlook {
    /// How long there is nothing to do, unless something new is enqueued or an attempt ends; at most `longest`.
    pub(super) fn pause(&self, longest: Duration, now: Timestamp) -> Duration {
        let longest = match self.next_fire {
            // Due already: it is being fired, and its end wakes us.
            Ok(Some(at)) => at.since(now).max(STORE_PAUSE).min(longest),
            Ok(None) => longest,
            Err(_) => STORE_PAUSE,
        };
        match self.next_due {
            Ok(Some(at)) if self.more && at <= now => Duration::ZERO,
            // Due, yet not claimed: its gate is busy; or, when nothing is under way, closed by this process.
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
            wake: now,
            settle_by: None,
        }
    }

    /// Whether to take a step now. Attempts end by the thousand: not each is worth a look at the store.
    pub(super) fn is_step_due(&self, in_flight: usize, ended_lately: usize, now: Instant) -> bool {
        in_flight == 0 || ended_lately >= WORTH_A_STEP || now >= self.next_step
    }

    /// A step was taken, and the next one may wait for this pause.
    pub(super) fn stepped(&mut self, pause: Duration, now: Instant) {
        self.next_step = now + SHORTEST_STEP;
        self.wake = now + pause;
    }

    /// A step as soon as the shortest time after the last one is over.
    pub(super) fn step_soon(&mut self) {
        self.wake = self.wake.min(self.next_step);
    }

    /// A step at once.
    pub(super) const fn step_now(&mut self, now: Instant) {
        self.next_step = now;
    }

    /// When to act if nothing happens before: take a step, or settle.
    pub(super) fn next(&self) -> Instant {
        let step = self.wake.max(self.next_step);
        self.settle_by.map_or(step, |by| by.min(step))
    }

    /// Settles within a short time if anything is unsettled.
    pub(super) fn settle_soon(&mut self, unsettled: usize, now: Instant) {
        if unsettled > 0 {
            self.settle_by.get_or_insert(now + SETTLE_WITHIN);
        }
    }

    /// Whether to settle now: much has ended, or it has waited long enough, or nothing else is going to end.
    pub(super) fn is_settlement_due(
        &mut self,
        unsettled: usize,
        in_flight: usize,
        now: Instant,
    ) -> bool {
        let is_late = self.settle_by.is_some_and(|by| by <= now);
        let is_due = unsettled > 0 && (is_late || in_flight == 0 || unsettled >= SETTLE_AT);
        if is_due {
            self.settle_by = None;
        }
        is_due
    }

    /// What has ended could not be written: nothing more is begun for a while.
    pub(super) fn settlement_failed(&mut self, now: Instant) {
        self.wake = now + STORE_PAUSE;
        self.next_step = self.wake;
        self.settle_by = Some(self.wake);
    }
}

#[cfg(test)]
#[path = "pacer_tests.rs"]
mod tests;
