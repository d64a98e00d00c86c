//! Typed content: a notification, as page, service worker and browser parse it.

mod action;
mod drawn_tag;
mod parse;
mod payload;

pub use action::Action;
#[cfg(feature = "_engine")]
pub(super) use drawn_tag::erase;
pub(super) use drawn_tag::redraw;

use std::fmt;

use serde_json::Value;

use super::Message;
use crate::clock::Timestamp;

/// A notification: the options of the Notifications API, and the address that a click opens.
///
/// It turns [`into`](From) a [`Message`] whose payload is a JSON object that always has the members
/// `title`, `body` and `url`, null when not set. With a title that is not empty and an absolute http
/// or https [`url`](Self::url) the object is also a Declarative Web Push message (Push API): the
/// members `web_push` and `notification` stand beside them, browsers that know it show the
/// notification without any script, and all others hand it to the service worker. In every other case
/// the options stand beside `title`, and the service worker shows it.
///
/// Only what was set is sent, so a payload is as small as its content. The exception is the tag: a notification without
/// one, or with an empty one, gets a random [`tag`](Self::tag) when it becomes a message. Delivery is at least once, and
/// the tag, the same in every copy of the message, lets the browser show a second copy in the place of the first. It
/// begins with `auto:` and takes 26 octets of the payload. It is left out of a payload that it would lift above
/// [`Message::MAX_PAYLOAD`]. Turning the same notification into a message twice makes two messages with two tags;
/// [`Message::again`] makes a second message of a first one.
///
/// # Examples
///
/// ```
/// use tower_web_push::message::{Action, Message, Notification, Ttl};
///
/// let message = Message::from(
///     Notification::new("Shipped")
///         .body("Your parcel is on its way.")
///         .url("https://shop.example/orders/7")
///         .tag("order-7")
///         .action(Action::new("track", "Track it").navigate("https://shop.example/track/7")),
/// )
/// .with_ttl(Ttl::from_secs(3600));
/// # let payload: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
/// # assert_eq!(payload["notification"]["navigate"], "https://shop.example/orders/7");
/// ```
#[derive(Clone, PartialEq)]
pub struct Notification {
    title: String,
    body: Option<String>,
    url: Option<String>,
    dir: Option<Direction>,
    lang: Option<String>,
    tag: Option<String>,
    image: Option<String>,
    icon: Option<String>,
    badge: Option<String>,
    vibrate: Option<Vec<u32>>,
    timestamp: Option<Timestamp>,
    renotify: Option<bool>,
    silent: Option<bool>,
    require_interaction: Option<bool>,
    data: Option<Value>,
    actions: Vec<Action>,
    mutable: Option<bool>,
    app_badge: Option<u64>,
}

impl Notification {
    /// A notification with a title and nothing else.
    #[must_use]
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            body: None,
            url: None,
            dir: None,
            lang: None,
            tag: None,
            image: None,
            icon: None,
            badge: None,
            vibrate: None,
            timestamp: None,
            renotify: None,
            silent: None,
            require_interaction: None,
            data: None,
            actions: Vec::new(),
            mutable: None,
            app_badge: None,
        }
    }

    /// The text below the title.
    #[must_use]
    pub fn body(mut self, body: impl Into<String>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// The address that a click opens: `url` for service workers, `navigate` in a declarative message.
    ///
    /// Absolute http and https URLs make the message declarative; anything else goes to the service
    /// worker alone, which resolves it.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// The direction of title and body.
    #[must_use]
    pub const fn dir(mut self, dir: Direction) -> Self {
        self.dir = Some(dir);
        self
    }

    /// The language of title and body, a BCP 47 tag.
    #[must_use]
    pub fn lang(mut self, lang: impl Into<String>) -> Self {
        self.lang = Some(lang.into());
        self
    }

    /// A notification replaces the one with the same tag that is on display. Default: a random tag, which replaces
    /// nothing but a second copy of the same message.
    ///
    /// It is unrelated to the message's [`Topic`](super::Topic), which replaces undelivered messages.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// The URL of a picture, shown as part of the content.
    #[must_use]
    pub fn image(mut self, url: impl Into<String>) -> Self {
        self.image = Some(url.into());
        self
    }

    /// The URL of an icon.
    #[must_use]
    pub fn icon(mut self, url: impl Into<String>) -> Self {
        self.icon = Some(url.into());
        self
    }

    /// The URL of a small, monochrome picture that stands for the notification in small spaces, such as a status bar.
    #[must_use]
    pub fn badge(mut self, url: impl Into<String>) -> Self {
        self.badge = Some(url.into());
        self
    }

    /// Vibration and pause in turn, in milliseconds.
    ///
    /// Left out of a [`silent`](Self::silent) notification, where browsers would refuse it.
    #[must_use]
    pub fn vibrate(mut self, pattern: impl IntoIterator<Item = u32>) -> Self {
        self.vibrate = Some(pattern.into_iter().collect());
        self
    }

    /// The moment it is about; left out when it is before 1970.
    #[must_use]
    pub const fn timestamp(mut self, at: Timestamp) -> Self {
        self.timestamp = Some(at);
        self
    }

    /// Whether to alert again when it replaces one of the same [`tag`](Self::tag).
    ///
    /// Left out without a tag of your own: browsers refuse it without any tag, and with a random one it would alert
    /// for a second copy of the same message.
    #[must_use]
    pub const fn renotify(mut self, renotify: bool) -> Self {
        self.renotify = Some(renotify);
        self
    }

    /// Whether it comes without sound and vibration.
    #[must_use]
    pub const fn silent(mut self, silent: bool) -> Self {
        self.silent = Some(silent);
        self
    }

    /// Whether it stays on display until the user reacts.
    #[must_use]
    pub const fn require_interaction(mut self, require_interaction: bool) -> Self {
        self.require_interaction = Some(require_interaction);
        self
    }

    /// Anything, for the page's own scripts.
    #[must_use]
    pub fn data(mut self, data: impl Into<Value>) -> Self {
        self.data = Some(data.into()).filter(|data| !data.is_null());
        self
    }

    /// One more button.
    #[must_use]
    pub fn action(mut self, action: Action) -> Self {
        self.actions.push(action);
        self
    }

    /// Whether a declarative message gives the service worker a chance to show something else.
    ///
    /// Sent in declarative messages only.
    #[must_use]
    pub const fn mutable(mut self, mutable: bool) -> Self {
        self.mutable = Some(mutable);
        self
    }

    /// The number on the application's icon; 0 clears it.
    #[must_use]
    pub const fn app_badge(mut self, app_badge: u64) -> Self {
        self.app_badge = Some(app_badge);
        self
    }
}

impl From<Notification> for Message {
    fn from(notification: Notification) -> Self {
        if !notification.is_tagged()
            && let Some(tag) = drawn_tag::draw()
        {
            let message = Self::new(notification.payload(Some(tag)));
            // A notification that fits without the tag is not refused because of it.
            if !message.is_too_large() {
                return message;
            }
        }
        Self::new(notification.payload(None))
    }
}

impl fmt::Debug for Notification {
    /// Shows the shape, never the content: a payload is the user's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notification")
            .field("declarative", &self.is_declarative())
            .field("actions", &self.actions.len())
            .finish_non_exhaustive()
    }
}

/// The direction of a notification's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the Notifications API closes the set"
)]
pub enum Direction {
    /// The browser's.
    #[default]
    Auto,
    /// Left to right.
    Ltr,
    /// Right to left.
    Rtl,
}

impl Direction {
    const ALL: &'static [Self] = &[Self::Auto, Self::Ltr, Self::Rtl];

    /// The member's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ltr => "ltr",
            Self::Rtl => "rtl",
        }
    }
}

#[cfg(test)]
mod tests;
