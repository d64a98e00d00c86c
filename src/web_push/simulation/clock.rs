//! The clocks of a machine.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::world::START;
use crate::clock::{Clock, Timestamp};

/// The clocks that one replica sees. They are read within its runtime, whose time they follow.
#[derive(Debug)]
pub(super) struct HostClock {
    /// When its runtime began.
    began: Instant,
    /// The true time then.
    born: Duration,
    /// For how long the machine slept since.
    slept_millis: AtomicU64,
    /// What its wall clock is wrong by.
    wrong_by_millis: AtomicI64,
}

impl HostClock {
    /// Called within the runtime.
    pub(super) fn start(born: Duration, wrong_by_millis: i64) -> Self {
        Self {
            began: Instant::now(),
            born,
            slept_millis: AtomicU64::new(0),
            wrong_by_millis: AtomicI64::new(wrong_by_millis),
        }
    }

    /// The true time, since the start of the run.
    pub(super) fn true_now(&self) -> Duration {
        self.born + self.slept() + self.began.elapsed()
    }

    /// When the runtime's time is that of a true time.
    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.began + at.saturating_sub(self.born + self.slept())
    }

    pub(super) fn sleep(&self, lasts: Duration) {
        let millis = u64::try_from(lasts.as_millis()).unwrap();
        self.slept_millis.fetch_add(millis, Relaxed);
    }

    pub(super) fn set_wrong_by(&self, millis: i64) {
        self.wrong_by_millis.store(millis, Relaxed);
    }

    fn slept(&self) -> Duration {
        Duration::from_millis(self.slept_millis.load(Relaxed))
    }
}

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        let right = START + self.true_now();
        Timestamp::from_millis(right.as_millis() + self.wrong_by_millis.load(Relaxed))
    }

    fn monotonic(&self) -> Option<Duration> {
        Some(self.born + self.began.elapsed())
    }
}
