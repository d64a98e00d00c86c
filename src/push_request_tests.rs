//! What goes on the wire, header by header.

use std::time::Duration;

use super::*;
use crate::encryption::decrypt;
use crate::message::{Padding, Topic};
use crate::p256::{self, UaSecretKey};
use crate::subscription::{AuthSecret, Origin};
use crate::vapid;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

struct Fixture {
    secret: UaSecretKey,
    auth: AuthSecret,
    key: Arc<VapidKey>,
    signer: Signer,
    contact: Contact,
}

impl Fixture {
    fn new() -> Self {
        Self {
            secret: UaSecretKey::random().unwrap(),
            auth: AuthSecret::from_bytes(b"sixteen octets..").unwrap(),
            key: Arc::new(VapidKey::generate().unwrap()),
            signer: Signer::new(),
            contact: Contact::parse("mailto:push@example.com").unwrap(),
        }
    }

    fn push(&self, endpoint: &str, message: Message) -> Push {
        let endpoint = endpoint.parse().unwrap();
        let subscription = Subscription::new(endpoint, *self.secret.public(), self.auth.clone());
        Push::new(subscription, message, Arc::clone(&self.key))
    }

    fn request(&self, push: &Push) -> Request<PushBody> {
        push.request(p256::fastest(), &self.signer, &self.contact, NOW)
            .unwrap()
    }

    fn names(&self, endpoint: &str, message: Message) -> Vec<String> {
        let request = self.request(&self.push(endpoint, message));
        let mut names: Vec<_> = request.headers().keys().map(ToString::to_string).collect();
        names.sort();
        names
    }
}

const OTHER: &str = "https://push.example.com:8443/p/1?q=%2F";
const WNS: &str = "https://db5p.notify.windows.com/w/?token=x";
const APPLE: &str = "https://web.push.apple.com/Qx";

#[test]
fn a_request_posts_to_the_endpoint_byte_for_byte() {
    let fixture = Fixture::new();
    let request = fixture.request(&fixture.push(OTHER, Message::new("hello")));
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri(), OTHER);
}

#[test]
fn the_body_decrypts_and_its_length_is_told() {
    let fixture = Fixture::new();
    let message = Message::new("hello").with_padding(Padding::None);
    let request = fixture.request(&fixture.push(OTHER, message));
    assert_eq!(request.headers()["content-encoding"], "aes128gcm");
    assert_eq!(
        request.headers()["content-type"],
        "application/octet-stream"
    );
    assert_eq!(request.headers()["content-length"], "108");
    assert_eq!(request.body().size_hint().exact(), Some(108));
    let plaintext = decrypt(
        p256::fastest(),
        &fixture.secret,
        &fixture.auth,
        request.body().as_bytes(),
    );
    assert_eq!(plaintext.unwrap(), b"hello");
}

#[test]
fn every_request_encrypts_anew_and_reuses_the_token() {
    let fixture = Fixture::new();
    let push = fixture.push(OTHER, Message::new("hello"));
    let (first, second) = (fixture.request(&push), fixture.request(&push));
    let (salt, keyid) = (0..16, 21..86);
    for part in [salt, keyid] {
        let of = |request: &Request<PushBody>| request.body().as_bytes()[part.clone()].to_vec();
        assert_ne!(of(&first), of(&second));
    }
    assert_eq!(
        first.headers()["authorization"],
        second.headers()["authorization"]
    );
}

#[test]
fn authorization_is_for_the_origin_and_sensitive_also_without_a_payload() {
    let fixture = Fixture::new();
    for message in [Message::without_payload(), Message::new("hello")] {
        let request = fixture.request(&fixture.push(OTHER, message));
        let value = &request.headers()["authorization"];
        assert!(value.is_sensitive());
        let origin = Origin::parse("https://push.example.com:8443").unwrap();
        let verified = vapid::verify(value, &origin, NOW + Duration::from_secs(60)).unwrap();
        assert_eq!(verified.public_key(), fixture.key.public_key());
    }
}

#[test]
fn a_push_without_a_payload_has_no_body_headers_but_a_length() {
    let fixture = Fixture::new();
    assert_eq!(
        fixture.names(OTHER, Message::without_payload()),
        ["authorization", "content-length", "ttl"]
    );
    let request = fixture.request(&fixture.push(OTHER, Message::without_payload()));
    assert_eq!(request.headers()["content-length"], "0");
    assert!(request.body().is_end_stream());
}

#[test]
fn an_encrypted_empty_payload_is_not_a_push_without_one() {
    let fixture = Fixture::new();
    let message = Message::new("").with_padding(Padding::None);
    let request = fixture.request(&fixture.push(OTHER, message));
    assert_eq!(request.headers()["content-length"], "103");
    assert_eq!(request.headers()["content-encoding"], "aes128gcm");
}

#[test]
fn urgency_and_topic_are_sent_when_they_say_something() {
    let fixture = Fixture::new();
    let message = Message::new("x")
        .with_urgency(Urgency::VeryLow)
        .with_topic(Topic::parse("abc-_1").unwrap());
    let request = fixture.request(&fixture.push(OTHER, message));
    assert_eq!(request.headers()["urgency"], "very-low");
    assert_eq!(request.headers()["topic"], "abc-_1");
    assert_eq!(
        fixture.names(OTHER, Message::new("x")),
        [
            "authorization",
            "content-encoding",
            "content-length",
            "content-type",
            "ttl"
        ]
    );
}

#[test]
fn the_ttl_is_always_there_and_within_what_the_push_service_takes() {
    let fixture = Fixture::new();
    let ttl = |endpoint, ttl| {
        let push = fixture.push(endpoint, Message::new("x").with_ttl(ttl));
        fixture.request(&push).headers()["ttl"].clone()
    };
    assert_eq!(ttl(OTHER, Ttl::ZERO), "0");
    assert_eq!(ttl(OTHER, Ttl::MAX), "2419200");
    assert_eq!(ttl(APPLE, Ttl::ZERO), "1");
    assert_eq!(ttl(WNS, Ttl::ZERO), "0");
}

#[test]
fn the_time_waited_can_be_taken_off_the_ttl() {
    let fixture = Fixture::new();
    let push = fixture.push(OTHER, Message::new("x").with_ttl(Ttl::from_secs(100)));
    let push = push.with_ttl(Ttl::from_secs(40));
    assert_eq!(push.ttl(), Ttl::from_secs(40));
    assert_eq!(fixture.request(&push).headers()["ttl"], "40");
}

#[test]
fn only_wns_with_ttl_0_gets_the_cache_policy() {
    let fixture = Fixture::new();
    for (endpoint, ttl, sent) in [
        (WNS, Ttl::ZERO, true),
        (WNS, Ttl::from_secs(1), false),
        (OTHER, Ttl::ZERO, false),
        (APPLE, Ttl::ZERO, false),
    ] {
        let push = fixture.push(endpoint, Message::new("x").with_ttl(ttl));
        let request = fixture.request(&push);
        let value = request.headers().get("x-wns-cache-policy");
        let expected = sent.then(|| HeaderValue::from_static("no-cache"));
        assert_eq!(value, expected.as_ref(), "{endpoint}");
    }
}

#[test]
fn a_payload_above_the_limit_is_too_large() {
    let fixture = Fixture::new();
    let request = |len: usize| {
        let push = fixture.push(OTHER, Message::new(vec![b'x'; len]));
        push.request(p256::fastest(), &fixture.signer, &fixture.contact, NOW)
    };
    assert_eq!(request(3993).unwrap().body().as_bytes().len(), 4096);
    let kind = request(3994).unwrap_err().kind();
    assert_eq!(kind, PushRequestErrorKind::TooLarge);
}

#[test]
fn the_body_is_one_frame_of_exact_size() {
    use futures_util::FutureExt as _;
    let mut body = PushBody::new("abc");
    assert_eq!(body.size_hint().exact(), Some(3));
    let mut next = || {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        frame.now_or_never().unwrap()
    };
    assert_eq!(next().unwrap().unwrap().into_data().unwrap(), "abc");
    assert!(next().is_none());
    assert!(body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(0));
}

#[test]
fn debug_shows_no_secret() {
    let fixture = Fixture::new();
    let push = fixture.push("https://push.example.com/token", Message::new("hidden"));
    let request = fixture.request(&push);
    let debug = format!("{push:?} {request:?}");
    assert!(
        !debug.contains("hidden") && !debug.contains("vapid t="),
        "{debug}"
    );
    assert!(!format!("{push:?}").contains("token"), "{push:?}");
}
