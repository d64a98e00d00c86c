//! Messages that wait because the store cannot read their subscription.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;

/// The time between two attempts to read a subscription that the store cannot read.
pub(super) const UNREADABLE_PAUSE: Duration = Duration::from_secs(300);
/// Deferrals within this time are counted together, which bounds the number of counts.
const TOGETHER: Duration = Duration::from_secs(1);

/// The deferrals of this process within one pause: about the number of messages that wait.
#[derive(Debug, Default)]
pub(crate) struct Unreadable(Mutex<VecDeque<(Timestamp, usize)>>);

impl Unreadable {
    /// Counts a message that is deferred. Returns when it is due again.
    pub(super) fn defer(&self, now: Timestamp) -> Timestamp {
        let mut counts = self.current(now);
        match counts.back_mut() {
            Some((at, count)) if now.since(*at) < TOGETHER => *count += 1,
            _ => counts.push_back((now, 1)),
        }
        now + UNREADABLE_PAUSE
    }

    /// The number of messages deferred within one pause before `now`.
    #[cfg_attr(
        not(any(feature = "api", feature = "metrics")),
        expect(dead_code, reason = "the HTTP API shows it")
    )]
    pub(crate) fn len(&self, now: Timestamp) -> usize {
        self.current(now).iter().map(|(_, count)| count).sum()
    }

    /// The counts, without those of another pause. A clock that was set back leaves none behind.
    fn current(&self, now: Timestamp) -> MutexGuard<'_, VecDeque<(Timestamp, usize)>> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.retain(|(at, _)| *at <= now && now.since(*at) < UNREADABLE_PAUSE);
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_counted_until_it_is_due_again() {
        let (unreadable, now) = (Unreadable::default(), Timestamp::from_secs(1_800_000_000));
        let millis = Duration::from_millis;
        assert_eq!(unreadable.len(now), 0);
        for step in 0..400 {
            let at = now + millis(100) * step;
            assert_eq!(unreadable.defer(at), at + UNREADABLE_PAUSE);
        }
        let entries = unreadable.0.lock().unwrap().len();
        assert_eq!(entries, 40, "one for each second");
        let last = now + millis(39_900);
        assert_eq!(unreadable.len(last), 400);
        assert_eq!(unreadable.len(now + UNREADABLE_PAUSE - millis(1)), 400);
        assert_eq!(unreadable.len(now + UNREADABLE_PAUSE), 390);
        assert_eq!(unreadable.len(now - millis(1)), 0, "the clock was set back");
    }
}
