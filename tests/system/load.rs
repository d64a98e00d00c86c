//! Many recipients through the standalone server: SQLite, one `/notify`, a push service behind TLS.

use std::fs;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tower_service::Service as _;
use tower_web_push::subscription::Origin;
use tower_web_push::testing::{MountedPushService, Recording, TestPushService, UserAgent};
use tower_web_push::vapid::VapidPublicKey;

use crate::support::http_client::HttpClient;
use crate::support::push_server::{BOTH, PushServer};
use crate::support::server_process::ServerProcess;

const TOKEN: &str = "the-token-of-the-load-test";
const FEW: u64 = 500;
const MANY: u64 = 5_000;

/// The test's own push service behind TLS and HTTP/2, as a browser vendor runs it.
async fn push_service() -> (TestPushService, PushServer) {
    // The port is needed before the service is made, since endpoints contain it.
    let mounted: Arc<OnceLock<MountedPushService>> = Arc::default();
    let server = PushServer::start(BOTH, {
        let mounted = Arc::clone(&mounted);
        move |request| {
            let mut service = mounted.get().expect("there is no subscription yet").clone();
            Box::pin(async move {
                let answer = service.call(request).await.unwrap();
                answer.map(|body| body.map_err(std::io::Error::other).boxed())
            })
        }
    })
    .await;
    let origin = Origin::parse(&format!("https://localhost:{}", server.port())).unwrap();
    let service = TestPushService::builder()
        .origin(origin)
        .recording(Recording::Counts)
        .build();
    mounted.set(service.mount()).unwrap();
    (service, server)
}

async fn subscribe(api: &HttpClient, service: &TestPushService, number: u64) -> Vec<UserAgent> {
    let vapid = api.get("/vapid").await.json();
    let key = VapidPublicKey::parse(vapid["vapidKey"].as_str().unwrap()).unwrap();
    stream::iter(0..number)
        .map(|_| async move {
            let browser = service.user_agent();
            browser.subscribe(&key).unwrap();
            let json: Value = serde_json::from_str(&browser.subscription_json().unwrap()).unwrap();
            let answer = api.post("/subscribe", &json).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            browser
        })
        .buffer_unordered(64)
        .collect()
        .await
}

/// Sends one `/notify` to everyone. Returns when all is delivered.
async fn notify(api: &HttpClient, service: &TestPushService, recipients: u64) {
    let before = service.counts().accepted;
    let content = json!({"title": "Hello", "body": "to everybody", "url": "https://example.com/"});
    let queued = api
        .call(http::Method::POST, "/notify")
        .bearer(TOKEN)
        .json(&content)
        .send()
        .await;
    assert_eq!(queued.status, StatusCode::ACCEPTED, "{queued:?}");
    let queued = queued.json();
    assert_eq!(queued["recipients"], recipients);
    let path = format!("/broadcasts/{}", queued["broadcast"].as_str().unwrap());
    // All are sent, but the last ones may not be settled yet.
    service
        .wait_until(|counts| counts.accepted >= before + recipients)
        .await;
    loop {
        let status = api
            .call(http::Method::GET, &path)
            .bearer(TOKEN)
            .send()
            .await
            .json();
        if status["state"] == "done" {
            assert_eq!(status["counts"]["accepted"], recipients, "{status}");
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Returns the peak memory of the process, in KiB.
fn peak_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_recipients_are_all_reached_and_memory_does_not_grow_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let (service, tls) = push_service().await;
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, &tls.ca_pem).unwrap();
    let store = format!("sqlite://{}", folder.path().join("push.db").display());
    let server = ServerProcess::start(
        "axum_server",
        &[
            ("BIND", "127.0.0.1:0"),
            ("STORE_URL", store.as_str()),
            ("VAPID_SUBJECT", "mailto:ops@example.com"),
            ("ADMIN_TOKEN", TOKEN),
            ("PUBLIC_REQUESTS_PER_MINUTE", "0"),
            ("ENDPOINT_POLICY", "local"),
            ("EXTRA_ROOT_CA", ca.to_str().unwrap()),
        ],
    )
    .await;
    let api = HttpClient::new(format!("{}/web-push", server.url));

    let mut browsers = subscribe(&api, &service, FEW).await;
    notify(&api, &service, FEW).await;
    let with_few = peak_kib(server.id());

    browsers.extend(subscribe(&api, &service, MANY - FEW).await);
    notify(&api, &service, MANY).await;
    let with_many = peak_kib(server.id());

    // The push service checked and decrypted each one, exactly once per broadcast.
    let counts = service.counts();
    assert_eq!(
        (counts.accepted, counts.refused),
        (FEW + MANY, 0),
        "{:?}",
        service.refusals()
    );
    for (number, browser) in (0_u64..).zip(&browsers) {
        let subscription = browser.subscription().unwrap();
        let expected = if number < FEW { 2 } else { 1 };
        assert_eq!(service.accepted_for(subscription.endpoint()), expected);
    }
    // Ten times the recipients: caches grow, but nothing is held per recipient.
    println!("peak memory: {with_few} KiB with {FEW}, {with_many} KiB with {MANY} recipients");
    assert!(
        with_many < with_few + 24 * 1024,
        "{with_few} KiB, then {with_many} KiB"
    );
    // Not a terminal: the progress is logged.
    let line = format!("sending {MANY}/{MANY} (100 %), {MANY} accepted, 0 not");
    let printed = async {
        while !server.printed().contains(&line) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = timeout(Duration::from_secs(30), printed).await;
    assert!(in_time.is_ok(), "no {line:?} in {}", server.printed());
    assert!(server.terminate().await.success());
}
