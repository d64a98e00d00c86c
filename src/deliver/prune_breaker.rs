//! When a push service's "gone" is not believed any more.

use crate::store::Tally;

/// Stops retiring the subscriptions of an origin while an unusual share of its answers says that they are gone.
///
/// A push service has answered 404 for close to half of its live subscriptions before; whoever had pruned on each
/// answer would have lost them for good.
///
/// The answers are counted with [`DeliveryLedger::tally`](crate::store::DeliveryLedger::tally), for all processes together.
///
/// # Examples
///
/// ```
/// use tower_web_push::deliver::PruneBreaker;
/// use tower_web_push::store::Tally;
///
/// let breaker = PruneBreaker::default();
/// assert!(!breaker.is_open(Tally::new(70, 30)));
/// assert!(breaker.is_open(Tally::new(69, 31)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneBreaker {
    percent: u8,
}

impl PruneBreaker {
    /// Fewer answers say nothing.
    const SAMPLE: u64 = 50;

    /// Open above so many percent of at least 50 answers; 100 is never.
    #[must_use]
    pub const fn new(percent: u8) -> Self {
        Self { percent }
    }

    /// Whether nothing is retired: a [`Change::Failed`](crate::store::Change::Failed) takes the place of each
    /// [`Change::Retire`](crate::store::Change::Retire).
    #[must_use]
    pub const fn is_open(self, tally: Tally) -> bool {
        let allowed = tally.answers().saturating_mul(self.percent as u64);
        tally.answers() >= Self::SAMPLE && tally.gone.saturating_mul(100) > allowed
    }
}

impl Default for PruneBreaker {
    /// Open above 30 percent.
    fn default() -> Self {
        Self::new(30)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_above_its_share_of_a_sample_of_fifty() {
        let breaker = PruneBreaker::default();
        assert!(!breaker.is_open(Tally::new(0, 49)));
        assert!(breaker.is_open(Tally::new(0, 50)));
        assert!(!breaker.is_open(Tally::new(70, 30)));
        assert!(breaker.is_open(Tally::new(69, 31)));
        // June 2024: 45 % of one push service's endpoints answered 404.
        assert!(breaker.is_open(Tally::new(55, 45)));
        assert!(!breaker.is_open(Tally::default()));
    }

    #[test]
    fn a_hundred_percent_never_opens_it() {
        assert!(!PruneBreaker::new(100).is_open(Tally::new(0, 1_000)));
        assert!(PruneBreaker::new(0).is_open(Tally::new(999, 1)));
    }
}
