//! Every limit of the HTTP API, from both sides: a value at the limit is accepted, one more is refused.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower_web_push::api::{AdminCredentials, PeerAddr};
use tower_web_push::broadcast::Tag;
use tower_web_push::store::SubscriptionLimits;

use super::{TOKEN, World, post, with};
use crate::support::tampered_store::TamperedStore;

/// Members at a limit and just above it, and the status and code of the latter.
type Limit = (Value, Value, u16, &'static str);

fn tags() -> Vec<Tag> {
    let long = [64, 65].map(|len| "t".repeat(len));
    let many = (0..40).map(|number| format!("t{number}"));
    many.chain(long)
        .filter_map(|tag| tag.parse().ok())
        .collect()
}

fn registrations(good: &Value) -> Vec<Limit> {
    let endpoint = |len: usize| {
        let url = good["endpoint"].as_str().unwrap();
        json!({"endpoint": format!("{url}{}", "x".repeat(len - url.len()))})
    };
    let tag = |len: usize| json!({"tags": ["t".repeat(len)]});
    let many = |number: usize| {
        let tags: Vec<_> = (0..number).map(|number| format!("t{number}")).collect();
        json!({"tags": tags})
    };
    let time = json!({"utcHour": 8, "minute": 0});
    let text = |len: usize| json!({"notifyTime": time, "message": "\u{1F514}".repeat(len)});
    let utc = |hour: u8, minute: u8| json!({"notifyTime": {"utcHour": hour, "minute": minute}});
    let local = |hour: u8, minute: u8| json!({"notifyTime": {"hour": hour, "minute": minute, "zone": "Europe/Berlin"}});
    let expires = |at: u64| json!({"expirationTime": at});
    vec![
        (endpoint(2048), endpoint(2049), 400, "endpoint_too_long"),
        (tag(64), tag(65), 400, "invalid_tag"),
        (many(32), many(33), 422, "too_many_tags"),
        (text(100), text(101), 400, "message_too_long"),
        (utc(23, 59), utc(24, 0), 400, "invalid_notify_time"),
        (utc(0, 59), utc(0, 60), 400, "invalid_notify_time"),
        (local(23, 59), local(24, 0), 400, "invalid_notify_time"),
        (local(0, 59), local(0, 60), 400, "invalid_notify_time"),
        // It is 1,800,000,000 s.
        (
            expires(1_800_000_000_001),
            expires(1_800_000_000_000),
            400,
            "subscription_expired",
        ),
    ]
}

#[tokio::test]
async fn a_registration_at_its_limits_is_stored_and_none_above() {
    let world = World::with_api(|s| s.public_tags(tags())).await;
    let (_, good) = world.browser();
    for (at, above, status, code) in registrations(&good) {
        let answer = world.post("/subscribe", &with(&good, at.clone())).await;
        assert_eq!(answer.status, 200, "{code} {:?}", answer.body);
        let stored = world.count().await;
        let refused = world.post("/subscribe", &with(&good, above.clone())).await;
        refused.is(status, code);
        for (members, expected) in [(at, 200), (above, status)] {
            let body = json!({"oldEndpoint": null, "subscription": with(&good, members)});
            assert_eq!(world.post("/renew", &body).await.status, expected, "{code}");
        }
        assert_eq!(world.count().await, stored, "{code}");
    }
}

#[tokio::test]
async fn a_message_at_its_limits_is_queued_and_none_above() {
    let world = World::new().await;
    world.subscriber().await;
    let payload = |len: usize| json!({"payload": "x".repeat(len - 2)});
    let around = r#"{"body":"","title":"a","url":null}"#.len();
    let body = |len: usize| json!({"title": "a", "body": "x".repeat(len - around)});
    let topic = |len: usize| json!({"title": "a", "topic": "t".repeat(len)});
    let send_at = |at: &str| json!({"title": "a", "sendAt": at});
    let cases: Vec<Limit> = vec![
        (payload(3993), payload(3994), 422, "payload_too_large"),
        (body(3993), body(3994), 422, "payload_too_large"),
        // 33 characters are not base64url.
        (topic(32), topic(34), 422, "invalid_topic"),
        (
            send_at("2027-02-14T08:00:00Z"),
            send_at("2027-02-14T08:00:00.001Z"),
            422,
            "send_at_too_far_ahead",
        ),
    ];
    for (at, above, status, code) in cases {
        let answer = world.notify(&at).await;
        assert_eq!(answer.status, 202, "{code} {:?}", answer.body);
        world.notify(&above).await.is(status, code);
    }
    // A valid date, however far ahead.
    let last = world.notify(&send_at("9999-12-31T23:59:59Z")).await;
    last.is(422, "send_at_too_far_ahead");
}

#[tokio::test]
async fn an_idempotency_key_has_255_characters_at_most() {
    let world = World::new().await;
    for (len, status) in [(1, 202), (255, 202), (256, 400)] {
        let mut request = post("/notify", &json!({"title": "a"}));
        let headers = request.headers_mut();
        headers.insert("authorization", HeaderValue::from_static(TOKEN));
        headers.insert("idempotency-key", "k".repeat(len).parse().unwrap());
        assert_eq!(world.call(request).await.status, status, "{len}");
    }
}

#[test]
fn credentials_have_twelve_characters_at_least() {
    let new = AdminCredentials::new;
    assert!(new().with_bearer_token(&"t".repeat(12)).is_ok());
    assert!(new().with_bearer_token(&"t".repeat(11)).is_err());
    // Characters, not octets.
    assert!(new().with_password(&"ä".repeat(12)).is_ok());
    assert!(new().with_password(&"ä".repeat(11)).is_err());
}

#[test]
fn the_default_limits_of_rows_are_those_of_the_documentation() {
    let limits = SubscriptionLimits::default();
    let expected = (10_000_000, 32, 100_000);
    assert_eq!(
        (limits.total, limits.per_principal, limits.unproven),
        expected
    );
}

#[tokio::test]
async fn a_user_has_32_subscriptions_by_default() {
    let world = World::new().await;
    for number in 1..=33 {
        world.clock.advance(Duration::from_secs(1));
        let (_, json) = world.browser();
        world.post_as("alice", "/subscribe", &json).await;
        assert_eq!(world.count().await, number.min(32));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_makes_60_requests_and_causes_20_pushes_a_minute_by_default() {
    let world = World::new().await;
    let from = |path: &str, body: &Value| {
        let mut request = post(path, body);
        let peer = PeerAddr::new("192.0.2.1".parse().unwrap());
        request.extensions_mut().insert(peer);
        request
    };
    let mut subscribed = Vec::new();
    for _ in 0..21 {
        let (_, json, _) = world.subscriber().await;
        subscribed.push(json);
    }
    for (number, json) in subscribed.iter().enumerate() {
        let answer = world.call(from("/send-test", json)).await;
        assert_eq!(
            answer.status,
            if number < 20 { 200 } else { 429 },
            "{number}"
        );
    }
    for number in 21..61 {
        let answer = world.call(from("/subscribe", &subscribed[0])).await;
        assert_eq!(
            answer.status,
            if number < 60 { 200 } else { 429 },
            "{number}"
        );
    }
    // Refilled evenly: one token a second, and one push in three.
    tokio::time::advance(Duration::from_millis(999)).await;
    let early = world.call(from("/subscribe", &subscribed[0])).await;
    early.is(429, "too_many_requests");
    tokio::time::advance(Duration::from_millis(1)).await;
    let again = world.call(from("/subscribe", &subscribed[0])).await;
    assert_eq!(again.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_store_has_three_seconds_to_show_that_it_is_ready() {
    let store = Arc::new(TamperedStore::default());
    let world = World::with(|builder| builder.store(Arc::clone(&store))).await;
    store.hang("pauses");
    let began = Instant::now();
    assert_eq!(world.get("/ready").await.status, 503);
    assert_eq!(began.elapsed(), Duration::from_secs(3));
}
