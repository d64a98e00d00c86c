//! Tests of the checks.

mod behaviour;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use tower::ServiceExt as _;

use super::*;
use crate::clock::Clock as _;
use crate::encryption::{MAX_BODY, encrypt};
use crate::message::Padding;
use crate::p256;
use crate::subscription::{Origin, Subscription};
use crate::vapid::{Contact, Signer, VapidErrorKind, VapidKey};

/// A push service with a clock, a browser, and a sender without the crate's client.
struct World {
    service: TestPushService,
    clock: ManualClock,
    browser: UserAgent,
    key: VapidKey,
    subscription: Subscription,
}

impl World {
    fn at(origin: &str) -> Self {
        let clock = ManualClock::default();
        let service = TestPushService::builder()
            .origin(Origin::parse(origin).unwrap())
            .clock(clock.clone())
            .build();
        let browser = service.user_agent();
        let key = VapidKey::generate().unwrap();
        let subscription = browser.subscribe(key.public_key()).unwrap();
        Self {
            service,
            clock,
            browser,
            key,
            subscription,
        }
    }

    fn new() -> Self {
        Self::at("https://push.example.net")
    }

    fn authorization(&self, key: &VapidKey) -> HeaderValue {
        let contact = Contact::parse("mailto:ops@example.com").unwrap();
        let origin = self.subscription.endpoint().origin();
        Signer::new()
            .authorization(key, origin, &contact, self.clock.now())
            .unwrap()
    }

    fn request(&self, payload: &[u8]) -> Request<Full<Bytes>> {
        let body = encrypt(
            p256::fastest(),
            &self.subscription,
            payload,
            Padding::default(),
        )
        .unwrap();
        Request::post(self.subscription.endpoint().as_str())
            .header("ttl", "60")
            .header("content-encoding", "aes128gcm")
            .header("authorization", self.authorization(&self.key))
            .body(Full::new(body))
            .unwrap()
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Response<AnswerBody> {
        self.service.clone().oneshot(request).await.unwrap()
    }

    /// Sends a correct push, changed by `change`, and returns the reason of its refusal.
    async fn refused(&self, change: impl FnOnce(&mut Request<Full<Bytes>>)) -> RefusalReason {
        let mut request = self.request(b"x");
        change(&mut request);
        let before = self.service.refusals().len();
        let response = self.send(request).await;
        let refusals = self.service.refusals();
        assert_eq!(refusals.len(), before + 1, "{response:?}");
        let refusal = refusals.last().unwrap();
        assert_eq!(refusal.status(), response.status());
        refusal.reason()
    }

    async fn push(&self, payload: &str, headers: &[(&'static str, &'static str)]) {
        let mut request = self.request(payload.as_bytes());
        for (name, value) in headers {
            set(name, value)(&mut request);
        }
        assert_eq!(self.send(request).await.status(), StatusCode::CREATED);
    }

    fn texts(&self) -> Vec<String> {
        let messages = self.browser.messages();
        let text = |push: &ReceivedPush| push.text().unwrap().to_owned();
        messages.iter().map(text).collect()
    }
}

fn set<B>(name: &'static str, value: &'static str) -> impl FnOnce(&mut Request<B>) {
    move |request| {
        let value = HeaderValue::from_static(value);
        request.headers_mut().insert(name, value);
    }
}

fn add<B>(name: &'static str, value: &'static str) -> impl FnOnce(&mut Request<B>) {
    move |request| {
        let value = HeaderValue::from_static(value);
        request.headers_mut().append(name, value);
    }
}

fn without<B>(name: &'static str) -> impl FnOnce(&mut Request<B>) {
    move |request| {
        request.headers_mut().remove(name);
    }
}

#[tokio::test]
async fn an_accepted_push_is_answered_decrypted_and_recorded() {
    let world = World::new();
    let mut request = world.request(b"{\"n\":7}");
    set("topic", "orders")(&mut request);
    set("urgency", "high")(&mut request);
    set("ttl", "99999999999")(&mut request);
    let response = world.send(request).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["ttl"], "2419200");
    assert_eq!(
        response.headers()["location"],
        "https://push.example.net/m/0"
    );

    let push = world.browser.next().await;
    assert_eq!(push.json::<serde_json::Value>().unwrap()["n"], 7);
    assert_eq!(push.topic(), Some("orders"));
    assert_eq!(push.urgency().as_str(), "high");
    assert_eq!(push.ttl().as_secs(), 1 << 31);
    assert_eq!(push.at(), world.clock.now());
    assert_eq!(push.body_len(), 256 + 103);
    let vapid = push.vapid().unwrap();
    assert_eq!(vapid.public_key(), world.key.public_key());
    assert_eq!(vapid.subject(), Some("mailto:ops@example.com"));
    assert!(!format!("{push:?}").contains("\"n\""));
    assert_eq!(world.service.accepted_for(world.subscription.endpoint()), 1);
    assert_eq!(world.service.counts().accepted, 1);
    assert!(world.browser.try_next().is_none());
}

#[tokio::test]
async fn a_push_without_a_body_has_no_data_and_an_empty_one_has() {
    let world = World::new();
    let mut request = world.request(b"");
    *request.body_mut() = Full::default();
    without("content-encoding")(&mut request);
    world.send(request).await;
    assert_eq!(world.browser.next().await.data(), None);
    world.send(world.request(b"")).await;
    assert_eq!(world.browser.next().await.data(), Some(&Bytes::new()));
}

#[tokio::test]
async fn the_headers_are_taken_strictly() {
    let world = World::new();
    assert_eq!(world.refused(without("ttl")).await, RefusalReason::Ttl);
    assert_eq!(world.refused(add("ttl", "60")).await, RefusalReason::Ttl);
    for ttl in ["", "-1", "+1", "1.5", "1, 2"] {
        assert_eq!(world.refused(set("ttl", ttl)).await, RefusalReason::Ttl);
    }
    for urgency in ["urgent", "High", "low, high", ""] {
        let reason = world.refused(set("urgency", urgency)).await;
        assert_eq!(reason, RefusalReason::Urgency);
    }
    for topic in ["", "a b", "a=", "012345678901234567890123456789012"] {
        let reason = world.refused(set("topic", topic)).await;
        assert_eq!(reason, RefusalReason::Topic);
    }
    for coding in ["aesgcm", "gzip", "aes128gcm, gzip"] {
        let reason = world.refused(set("content-encoding", coding)).await;
        assert_eq!(reason, RefusalReason::ContentEncoding);
    }
    let reason = world.refused(without("content-encoding")).await;
    assert_eq!(reason, RefusalReason::ContentEncoding);
    let get = |request: &mut Request<_>| *request.method_mut() = Method::GET;
    assert_eq!(world.refused(get).await, RefusalReason::Method);
    world
        .push("five", &[("topic", "five5"), ("ttl", "0")])
        .await;
}

#[tokio::test]
async fn the_body_has_a_limit_and_must_decrypt() {
    let world = World::new();
    let full = world.request(&[7; 3993]);
    assert_eq!(
        full.body()
            .clone()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .len(),
        MAX_BODY
    );
    assert_eq!(world.send(full).await.status(), StatusCode::CREATED);
    let too_large =
        |request: &mut Request<_>| *request.body_mut() = Full::new(vec![0; 4097].into());
    assert_eq!(world.refused(too_large).await, RefusalReason::TooLarge);
    let garbage = |request: &mut Request<_>| *request.body_mut() = Full::new(vec![0; 200].into());
    assert_eq!(world.refused(garbage).await, RefusalReason::Undecryptable);
    let own_key = |request: &mut Request<_>| {
        let mut body = vec![0; 200];
        body[21..86].copy_from_slice(world.key.public_key().as_bytes());
        *request.body_mut() = Full::new(body.into());
    };
    assert_eq!(world.refused(own_key).await, RefusalReason::ReusedKey);
}

#[tokio::test]
async fn the_body_may_come_in_frames_break_off_and_never_end() {
    let world = World::new();
    let frames = |fails: bool| {
        let frame = |bytes: &'static [u8]| Ok(http_body::Frame::data(Bytes::from_static(bytes)));
        let end = fails.then_some(Err(std::io::Error::other("cut")));
        let frames = [frame(&[0; 100]), frame(b""), frame(&[0; 100])];
        StreamBody::new(futures_util::stream::iter(frames.into_iter().chain(end)))
    };
    let (parts, _) = world.request(b"x").into_parts();
    for (fails, reason) in [
        (true, RefusalReason::BrokenBody),
        (false, RefusalReason::Undecryptable),
    ] {
        let request = Request::from_parts(parts.clone(), frames(fails));
        world.service.clone().oneshot(request).await.unwrap();
        assert_eq!(world.service.refusals().last().unwrap().reason(), reason);
    }
    let endless = futures_util::stream::repeat_with(|| {
        Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from_static(&[0; 100])))
    });
    let request = Request::from_parts(parts, StreamBody::new(endless));
    let response = world.service.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn the_sender_must_be_the_one_that_the_page_named() {
    let world = World::new();
    let reason = world.refused(without("authorization")).await;
    assert_eq!(reason, RefusalReason::NoCredentials);
    let reason = world.refused(set("authorization", "Bearer x")).await;
    assert_eq!(reason, RefusalReason::NoCredentials);
    let other = world.authorization(&VapidKey::generate().unwrap());
    let other = |request: &mut Request<_>| {
        request.headers_mut().insert("authorization", other);
    };
    assert_eq!(world.refused(other).await, RefusalReason::KeyMismatch);

    let late = world.request(b"late");
    world.clock.advance(Duration::from_secs(12 * 3600 + 1));
    assert_eq!(world.send(late).await.status(), StatusCode::FORBIDDEN);
    let expired = RefusalReason::BadCredentials(VapidErrorKind::Expired);
    assert_eq!(world.service.refusals().last().unwrap().reason(), expired);
}

#[tokio::test]
async fn a_cached_token_expires_all_the_same() {
    let world = World::new();
    let (first, again) = (world.request(b"1"), world.request(b"2"));
    let token = first.headers()["authorization"].clone();
    assert_eq!(world.send(first).await.status(), StatusCode::CREATED);
    world.clock.advance(Duration::from_secs(12 * 3600 + 1));
    let (mut parts, body) = again.into_parts();
    parts.headers.insert("authorization", token);
    let again = Request::from_parts(parts, body);
    assert_eq!(world.send(again).await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn an_unrestricted_subscription_takes_anybody_but_no_false_token() {
    let mut world = World::new();
    world.subscription = world.browser.subscribe_unrestricted().unwrap();
    let mut anonymous = world.request(b"hi");
    without("authorization")(&mut anonymous);
    assert_eq!(world.send(anonymous).await.status(), StatusCode::CREATED);
    assert!(world.browser.next().await.vapid().is_none());
    let reason = world
        .refused(set("authorization", "vapid t=a.b.c, k=d"))
        .await;
    assert!(
        matches!(reason, RefusalReason::BadCredentials(_)),
        "{reason}"
    );
}

#[tokio::test]
async fn an_ended_subscription_is_gone_and_another_path_was_never_there() {
    let world = World::new();
    assert!(world.browser.subscribe(world.key.public_key()).unwrap() == world.subscription);
    let old = world.request(b"old");
    assert!(world.browser.unsubscribe());
    assert!(!world.browser.unsubscribe());
    assert_eq!(world.send(old).await.status(), StatusCode::GONE);

    let again = world.browser.subscribe(world.key.public_key()).unwrap();
    assert_ne!(again.endpoint(), world.subscription.endpoint());
    assert!(!again.same_keys(&world.subscription));
    let elsewhere = again
        .endpoint()
        .as_str()
        .replace("example.net", "example.org");
    for url in ["https://push.example.net/wpush/nobody", "/", &elsewhere] {
        let request = |request: &mut Request<_>| *request.uri_mut() = url.parse().unwrap();
        assert_eq!(world.refused(request).await, RefusalReason::UnknownPath);
    }
    assert!(world.service.expire(again.endpoint()));
    assert_eq!(world.browser.subscription(), Some(again));
}

#[tokio::test]
async fn the_push_services_refuse_in_their_own_words() {
    let cases = [
        ("https://fcm.googleapis.com", 403, "do not correspond"),
        (
            "https://updates.push.services.mozilla.com",
            401,
            "\"errno\":109",
        ),
        ("https://web.push.apple.com", 400, "VapidPkHashMismatch"),
        ("https://wns2-par02p.notify.windows.com", 401, ""),
        ("https://push.example.net", 403, "key_mismatch"),
    ];
    for (origin, status, text) in cases {
        let world = World::at(origin);
        assert_eq!(
            world.send(world.request(b"fine")).await.status(),
            201,
            "{origin}"
        );
        let mut request = world.request(b"x");
        let other = world.authorization(&VapidKey::generate().unwrap());
        request.headers_mut().insert("authorization", other);
        let response = world.send(request).await;
        assert_eq!(response.status(), status, "{origin}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains(text), "{origin}: {body}");
    }
}

#[tokio::test]
async fn apple_and_wns_have_rules_of_their_own() {
    let apple = World::at("https://web.push.apple.com");
    assert_eq!(
        apple.refused(set("topic", "five5")).await,
        RefusalReason::Topic
    );
    let wns = World::at("https://db5p.notify.windows.com");
    assert_eq!(
        wns.refused(set("ttl", "0")).await,
        RefusalReason::CachePolicy
    );
    wns.push("x", &[("ttl", "0"), ("x-wns-cache-policy", "no-cache")])
        .await;
    let lost_query = |request: &mut Request<_>| {
        *request.uri_mut() = "https://db5p.notify.windows.com/w/".parse().unwrap();
    };
    assert_eq!(wns.refused(lost_query).await, RefusalReason::UnknownPath);
}
