//! Who is dead, from the beats that the server has confirmed. No I/O, no clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use super::{Other, WorkerId};
use crate::clock::Timestamp;

/// A worker that was silent for so long is dead.
pub(crate) const GRACE: Duration = Duration::from_secs(3);
/// The longest time between two of one's own beats while others can be judged.
const GAP: Duration = Duration::from_secs(1);
/// More than there are in the time that counts.
const KEPT: usize = 64;

/// A moment by both clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(super) monotonic: Instant,
    pub(super) wall: SystemTime,
}

impl Moment {
    pub(crate) fn now() -> Self {
        #[cfg(test)]
        if let Some(simulated) = simulated::now() {
            return simulated;
        }
        Self {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// Reads both clocks of this thread from a clock from now on, for a simulation.
    #[cfg(test)]
    pub(crate) fn simulate(clock: std::sync::Arc<dyn crate::clock::Clock>) {
        simulated::begin(clock);
    }

    /// The time since an earlier moment: the longer one of both clocks. A machine that sleeps stops its monotonic clock, and
    /// a wall clock may be set back.
    pub(super) fn since(self, earlier: Self) -> Duration {
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        let monotonic = self.monotonic.saturating_duration_since(earlier.monotonic);
        monotonic.max(wall)
    }
}

/// Clocks of a simulation, by thread.
#[cfg(test)]
mod simulated {
    use std::cell::RefCell;
    use std::sync::Arc;
    use std::time::{Duration, Instant, SystemTime};

    use super::Moment;
    use crate::clock::Clock;

    thread_local! {
        static CLOCK: RefCell<Option<(Instant, Arc<dyn Clock>)>> = const { RefCell::new(None) };
    }

    pub(super) fn begin(clock: Arc<dyn Clock>) {
        CLOCK.with_borrow_mut(|simulated| {
            let base = simulated.take().map_or_else(Instant::now, |(base, _)| base);
            *simulated = Some((base, clock));
        });
    }

    pub(super) fn now() -> Option<Moment> {
        CLOCK.with_borrow(|simulated| {
            let (base, clock) = simulated.as_ref()?;
            let millis = u64::try_from(clock.now().as_millis()).ok()?;
            Some(Moment {
                monotonic: *base + clock.monotonic()?,
                wall: SystemTime::UNIX_EPOCH + Duration::from_millis(millis),
            })
        })
    }
}

/// A beat of this worker that the server has confirmed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat {
    /// When it was sent: not later than the server's time of it.
    pub(super) sent: Moment,
    /// Its time on the server's clock.
    pub(super) at: Timestamp,
}

/// The last beats of this worker, in their order.
#[derive(Debug, Default)]
pub(crate) struct Beats(VecDeque<Beat>);

impl Beats {
    pub(super) fn push(&mut self, beat: Beat) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(beat);
    }

    pub(super) fn last(&self) -> Option<Beat> {
        self.0.back().copied()
    }

    /// A worker whose last beat is before this moment of the server's clock is dead. `None` while none can be judged.
    ///
    /// All workers beat at one server. If it stood still, was restarted or out of reach, or its clock was set, then the
    /// own beats have a gap too, and no silence means anything until a time without a gap has passed. The moment
    /// depends on the last own beat and not on the current time: whatever has happened since then is not counted.
    pub(crate) fn horizon(&self) -> Option<Timestamp> {
        let last = self.last()?;
        let mut later = last;
        for beat in self.0.iter().rev().skip(1) {
            if later.sent.since(beat.sent) > GAP
                || later.at.since(beat.at) > GAP
                || later.at < beat.at
            {
                return None;
            }
            if last.sent.since(beat.sent) >= GRACE && last.at.since(beat.at) >= GRACE {
                return Some(last.at - GRACE);
            }
            later = *beat;
        }
        None
    }

    /// Those among other workers that are dead: marked as such, or silent for too long.
    pub(super) fn dead_of(&self, others: &[Other]) -> Vec<WorkerId> {
        let horizon = self.horizon();
        let is_silent = |other: &Other| horizon.is_some_and(|horizon| other.beat_at < horizon);
        let dead = others
            .iter()
            .filter(|other| other.is_dead || is_silent(other));
        dead.map(|other| other.id).collect()
    }
}

#[cfg(test)]
#[path = "beats_tests.rs"]
mod tests;
