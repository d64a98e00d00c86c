//! The audience of a message.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::unit_error;
use crate::subscription::SubscriptionId;
use crate::text::as_text;

/// The subscriptions that a message is for (VAPID's `aud` is another thing: see [`Origin`](crate::subscription::Origin)).
///
/// Its JSON is `"all"`, `{"user":"…"}`, `{"tag":"…"}` or `{"ids":["…"]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(
    clippy::exhaustive_enums,
    reason = "stores handle every part: see `store`"
)]
pub enum Audience {
    /// Every live subscription.
    All,
    /// The live subscriptions of one principal.
    User(Principal),
    /// The live subscriptions with a tag.
    Tag(Tag),
    /// Those of these subscriptions that are live; unknown ids are ignored.
    Ids(Vec<SubscriptionId>),
}

impl Audience {
    /// The subscriptions of one principal.
    #[must_use]
    pub fn user(principal: impl Into<Principal>) -> Self {
        Self::User(principal.into())
    }

    /// One subscription.
    #[must_use]
    pub fn id(id: SubscriptionId) -> Self {
        Self::Ids(vec![id])
    }

    /// Whether it reaches only a user, who has these subscriptions.
    #[must_use]
    pub fn is_only_for(&self, user: &Principal, subscriptions: &[SubscriptionId]) -> bool {
        match self {
            Self::All | Self::Tag(_) => false,
            Self::User(principal) => principal == user,
            Self::Ids(ids) => !ids.is_empty() && ids.iter().all(|id| subscriptions.contains(id)),
        }
    }
}

impl From<SubscriptionId> for Audience {
    fn from(id: SubscriptionId) -> Self {
        Self::id(id)
    }
}

/// The user that a subscription belongs to, in the application's own terms: a user id, an account name of at most
/// [`MAX_LEN`](Self::MAX_LEN) octets.
///
/// The application's authentication layer puts it into the request's extensions; it never comes from a
/// body.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Principal(Arc<str>);

impl Principal {
    /// The longest name that a subscription is stored with, in octets. An index of PostgreSQL holds no name of 2,700 and more.
    pub const MAX_LEN: usize = 1024;

    /// A principal by its name. One that is too long has no subscriptions: they are refused.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_too_long(&self) -> bool {
        self.0.len() > Self::MAX_LEN
    }
}

impl From<&str> for Principal {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for Principal {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl From<Principal> for String {
    fn from(principal: Principal) -> Self {
        principal.0.as_ref().to_owned()
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Principal({})", self.0)
    }
}

/// A label that subscriptions carry and messages can be sent to: 1 to 64 of `A-Z a-z 0-9 . _ : -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

impl Tag {
    const MAX_LEN: usize = 64;

    /// The most tags that one subscription carries.
    pub(crate) const MAX_PER_SUBSCRIPTION: usize = 32;

    /// Parses a tag.
    ///
    /// # Errors
    ///
    /// Returns an error if it is empty, too long, or contains another character.
    pub fn parse(text: &str) -> Result<Self, TagError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        if text.is_empty() || text.len() > Self::MAX_LEN || !text.bytes().all(allowed) {
            return Err(TagError(()));
        }
        Ok(Self(text.into()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

as_text!(Tag: Display, Serialize, Deserialize);

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

unit_error! {
    /// A text that is not a [`Tag`].
    TagError, "a tag is 1 to 64 of the characters A-Z a-z 0-9 . _ : -"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_audience_has_the_json_of_the_http_api() {
        let id = SubscriptionId::random();
        for (audience, json) in [
            (Audience::All, json!("all")),
            (Audience::user("alice"), json!({"user": "alice"})),
            (
                Audience::Tag(Tag::parse("news").unwrap()),
                json!({"tag": "news"}),
            ),
            (Audience::id(id), json!({"ids": [id.to_string()]})),
        ] {
            assert_eq!(serde_json::to_value(&audience).unwrap(), json);
            assert_eq!(serde_json::from_value::<Audience>(json).unwrap(), audience);
        }
    }

    #[test]
    fn other_json_is_no_audience() {
        for json in [
            json!("some"),
            json!({}),
            json!({"user": 7}),
            json!({"user": "a", "tag": "b"}),
            json!({"tag": "a b"}),
            json!({"ids": ["x"]}),
        ] {
            assert!(
                serde_json::from_value::<Audience>(json.clone()).is_err(),
                "{json}"
            );
        }
    }

    #[test]
    fn an_audience_is_only_for_a_user_if_it_reaches_no_other() {
        let ids = [SubscriptionId::random(), SubscriptionId::random()];
        let alice = Principal::from("alice");
        let is_only_for = |audience: Audience| audience.is_only_for(&alice, &ids);
        assert!(is_only_for(Audience::user("alice")));
        assert!(is_only_for(Audience::id(ids[1])) && is_only_for(Audience::Ids(ids.to_vec())));
        for other in [
            Audience::All,
            Audience::Tag(Tag::parse("alice").unwrap()),
            Audience::user("bob"),
            Audience::Ids(vec![]),
            Audience::Ids(vec![ids[0], SubscriptionId::random()]),
        ] {
            assert!(!is_only_for(other.clone()), "{other:?}");
        }
    }

    #[test]
    fn tags_are_short_and_plain() {
        assert!(Tag::parse("team:blue.1_x-y").is_ok());
        for text in ["", "a b", "ä", &"a".repeat(65)] {
            assert!(Tag::parse(text).is_err(), "{text}");
        }
    }
}
