//! What a ledger keeps of push services: pauses, and what they said of late.

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
    /// Who finds out whether the pause still has its reason.
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
        // A reason that only a probe can lift goes before one that passes; else the later end wins.
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

    /// In the order of their origins.
    pub(crate) fn pauses(&self, now: Timestamp) -> Vec<Pause> {
        let pauses = self.known.values().filter_map(|one| one.pause.clone());
        pauses.filter(|pause| is_on(pause, now)).collect()
    }

    pub(crate) fn paused_until(&self, origin: &Origin) -> Timestamp {
        let pause = self.known.get(origin).and_then(|one| one.pause.as_ref());
        pause.map_or(Timestamp::MIN, |pause| pause.until)
    }

    /// How many rows may be claimed at once.
    pub(crate) fn most(&self, origin: &Origin) -> usize {
        let pause = self.known.get(origin).and_then(|one| one.pause.as_ref());
        match pause {
            Some(pause) if pause.reason.is_probed() => 1,
            _ => usize::MAX,
        }
    }

    /// Rows were claimed: where one of them is the probe, nobody else asks before its lease ends.
    pub(crate) fn claimed(&mut self, origin: &Origin, token: ClaimToken, until: Timestamp) {
        let Some(known) = self.known.get_mut(origin) else {
            return;
        };
        if let Some(pause) = known.pause.as_mut().filter(|one| one.reason.is_probed()) {
            pause.until = until;
            known.probe = Some(token);
        }
    }

    /// A claimed row was settled or released: where it was a probe, the next one may ask.
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

    /// Those that said "gone", in order.
    pub(crate) fn tallies(&self) -> Vec<(Origin, Tally)> {
        let gone = self.known.iter().filter(|(_, one)| one.tally.gone > 0);
        gone.map(|(origin, one)| (origin.clone(), one.tally))
            .collect()
    }

    /// Forgets those that have no rows and were neither paused nor tallied after a moment.
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
