//! Parsing a notification from JSON: the members of the HTTP API's `/notify`.

use std::error::Error;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{Action, Direction, Notification};
use crate::clock::Timestamp;
use crate::json::whole_number;
use crate::message::{MessageError, MessageErrorKind};

impl Notification {
    /// The members that [`from_members`](Self::from_members) reads.
    #[cfg(feature = "api")]
    pub(crate) const MEMBERS: [&'static str; 18] = [
        "title",
        "body",
        "url",
        "dir",
        "lang",
        "tag",
        "image",
        "icon",
        "badge",
        "vibrate",
        "timestamp",
        "renotify",
        "silent",
        "requireInteraction",
        "data",
        "actions",
        "mutable",
        "app_badge",
    ];

    /// Reads the members of a JSON object: `title`, `body`, `url`, `dir`, `lang`, `tag`, `image`,
    /// `icon`, `badge`, `vibrate`, `timestamp`, `renotify`, `silent`, `requireInteraction`, `data`,
    /// `actions`, `mutable`, `app_badge`.
    ///
    /// `title` is required; null counts as absent, and unknown members are ignored.
    ///
    /// # Errors
    ///
    /// [`InvalidNotification`](MessageErrorKind::InvalidNotification) when a member has the wrong type;
    /// [`MessageError::member`] says which, the source also what was expected.
    pub(crate) fn from_members(members: &Map<String, Value>) -> Result<Self, MessageError> {
        let from = Members { members, path: "" };
        let title = from.text("title")?;
        let mut to = Self::new(title.ok_or_else(|| from.invalid("title", TEXT))?);
        to.body = from.text("body")?;
        to.url = from.text("url")?;
        to.dir = from.map("dir", "auto, ltr or rtl", |value| {
            let text = value.as_str()?;
            Direction::ALL
                .iter()
                .copied()
                .find(|dir| dir.as_str() == text)
        })?;
        to.lang = from.text("lang")?;
        to.tag = from.text("tag")?;
        to.image = from.text("image")?;
        to.icon = from.text("icon")?;
        to.badge = from.text("badge")?;
        to.vibrate = from.map("vibrate", "milliseconds, one number or an array", pattern)?;
        to.timestamp = from.map("timestamp", "milliseconds since 1970, a number", |value| {
            let millis = i64::try_from(whole_number(value)?).ok()?;
            Some(Timestamp::from_millis(millis))
        })?;
        to.renotify = from.flag("renotify")?;
        to.silent = from.flag("silent")?;
        to.require_interaction = from.flag("requireInteraction")?;
        to.data = from.map("data", "anything", |data| Some(data.clone()))?;
        to.actions = actions(&from)?;
        to.mutable = from.flag("mutable")?;
        to.app_badge = from.map("app_badge", "a number from 0", whole_number)?;
        Ok(to)
    }
}

impl<'de> Deserialize<'de> for Notification {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_members(&Map::deserialize(deserializer)?).map_err(|error| {
            // serde keeps only one text, so the cause has to be in it.
            match error.source() {
                Some(source) => D::Error::custom(source),
                None => D::Error::custom(error),
            }
        })
    }
}

impl MessageError {
    /// The member of a notification that was wrong, for example `actions[1].title`.
    #[must_use]
    pub fn member(&self) -> Option<&str> {
        let invalid = self.source()?.downcast_ref::<InvalidMember>()?;
        Some(&invalid.member)
    }
}

const TEXT: &str = "a string";

/// The members of one object, and its path.
struct Members<'a> {
    members: &'a Map<String, Value>,
    path: &'a str,
}

impl Members<'_> {
    fn text(&self, member: &str) -> Result<Option<String>, MessageError> {
        self.map(member, TEXT, |value| value.as_str().map(ToOwned::to_owned))
    }

    fn flag(&self, member: &str) -> Result<Option<bool>, MessageError> {
        self.map(member, "true or false", Value::as_bool)
    }

    /// Returns `None` for an absent member, and an error if `read` refuses a present one.
    fn map<T>(
        &self,
        member: &str,
        expected: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, MessageError> {
        match self.members.get(member) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value)
                .map(Some)
                .ok_or_else(|| self.invalid(member, expected)),
        }
    }

    fn invalid(&self, member: &str, expected: &'static str) -> MessageError {
        invalid(format!("{}{member}", self.path), expected)
    }
}

fn actions(from: &Members<'_>) -> Result<Vec<Action>, MessageError> {
    const OBJECTS: &str = "an array of objects";
    let list = from.map("actions", OBJECTS, |value| value.as_array().cloned())?;
    let mut actions = Vec::new();
    for (index, action) in list.into_iter().flatten().enumerate() {
        let path = format!("actions[{index}]");
        let Value::Object(members) = action else {
            return Err(invalid(path, "an object"));
        };
        let from = Members {
            members: &members,
            path: &format!("{path}."),
        };
        let required = |member| from.text(member)?.ok_or_else(|| from.invalid(member, TEXT));
        let mut action = Action::new(required("action")?, required("title")?);
        action.navigate = from.text("navigate")?;
        action.icon = from.text("icon")?;
        actions.push(action);
    }
    Ok(actions)
}

fn pattern(value: &Value) -> Option<Vec<u32>> {
    let millis = |value: &Value| u32::try_from(whole_number(value)?).ok();
    match value {
        Value::Array(values) => values.iter().map(millis).collect(),
        other => millis(other).map(|one| vec![one]),
    }
}

fn invalid(member: String, expected: &'static str) -> MessageError {
    MessageError::with_source(
        MessageErrorKind::InvalidNotification,
        InvalidMember { member, expected },
    )
}

/// Names a member and its expected value, never the given one.
#[derive(Debug)]
struct InvalidMember {
    member: String,
    expected: &'static str,
}

impl fmt::Display for InvalidMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}", self.member, self.expected)
    }
}

impl Error for InvalidMember {}
