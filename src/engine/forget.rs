//! Erasing a user.

use super::Engine;
use crate::broadcast::{FinalOutcome, Principal};
use crate::clock::Timestamp;
use crate::observe;
use crate::schedule::Plan;
use crate::store::{StoreError, SubscriptionRecord};

/// The numbers of what [`WebPush::forget`](crate::WebPush::forget) erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forgotten {
    /// Subscriptions, in every state.
    pub subscriptions: u64,
    /// Daily notifications: of these subscriptions, and of the application to this user alone.
    pub schedules: u64,
    /// Pending messages to these subscriptions, those in flight included.
    pub deliveries: u64,
    /// Unfinished broadcasts to this user alone.
    pub broadcasts: u64,
}

impl Engine {
    /// Erases a user. What is pending is erased before the subscriptions, which name it, so that an interrupted call can be
    /// repeated; and again after them, since broadcasts may have been expanded and schedules fired in between. A
    /// subscription that another user has taken over stays, with its schedules.
    pub(crate) async fn forget(&self, user: &Principal) -> Result<Forgotten, StoreError> {
        let rows = self.rows_of(user).await?;
        let mut forgotten = Forgotten::default();
        let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        for schedule in self.ledger.schedules(None).await? {
            if let Plan::Application { to, .. } = &schedule.plan
                && to.is_only_for(user, &ids)
                && self.ledger.remove_schedule(&schedule.name()).await?
            {
                forgotten.schedules += 1;
            }
        }
        self.erase(user, &rows, &mut forgotten).await?;
        let mut deleted = Vec::new();
        for row in rows {
            if self.delete(&row, Timestamp::MAX).await? {
                forgotten.schedules += self.ledger.remove_schedules(row.id).await?;
                deleted.push(row);
            }
        }
        forgotten.subscriptions = deleted.len() as u64;
        self.erase(user, &deleted, &mut forgotten).await?;
        self.signals.settled.notify_waiters();
        Ok(forgotten)
    }

    async fn erase(
        &self,
        user: &Principal,
        rows: &[SubscriptionRecord],
        forgotten: &mut Forgotten,
    ) -> Result<(), StoreError> {
        let erased = self.ledger.erase(user, rows, self.now()).await?;
        observe::count_finished(FinalOutcome::Cancelled.as_str(), erased.deliveries);
        forgotten.deliveries += erased.deliveries;
        forgotten.broadcasts += erased.broadcasts;
        Ok(())
    }
}
