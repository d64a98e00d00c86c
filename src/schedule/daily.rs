//! A subscriber's daily notification before it is stored.

use std::fmt;

use super::{DailyTime, NotifyType, Plan, Schedule};
use crate::clock::Timestamp;
use crate::error::unit_error;
use crate::subscription::SubscriptionId;

/// A daily notification that a subscriber requests: its type, time and text.
#[derive(Clone, PartialEq, Eq)]
pub struct Daily {
    notify_type: NotifyType,
    time: DailyTime,
    message: Option<String>,
}

impl Daily {
    /// Makes one of a type, a time, and a text of at most 100 Unicode scalar values. An empty text counts as none.
    ///
    /// # Errors
    ///
    /// Returns an error if the text is longer.
    pub fn new(
        notify_type: NotifyType,
        time: DailyTime,
        message: Option<&str>,
    ) -> Result<Self, DailyError> {
        Ok(Self {
            notify_type,
            time,
            message: Self::message(message)?.map(str::to_owned),
        })
    }

    /// Checks a text for a daily notification.
    pub(crate) fn message(text: Option<&str>) -> Result<Option<&str>, DailyError> {
        // A form sends an empty text for an empty field.
        match text.filter(|text| !text.is_empty()) {
            Some(text) if text.chars().count() > Schedule::MAX_MESSAGE => Err(DailyError(())),
            text => Ok(text),
        }
    }

    /// Its type, of which a subscriber has at most one.
    #[must_use]
    pub(crate) const fn notify_type(&self) -> NotifyType {
        self.notify_type
    }

    /// Returns the schedule of a stored subscription, due at its first occurrence after a moment, which may be past.
    /// `None` if its zone is unknown, or at the end of time.
    pub(crate) fn schedule(self, id: SubscriptionId, after: Timestamp) -> Option<Schedule> {
        let plan = Plan::Subscriber {
            subscription: id,
            notify_type: self.notify_type,
            message: self.message,
        };
        let first = plan.first_fire_at(&self.time, after)?;
        Some(Schedule::new(plan, self.time, first))
    }
}

impl fmt::Debug for Daily {
    /// Shows the length of the text, never the text: a payload is the user's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daily")
            .field("notify_type", &self.notify_type)
            .field("time", &self.time)
            .field("message_chars", &chars(self.message.as_deref()))
            .finish()
    }
}

/// Returns the length of a text, which may be printed.
pub(super) fn chars(text: Option<&str>) -> Option<usize> {
    text.map(|text| text.chars().count())
}

unit_error! {
    /// A text that is too long for a daily notification.
    DailyError, "the message is longer than 100 characters"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_at_most_a_hundred_unicode_scalar_values() {
        let daily = |text: &str| {
            let time = DailyTime::new(8, 0).unwrap();
            Daily::new(NotifyType::DirectNotification, time, Some(text))
        };
        assert!(daily(&"ä".repeat(100)).is_ok());
        assert_eq!(daily(&"ä".repeat(101)), Err(DailyError(())));
        assert_eq!(daily("").unwrap().message, None);
    }

    #[test]
    fn what_it_says_is_not_printed() {
        let time = DailyTime::new(8, 0).unwrap();
        let text = Some("take your pills");
        let daily = Daily::new(NotifyType::DirectNotification, time, text).unwrap();
        let schedule = daily
            .clone()
            .schedule(SubscriptionId::random(), Timestamp::from_millis(0))
            .unwrap();
        for printed in [format!("{daily:?}"), format!("{schedule:?}")] {
            assert!(printed.contains("message_chars: Some(15)"), "{printed}");
            assert!(!printed.contains("pills"), "{printed}");
        }
    }
}
