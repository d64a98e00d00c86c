//! Erasing a user.

use super::Engine;
use crate::broadcast::Principal;
use crate::schedule::Plan;
use crate::store::StoreError;

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
    /// Erases a user: schedules first, so that they open no further broadcasts; subscriptions last, since they name
    /// the rest.
    pub(crate) async fn forget(&self, user: &Principal) -> Result<Forgotten, StoreError> {
        let rows = self.rows_of(user).await?;
        let mut forgotten = Forgotten::default();
        for row in &rows {
            forgotten.schedules += self.ledger.remove_schedules(row.id).await?;
        }
        let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        for schedule in self.ledger.schedules(None).await? {
            if let Plan::Application { to, .. } = &schedule.plan
                && to.is_only_for(user, &ids)
                && self.ledger.remove_schedule(&schedule.name()).await?
            {
                forgotten.schedules += 1;
            }
        }
        let erased = self.ledger.erase(user, &rows, self.now()).await?;
        forgotten.deliveries = erased.deliveries;
        forgotten.broadcasts = erased.broadcasts;
        let delete: Vec<_> = rows
            .iter()
            .map(|row| crate::store::Change::Delete(row.subscription.endpoint().key()))
            .collect();
        forgotten.subscriptions = self.subscriptions.apply(&delete, self.now()).await?;
        self.signals.settled.notify_waiters();
        Ok(forgotten)
    }
}
