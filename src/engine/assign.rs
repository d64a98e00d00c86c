//! An administrator's change of a subscription's user and tags.

use super::register::check_labels;
use super::{Engine, RegisterError};
use crate::store::{Assignment, NewSubscription, SubscriptionRecord, SubscriptionRef, Upserted};
use crate::subscription::SubscriptionId;

impl Engine {
    /// Sets the user and the tags of a subscription. Returns the row after it, or `None` if there is none of this id.
    pub(crate) async fn assign(
        &self,
        id: SubscriptionId,
        assignment: Assignment,
    ) -> Result<Option<SubscriptionRecord>, RegisterError> {
        let principal = assignment.principal.as_ref().and_then(Option::as_ref);
        check_labels(principal, assignment.tags.as_ref())?;
        let Some(row) = self.row(SubscriptionRef::Id(id)).await? else {
            return Ok(None);
        };
        let new = NewSubscription::assigning(&row, assignment);
        let stored = self.subscriptions.upsert(&new, &self.limits, self.now());
        Ok(match stored.await? {
            Upserted::Stored { record, .. } => Some(*record),
            // Deleted, or registered anew, since it was read.
            Upserted::Conflict => None,
        })
    }
}
