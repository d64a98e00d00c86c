//! Log lines that would repeat: the first of each kind, then one a minute with the number of the others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The time between two lines of one kind.
const EVERY: Duration = Duration::from_secs(60);
/// The most kinds: those that others can cause, such as their addresses, must not fill the log or the memory.
const KINDS: usize = 64;

/// Events by kind, of which the log is told.
#[derive(Debug)]
pub(crate) struct Folded<K>(Mutex<HashMap<Option<K>, Kind>>);

#[derive(Debug)]
struct Kind {
    told: Instant,
    /// Events since the last line.
    untold: u64,
}

/// What a line says: the kind, `None` for all that are beyond the most, and the number of events since the last line.
pub(crate) type Told<K> = (Option<K>, u64);

impl<K> Default for Folded<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash> Folded<K> {
    /// Adds an event. Returns the line that is due.
    pub(crate) fn add(&self, kind: K) -> Option<Told<K>> {
        self.add_at(kind, Instant::now())
    }

    /// Takes the lines that are due without another event: those of kinds that were added in the last minute and not told.
    pub(crate) fn due(&self) -> Vec<Told<K>> {
        self.due_at(Instant::now())
    }

    fn add_at(&self, kind: K, now: Instant) -> Option<Told<K>> {
        let mut kinds = self.lock();
        let is_known = kinds.contains_key(&Some(kind.clone()));
        if !is_known && kinds.len() >= KINDS {
            kinds.retain(|_, kind| now < kind.told + EVERY || kind.untold > 0);
        }
        let kind = (is_known || kinds.len() < KINDS).then_some(kind);
        let Some(known) = kinds.get_mut(&kind) else {
            kinds.insert(
                kind.clone(),
                Kind {
                    told: now,
                    untold: 0,
                },
            );
            return Some((kind, 1));
        };
        known.untold += 1;
        if now < known.told + EVERY {
            return None;
        }
        known.told = now;
        Some((kind, std::mem::take(&mut known.untold)))
    }

    fn due_at(&self, now: Instant) -> Vec<Told<K>> {
        let mut kinds = self.lock();
        if kinds.is_empty() {
            return Vec::new();
        }
        // A kind that was quiet for a minute begins anew.
        kinds.retain(|_, kind| now < kind.told + EVERY || kind.untold > 0);
        let due = kinds
            .iter_mut()
            .filter(|(_, kind)| kind.untold > 0 && now >= kind.told + EVERY);
        due.map(|(name, kind)| {
            kind.told = now;
            (name.clone(), std::mem::take(&mut kind.untold))
        })
        .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<K>, Kind>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn the_first_is_told_and_the_others_once_a_minute() {
        let (folded, start) = (Folded::default(), Instant::now());
        let told: Vec<_> = (0..=150)
            .filter_map(|at| Some((at, folded.add_at("gone", start + secs(at))?.1)))
            .collect();
        assert_eq!(told, [(0, 1), (60, 60), (120, 60)]);
        assert_eq!(
            folded.add_at("limited", start + secs(150)),
            Some((Some("limited"), 1))
        );
        assert_eq!(folded.due_at(start + secs(179)), []);
        assert_eq!(
            folded.due_at(start + secs(180)),
            [(Some("gone"), 30)],
            "without another event"
        );
        assert_eq!(folded.due_at(start + secs(240)), []);
        assert_eq!(
            folded.add_at("gone", start + secs(241)),
            Some((Some("gone"), 1)),
            "anew"
        );
    }

    #[test]
    fn the_number_of_kinds_has_a_bound() {
        let (folded, start) = (Folded::default(), Instant::now());
        let told = (0..1_000).filter(|kind| folded.add_at(*kind, start).is_some());
        assert_eq!(told.count(), KINDS + 1, "one line for all others");
        assert!(folded.lock().len() <= KINDS + 1);
        let mut due = folded.due_at(start + secs(60));
        assert_eq!(due.pop(), Some((None, 1_000 - KINDS as u64 - 1)));
        assert_eq!(due, []);
        assert_eq!(
            folded.add_at(2_000, start + secs(120)),
            Some((Some(2_000), 1)),
            "room again"
        );
    }
}
