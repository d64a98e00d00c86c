//! Daily notifications with the real clock.

use std::fs;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::time::timeout;
use tower_service::Service as _;
use tower_web_push::clock::{Clock as _, SystemClock, Timestamp};
use tower_web_push::subscription::Origin;
use tower_web_push::testing::{MountedPushService, TestPushService};

use super::world::{TOKEN, World, next, notify, subscription};
use crate::support::push_server::{BOTH, PushServer};

/// Ahead of UTC by 5 hours and 45 minutes, summer and winter: neither hour nor minute are UTC's.
const ZONE: &str = "Asia/Kathmandu";
const AHEAD_OF_UTC: Duration = Duration::from_secs((5 * 60 + 45) * 60);
/// The time for a server to stop and start again.
const TIME_TO_RESTART: Duration = Duration::from_secs(30);
/// A minute until it is due, another one over which subscribers are spread, and a busy machine.
const LIMIT: Duration = Duration::from_secs(150);

/// A push service behind TLS and HTTP/2, as a browser vendor runs it, and a file with its certificate.
async fn world_behind_tls() -> (World, PushServer, String) {
    let folder = tempfile::tempdir().unwrap();
    // The port is needed before the service is made, since endpoints contain it.
    let mounted: Arc<OnceLock<MountedPushService>> = Arc::default();
    let tls = PushServer::start(BOTH, {
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
    let origin = Origin::parse(&format!("https://localhost:{}", tls.port())).unwrap();
    let push_service = TestPushService::builder().origin(origin).build();
    mounted.set(push_service.mount()).unwrap();
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, &tls.ca_pem).unwrap();
    let ca = ca.display().to_string();
    let world = World {
        folder,
        push_service,
    };
    (world, tls, ca)
}

/// Returns the next full minute that leaves time for a restart.
fn minute_ahead() -> Timestamp {
    let earliest = (SystemClock::new().now() + TIME_TO_RESTART).as_secs();
    Timestamp::from_secs((earliest / 60 + 1) * 60)
}

/// Returns a time as a page posts it, by that zone's wall clock.
fn wall_clock(moment: Timestamp) -> Value {
    let minutes = (moment + AHEAD_OF_UTC).as_secs() / 60;
    json!({"hour": minutes / 60 % 24, "minute": minutes % 60, "zone": ZONE})
}

/// Both at once: most of it is waiting.
#[tokio::test]
async fn a_schedule_a_minute_ahead_fires_once_through_both_servers_after_a_restart() {
    tokio::join!(
        fires_once_after_a_restart("axum_server"),
        fires_once_after_a_restart("hyper_server"),
    );
}

async fn fires_once_after_a_restart(name: &str) {
    let (world, _tls, ca) = world_behind_tls().await;
    // Woken by a due schedule, not by polling every second.
    let settings = [
        ("EXTRA_ROOT_CA", ca.as_str()),
        ("SECONDS_BETWEEN_NOTIFICATIONS", "60"),
    ];
    let (server, client) = world.start(name, &settings).await;
    let browser = world.push_service.user_agent();
    let due = minute_ahead();
    let daily = json!({
        "notifyTime": wall_clock(due),
        "notifyType": "DIRECT_NOTIFICATION",
        "message": "Tea, नमस्ते",
    });
    let body = subscription(&client, &browser, daily).await;
    let subscribed = client.post("/web-push/subscribe", &body).await;
    assert_eq!(subscribed.status, StatusCode::OK, "{subscribed:?}");
    let confirmation = next(&browser).await.json::<Value>().unwrap();
    assert_eq!(confirmation["title"], "Subscription Successful");

    assert_eq!(server.terminate().await.code(), Some(0));
    let (server, client) = world.start(name, &settings).await;
    let received = timeout(LIMIT, browser.next()).await;
    let received = received.unwrap_or_else(|_| panic!("nothing arrives: {}", server.printed()));
    assert_eq!(
        received.text(),
        Some(r#"{"title":"DIRECT_NOTIFICATION","message":"Tea, नमस्ते"}"#)
    );
    assert!(received.at() >= due, "{:?} for {due:?}", received.at());
    let late = received.at().since(due);
    assert!(late < Duration::from_secs(59 + 20), "{late:?}");

    // A message sent after it arrives after it: it came once.
    let after = notify(&client, "/web-push/notify", &json!({"title": "After"})).await;
    assert_eq!(after.json()["recipients"], 1, "{after:?}");
    assert_eq!(
        next(&browser).await.json::<Value>().unwrap()["title"],
        "After"
    );
    let accepted = world.push_service.counts().accepted;
    assert_eq!(accepted, 3, "confirmation, daily, after");
    let metrics = client.call(Method::GET, "/metrics").bearer(TOKEN);
    let metrics = metrics.send().await;
    let fired = "web_push_daily_total{what=\"fired\"} 1";
    assert!(
        metrics.text().lines().any(|line| line == fired),
        "{}",
        metrics.text()
    );
    let ping = client.get("/web-push/ping").await;
    let (_, last_run) = ping.text().split_once("run at ").unwrap();
    assert!(last_run.starts_with("20"), "{ping:?}");

    // The last schedule of a subscription without a user: the subscription is removed with it.
    let leave = json!({"endpoint": body["endpoint"], "notifyType": "DIRECT_NOTIFICATION"});
    let left = client.post("/web-push/unsubscribe", &leave).await;
    assert_eq!(left.json()["message"], "Subscription deleted successfully");
    let stats = client.call(Method::GET, "/web-push/stats").bearer(TOKEN);
    let stats = stats.send().await.json();
    assert_eq!(stats["subscriptions"]["total"], 0, "{stats}");
    assert_eq!(server.terminate().await.code(), Some(0));
}

pub(crate) async fn wrong_times_zones_days_and_types_are_refused_and_nothing_is_stored(name: &str) {
    let world = World::new().await;
    let (_server, client) = world.start(name, &[]).await;
    let browser = world.push_service.user_agent();
    let plain = subscription(&client, &browser, json!({})).await;
    let post = async |more: Value| {
        let mut body = plain.clone();
        let members = body.as_object_mut().unwrap();
        members.extend(more.as_object().unwrap().clone());
        client.post("/web-push/subscribe", &body).await
    };
    for (time, code) in [
        (json!("08:00"), "invalid_notify_time"),
        (json!({}), "invalid_notify_time"),
        (json!({"utcHour": 24, "minute": 0}), "invalid_notify_time"),
        (json!({"utcHour": 8, "minute": -1}), "invalid_notify_time"),
        (json!({"hour": 8, "minute": 0}), "invalid_notify_time"),
        (
            json!({"hour": 8, "minute": 60, "zone": ZONE}),
            "invalid_notify_time",
        ),
        (
            json!({"utcHour": 8, "minute": 0, "zone": ZONE}),
            "invalid_notify_time",
        ),
        (
            json!({"hour": 8, "minute": 0, "zone": ZONE, "weekdays": []}),
            "invalid_notify_time",
        ),
        (
            json!({"hour": 8, "minute": 0, "zone": ZONE, "weekdays": ["mon", "noday"]}),
            "invalid_notify_time",
        ),
        (
            json!({"hour": 8, "minute": 0, "zone": "Asia/Atlantis"}),
            "unknown_zone",
        ),
        (
            json!({"hour": 8, "minute": 0, "zone": "../../etc/passwd"}),
            "unknown_zone",
        ),
    ] {
        let refused = post(json!({"notifyTime": time})).await;
        assert!(refused.status.is_client_error(), "{time}: {refused:?}");
        assert_eq!(refused.json()["code"], code, "{time}");
    }
    let time = json!({"hour": 8, "minute": 0, "zone": ZONE});
    for (more, text) in [
        (
            json!({"notifyTime": time, "notifyType": "WEEKLY"}),
            "Invalid notifyType",
        ),
        (
            json!({"notifyTime": time, "message": "x".repeat(101)}),
            "Message is too long. Max 100 characters.",
        ),
        // Null is the same as absent.
        (
            json!({"notifyTime": null, "message": "x"}),
            "Missing notifyTime information",
        ),
    ] {
        let refused = post(more).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
        assert_eq!(refused.json()["message"], text);
    }
    let stats = client.call(Method::GET, "/web-push/stats").bearer(TOKEN);
    let stats = stats.send().await.json();
    assert_eq!(stats["subscriptions"]["total"], 0, "{stats}");

    let nulls = json!({"notifyTime": null, "notifyType": null, "message": null});
    let subscribed = post(nulls).await;
    assert_eq!(subscribed.status, StatusCode::OK, "{subscribed:?}");
    let sent = notify(&client, "/web-push/notify", &json!({"title": "First"})).await;
    assert_eq!(sent.json()["recipients"], 1, "{sent:?}");
    // No confirmation without a time.
    assert_eq!(
        next(&browser).await.json::<Value>().unwrap()["title"],
        "First"
    );
}
