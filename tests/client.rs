//! `Deliver` and the default client against real servers on loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

// Each test file uses its part of what they share.
#[allow(dead_code)]
#[path = "support/push_server.rs"]
mod push_server;

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{FutureExt as _, stream};
use http::{Request, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::ServiceExt as _;
use tower_web_push::deliver::{
    Accepted, Deliver, DeliveryError, EndpointPolicy, HttpClient, HttpClientBuilder, Outcome,
    PolicyError, PolicyErrorKind, Resolver,
};
use tower_web_push::error::BoxError;
use tower_web_push::message::Message;
use tower_web_push::p256::UaSecretKey;
use tower_web_push::push_request::{Push, PushBody};
use tower_web_push::subscription::{AuthSecret, Subscription};
use tower_web_push::vapid::{Contact, VapidKey};

use push_server::{Answer, BOTH, HTTP1, NO_ALPN, PLAIN, PushServer, answer};

fn push(endpoint: &str) -> Push {
    let secret = UaSecretKey::random().unwrap();
    let auth = AuthSecret::from_bytes(b"sixteen octets..").unwrap();
    let subscription = Subscription::new(endpoint.parse().unwrap(), *secret.public(), auth);
    let key = Arc::new(VapidKey::generate().unwrap());
    Push::new(subscription, Message::new("hello"), key)
}

fn local() -> HttpClientBuilder {
    HttpClient::builder().policy(EndpointPolicy::insecure_allow_local())
}

fn over(client: HttpClientBuilder, policy: EndpointPolicy) -> Deliver<HttpClient> {
    let contact = Contact::parse("mailto:push@example.com").unwrap();
    let client = client.policy(policy.clone()).build().unwrap();
    Deliver::new(client, contact).with_policy(policy)
}

/// Delivery that trusts the server.
fn to(server: &PushServer) -> Deliver<HttpClient> {
    let client = local().extra_root_ca_pem(server.ca_pem.as_str());
    over(client, EndpointPolicy::insecure_allow_local())
}

fn url(server: &PushServer, path: &str) -> String {
    format!("https://localhost:{}{path}", server.port())
}

async fn send(deliver: &Deliver<HttpClient>, endpoint: &str) -> Result<Accepted, DeliveryError> {
    deliver.clone().oneshot(push(endpoint)).await
}

/// A server that answers every request the same, and what it saw.
async fn fixed(
    alpn: push_server::Alpn,
    status: u16,
    headers: &'static [(&'static str, &'static str)],
) -> (PushServer, Arc<Mutex<Vec<Request<Bytes>>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let server = PushServer::start(alpn, move |request| {
        let log = Arc::clone(&log);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            log.lock().unwrap().push(Request::from_parts(head, body));
            answer(status, headers, "")
        })
    })
    .await;
    (server, seen)
}

#[tokio::test]
async fn a_push_goes_over_http2_and_is_accepted() {
    let headers = &[("location", "https://localhost/m/1"), ("ttl", "60")];
    let (server, seen) = fixed(BOTH, 201, headers).await;
    let deliver = to(&server);
    let accepted = send(&deliver, &url(&server, "/p/1?a=%2F")).await.unwrap();
    assert_eq!(accepted.status(), StatusCode::CREATED);
    assert_eq!(accepted.location(), Some("https://localhost/m/1"));
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].version(), Version::HTTP_2);
    assert_eq!(seen[0].uri().path_and_query().unwrap(), "/p/1?a=%2F");
    assert_eq!(seen[0].headers()["content-encoding"], "aes128gcm");
    let len = seen[0].headers()["content-length"].to_str().unwrap();
    assert_eq!(len.parse(), Ok(seen[0].body().len()));
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let (server, seen) = fixed(BOTH, 201, &[]).await;
    let deliver = to(&server);
    for _ in 0..5 {
        send(&deliver, &url(&server, "/p")).await.unwrap();
    }
    assert_eq!(seen.lock().unwrap().len(), 5);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_burst_opens_one_http2_connection() {
    let (server, seen) = fixed(BOTH, 201, &[]).await;
    let deliver = to(&server);
    let endpoint = url(&server, "/p");
    let sent = join_all((0..100).map(|_| send(&deliver, &endpoint))).await;
    for sent in &sent {
        assert!(sent.is_ok(), "{sent:?}");
    }
    assert_eq!(seen.lock().unwrap().len(), 100);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_server_without_http2_gets_http1_and_is_remembered() {
    for alpn in [HTTP1, NO_ALPN] {
        let (server, seen) = fixed(alpn, 201, &[]).await;
        let deliver = to(&server);
        for _ in 0..3 {
            send(&deliver, &url(&server, "/p")).await.unwrap();
        }
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 3);
        for request in seen.iter() {
            assert_eq!(request.version(), Version::HTTP_11);
            assert!(!request.headers().contains_key("transfer-encoding"));
            assert!(request.headers().contains_key("content-length"));
        }
        // One to find out, one to use.
        assert_eq!(server.connections(), 2);
    }
}

#[tokio::test]
async fn a_burst_to_a_server_without_http2_asks_once() {
    let (server, seen) = fixed(HTTP1, 201, &[]).await;
    let deliver = to(&server);
    let endpoint = url(&server, "/p");
    let sent = join_all((0..10).map(|_| send(&deliver, &endpoint))).await;
    for sent in &sent {
        assert!(sent.is_ok(), "{sent:?}");
    }
    assert_eq!(seen.lock().unwrap().len(), 10);
    assert!(server.connections() <= 11, "{}", server.connections());
}

#[tokio::test]
async fn a_hundred_requests_are_in_flight_per_origin_and_no_more() {
    let door = Arc::new(Semaphore::new(0));
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (door, inside, most) = (Arc::clone(&door), Arc::clone(&inside), Arc::clone(&most));
        move |_| {
            let (door, inside, most) = (Arc::clone(&door), Arc::clone(&inside), Arc::clone(&most));
            let answering: push_server::Answering = Box::pin(async move {
                let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                if now == 100 {
                    // All permits are out: now the door opens for good.
                    door.add_permits(Semaphore::MAX_PERMITS / 2);
                }
                let _through = door.acquire().await.unwrap();
                inside.fetch_sub(1, Ordering::SeqCst);
                answer(201, &[], "")
            });
            answering
        }
    };
    let server = PushServer::start(BOTH, handler).await;
    let deliver = to(&server);
    let endpoint = url(&server, "/p");
    let sent = join_all((0..150).map(|_| send(&deliver, &endpoint))).await;
    for sent in &sent {
        assert!(sent.is_ok(), "{sent:?}");
    }
    assert_eq!(most.load(Ordering::SeqCst), 100);
}

/// A body that gives `frame` for ever, and counts.
fn endless(status: u16, frames: &Arc<AtomicUsize>) -> Answer {
    let frames = Arc::clone(frames);
    let body = stream::repeat_with(move || {
        frames.fetch_add(1, Ordering::SeqCst);
        Ok::<_, io::Error>(Frame::data(Bytes::from_static(&[b'x'; 4096])))
    });
    http::Response::builder()
        .status(status)
        .body(StreamBody::new(body).boxed())
        .unwrap()
}

#[tokio::test]
async fn of_an_endless_answer_8_kib_are_read() {
    for alpn in [BOTH, HTTP1] {
        let frames = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&frames);
        let server = PushServer::start(alpn, move |_| {
            let answer = endless(403, &counted);
            Box::pin(async move { answer })
        })
        .await;
        let error = send(&to(&server), &url(&server, "/p")).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::SenderFault);
        // What fits into the windows and buffers on the way, and no more.
        assert!(frames.load(Ordering::SeqCst) < 4096);
    }
}

#[tokio::test]
async fn an_answer_whose_body_never_ends_is_judged_by_its_status() {
    let server = PushServer::start(BOTH, |_| {
        Box::pin(async {
            let body = stream::pending::<Result<Frame<Bytes>, io::Error>>();
            http::Response::builder()
                .status(410)
                .body(StreamBody::new(body).boxed())
                .unwrap()
        })
    })
    .await;
    // The head of the answer has to come within it.
    let deliver = to(&server).with_timeout(Duration::from_secs(5));
    let error = send(&deliver, &url(&server, "/p")).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Gone);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_transient() {
    let server = PushServer::start(BOTH, |_| Box::pin(std::future::pending())).await;
    let deliver = to(&server).with_timeout(Duration::from_millis(300));
    let error = send(&deliver, &url(&server, "/p")).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Transient);
    assert_eq!(error.reason(), Some("timeout"));
    assert_eq!(
        deliver
            .gates()
            .closed(tower_web_push::clock::Timestamp::MIN),
        []
    );
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_transient() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = format!("https://{}/p", listener.local_addr().unwrap());
    let client = local().connect_timeout(Duration::from_millis(200));
    let deliver = over(client, EndpointPolicy::insecure_allow_local());
    let error = send(&deliver, &endpoint).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Transient);
    assert_ne!(
        error.reason(),
        Some("timeout"),
        "the connection's limit comes first"
    );
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_transient() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = format!("https://{}/p", listener.local_addr().unwrap());
    drop(listener);
    let deliver = over(local(), EndpointPolicy::insecure_allow_local());
    let error = send(&deliver, &endpoint).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Transient);
    assert!(!format!("{error:?}").contains("/p"));
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_is_transient() {
    let (server, seen) = fixed(BOTH, 201, &[]).await;
    let deliver = over(local(), EndpointPolicy::insecure_allow_local());
    let error = send(&deliver, &url(&server, "/p")).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Transient);
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let (server, seen) = fixed(BOTH, status, &[("location", "/elsewhere")]).await;
        let error = send(&to(&server), &url(&server, "/p")).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::BadRequest);
        assert_eq!(error.status().map(|status| status.as_u16()), Some(status));
        assert_eq!(seen.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn plain_http_reaches_loopback_under_the_local_policy_only() {
    let (server, seen) = fixed(PLAIN, 201, &[]).await;
    let endpoint = format!("http://127.0.0.1:{}/p", server.port());
    let deliver = over(local(), EndpointPolicy::insecure_allow_local());
    send(&deliver, &endpoint).await.unwrap();
    assert_eq!(seen.lock().unwrap()[0].version(), Version::HTTP_11);
    for policy in [EndpointPolicy::default(), EndpointPolicy::public_hosts()] {
        let error = send(&over(HttpClient::builder(), policy), &endpoint).await;
        assert_eq!(error.unwrap_err().outcome(), Outcome::Refused);
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_server_that_went_away_and_came_back_is_reached_again() {
    let (server, _) = fixed(BOTH, 201, &[]).await;
    let deliver = to(&server);
    let endpoint = url(&server, "/p");
    send(&deliver, &endpoint).await.unwrap();
    let addr = server.addr;
    drop(server);
    let error = send(&deliver, &endpoint).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Transient, "{addr}");
}

#[tokio::test]
async fn requests_that_wait_for_a_dial_learn_why_it_failed() {
    let resolver = Rebinding::to(&["10.0.0.1"]);
    let asked = Arc::clone(&resolver);
    let policy = EndpointPolicy::public_hosts();
    let deliver = over(HttpClient::builder().resolver(resolver), policy);
    let sent = join_all((0..20).map(|_| send(&deliver, "https://push.example.com/p"))).await;
    for error in sent {
        assert_eq!(error.unwrap_err().outcome(), Outcome::Refused);
    }
    assert_eq!(asked.asked.load(Ordering::SeqCst), 1, "one dial for all");
}

#[tokio::test]
async fn a_dial_that_its_request_gave_up_is_taken_over() {
    let (server, seen) = fixed(BOTH, 201, &[]).await;
    let deliver = to(&server);
    let endpoint = url(&server, "/p");
    let mut first = Box::pin(send(&deliver, &endpoint));
    assert!((&mut first).now_or_never().is_none());
    let mut second = Box::pin(send(&deliver, &endpoint));
    assert!((&mut second).now_or_never().is_none());
    drop(first);
    second.await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 1);
}

/// Answers with these addresses and counts how often it was asked.
#[derive(Debug)]
struct Rebinding {
    addrs: Vec<IpAddr>,
    asked: AtomicUsize,
}

impl Rebinding {
    fn to(addrs: &[&str]) -> Arc<Self> {
        Arc::new(Self {
            addrs: addrs.iter().map(|addr| addr.parse().unwrap()).collect(),
            asked: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl Resolver for Rebinding {
    async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, BoxError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        // As long as any real lookup: others get to ask meanwhile.
        tokio::task::yield_now().await;
        Ok(self.addrs.clone())
    }
}

#[tokio::test]
async fn a_public_name_with_a_private_address_is_refused_before_the_dial() {
    let (server, _) = fixed(BOTH, 201, &[]).await;
    let host = format!("push.example.com:{}", server.port());
    let policy = EndpointPolicy::hosts([&host]).unwrap();
    for addrs in [
        &["127.0.0.1"][..],
        &["::ffff:127.0.0.1"],
        &["192.0.2.1", "127.0.0.1"],
        &["10.0.0.1"],
    ] {
        let resolver = Rebinding::to(addrs);
        let asked = Arc::clone(&resolver);
        let client = HttpClient::builder()
            .resolver(resolver)
            .extra_root_ca_pem(server.ca_pem.as_str());
        let deliver = over(client, policy.clone());
        let error = send(&deliver, &format!("https://{host}/p"))
            .await
            .unwrap_err();
        assert_eq!(error.outcome(), Outcome::Refused, "{addrs:?}");
        assert_eq!(error.reason(), Some("endpoint_not_allowed"));
        assert_eq!(asked.asked.load(Ordering::SeqCst), 1);
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_name_is_looked_up_once_for_each_connection() {
    let (server, _) = fixed(BOTH, 201, &[]).await;
    let resolver = Rebinding::to(&["127.0.0.1"]);
    let asked = Arc::clone(&resolver);
    let client = local()
        .resolver(resolver)
        .extra_root_ca_pem(server.ca_pem.as_str());
    let deliver = over(client, EndpointPolicy::insecure_allow_local());
    let endpoint = format!("https://push.localhost:{}/p", server.port());
    for _ in 0..3 {
        send(&deliver, &endpoint).await.unwrap();
    }
    assert_eq!(asked.asked.load(Ordering::SeqCst), 1);
}

/// Endpoints that must not be reached, whatever resolves them to wherever.
const FORBIDDEN: &[&str] = &[
    "https://127.0.0.1/x",
    "https://127.1/x",
    "https://2130706433/x",
    "https://0x7f000001/x",
    "https://0x7f.1/x",
    "https://0177.0.0.1/x",
    "https://0/x",
    "https://localhost/x",
    "https://localhost./x",
    "https://a.localhost/x",
    "https://[::1]/x",
    "https://[::]/x",
    "https://[::ffff:127.0.0.1]/x",
    "https://[64:ff9b::7f00:1]/x",
    "https://[2002:7f00:1::]/x",
    "https://[fd00::1]/x",
    "https://169.254.169.254/latest/meta-data",
    "https://metadata.google.internal/x",
    "https://printer.local/x",
    "https://intranet/x",
    "https://permanently-removed.invalid/x",
    "https://android.googleapis.com/gcm/send/x",
    "http://fcm.googleapis.com/x",
    "https://fcm.googleapis.com:22/x",
];

#[tokio::test]
async fn forbidden_endpoints_are_refused_at_the_check_and_at_the_dial() {
    for policy in [EndpointPolicy::default(), EndpointPolicy::public_hosts()] {
        let resolver = Rebinding::to(&["127.0.0.1"]);
        let asked = Arc::clone(&resolver);
        let client = HttpClient::builder().resolver(resolver);
        let deliver = over(client.clone(), policy.clone());
        let client = client.policy(policy).build().unwrap();
        for endpoint in FORBIDDEN {
            let error = send(&deliver, endpoint).await.unwrap_err();
            assert_eq!(error.outcome(), Outcome::Refused, "{endpoint}");
            // The same without `Deliver` before it.
            let request = Request::post(*endpoint).body(PushBody::default()).unwrap();
            let error = client.clone().oneshot(request).await.unwrap_err();
            let mut causes =
                std::iter::successors(Some(&error as &dyn std::error::Error), |error| {
                    error.source()
                });
            assert!(causes.any(|cause| cause.is::<PolicyError>()), "{endpoint}");
        }
        assert_eq!(asked.asked.load(Ordering::SeqCst), 0, "nobody was asked");
    }
}

#[tokio::test]
async fn the_local_policy_reaches_nothing_but_loopback() {
    let deliver = over(local(), EndpointPolicy::insecure_allow_local());
    for endpoint in [
        "http://169.254.169.254/x",
        "http://10.0.0.1/x",
        "http://0.0.0.0/x",
        "http://intranet/x",
    ] {
        let error = send(&deliver, endpoint).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Refused, "{endpoint}");
    }
    let refused = EndpointPolicy::insecure_allow_local().check_addr("10.0.0.1".parse().unwrap());
    assert_eq!(refused.unwrap_err().kind(), PolicyErrorKind::PrivateAddress);
}

#[test]
fn the_client_goes_anywhere() {
    fn everywhere<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: &T) {}
    fn sendable<T: Send + 'static>(_: &T) {}
    let deliver = over(HttpClient::builder(), EndpointPolicy::default());
    everywhere(&deliver);
    sendable(&deliver.oneshot(push("https://fcm.googleapis.com/x")));
}
