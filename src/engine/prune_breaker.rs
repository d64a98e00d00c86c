//! The breaker that suspends pruning of an origin's subscriptions.

use crate::push_service::Tally;
use crate::store::RetireReason;

/// A circuit breaker that suspends pruning of an origin while an unusual share of its responses says "gone".
///
/// In June 2024 a push service answered 404 for close to half of its live subscriptions. Pruning on each response would
/// have lost them for good.
///
/// A row that is said to be gone for days is retired all the same, beside others that are accepted
/// ([`Consequence::is_gone_for_days`](super::Consequence::is_gone_for_days)).
///
/// The responses are counted with [`DeliveryLedger::tally`](crate::store::DeliveryLedger::tally), for all processes together.
///
/// # Examples
///
/// ```
/// use tower_web_push::engine::PruneBreaker;
/// use tower_web_push::store::{RetireReason, Tally};
///
/// let breaker = PruneBreaker::default();
/// assert!(!breaker.is_open(Tally::new(70, 30)));
/// assert!(breaker.is_open(Tally::new(69, 31)));
/// assert!(breaker.suspends(RetireReason::Gone, Tally::new(69, 31)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneBreaker {
    percent: u8,
}

impl PruneBreaker {
    /// The smallest number of responses with which the breaker can open.
    const SAMPLE: u64 = 50;
    /// The same for [`RetireReason::BadRequest`]: an error in what the application sends fails with 400 at every
    /// subscription, also of a small application.
    const BAD_REQUESTS: u64 = 8;

    /// A breaker that opens above `percent` percent of at least 50 responses; with 100 it never opens.
    #[must_use]
    pub const fn new(percent: u8) -> Self {
        Self { percent }
    }

    /// Whether pruning of the origin is suspended for every reason.
    #[must_use]
    pub const fn is_open(self, tally: Tally) -> bool {
        self.is_open_from(Self::SAMPLE, tally)
    }

    /// Whether pruning of the origin is suspended for this reason: a [`Change::Failed`](crate::store::Change::Failed) takes
    /// the place of each such [`Change::Retire`](crate::store::Change::Retire).
    ///
    /// For [`BadRequest`](RetireReason::BadRequest) 8 responses are enough, otherwise it takes 50.
    #[must_use]
    pub const fn suspends(self, reason: RetireReason, tally: Tally) -> bool {
        let sample = match reason {
            RetireReason::BadRequest => Self::BAD_REQUESTS,
            RetireReason::Gone | RetireReason::HostNotFound | RetireReason::Expired => Self::SAMPLE,
        };
        self.is_open_from(sample, tally)
    }

    /// Whether no row of the origin becomes stale: a wrong VAPID key fails at every subscription, as a bad request does, so 8
    /// responses are enough.
    pub(crate) const fn suspends_staleness(self, tally: Tally) -> bool {
        self.is_open_from(Self::BAD_REQUESTS, tally)
    }

    const fn is_open_from(self, sample: u64, tally: Tally) -> bool {
        let allowed = tally.answers().saturating_mul(self.percent as u64);
        tally.answers() >= sample && tally.gone.saturating_mul(100) > allowed
    }
}

impl Default for PruneBreaker {
    /// Opens above 30 percent.
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
    fn bad_requests_need_a_smaller_sample() {
        let breaker = PruneBreaker::default();
        for (tally, suspended) in [
            (Tally::new(0, 7), false),
            (Tally::new(0, 8), true),
            (Tally::new(8, 3), false),
            (Tally::new(5, 3), true),
        ] {
            assert_eq!(breaker.suspends(RetireReason::BadRequest, tally), suspended);
            assert!(!breaker.suspends(RetireReason::Gone, tally));
            assert!(!breaker.suspends(RetireReason::HostNotFound, tally));
        }
        for &reason in RetireReason::ALL {
            assert!(breaker.suspends(reason, Tally::new(0, 50)));
            assert!(!PruneBreaker::new(100).suspends(reason, Tally::new(0, 50)));
        }
    }

    #[test]
    fn a_hundred_percent_never_opens_it() {
        assert!(!PruneBreaker::new(100).is_open(Tally::new(0, 1_000)));
        assert!(PruneBreaker::new(0).is_open(Tally::new(999, 1)));
    }
}
