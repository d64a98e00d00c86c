//! A wall clock that a test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};

/// A clock that moves only when it is told to. Clones share the time.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_web_push::clock::{Clock, Timestamp};
/// use tower_web_push::testing::ManualClock;
///
/// let clock = ManualClock::new(Timestamp::from_secs(1_000));
/// clock.advance(Duration::from_secs(5));
/// assert_eq!(clock.clone().now(), Timestamp::from_secs(1_005));
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// Makes a clock that shows `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(now.as_millis())))
    }

    /// Moves the time forward, at most to [`Timestamp::MAX`].
    pub fn advance(&self, by: Duration) {
        let moved = |now| Some((Timestamp::from_millis(now) + by).as_millis());
        // Cannot fail: the closure always returns a value.
        let _ = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, moved);
    }

    /// Sets the time to `now`, which may be earlier.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.as_millis(), Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    /// Shows 2026-01-01T00:00:00Z.
    fn default() -> Self {
        Self::new(Timestamp::from_secs(1_767_225_600))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_time_and_it_stops_at_the_end() {
        let clock = ManualClock::default();
        let same = clock.clone();
        clock.advance(Duration::from_millis(1));
        assert_eq!(same.now(), Timestamp::from_millis(1_767_225_600_001));
        clock.advance(Duration::MAX);
        assert_eq!(same.now(), Timestamp::MAX);
        same.set(Timestamp::from_secs(7));
        assert_eq!(clock.now(), Timestamp::from_secs(7));
    }
}
