//! How one origin stands with us: what its answers mean for everything that is sent there. Pure.

use std::time::Duration;

use super::Outcome;
use super::streaks::Streaks;
use crate::clock::Timestamp;
use crate::push_service::{Pause, PauseReason, PauseScope};
use crate::subscription::{EndpointKey, Origin};

/// The first pause of an origin for a reason, and the longest; each further one in a row is twice as long.
const fn ladder(reason: PauseReason) -> (Duration, Duration) {
    match reason {
        // Where it does not say how long.
        PauseReason::RateLimited => (Duration::from_secs(5), Duration::from_secs(600)),
        PauseReason::Unreachable => (Duration::from_secs(30), Duration::from_secs(600)),
        PauseReason::SenderFault => (Duration::from_secs(300), Duration::from_secs(3600)),
    }
}

/// How long a probe keeps other requests away when its answer stays out.
const PROBE: Duration = Duration::from_secs(60);
/// Many limited subscriptions at once pause their origin for this long where the push service asks for less.
const LIMITED: Duration = Duration::from_secs(60);

/// One answer of a push service, or its absence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observation {
    pub(super) key: EndpointKey,
    /// When the request began.
    pub(super) began: Timestamp,
    pub(super) outcome: Outcome,
    /// Whether there was an answer at all.
    pub(super) has_answered: bool,
    /// Whether a connection that stood broke under the request.
    pub(super) broke_off: bool,
    pub(super) retry_after: Option<Duration>,
    /// What "too many requests" of this push service limits.
    pub(super) scope: PauseScope,
}

#[derive(Debug)]
pub(super) struct Standing {
    origin: Origin,
    /// What this process found out and has not shared yet.
    own: Option<Pause>,
    /// What all replicas share, as it was last read.
    shared: Option<Pause>,
    /// What is to be shared, in order.
    news: Vec<Pause>,
    /// Whether the first of it is a lift.
    is_lifted: bool,
    /// What had begun by then says nothing about whether the reason for the pause still holds.
    paused_at: Timestamp,
    /// A probe is under way: nobody else asks until then.
    probe_until: Timestamp,
    streaks: Streaks,
    /// When a connection last broke under what was under way.
    broke_at: Timestamp,
    /// How many times in a row it limited us without saying for how long.
    limits: u32,
    /// Whether it answers: until it has, it gets few requests at once.
    answers: bool,
}

impl Standing {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin,
            own: None,
            shared: None,
            news: Vec::new(),
            is_lifted: false,
            paused_at: Timestamp::MIN,
            probe_until: Timestamp::MIN,
            streaks: Streaks::default(),
            broke_at: Timestamp::MIN,
            limits: 0,
            answers: false,
        }
    }

    pub(super) const fn answers(&self) -> bool {
        self.answers
    }

    /// Why, and until when, nothing is sent.
    pub(super) fn closed_at(&self, now: Timestamp) -> Option<(Timestamp, PauseReason)> {
        let pauses = [&self.own, &self.shared].into_iter().flatten();
        let pause = pauses.max_by_key(|pause| pause.until)?;
        let until = match self.probed() {
            Some(_) => pause.until.max(self.probe_until),
            None => pause.until,
        };
        (until > now).then_some((until, pause.reason))
    }

    /// Lets one request begin. When a pause is over that is probed, that request is the probe, and all others wait
    /// for what comes of it.
    pub(super) fn admit(&mut self, now: Timestamp) -> Result<(), (Timestamp, PauseReason)> {
        if let Some(closed) = self.closed_at(now) {
            return Err(closed);
        }
        if self.probed().is_some() {
            self.probe_until = now + PROBE;
        }
        Ok(())
    }

    /// Takes back that a request begins: if it was the probe, the next one is.
    pub(super) fn withdraw(&mut self) {
        self.probe_until = Timestamp::MIN;
    }

    /// A pause of somebody else's making, to be shared.
    pub(super) fn pause(&mut self, pause: &Pause, now: Timestamp) {
        self.own = pause.on_top_of(self.own.as_ref(), now);
        // The latest says it all; a lift goes before it.
        let lift = self.is_lifted.then(|| self.news.first().cloned()).flatten();
        self.news = lift.into_iter().chain(self.own.clone()).collect();
    }

    /// Opens it, whoever closed it.
    pub(super) fn resume(&mut self) {
        self.own = None;
        self.shared = None;
        self.streaks.accepted();
        self.limits = 0;
    }

    /// Takes over what all replicas share.
    pub(super) fn load(&mut self, shared: Option<Pause>, now: Timestamp) {
        if self.probed().is_none() && shared.as_ref().is_some_and(|one| one.reason.is_probed()) {
            // The probe may begin in this very moment.
            self.paused_at = now - Duration::from_millis(1);
        }
        self.shared = shared;
    }

    /// What is to be shared, each time once: pauses, and ends of pauses.
    pub(super) fn take_unshared(&mut self) -> Vec<Pause> {
        self.is_lifted = false;
        std::mem::take(&mut self.news)
    }

    /// It is shared now: others may lift it.
    pub(super) fn shared(&mut self, now: Timestamp) {
        if self.news.is_empty()
            && let Some(own) = self.own.take()
        {
            self.shared = own.on_top_of(self.shared.as_ref(), now);
        }
    }

    /// Draws the conclusions from an answer.
    pub(super) fn observe(&mut self, seen: &Observation, now: Timestamp) {
        self.answers |= seen.has_answered;
        if !self.was_under_way(seen) {
            // The probe is over. What it left open the next request finds out: the same row with another key, say.
            self.probe_until = Timestamp::MIN;
        }
        match seen.outcome {
            Outcome::Accepted => {
                self.streaks.accepted();
                self.limits = 0;
                self.lift(PauseReason::Unreachable, now);
                // What was under way when it closed says nothing of what came after.
                if !self.was_under_way(seen) {
                    self.lift(PauseReason::SenderFault, now);
                }
            }
            Outcome::Transient => self.failed(seen, now),
            outcome => {
                self.streaks.answered();
                self.lift(PauseReason::Unreachable, now);
                match outcome {
                    Outcome::SenderFault => self.sender_fault(seen, now),
                    Outcome::RateLimited => self.limited(seen, now),
                    _ => {}
                }
            }
        }
    }

    fn sender_fault(&mut self, seen: &Observation, now: Timestamp) {
        let closures = self.closures(PauseReason::SenderFault);
        if closures.is_none() && !self.streaks.sender_fault(seen.key) {
            return;
        }
        self.close(PauseReason::SenderFault, closures, seen, now);
    }

    fn failed(&mut self, seen: &Observation, now: Timestamp) {
        let closures = self.closures(PauseReason::Unreachable);
        // A connection takes all the requests on it along: with a push service that works, that is one failure.
        if closures.is_none() && self.answers && seen.broke_off {
            if seen.began <= self.broke_at {
                return;
            }
            self.broke_at = now;
        }
        if closures.is_none() && !self.streaks.failed(seen.key) {
            return;
        }
        self.close(PauseReason::Unreachable, closures, seen, now);
    }

    fn limited(&mut self, seen: &Observation, now: Timestamp) {
        // No time at all, or one in the past, is no answer to "how long".
        let asked = seen.retry_after.filter(|wait| !wait.is_zero());
        let wait = match (seen.scope, asked) {
            (PauseScope::Origin, Some(wait)) => wait,
            // Those that were under way when it closed do not make it longer.
            (PauseScope::Origin, None) if self.was_under_way(seen) => return,
            (PauseScope::Origin, None) => {
                self.limits = self.limits.saturating_add(1);
                rung(PauseReason::RateLimited, self.limits)
            }
            (PauseScope::Subscription, wait) => {
                if !self.streaks.limited(seen.key, now) {
                    return;
                }
                wait.unwrap_or(LIMITED).max(LIMITED)
            }
        };
        if self.probed().is_none() {
            self.paused_at = now;
        }
        let pause = Pause::new(self.origin.clone(), now + wait, PauseReason::RateLimited);
        self.pause(&pause, now);
    }

    /// Closes it, once more where it is closed for this reason already.
    fn close(
        &mut self,
        reason: PauseReason,
        closures: Option<u32>,
        seen: &Observation,
        now: Timestamp,
    ) {
        // Only a probe's answer is news; those that were under way say again what is known.
        if closures.is_some() && self.was_under_way(seen) {
            return;
        }
        let closures = closures.unwrap_or(0).saturating_add(1);
        let wait = rung(reason, closures).max(seen.retry_after.unwrap_or_default());
        let mut pause = Pause::new(self.origin.clone(), now + wait, reason);
        pause.closures = closures;
        self.paused_at = now;
        self.answers &= reason != PauseReason::Unreachable;
        self.pause(&pause, now);
    }

    /// Whether it began before the gate closed, or in the same moment: at full speed many do.
    fn was_under_way(&self, seen: &Observation) -> bool {
        seen.began <= self.paused_at
    }

    /// Ends a pause of this reason, and what came on top of it.
    fn lift(&mut self, reason: PauseReason, now: Timestamp) {
        if self.closures(reason).is_some() {
            self.own = None;
            self.shared = None;
            self.news = vec![Pause::new(self.origin.clone(), now, reason)];
            self.is_lifted = true;
        }
    }

    /// The pause that only ends by being lifted.
    fn probed(&self) -> Option<&Pause> {
        let mut pauses = [&self.own, &self.shared].into_iter().flatten();
        pauses.find(|pause| pause.reason.is_probed())
    }

    /// How many times in a row it was closed for this reason, where it is.
    fn closures(&self, reason: PauseReason) -> Option<u32> {
        let pauses = [&self.own, &self.shared].into_iter().flatten();
        let of_reason = pauses.filter(|pause| pause.reason == reason);
        of_reason.map(|pause| pause.closures).max()
    }
}

/// The length of the pause that is the so-manieth in a row.
fn rung(reason: PauseReason, number: u32) -> Duration {
    let (first, longest) = ladder(reason);
    let doubled = 1_u32.checked_shl(number.saturating_sub(1));
    doubled
        .and_then(|times| first.checked_mul(times))
        .map_or(longest, |wait| wait.min(longest))
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
