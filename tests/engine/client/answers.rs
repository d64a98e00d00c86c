//! Responses with faults, and no response.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::net::TcpListener;
use tower_web_push::deliver::{EndpointPolicy, Outcome};

use super::world::{fixed, local, over, send, to, url};
use crate::support::push_server::{Answer, BOTH, HTTP1, PushServer, answer};

/// A body that yields `frame` for ever, and counts.
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
        // At most what fits into the windows and buffers on the way.
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
    // The head of the response has to arrive within it.
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
async fn a_closed_port_is_transient() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = format!("https://{}/p", listener.local_addr().unwrap());
    drop(listener);
    let deliver = over(local(), EndpointPolicy::insecure_allow_local());
    let error = send(&deliver, &endpoint).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Transient);
    assert!(!format!("{error:?}").contains("/p"));
}

#[tokio::test]
async fn an_untrusted_certificate_is_transient() {
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

/// Over HTTP/1.1: what is read of a response before its body has a bound.
#[tokio::test]
async fn headers_that_go_on_and_on_are_not_read() {
    for (headers, is_taken) in [(10, true), (60, false)] {
        let server = PushServer::start(HTTP1, move |_| {
            let mut response = answer(201, &[], "");
            for number in 0..headers {
                let name = HeaderName::from_bytes(format!("x-{number}").as_bytes());
                let value = HeaderValue::from_bytes(&[b'y'; 4000]);
                response.headers_mut().insert(name.unwrap(), value.unwrap());
            }
            Box::pin(async move { response })
        })
        .await;
        let sent = send(&to(&server), &url(&server, "/p")).await;
        assert_eq!(sent.is_ok(), is_taken, "{headers}: {sent:?}");
    }
}
