//! The number of requests that one origin gets at once, found by control. Pure.
//!
//! Additive increase, multiplicative decrease: an answer raises the limit, a loss halves it. Slower answers only stop
//! the increase, since most of the time of an answer is distance and not a queue.

use std::time::Duration;

use tokio::time::Instant;

/// What became of a request, as far as the load on the origin is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Accepted: its time shows whether the origin slows down.
    Accepted,
    /// Another answer. Refusals are often quicker than acceptances, so its time is not compared.
    Answered,
    /// The origin has too much to do: 429, 503, no answer in time, ENHANCE_YOUR_CALM.
    Lost,
}

/// A request that ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) began: Instant,
    pub(super) ended: Instant,
    /// The requests in flight when it began, itself included.
    pub(super) in_flight: usize,
    /// The requests in flight when it ended, itself included.
    pub(super) at_end: usize,
    pub(super) reply: Reply,
}

/// The limit of one origin.
#[derive(Clone, Debug)]
pub(super) struct Concurrency {
    least: f64,
    most: f64,
    limit: f64,
    /// Below it the limit grows by a factor in each round trip, above it by one.
    threshold: f64,
    /// Whether it doubles below the threshold: answers have not become slower with the load yet.
    doubles: bool,
    /// When it was last halved. Losses of requests that began before are part of the same overload.
    halved_at: Option<Instant>,
    /// When at least half of it was last in use.
    used_at: Option<Instant>,
    latency: Latency,
}

impl Concurrency {
    /// The first limit of an origin.
    pub(super) const START: usize = 8;
    /// The first growth by a factor ends here.
    const DOUBLING: f64 = 600.0;
    /// What is left of it when answers become slower with the load for the first time: a round trip has passed in which it doubled.
    const AFTER_DOUBLING: f64 = 0.75;
    /// The part by which it grows in a round trip instead, once answers have become slower with the load.
    const PROBING: f64 = 1.0 / 16.0;
    /// A limit that was not used for this time is halved, down to the first or the least.
    const UNUSED: Duration = Duration::from_secs(60);

    /// A limit from `least` to `most`, each at least one.
    pub(super) fn new(least: usize, most: usize) -> Self {
        let (least, most) = (whole(least.max(1)), whole(most.max(least).max(1)));
        Self {
            least,
            most,
            limit: whole(Self::START).clamp(least, most),
            threshold: Self::DOUBLING,
            doubles: true,
            halved_at: None,
            used_at: None,
            latency: Latency::default(),
        }
    }

    /// The most requests in flight.
    pub(super) fn limit(&self) -> usize {
        let limit = match self.latency.measures() {
            true => self.limit.min(whole(Latency::UNLOADED)).max(self.least),
            false => self.limit,
        };
        // It is at least one, and at most `most`.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "in range"
        )]
        let limit = limit as usize;
        limit
    }

    /// The mean time of the latest acceptances.
    pub(super) const fn latency(&self) -> Option<Duration> {
        self.latency.recent
    }

    /// Takes in that a request begins.
    pub(super) fn begins(&mut self, now: Instant) {
        let Some(used) = self.used_at else {
            self.used_at = Some(now);
            return;
        };
        let mut unused = now.saturating_duration_since(used);
        let floor = whole(Self::START).max(self.least);
        while unused >= Self::UNUSED && self.limit > floor {
            // What it was is still a good guess.
            self.threshold = self.threshold.max(self.limit * 0.75);
            self.limit = (self.limit / 2.0).max(floor);
            unused -= Self::UNUSED;
            self.used_at = Some(now);
        }
    }

    /// Takes in that a request ended. `needed` is a number that a loss does not go below. Returns whether it is the first
    /// loss of its round.
    pub(super) fn on_sample(&mut self, sample: &Sample, needed: f64) -> bool {
        let now = sample.ended;
        let is_used = whole(sample.in_flight) * 2.0 >= self.limit;
        if is_used {
            self.used_at = Some(now);
        }
        match sample.reply {
            Reply::Lost => return self.lose(sample, needed),
            Reply::Answered if is_used => self.grow(Speed::Usual),
            Reply::Answered => {}
            Reply::Accepted => {
                let rtt = now.saturating_duration_since(sample.began);
                let measured = self.latency.measures();
                let speed = self
                    .latency
                    .speed(rtt, sample.in_flight.max(sample.at_end), now);
                if measured && !self.latency.measures() {
                    // All at once, the rest would queue.
                    self.limit = (self.limit / 2.0).max(self.least);
                }
                if self.doubles && matches!(speed, Speed::Slower | Speed::Slow) {
                    self.doubles = false;
                    let first = whole(Self::START).min(self.limit).max(self.least);
                    self.limit = (self.limit * Self::AFTER_DOUBLING).max(first);
                }
                if is_used {
                    self.grow(speed);
                }
            }
        }
        false
    }

    fn grow(&mut self, speed: Speed) {
        let step = match speed {
            Speed::Slow => return,
            _ if self.limit >= self.threshold => 1.0 / self.limit,
            Speed::Usual if self.doubles => 1.0,
            _ => Self::PROBING,
        };
        self.limit = (self.limit + step).min(self.most);
    }

    fn lose(&mut self, sample: &Sample, needed: f64) -> bool {
        if self.halved_at.is_some_and(|at| sample.began <= at) {
            return false;
        }
        let half = (self.limit / 2.0).max(needed.min(self.limit));
        self.limit = half.max(self.least);
        self.threshold = self.limit;
        self.halved_at = Some(sample.ended);
        self.latency.forget_slowness();
        true
    }
}

/// Compares the time of answers with their time at little load.
#[derive(Clone, Debug, Default)]
struct Latency {
    /// The time at little load.
    base: Option<Duration>,
    recent: Option<Duration>,
    round: Round,
    slow_since: Option<Instant>,
    /// The samples at little load that are still to come, while they are being measured.
    missing: u8,
}

impl Latency {
    /// The time of a response to at most this many requests at once is taken for the origin's own.
    const UNLOADED: usize = 4;
    /// A time is "slower" above this multiple of the time at little load.
    const SLOWER: f64 = 1.2;
    /// A time is "slow" above this multiple of it.
    const SLOW: f64 = 1.5;
    /// Both only if it is longer by more than this: half of a millisecond is no sign.
    const SLACK: Duration = Duration::from_millis(1);
    /// After this time of slow responses, the time at little load is measured again: the network path may have become longer.
    const MEASURED_AFTER: Duration = Duration::from_secs(30);
    const MEASURED: u8 = 4;

    const fn measures(&self) -> bool {
        self.missing > 0
    }

    fn forget_slowness(&mut self) {
        self.slow_since = None;
        self.missing = 0;
    }

    /// Takes in the time of an acceptance.
    fn speed(&mut self, rtt: Duration, in_flight: usize, now: Instant) -> Speed {
        let recent = self.recent.map_or(rtt, |recent| toward(recent, rtt, 5));
        self.recent = Some(recent);
        let mut base = self.base.unwrap_or(rtt);
        if in_flight <= Self::UNLOADED {
            base = toward(base, rtt, 2);
            self.missing = self.missing.saturating_sub(1);
            if self.missing == 0 {
                // The mean is still that of the load before.
                self.recent = Some(base.min(recent));
            }
        }
        // Means, since one quick answer is no base.
        let base = base.min(recent);
        self.base = Some(base);
        let shortest = self.round.shortest(rtt, in_flight);
        let exceeds = |time, times| time > base.mul_f64(times) + Self::SLACK;
        let speed = if exceeds(shortest, Self::SLOW) {
            Speed::Slow
        } else if exceeds(shortest, Self::SLOWER) {
            Speed::Slower
        } else if exceeds(recent, Self::SLOWER) {
            Speed::Unclear
        } else {
            Speed::Usual
        };
        if speed != Speed::Slow {
            self.slow_since = None;
        } else if !self.measures() {
            let since = *self.slow_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= Self::MEASURED_AFTER {
                self.slow_since = Some(now);
                self.missing = Self::MEASURED;
            }
        }
        speed
    }
}

/// The shortest time of the latest answers: a queue delays each of them. This process, which encrypts many messages before it
/// writes them, delays most of them now and then.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// Of the last round.
    last: Option<Duration>,
    shortest: Option<Duration>,
    /// The samples that are still to come in this round.
    left: usize,
}

impl Round {
    /// Takes in the time of an answer. Returns the shortest of at least half of those in flight.
    fn shortest(&mut self, rtt: Duration, in_flight: usize) -> Duration {
        let shortest = self.shortest.map_or(rtt, |shortest| shortest.min(rtt));
        let of_all = self.last.map_or(shortest, |last| last.min(shortest));
        self.shortest = Some(shortest);
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.last = self.shortest.take();
            self.left = (in_flight / 2).max(Latency::UNLOADED);
        }
        of_all
    }
}

/// The time of answers, compared with their time at little load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speed {
    Usual,
    /// The mean is slower and the shortest is not: some wait for others, there or in this process.
    Unclear,
    /// All wait for others.
    Slower,
    /// It does not grow.
    Slow,
}

/// Moves a mean by a part of the difference.
fn toward(mean: Duration, value: Duration, part: u32) -> Duration {
    (mean * (part - 1) + value) / part
}

/// Numbers of requests are small.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(super) const fn whole(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
#[path = "concurrency_tests.rs"]
mod tests;
