//! Broadcasts that this process has sent a part of: the log tells the end of each with its counts.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use crate::broadcast::{BroadcastId, BroadcastState, BroadcastStatus};
use crate::observe;
use crate::store::{StoreError, StoreErrorKind};

/// Broadcasts of which this process has finished fewer recipients are not told of: a message to one user would be a line.
const TOLD_FROM: u64 = 10;
/// The most broadcasts that are followed. Of more the log does not tell the end.
const FOLLOWED: usize = 1024;
/// A broadcast is asked for when nothing of it was finished for this time, and then after pauses that double to the longest.
const QUIET: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// The broadcasts that are followed.
#[derive(Debug, Default)]
pub(crate) struct Endings(Mutex<HashMap<BroadcastId, Followed>>);

#[derive(Debug)]
struct Followed {
    /// Recipients that this process has finished.
    recipients: u64,
    asked_at: Instant,
    pause: Duration,
}

impl Endings {
    /// Notes that recipients of a broadcast are finished.
    pub(super) fn note(&self, id: BroadcastId, recipients: u64, now: Instant) {
        let mut followed = self.lock();
        if followed.len() >= FOLLOWED && !followed.contains_key(&id) {
            followed.retain(|_, one| one.recipients >= TOLD_FROM || now < one.asked_at);
            if followed.len() >= FOLLOWED {
                return;
            }
        }
        let one = followed.entry(id).or_insert(Followed {
            recipients: 0,
            asked_at: now,
            pause: QUIET,
        });
        one.recipients += recipients;
        one.pause = QUIET;
        one.asked_at = now + QUIET;
    }

    /// Whether there are broadcasts to ask for, soon.
    pub(super) fn is_waiting(&self) -> bool {
        let followed = self.lock();
        followed
            .values()
            .any(|one| one.recipients >= TOLD_FROM && one.pause == QUIET)
    }

    /// The broadcasts to ask for now. Small ones are forgotten.
    fn due(&self, now: Instant) -> Vec<BroadcastId> {
        let mut followed = self.lock();
        followed.retain(|_, one| one.recipients >= TOLD_FROM || now < one.asked_at);
        let due = followed.iter_mut().filter(|(_, one)| one.asked_at <= now);
        due.map(|(id, one)| {
            one.pause = (2 * one.pause).min(LONGEST);
            one.asked_at = now + one.pause;
            *id
        })
        .collect()
    }

    fn forget(&self, id: &BroadcastId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BroadcastId, Followed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Tells of the broadcasts that are over.
    pub(super) async fn tell_endings(&self) -> Result<(), StoreError> {
        let mut failed = Ok(());
        for id in self.signals.endings.due(Instant::now()) {
            match self.status(id).await {
                Ok(Some(status)) if status.is_over() => tell(&status),
                Ok(Some(_)) => continue,
                Ok(None) => {}
                // One that cannot be read does not keep the others from being told, and does not get better.
                Err(error) => {
                    let is_corrupt = error.kind() == StoreErrorKind::Corrupt;
                    failed = Err(error);
                    if !is_corrupt {
                        continue;
                    }
                }
            }
            self.signals.endings.forget(&id);
        }
        failed
    }
}

fn tell(status: &BroadcastStatus) {
    let counts = &status.counts;
    let state = match status.state {
        BroadcastState::Cancelled => "cancelled",
        _ => "done",
    };
    observe::event!(
        INFO,
        broadcast = %status.id,
        state,
        recipients = status.recipients,
        accepted = counts.accepted,
        gone = counts.gone,
        key_mismatch = counts.key_mismatch,
        sender_fault = counts.sender_fault,
        too_large = counts.too_large,
        bad_request = counts.bad_request,
        refused = counts.refused,
        expired = counts.expired,
        failed = counts.failed,
        cancelled = counts.cancelled,
        "broadcast over"
    );
    let _ = (counts, state);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broadcast_is_asked_for_when_it_is_quiet_and_then_ever_less_often() {
        let (endings, start) = (Endings::default(), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        let (large, small) = (BroadcastId::random(), BroadcastId::random());
        endings.note(large, 8, at(0));
        endings.note(small, 9, at(0));
        assert!(!endings.is_waiting());
        endings.note(large, 2, at(1));
        assert!(endings.is_waiting());
        assert_eq!(endings.due(at(1)), [], "not quiet yet");
        let asked: Vec<_> = (2..130)
            .filter(|secs| !endings.due(at(*secs)).is_empty())
            .collect();
        assert_eq!(asked, [2, 4, 8, 16, 32, 64, 124]);
        assert!(!endings.is_waiting());
        assert_eq!(endings.lock().len(), 1, "the small one is forgotten");
        endings.note(large, 1, at(130));
        assert_eq!(endings.due(at(131)), [large], "sent once more");
        endings.forget(&large);
        assert_eq!(endings.due(at(1_000)), []);
    }

    #[test]
    fn the_number_of_broadcasts_has_a_bound() {
        let (endings, start) = (Endings::default(), Instant::now());
        for _ in 0..2 * FOLLOWED {
            endings.note(BroadcastId::random(), 1, start);
        }
        assert_eq!(endings.lock().len(), FOLLOWED);
        let large = BroadcastId::random();
        endings.note(large, 100, start + QUIET);
        assert_eq!(
            endings.due(start + 2 * QUIET),
            [large],
            "small ones make room"
        );
    }
}
