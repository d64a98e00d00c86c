//! Recently registered hosts that have never answered: a bounded number per suffix. Pure.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::subscription::Origin;

/// A bounded set of origins whose host is one of any number of names below a suffix. An entry leaves the set when it
/// expires or is freed. `T` is the state of the host.
#[derive(Debug)]
pub(super) struct UnprovenHosts<T>(HashMap<Origin, Place<T>>);

#[derive(Debug)]
struct Place<T> {
    suffix: Box<str>,
    since: Timestamp,
    state: T,
}

/// The set is full; an entry expires after this time at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full(pub(super) Duration);

impl<T> UnprovenHosts<T> {
    /// Hosts below one suffix. WNS has the most real names below one, some dozens.
    pub(super) const PER_SUFFIX: usize = 64;
    /// Hosts in all, for policies that admit any suffix.
    pub(super) const TOTAL: usize = 1024;
    /// A host that has not answered within this time leaves the set.
    pub(super) const KEPT: Duration = Duration::from_secs(3600);

    pub(super) fn new() -> Self {
        Self(HashMap::new())
    }

    /// Removes expired hosts and those for which `is_free` returns true.
    pub(super) fn free(&mut self, now: Timestamp, is_free: impl Fn(&Origin, &T) -> bool) {
        self.0.retain(|origin, place| {
            // A clock that was set back removes it as well: no host depends on its entry.
            let is_old = now < place.since || now.since(place.since) >= Self::KEPT;
            !is_old && !is_free(origin, &place.state)
        });
    }

    /// The state of a host in the set.
    pub(super) fn get(&self, origin: &Origin) -> Option<&T> {
        self.0.get(origin).map(|place| &place.state)
    }

    /// The states of all hosts in the set, each with its suffix.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.values().map(|place| (&*place.suffix, &place.state))
    }

    /// Adds a host.
    ///
    /// # Errors
    ///
    /// [`Full`] if the suffix or the whole set is full.
    pub(super) fn take(
        &mut self,
        origin: &Origin,
        suffix: &str,
        now: Timestamp,
        state: T,
    ) -> Result<(), Full> {
        let of_suffix = |place: &&Place<T>| &*place.suffix == suffix;
        if self.0.values().filter(of_suffix).count() >= Self::PER_SUFFIX {
            return Err(Self::full(self.0.values().filter(of_suffix), now));
        }
        if self.0.len() >= Self::TOTAL {
            return Err(Self::full(self.0.values(), now));
        }
        let place = Place {
            suffix: suffix.into(),
            since: now,
            state,
        };
        self.0.insert(origin.clone(), place);
        Ok(())
    }

    /// The time until the oldest of these entries expires.
    fn full<'a>(places: impl Iterator<Item = &'a Place<T>>, now: Timestamp) -> Full
    where
        T: 'a,
    {
        let oldest = places.map(|place| now.since(place.since)).max();
        Full(Self::KEPT.saturating_sub(oldest.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const START: Timestamp = Timestamp::from_secs(1_000_000);

    fn origin(number: usize, suffix: &str) -> Origin {
        Origin::parse(&format!("https://h{number}.{suffix}")).unwrap()
    }

    fn take(
        hosts: &mut UnprovenHosts<()>,
        number: usize,
        suffix: &str,
        now: Timestamp,
    ) -> Option<Full> {
        hosts.take(&origin(number, suffix), suffix, now, ()).err()
    }

    #[test]
    fn a_suffix_has_64_places_and_leaves_the_others_theirs() {
        let mut hosts = UnprovenHosts::new();
        for number in 0..64 {
            assert_eq!(take(&mut hosts, number, "a.example", START), None);
        }
        let full = take(&mut hosts, 64, "a.example", START + MINUTE);
        assert_eq!(full, Some(Full(59 * MINUTE)));
        assert_eq!(take(&mut hosts, 64, "b.example", START), None);
    }

    #[test]
    fn there_are_1024_places_in_all() {
        let mut hosts = UnprovenHosts::new();
        for number in 0..1024 {
            let now = START + MINUTE * u32::from(number >= 512);
            let suffix = format!("s{}.example", number / 64);
            assert_eq!(take(&mut hosts, number, &suffix, now), None);
        }
        let full = take(&mut hosts, 0, "another.example", START + MINUTE);
        assert_eq!(full, Some(Full(59 * MINUTE)));
    }

    #[test]
    fn a_place_is_given_back_after_an_hour_or_when_it_is_freed() {
        let mut hosts = UnprovenHosts::new();
        for number in 0..64 {
            take(&mut hosts, number, "a.example", START);
        }
        let freed = origin(7, "a.example");
        hosts.free(START + MINUTE, |origin, ()| *origin == freed);
        assert!(hosts.get(&freed).is_none() && hosts.get(&origin(8, "a.example")).is_some());
        assert_eq!(take(&mut hosts, 64, "a.example", START + MINUTE), None);
        assert!(take(&mut hosts, 65, "a.example", START + MINUTE).is_some());
        hosts.free(START + 60 * MINUTE, |_, ()| false);
        assert_eq!(hosts.iter().count(), 1, "the one that is younger");
        hosts.free(START, |_, ()| false);
        assert_eq!(hosts.iter().count(), 0, "a clock that was set back");
    }
}
