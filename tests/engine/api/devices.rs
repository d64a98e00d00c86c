use http::{Method, Request};
use serde_json::{Value, json};
use tower_web_push::Message;
use tower_web_push::broadcast::Principal;
use tower_web_push::store::{
    Change, Failure, RetireReason, ScheduleStore as _, SubscriptionStore as _,
};

use super::{Answer, World, full, news, with};

async fn call(world: &World, caller: Option<&str>, method: Method, path: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    // The request of a page of the application.
    request = request.header("sec-fetch-site", "same-origin");
    let mut request = request.body(full("")).unwrap();
    if let Some(name) = caller {
        request.extensions_mut().insert(Principal::from(name));
    }
    world.call(request).await
}

async fn devices(world: &World, caller: &str) -> Vec<Value> {
    let answer = call(world, Some(caller), Method::GET, "/devices").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["cache-control"], "no-store");
    answer.has_members(&["devices"]);
    answer.json()["devices"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_device_shows_what_its_user_may_know_and_no_secret() {
    let world =
        World::with_api(|s| s.public_tags(["news".parse().unwrap()]).confirmation(false)).await;
    let (_, row) = world.browser();
    let wishes = json!({
        "tags": news(),
        "notifyTime": {"utcHour": 8, "minute": 5},
        "notifyType": "DIRECT_NOTIFICATION",
        "message": "Drink water",
    });
    let id = world
        .post_as("alice", "/subscribe", &with(&row, wishes))
        .await
        .id();
    world.post_as("bob", "/subscribe", &world.browser().1).await;
    world.post("/subscribe", &world.browser().1).await;
    assert_eq!(
        world
            .push
            .send(id, Message::new("x"))
            .await
            .unwrap()
            .counts
            .accepted,
        1
    );
    let devices = devices(&world, "alice").await;
    assert_eq!(
        devices,
        [json!({
            "id": id,
            "pushService": "fcm",
            "state": "live",
            "tags": ["news"],
            "createdAt": "2027-01-15T08:00:00Z",
            "lastSeenAt": "2027-01-15T08:00:00Z",
            "lastSuccessAt": "2027-01-15T08:00:00Z",
            "lastFailure": null,
            "schedules": [{
                "notifyType": "DIRECT_NOTIFICATION",
                "notifyTime": {"utcHour": 8, "minute": 5},
                "message": "Drink water",
                "nextAt": devices[0]["schedules"][0]["nextAt"],
            }],
        })]
    );
    let next_at = devices[0]["schedules"][0]["nextAt"].as_str().unwrap();
    assert!(next_at.starts_with("2027-01-15T08:05:"), "{next_at}");
}

#[tokio::test]
async fn a_device_is_listed_in_every_state() {
    let world = World::new().await;
    let mut rows = Vec::new();
    for _ in 0..4 {
        let (_, row) = world.browser();
        let row = with(&row, json!({"expirationTime": 1_800_000_005_000_i64}));
        let row = match rows.len() {
            3 => row,
            _ => with(&row, json!({"expirationTime": null})),
        };
        world.post_as("alice", "/subscribe", &row).await;
        rows.push(row);
        world.clock.advance(std::time::Duration::from_secs(1));
    }
    let key = async |row: &Value| {
        let row = world.row(row).await.unwrap();
        row.subscription.endpoint().key()
    };
    let observed_at = tower_web_push::clock::Timestamp::from_secs(1_800_000_009);
    let changes = [
        Change::Stale {
            key: key(&rows[1]).await,
            observed_at,
            failure: Failure::default(),
        },
        Change::Retire {
            key: key(&rows[2]).await,
            reason: RetireReason::Gone,
            observed_at,
            failure: Failure::default(),
        },
    ];
    world.store.apply(&changes, observed_at).await.unwrap();
    world.clock.set(observed_at);
    let states: Vec<_> = devices(&world, "alice")
        .await
        .iter()
        .map(|device| device["state"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(states, ["live", "stale", "retired", "expired"]);
}

#[cfg(feature = "zones")]
#[tokio::test]
async fn a_daily_time_comes_back_as_it_was_posted() {
    let world = World::new().await;
    let (_, row) = world.browser();
    let time =
        json!({"hour": 7, "minute": 30, "zone": "Europe/Berlin", "weekdays": ["mon", "fri"]});
    let body = with(&row, json!({"notifyTime": time}));
    world.post_as("alice", "/subscribe", &body).await;
    let device = devices(&world, "alice").await.remove(0);
    assert_eq!(device["schedules"][0]["notifyTime"], time);
}

#[tokio::test]
async fn a_device_is_removed_with_its_daily_notifications() {
    let world = World::new().await;
    let (_, row) = world.browser();
    let body = with(&row, json!({"notifyTime": {"utcHour": 8}}));
    let id = world.post_as("alice", "/subscribe", &body).await.id();
    let path = format!("/devices/{id}");
    let answer = call(&world, Some("alice"), Method::DELETE, &path).await;
    assert_eq!(answer.status, 200);
    answer.has_members(&["success", "message"]);
    assert!(world.row(&row).await.is_none());
    assert_eq!(world.store.schedules(Some(id)).await.unwrap(), []);
    assert!(devices(&world, "alice").await.is_empty());
    let again = call(&world, Some("alice"), Method::DELETE, &path).await;
    again.is(404, "unknown_subscription");
}

#[tokio::test]
async fn another_site_removes_no_device() {
    let world = World::new().await;
    let (_, row) = world.browser();
    let id = world.post_as("alice", "/subscribe", &row).await.id();
    let mut request = Request::delete(format!("/devices/{id}"))
        .header("sec-fetch-site", "cross-site")
        .body(full(""))
        .unwrap();
    request.extensions_mut().insert(Principal::from("alice"));
    world.call(request).await.is(403, "cross_site");
    assert!(world.row(&row).await.is_some());
}
