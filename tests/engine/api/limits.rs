//! Limits of one peer, and that other peers are not affected.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::{Value, json};
use tokio::time::sleep;
use tower::ServiceExt as _;
use tower_web_push::api::{PeerAddr, WebPushService};
use tower_web_push::broadcast::{Audience, Principal};
use tower_web_push::clock::{Clock as _, Timestamp};
use tower_web_push::store::{
    CountFilter, DeliveryLedger as _, Liveness, MemoryStore, ScheduleStore, SubscriptionLimits,
    SubscriptionStore, VapidKeyStore,
};
use tower_web_push::subscription::Origin;
use tower_web_push::testing::TestPushService;
use tower_web_push::{Message, WebPush};

use super::{Answer, World, post, with};

impl World {
    async fn post_from(&self, peer: &str, path: &str, body: &Value) -> Answer {
        let mut request = post(path, body);
        let peer = PeerAddr::new(peer.parse().unwrap());
        request.extensions_mut().insert(peer);
        self.call(request).await
    }
}

fn retry_after(answer: &Answer) -> Duration {
    let secs = answer.headers["retry-after"].to_str().unwrap();
    Duration::from_secs(secs.parse().unwrap())
}

const STRANGER: &str = "192.0.2.1";
const OTHER: &str = "192.0.2.2";

/// A browser that wants a daily notification, which gets a confirmation.
fn daily(world: &World) -> Value {
    let (_, json) = world.browser();
    with(&json, json!({"notifyTime": {"utcHour": 8, "minute": 0}}))
}

#[tokio::test(start_paused = true)]
async fn the_public_post_routes_share_a_bucket_for_each_peer() {
    let world = World::with_api(|s| s.public_requests_per_minute(4)).await;
    let (_, json) = world.browser();
    for path in ["/subscribe", "/renew", "/unsubscribe", "/send-test"] {
        let answer = world.post_from(STRANGER, path, &json).await;
        assert_ne!(answer.status, 429, "{path}");
    }
    for path in ["/subscribe", "/renew", "/unsubscribe", "/send-test"] {
        let refused = world.post_from(STRANGER, path, &json).await;
        refused.is(429, "too_many_requests");
        assert_eq!(retry_after(&refused), Duration::from_secs(15));
        let other = world.post_from(OTHER, path, &json).await;
        assert_ne!(other.status, 429, "{path}");
    }
    tokio::time::advance(Duration::from_secs(15)).await;
    let answer = world.post_from(STRANGER, "/subscribe", &json).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test(start_paused = true)]
async fn requests_without_an_address_and_a_limit_of_0_are_not_limited() {
    let world = World::with_api(|s| s.public_requests_per_minute(1)).await;
    let unlimited = World::with_api(|s| s.public_requests_per_minute(0)).await;
    let (_, json) = world.browser();
    for _ in 0..100 {
        let answer = world.post("/subscribe", &json).await;
        assert_eq!(answer.status, 200);
        let answer = unlimited.post_from(STRANGER, "/unsubscribe", &json).await;
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_above_the_limit_is_refused_before_its_body_is_read() {
    let world = World::with_api(|s| s.public_requests_per_minute(1)).await;
    let peer = PeerAddr::new(STRANGER.parse().unwrap());
    let never = stream::pending::<Result<Frame<Bytes>, Infallible>>();
    let mut endless = Request::post("/subscribe")
        .header("content-type", "application/json")
        .body(StreamBody::new(never))
        .unwrap();
    endless.extensions_mut().insert(peer);
    let (_, json) = world.browser();
    world.post_from(STRANGER, "/subscribe", &json).await;
    // Time stands still unless a task waits for the body.
    let start = tokio::time::Instant::now();
    world.call(endless).await.is(429, "too_many_requests");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_the_head_refuses_costs_no_token() {
    let world = World::with_api(|s| s.public_requests_per_minute(1)).await;
    let peer = PeerAddr::new(STRANGER.parse().unwrap());
    for _ in 0..9 {
        let mut request = post("/subscribe", &json!({}));
        request.extensions_mut().insert(peer);
        let text = "text/plain".parse().unwrap();
        request.headers_mut().insert("content-type", text);
        world.call(request).await.is(415, "unsupported_media_type");
    }
    let (_, json) = world.browser();
    let answer = world.post_from(STRANGER, "/subscribe", &json).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test(start_paused = true)]
async fn administrators_are_not_limited() {
    let world = World::with_api(|s| s.public_requests_per_minute(1)).await;
    for _ in 0..9 {
        let mut request = post("/notify", &json!({"title": "x"}));
        let peer = PeerAddr::new(STRANGER.parse().unwrap());
        request.extensions_mut().insert(peer);
        let token = super::TOKEN.parse().unwrap();
        request.headers_mut().insert("authorization", token);
        assert_eq!(world.call(request).await.status, 202);
    }
}

#[tokio::test(start_paused = true)]
async fn tests_and_confirmations_share_a_bucket_for_each_peer() {
    let world = World::with_api(|s| s.public_pushes_per_minute(2)).await;
    let subscribers = [daily(&world), daily(&world), daily(&world)];
    for json in &subscribers[..2] {
        let answer = world.post_from(STRANGER, "/subscribe", json).await;
        assert_eq!(answer.status, 200);
    }
    let third = world
        .post_from(STRANGER, "/subscribe", &subscribers[2])
        .await;
    assert_eq!(third.status, 200, "stored, but not confirmed");
    world.settle().await;
    assert_eq!(world.service.accepted().len(), 2);

    let refused = world
        .post_from(STRANGER, "/send-test", &subscribers[0])
        .await;
    refused.is(429, "too_many_requests");
    assert_eq!(retry_after(&refused), Duration::from_secs(30));
    let other = world.post_from(OTHER, "/send-test", &subscribers[0]).await;
    assert_eq!(other.status, 200, "the refused test did not use its turn");
    assert_eq!(world.service.accepted().len(), 3);

    let again = world.post_from(OTHER, "/send-test", &subscribers[0]).await;
    again.is(429, "too_many_tests");
    let other = world.post_from(OTHER, "/send-test", &subscribers[1]).await;
    assert_eq!(other.status, 200, "a refused turn costs its peer no push");
}

/// Each spelling is a row of its own.
#[tokio::test(start_paused = true)]
async fn all_spellings_of_an_endpoint_share_its_turns() {
    let world = World::new().await;
    let json = daily(&world);
    let plain = "https://fcm.googleapis.com/";
    let spelled = [
        "https://FCM.googleapis.com/",
        "https://fcm.googleapis.com:443/",
    ];
    let spelled = spelled.map(|origin| json.to_string().replace(plain, origin));
    let spelled = spelled.map(|text| serde_json::from_str(&text).unwrap());
    for json in [&json, &spelled[0], &spelled[1]] {
        let answer = world.post("/subscribe", json).await;
        assert_eq!(answer.json()["created"], true);
    }
    world.settle().await;
    assert_eq!(world.service.accepted().len(), 1, "one confirmation");
    assert_eq!(world.post("/send-test", &json).await.status, 200);
    for json in &spelled {
        let again = world.post("/send-test", json).await;
        again.is(429, "too_many_tests");
    }
    assert_eq!(world.service.accepted().len(), 2);
}

/// Whoever knows an endpoint can remove it, and register it again.
#[tokio::test(start_paused = true)]
async fn a_subscription_is_confirmed_once_in_ten_seconds_whoever_registers_it() {
    let world = World::with_api(|s| s.public_pushes_per_minute(2)).await;
    let json = daily(&world);
    for peer in [STRANGER, OTHER, STRANGER] {
        let answer = world.post_from(peer, "/subscribe", &json).await;
        assert_eq!(
            (answer.status, &answer.json()["created"]),
            (200, &json!(true))
        );
        let removed = world.post_from(peer, "/unsubscribe", &json).await;
        assert_eq!(removed.status, 200);
        world.post_from(peer, "/subscribe", &json).await;
        world.settle().await;
        assert_eq!(world.service.accepted().len(), 1, "{peer}");
        world.post_from(peer, "/unsubscribe", &json).await;
    }
    // What was not sent took no push of the peers: STRANGER has one left, and OTHER two.
    for (peer, sent) in [(OTHER, 2), (OTHER, 3), (STRANGER, 4), (STRANGER, 4)] {
        world.post_from(peer, "/subscribe", &daily(&world)).await;
        world.settle().await;
        assert_eq!(world.service.accepted().len(), sent, "{peer}");
    }
    // What a peer may not cause takes no turn.
    let other = daily(&world);
    for (peer, sent) in [(STRANGER, 4), ("192.0.2.3", 5)] {
        world.post_from(peer, "/subscribe", &other).await;
        world.settle().await;
        assert_eq!(world.service.accepted().len(), sent, "{peer}");
        world.post_from(peer, "/unsubscribe", &other).await;
    }
    sleep(Duration::from_secs(10)).await;
    world.post_from("192.0.2.3", "/subscribe", &json).await;
    world.settle().await;
    assert_eq!(world.service.accepted().len(), 6);
}

#[tokio::test]
async fn a_confirmation_leaves_nothing_in_the_ledger() {
    let world = World::new().await;
    world.post("/subscribe", &daily(&world)).await;
    let now = world.clock.now();
    let underway = world.store.underway(9, now).await.unwrap();
    assert_eq!(underway.len(), 1);
    world.settle().await;
    assert_eq!(world.service.accepted().len(), 1);
    let status = world.store.status(underway[0].id, world.clock.now()).await;
    assert_eq!(status.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn wrong_passwords_close_basic_for_their_peer_only() {
    let world = World::new().await;
    let ask = async |peer: &str, password: &str| {
        use base64ct::Encoding as _;
        let pair = base64ct::Base64::encode_string(format!("admin:{password}").as_bytes());
        let mut request = Request::get("/stats")
            .header("authorization", format!("Basic {pair}"))
            .body(super::full(""))
            .unwrap();
        let peer = PeerAddr::new(peer.parse().unwrap());
        request.extensions_mut().insert(peer);
        world.call(request).await
    };
    for _ in 0..10 {
        let wrong = ask(STRANGER, "not the password").await;
        wrong.is(401, "wrong_credentials");
    }
    let refused = ask(STRANGER, super::PASSWORD).await;
    refused.is(429, "too_many_failures");
    assert_eq!(ask(OTHER, super::PASSWORD).await.status, 200);
}

/// An anonymous flood: requests of several peers in turns, each for a new subscription. Returns the responses by
/// status.
async fn flood(
    push: &WebPush,
    api: &WebPushService,
    peers: u32,
    requests: u32,
) -> BTreeMap<u16, u32> {
    let service = TestPushService::builder()
        .origin(Origin::parse(super::FCM).unwrap())
        .build();
    let mut answers = BTreeMap::new();
    for number in 0..requests {
        let browser = service.user_agent();
        browser.subscribe(&push.vapid_public_key()).unwrap();
        let json = serde_json::from_str(&browser.subscription_json().unwrap()).unwrap();
        let mut request = post("/subscribe", &json);
        let peer = Ipv4Addr::from(0x0a00_0000 + number % peers);
        let peer = PeerAddr::new(peer.into());
        request.extensions_mut().insert(peer);
        let answer = api.clone().oneshot(request).await.unwrap();
        let status = Answer::read(answer).await.status;
        *answers.entry(status).or_default() += 1;
    }
    answers
}

async fn rows(store: &dyn SubscriptionStore) -> u64 {
    let every = CountFilter::new(Audience::All, Liveness::Any);
    store.count(&every, Timestamp::from_secs(0)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_flood_from_one_peer_stores_60_subscriptions_and_one_more_each_second() {
    let world = World::new().await;
    let answers = flood(&world.push, &world.layer.service(), 1, 1000).await;
    assert_eq!(answers, BTreeMap::from([(200, 60), (429, 940)]));
    assert_eq!(world.count().await, 60);
    tokio::time::advance(Duration::from_secs(10)).await;
    let answers = flood(&world.push, &world.layer.service(), 1, 100).await;
    assert_eq!(answers, BTreeMap::from([(200, 10), (429, 90)]));
    // Others subscribe meanwhile.
    let (_, json) = world.browser();
    let other = world.post_from(OTHER, "/subscribe", &json).await;
    assert_eq!(other.status, 200);
}

/// The rows that a flood from many peers can store, and the registrations that are still accepted.
async fn stops_at_the_unproven_rows<S>(store: Arc<S>)
where
    S: SubscriptionStore + VapidKeyStore + ScheduleStore,
{
    let service = TestPushService::builder()
        .origin(Origin::parse(super::FCM).unwrap())
        .build();
    let push = WebPush::builder("mailto:ops@example.com")
        .store(Arc::clone(&store))
        .client(service.clone())
        .subscription_limits(SubscriptionLimits::default().with_unproven(100))
        .build()
        .await
        .unwrap();
    let api = push.service();
    let known = service.user_agent();
    known.subscribe(&push.vapid_public_key()).unwrap();
    let known: Value = serde_json::from_str(&known.subscription_json().unwrap()).unwrap();
    let subscribe = async |json: &Value, principal: Option<&str>| {
        let mut request = post("/subscribe", json);
        if let Some(principal) = principal {
            request.extensions_mut().insert(Principal::from(principal));
        }
        Answer::read(api.clone().oneshot(request).await.unwrap()).await
    };
    assert_eq!(subscribe(&known, None).await.status, 200);

    let answers = flood(&push, &api, 100, 1000).await;
    assert_eq!(answers, BTreeMap::from([(200, 99), (503, 901)]));
    assert_eq!(rows(&*store).await, 100);

    let fresh = service.user_agent();
    fresh.subscribe(&push.vapid_public_key()).unwrap();
    let fresh: Value = serde_json::from_str(&fresh.subscription_json().unwrap()).unwrap();
    subscribe(&fresh, None).await.is(503, "store_full");
    assert_eq!(subscribe(&fresh, Some("alice")).await.status, 200);
    assert_eq!(subscribe(&known, None).await.status, 200, "a known one");

    // A broadcast proves or retires the rows.
    let report = push.send(Audience::All, Message::new("x")).await.unwrap();
    assert_eq!(report.counts.accepted, 2);
    let answers = flood(&push, &api, 100, 200).await;
    assert!(answers.get(&200).is_some_and(|stored| *stored >= 1));
}

#[tokio::test]
async fn a_flood_from_many_peers_stops_at_the_unproven_rows_in_memory() {
    stops_at_the_unproven_rows(Arc::new(MemoryStore::new())).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_flood_from_many_peers_stops_at_the_unproven_rows_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("push.db");
    let store = tower_web_push::store::SqliteStore::open(path).await;
    stops_at_the_unproven_rows(Arc::new(store.unwrap())).await;
}

/// This number of invented subscriptions opens the prune breaker of their push service.
#[tokio::test(start_paused = true)]
async fn broadcasts_end_a_flood_that_opens_the_prune_breaker() {
    let world = World::with(|builder| {
        builder.subscription_limits(SubscriptionLimits::default().with_unproven(100))
    })
    .await;
    let mut users = Vec::new();
    for number in 0..50 {
        let (browser, json) = world.browser();
        users.push(browser);
        let mut request = post("/subscribe", &json);
        let user = Principal::from(format!("user{number}"));
        request.extensions_mut().insert(user);
        assert_eq!(world.call(request).await.status, 200);
    }
    let answers = flood(&world.push, &world.layer.service(), 100, 150).await;
    assert_eq!(answers, BTreeMap::from([(200, 100), (503, 50)]));

    let (_stranger, json) = world.browser();
    let pause = Duration::from_secs(3 * 3600);
    for _ in 0..24 {
        world.clock.advance(pause);
        let to_all = world.push.send(Audience::All, Message::new("x")).await;
        assert_eq!(to_all.unwrap().counts.accepted, 50);
        world.post("/subscribe", &json).await.is(503, "store_full");
    }
    world.clock.advance(pause);
    world
        .push
        .send(Audience::All, Message::new("x"))
        .await
        .unwrap();
    assert_eq!(world.post("/subscribe", &json).await.status, 200);
    let live = CountFilter::new(Audience::All, Liveness::Live);
    let live = world.store.count(&live, world.clock.now()).await;
    assert_eq!(live.unwrap(), 51);
}
