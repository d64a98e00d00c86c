//! Broadcasts of which this process has written, sent or cancelled a part: the log tells the end of each with its counts, also
//! if it expires, or other processes send it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use crate::broadcast::{BroadcastId, BroadcastState, BroadcastStatus};
use crate::observe;
use crate::store::{StoreError, StoreErrorKind};

/// Broadcasts of which this process has written and finished fewer recipients are not told of: a message to one user would be
/// a line.
const TOLD_FROM: u64 = 10;
/// The most broadcasts that are followed. Of more the log does not tell the end.
const FOLLOWED: usize = 1024;
/// A broadcast is asked for when nothing of it was finished for this time, and then after pauses that double to the longest.
const QUIET: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// The broadcasts that are followed.
#[derive(Debug, Default)]
pub(crate) struct Endings(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    of: HashMap<BroadcastId, Followed>,
    /// How many were followed so far.
    number: u64,
    /// When small ones last made room.
    swept: Option<Instant>,
}

impl All {
    /// Forgets small broadcasts of which nothing was finished lately.
    fn sweep(&mut self, now: Instant) {
        self.swept = Some(now);
        let is_kept = |one: &Followed| one.is_large() || now < one.asked_at;
        self.of.retain(|_, one| is_kept(one));
    }
}

#[derive(Debug)]
struct Followed {
    /// Its place in the order in which broadcasts are asked for: that in which they were met.
    number: u64,
    /// Recipients that this process has written, and those that it has finished.
    written: u64,
    finished: u64,
    asked_at: Instant,
    pause: Duration,
}

impl Followed {
    const fn is_large(&self) -> bool {
        self.written >= TOLD_FROM || self.finished >= TOLD_FROM
    }
}

impl Endings {
    /// Notes that recipients of a broadcast are written.
    pub(super) fn note_written(&self, id: BroadcastId, recipients: u64, now: Instant) {
        self.add(id, (recipients, 0), now);
    }

    /// Notes that recipients of a broadcast are finished.
    pub(super) fn note(&self, id: BroadcastId, recipients: u64, now: Instant) {
        self.add(id, (0, recipients), now);
    }

    /// Takes a short time, however many broadcasts there are.
    fn add(&self, id: BroadcastId, (written, finished): (u64, u64), now: Instant) {
        let mut followed = self.lock();
        if followed.of.len() >= FOLLOWED && !followed.of.contains_key(&id) {
            if followed.swept.is_none_or(|swept| now >= swept + QUIET) {
                followed.sweep(now);
            }
            if followed.of.len() >= FOLLOWED {
                return;
            }
        }
        followed.number += 1;
        let number = followed.number;
        let one = followed.of.entry(id).or_insert(Followed {
            number,
            written: 0,
            finished: 0,
            asked_at: now,
            pause: QUIET,
        });
        one.written += written;
        one.finished += finished;
        one.pause = QUIET;
        one.asked_at = now + QUIET;
    }

    /// Whether there are broadcasts to ask for, soon.
    pub(super) fn is_waiting(&self) -> bool {
        let followed = self.lock();
        followed
            .of
            .values()
            .any(|one| one.is_large() && one.pause == QUIET)
    }

    /// The broadcasts to ask for now. Small ones are forgotten.
    fn due(&self, now: Instant) -> Vec<BroadcastId> {
        let mut followed = self.lock();
        followed.sweep(now);
        let all = followed.of.iter_mut();
        let mut due: Vec<_> = all.filter(|(_, one)| one.asked_at <= now).collect();
        due.sort_by_key(|(_, one)| one.number);
        let asked = due.into_iter().map(|(id, one)| {
            one.pause = (2 * one.pause).min(LONGEST);
            one.asked_at = now + one.pause;
            *id
        });
        asked.collect()
    }

    fn forget(&self, id: &BroadcastId) {
        self.lock().of.remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, All> {
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
        endings.note_written(small, 9, at(0));
        assert!(!endings.is_waiting());
        endings.note(large, 2, at(1));
        assert!(endings.is_waiting());
        assert_eq!(endings.due(at(1)), [], "not quiet yet");
        let asked: Vec<_> = (2..130)
            .filter(|secs| !endings.due(at(*secs)).is_empty())
            .collect();
        assert_eq!(asked, [2, 4, 8, 16, 32, 64, 124]);
        assert!(!endings.is_waiting());
        assert_eq!(endings.lock().of.len(), 1, "the small one is forgotten");
        endings.note(large, 1, at(130));
        assert_eq!(endings.due(at(131)), [large], "sent once more");
        endings.forget(&large);
        assert_eq!(endings.due(at(1_000)), []);
    }

    /// In the order of a map each process would ask for them in another one, and a simulation could not be repeated.
    #[test]
    fn broadcasts_are_asked_for_in_the_order_in_which_they_were_met() {
        let (endings, start) = (Endings::default(), Instant::now());
        let met: Vec<_> = (0..50).map(|_| BroadcastId::random()).collect();
        for id in met.iter().chain(met.iter().rev()) {
            endings.note(*id, TOLD_FROM, start);
        }
        assert_eq!(endings.due(start + QUIET), met);
    }

    #[test]
    fn the_number_of_broadcasts_has_a_bound() {
        let (endings, start) = (Endings::default(), Instant::now());
        for _ in 0..2 * FOLLOWED {
            endings.note(BroadcastId::random(), 1, start);
        }
        assert_eq!(endings.lock().of.len(), FOLLOWED);
        let looks = (0..100).map(|millis| start + Duration::from_millis(9 * millis));
        for now in looks {
            endings.note(BroadcastId::random(), 1, now);
        }
        assert_eq!(endings.lock().swept, Some(start), "one look in a second");
        let large = BroadcastId::random();
        endings.note(large, 100, start + QUIET);
        assert_eq!(
            endings.due(start + 2 * QUIET),
            [large],
            "small ones make room"
        );
    }
}
