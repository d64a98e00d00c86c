//! Requests to the HTTP API with any body.
//!
//! The first octet chooses method and headers; then a line with the path, a line with the content type (empty for
//! JSON, `-` for none), and the body.
//!
//! Invariants: nothing panics; no status is 500; every refusal is a problem document with a known code; after a
//! refusal there is no subscription, no schedule and no broadcast.
#![no_main]

use std::sync::{Arc, LazyLock};

use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};
use tower_service::Service;
use tower_web_push::WebPush;
use tower_web_push::api::{AdminCredentials, ApiSettings, ProblemKind};
use tower_web_push::broadcast::{Audience, Principal};
use tower_web_push::clock::Timestamp;
use tower_web_push::store::{
    CountFilter, DeliveryLedger, Liveness, MemoryStore, ScheduleStore, SubscriptionStore,
};
use tower_web_push::testing::{ManualClock, TestPushService};
use tower_web_push::vapid::VapidKey;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime")
});

fuzz_target!(|input: &[u8]| {
    let Some(request) = request(input) else {
        return;
    };
    RUNTIME.block_on(check(request));
});

/// Parses the request of an input, if it is one.
fn request(input: &[u8]) -> Option<Request<Full<bytes::Bytes>>> {
    let (choice, rest) = input.split_first()?;
    let mut lines = rest.splitn(3, |octet| *octet == b'\n');
    let path = lines.next()?;
    let content_type = lines.next()?;
    let body = lines.next()?;
    let method = match choice & 3 {
        0 => Method::POST,
        1 => Method::GET,
        2 => Method::DELETE,
        _ => Method::HEAD,
    };
    let mut request = Request::builder().method(method).uri(path);
    request = match content_type {
        b"" => request.header("content-type", "application/json"),
        b"-" => request,
        other => request.header("content-type", other),
    };
    if choice & 4 == 0 {
        request = request.header("authorization", "Bearer an-admin-token");
    }
    if choice & 8 != 0 {
        request = request.extension(Principal::from("alice"));
    }
    if choice & 16 != 0 {
        request = request.header("idempotency-key", "key");
    }
    let body = bytes::Bytes::copy_from_slice(body);
    request.body(Full::new(body)).ok()
}

async fn check(request: Request<Full<bytes::Bytes>>) {
    let is_ready = request.uri().path() == "/ready";
    let store = Arc::new(MemoryStore::new());
    let credentials = AdminCredentials::new().with_bearer_token("an-admin-token");
    let settings = ApiSettings::new().authorizer(credentials.expect("a token"));
    let key = VapidKey::from_secret_bytes(&[0x41; 32]).expect("a number below the order");
    let push = WebPush::builder("mailto:ops@example.com")
        .store(Arc::clone(&store))
        .client(TestPushService::new())
        .clock(ManualClock::new(NOW))
        .vapid_private_key(key)
        .remote_workers(true)
        .build()
        .await
        .expect("a configuration");

    let Ok(response) = push.service().with(settings).call(request).await;
    let (parts, body) = response.into_parts();
    let Ok(body) = body.collect().await;
    let body = body.to_bytes();
    assert!(parts.headers.contains_key("x-content-type-options"));
    assert_ne!(parts.status, 500);
    if parts.status.is_success() || parts.status == 304 || is_ready {
        return;
    }

    let kind = parts
        .extensions
        .get::<ProblemKind>()
        .expect("a refusal says why");
    assert_eq!(parts.status, kind.status());
    if !body.is_empty() {
        let problem: serde_json::Value = serde_json::from_slice(&body).expect("a document");
        assert_eq!(problem["code"], kind.code());
        assert_eq!(problem["status"], parts.status.as_u16());
        assert_eq!(problem["success"], false);
    }
    let all = CountFilter::new(Audience::All, Liveness::Any);
    assert_eq!(store.count(&all, NOW).await.expect("memory"), 0);
    assert!(
        store
            .due_schedules(1, Timestamp::MAX)
            .await
            .expect("memory")
            .is_empty()
    );
    assert_eq!(store.next_due(NOW).await.expect("memory"), None);
}
