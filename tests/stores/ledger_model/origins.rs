//! Pauses and tallies of origins.

use std::collections::BTreeMap;

use tower_web_push::clock::Timestamp;
use tower_web_push::store::{ClaimToken, Pause, Tally};
use tower_web_push::subscription::Origin;

#[derive(Default)]
pub(crate) struct Origins {
    known: BTreeMap<Origin, Known>,
}

#[derive(Default)]
struct Known {
    pause: Option<Pause>,
    /// The probe of the pause.
    probe: Option<ClaimToken>,
    tally: Tally,
    tallied_at: Option<Timestamp>,
}

impl Origins {
    pub(crate) fn pause(&mut self, new: &Pause, now: Timestamp) {
        let known = self.known.entry(new.origin.clone()).or_default();
        known.probe = None;
        let stored = &mut known.pause;
        if new.until <= now {
            *stored = None;
            return;
        }
        let Some(old) = stored.take().filter(|old| is_on(old, now)) else {
            *stored = Some(new.clone());
            return;
        };
        // A probed reason outlives a plain one. Otherwise the later end holds.
        let rank = |pause: &Pause| (pause.reason.is_probed(), pause.until);
        let (mut kept, other) = if rank(new) > rank(&old) {
            (new.clone(), old)
        } else {
            (old, new.clone())
        };
        kept.until = kept.until.max(other.until);
        if kept.reason == other.reason {
            kept.closures = kept.closures.max(other.closures);
        }
        *stored = Some(kept);
    }

    /// Sorted by origin.
    pub(crate) fn pauses(&self, now: Timestamp) -> Vec<Pause> {
        let pauses = self.known.values().filter_map(|one| one.pause.clone());
        pauses.filter(|pause| is_on(pause, now)).collect()
    }

    pub(crate) fn paused_until(&self, origin: &Origin) -> Timestamp {
        let pause = self.known.get(origin).and_then(|one| one.pause.as_ref());
        pause.map_or(Timestamp::MIN, |pause| pause.until)
    }

    /// The number of rows that may be claimed at once.
    pub(crate) fn most(&self, origin: &Origin) -> usize {
        let pause = self.known.get(origin).and_then(|one| one.pause.as_ref());
        match pause {
            Some(pause) if pause.reason.is_probed() => 1,
            _ => usize::MAX,
        }
    }

    /// Records claimed rows. If one is the probe, there is no other until its lease ends.
    pub(crate) fn claimed(&mut self, origin: &Origin, token: ClaimToken, until: Timestamp) {
        let Some(known) = self.known.get_mut(origin) else {
            return;
        };
        if let Some(pause) = known.pause.as_mut().filter(|one| one.reason.is_probed()) {
            pause.until = until;
            known.probe = Some(token);
        }
    }

    /// Records a settled or released row. If it was the probe, the next one may follow.
    pub(crate) fn ended(&mut self, token: &ClaimToken, now: Timestamp) {
        for known in self.known.values_mut() {
            if known.probe.as_ref() == Some(token) {
                known.probe = None;
                if let Some(pause) = &mut known.pause {
                    pause.until = now;
                }
            }
        }
    }

    pub(crate) fn tally(&mut self, origin: &Origin, new: Tally, now: Timestamp) -> Tally {
        let known = self.known.entry(origin.clone()).or_default();
        if new != Tally::default() {
            known.tally = known.tally.plus(new);
            known.tallied_at = Some(now);
        }
        known.tally
    }

    /// Origins with gone answers, sorted.
    pub(crate) fn tallies(&self) -> Vec<(Origin, Tally)> {
        let gone = self.known.iter().filter(|(_, one)| one.tally.gone > 0);
        gone.map(|(origin, one)| (origin.clone(), one.tally))
            .collect()
    }

    /// Deletes origins without rows whose pause and tally are old.
    pub(crate) fn prune(&mut self, before: Timestamp, has_rows: impl Fn(&Origin) -> bool) {
        self.known.retain(|origin, one| {
            let paused_until = one.pause.as_ref().map(|pause| pause.until);
            let used_at = paused_until.max(one.tallied_at);
            has_rows(origin) || used_at.is_some_and(|at| at > before)
        });
    }
}

fn is_on(pause: &Pause, now: Timestamp) -> bool {
    pause.until > now || pause.reason.is_probed()
}
