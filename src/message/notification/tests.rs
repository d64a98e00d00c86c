use serde_json::{Map, json};

use super::*;
use crate::message::{MessageError, MessageErrorKind, Ttl};

fn sent(notification: Notification) -> Value {
    let message = Message::from(notification);
    serde_json::from_slice(message.payload().unwrap()).unwrap()
}

fn parsed(value: &Value) -> Result<Notification, MessageError> {
    Notification::from_members(value.as_object().unwrap())
}

/// The same without the tag that was drawn for it.
fn sent_untagged(notification: Notification) -> Value {
    let mut payload = sent(notification);
    let within = match payload.get_mut("notification") {
        Some(declared) => declared,
        None => &mut payload,
    };
    let tag = within.as_object_mut().unwrap().remove("tag").unwrap();
    let tag = tag.as_str().unwrap();
    assert!(tag.starts_with("auto:") && tag.len() == 17, "{tag}");
    payload
}

/// With every option there is.
fn full(url: &str) -> Notification {
    Notification::new("Title")
        .body("Body")
        .url(url)
        .dir(Direction::Rtl)
        .lang("ar")
        .tag("t")
        .image("/image.png")
        .icon("/icon.png")
        .badge("/badge.png")
        .vibrate([200, 100, 200])
        .timestamp(Timestamp::from_millis(1_700_000_000_000))
        .renotify(true)
        .silent(false)
        .require_interaction(true)
        .data(json!({"order": 7}))
        .action(Action::new("open", "Open"))
        .action(
            Action::new("buy", "Buy")
                .navigate("https://shop.example/buy")
                .icon("/buy.png"),
        )
        .mutable(true)
        .app_badge(3)
}

/// The options of [`full`] beyond title, body and URL.
fn full_options() -> Value {
    json!({
        "dir": "rtl",
        "lang": "ar",
        "tag": "t",
        "image": "/image.png",
        "icon": "/icon.png",
        "badge": "/badge.png",
        "vibrate": [200, 100, 200],
        "timestamp": 1_700_000_000_000_u64,
        "renotify": true,
        "silent": false,
        "requireInteraction": true,
        "data": {"order": 7},
        "actions": [
            {"action": "open", "title": "Open"},
            {"action": "buy", "title": "Buy", "navigate": "https://shop.example/buy", "icon": "/buy.png"},
        ],
        "app_badge": 3,
    })
}

fn merged(mut one: Value, other: &Value) -> Value {
    let members = one.as_object_mut().unwrap();
    members.extend(other.as_object().unwrap().clone());
    one
}

#[test]
fn a_title_alone_has_the_other_two_as_null() {
    assert_eq!(
        sent_untagged(Notification::new("Hi")),
        json!({"title": "Hi", "body": null, "url": null})
    );
}

#[test]
fn an_absolute_url_makes_it_declarative_with_only_what_is_set() {
    assert_eq!(
        sent_untagged(Notification::new("Hi").url("https://a.example/x?y#z")),
        json!({
            "title": "Hi", "body": null, "url": "https://a.example/x?y#z",
            "web_push": 8030,
            "notification": {"title": "Hi", "navigate": "https://a.example/x?y#z"},
        })
    );
}

#[test]
fn a_declarative_message_has_every_option_inside() {
    let url = "https://shop.example/";
    let inside = json!({"title": "Title", "body": "Body", "navigate": url, "mutable": true});
    assert_eq!(
        sent(full(url)),
        json!({
            "title": "Title", "body": "Body", "url": url,
            "web_push": 8030, "mutable": true, "app_badge": 3,
            "notification": merged(inside, &full_options()),
        })
    );
}

#[test]
fn otherwise_every_option_stands_beside_the_title() {
    let flat = json!({"title": "Title", "body": "Body", "url": "/orders"});
    assert_eq!(sent(full("/orders")), merged(flat, &full_options()));
}

#[test]
fn doubtful_links_and_empty_titles_are_left_to_the_service_worker() {
    let is_declarative = |notification| sent(notification).get("web_push").is_some();
    for url in [
        "",
        "/orders",
        "//a.example/",
        "javascript:alert(1)",
        "mailto:a@a.example",
        "ftp://a.example/",
        "https://",
        "https:///x",
        "https://a b.example/",
        "https://user@a.example/",
        "https://a.example:99999/",
        "https://a.example:+80/",
        "https://a.example:/",
        "https://[::1/",
    ] {
        assert!(!is_declarative(Notification::new("Hi").url(url)), "{url}");
        let action = Action::new("a", "A").navigate(url);
        let with_action = Notification::new("Hi")
            .url("https://a.example/")
            .action(action);
        assert!(!is_declarative(with_action), "{url}");
    }
    for url in [
        "https://a.example",
        "http://localhost:8080/",
        "https://a.example/ü?q=%20",
    ] {
        assert!(is_declarative(Notification::new("Hi").url(url)), "{url}");
        assert!(!is_declarative(Notification::new("").url(url)), "{url}");
    }
}

#[test]
fn what_browsers_throw_at_is_left_out() {
    let silent = sent(Notification::new("Hi").silent(true).vibrate([1]));
    assert_eq!(silent.get("silent"), Some(&json!(true)));
    assert_eq!(silent.get("vibrate"), None);
    for untagged in [Notification::new("Hi"), Notification::new("Hi").tag("")] {
        assert_eq!(sent(untagged.renotify(true)).get("renotify"), None);
    }
    let early = Notification::new("Hi").timestamp(Timestamp::from_millis(-1));
    assert_eq!(sent(early).get("timestamp"), None);
}

#[test]
fn a_notification_without_a_tag_gets_one_that_is_its_messages_own() {
    let tag = |message: &Message| {
        let payload: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        let inside = payload.pointer("/notification/tag");
        let tag = inside.or(payload.get("tag")).unwrap();
        tag.as_str().unwrap().to_owned()
    };
    let declared = Notification::new("Hi").url("https://a.example/");
    for untagged in [
        Notification::new("Hi"),
        Notification::new("Hi").tag(""),
        declared,
    ] {
        let messages = [untagged.clone(), untagged].map(Message::from);
        assert_ne!(tag(&messages[0]), tag(&messages[1]));
        // On another day it is another notification.
        let again = messages[0].clone().with_ttl(Ttl::ZERO).again();
        assert_ne!(tag(&again), tag(&messages[0]));
        assert_eq!(again.ttl(), Ttl::ZERO);
    }
    let tagged = Message::from(Notification::new("Hi").tag("order-7"));
    assert_eq!(tag(&tagged), "order-7");
    assert_eq!(tagged.clone().again(), tagged);
    let raw = Message::new(r#"{"title":"Hi"}"#);
    assert_eq!(raw.clone().again(), raw);
    let empty = Message::without_payload();
    assert_eq!(empty.clone().again(), empty);
}

#[test]
fn a_payload_is_not_too_large_because_of_the_tag() {
    let len = |body: usize| {
        let message = Message::from(Notification::new("").body("b".repeat(body)));
        (message.payload().unwrap().len(), message.is_too_large())
    };
    let (around, _) = len(0);
    let tag = r#""tag":"auto:............","#.len();
    assert_eq!(tag, 26);
    let fits = Message::MAX_PAYLOAD - around;
    assert_eq!(len(fits), (Message::MAX_PAYLOAD, false));
    assert_eq!(len(fits + 1), (Message::MAX_PAYLOAD + 1 - tag, false));
    assert_eq!(len(fits + tag), (Message::MAX_PAYLOAD, false));
    assert_eq!(len(fits + tag + 1), (Message::MAX_PAYLOAD + 1, true));
}

#[test]
fn the_api_members_read_as_the_builder_writes() {
    let url = "https://shop.example/";
    let members = json!({"title": "Title", "body": "Body", "url": url, "mutable": true, "ttl": 60});
    let members = merged(members, &full_options());
    assert_eq!(parsed(&members).unwrap(), full(url));
    let deserialized: Notification = serde_json::from_value(members).unwrap();
    assert_eq!(deserialized, full(url));
}

#[test]
fn null_is_the_same_as_absent() {
    let mut members = merged(full_options(), &json!({"body": 0, "url": 0, "mutable": 0}));
    for (_, value) in members.as_object_mut().unwrap() {
        *value = Value::Null;
    }
    members["title"] = json!("Hi");
    assert_eq!(parsed(&members).unwrap(), Notification::new("Hi"));
}

#[test]
fn one_number_is_a_pattern_too() {
    let one = parsed(&json!({"title": "Hi", "vibrate": 50})).unwrap();
    assert_eq!(one, Notification::new("Hi").vibrate([50]));
}

#[test]
fn the_wrong_member_is_named() {
    let refused = |mut members: Map<String, Value>, name: &str| {
        members.entry("title").or_insert_with(|| json!("Hi"));
        let error = Notification::from_members(&members).unwrap_err();
        assert_eq!(error.kind(), MessageErrorKind::InvalidNotification);
        assert_eq!(error.kind().code(), "invalid_notification");
        assert_eq!(error.member(), Some(name));
    };
    for (member, bad) in [
        ("title", json!(7)),
        ("body", json!(["secret"])),
        ("url", json!(false)),
        ("dir", json!("up")),
        ("lang", json!(1)),
        ("tag", json!({})),
        ("image", json!(0)),
        ("icon", json!(0)),
        ("badge", json!(0)),
        ("vibrate", json!("200")),
        ("vibrate", json!([200, -1])),
        ("vibrate", json!([4_294_967_296_u64])),
        ("timestamp", json!("now")),
        ("timestamp", json!(-1)),
        ("timestamp", json!(u64::MAX)),
        ("renotify", json!("true")),
        ("silent", json!(1)),
        ("requireInteraction", json!(0)),
        ("actions", json!({})),
        ("mutable", json!("yes")),
        ("app_badge", json!("3")),
        ("app_badge", json!(-3)),
        ("app_badge", json!(1.5)),
    ] {
        refused(Map::from_iter([(member.to_owned(), bad)]), member);
    }
    for (action, name) in [
        (json!("open"), "actions[1]"),
        (json!({"title": "Open"}), "actions[1].action"),
        (json!({"action": "open"}), "actions[1].title"),
        (
            json!({"action": "open", "title": "Open", "icon": 1}),
            "actions[1].icon",
        ),
    ] {
        let actions = json!([{"action": "a", "title": "A"}, action]);
        refused(Map::from_iter([("actions".to_owned(), actions)]), name);
    }
    let error = parsed(&json!({"title": null})).unwrap_err();
    assert_eq!(error.member(), Some("title"));
}

#[test]
fn an_error_names_what_was_expected_and_never_what_came() {
    let error = parsed(&json!({"title": "Hi", "body": ["secret"]})).unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "body must be a string");
    assert!(!format!("{error:?}").contains("secret"));
    let error = serde_json::from_value::<Notification>(json!({"title": 1})).unwrap_err();
    assert_eq!(error.to_string(), "title must be a string");
}

#[test]
fn debug_shows_no_content() {
    let shown = format!("{:?}", full("https://secret.example/"));
    assert_eq!(shown, "Notification { declarative: true, actions: 2, .. }");
    assert_eq!(format!("{:?}", Action::new("a", "A")), "Action { .. }");
}
