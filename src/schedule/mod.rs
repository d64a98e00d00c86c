//! Daily notifications: time, audience and content.

mod compose;
mod daily;
mod daily_time;
pub(crate) mod firing;
mod notify_type;
mod weekdays;
mod zone;

pub use compose::Compose;
pub use daily::{Daily, DailyError};
pub use daily_time::{DailyTime, DailyTimeError};
pub use notify_type::{NotifyType, NotifyTypeError};
pub use weekdays::{Weekdays, WeekdaysError};
pub use zone::Zone;
#[cfg(feature = "zones")]
pub use zone::ZoneError;

use std::fmt;
use std::sync::Arc;

use crate::broadcast::Audience;
use crate::clock::Timestamp;
use crate::error::unit_error;
use crate::message::Message;
use crate::subscription::SubscriptionId;
use crate::text::as_text;

/// A daily notification.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores handle every part: see `store`"
)]
pub struct Schedule {
    /// Its owner and its message.
    pub plan: Plan,
    /// Its time of day.
    pub time: DailyTime,
    /// The next moment it is due: derived from `time`, and up to 59 seconds later for a subscriber.
    pub next_fire_at: Timestamp,
}

/// The owner and the message of a daily notification.
#[derive(Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "D1: a schedule is one of these two"
)]
pub enum Plan {
    /// A subscriber's own, at most one of each type.
    Subscriber {
        /// Its subscription.
        subscription: SubscriptionId,
        /// Its type.
        notify_type: NotifyType,
        /// Its text; at most 100 Unicode scalar values.
        message: Option<String>,
    },
    /// The application's.
    Application {
        /// Its name.
        label: ScheduleLabel,
        /// Its audience, resolved each time.
        to: Audience,
        /// The message, unless the [`Compose`] callback returns another one.
        message: Message,
    },
}

impl fmt::Debug for Plan {
    /// Shows the length of a text, never the text: a payload is the user's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subscriber {
                subscription,
                notify_type,
                message,
            } => f
                .debug_struct("Subscriber")
                .field("subscription", subscription)
                .field("notify_type", notify_type)
                .field("message_chars", &daily::chars(message.as_deref()))
                .finish(),
            Self::Application { label, to, message } => f
                .debug_struct("Application")
                .field("label", label)
                .field("to", to)
                .field("message", message)
                .finish(),
        }
    }
}

/// The key of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "D1: a schedule is one of these two"
)]
pub enum ScheduleName {
    /// A subscriber's own, of a type.
    Subscriber(SubscriptionId, NotifyType),
    /// The application's.
    Application(ScheduleLabel),
}

impl Schedule {
    /// The longest message of a subscriber, in Unicode scalar values.
    const MAX_MESSAGE: usize = 100;

    /// A schedule that is next due at a moment.
    #[must_use]
    pub const fn new(plan: Plan, time: DailyTime, next_fire_at: Timestamp) -> Self {
        Self {
            plan,
            time,
            next_fire_at,
        }
    }

    /// Returns its key.
    #[must_use]
    pub fn name(&self) -> ScheduleName {
        match &self.plan {
            Plan::Subscriber {
                subscription,
                notify_type,
                ..
            } => ScheduleName::Subscriber(*subscription, *notify_type),
            Plan::Application { label, .. } => ScheduleName::Application(label.clone()),
        }
    }

    /// Returns its audience.
    #[must_use]
    pub fn audience(&self) -> Audience {
        match &self.plan {
            Plan::Subscriber { subscription, .. } => Audience::id(*subscription),
            Plan::Application { to, .. } => to.clone(),
        }
    }
}

/// The name of an application's schedule: 1 to 64 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScheduleLabel(Arc<str>);

impl ScheduleLabel {
    const MAX_LEN: usize = 64;

    /// A name.
    ///
    /// # Errors
    ///
    /// Returns an error for an empty text, one that is too long, or one with other characters.
    pub fn parse(text: &str) -> Result<Self, ScheduleLabelError> {
        let fits = (1..=Self::MAX_LEN).contains(&text.len());
        if !fits || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ScheduleLabelError(()));
        }
        Ok(Self(Arc::from(text)))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

as_text!(ScheduleLabel: Display);

unit_error! {
    /// A text that names no schedule.
    ScheduleLabelError, "the name of a schedule is 1 to 64 visible ASCII characters"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_1_to_64_visible_ascii_characters() {
        for (label, is_one) in [
            ("", false),
            ("!", true),
            ("n".repeat(64).as_str(), true),
            ("n".repeat(65).as_str(), false),
            ("a b", false),
            ("éa", false),
        ] {
            assert_eq!(ScheduleLabel::parse(label).is_ok(), is_one, "{label}");
        }
    }
}
