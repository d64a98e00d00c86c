use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tower_web_push::clock::Clock as _;
use tower_web_push::deliver::{
    EndpointPolicy, HttpClient, ResolveError, ResolveErrorKind, Resolver,
};
use tower_web_push::store::{
    Change, DeliveryLedger as _, Failure, NewSubscription, Pause, PauseReason, RetireReason,
    SubscriptionLimits, SubscriptionStore as _,
};
use tower_web_push::subscription::{Endpoint, Origin, Subscription};
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
async fn endpoint_and_both_keys_must_match() {
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
async fn a_failure_is_reported_and_a_retired_row_is_unknown() {
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
        failure: Failure::default(),
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

/// A resolver whose answer depends on the name.
#[derive(Debug)]
struct Names;

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let addr = |text: &str| text.parse().unwrap();
        match host {
            "internal.localhost" => Ok(vec![addr("10.0.0.1")]),
            "mixed.localhost" => Ok(vec![addr("127.0.0.1"), addr("192.168.0.1")]),
            "empty.localhost" => Ok(Vec::new()),
            "unknown.localhost" => Err(ResolveErrorKind::NotFound.into()),
            "silent.localhost" => Err(ResolveErrorKind::Temporary.into()),
            _ => Ok(vec![addr("127.0.0.1")]),
        }
    }
}

/// Adds a row, as an earlier `/subscribe` did.
async fn stored(world: &World, endpoint: &str) -> Value {
    let json = with(&world.browser().1, json!({"endpoint": endpoint}));
    let subscription = Subscription::from_value(&json).unwrap();
    let key = world.push.vapid_public_key().id();
    let new = NewSubscription::new(subscription, key);
    let limits = SubscriptionLimits::default();
    let now = world.clock.now();
    world.store.upsert(&new, &limits, now).await.unwrap();
    json
}

#[tokio::test]
async fn what_the_policy_refuses_and_what_cannot_be_reached_get_the_same_answer() {
    let policy = EndpointPolicy::insecure_allow_local();
    let client = HttpClient::builder()
        .policy(policy.clone())
        .connect_timeout(Duration::from_millis(200))
        .resolver(Arc::new(Names));
    let client = client.build().unwrap();
    let world = World::with(|b| b.client(client).endpoint_policy(policy)).await;

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed_port = closed.local_addr().unwrap().port();
    drop(closed);
    // The kernel accepts connections that nothing answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    // Answers, but without TLS.
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain_port = plain.local_addr().unwrap().port();
    let plain = tokio::spawn(async move {
        while let Ok((mut connection, _)) = plain.accept().await {
            let _ = connection.write_all(b"HTTP/1.1 400 no TLS\r\n\r\n").await;
        }
    });

    let mut answers = Vec::new();
    for (host, port) in [
        ("internal.localhost", 443),
        ("mixed.localhost", 443),
        ("empty.localhost", 443),
        ("unknown.localhost", 443),
        ("silent.localhost", 443),
        ("refused.localhost", closed_port),
        ("silent.localhost", silent_port),
        ("plain.localhost", plain_port),
    ] {
        let json = stored(&world, &format!("https://{host}:{port}/x")).await;
        let answer = world.post("/send-test", &json).await;
        answers.push((host, answer.status, answer.headers, answer.body));
        // The gate of its origin is closed.
        let until = world.clock.now() + Duration::from_secs(60);
        let origin = Origin::parse(&format!("https://{host}:{port}")).unwrap();
        let pause = Pause::new(origin, until, PauseReason::Unreachable);
        let now = world.clock.now();
        world.store.pause(&pause, now).await.unwrap();
        let json = stored(&world, &format!("https://{host}:{port}/y")).await;
        let answer = world.post("/send-test", &json).await;
        answers.push((host, answer.status, answer.headers, answer.body));
    }
    plain.abort();
    for (.., headers, _) in &mut answers {
        assert!(headers.remove("x-request-id").is_some());
    }
    let (_, status, headers, body) = answers[0].clone();
    assert_eq!(status, 200);
    assert_eq!(
        serde_json::from_slice::<Value>(&body).unwrap(),
        json!({"success": false, "message": "Test notification was not sent: failed"})
    );
    for answer in answers {
        let host = answer.0;
        assert_eq!(answer, (host, status, headers.clone(), body.clone()));
    }
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let world = World::new().await;
    let (_, json, _) = world.subscriber().await;
    for (members, status, code) in [
        (json!({"endpoint": null}), 400, "missing_endpoint"),
        (json!({"keys": null}), 400, "missing_keys"),
        (json!({"keys": {}}), 400, "missing_keys"),
        (json!({"endpoint": "fcm"}), 400, "invalid_endpoint"),
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
