use serde_json::{Value, json};
use tower_web_push::broadcast::Tag;
use tower_web_push::clock::Clock as _;
use tower_web_push::store::{
    Change, Failure, RetireReason, SubscriptionLimits, SubscriptionStore as _,
};
use tower_web_push::subscription::Endpoint;

use super::{World, news, with};

#[tokio::test]
async fn a_page_subscribes_and_learns_its_id() {
    let world = World::new().await;
    let (_, json) = world.browser();
    let first = world.post("/subscribe", &json).await;
    assert_eq!(first.status, 200);
    first.has_members(&["success", "message", "id", "created", "staleKey"]);
    assert_eq!(first.json()["success"], true);
    assert_eq!(first.json()["created"], true);
    assert_eq!(first.json()["staleKey"], false);

    let again = world.post("/subscribe", &json).await;
    assert_eq!(again.json()["created"], false);
    assert_eq!(again.id(), first.id());
    assert_eq!(world.count().await, 1);
}

#[tokio::test]
async fn a_retired_row_revives_with_its_id() {
    let world = World::new().await;
    let (_, json, id) = world.subscriber().await;
    let key = Endpoint::parse(json["endpoint"].as_str().unwrap())
        .unwrap()
        .key();
    let retire = Change::Retire {
        key,
        reason: RetireReason::Gone,
        observed_at: world.clock.now(),
        failure: Failure::default(),
    };
    world
        .store
        .apply(&[retire], world.clock.now())
        .await
        .unwrap();
    assert!(world.row(&json).await.unwrap().retired.is_some());
    assert_eq!(world.post("/subscribe", &json).await.id(), id);
    assert!(world.row(&json).await.unwrap().retired.is_none());
}

#[tokio::test]
async fn base64_may_be_of_either_alphabet_and_padded() {
    let world = World::new().await;
    let (_, json) = world.browser();
    let standard = |name: &str| {
        let text = json["keys"][name].as_str().unwrap();
        let padding = "=".repeat((4 - text.len() % 4) % 4);
        text.replace('-', "+").replace('_', "/") + &padding
    };
    let keys = json!({"p256dh": standard("p256dh"), "auth": standard("auth")});
    let first = world
        .post("/subscribe", &with(&json, json!({"keys": keys})))
        .await;
    let again = world.post("/subscribe", &json).await;
    assert_eq!(first.id(), again.id());
}

#[tokio::test]
async fn every_malformed_member_has_its_code_and_stores_nothing() {
    let world = World::with_api(|s| s.public_tags([Tag::parse("news").unwrap()])).await;
    let (_, good) = world.browser();
    let keys = |members| json!({"keys": with(&good["keys"], members)});
    let time = json!({"utcHour": 8, "minute": 0});
    let cases = [
        (json!({"endpoint": null}), "missing_endpoint"),
        (json!({"endpoint": ""}), "missing_endpoint"),
        (json!({"endpoint": 7}), "invalid_endpoint"),
        (json!({"endpoint": "fcm"}), "invalid_endpoint"),
        (
            json!({"endpoint": "https://a@fcm.googleapis.com/x"}),
            "invalid_endpoint",
        ),
        (
            json!({"endpoint": "https://fcm.googleapis.com/x#y"}),
            "invalid_endpoint",
        ),
        (
            json!({"endpoint": format!("https://fcm.googleapis.com/{}", "x".repeat(2048))}),
            "endpoint_too_long",
        ),
        (json!({"keys": null}), "missing_keys"),
        (json!({"keys": []}), "missing_keys"),
        (json!({"keys": "x"}), "missing_keys"),
        (keys(json!({"p256dh": null})), "missing_keys"),
        (keys(json!({"auth": null})), "missing_keys"),
        (keys(json!({"p256dh": 1})), "invalid_p256dh"),
        (keys(json!({"p256dh": "BAAA"})), "invalid_p256dh"),
        (
            keys(json!({"p256dh": good["keys"]["auth"]})),
            "invalid_p256dh",
        ),
        (keys(json!({"auth": true})), "invalid_auth"),
        (keys(json!({"auth": "AAAA"})), "invalid_auth"),
        (json!({"expirationTime": "soon"}), "invalid_expiration_time"),
        (
            json!({"expirationTime": 1_799_999_999_999_u64}),
            "subscription_expired",
        ),
        (json!({"expirationTime": -1.5}), "subscription_expired"),
        (
            json!({"applicationServerKey": 1}),
            "invalid_application_server_key",
        ),
        (
            json!({"applicationServerKey": "x"}),
            "invalid_application_server_key",
        ),
        (json!({"tags": "news"}), "invalid_member"),
        (json!({"tags": [1]}), "invalid_member"),
        (json!({"tags": ["a b"]}), "invalid_tag"),
        (json!({"notifyTime": 8}), "invalid_notify_time"),
        (json!({"notifyTime": {}}), "invalid_notify_time"),
        (
            json!({"notifyTime": {"utcHour": 24, "minute": 0}}),
            "invalid_notify_time",
        ),
        (
            json!({"notifyTime": {"utcHour": 0, "minute": 60}}),
            "invalid_notify_time",
        ),
        (
            json!({"notifyTime": {"utcHour": -1, "minute": 0}}),
            "invalid_notify_time",
        ),
        (
            json!({"notifyTime": {"utcHour": "8", "minute": 0}}),
            "invalid_notify_time",
        ),
        (
            json!({"notifyTime": {"utcHour": 8.5, "minute": 0}}),
            "invalid_notify_time",
        ),
        (json!({"notifyTime": {"minute": 8}}), "invalid_notify_time"),
        (
            json!({"notifyTime": {"utcHour": 264, "minute": 0}}),
            "invalid_notify_time",
        ),
        (
            json!({"notifyTime": {"hour": 8, "minute": 0}}),
            "invalid_notify_time",
        ),
        (
            json!({"notifyTime": {"hour": 8, "minute": 0, "zone": 1}}),
            "invalid_notify_time",
        ),
        (
            json!({"notifyTime": {"hour": 24, "minute": 0, "zone": "UTC"}}),
            "invalid_notify_time",
        ),
        (
            json!({"notifyTime": {"utcHour": 8, "minute": 0, "zone": "UTC"}}),
            "invalid_notify_time",
        ),
        (
            json!({"notifyTime": {"utcHour": 8, "minute": 0, "weekdays": ["mon"]}}),
            "invalid_notify_time",
        ),
        (
            json!({"notifyTime": {"hour": 8, "minute": 0, "zone": "UTC", "weekdays": []}}),
            "invalid_notify_time",
        ),
        (
            json!({"notifyTime": {"hour": 8, "minute": 0, "zone": "UTC", "weekdays": ["Monday"]}}),
            "invalid_notify_time",
        ),
        (
            json!({"notifyTime": {"hour": 8, "minute": 0, "zone": "UTC", "weekdays": "mon"}}),
            "invalid_notify_time",
        ),
        (json!({"notifyType": "DAILY_CHECK"}), "missing_notify_time"),
        (json!({"message": "hello"}), "missing_notify_time"),
        (
            json!({"notifyTime": time, "notifyType": "WEEKLY"}),
            "invalid_notify_type",
        ),
        (
            json!({"notifyTime": time, "notifyType": 1}),
            "invalid_notify_type",
        ),
        (json!({"notifyTime": time, "message": 1}), "invalid_member"),
        (
            json!({"notifyTime": time, "message": "ä".repeat(101)}),
            "message_too_long",
        ),
    ];
    for (members, code) in cases {
        let answer = world
            .post("/subscribe", &with(&good, members.clone()))
            .await;
        answer.is(400, code);
        assert_eq!(world.count().await, 0, "{members}");
        assert_tells_nothing(&answer.json(), &good);
    }
}

/// A refusal repeats neither the endpoint nor a key.
fn assert_tells_nothing(answer: &Value, good: &Value) {
    let text = answer.to_string();
    for secret in [
        &good["endpoint"],
        &good["keys"]["auth"],
        &good["keys"]["p256dh"],
    ] {
        assert!(!text.contains(secret.as_str().unwrap()), "{text}");
    }
}

#[tokio::test]
async fn well_formed_but_impossible_registrations_are_422() {
    let world = World::with_api(|s| s.public_tags([Tag::parse("news").unwrap()])).await;
    let (_, good) = world.browser();
    let many: Vec<_> = (0..33).map(|number| format!("t{number}")).collect();
    let time = json!({"hour": 8, "minute": 0, "zone": "Europe/Atlantis"});
    let unknown_zone = match cfg!(feature = "zones") {
        true => "unknown_zone",
        false => "zones_unsupported",
    };
    let cases = [
        (
            json!({"endpoint": "http://fcm.googleapis.com/x"}),
            "endpoint_not_allowed",
        ),
        (
            json!({"endpoint": "https://push.example.net/x"}),
            "endpoint_not_allowed",
        ),
        (
            json!({"endpoint": "https://127.0.0.1/x"}),
            "endpoint_not_allowed",
        ),
        (
            json!({"endpoint": "https://localhost/x"}),
            "endpoint_not_allowed",
        ),
        (
            json!({"endpoint": "https://fcm.googleapis.com:8443/x"}),
            "endpoint_not_allowed",
        ),
        (
            json!({"endpoint": "https://permanently-removed.invalid/x"}),
            "endpoint_not_allowed",
        ),
        (
            json!({"endpoint": "https://fcm.googleapis.com/v1/projects/p/messages:send"}),
            "endpoint_not_allowed",
        ),
        (
            json!({"endpoint": "https://graph.facebook.com/v21.0/me/feed?notif_token=1"}),
            "endpoint_not_allowed",
        ),
        (json!({"tags": ["news", "staff"]}), "tag_not_public"),
        (json!({"tags": many}), "too_many_tags"),
        (json!({"notifyTime": time}), unknown_zone),
    ];
    for (members, code) in cases {
        let answer = world
            .post("/subscribe", &with(&good, members.clone()))
            .await;
        answer.is(422, code);
        assert_eq!(world.count().await, 0, "{members}");
    }
}

#[tokio::test]
async fn the_texts_of_the_replaced_server_are_kept() {
    let world = World::new().await;
    let (_, good) = world.browser();
    let time = json!({"utcHour": 8, "minute": 0});
    for (members, text) in [
        (
            json!({"endpoint": null}),
            "Missing subscription information",
        ),
        (json!({"keys": null}), "Missing subscription information"),
        (
            json!({"keys": {"p256dh": good["keys"]["p256dh"]}}),
            "Missing subscription keys information",
        ),
        (json!({"message": "x"}), "Missing notifyTime information"),
        (
            json!({"notifyType": "DAILY_CHECK"}),
            "Missing notifyTime information",
        ),
        (
            json!({"notifyTime": time, "notifyType": "x"}),
            "Invalid notifyType",
        ),
        (
            json!({"notifyTime": time, "message": "x".repeat(101)}),
            "Message is too long. Max 100 characters.",
        ),
    ] {
        let answer = world.post("/subscribe", &with(&good, members)).await;
        assert_eq!((answer.status, answer.message().as_str()), (400, text));
    }
}

#[tokio::test]
async fn unknown_members_and_nulls_are_ignored() {
    let world = World::new().await;
    let (_, good) = world.browser();
    let mut odd = with(
        &good,
        json!({"contentEncoding": ["aes128gcm"], "userVisibleOnly": true}),
    );
    for name in [
        "expirationTime",
        "applicationServerKey",
        "tags",
        "notifyTime",
        "notifyType",
        "message",
    ] {
        odd[name] = Value::Null;
    }
    assert_eq!(world.post("/subscribe", &odd).await.status, 200);
    let later = with(&good, json!({"expirationTime": 1_800_000_000_001.75_f64}));
    assert_eq!(world.post("/subscribe", &later).await.status, 200);
}

/// The stored key is the active one, and the subscription was made with another.
#[tokio::test]
async fn the_page_of_a_stale_row_is_told_to_subscribe_again() {
    let world = World::new().await;
    let key = world.push.vapid_public_key().to_base64url();
    let named = json!({"applicationServerKey": key});
    for (named, told) in [(json!({}), true), (named, false)] {
        let (_, json, _) = world.subscriber().await;
        let stale = Change::Stale {
            key: world
                .row(&json)
                .await
                .unwrap()
                .subscription
                .endpoint()
                .key(),
            observed_at: world.clock.now(),
            failure: Failure::default(),
        };
        let now = world.clock.now();
        assert_eq!(world.store.apply(&[stale], now).await.unwrap(), 1);
        let answer = world.post("/subscribe", &with(&json, named)).await;
        assert_eq!(answer.json()["staleKey"], told);
        let again = world.post("/subscribe", &json).await;
        assert_eq!(again.json()["staleKey"], false, "it is live");
    }
}

#[tokio::test]
async fn the_named_key_is_stored_and_an_older_one_is_reported() {
    let world = World::new().await;
    let old_key = world.push.vapid_public_key();
    let (_, json) = world.browser();
    let named = with(
        &json,
        json!({"applicationServerKey": old_key.to_base64url()}),
    );
    assert_eq!(
        world.post("/subscribe", &named).await.json()["staleKey"],
        false
    );
    let new_key = world.push.rotate_vapid_key().await.unwrap();

    let answer = world.post("/subscribe", &named).await;
    assert_eq!(answer.json()["staleKey"], true);
    assert_eq!(world.row(&json).await.unwrap().vapid_key, old_key.id());
    let unnamed = world.post("/subscribe", &json).await;
    assert_eq!(
        unnamed.json()["staleKey"],
        true,
        "a stored row keeps its key"
    );
    assert_eq!(world.row(&json).await.unwrap().vapid_key, old_key.id());

    let (_, fresh) = world.browser();
    assert_eq!(
        world.post("/subscribe", &fresh).await.json()["staleKey"],
        false
    );
    assert_eq!(world.row(&fresh).await.unwrap().vapid_key, new_key);
}

#[tokio::test]
async fn an_unknown_key_is_a_conflict() {
    let world = World::new().await;
    let (_, json) = world.browser();
    // Any point on the curve, such as the browser's own.
    let foreign = with(
        &json,
        json!({"applicationServerKey": json["keys"]["p256dh"]}),
    );
    world
        .post("/subscribe", &foreign)
        .await
        .is(409, "unknown_vapid_key");
    assert_eq!(world.count().await, 0);
}

#[tokio::test]
async fn public_tags_are_stored_and_stay_when_not_given() {
    let world = World::with_api(|s| s.public_tags([Tag::parse("news").unwrap()])).await;
    let (_, json) = world.browser();
    let tags = |row: &super::SubscriptionRecord| row.tags.len();
    world
        .post("/subscribe", &with(&json, json!({"tags": news()})))
        .await;
    assert_eq!(tags(&world.row(&json).await.unwrap()), 1);
    world.post("/subscribe", &json).await;
    assert_eq!(tags(&world.row(&json).await.unwrap()), 1);
    world
        .post("/subscribe", &with(&json, json!({"tags": []})))
        .await;
    assert_eq!(tags(&world.row(&json).await.unwrap()), 0);
}

#[tokio::test]
async fn a_full_store_is_reported() {
    let limits = SubscriptionLimits::new(1, 32);
    let world = World::with(|b| b.subscription_limits(limits)).await;
    let (_, json, _) = world.subscriber().await;
    let (_, other) = world.browser();
    world.post("/subscribe", &other).await.is(503, "store_full");
    assert_eq!(
        world.post("/subscribe", &json).await.status,
        200,
        "the known one stays welcome"
    );
}
