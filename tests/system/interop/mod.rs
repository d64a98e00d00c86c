//! Other implementations read what this crate writes, and the reverse.

mod peer;

use std::io;
use std::sync::Arc;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tower_web_push::deliver::{Deliver, EndpointPolicy, HttpClient, Outcome};
use tower_web_push::encryption::encrypt;
use tower_web_push::message::{Message, Padding};
use tower_web_push::p256::{self, UaSecretKey};
use tower_web_push::push_request::Push;
use tower_web_push::subscription::{AuthSecret, Origin, Subscription};
use tower_web_push::testing::{RefusalReason, TestPushService};
use tower_web_push::vapid::{Contact, VapidKey};

use crate::support::push_server::{Alpn, BOTH, PLAIN, PushServer};
use peer::{Peer, base64};

/// Empty, one octet, an ordinary message, the largest one.
const SIZES: [usize; 4] = [0, 1, 200, Message::MAX_PAYLOAD];

/// Salt, record size, length of the key, key: a body of only these has no record.
const HEADER_LEN: usize = 16 + 4 + 1 + 65;

fn payload(size: usize) -> Vec<u8> {
    // Zeros at the end, which must not be taken for padding.
    let octet = |at: usize| {
        if at + 3 > size {
            0
        } else {
            at.to_le_bytes()[0]
        }
    };
    (0..size).map(octet).collect()
}

#[tokio::test]
async fn http_ece_for_python_both_ways() {
    if let Some(mut peer) = Peer::python() {
        they_decrypt_ours(&mut peer).await;
        we_decrypt_theirs(&mut peer, &[0]).await;
    }
}

#[tokio::test]
async fn http_ece_for_node_both_ways() {
    if let Some(mut peer) = Peer::node() {
        they_decrypt_ours(&mut peer).await;
        we_decrypt_theirs(&mut peer, &[0, 1, 100, 3000]).await;
    }
}

async fn they_decrypt_ours(peer: &mut Peer) {
    let secret = UaSecretKey::random().unwrap();
    let auth = AuthSecret::from_bytes(b"sixteen octets..").unwrap();
    let endpoint = "https://push.example.net/p".parse().unwrap();
    let subscription = Subscription::new(endpoint, *secret.public(), auth.clone());
    let keys = (secret.secret_bytes(), auth.secret_bytes());
    for size in SIZES {
        for padding in [Padding::None, Padding::DEFAULT, Padding::Max] {
            let sent = payload(size);
            let body = encrypt(p256::fastest(), &subscription, &sent, padding).unwrap();
            let read = peer.decrypt(keys.0, keys.1, &body).await;
            assert_eq!(read, Ok(sent), "{size} octets, {padding:?}");

            let mut changed = body.to_vec();
            *changed.last_mut().unwrap() ^= 1;
            assert!(peer.decrypt(keys.0, keys.1, &changed).await.is_err());
        }
    }
}

async fn we_decrypt_theirs(peer: &mut Peer, paddings: &[usize]) {
    let user_agent = TestPushService::new().user_agent();
    let subscription = user_agent.subscribe_unrestricted().unwrap();
    let mut compared = 0;
    for size in SIZES {
        for pad in paddings
            .iter()
            .filter(|pad| *pad + size <= Message::MAX_PAYLOAD)
        {
            let sent = payload(size);
            // Their record size, and the smallest one for the one record.
            for rs in [4096, size.max(1) + pad + 17] {
                let question = json!({
                    "data": base64(&sent),
                    "p256dh": subscription.ua_public().to_base64url(),
                    "auth": subscription.auth().secret_to_base64url(),
                    "rs": rs,
                    "pad": pad,
                });
                let body = peer::octets(&peer.ask("encrypt", question).await.unwrap());
                // http-ece for Python encrypts an empty text to no record, which RFC 8291 section 4 forbids.
                if body.len() == HEADER_LEN && size == 0 {
                    assert!(user_agent.decrypt(&body).is_err());
                    continue;
                }
                let read = user_agent.decrypt(&body).unwrap();
                assert_eq!(read, sent, "{size} octets, padding {pad}, records of {rs}");
                compared += 1;
            }
        }
    }
    assert!(compared >= 6, "{compared}");
}

/// A `TestPushService` on a loopback socket, a browser, and what a sender needs.
struct World {
    service: TestPushService,
    server: PushServer,
    user_agent: tower_web_push::testing::UserAgent,
    key: VapidKey,
}

impl World {
    async fn start(alpn: Alpn) -> Self {
        let service = TestPushService::new();
        let mounted = service.mount();
        let server = PushServer::start(alpn, move |request| {
            let mounted = mounted.clone();
            Box::pin(async move {
                let Ok(answer) = mounted.oneshot(request).await;
                answer.map(|body| body.map_err(io::Error::other).boxed())
            })
        })
        .await;
        let scheme = if alpn.is_some() { "https" } else { "http" };
        let origin = format!("{scheme}://localhost:{}", server.port());
        let user_agent = service.user_agent_at(&Origin::parse(&origin).unwrap());
        let key = VapidKey::generate().unwrap();
        user_agent.subscribe(key.public_key()).unwrap();
        Self {
            service,
            server,
            user_agent,
            key,
        }
    }

    /// Makes a request to a sender, with `more` members.
    fn question(&self, data: Option<&[u8]>, more: &Value) -> Value {
        let mut question = json!({
            "subscription": self.user_agent.subscription().unwrap(),
            "data": data.map(base64),
            "key": *self.key.secret_to_raw_base64url(),
            "publicKey": self.key.public_key().to_base64url(),
            "sub": "mailto:ops@example.com",
            "ttl": 60,
            "urgency": null,
            "topic": null,
            "headers": {},
            "ca": self.server.ca_pem,
        });
        for (name, value) in more.as_object().unwrap() {
            question[name] = value.clone();
        }
        question
    }

    /// Makes `peer` send payloads of all sizes, none, and one by another key.
    async fn takes_what_it_sends(&self, peer: &mut Peer) {
        for size in SIZES {
            let sent = payload(size);
            let answer = peer
                .ask("send", self.question(Some(&sent), &json!({})))
                .await;
            let answer = answer.unwrap();
            assert_eq!(
                answer["status"],
                201,
                "{size}: {:?}",
                self.service.refusals()
            );
            assert!(answer["location"].as_str().unwrap().contains("/m/"));
            let push = self.user_agent.next().await;
            // These libraries send no body for an empty payload.
            assert_eq!(push.data().map_or(&[][..], |data| data), sent);
            assert_eq!(push.ttl().as_secs(), 60);
            let vapid = push.vapid().unwrap();
            assert_eq!(vapid.public_key(), self.key.public_key());
            assert_eq!(vapid.subject(), Some("mailto:ops@example.com"));
        }
        let answer = peer.ask("send", self.question(None, &json!({}))).await;
        assert_eq!(answer.unwrap()["status"], 201);
        assert_eq!(self.user_agent.next().await.data(), None);

        let other = VapidKey::generate().unwrap();
        let other = json!({
            "key": *other.secret_to_raw_base64url(),
            "publicKey": other.public_key().to_base64url(),
        });
        let answer = peer.ask("send", self.question(Some(b"x"), &other)).await;
        assert_eq!(answer.unwrap()["status"], 403);
        let reasons: Vec<_> = self.service.refusals().iter().map(|r| r.reason()).collect();
        assert_eq!(reasons, [RefusalReason::KeyMismatch]);

        let gone = self.question(Some(b"x"), &json!({}));
        self.user_agent.unsubscribe();
        assert_eq!(peer.ask("send", gone).await.unwrap()["status"], 410);
    }
}

#[tokio::test]
async fn pywebpush_sends_to_our_push_service() {
    let Some(mut peer) = Peer::python() else {
        return;
    };
    let world = World::start(PLAIN).await;
    let headers = json!({"headers": {"urgency": "low", "topic": "orders"}});
    let answer = peer.ask("send", world.question(Some(b"x"), &headers)).await;
    assert_eq!(answer.unwrap()["status"], 201);
    let push = world.user_agent.next().await;
    assert_eq!(
        (push.urgency().as_str(), push.topic()),
        ("low", Some("orders"))
    );
    world.takes_what_it_sends(&mut peer).await;
}

#[tokio::test]
async fn web_push_for_node_sends_to_our_push_service() {
    let Some(mut peer) = Peer::node() else {
        return;
    };
    let world = World::start(BOTH).await;
    let more = json!({"urgency": "high", "topic": "orders", "ttl": null});
    let answer = peer.ask("send", world.question(Some(b"x"), &more)).await;
    assert_eq!(answer.unwrap()["status"], 201);
    let push = world.user_agent.next().await;
    assert_eq!(
        (push.urgency().as_str(), push.topic()),
        ("high", Some("orders"))
    );
    assert_eq!(push.ttl().as_secs(), 2_419_200);
    world.takes_what_it_sends(&mut peer).await;
}

#[tokio::test]
async fn web_push_testing_takes_and_decrypts_ours() {
    let Some(mut peer) = Peer::node() else {
        return;
    };
    let url = peer.ask("mock_start", json!({})).await.unwrap()["url"].take();
    let url = url.as_str().unwrap();
    let key = Arc::new(VapidKey::generate().unwrap());
    let options = json!({
        "userVisibleOnly": "true",
        "applicationServerKey": key.public_key().to_base64url(),
    });
    let question = json!({"url": format!("{url}/subscribe"), "content": options});
    let mut answer = peer.ask("mock_post", question).await.unwrap();
    let subscription = answer["data"].take();
    let client_hash = subscription["clientHash"].as_str().unwrap().to_owned();
    let subscription = Subscription::from_value(&subscription).unwrap();

    let policy = EndpointPolicy::insecure_allow_local();
    let client = HttpClient::builder()
        .policy(policy.clone())
        .build()
        .unwrap();
    let contact = Contact::parse("mailto:ops@example.com").unwrap();
    let deliver = Deliver::new(client, contact).with_policy(policy);
    let texts = [
        String::new(),
        "a".into(),
        "Grüße 👋".into(),
        "x".repeat(3993),
    ];
    for text in &texts {
        let message = Message::new(text.clone());
        let push = Push::new(subscription.clone(), message, Arc::clone(&key));
        deliver.clone().oneshot(push).await.unwrap();
    }
    let other = Arc::new(VapidKey::generate().unwrap());
    let push = Push::new(subscription.clone(), Message::new("no"), other);
    assert!(deliver.clone().oneshot(push).await.is_err());

    let question = json!({
        "url": format!("{url}/get-notifications"),
        "content": {"clientHash": client_hash},
    });
    let answer = peer.ask("mock_post", question).await.unwrap();
    assert_eq!(answer["data"]["messages"], json!(texts));

    let question =
        json!({"url": format!("{url}/expire-subscription/{client_hash}"), "content": {}});
    assert_eq!(peer.ask("mock_post", question).await.unwrap(), "OK");
    let push = Push::new(subscription, Message::new("late"), key);
    let error = deliver.oneshot(push).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Gone);
}
