//! Erasing a user.

use super::Engine;
use crate::broadcast::{FinalOutcome, Principal};
use crate::clock::Timestamp;
use crate::observe;
use crate::schedule::Plan;
use crate::store::{StoreError, StoreErrorKind, SubscriptionRecord};
use crate::subscription::SubscriptionId;

/// The most looks at the application's schedules.
const LOOKS: usize = 10;

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
    /// Unfinished broadcasts to this user alone, and entries of the outbox that are for this user.
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
        forgotten.schedules += self.forget_schedules(user, &ids).await?;
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

    /// Removes the application's schedules that are only for a user. Returns their number.
    ///
    /// One that the application replaces meanwhile may be for others, and is looked at again.
    async fn forget_schedules(
        &self,
        user: &Principal,
        ids: &[SubscriptionId],
    ) -> Result<u64, StoreError> {
        let mut removed = 0;
        for _ in 0..LOOKS {
            let mut is_replaced = false;
            for schedule in self.ledger.schedules(None).await? {
                if let Plan::Application { to, .. } = &schedule.plan
                    && to.is_only_for(user, ids)
                {
                    match self.ledger.remove_unchanged_schedule(&schedule).await? {
                        true => removed += 1,
                        false => is_replaced = true,
                    }
                }
            }
            if !is_replaced {
                return Ok(removed);
            }
        }
        let why = "schedules of the user are replaced again and again";
        Err(StoreError::new(StoreErrorKind::Unavailable, why))
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
