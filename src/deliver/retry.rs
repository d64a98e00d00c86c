//! The time of the next attempt. Pure.

use std::time::Duration;

use super::Outcome;
use crate::clock::Timestamp;

/// The number of attempts for a message and the pauses between them.
///
/// The message's own deadline bounds the time.
///
/// Only [`RateLimited`](Outcome::RateLimited) and [`Transient`](Outcome::Transient) are tried again, after the longer of
/// what the push service asked for and a random part of an exponentially growing pause, of at least 1 ms ("full jitter":
/// rows that failed together do not come back together).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    base: Duration,
    cap: Duration,
    max_attempts: u32,
}

impl RetryPolicy {
    /// The longest pause. What is due later counts as written by a wrong clock.
    const LONGEST: Duration = Duration::from_secs(86_400);
    /// The shortest part of a pause. An attempt in the same millisecond would meet the same refusal.
    const SHORTEST: Duration = Duration::from_millis(1);

    /// Backoff starts at `base`, doubles up to `cap`, and ends after `max_attempts` attempts in all.
    ///
    /// A `cap` below `base` counts as `base`; no pause is longer than a day; `max_attempts` of 0 or 1 never tries again.
    #[must_use]
    pub const fn new(base: Duration, cap: Duration, max_attempts: u32) -> Self {
        Self {
            base,
            cap,
            max_attempts,
        }
    }

    /// The upper bound of the first pause.
    pub(crate) const fn base(&self) -> Duration {
        self.base
    }

    /// The upper bound of any pause that the push service did not ask for.
    pub(crate) const fn cap(&self) -> Duration {
        self.cap
    }

    /// The maximum number of attempts, the first included.
    pub(crate) const fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// The time of the next attempt; `None` if there is none.
    ///
    /// `attempts` counts those made, this one included. The next one begins before `deadline`.
    pub(crate) fn next_attempt(
        &self,
        outcome: Outcome,
        attempts: u32,
        retry_after: Option<Duration>,
        deadline: Timestamp,
        now: Timestamp,
        jitter: Jitter,
    ) -> Option<Timestamp> {
        if !outcome.is_retryable() || attempts >= self.max_attempts {
            return None;
        }
        let doublings = attempts.saturating_sub(1).min(31);
        let ceiling = self
            .base
            .saturating_mul(1 << doublings)
            .min(self.cap.max(self.base))
            .min(Self::LONGEST);
        let part = jitter.of(ceiling).max(Self::SHORTEST.min(ceiling));
        let pause = part.max(retry_after.unwrap_or_default());
        let at = now + pause;
        (at < deadline).then_some(at)
    }
}

impl Default for RetryPolicy {
    /// 2 s, doubling up to 1 h, 24 attempts: deliveries survive an outage of several hours.
    fn default() -> Self {
        Self::new(Duration::from_secs(2), Duration::from_secs(3600), 24)
    }
}

/// A random fraction of a pause, in steps of 2^-32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Jitter(u32);

impl Jitter {
    /// No pause.
    #[cfg(test)]
    pub(crate) const NONE: Self = Self(0);
    /// The whole pause, less 2^-32 of it.
    pub(crate) const FULL: Self = Self(u32::MAX);
    /// Half of the pause.
    #[cfg(test)]
    pub(crate) const HALF: Self = Self(1 << 31);

    /// A new random fraction; the whole pause if the system's random source fails.
    pub(crate) fn random() -> Self {
        #[cfg(test)]
        if let Some(drawn) = seeded::draw() {
            return Self(drawn);
        }
        getrandom::u32().map_or(Self::FULL, Self)
    }

    /// Draws all fractions of this thread from a seed from now on, for a simulation.
    #[cfg(test)]
    pub(crate) fn draw_from(seed: u64) {
        seeded::begin(seed);
    }

    /// This fraction of a pause, in whole milliseconds.
    pub(crate) fn of(self, pause: Duration) -> Duration {
        let millis = (pause.as_millis() * u128::from(self.0)) >> 32;
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

/// Numbers from a seed, by thread.
#[cfg(test)]
mod seeded {
    use std::cell::Cell;

    thread_local! {
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }

    pub(super) fn begin(seed: u64) {
        STATE.set(Some(seed));
    }

    /// The upper half of a linear congruential generator.
    pub(super) fn draw() -> Option<u32> {
        let state = STATE.get()?;
        let next = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        STATE.set(Some(next));
        u32::try_from(next >> 32).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);
    const POLICY: RetryPolicy =
        RetryPolicy::new(Duration::from_secs(2), Duration::from_secs(60), 8);

    fn next(outcome: Outcome, attempts: u32, jitter: Jitter) -> Option<Duration> {
        POLICY
            .next_attempt(outcome, attempts, None, Timestamp::MAX, NOW, jitter)
            .map(|at| at.since(NOW))
    }

    #[test]
    fn only_rate_limited_and_transient_are_tried_again() {
        for &outcome in Outcome::ALL {
            assert_eq!(
                next(outcome, 1, Jitter::FULL).is_some(),
                outcome.is_retryable(),
                "{outcome}"
            );
        }
    }

    #[test]
    fn the_pause_doubles_up_to_the_cap() {
        let half = Jitter::HALF;
        let pauses: Vec<_> = (1..8)
            .map(|attempts| next(Outcome::Transient, attempts, half).unwrap().as_secs())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn jitter_reaches_from_a_millisecond_to_almost_everything() {
        assert_eq!(
            next(Outcome::Transient, 1, Jitter::NONE),
            Some(Duration::from_millis(1))
        );
        assert_eq!(
            next(Outcome::Transient, 1, Jitter::FULL),
            Some(Duration::from_millis(1999))
        );
    }

    #[test]
    fn attempts_are_bounded() {
        assert!(next(Outcome::Transient, 7, Jitter::NONE).is_some());
        assert!(next(Outcome::Transient, 8, Jitter::NONE).is_none());
        assert!(next(Outcome::RateLimited, u32::MAX, Jitter::NONE).is_none());
    }

    #[test]
    fn what_the_push_service_asks_for_is_a_lower_bound_above_the_cap_too() {
        let asked = Some(Duration::from_secs(900));
        for jitter in [Jitter::NONE, Jitter::FULL] {
            let at =
                POLICY.next_attempt(Outcome::RateLimited, 1, asked, Timestamp::MAX, NOW, jitter);
            assert_eq!(at, Some(NOW + Duration::from_secs(900)));
        }
        let short = Some(Duration::from_secs(1));
        let at = POLICY.next_attempt(
            Outcome::Transient,
            6,
            short,
            Timestamp::MAX,
            NOW,
            Jitter::FULL,
        );
        assert_eq!(at, Some(NOW + Duration::from_millis(59_999)));
    }

    #[test]
    fn nothing_is_tried_at_or_after_the_deadline() {
        let asked = Some(Duration::from_secs(10));
        let at = |deadline| {
            POLICY.next_attempt(Outcome::Transient, 1, asked, deadline, NOW, Jitter::NONE)
        };
        assert!(at(NOW + Duration::from_millis(10_001)).is_some());
        assert!(at(NOW + Duration::from_secs(10)).is_none());
        assert!(at(Timestamp::MIN).is_none());
    }

    #[test]
    fn a_policy_without_pauses_has_none() {
        let policy = RetryPolicy::new(Duration::ZERO, Duration::ZERO, 2);
        for jitter in [Jitter::NONE, Jitter::FULL] {
            let at = policy.next_attempt(Outcome::Transient, 1, None, Timestamp::MAX, NOW, jitter);
            assert_eq!(at, Some(NOW));
        }
    }

    #[test]
    fn absurd_values_saturate() {
        let policy = RetryPolicy::new(Duration::MAX, Duration::ZERO, u32::MAX);
        let at = policy.next_attempt(
            Outcome::Transient,
            u32::MAX - 1,
            Some(Duration::MAX),
            Timestamp::MAX,
            NOW,
            Jitter::FULL,
        );
        assert_eq!(at, None);
    }

    #[test]
    fn no_pause_is_longer_than_a_day() {
        let days = Duration::from_secs(10 * 86_400);
        let policy = RetryPolicy::new(days, days, 2);
        let (deadline, jitter) = (Timestamp::MAX, Jitter::FULL);
        let at = policy.next_attempt(Outcome::Transient, 1, None, deadline, NOW, jitter);
        assert_eq!(at, Some(NOW + Duration::from_millis(86_399_999)));
    }

    #[test]
    fn the_default_is_that_of_its_documentation() {
        let (base, cap) = (Duration::from_secs(2), Duration::from_secs(3600));
        assert_eq!(RetryPolicy::default(), RetryPolicy::new(base, cap, 24));
    }

    #[test]
    fn random_fractions_differ() {
        let drawn: Vec<_> = (0..8).map(|_| Jitter::random()).collect();
        assert!(drawn.iter().any(|jitter| *jitter != drawn[0]));
    }
}
