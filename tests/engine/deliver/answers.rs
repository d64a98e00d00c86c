//! The meaning of responses, and the limit of reading them.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::StatusCode;
use tokio::task::JoinSet;
use tower::ServiceExt as _;
use tower_web_push::deliver::{EndpointPolicy, Outcome, PolicyError, PushService};
use tower_web_push::error::BoxError;

use super::world::{
    APPLE, FCM, MOZILLA, OTHER, TestBody, Then, WNS, answer, deliver, exchange, origin, push,
};

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
async fn a_failure_carries_the_push_services_reason() {
    let (deliver, mut handle) = deliver();
    let headers = [("apns-id", "6F9C"), ("x-secret", "y")];
    let body = TestBody::of(br#"{"reason":"VapidPkHashMismatch"}"#, 1);
    let error = exchange(&deliver, &mut handle, APPLE, answer(400, &headers, body))
        .await
        .unwrap_err();
    assert_eq!(error.outcome(), Outcome::KeyMismatch);
    assert_eq!(error.push_service(), PushService::Apple);
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
async fn endless_empty_frames_are_cut_off() {
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
        assert_eq!(error.push_service(), PushService::Fcm);
        assert!(error.source().is_some());
    }
}

fn private_address() -> PolicyError {
    let loopback = "127.0.0.1".parse().unwrap();
    EndpointPolicy::default().check_addr(loopback).unwrap_err()
}

/// An overloaded push service lets some requests time out, and answers others.
#[tokio::test(start_paused = true)]
async fn requests_that_time_out_lower_the_limit() {
    let (deliver, mut handle) = deliver();
    handle.allow(8);
    let mut requests = JoinSet::new();
    for number in 0..8 {
        requests.spawn(deliver.clone().oneshot(push(&format!("{FCM}{number}"))));
    }
    let mut held = Vec::new();
    while held.len() < 8 {
        held.push(handle.next_request().await.unwrap());
    }
    let gate = deliver.gates().gate(&origin(FCM));
    assert_eq!(gate.limit(), 8);
    for result in requests.join_all().await {
        assert_eq!(result.unwrap_err().reason(), Some("timeout"));
    }
    assert!(gate.limit() < 8, "{}", gate.limit());
}
