//! Log lines of what took unusually long: the first of each kind, then one a minute with the number and the longest.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Folded, Told};

/// Events that took unusually long, by kind, of which the log is told.
#[derive(Debug)]
pub(crate) struct Lasting<K> {
    /// The longest since the last line of each kind.
    longest: Mutex<HashMap<K, Duration>>,
    folded: Folded<K>,
}

/// What a line says: the kind and the number of events as [`Told`] has them, and the longest of them.
pub(crate) type ToldOfLasting<K> = (Told<K>, Duration);

impl<K> Default for Lasting<K> {
    fn default() -> Self {
        Self {
            longest: Mutex::default(),
            folded: Folded::default(),
        }
    }
}

impl<K: Copy + Eq + Hash> Lasting<K> {
    /// Adds an event. Returns the line that is due.
    pub(crate) fn add(&self, kind: K, took: Duration) -> Option<ToldOfLasting<K>> {
        let mut longest = self.lock();
        let known = longest.entry(kind).or_default();
        *known = took.max(*known);
        let told = self.folded.add(kind)?;
        Some(with_longest(&mut longest, told))
    }

    /// Takes the lines that are due without another event.
    pub(crate) fn due(&self) -> Vec<ToldOfLasting<K>> {
        let mut longest = self.lock();
        if longest.is_empty() {
            return Vec::new();
        }
        let due = self.folded.due().into_iter();
        due.map(|told| with_longest(&mut longest, told)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Duration>> {
        self.longest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kinds are names of a closed set, fewer than [`Folded`] keeps apart: none is told as one of the others.
fn with_longest<K: Copy + Eq + Hash>(
    longest: &mut HashMap<K, Duration>,
    told: Told<K>,
) -> ToldOfLasting<K> {
    let took = told.0.and_then(|kind| longest.remove(&kind));
    (told, took.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_line_has_the_longest_since_the_last_one() {
        let (lasting, secs) = (Lasting::default(), Duration::from_secs);
        let first = lasting.add("claim", secs(2));
        assert_eq!(first, Some(((Some("claim"), 1), secs(2))));
        for took in [3, 9, 4] {
            assert_eq!(lasting.add("claim", secs(took)), None);
        }
        let other = lasting.add("settle", secs(1));
        assert_eq!(other, Some(((Some("settle"), 1), secs(1))));
        assert_eq!(lasting.due(), []);
        advance(secs(60)).await;
        assert_eq!(lasting.due(), [((Some("claim"), 3), secs(9))]);
        assert_eq!(lasting.due(), []);
        assert_eq!(lasting.add("claim", secs(5)), None);
        advance(secs(60)).await;
        let next = lasting.add("claim", secs(1));
        assert_eq!(next, Some(((Some("claim"), 2), secs(5))), "anew");
    }
}
