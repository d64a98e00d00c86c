//! Whether a call is made, by which client, and its request.

use std::convert::Infallible;
use std::error::Error as _;

use futures_util::FutureExt as _;
use http::{Request, Response};
use tower::{Service as _, ServiceExt as _};
use tower_web_push::clock::Timestamp;
use tower_web_push::deliver::{Deliver, Outcome, PolicyError, PushService};
use tower_web_push::message::Message;
use tower_web_push::push_request::PushBody;
use tower_web_push::vapid::Contact;

use super::world::{FCM, TestBody, answer, deliver, push, push_message};

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
async fn a_call_waits_until_its_client_is_ready_and_calls_that_one() {
    // The mock panics if a clone is called that was not polled ready.
    let (mut deliver, mut handle) = deliver();
    handle.allow(0);
    deliver.ready().now_or_never().unwrap().unwrap();
    let mut call = deliver.call(push(FCM)).boxed();
    assert!((&mut call).now_or_never().is_none());
    assert!(handle.next_request().now_or_never().is_none());
    handle.allow(1);
    assert!((&mut call).now_or_never().is_none());
    assert!(handle.next_request().now_or_never().is_some());

    handle.send_error("down");
    let error = deliver.oneshot(push(FCM)).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Transient);
    assert_eq!(error.push_service(), PushService::Fcm);
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
fn deliver_and_its_future_are_send() {
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
