//! Daily notifications: when, and what they say.

mod daily_time;

pub use daily_time::{DailyTime, DailyTimeError};

use std::fmt;
use std::str::FromStr;

use crate::clock::Timestamp;
use crate::subscription::SubscriptionId;

/// One subscription's daily notification of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Schedule {
    /// Whose. Together with the type it names the schedule.
    pub subscription: SubscriptionId,
    /// Its type.
    pub notify_type: NotifyType,
    /// When.
    pub time: DailyTime,
    /// What a direct notification says; at most [`Schedule::MAX_MESSAGE`] Unicode scalar values.
    pub message: Option<String>,
    /// The next moment it is due.
    pub next_fire_at: Timestamp,
}

impl Schedule {
    /// The longest message, in Unicode scalar values.
    pub const MAX_MESSAGE: usize = 100;

    /// A schedule that is next due at a moment.
    #[must_use]
    pub const fn new(
        subscription: SubscriptionId,
        notify_type: NotifyType,
        time: DailyTime,
        next_fire_at: Timestamp,
    ) -> Self {
        Self {
            subscription,
            notify_type,
            time,
            message: None,
            next_fire_at,
        }
    }
}

/// The two types of a daily notification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum NotifyType {
    /// Wakes the application, which looks whether there is anything to say.
    #[default]
    DailyCheck,
    /// Says what the subscriber asked to be told.
    DirectNotification,
}

impl NotifyType {
    /// Both.
    pub const ALL: [Self; 2] = [Self::DailyCheck, Self::DirectNotification];

    /// The name that JSON and stores use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DailyCheck => "DAILY_CHECK",
            Self::DirectNotification => "DIRECT_NOTIFICATION",
        }
    }
}

impl fmt::Display for NotifyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for NotifyType {
    type Err = NotifyTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|notify_type| notify_type.as_str() == text)
            .ok_or(NotifyTypeError(()))
    }
}

/// A text that is not a [`NotifyType`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotifyTypeError(());

impl fmt::Display for NotifyTypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the type is neither DAILY_CHECK nor DIRECT_NOTIFICATION")
    }
}

impl std::error::Error for NotifyTypeError {}
