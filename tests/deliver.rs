//! `Deliver` over a client that the test plays, polled by hand, time paused.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::convert::Infallible;
use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use tower::{Service as _, ServiceExt as _};
use tower_test::mock::{self, Mock};
use tower_web_push::clock::{Clock, SystemClock, Timestamp};
use tower_web_push::deliver::{
    Accepted, Deliver, DeliveryError, EndpointPolicy, OriginGates, Outcome, PolicyError,
    PushService,
};
use tower_web_push::error::BoxError;
use tower_web_push::message::Message;
use tower_web_push::p256::UaSecretKey;
use tower_web_push::push_request::{Push, PushBody};
use tower_web_push::store::PauseReason;
use tower_web_push::subscription::{AuthSecret, Origin, Subscription};
use tower_web_push::vapid::{Contact, VapidKey};

const FCM: &str = "https://fcm.googleapis.com/fcm/send/token";
const MOZILLA: &str = "https://updates.push.services.mozilla.com/wpush/v2/token";
const APPLE: &str = "https://web.push.apple.com/Qtoken";
const WNS: &str = "https://db5p.notify.windows.com/w/?token=x";
const OTHER: &str = "https://push.example.com/token";

type Client = Mock<Request<PushBody>, Response<TestBody>>;
type Handle = mock::Handle<Request<PushBody>, Response<TestBody>>;

fn deliver() -> (Deliver<Client>, Handle) {
    let (client, handle) = mock::pair();
    let contact = Contact::parse("mailto:push@example.com").unwrap();
    let deliver = Deliver::new(client, contact).with_policy(EndpointPolicy::public_hosts());
    (deliver, handle)
}

fn push(endpoint: &str) -> Push {
    push_message(endpoint, Message::new("hello"))
}

fn push_message(endpoint: &str, message: Message) -> Push {
    let secret = UaSecretKey::random().unwrap();
    let auth = AuthSecret::from_bytes(b"sixteen octets..").unwrap();
    let subscription = Subscription::new(endpoint.parse().unwrap(), *secret.public(), auth);
    Push::new(
        subscription,
        message,
        Arc::new(VapidKey::generate().unwrap()),
    )
}

fn origin(endpoint: &str) -> Origin {
    push(endpoint).subscription().endpoint().origin().clone()
}

/// A body of frames, then its end, or whatever the test wants.
#[derive(Default)]
struct TestBody {
    frame: &'static [u8],
    times: usize,
    then: Then,
    polled: Arc<AtomicUsize>,
}

#[derive(Default)]
enum Then {
    #[default]
    End,
    Fail,
    Hang,
}

impl TestBody {
    fn of(frame: &'static [u8], times: usize) -> Self {
        Self {
            frame,
            times,
            ..Self::default()
        }
    }

    fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }
}

impl Body for TestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.polled.fetch_add(1, Ordering::Relaxed);
        if self.times == 0 {
            return match self.then {
                Then::End => Poll::Ready(None),
                Then::Fail => Poll::Ready(Some(Err("broken".into()))),
                Then::Hang => Poll::Pending,
            };
        }
        self.times -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(self.frame)))))
    }
}

fn answer(
    status: u16,
    headers: &[(&'static str, &'static str)],
    body: TestBody,
) -> Response<TestBody> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body).unwrap()
}

/// One call, answered with `response`.
async fn exchange(
    deliver: &Deliver<Client>,
    handle: &mut Handle,
    endpoint: &str,
    response: Response<TestBody>,
) -> Result<Accepted, DeliveryError> {
    let call = deliver.clone().oneshot(push(endpoint));
    let serve = async {
        let (_, send) = handle.next_request().await.unwrap();
        send.send_response(response);
    };
    let (result, ()) = tokio::join!(call, serve);
    result
}

#[tokio::test(start_paused = true)]
async fn an_acceptance_carries_location_and_ttl_and_its_body_is_not_read() {
    let (deliver, mut handle) = deliver();
    let body = TestBody::of(b"x", 1);
    let polled = Arc::clone(&body.polled);
    let headers = [("location", "https://push.example.com/m/1"), ("ttl", "60")];
    let accepted = exchange(&deliver, &mut handle, MOZILLA, answer(201, &headers, body)).await;
    let accepted = accepted.unwrap();
    assert_eq!(accepted.status(), StatusCode::CREATED);
    assert_eq!(accepted.push_service(), PushService::Mozilla);
    assert_eq!(accepted.location(), Some("https://push.example.com/m/1"));
    assert_eq!(accepted.ttl().map(|ttl| ttl.as_secs()), Some(60));
    assert_eq!(polled.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failure_carries_what_the_push_service_said() {
    let (deliver, mut handle) = deliver();
    let headers = [("apns-id", "6F9C"), ("x-secret", "y")];
    let body = TestBody::of(br#"{"reason":"VapidPkHashMismatch"}"#, 1);
    let error = exchange(&deliver, &mut handle, APPLE, answer(400, &headers, body))
        .await
        .unwrap_err();
    assert_eq!(error.outcome(), Outcome::KeyMismatch);
    assert_eq!(error.push_service(), Some(PushService::Apple));
    assert_eq!(error.status(), Some(StatusCode::BAD_REQUEST));
    assert_eq!(error.reason(), Some("VapidPkHashMismatch"));
    assert_eq!(
        error.diagnostics().collect::<Vec<_>>(),
        [("apns-id", "6F9C")]
    );
    let shown = format!("{error} {error:?}");
    assert!(
        !shown.contains("Qtoken") && !shown.contains("x-secret"),
        "{shown}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_reason_split_over_frames_is_found() {
    let (deliver, mut handle) = deliver();
    let body = TestBody::of(b"Mismatch", 1);
    let error = exchange(&deliver, &mut handle, FCM, answer(403, &[], body)).await;
    assert_eq!(error.unwrap_err().outcome(), Outcome::SenderFault);
    let body = TestBody::of(b" MismatchSenderId MismatchSend", 2);
    let error = exchange(&deliver, &mut handle, FCM, answer(403, &[], body)).await;
    assert_eq!(error.unwrap_err().outcome(), Outcome::KeyMismatch);
}

#[tokio::test(start_paused = true)]
async fn an_endless_body_is_read_to_8_kib() {
    let (deliver, mut handle) = deliver();
    let body = TestBody::of(&[b'x'; 1000], usize::MAX);
    let polled = Arc::clone(&body.polled);
    let error = exchange(&deliver, &mut handle, FCM, answer(404, &[], body)).await;
    assert_eq!(error.unwrap_err().outcome(), Outcome::Gone);
    assert_eq!(polled.load(Ordering::Relaxed), 9);
}

#[tokio::test(start_paused = true)]
async fn endless_empty_frames_end_too() {
    let (deliver, mut handle) = deliver();
    let body = TestBody::of(b"", usize::MAX);
    let error = exchange(&deliver, &mut handle, FCM, answer(410, &[], body)).await;
    assert_eq!(error.unwrap_err().outcome(), Outcome::Gone);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_or_hangs_leaves_the_status() {
    for then in [Then::Fail, Then::Hang] {
        let (deliver, mut handle) = deliver();
        let body = TestBody::of(b"{", 1).then(then);
        let error = exchange(&deliver, &mut handle, MOZILLA, answer(410, &[], body)).await;
        assert_eq!(error.unwrap_err().outcome(), Outcome::Gone);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_ends_after_fifteen_seconds() {
    let (deliver, mut handle) = deliver();
    let start = tokio::time::Instant::now();
    let call = deliver.oneshot(push(FCM));
    let serve = handle.next_request();
    let (result, request) = tokio::join!(call, serve);
    let error = result.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Transient);
    assert_eq!(error.reason(), Some("timeout"));
    assert_eq!(start.elapsed(), Duration::from_secs(15));
    drop(request);
}

#[tokio::test(start_paused = true)]
async fn a_redirect_is_a_bad_request_and_nothing_follows() {
    let (deliver, mut handle) = deliver();
    let headers = [("location", "https://elsewhere.example.com/")];
    for status in [301, 302, 303, 307, 308] {
        let answer = answer(status, &headers, TestBody::default());
        let error = exchange(&deliver, &mut handle, OTHER, answer).await;
        assert_eq!(error.unwrap_err().outcome(), Outcome::BadRequest);
    }
    assert!(handle.next_request().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_refused_endpoint_never_reaches_the_client() {
    let (deliver, mut handle) = deliver();
    handle.allow(8);
    for endpoint in [
        "https://127.0.0.1/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:10.0.0.1]/x",
        "https://0x7f.1/x",
        "https://intranet/x",
        "https://permanently-removed.invalid/x",
        "http://push.example.com/x",
        "https://push.example.com:8443/x",
    ] {
        let error = deliver.clone().oneshot(push(endpoint)).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Refused, "{endpoint}");
        assert_eq!(error.reason(), Some("endpoint_not_allowed"));
        assert!(error.source().unwrap().is::<PolicyError>());
    }
    assert!(handle.next_request().now_or_never().is_none());
    assert_eq!(deliver.gates().closed(Timestamp::MIN), []);
}

#[tokio::test(start_paused = true)]
async fn a_closed_gate_refuses_at_once() {
    let (deliver, mut handle) = deliver();
    let until = SystemClock::new().now() + Duration::from_secs(100);
    deliver
        .gates()
        .pause(&origin(FCM), until, PauseReason::SenderFault);
    let error = deliver
        .clone()
        .oneshot(push(FCM))
        .now_or_never()
        .unwrap()
        .unwrap_err();
    assert_eq!(error.outcome(), Outcome::RateLimited);
    assert_eq!(error.closed().unwrap().reason, PauseReason::SenderFault);
    assert_eq!(error.reason(), Some("sender_fault"));
    assert_eq!(error.status(), None);
    let wait = error.retry_after().unwrap();
    assert!(
        wait > Duration::from_secs(90) && wait <= Duration::from_secs(100),
        "{wait:?}"
    );
    assert!(handle.next_request().now_or_never().is_none());

    let other = exchange(
        &deliver,
        &mut handle,
        MOZILLA,
        answer(201, &[], TestBody::default()),
    );
    assert!(other.await.is_ok(), "another origin goes on");
}

#[tokio::test(start_paused = true)]
async fn a_full_gate_makes_the_call_wait() {
    let (deliver, mut handle) = deliver();
    let deliver = deliver.with_gates(OriginGates::with_in_flight(1));
    handle.allow(2);
    let mut first = deliver.clone().oneshot(push(FCM)).boxed();
    assert!((&mut first).now_or_never().is_none());
    let (_, answer_first) = handle.next_request().now_or_never().unwrap().unwrap();
    let mut second = deliver.clone().oneshot(push(FCM)).boxed();
    assert!((&mut second).now_or_never().is_none());
    assert!(handle.next_request().now_or_never().is_none());

    answer_first.send_response(answer(201, &[], TestBody::default()));
    assert!(first.now_or_never().unwrap().is_ok());
    assert!((&mut second).now_or_never().is_none());
    let (_, answer_second) = handle.next_request().now_or_never().unwrap().unwrap();
    answer_second.send_response(answer(201, &[], TestBody::default()));
    assert!(second.now_or_never().unwrap().is_ok());
    assert_eq!(deliver.gates().gate(&origin(FCM)).available(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_closes_while_a_call_waits_refuses_it() {
    let (deliver, mut handle) = deliver();
    let deliver = deliver.with_gates(OriginGates::with_in_flight(1));
    handle.allow(2);
    let mut first = deliver.clone().oneshot(push(FCM)).boxed();
    assert!((&mut first).now_or_never().is_none());
    let mut second = deliver.clone().oneshot(push(FCM)).boxed();
    assert!((&mut second).now_or_never().is_none());
    let (_, send) = handle.next_request().now_or_never().unwrap().unwrap();
    send.send_response(answer(429, &[("retry-after", "60")], TestBody::default()));
    let limited = first.now_or_never().unwrap().unwrap_err();
    assert_eq!(limited.retry_after(), Some(Duration::from_secs(60)));
    assert!(limited.closed().is_none());
    let refused = second.now_or_never().unwrap().unwrap_err();
    assert_eq!(refused.closed().unwrap().reason, PauseReason::RateLimited);
    assert!(handle.next_request().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_limit_closes_the_gate_where_it_means_the_origin() {
    for (endpoint, closes) in [
        (FCM, true),
        (MOZILLA, true),
        (OTHER, true),
        (APPLE, false),
        (WNS, false),
    ] {
        let (deliver, mut handle) = deliver();
        let answer = answer(429, &[("retry-after", "60")], TestBody::default());
        let error = exchange(&deliver, &mut handle, endpoint, answer)
            .await
            .unwrap_err();
        assert_eq!(error.outcome(), Outcome::RateLimited);
        let now = SystemClock::new().now();
        let gate = deliver.gates().gate(&origin(endpoint));
        assert_eq!(gate.closed_at(now).is_some(), closes, "{endpoint}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bare_401_is_about_the_key_while_there_are_others_to_try() {
    for (endpoint, has_other_keys, outcome) in [
        (WNS, true, Outcome::KeyMismatch),
        (WNS, false, Outcome::SenderFault),
        (MOZILLA, true, Outcome::SenderFault),
    ] {
        let (deliver, mut handle) = deliver();
        let call = deliver.oneshot(push(endpoint).with_other_keys(has_other_keys));
        let serve = async {
            let (_, send) = handle.next_request().await.unwrap();
            send.send_response(answer(401, &[], TestBody::default()));
        };
        let (result, ()) = tokio::join!(call, serve);
        assert_eq!(result.unwrap_err().outcome(), outcome, "{endpoint}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_gives_its_permit_back() {
    let (deliver, mut handle) = deliver();
    handle.allow(1);
    let mut call = deliver.clone().oneshot(push(FCM)).boxed();
    assert!((&mut call).now_or_never().is_none());
    let gate = deliver.gates().gate(&origin(FCM));
    assert_eq!(gate.available(), OriginGates::IN_FLIGHT - 1);
    drop(call);
    assert_eq!(gate.available(), OriginGates::IN_FLIGHT);
}

#[tokio::test(start_paused = true)]
async fn what_the_client_reports_is_transient_unless_a_policy_refused() {
    let (deliver, mut handle) = deliver();
    for (cause, outcome) in [
        (BoxError::from("no route"), Outcome::Transient),
        (private_address().into(), Outcome::Refused),
    ] {
        let call = deliver.clone().oneshot(push(FCM));
        let serve = async {
            let (_, send) = handle.next_request().await.unwrap();
            send.send_error(cause);
        };
        let (result, ()) = tokio::join!(call, serve);
        let error = result.unwrap_err();
        assert_eq!(error.outcome(), outcome);
        assert_eq!(error.push_service(), Some(PushService::Fcm));
        assert!(error.source().is_some());
    }
}

fn private_address() -> PolicyError {
    let loopback = "127.0.0.1".parse().unwrap();
    EndpointPolicy::default().check_addr(loopback).unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn readiness_is_the_clients() {
    let (mut deliver, mut handle) = deliver();
    let mut ready = std::pin::pin!(deliver.ready());
    handle.allow(0);
    assert!((&mut ready).now_or_never().is_none());
    handle.allow(1);
    assert!(ready.now_or_never().unwrap().is_ok());
    handle.send_error("down");
    let error = deliver.ready().await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Transient);
    assert_eq!(error.push_service(), None);
}

#[tokio::test(start_paused = true)]
async fn the_client_that_was_ready_is_the_one_that_is_called() {
    // The mock panics when a clone is called that nobody asked whether it was ready.
    let (mut deliver, mut handle) = deliver();
    handle.allow(1);
    deliver.ready().await.unwrap();
    let mut call = deliver.call(push(FCM)).boxed();
    assert!((&mut call).now_or_never().is_none());
    assert!(handle.next_request().now_or_never().is_some());
    assert!(
        deliver.ready().now_or_never().is_none(),
        "readiness was spent"
    );
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_is_too_large_is_not_sent() {
    let (deliver, mut handle) = deliver();
    handle.allow(1);
    let message = Message::new(vec![b'x'; Message::MAX_PAYLOAD + 1]);
    let error = deliver
        .oneshot(push_message(FCM, message))
        .await
        .unwrap_err();
    assert_eq!(error.outcome(), Outcome::TooLarge);
    assert_eq!(error.status(), None);
    assert!(error.source().is_some());
    assert!(
        handle
            .next_request()
            .now_or_never()
            .is_none_or(|request| request.is_none())
    );
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_encrypted_anew() {
    let (deliver, mut handle) = deliver();
    let push = push(FCM);
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let call = deliver.clone().oneshot(push.clone());
        let serve = async {
            let (request, send) = handle.next_request().await.unwrap();
            send.send_response(answer(503, &[], TestBody::default()));
            request.into_body().as_bytes().to_vec()
        };
        let (result, body) = tokio::join!(call, serve);
        assert_eq!(result.unwrap_err().outcome(), Outcome::Transient);
        bodies.push(body);
    }
    assert_ne!(bodies[0][..16], bodies[1][..16], "salt");
    assert_ne!(bodies[0][21..86], bodies[1][21..86], "key");
}

#[test]
fn deliver_and_its_future_go_anywhere() {
    fn everywhere<T: Send + Sync + 'static>(_: &T) {}
    fn unpin<T: Unpin>(_: &T) {}
    let client = tower::service_fn(|_: Request<PushBody>| {
        std::future::ready(Ok::<_, Infallible>(Response::new(PushBody::default())))
    });
    let contact = Contact::parse("mailto:push@example.com").unwrap();
    let mut deliver = Deliver::new(client, contact);
    everywhere(&deliver);
    unpin(&deliver);
    let future = deliver.call(push(FCM));
    everywhere(&future);
    let shown = format!("{deliver:?} {future:?}");
    assert!(!shown.contains("token"), "{shown}");
}
