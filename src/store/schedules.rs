//! The contract of a schedules table.

use async_trait::async_trait;

use super::{DayCount, DeliveryLedger, NewBroadcast, StoreError};
use crate::clock::Timestamp;
use crate::schedule::{Schedule, ScheduleName};
use crate::subscription::SubscriptionId;

/// A store of daily notifications, in the ledger's own database.
///
/// # Stability
///
/// Open to implementations outside this crate: see [the module](crate::store#implementing-them). Before 1.0 a minor
/// version may add a required method.
///
/// # Contract
///
/// - **D1** [`put_schedule`](Self::put_schedule) inserts a schedule or replaces the one of its name. If the stored
///   one has the same time (hour, minute, zone, days), it keeps its `next_fire_at`: what is due stays due.
/// - **D2** [`schedules`](Self::schedules) lists those of one subscription, or the application's own, by name. One that
///   cannot be read is left out.
/// - **D3** [`remove_schedule`](Self::remove_schedule) removes the one of a name,
///   [`remove_schedules`](Self::remove_schedules) all of a subscription.
/// - **D4** [`move_schedules`](Self::move_schedules) moves the schedules of one subscription to another, except for
///   types that the other one has. Those are removed.
/// - **D5** [`due_schedules`](Self::due_schedules) lists schedules whose `next_fire_at` is not after `now`, the
///   longest due first. One that cannot be read is left out, and its place is taken by the next one; if none of them can
///   be read, the error is [`Corrupt`](crate::store::StoreErrorKind::Corrupt).
/// - **D6** [`fire`](Self::fire) opens the broadcast of each firing, if there is one, and moves `next_fire_at` if it
///   is the expected one; else it returns [`Fired::Stale`] and changes nothing. All firings of a call are one
///   transaction. Of N concurrent calls exactly one fires. After an error by damaged data some may have fired: they are
///   `Stale` in the next call. One whose broadcast cannot be opened may be left out of D5 and D8 for five minutes.
/// - **D7** [`last_run`](Self::last_run) is the latest moment given to [`record_run`](Self::record_run).
/// - **D8** [`next_fire_at`](Self::next_fire_at) is the earliest of all schedules.
/// - **D9** [`remove_unchanged_schedule`](Self::remove_unchanged_schedule) removes a schedule if its plan and its time are
///   still those that the caller has read, whatever its `next_fire_at` is now. One that was replaced since stays.
/// - **D10** [`unreadable_schedules`](Self::unreadable_schedules) is the number of those that `schedules` leaves out: while
///   there are any, one that it does not list may be there.
/// - **D11** [`record_days`](Self::record_days) keeps the number of each day that has none yet. A number that is kept is never
///   replaced, whatever a later call says, so that a wrong clock changes no earlier day. The [`DAYS`](super::DAYS) latest days
///   are kept: the day of a clock that is ahead takes the place of the earliest one, and of no other.
/// - **D12** [`days`](Self::days) lists the days that are kept and are not after that of `now`, the earliest first. One that
///   cannot be read is left out.
#[async_trait]
pub trait ScheduleStore: DeliveryLedger {
    /// Inserts or replaces a schedule (D1).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), StoreError>;

    /// Lists the schedules of one subscription, or with `None` those of the application (D2).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn schedules(&self, of: Option<SubscriptionId>) -> Result<Vec<Schedule>, StoreError>;

    /// Counts the schedules that [`schedules`](Self::schedules) leaves out since they cannot be read (D10). Default: none, which
    /// is right for a store that leaves out none.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn unreadable_schedules(&self, of: Option<SubscriptionId>) -> Result<u64, StoreError> {
        let _ = of;
        Ok(0)
    }

    /// Removes a schedule (D3). Returns whether it existed.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn remove_schedule(&self, name: &ScheduleName) -> Result<bool, StoreError>;

    /// Removes a schedule unless it was replaced since it was read (D9). Returns whether it was removed.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn remove_unchanged_schedule(&self, schedule: &Schedule) -> Result<bool, StoreError>;

    /// Removes the schedules of one subscription (D3). Returns their number.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn remove_schedules(&self, of: SubscriptionId) -> Result<u64, StoreError>;

    /// Moves the schedules of one subscription to another (D4).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn move_schedules(
        &self,
        from: SubscriptionId,
        to: SubscriptionId,
    ) -> Result<(), StoreError>;

    /// Lists the schedules that are due (D5).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn due_schedules(
        &self,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Schedule>, StoreError>;

    /// Fires schedules (D6). Returns one result each, in order.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn fire(&self, firings: &[Firing], now: Timestamp) -> Result<Vec<Fired>, StoreError>;

    /// Returns the earliest due time, which may be past (D8), or `None` without schedules.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn next_fire_at(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Records a poll for due schedules (D7).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn record_run(&self, at: Timestamp) -> Result<(), StoreError>;

    /// Returns the time of the last poll for due schedules by any process (D7).
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn last_run(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Keeps numbers of days (D11). Each process with a worker calls it once a day with that
    /// of today, and again every hour while it fails.
    ///
    /// Default: keeps nothing. The history in `GET /stats` is empty then.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn record_days(&self, counts: &[DayCount]) -> Result<(), StoreError> {
        let _ = counts;
        Ok(())
    }

    /// Lists the days that are kept (D12). Default: none.
    ///
    /// # Errors
    ///
    /// Returns an error if the store is unavailable.
    async fn days(&self, now: Timestamp) -> Result<Vec<DayCount>, StoreError> {
        let _ = now;
        Ok(Vec::new())
    }
}

/// One schedule to fire.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct Firing {
    /// The schedule's name.
    pub name: ScheduleName,
    /// The expected `next_fire_at`.
    pub expected: Timestamp,
    /// The new `next_fire_at`.
    pub next_fire_at: Timestamp,
    /// The broadcast to open. `None`: the occurrence is skipped.
    pub broadcast: Option<NewBroadcast>,
}

impl Firing {
    /// Makes a firing that moves a schedule from `expected` to `next_fire_at`.
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

/// The result of firing a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "D6 names both")]
pub enum Fired {
    /// The broadcast is opened and the schedule is moved.
    Fired,
    /// Another call has moved the schedule, or it is deleted.
    Stale,
}
