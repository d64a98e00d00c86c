//! The rate of requests to one origin that limits it. Pure.
//!
//! A limit on requests in flight cannot keep a rate: fewer requests that are answered sooner are as many per second. So
//! the first refusal for the rate is answered by a pace: what was accepted per second, approached from below.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The pace of requests; none before the first refusal.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    accepted: Accepted,
    limits: Option<Limits>,
}

#[derive(Clone, Debug)]
struct Limits {
    /// Requests per second at present.
    rate: f64,
    /// What it returns to while requests are accepted.
    target: f64,
    /// Whether the target was measured in less than a second.
    is_guess: bool,
    /// Whether a request was accepted that began after it was last lowered.
    is_accepted: bool,
    /// Requests that may begin at once.
    tokens: f64,
    filled_at: Instant,
    /// When it was last lowered. Refusals of requests that began before are part of the same excess.
    lowered_at: Instant,
    /// The first refusal since the last acceptance.
    refused_since: Instant,
    /// When it last held a request back. A pace that holds nothing back is not raised.
    held_at: Instant,
}

impl Pace {
    /// The share of the accepted rate to return to.
    const SHARE: f64 = 0.97;
    /// The share of the target that it begins with after a refusal.
    const AFTER_REFUSAL: f64 = 0.4;
    /// How much faster the pace becomes in a second: at first, later, and while the target is a guess.
    const GROWTH: f64 = 0.002;
    const GROWTH_MOST: f64 = 0.05;
    const SEARCH: f64 = 1.0;
    /// A pace needs this number of acceptances in a minute: of fewer, the rate says nothing.
    const LEAST: u64 = 100;
    /// The slowest pace, in requests per second.
    const SLOWEST: f64 = 1.0;
    /// Requests that fell behind the pace by no more than this begin at once. Timers are no finer.
    const BURST: f64 = 0.005;
    /// Without a refusal for this time there is no pace.
    const KEPT: Duration = Duration::from_secs(300);
    /// Refusals for this time without an acceptance are those of a quota that begins anew after it.
    const USED_UP: Duration = Duration::from_secs(5);
    /// The longest wait for the next look at the pace.
    const LOOK: Duration = Duration::from_millis(50);

    /// Requests per second, if they are limited.
    pub(super) fn per_second(&self) -> Option<f64> {
        self.limits.as_ref().map(|limits| limits.rate)
    }

    /// Requests per second that were accepted when some were refused, and what has been added since.
    pub(super) fn target(&self) -> Option<f64> {
        self.limits.as_ref().map(|limits| limits.target)
    }

    /// Takes the place of a request that begins now. If it is too early, it returns when to ask again.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let Some(limits) = &mut self.limits else {
            return Ok(());
        };
        let passed = now.saturating_duration_since(limits.filled_at);
        let most = (limits.rate * Self::BURST).max(1.0);
        limits.tokens = (limits.tokens + passed.as_secs_f64() * limits.rate).min(most);
        limits.filled_at = now;
        if limits.tokens >= 1.0 {
            limits.tokens -= 1.0;
            return Ok(());
        }
        limits.held_at = now;
        let wait = Duration::from_secs_f64((1.0 - limits.tokens) / limits.rate);
        Err(now + wait.clamp(Duration::from_micros(1), Self::LOOK))
    }

    /// Takes in an acceptance.
    pub(super) fn accepted(&mut self, began: Instant, now: Instant) {
        self.accepted.count(now);
        let Some(limits) = &mut self.limits else {
            return;
        };
        let since = now.saturating_duration_since(limits.lowered_at);
        if since >= Self::KEPT {
            self.limits = None;
            return;
        }
        if began <= limits.lowered_at {
            return;
        }
        if !limits.is_accepted {
            limits.is_accepted = true;
            let refused = now.saturating_duration_since(limits.refused_since);
            if refused >= Self::USED_UP {
                // A quota of a longer time: what it takes includes the time for which it was used up.
                let window = (refused * 2).min(Accepted::KEPT);
                let target = self.accepted.over(window, now) * Self::SHARE;
                limits.target = limits.target.min(target).max(Self::SLOWEST);
                limits.is_guess = false;
            }
        }
        if limits.rate < limits.target {
            // Twice the rate in each round trip: as many acceptances as there are requests in it.
            let rtt = now.saturating_duration_since(began).as_secs_f64();
            limits.rate = (limits.rate + 1.0 / rtt.max(0.001)).min(limits.target);
        } else if now.saturating_duration_since(limits.held_at) < Self::LOOK * 2 {
            // The longer without a refusal, the farther away the limit is.
            let growth = Self::GROWTH * (1.0 + since.as_secs_f64().powi(2));
            let (least, most) = match limits.is_guess {
                true => (Self::SEARCH, Self::SEARCH),
                false => (0.0, Self::GROWTH_MOST),
            };
            // As many acceptances as that in each second, so each adds this.
            limits.target += growth.clamp(least, most);
            limits.rate = limits.target;
        }
    }

    /// Takes in that the origin refused a request for the rate.
    pub(super) fn refused(&mut self, began: Instant, now: Instant) {
        let (measured, is_guess) = self.accepted.per_second(now);
        let target = (measured * Self::SHARE).max(Self::SLOWEST);
        let again = self.limits.as_ref().filter(|limits| !limits.is_accepted);
        let refused_since = again.map_or(now, |limits| limits.refused_since);
        let (rate, target, is_guess) = match &self.limits {
            Some(limits) if began <= limits.lowered_at => return,
            // Nothing is accepted for a while, at whatever rate.
            Some(limits) if !limits.is_accepted => {
                (limits.rate / 8.0, limits.target, limits.is_guess)
            }
            Some(limits) => {
                let most = limits.rate * Self::SHARE;
                let target = target.min(most).max(Self::SLOWEST);
                (target * Self::AFTER_REFUSAL, target, is_guess)
            }
            None if self.accepted.number() < Self::LEAST => return,
            None => (target * Self::AFTER_REFUSAL, target, is_guess),
        };
        self.limits = Some(Limits {
            rate: rate.max(Self::SLOWEST),
            target,
            is_guess,
            is_accepted: false,
            tokens: 0.0,
            filled_at: now,
            lowered_at: now,
            refused_since,
            held_at: now,
        });
    }
}

/// The acceptances of the last minute, and of the time that it takes to see that a quota by the minute began anew.
#[derive(Clone, Debug, Default)]
struct Accepted {
    /// The oldest first: the start of a bucket, and the acceptances in it.
    buckets: VecDeque<(Instant, u32)>,
    /// The start of the time without a longer pause.
    since: Option<Instant>,
}

impl Accepted {
    const BUCKET: Duration = Duration::from_millis(125);
    const SECOND: Duration = Duration::from_secs(1);
    /// Quotas are per second or per minute.
    const LONGER: [Duration; 2] = [Duration::from_secs(10), Self::LONGEST];
    const LONGEST: Duration = Duration::from_secs(60);
    /// A used-up quota is asked once a second, and by requests that take some time.
    const KEPT: Duration = Duration::from_secs(63);
    /// Less than this share of the latest rate is a longer quota's.
    const FEWER: f64 = 0.75;

    fn count(&mut self, now: Instant) {
        let is_old = |(start, _): &(Instant, u32)| {
            now.saturating_duration_since(*start) > Self::KEPT + Self::BUCKET
        };
        while self.buckets.front().is_some_and(is_old) {
            self.buckets.pop_front();
        }
        if self.buckets.is_empty() {
            self.since = Some(now);
        }
        match self.buckets.back_mut() {
            Some((start, count)) if now.saturating_duration_since(*start) < Self::BUCKET => {
                *count = count.saturating_add(1);
            }
            _ => self.buckets.push_back((now, 1)),
        }
    }

    fn number(&self) -> u64 {
        let counts = self.buckets.iter().map(|(_, count)| u64::from(*count));
        counts.sum()
    }

    /// The rate of the last second, or of a longer time in which far fewer were accepted, and whether it is a guess.
    fn per_second(&self, now: Instant) -> (f64, bool) {
        let age = self
            .since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if age < Self::SECOND {
            return (self.over(Self::BUCKET * 2, now), true);
        }
        let latest = self.over(Self::SECOND, now);
        let longer = Self::LONGER.into_iter().filter(|window| *window <= age);
        let rates = longer.map(|window| self.over(window, now));
        let fewer = rates.filter(|rate| *rate < latest * Self::FEWER);
        (fewer.fold(latest, f64::min), false)
    }

    fn over(&self, window: Duration, now: Instant) -> f64 {
        let age = |start: &Instant| now.saturating_duration_since(*start);
        let within = self.buckets.iter().rev();
        let within = within.take_while(|(start, _)| age(start) <= window);
        let (mut sum, mut covered) = (0_u64, Duration::ZERO);
        for (start, count) in within {
            sum = sum.saturating_add(u64::from(*count));
            covered = age(start);
        }
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let sum = sum as f64;
        // The first bucket of a full window began up to one bucket after the window. Of one that is not full, the pauses
        // count, if it is a long one.
        let is_full = covered + Self::BUCKET >= window;
        let covered = match window > Self::BUCKET * 2 && !is_full {
            true => window,
            false => covered.max(Self::BUCKET / 2),
        };
        sum / covered.as_secs_f64()
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
