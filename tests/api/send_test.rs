use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tower_web_push::clock::Clock as _;
use tower_web_push::store::{
    Change, DeliveryLedger as _, Pause, PauseReason, RetireReason, SubscriptionStore as _,
};
use tower_web_push::subscription::{Endpoint, Origin};
use tower_web_push::testing::{Answer, When};

use super::{FCM, World, with};

#[tokio::test(start_paused = true)]
async fn the_holder_gets_one_push_every_ten_seconds() {
    let world = World::new().await;
    let (browser, json, _) = world.subscriber().await;
    let answer = world.post("/send-test", &json).await;
    answer.has_members(&["success", "message"]);
    assert_eq!(
        (answer.status, &answer.json()["success"]),
        (200, &json!(true))
    );
    assert_eq!(
        browser.messages()[0].text(),
        Some(r#"{"title":"Test Notification","message":"This is a test notification."}"#)
    );

    let soon = world.post("/send-test", &json).await;
    soon.is(429, "too_many_tests");
    assert_eq!(soon.headers["retry-after"], "10");
    let (other, own, _) = world.subscriber().await;
    let own = with(&own, json!({"title": "Hi", "message": "there"}));
    assert_eq!(
        world.post("/send-test", &own).await.status,
        200,
        "each has its own turn"
    );
    assert_eq!(
        other.messages()[0].text(),
        Some(r#"{"title":"Hi","message":"there"}"#)
    );
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(world.post("/send-test", &json).await.status, 200);
}

#[tokio::test]
async fn a_push_service_that_another_process_paused_is_not_asked() {
    let world = World::new().await;
    let (_, json, _) = world.subscriber().await;
    let until = world.clock.now() + Duration::from_secs(60);
    let pause = Pause::new(Origin::parse(FCM).unwrap(), until, PauseReason::RateLimited);
    let now = world.clock.now();
    world.store.pause(&pause, now).await.unwrap();
    let answer = world.post("/send-test", &json).await;
    assert_eq!(answer.json()["success"], json!(false));
    assert_eq!(world.service.counts().requests, 0);
}

#[tokio::test]
async fn all_three_must_match() {
    let world = World::new().await;
    let (browser, json, _) = world.subscriber().await;
    let (_, stranger) = world.browser();
    let auth = with(&json["keys"], json!({"auth": stranger["keys"]["auth"]}));
    let p256dh = with(&json["keys"], json!({"p256dh": stranger["keys"]["p256dh"]}));
    for guess in [
        stranger.clone(),
        with(&json, json!({"keys": auth})),
        with(&json, json!({"keys": p256dh})),
        with(&json, json!({"keys": stranger["keys"]})),
    ] {
        let answer = world.post("/send-test", &guess).await;
        answer.is(404, "unknown_subscription");
        assert_eq!(answer.message(), "Subscription not found");
    }
    assert!(browser.messages().is_empty());
    assert_eq!(
        world.post("/send-test", &json).await.status,
        200,
        "guesses use no turn up"
    );
}

#[tokio::test]
async fn a_failure_is_told_and_a_retired_row_is_unknown() {
    let world = World::new().await;
    let (_, json, _) = world.subscriber().await;
    let refused = Answer::status(StatusCode::BAD_REQUEST);
    world.service.script(When::any().times(1), refused);
    let answer = world.post("/send-test", &json).await;
    assert_eq!(
        (answer.status, &answer.json()["success"]),
        (200, &json!(false))
    );
    assert!(!answer.text().contains("fcm/send"), "{}", answer.text());

    let key = Endpoint::parse(json["endpoint"].as_str().unwrap())
        .unwrap()
        .key();
    let (reason, observed_at) = (RetireReason::Gone, world.clock.now());
    let retire = Change::Retire {
        key,
        reason,
        observed_at,
    };
    world
        .store
        .apply(&[retire], world.clock.now())
        .await
        .unwrap();
    world
        .post("/send-test", &json)
        .await
        .is(404, "unknown_subscription");
}

#[tokio::test]
async fn malformed_ones_are_refused() {
    let world = World::new().await;
    let (_, json, _) = world.subscriber().await;
    for (members, status, code) in [
        (json!({"endpoint": null}), 400, "missing_endpoint"),
        (json!({"keys": null}), 400, "missing_keys"),
        (json!({"title": 1}), 400, "invalid_member"),
        (json!({"message": []}), 400, "invalid_member"),
        (
            json!({"message": "x".repeat(4000)}),
            422,
            "payload_too_large",
        ),
    ] {
        world
            .post("/send-test", &with(&json, members))
            .await
            .is(status, code);
    }
}
