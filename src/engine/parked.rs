//! Broadcasts that cannot be read or expanded. They are retried slowly, and hold up no others.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::broadcast::BroadcastId;
use crate::clock::Timestamp;
use crate::observe;
use crate::store::{StoreError, StoreErrorKind};

/// The first and the longest pause of a broadcast that the store cannot read: it needs an operator, or another version.
const UNREADABLE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// The first and the longest pause after any other error, which usually is the store's and ends by itself.
const UNAVAILABLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// The parked broadcasts of this process.
#[derive(Debug, Default)]
pub(crate) struct Parked(Mutex<HashMap<BroadcastId, Entry>>);

#[cfg_attr(
    not(feature = "api"),
    expect(dead_code, reason = "the HTTP API shows it")
)]
#[derive(Debug)]
struct Entry {
    until: Timestamp,
    pause: Duration,
    /// How often it was parked in a row since it cannot be read.
    times: u32,
    error: String,
    is_reported: bool,
}

/// A parked broadcast, for `GET /stats`.
#[cfg(feature = "api")]
#[derive(Clone, Debug)]
pub(crate) struct ParkedBroadcast {
    pub(crate) id: BroadcastId,
    pub(crate) until: Timestamp,
    pub(crate) error: String,
}

impl Parked {
    /// Parks a broadcast, each time for twice as long. Returns when it is retried.
    pub(super) fn park(&self, id: BroadcastId, error: &StoreError, now: Timestamp) -> Timestamp {
        let is_unreadable = error.kind() == StoreErrorKind::Corrupt;
        let (first, longest) = if is_unreadable {
            UNREADABLE
        } else {
            UNAVAILABLE
        };
        let mut entries = self.lock();
        forget_old(&mut entries, now);
        let pause = entries
            .get(&id)
            .map_or(first, |entry| (2 * entry.pause).clamp(first, longest));
        let before = entries.get(&id).filter(|_| is_unreadable);
        let times = before.map_or(0, |entry| entry.times);
        let was_reported = entries.get(&id).is_some_and(|entry| entry.is_reported);
        if is_unreadable && !was_reported {
            observe::event!(
                ERROR,
                broadcast = %id,
                error = %observe::causes(error),
                "broadcast parked: the store cannot read it; it is retried until its deadline"
            );
        }
        let until = now + pause;
        entries.insert(
            id,
            Entry {
                until,
                pause,
                times: times.saturating_add(u32::from(is_unreadable)),
                error: error.to_string(),
                is_reported: is_unreadable || was_reported,
            },
        );
        until
    }

    /// When to retry a row whose broadcast's message cannot be read. Parks the broadcast unless it is parked.
    pub(super) fn later(&self, id: BroadcastId, now: Timestamp) -> Timestamp {
        if self.is_parked(&id, now)
            && let Some(entry) = self.lock().get(&id)
        {
            return entry.until;
        }
        self.park(id, &StoreErrorKind::Corrupt.into(), now)
    }

    /// Forgets that a broadcast was parked: it could be read.
    pub(super) fn unpark(&self, id: &BroadcastId) {
        if let Some(entry) = self.lock().remove(id)
            && entry.is_reported
        {
            observe::event!(INFO, broadcast = %id, "parked broadcast continues");
        }
    }

    pub(super) fn is_parked(&self, id: &BroadcastId, now: Timestamp) -> bool {
        self.lock().get(id).is_some_and(|entry| {
            // A longer pause than any means that the clock was set back.
            entry.until > now && entry.until.since(now) <= UNREADABLE.1
        })
    }

    /// Whether it was parked lately, also if its pause is over.
    pub(super) fn knows(&self, id: &BroadcastId) -> bool {
        self.lock().contains_key(id)
    }

    /// How often it was parked in a row since it cannot be read. A store that is unavailable in between begins anew.
    pub(super) fn times(&self, id: &BroadcastId) -> u32 {
        self.lock().get(id).map_or(0, |entry| entry.times)
    }

    pub(crate) fn len(&self, now: Timestamp) -> usize {
        let mut entries = self.lock();
        forget_old(&mut entries, now);
        entries.len()
    }

    /// Some of the parked broadcasts.
    #[cfg(feature = "api")]
    pub(crate) fn list(&self, limit: usize, now: Timestamp) -> Vec<ParkedBroadcast> {
        let mut entries = self.lock();
        forget_old(&mut entries, now);
        let parked = entries.iter().take(limit);
        parked
            .map(|(id, entry)| ParkedBroadcast {
                id: *id,
                until: entry.until,
                error: entry.error.clone(),
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BroadcastId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A broadcast that is not parked again is readable or over, though no call has said so: another process may have read it.
fn forget_old(entries: &mut HashMap<BroadcastId, Entry>, now: Timestamp) {
    entries.retain(|_, entry| now.since(entry.until) <= 2 * entry.pause);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    #[test]
    fn the_pause_doubles_to_its_longest_and_starts_again_after_a_success() {
        let parked = Parked::default();
        let id = BroadcastId::random();
        let corrupt = StoreError::from(StoreErrorKind::Corrupt);
        let mut now = NOW;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let until = parked.park(id, &corrupt, now);
            assert!(parked.is_parked(&id, now) && !parked.is_parked(&id, until));
            pauses.push(until.since(now).as_secs());
            now = until;
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(parked.times(&id), 8);
        parked.unpark(&id);
        assert_eq!(parked.times(&id), 0);
        assert_eq!(parked.park(id, &corrupt, now), now + UNREADABLE.0);
        let other = BroadcastId::random();
        let unavailable = StoreError::from(StoreErrorKind::Unavailable);
        assert_eq!(parked.park(other, &unavailable, now), now + UNAVAILABLE.0);
        assert_eq!(parked.len(now), 2);
    }

    #[test]
    fn a_clock_that_was_set_back_parks_no_broadcast_for_longer() {
        let parked = Parked::default();
        let (id, corrupt) = (BroadcastId::random(), StoreErrorKind::Corrupt.into());
        let until = parked.park(id, &corrupt, NOW);
        let earliest = until - UNREADABLE.1;
        assert!(parked.is_parked(&id, earliest));
        assert!(!parked.is_parked(&id, earliest - Duration::from_millis(1)));
    }

    #[test]
    fn a_broadcast_that_does_not_come_back_is_forgotten() {
        let parked = Parked::default();
        let error = StoreError::from(StoreErrorKind::Corrupt);
        let until = parked.park(BroadcastId::random(), &error, NOW);
        let later = until + 2 * UNREADABLE.0 + Duration::from_millis(1);
        assert_eq!(parked.len(until), 1);
        assert_eq!(parked.len(later), 0);
        parked.park(BroadcastId::random(), &error, later);
        assert_eq!(parked.len(later), 1);
    }
}
