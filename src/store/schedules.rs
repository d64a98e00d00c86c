//! The contract of the schedules' table.

use async_trait::async_trait;

use super::{DeliveryLedger, NewBroadcast, StoreError};
use crate::clock::Timestamp;
use crate::schedule::{Schedule, ScheduleName};
use crate::subscription::SubscriptionId;

/// Keeps daily notifications, in the ledger's own database.
///
/// # Stability
///
/// Open to implementations outside this crate: see [the module](crate::store#implementing-them). Before 1.0 a minor
/// version may add a required method.
///
/// # Contract
///
/// - **D1** [`put_schedule`](Self::put_schedule) inserts a schedule or replaces the one of its name. Where the stored one
///   has the same time (hour, minute, zone, days), it keeps its `next_fire_at`: what is due stays due.
/// - **D2** [`schedules`](Self::schedules) lists those of one subscription, or the application's own, by name.
/// - **D3** [`remove_schedule`](Self::remove_schedule) removes the one of a name,
///   [`remove_schedules`](Self::remove_schedules) all of a subscription.
/// - **D4** [`move_schedules`](Self::move_schedules) gives one subscription's schedules to another, where that has none
///   of the type; the rest is removed.
/// - **D5** [`due_schedules`](Self::due_schedules) lists those whose `next_fire_at` is not after `now`, the longest due first.
/// - **D6** [`fire`](Self::fire), for each firing: opens the broadcast, if there is one, and moves `next_fire_at`, where
///   it still is the expected one; else it answers [`Fired::Stale`] and changes nothing. All firings of a call are
///   one transaction. Of N concurrent calls exactly one fires.
/// - **D7** [`last_run`](Self::last_run) is the latest moment that [`record_run`](Self::record_run) was given.
/// - **D8** [`next_fire_at`](Self::next_fire_at) is the earliest of all schedules.
#[async_trait]
pub trait ScheduleStore: DeliveryLedger {
    /// Inserts or replaces a schedule (D1).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), StoreError>;

    /// The schedules of one subscription, or with `None` the application's own (D2).
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn schedules(&self, of: Option<SubscriptionId>) -> Result<Vec<Schedule>, StoreError>;

    /// Removes a schedule (D3); whether there was one.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn remove_schedule(&self, name: &ScheduleName) -> Result<bool, StoreError>;

    /// Removes the schedules of one subscription (D3); how many.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn remove_schedules(&self, of: SubscriptionId) -> Result<u64, StoreError>;

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

    /// Fires schedules (D6); one answer each, in order.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn fire(&self, firings: &[Firing], now: Timestamp) -> Result<Vec<Fired>, StoreError>;

    /// When the next schedule is due, or since when (D8); `None` when there is none.
    ///
    /// # Errors
    ///
    /// What keeps the store from working.
    async fn next_fire_at(&self) -> Result<Option<Timestamp>, StoreError>;

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

/// One schedule to fire.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle all of it: see `store`"
)]
pub struct Firing {
    /// Which.
    pub name: ScheduleName,
    /// What its `next_fire_at` has to be.
    pub expected: Timestamp,
    /// What it becomes.
    pub next_fire_at: Timestamp,
    /// What to open; with none the occurrence is skipped.
    pub broadcast: Option<NewBroadcast>,
}

impl Firing {
    /// A schedule, from its present moment to the next.
    #[must_use]
    pub fn new(
        schedule: &Schedule,
        next_fire_at: Timestamp,
        broadcast: Option<NewBroadcast>,
    ) -> Self {
        Self {
            name: schedule.name(),
            expected: schedule.next_fire_at,
            next_fire_at,
            broadcast,
        }
    }
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
