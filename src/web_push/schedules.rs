//! The application's daily notifications.

use super::WebPush;
use crate::broadcast::{Audience, SendError, SendErrorKind};
use crate::message::Message;
use crate::schedule::{DailyTime, Plan, Schedule, ScheduleLabel, ScheduleName};
use crate::store::StoreError;

impl WebPush {
    /// Sends a message every day at a time, to whoever is in the audience then. A schedule of this name is replaced.
    ///
    /// What it says can be decided when it is due: [`Builder::compose`](crate::Builder::compose). Missed while nothing ran, an occurrence is
    /// sent up to 24 hours late, and skipped after that; no local date has two, unless
    /// another time is said in between.
    ///
    /// # Errors
    ///
    /// A payload above [`Message::MAX_PAYLOAD`], a zone that is not known here, or a store that does not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropped while the store is writing, the schedule may be there.
    pub async fn schedule(
        &self,
        label: ScheduleLabel,
        time: DailyTime,
        to: impl Into<Audience> + Send,
        message: impl Into<Message> + Send,
    ) -> Result<(), SendError> {
        let (to, message) = (to.into(), message.into());
        if message.is_too_large() {
            return Err(SendErrorKind::PayloadTooLarge.into());
        }
        let plan = Plan::Application { label, to, message };
        let first = plan.first_fire_at(&time, self.now());
        let first = first.ok_or(SendErrorKind::NeverDue)?;
        self.put_schedule(&Schedule::new(plan, time, first)).await?;
        Ok(())
    }

    /// Ends a schedule; whether there was one.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    pub async fn unschedule(&self, label: &ScheduleLabel) -> Result<bool, StoreError> {
        let name = ScheduleName::Application(label.clone());
        self.ledger().remove_schedule(&name).await
    }

    /// The application's schedules, by name.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    pub async fn schedules(&self) -> Result<Vec<Schedule>, StoreError> {
        self.ledger().schedules(None).await
    }

    pub(crate) async fn put_schedule(&self, schedule: &Schedule) -> Result<(), StoreError> {
        self.ledger().put_schedule(schedule).await?;
        self.inner.wake.notify_one();
        Ok(())
    }
}
