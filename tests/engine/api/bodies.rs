use std::cell::Cell;
use std::convert::Infallible;
use std::marker::PhantomPinned;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Empty, StreamBody};
use pin_project_lite::pin_project;
use serde_json::json;
use tokio::time::{Instant, Sleep};
use tower_web_push::error::BoxError;

use super::{Answer, TOKEN, World, full};

const ROUTES: [&str; 5] = [
    "/subscribe",
    "/unsubscribe",
    "/renew",
    "/notify",
    "/send-test",
];

fn request<B>(path: &str, body: B) -> Request<B> {
    Request::post(path)
        .header("content-type", "application/json; charset=utf-8")
        .header("authorization", TOKEN)
        .body(body)
        .unwrap()
}

async fn send<B>(world: &World, path: &str, body: B) -> Answer
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let answer = world.call(request(path, body)).await;
    assert_eq!(world.count().await, 0, "nothing is stored");
    answer
}

#[tokio::test]
async fn a_body_that_is_not_a_json_object_is_refused_everywhere() {
    let world = World::new().await;
    let deep = format!(
        "{{\"endpoint\":{}{}}}",
        "[".repeat(30_000),
        "]".repeat(30_000)
    );
    for path in ROUTES {
        for body in [
            " ", "{", "[]", "[{}]", "null", "1", "\"x\"", "{}x", "a=b", "{\"a\":}", &deep,
        ] {
            send(&world, path, full(body.to_owned()))
                .await
                .is(400, "invalid_json");
        }
        send(&world, path, full(&b"{\"endpoint\":\"\xff\"}"[..]))
            .await
            .is(400, "invalid_json");
    }
}

#[tokio::test]
async fn malformed_json_is_told_by_place_and_reason_and_not_repeated() {
    let world = World::new().await;
    for path in ROUTES {
        for (body, detail) in [
            (
                "{\"title\": \"s3cret\",\n \"s3cret\": s3cret}",
                "The body is not valid JSON: expected value at line 2 column 12.",
            ),
            (
                "{\"s3cret\": \"s3cret",
                "The body is not valid JSON: EOF while parsing a string at line 1 column 18.",
            ),
            ("[\"s3cret\"]", "The body is JSON, but not an object."),
            ("\"s3cret\"", "The body is JSON, but not an object."),
        ] {
            let answer = send(&world, path, full(body)).await;
            answer.is(400, "invalid_json");
            assert_eq!(answer.message(), detail, "{path}: {body}");
            assert!(!answer.text().contains("s3cret"), "{path}: {body}");
        }
    }
}

#[tokio::test]
async fn an_absent_body_is_refused_with_what_is_missing_with_or_without_a_type() {
    let world = World::new().await;
    for (path, code) in [
        ("/subscribe", "missing_endpoint"),
        ("/unsubscribe", "missing_endpoint"),
        ("/renew", "missing_endpoint"),
        ("/notify", "missing_content"),
        ("/send-test", "missing_endpoint"),
    ] {
        send(&world, path, full("")).await.is(400, code);
        send(&world, path, Empty::<Bytes>::new())
            .await
            .is(400, code);
        for body in ["", "{}"] {
            let mut request = request(path, full(body));
            request.headers_mut().remove("content-type");
            let answer = world.call(request).await;
            match body {
                "" => answer.is(400, code),
                _ => answer.is(415, "unsupported_media_type"),
            }
        }
        let mut form = request(path, full(""));
        let form_type = "application/x-www-form-urlencoded".parse().unwrap();
        form.headers_mut().insert("content-type", form_type);
        world.call(form).await.is(415, "unsupported_media_type");
    }
}

#[tokio::test]
async fn a_byte_order_mark_is_accepted() {
    let world = World::new().await;
    let (_, json) = world.browser();
    let marked = |path, body: String| request(path, full(format!("\u{feff}{body}")));
    let subscribed = world.call(marked("/subscribe", json.to_string())).await;
    assert_eq!(subscribed.status, 200, "{}", subscribed.text());
    for body in [r#"{"title":"Hello"}"#, r#"{"payload": {"a": 1}}"#] {
        let queued = world.call(marked("/notify", body.to_owned())).await;
        assert_eq!(queued.status, 202, "{}", queued.text());
    }
    let twice = format!("\u{feff}{json}");
    let refused = world.call(marked("/subscribe", twice)).await;
    refused.is(400, "invalid_json");
}

#[tokio::test]
async fn an_encoded_body_is_refused_with_the_name_of_its_coding() {
    let world = World::new().await;
    let unknown = r#"{"id": "00000000-0000-4000-8000-000000000000"}"#;
    let encoded = |path, coding: &'static str| {
        let mut request = request(path, full(unknown));
        let coding = coding.parse().unwrap();
        request.headers_mut().insert("content-encoding", coding);
        request
    };
    for path in ROUTES {
        for coding in ["gzip", "br", "zstd"] {
            let answer = world.call(encoded(path, coding)).await;
            answer.is(415, "unsupported_content_encoding");
            assert!(answer.message().contains(coding), "{}", answer.text());
            assert_eq!(answer.headers["accept-encoding"], "identity");
        }
    }
    let plain = world.call(encoded("/unsubscribe", "identity")).await;
    assert_eq!(plain.status, 200, "{}", plain.text());
}

#[tokio::test]
async fn only_json_is_read() {
    let world = World::new().await;
    for path in ROUTES {
        for content_type in [
            None,
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
            Some("application/jsonp"),
            Some(""),
        ] {
            let mut request = request(path, full("{}"));
            request.headers_mut().remove("content-type");
            if let Some(content_type) = content_type {
                request
                    .headers_mut()
                    .insert("content-type", content_type.parse().unwrap());
            }
            world.call(request).await.is(415, "unsupported_media_type");
        }
    }
}

#[tokio::test]
async fn a_body_above_64_kib_is_refused() {
    let world = World::new().await;
    for path in ROUTES {
        let body = format!("{{\"x\":\"{}\"}}", "x".repeat(65_536 - 8));
        let largest = send(&world, path, full(body.clone())).await;
        assert_eq!(largest.status, 400, "{path}: {}", largest.text());
        send(&world, path, full(body + " "))
            .await
            .is(413, "body_too_large");
    }
}

/// What a test's body does when it is polled.
enum Step {
    Data(&'static [u8]),
    Trailers,
    Error,
    Sleep(Duration),
}

pin_project! {
    /// A body that is neither `Unpin` nor `Sync`, whose data are not `Bytes`, and whose error is a plain box.
    struct Odd {
        steps: std::vec::IntoIter<Step>,
        sleep: Option<Pin<Box<Sleep>>>,
        not_sync: Cell<()>,
        #[pin]
        not_unpin: PhantomPinned,
    }
}

impl Odd {
    fn new(steps: Vec<Step>) -> Self {
        Self {
            steps: steps.into_iter(),
            sleep: None,
            not_sync: Cell::new(()),
            not_unpin: PhantomPinned,
        }
    }
}

impl Body for Odd {
    type Data = Box<dyn Buf + Send>;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        let this = self.project();
        loop {
            if let Some(sleep) = this.sleep {
                ready!(sleep.as_mut().poll(cx));
                *this.sleep = None;
            }
            return Poll::Ready(match this.steps.next() {
                None => None,
                Some(Step::Data(data)) => Some(Ok(Frame::data(Box::new(data) as _))),
                Some(Step::Trailers) => Some(Ok(Frame::trailers(HeaderMap::new()))),
                Some(Step::Error) => Some(Err("cut off".into())),
                Some(Step::Sleep(time)) => {
                    *this.sleep = Some(Box::pin(tokio::time::sleep(time)));
                    continue;
                }
            });
        }
    }
}

#[tokio::test]
async fn a_body_of_odd_frames_is_put_together() {
    let world = World::new().await;
    let steps = vec![
        Step::Data(b""),
        Step::Data(b"{\"client_uuid\""),
        Step::Data(b""),
        Step::Data(b":\"\"}"),
        Step::Trailers,
    ];
    let answer = send(&world, "/unsubscribe", Odd::new(steps)).await;
    answer.is(400, "missing_client_uuid");
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_given_ten_seconds() {
    let world = World::new().await;
    for path in ROUTES {
        let steps = || {
            vec![
                Step::Data(b"{"),
                Step::Sleep(Duration::from_secs(6)),
                Step::Data(b"}"),
            ]
        };
        let slow = send(&world, path, Odd::new(steps())).await;
        assert_eq!(slow.status, 400, "{path}: {}", slow.text());
        let mut steps = steps();
        steps.push(Step::Sleep(Duration::from_secs(6)));
        let began = Instant::now();
        send(&world, path, Odd::new(steps))
            .await
            .is(408, "body_timeout");
        assert_eq!(began.elapsed(), Duration::from_secs(10));
    }
}

#[tokio::test]
async fn a_body_that_fails_midway_is_incomplete() {
    let world = World::new().await;
    for path in ROUTES {
        let steps = vec![Step::Data(b"{}"), Step::Error];
        send(&world, path, Odd::new(steps))
            .await
            .is(400, "incomplete_body");
    }
}

#[tokio::test]
async fn an_endless_body_is_cut_off() {
    let world = World::new().await;
    for path in ROUTES {
        for frame in ["", " "] {
            let frame =
                move || Ok::<_, Infallible>(Frame::data(Bytes::from_static(frame.as_bytes())));
            let endless = futures_util::stream::repeat_with(frame);
            send(&world, path, StreamBody::new(endless))
                .await
                .is(413, "body_too_large");
        }
    }
}

#[tokio::test]
async fn any_kind_of_body_is_accepted() {
    let world = World::new().await;
    let json = json!({"id": "00000000-0000-4000-8000-000000000000"}).to_string();
    let answers = [
        send(&world, "/unsubscribe", json.clone()).await,
        send(&world, "/unsubscribe", full(json.clone())).await,
        send(&world, "/unsubscribe", full(json.clone()).boxed()).await,
        send(
            &world,
            "/unsubscribe",
            full(json.clone())
                .map_err(|_| BoxError::from("x"))
                .boxed_unsync(),
        )
        .await,
        send(&world, "/unsubscribe", axum::body::Body::from(json)).await,
    ];
    for answer in answers {
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn routes_without_a_body_do_not_read_one() {
    let world = World::new().await;
    let never = || Odd::new(vec![Step::Sleep(Duration::from_secs(3600))]);
    for path in [
        "/vapid",
        "/ping",
        "/live",
        "/ready",
        "/stats",
        "/openapi.json",
        "/client.js",
    ] {
        let mut request = request(path, never());
        *request.method_mut() = http::Method::GET;
        assert!(world.call(request).await.status != 408, "{path}");
    }
    assert_eq!(send(&world, "/regenerate-vapid", never()).await.status, 200);
}
