//! The two types of a subscriber's daily notification.

use std::str::FromStr;

use serde::Serialize;

use crate::error::unit_error;
use crate::message::Message;
use crate::text::as_text;

/// The two types of a daily notification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum NotifyType {
    /// Wakes the application's callback, which decides whether to send.
    #[default]
    DailyCheck,
    /// Sends the subscriber's own text.
    DirectNotification,
}

impl NotifyType {
    /// Both.
    pub const ALL: &'static [Self] = &[Self::DailyCheck, Self::DirectNotification];

    /// The name that JSON and stores use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DailyCheck => "DAILY_CHECK",
            Self::DirectNotification => "DIRECT_NOTIFICATION",
        }
    }
}

impl NotifyType {
    /// Makes the message of a subscriber's daily notification, in the form of the replaced server: the type is the
    /// title, and a direct one always has a text.
    pub(crate) fn message(self, text: Option<&str>, default_text: &str) -> Message {
        #[derive(Serialize)]
        struct Payload<'a> {
            title: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            message: Option<&'a str>,
        }
        let message = match self {
            Self::DailyCheck => text,
            Self::DirectNotification => text.or(Some(default_text)),
        };
        let payload = Payload {
            title: self.as_str(),
            message,
        };
        // Two texts always serialize to JSON.
        Message::new(serde_json::to_vec(&payload).unwrap_or_default())
    }
}

as_text!(NotifyType: Display);

impl FromStr for NotifyType {
    type Err = NotifyTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|notify_type| notify_type.as_str() == text)
            .ok_or(NotifyTypeError(()))
    }
}

unit_error! {
    /// A text that is not a [`NotifyType`].
    NotifyTypeError, "the type is neither DAILY_CHECK nor DIRECT_NOTIFICATION"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(notify_type: NotifyType, text: Option<&str>) -> String {
        let message = notify_type.message(text, "Hello again.");
        String::from_utf8(message.payload().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn payloads_are_those_of_the_replaced_server() {
        use NotifyType::{DailyCheck, DirectNotification};
        for (notify_type, message, payload) in [
            (DailyCheck, None, r#"{"title":"DAILY_CHECK"}"#),
            (
                DailyCheck,
                Some("a"),
                r#"{"title":"DAILY_CHECK","message":"a"}"#,
            ),
            (
                DirectNotification,
                Some("\"Grüße\""),
                r#"{"title":"DIRECT_NOTIFICATION","message":"\"Grüße\""}"#,
            ),
            (
                DirectNotification,
                None,
                r#"{"title":"DIRECT_NOTIFICATION","message":"Hello again."}"#,
            ),
        ] {
            assert_eq!(text(notify_type, message), payload);
        }
    }
}
