//! What follows from an attempt: for its delivery, and for its subscription.

use crate::broadcast::FinalOutcome;
use crate::store::{Change, FailureCause, Settlement};

/// The consequence of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Consequence {
    /// What to do with the delivery.
    pub settlement: Settlement,
    /// Changes to the subscription, for [`SubscriptionStore::apply`](crate::store::SubscriptionStore::apply). They are
    /// written before the delivery is settled, so that a crash between the two repeats the attempt.
    ///
    /// The [`PruneBreaker`](super::PruneBreaker) judges [`Change::Retire`] and [`Change::Stale`]: while it
    /// [suspends](super::PruneBreaker::suspends) them, [`Change::Failed`] takes their place.
    pub changes: Vec<Change>,
    /// The response is "gone" once more, after attempts that failed for days. The row is retired also while the breaker is
    /// open, if its push service accepts messages for other rows: otherwise rows that never existed would stay for ever.
    pub is_gone_for_days: bool,
    /// Why the delivery failed, if a request was made and did not reach its recipient. For
    /// [`Settlement::Failed`](Self::settled).
    pub cause: Option<FailureCause>,
}

impl Consequence {
    /// A finished delivery that changes nothing about its subscription.
    #[must_use]
    pub const fn finished(outcome: FinalOutcome) -> Self {
        Self {
            settlement: Settlement::Finished(outcome),
            changes: Vec::new(),
            is_gone_for_days: false,
            cause: None,
        }
    }

    /// What to do with the delivery, with the cause if it has failed.
    #[must_use]
    pub const fn settled(&self) -> Settlement {
        match (self.settlement, self.cause) {
            (Settlement::Finished(outcome), Some(cause)) => Settlement::Failed(outcome, cause),
            (settlement, _) => settlement,
        }
    }

    pub(super) fn with(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }
}

/// A settlement that changes nothing about the subscription.
impl From<Settlement> for Consequence {
    fn from(settlement: Settlement) -> Self {
        Self {
            settlement,
            changes: Vec::new(),
            is_gone_for_days: false,
            cause: None,
        }
    }
}
