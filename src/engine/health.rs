//! The health of this process's worker, for `GET /ready`, `GET /stats` and the log.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
#[cfg(any(feature = "api", feature = "metrics"))]
use std::time::Duration;

use tokio::time::Instant;

use super::outage::Outage;
use crate::clock::Timestamp;
use crate::store::StoreError;

/// A step of the worker. Each fails alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Read the stored pauses of push services.
    Pauses,
    /// Write the rows of broadcasts.
    Expand,
    /// Open the broadcasts of the outbox.
    Outbox,
    /// Claim due rows.
    Claim,
    /// Write outcomes.
    Settle,
    /// Write the time of the last poll. The regular write that shows whether the store can be written.
    Record,
    /// Read the VAPID keys.
    Keys,
    /// Fire schedules.
    Schedules,
    /// Expire rows past their deadline.
    Expire,
    /// Delete what is past its retention.
    Purge,
    /// Read the counts of broadcasts that are over, for the log.
    Report,
}

impl Step {
    /// Every step.
    #[cfg(feature = "metrics")]
    pub(crate) const ALL: &'static [Self] = &[
        Self::Pauses,
        Self::Expand,
        Self::Outbox,
        Self::Claim,
        Self::Settle,
        Self::Record,
        Self::Keys,
        Self::Schedules,
        Self::Expire,
        Self::Purge,
        Self::Report,
    ];

    #[cfg(any(feature = "api", feature = "metrics"))]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pauses => "pauses",
            Self::Expand => "expand",
            Self::Outbox => "outbox",
            Self::Claim => "claim",
            Self::Settle => "settle",
            Self::Record => "record",
            Self::Keys => "keys",
            Self::Schedules => "schedules",
            Self::Expire => "expire",
            Self::Purge => "purge",
            Self::Report => "report",
        }
    }

    /// The log message of a failure.
    pub(super) const fn failure(self) -> &'static str {
        match self {
            Self::Pauses => "cannot read the pauses of push services",
            Self::Expand => "cannot expand broadcasts",
            Self::Outbox => "cannot open the broadcasts of the outbox",
            Self::Claim => "cannot claim due rows",
            Self::Settle => "cannot settle",
            Self::Record => "cannot write to the store",
            Self::Keys => "cannot read the VAPID keys",
            Self::Schedules => "cannot fire schedules",
            Self::Expire => "cannot expire rows",
            Self::Purge => "cannot purge",
            Self::Report => "cannot look up what has ended",
        }
    }

    /// Whether the store is unusable if this step fails.
    #[cfg(any(feature = "api", feature = "metrics"))]
    const fn is_vital(self) -> bool {
        matches!(self, Self::Claim | Self::Settle | Self::Record)
    }
}

/// The steps that fail, and the last success of the one that matters most. Shared by the worker and the HTTP API.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failing: BTreeMap<Step, Failing>,
    /// When due rows were last claimed or there was nothing to claim.
    claimed: Option<Instant>,
    /// When a call outside of the worker found the store unavailable.
    suspected: Option<Instant>,
}

#[derive(Debug)]
struct Failing {
    outage: Outage,
    step: FailingStep,
}

/// A step that fails.
#[derive(Clone, Debug)]
pub(crate) struct FailingStep {
    pub(crate) step: Step,
    #[cfg_attr(
        not(feature = "api"),
        expect(dead_code, reason = "the HTTP API shows it")
    )]
    pub(crate) since: Timestamp,
    pub(crate) error: String,
}

impl Health {
    /// Records the result of a step. The log reports the first failure in a row, a reminder each minute, and the end.
    pub(super) fn note(&self, step: Step, result: Result<(), &StoreError>, now: Timestamp) {
        let mut state = self.lock();
        match result {
            Ok(()) => {
                if let Some(mut failing) = state.failing.remove(&step) {
                    failing.outage.went_well(step.failure());
                }
                if step == Step::Claim {
                    state.claimed = Some(Instant::now());
                }
                if step == Step::Record {
                    state.suspected = None;
                }
            }
            Err(error) => {
                let failing = state.failing.entry(step).or_insert_with(|| Failing {
                    outage: Outage::default(),
                    step: FailingStep {
                        step,
                        since: now,
                        error: String::new(),
                    },
                });
                failing.step.error = error.to_string();
                failing.outage.failed(error, step.failure());
            }
        }
    }

    /// Records that a call outside of the worker found the store unavailable. The next write of the worker shows whether
    /// it is.
    #[cfg(feature = "api")]
    pub(crate) fn suspect(&self) {
        self.lock().suspected = Some(Instant::now());
    }

    /// Whether a write of the worker is due at once.
    pub(super) fn is_suspected(&self) -> bool {
        self.lock().suspected.is_some()
    }

    /// Whether the last claim, the last settlement and the last write succeeded. Without a worker in this process a
    /// failed write counts for `forget_after`, since nothing would show its end.
    #[cfg(any(feature = "api", feature = "metrics"))]
    pub(crate) fn is_store_usable(&self, forget_after: Option<Duration>) -> bool {
        let state = self.lock();
        let is_suspected = state
            .suspected
            .is_some_and(|at| forget_after.is_none_or(|forget_after| at.elapsed() < forget_after));
        !is_suspected && !state.failing.keys().any(|step| step.is_vital())
    }

    /// Whether the last successful claim is at most this long ago. `true` before the first.
    #[cfg(feature = "api")]
    pub(crate) fn has_claimed_within(&self, limit: Duration) -> bool {
        let claimed = self.lock().claimed;
        claimed.is_none_or(|at| at.elapsed() <= limit)
    }

    /// The time since due rows were last claimed, or there was nothing to claim.
    #[cfg(feature = "metrics")]
    pub(super) fn claimed_ago(&self) -> Option<Duration> {
        self.lock().claimed.map(|at| at.elapsed())
    }

    /// Forgets everything, for when no worker is left.
    pub(super) fn clear(&self) {
        *self.lock() = State::default();
    }

    /// The steps that fail.
    pub(crate) fn failing(&self) -> Vec<FailingStep> {
        let state = self.lock();
        let failing = state.failing.values();
        failing.map(|failing| failing.step.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[cfg(any(feature = "api", feature = "metrics"))]
mod tests {
    use super::*;

    /// Without a worker nothing would show that it works again.
    #[cfg(feature = "api")]
    #[tokio::test(start_paused = true)]
    async fn a_store_is_suspected_until_the_next_write_of_the_worker() {
        use crate::store::StoreErrorKind;

        const FORGET_AFTER: Duration = Duration::from_secs(5);
        let health = Health::default();
        let usable = || [None, Some(FORGET_AFTER)].map(|after| health.is_store_usable(after));
        health.suspect();
        assert!(health.is_suspected());
        assert_eq!(usable(), [false, false]);
        tokio::time::advance(FORGET_AFTER).await;
        assert_eq!(usable(), [false, true]);
        health.note(Step::Claim, Ok(()), Timestamp::MIN);
        assert!(health.is_suspected(), "a read shows nothing");
        let down = StoreError::from(StoreErrorKind::Unavailable);
        health.note(Step::Record, Err(&down), Timestamp::MIN);
        assert!(health.is_suspected());
        assert_eq!(usable(), [false, false]);
        health.note(Step::Record, Ok(()), Timestamp::MIN);
        assert!(!health.is_suspected());
        assert_eq!(usable(), [true, true]);
    }

    #[cfg(feature = "metrics")]
    #[test]
    fn every_step_is_listed() {
        for (place, step) in Step::ALL.iter().enumerate() {
            assert_eq!(*step as usize, place, "{}", step.as_str());
        }
        assert_eq!(Step::ALL.len(), Step::Report as usize + 1);
    }
}
