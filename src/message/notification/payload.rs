//! The JSON of a notification, declarative where it can be (Push API, "Declarative push message").

use http::Uri;
use serde_json::{Map, Value};

use super::{Action, Direction, Notification};

type Object = Map<String, Value>;

/// The mark of a declarative message.
const WEB_PUSH: u16 = 8030;

impl Notification {
    /// The payload: one JSON object. A random tag replaces the notification's own.
    pub(super) fn payload(&self, drawn_tag: Option<String>) -> String {
        let tag = drawn_tag.or_else(|| self.tag.clone());
        let mut root = Object::new();
        root.insert("title".to_owned(), self.title.clone().into());
        root.insert("body".to_owned(), self.body.clone().into());
        root.insert("url".to_owned(), self.url.clone().into());
        if self.is_declarative() {
            // The specification reads both at the top; WebKit and Firefox inside.
            set(&mut root, "mutable", self.mutable);
            set(&mut root, "app_badge", self.app_badge);
            root.insert("web_push".to_owned(), WEB_PUSH.into());
            root.insert("notification".to_owned(), self.declared(tag).into());
        } else {
            self.options(&mut root, tag);
        }
        Value::Object(root).to_string()
    }

    /// Whether browsers that know Declarative Web Push take the message as such.
    ///
    /// Browsers refuse a message with one invalid member, so a doubtful URL leaves it to the service worker.
    pub(super) fn is_declarative(&self) -> bool {
        let mut links = self.actions.iter().filter_map(|it| it.navigate.as_deref());
        !self.title.is_empty()
            && self.url.as_deref().is_some_and(is_absolute_http)
            && links.all(is_absolute_http)
    }

    /// Whether it has a tag of its own. For browsers an empty one counts as none.
    pub(super) fn is_tagged(&self) -> bool {
        self.tag.as_deref().is_some_and(|tag| !tag.is_empty())
    }

    fn declared(&self, tag: Option<String>) -> Object {
        let mut declared = Object::new();
        declared.insert("title".to_owned(), self.title.clone().into());
        set(&mut declared, "navigate", self.url.clone());
        set(&mut declared, "body", self.body.clone());
        set(&mut declared, "mutable", self.mutable);
        self.options(&mut declared, tag);
        declared
    }

    /// The members beyond title, body and URL, those that are set.
    ///
    /// Options that the Notifications API refuses are left out: `vibrate` beside `silent`, `renotify` without a tag
    /// of its own.
    fn options(&self, to: &mut Object, tag: Option<String>) {
        let silent = self.silent == Some(true);
        let timestamp = self.timestamp.map(|at| u64::try_from(at.as_millis()));
        set(to, "dir", self.dir.map(Direction::as_str));
        set(to, "lang", self.lang.clone());
        set(to, "tag", tag);
        set(to, "image", self.image.clone());
        set(to, "icon", self.icon.clone());
        set(to, "badge", self.badge.clone());
        set(to, "vibrate", self.vibrate.clone().filter(|_| !silent));
        set(to, "timestamp", timestamp.and_then(Result::ok));
        set(to, "renotify", self.renotify.filter(|_| self.is_tagged()));
        set(to, "silent", self.silent);
        set(to, "requireInteraction", self.require_interaction);
        set(to, "data", self.data.clone());
        set(to, "app_badge", self.app_badge);
        if !self.actions.is_empty() {
            let actions: Vec<Object> = self.actions.iter().map(object).collect();
            to.insert("actions".to_owned(), actions.into());
        }
    }
}

fn object(action: &Action) -> Object {
    let mut object = Object::new();
    object.insert("action".to_owned(), action.action.clone().into());
    object.insert("title".to_owned(), action.title.clone().into());
    set(&mut object, "navigate", action.navigate.clone());
    set(&mut object, "icon", action.icon.clone());
    object
}

fn set(to: &mut Object, member: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        to.insert(member.to_owned(), value.into());
    }
}

/// Stricter than a browser's parser. If a browser refuses the URL all the same, it passes the message to the service
/// worker.
fn is_absolute_http(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else {
        return false;
    };
    let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    let host = authority.host();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    // Only a port may follow the host; userinfo would come before it.
    let port = authority.as_str().strip_prefix(host).unwrap_or("@");
    let port_is_valid = match port.strip_prefix(':') {
        Some(digits) => {
            digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
        }
        None => port.is_empty(),
    };
    !host.is_empty() && host.bytes().all(plain) && port_is_valid
}
