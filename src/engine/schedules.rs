//! The application's daily notifications.

use super::{Engine, SendError, SendErrorKind};
use crate::broadcast::Audience;
use crate::message::Message;
use crate::schedule::{DailyTime, Plan, Schedule, ScheduleLabel, ScheduleName};
use crate::store::StoreError;

impl Engine {
    /// Sends a message every day at a time. Replaces the schedule of this name.
    pub(crate) async fn schedule(
        &self,
        label: ScheduleLabel,
        time: DailyTime,
        to: Audience,
        message: Message,
    ) -> Result<(), SendError> {
        if message.is_too_large() {
            return Err(SendErrorKind::PayloadTooLarge.into());
        }
        let plan = Plan::Application { label, to, message };
        let first = plan.first_fire_at(&time, self.now());
        let first = first.ok_or(SendErrorKind::NeverDue)?;
        self.put_schedule(&Schedule::new(plan, time, first)).await?;
        Ok(())
    }

    /// Removes a schedule. Returns whether it existed.
    pub(crate) async fn unschedule(&self, label: &ScheduleLabel) -> Result<bool, StoreError> {
        let name = ScheduleName::Application(label.clone());
        // Whatever it is by now: nothing was read that it could differ from.
        self.ledger.remove_schedule(&name).await
    }

    pub(crate) async fn put_schedule(&self, schedule: &Schedule) -> Result<(), StoreError> {
        self.ledger.put_schedule(schedule).await?;
        self.signals.wake.notify_one();
        Ok(())
    }
}
