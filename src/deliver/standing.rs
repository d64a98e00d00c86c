//! The standing of one origin: whether it is paused, why, and what its responses change about that. Pure.

use std::time::Duration;

use super::Outcome;
use super::evidence::{Evidence, Row};
use crate::clock::Timestamp;
use crate::push_service::{Pause, PauseReason};
use crate::subscription::{EndpointKey, Origin};

/// The first pause of an origin for a reason, and the longest. Each further one in a row is twice as long.
const fn ladder(reason: PauseReason, is_proven: bool) -> (Duration, Duration) {
    match reason {
        // Unless it says how long.
        PauseReason::RateLimited => (Duration::from_secs(5), Duration::from_secs(600)),
        // Of an origin that has never accepted anything, rows of strangers may be the only evidence.
        _ if !is_proven => (Duration::from_secs(30), Duration::from_secs(300)),
        PauseReason::Unreachable => (Duration::from_secs(30), Duration::from_secs(600)),
        PauseReason::SenderFault => (Duration::from_secs(300), Duration::from_secs(3600)),
    }
}

/// How long a probe without a response keeps other requests away, and how long after the end of a pause only a row that
/// is evidence may be the probe.
const PROBE: Duration = Duration::from_secs(60);

/// A response of a push service, or its absence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observation {
    pub(super) row: Row,
    /// When the request began.
    pub(super) began: Timestamp,
    pub(super) outcome: Outcome,
    /// Whether there was a response.
    pub(super) has_answered: bool,
    /// Whether an established connection broke under the request.
    pub(super) broke_off: bool,
    pub(super) retry_after: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Standing {
    origin: Origin,
    /// What this process found out and has not shared yet.
    own: Option<Pause>,
    /// What all replicas share, as it was last read.
    shared: Option<Pause>,
    /// The pause that is probed, with its first end: claims and settlements of probes move the one that is shared.
    planned: Option<Pause>,
    /// What is to be shared, in order.
    unshared: Vec<Pause>,
    /// Whether the first of it ends a pause.
    is_lifted: bool,
    /// Responses to requests that began by then do not show whether the reason for the pause still holds.
    paused_at: Timestamp,
    probe: Option<Probe>,
    evidence: Evidence,
    /// The end of a pause for a limit that was concluded from evidence, which an acceptance contradicts.
    limited_until: Timestamp,
    /// When a connection last broke under its requests.
    broke_at: Timestamp,
    /// Consecutive limits without an acceptance.
    limits: u32,
    /// Whether it answers: before, it gets few requests at once.
    answers: bool,
}

/// A request that finds out whether the reason of a pause still holds.
#[derive(Clone, Copy, Debug)]
struct Probe {
    key: EndpointKey,
    /// Others wait until then.
    until: Timestamp,
    /// Of a row that is evidence: its failure prolongs the pause.
    is_witness: bool,
}

impl Standing {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin,
            own: None,
            shared: None,
            planned: None,
            unshared: Vec::new(),
            is_lifted: false,
            paused_at: Timestamp::MIN,
            probe: None,
            evidence: Evidence::default(),
            limited_until: Timestamp::MIN,
            broke_at: Timestamp::MIN,
            limits: 0,
            answers: false,
        }
    }

    pub(super) const fn answers(&self) -> bool {
        self.answers
    }

    #[cfg(test)]
    pub(super) const fn has_answered(&mut self) {
        self.answers = true;
    }

    /// Takes in that the origin has accepted a push from this server before.
    pub(super) fn prove(&mut self) {
        self.evidence.prove();
    }

    /// Whether it gets as many requests at once as are allowed at all.
    pub(super) fn is_trusted(&self, now: Timestamp) -> bool {
        self.answers && !self.evidence.is_suspect(now)
    }

    /// The end and the reason of the pause, if there is one.
    pub(super) fn closed_at(&self, now: Timestamp) -> Option<(Timestamp, PauseReason)> {
        let (until, reason) = self.paused()?;
        // A probe of any other row does not keep one away that is evidence.
        let probe = self.probe.filter(|probe| probe.is_witness);
        let until = probe.map_or(until, |probe| until.max(probe.until));
        (until > now).then_some((until, reason))
    }

    /// The pause, over or not; a probed pause with the probe that is due.
    fn paused(&self) -> Option<(Timestamp, PauseReason)> {
        let pauses = [&self.own, &self.shared].into_iter().flatten();
        let pause = pauses.max_by_key(|pause| pause.until)?;
        Some((pause.until, pause.reason))
    }

    /// Admits one request. After a pause that is probed, this request is the probe, and all others wait for its response.
    ///
    /// In the first minute after the pause only a row that is evidence may be the probe: else rows that are always refused
    /// would keep the origin closed for all others. Probes do not make that minute begin again.
    pub(super) fn admit(
        &mut self,
        row: &Row,
        now: Timestamp,
    ) -> Result<(), (Timestamp, PauseReason)> {
        self.evidence.begins(row, now);
        if let Some(closed) = self.closed_at(now) {
            return Err(closed);
        }
        if self.probed().is_some()
            && let Some((until, reason)) = self.paused()
        {
            let is_witness = self.evidence.is_witness(row);
            if !is_witness {
                let probe = self.probe.map_or(Timestamp::MIN, |probe| probe.until);
                let ended = match &self.planned {
                    Some(planned) if reason.is_probed() => until.min(planned.until),
                    _ => until,
                };
                let until = (ended + PROBE).max(probe);
                if until > now {
                    return Err((until, reason));
                }
            }
            self.probe = Some(Probe {
                key: row.key,
                until: now + PROBE,
                is_witness,
            });
        }
        Ok(())
    }

    /// Undoes [`admit`](Self::admit) for the request of a row that began then: if it was the probe, the next one is. One that
    /// began before the pause leaves the probe alone.
    pub(super) fn withdraw(&mut self, row: &Row, began: Timestamp) {
        let is_probe = |probe: &Probe| probe.key == row.key && probe.until == began + PROBE;
        if self.probe.as_ref().is_some_and(is_probe) {
            self.probe = None;
        }
    }

    /// Adds a pause that is to be shared.
    pub(super) fn pause(&mut self, pause: &Pause, now: Timestamp) {
        self.own = pause.on_top_of(self.own.as_ref(), now);
        if let Some(own) = self.own.as_ref().filter(|own| own.reason.is_probed()) {
            self.planned = Some(own.clone());
        }
        // Only the latest is shared, after the end of the one before.
        let lift = self
            .is_lifted
            .then(|| self.unshared.first().cloned())
            .flatten();
        self.unshared = lift.into_iter().chain(self.own.clone()).collect();
    }

    /// Opens it, whatever closed it.
    pub(super) fn resume(&mut self) {
        self.own = None;
        self.shared = None;
        self.planned = None;
        // A pause that was not shared would be, and close it again. The end of an earlier one stays.
        self.unshared.truncate(usize::from(self.is_lifted));
        self.evidence.clear();
        self.limits = 0;
    }

    /// Replaces what all replicas share.
    pub(super) fn load(&mut self, shared: Option<Pause>, now: Timestamp) {
        if self.probed().is_none() && shared.as_ref().is_some_and(|one| one.reason.is_probed()) {
            // The probe may begin at this very moment.
            self.paused_at = now - Duration::from_millis(1);
        }
        self.shared = shared;
        let mut planned = self.probed().cloned();
        // A further pause for the same reason has another number.
        if let (Some(seen), Some(planned)) = (self.planned.take(), &mut planned)
            && (seen.reason, seen.closures) == (planned.reason, planned.closures)
        {
            planned.until = planned.until.min(seen.until);
        }
        self.planned = planned;
    }

    /// Returns what is to be shared, each once: pauses, and ends of pauses.
    pub(super) fn take_unshared(&mut self) -> Vec<Pause> {
        self.is_lifted = false;
        std::mem::take(&mut self.unshared)
    }

    /// Puts back a pause that could not be shared, before those that came after it.
    pub(super) fn keep_unshared(&mut self, pause: Pause, is_lift: bool) {
        self.is_lifted = is_lift;
        self.unshared.insert(0, pause);
    }

    /// Marks its own pause as shared: other replicas may end it.
    pub(super) fn shared(&mut self, now: Timestamp) {
        if self.unshared.is_empty()
            && let Some(own) = self.own.take()
        {
            self.shared = own.on_top_of(self.shared.as_ref(), now);
        }
    }

    /// Takes in a response.
    pub(super) fn observe(&mut self, seen: &Observation, now: Timestamp) {
        self.answers |= seen.has_answered;
        if !self.was_under_way(seen) && self.evidence.is_witness(&seen.row) {
            // The probe is over. If it settled nothing, the next request does: the same row with another key, say.
            self.probe = None;
        }
        match seen.outcome {
            Outcome::Accepted => self.accepted(seen, now),
            Outcome::Transient => self.failed(seen, now),
            outcome => {
                self.lift(PauseReason::Unreachable, now);
                match outcome {
                    Outcome::SenderFault => self.sender_fault(seen, now),
                    Outcome::RateLimited => self.limited(seen, now),
                    _ => self.evidence.answered(&seen.row, now),
                }
            }
        }
    }

    fn accepted(&mut self, seen: &Observation, now: Timestamp) {
        self.evidence.accepted(&seen.row, now);
        self.limits = 0;
        self.lift(PauseReason::Unreachable, now);
        self.lift(PauseReason::SenderFault, now);
        if std::mem::replace(&mut self.limited_until, Timestamp::MIN) > now {
            self.lift(PauseReason::RateLimited, now);
        }
    }

    fn sender_fault(&mut self, seen: &Observation, now: Timestamp) {
        self.weigh(PauseReason::SenderFault, seen, now);
    }

    fn failed(&mut self, seen: &Observation, now: Timestamp) {
        // A connection takes all its requests along: of a push service that works, that is one failure.
        if self.closures(PauseReason::Unreachable).is_none() && self.answers && seen.broke_off {
            if seen.began <= self.broke_at {
                return;
            }
            self.broke_at = now;
        }
        self.weigh(PauseReason::Unreachable, seen, now);
    }

    /// Closes it on evidence, or once more after a probe that failed.
    fn weigh(&mut self, reason: PauseReason, seen: &Observation, now: Timestamp) {
        if self.was_under_way(seen) {
            return;
        }
        let closures = self.closures(reason);
        let wait = if closures.is_some() {
            if !self.evidence.counts(&seen.row, reason) {
                return;
            }
            Duration::ZERO
        } else {
            let concluded =
                self.evidence
                    .failed(&seen.row, reason, seen.retry_after, (seen.began, now));
            let Some(conclusion) = concluded else { return };
            conclusion.wait
        };
        let is_proven = self.evidence.is_proven();
        let closures = closures.unwrap_or(0).saturating_add(1);
        let asked = wait.max(seen.retry_after.unwrap_or_default());
        let asked = if is_proven { asked } else { Duration::ZERO };
        let wait = rung(ladder(reason, is_proven), closures).max(asked);
        let mut pause = Pause::new(self.origin.clone(), now + wait, reason);
        pause.closures = closures;
        self.paused_at = now;
        self.answers &= reason != PauseReason::Unreachable;
        self.pause(&pause, now);
    }

    fn limited(&mut self, seen: &Observation, now: Timestamp) {
        if self.was_under_way(seen) {
            return;
        }
        let reason = PauseReason::RateLimited;
        // No time at all, or one in the past, is no wait.
        let asked = seen.retry_after.filter(|wait| !wait.is_zero());
        let when = (seen.began, now);
        let Some(conclusion) = self.evidence.failed(&seen.row, reason, asked, when) else {
            return;
        };
        self.limits = self.limits.saturating_add(1);
        let is_proven = self.evidence.is_proven();
        let asked = if is_proven {
            conclusion.wait
        } else {
            Duration::ZERO
        };
        let wait = rung(ladder(reason, is_proven), self.limits).max(asked);
        if self.probed().is_none() {
            self.paused_at = now;
        }
        self.limited_until = now + wait;
        let pause = Pause::new(self.origin.clone(), self.limited_until, reason);
        self.pause(&pause, now);
    }

    /// Whether it began before the pause, or at the same moment: at full speed many do.
    fn was_under_way(&self, seen: &Observation) -> bool {
        seen.began <= self.paused_at
    }

    /// Ends a pause of this reason, and what came on top of it.
    fn lift(&mut self, reason: PauseReason, now: Timestamp) {
        if self.closures(reason).is_some() {
            self.own = None;
            self.shared = None;
            self.planned = None;
            self.probe = None;
            self.evidence.clear();
            self.unshared = vec![Pause::new(self.origin.clone(), now, reason)];
            self.is_lifted = true;
        }
    }

    /// The pause that only a probe or the operator ends.
    fn probed(&self) -> Option<&Pause> {
        let mut pauses = [&self.own, &self.shared].into_iter().flatten();
        pauses.find(|pause| pause.reason.is_probed())
    }

    /// The number of consecutive pauses for this reason, if it is paused for it.
    fn closures(&self, reason: PauseReason) -> Option<u32> {
        let pauses = [&self.own, &self.shared].into_iter().flatten();
        let of_reason = pauses.filter(|pause| pause.reason == reason);
        of_reason.map(|pause| pause.closures).max()
    }
}

/// The length of pause `number` in a row.
fn rung((first, longest): (Duration, Duration), number: u32) -> Duration {
    let doubled = 1_u32.checked_shl(number.saturating_sub(1));
    doubled
        .and_then(|times| first.checked_mul(times))
        .map_or(longest, |wait| wait.min(longest))
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
