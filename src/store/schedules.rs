//! The contract of the schedules' table.

use async_trait::async_trait;

use super::{DeliveryLedger, NewBroadcast, StoreError};
use crate::clock::Timestamp;
use crate::schedule::{NotifyType, Schedule};
use crate::subscription::SubscriptionId;

/// Keeps daily notifications, in the ledger's own database.
///
/// # Contract
///
/// - **D1** [`put_schedule`](Self::put_schedule) inserts a subscription's schedule of a type or replaces it.
/// - **D2** [`schedules`](Self::schedules) lists those of one subscription, by type.
/// - **D3** [`remove_schedules`](Self::remove_schedules) removes those of one subscription, all or of one type.
/// - **D4** [`move_schedules`](Self::move_schedules) gives one subscription's schedules to another, where that has none
///   of the type; the rest is removed.
/// - **D5** [`due_schedules`](Self::due_schedules) lists those whose `next_fire_at` is not after `now`, the longest due first.
/// - **D6** [`fire`](Self::fire) opens the broadcast, if there is one, and moves `next_fire_at`, in one transaction, where it
///   still is the expected one; else it answers [`Fired::Stale`] and changes nothing. Of N concurrent calls
///   exactly one fires.
/// - **D7** [`last_run`](Self::last_run) is the latest moment that [`record_run`](Self::record_run) was given.
#[async_trait]
pub trait ScheduleStore: DeliveryLedger {
    /// Inserts or replaces a schedule (D1).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), StoreError>;

    /// The schedules of one subscription (D2).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn schedules(&self, subscription: SubscriptionId) -> Result<Vec<Schedule>, StoreError>;

    /// Removes schedules of one subscription (D3); how many.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn remove_schedules(
        &self,
        subscription: SubscriptionId,
        notify_type: Option<NotifyType>,
    ) -> Result<u64, StoreError>;

    /// Gives the schedules of one subscription to another (D4).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn move_schedules(
        &self,
        from: SubscriptionId,
        to: SubscriptionId,
    ) -> Result<(), StoreError>;

    /// The schedules that are due (D5).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn due_schedules(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Schedule>, StoreError>;

    /// Fires a schedule (D6). `schedule.next_fire_at` is the expected moment; with no broadcast the occurrence is
    /// skipped.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn fire(
        &self,
        schedule: &Schedule,
        next_fire_at: Timestamp,
        broadcast: Option<&NewBroadcast>,
        now: Timestamp,
    ) -> Result<Fired, StoreError>;

    /// Notes that due work was looked at (D7).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn record_run(&self, at: Timestamp) -> Result<(), StoreError>;

    /// When due work was last looked at, by anybody (D7).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn last_run(&self) -> Result<Option<Timestamp>, StoreError>;
}

/// What firing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "D6 names both")]
pub enum Fired {
    /// The broadcast is open and the schedule moved on.
    Fired,
    /// Somebody else has moved it, or it is gone.
    Stale,
}
