//! The engine's clock: the application's clock, compared with its monotonic reading and with the store's clock.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::ClockSkew;
use crate::clock::{Clock, Timestamp};
use crate::observe;
use crate::store::{ScheduleStore, StoreError};

/// The largest jump of the wall clock against the monotonic clock that is followed without a question: the difference
/// that leases allow for.
const FOLLOWED: Duration = ClockSkew::ALLOWED;
/// A jump that has lasted for this time is accepted if the store has no clock to compare with. Longer than a mistake
/// that an operator corrects at once, and the longest delay of messages after a machine was suspended.
const ACCEPTED_AFTER: Duration = Duration::from_secs(5 * 60);

/// A clock that does not follow a jump of the wall clock before a second source agrees.
///
/// Until then [`now`](Clock::now) continues from the last time that agreed, by the monotonic clock, and the worker
/// claims, fires, expires and purges nothing. Times that are computed meanwhile, such as those of retries and pauses, are
/// right if the jump is wrong.
///
/// The second source is the store's clock. If the store has none, a jump is accepted when it has lasted for
/// [`ACCEPTED_AFTER`], so that a machine continues by itself after it was suspended, or after its clock was set.
pub(crate) struct GuardedClock {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    jumped: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// The wall clock minus the monotonic clock, in milliseconds, as far as it is trusted.
    trusted: Option<i64>,
    jump: Option<Jump>,
    skew: Option<ClockSkew>,
    is_reported: bool,
}

/// A difference to the monotonic clock that is not trusted.
#[derive(Clone, Copy, Debug)]
struct Jump {
    /// The wall clock minus the monotonic clock, in milliseconds.
    offset: i64,
    /// The monotonic clock when the offset was first read.
    since: Duration,
}

/// A disagreement of clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClockFault {
    /// The wall clock jumped by this many milliseconds.
    Jumped(i64),
    /// The wall clock differs from the store's.
    Skewed(ClockSkew),
}

impl GuardedClock {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            state: Mutex::default(),
            jumped: Notify::new(),
        }
    }

    /// The disagreement as of the last reading.
    pub(crate) fn fault(&self) -> Option<ClockFault> {
        self.read();
        let state = *self.lock();
        state.fault()
    }

    /// The later of the trusted time and the wall clock: a deadline counted from it is not too early, even if one of
    /// them is wrong.
    pub(super) fn latest(&self) -> Timestamp {
        self.now().max(self.clock.now())
    }

    /// Waits for a jump.
    pub(super) async fn jumped(&self) {
        self.jumped.notified().await;
    }

    /// Compares the wall clock with the store's, and logs when a disagreement begins and ends.
    pub(super) async fn check(&self, store: &dyn ScheduleStore) -> Result<(), StoreError> {
        let asked = self.clock.now();
        let server = store.server_time().await?;
        self.judge(asked, server);
        Ok(())
    }

    /// Compares a reading of the wall clock, and one of now, with the store's clock in between.
    fn judge(&self, asked: Timestamp, server: Option<Timestamp>) {
        let answered = self.clock.now();
        self.read();
        let offset = self.offset(answered);
        let mut state = self.lock();
        if let Some(server) = server {
            // Before a slow answer the clock may have jumped: such an answer proves no agreement.
            let is_quick = answered.since(asked) <= ClockSkew::ALLOWED;
            match ClockSkew::between(asked, server, answered) {
                None if is_quick => {
                    state.skew = None;
                    state.trusted = offset;
                    state.jump = None;
                }
                None => {}
                skew => state.skew = skew,
            }
        }
        report(&mut state);
    }

    fn offset(&self, wall: Timestamp) -> Option<i64> {
        let monotonic = millis(self.clock.monotonic()?);
        Some(wall.as_millis().saturating_sub(monotonic))
    }

    /// Reads both clocks and takes note of a jump. Returns the trusted time.
    fn read(&self) -> Timestamp {
        let wall = self.clock.now();
        let Some(monotonic) = self.clock.monotonic() else {
            return wall;
        };
        let offset = wall.as_millis().saturating_sub(millis(monotonic));
        let mut state = self.lock();
        let trusted = *state.trusted.get_or_insert(offset);
        if is_close(offset, trusted) {
            state.trusted = Some(offset);
            state.jump = None;
            return wall;
        }
        let same = state.jump.filter(|jump| is_close(offset, jump.offset));
        let jump = same.unwrap_or(Jump {
            offset,
            since: monotonic,
        });
        let lasted = monotonic.saturating_sub(jump.since);
        if lasted >= ACCEPTED_AFTER && state.skew.is_none() {
            state.trusted = Some(offset);
            state.jump = None;
            return wall;
        }
        state.jump = Some(jump);
        if same.is_none() {
            self.jumped.notify_one();
        }
        Timestamp::from_millis(trusted.saturating_add(millis(monotonic)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for GuardedClock {
    fn now(&self) -> Timestamp {
        self.read()
    }

    fn monotonic(&self) -> Option<Duration> {
        self.clock.monotonic()
    }
}

impl State {
    fn fault(&self) -> Option<ClockFault> {
        let jumped = || {
            let by = self.jump?.offset.saturating_sub(self.trusted?);
            Some(ClockFault::Jumped(by))
        };
        self.skew.map(ClockFault::Skewed).or_else(jumped)
    }
}

fn report(state: &mut State) {
    match state.fault() {
        Some(fault) if !state.is_reported => {
            state.is_reported = true;
            observe::event!(
                ERROR,
                error = %fault,
                "clocks disagree: nothing is claimed, fired, expired or purged until they agree"
            );
            let _ = fault;
        }
        None if state.is_reported => {
            state.is_reported = false;
            observe::event!(INFO, "clocks agree again");
        }
        _ => {}
    }
}

fn is_close(one: i64, other: i64) -> bool {
    one.abs_diff(other) <= u64::try_from(FOLLOWED.as_millis()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Display for ClockFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jumped(by) => {
                let direction = if *by > 0 { "ahead" } else { "back" };
                let seconds = by.unsigned_abs() / 1000;
                write!(
                    f,
                    "this machine's clock jumped {direction} by {seconds} s against its monotonic clock"
                )
            }
            Self::Skewed(skew) => skew.fmt(f),
        }
    }
}

impl fmt::Debug for GuardedClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GuardedClock").field(&self.clock).finish()
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
#[path = "guarded_clock_tests.rs"]
mod tests;
