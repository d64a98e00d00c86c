use std::sync::Arc;

use http::Request;
use serde_json::{Value, json};
use tower_web_push::broadcast::{Principal, Tag};
use tower_web_push::schedule::{NotifyType, Schedule, ScheduleName};
use tower_web_push::store::{ScheduleStore as _, SubscriptionLimits};
use tower_web_push::subscription::{Origin, SubscriptionId};

use super::{World, full, news, with};
use crate::support::tampered_store::TamperedStore;

/// The same endpoint with the keys of another browser.
fn other_keys(world: &World, json: &Value) -> Value {
    with(json, json!({"keys": world.browser().1["keys"]}))
}

async fn owner(world: &World, json: &Value) -> Option<Principal> {
    world.row(json).await.unwrap().principal
}

#[tokio::test]
async fn the_same_keys_pass_a_row_on_and_no_other_user_takes_it() {
    let world = World::new().await;
    let (_, json) = world.browser();
    world.post_as("alice", "/subscribe", &json).await;
    assert_eq!(owner(&world, &json).await, Some("alice".into()));
    world.post("/subscribe", &json).await;
    assert_eq!(owner(&world, &json).await, Some("alice".into()));
    world.post_as("bob", "/subscribe", &json).await;
    assert_eq!(owner(&world, &json).await, Some("bob".into()));
}

/// A browser that Alice used, with her tag and her daily text.
async fn alices(world: &World) -> (Value, SubscriptionId) {
    let (_, json) = world.browser();
    let daily = json!({
        "notifyTime": {"utcHour": 9, "minute": 0},
        "notifyType": "DIRECT_NOTIFICATION",
        "message": "Take the tablets",
        "tags": news(),
    });
    let answer = world
        .post_as("alice", "/subscribe", &with(&json, daily))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    (json, answer.id())
}

#[tokio::test]
async fn the_next_user_of_a_browser_inherits_no_tags_and_no_daily_notifications() {
    let world = World::with_api(|s| s.public_tags([Tag::parse("news").unwrap()])).await;
    let daily = async |id| world.store.schedules(Some(id)).await.unwrap().len();
    let (json, id) = alices(&world).await;
    // Visits of the same user, and of a page that is signed out.
    world.post_as("alice", "/subscribe", &json).await;
    world.post("/subscribe", &json).await;
    assert_eq!(daily(id).await, 1);
    assert_eq!(world.row(&json).await.unwrap().tags.len(), 1);

    assert_eq!(world.post_as("bob", "/subscribe", &json).await.id(), id);
    assert_eq!(daily(id).await, 0);
    let row = world.row(&json).await.unwrap();
    assert_eq!((row.principal, row.tags.len()), (Some("bob".into()), 0));
    // What Bob gives with the same request is his.
    let (json, id) = alices(&world).await;
    let own = json!({"tags": news(), "notifyTime": {"utcHour": 7, "minute": 0}});
    world.post_as("bob", "/subscribe", &with(&json, own)).await;
    let schedules = world.store.schedules(Some(id)).await.unwrap();
    let names: Vec<_> = schedules.iter().map(Schedule::name).collect();
    assert_eq!(
        names,
        [ScheduleName::Subscriber(id, NotifyType::DailyCheck)]
    );
    assert_eq!(world.row(&json).await.unwrap().tags.len(), 1);
}

/// A row without a user is that of the first one who signs in.
#[tokio::test]
async fn who_signs_in_keeps_what_the_browser_had_before() {
    let world = World::with_api(|s| s.public_tags([Tag::parse("news").unwrap()])).await;
    let (_, json) = world.browser();
    let own = json!({"tags": news(), "notifyTime": {"utcHour": 7, "minute": 0}});
    let id = world.post("/subscribe", &with(&json, own)).await.id();
    world.post_as("bob", "/subscribe", &json).await;
    assert_eq!(world.store.schedules(Some(id)).await.unwrap().len(), 1);
    assert_eq!(world.row(&json).await.unwrap().tags.len(), 1);
}

#[tokio::test]
async fn another_user_who_renews_inherits_no_tags_and_no_daily_notifications() {
    let world = World::with_api(|s| s.public_tags([Tag::parse("news").unwrap()])).await;
    let (old, id) = alices(&world).await;
    let (_, new) = world.browser();
    let renewal = json!({
        "oldEndpoint": old["endpoint"], "oldAuth": old["keys"]["auth"], "subscription": new,
    });
    assert_eq!(world.post_as("bob", "/renew", &renewal).await.id(), id);
    assert!(world.store.schedules(Some(id)).await.unwrap().is_empty());
    assert!(world.row(&new).await.unwrap().tags.is_empty());

    // Her row at the new endpoint is superseded by one of his: what is hers does not move to it.
    let (hers, superseded) = alices(&world).await;
    let renewal = json!({"oldEndpoint": new["endpoint"], "subscription": hers});
    assert_eq!(world.post_as("bob", "/renew", &renewal).await.id(), id);
    for id in [id, superseded] {
        assert!(world.store.schedules(Some(id)).await.unwrap().is_empty());
    }
    assert!(world.row(&hers).await.unwrap().tags.is_empty());
}

/// Else the next attempt would find them with a row that is already Bob's.
#[tokio::test]
async fn a_takeover_that_fails_midway_leaves_the_next_user_nothing() {
    for fails in ["schedules", "remove_unchanged_schedule", "upsert"] {
        let tampered = Arc::new(TamperedStore::default());
        let world = World {
            store: Arc::new(tampered.memory.clone()),
            ..World::made(
                |builder| builder.store(Arc::clone(&tampered)),
                |s| s.public_tags([Tag::parse("news").unwrap()]),
            )
            .await
        };
        let (json, id) = alices(&world).await;
        tampered.fail(fails);
        let refused = world.post_as("bob", "/subscribe", &json).await;
        assert_eq!(refused.status, 503, "{fails}");
        assert_eq!(owner(&world, &json).await, Some("alice".into()), "{fails}");
        tampered.fail(None);
        world.post_as("bob", "/subscribe", &json).await;
        let schedules = world.store.schedules(Some(id)).await.unwrap();
        assert!(schedules.is_empty(), "{fails}");
    }
}

/// The row stays Alice's, with all that is hers.
#[tokio::test]
async fn a_takeover_that_is_refused_removes_nothing() {
    let world = World::with_api(|s| s.public_tags([Tag::parse("news").unwrap()])).await;
    let (json, id) = alices(&world).await;
    let refused = world
        .post_as("bob", "/subscribe", &other_keys(&world, &json))
        .await;
    refused.is(409, "subscription_conflict");
    assert_eq!(world.store.schedules(Some(id)).await.unwrap().len(), 1);
    assert_eq!(world.row(&json).await.unwrap().tags.len(), 1);
}

#[tokio::test]
async fn other_keys_are_accepted_from_the_owner_only() {
    let world = World::new().await;
    let (_, mine) = world.browser();
    let id = world.post_as("alice", "/subscribe", &mine).await.id();
    let changed = other_keys(&world, &mine);
    world
        .post("/subscribe", &changed)
        .await
        .is(409, "subscription_conflict");
    let bob = world.post_as("bob", "/subscribe", &changed).await;
    bob.is(409, "subscription_conflict");
    assert_eq!(
        owner(&world, &mine).await,
        Some("alice".into()),
        "nothing changed"
    );
    assert_eq!(
        world.post_as("alice", "/subscribe", &changed).await.id(),
        id
    );

    let (_, nobodys, _) = world.subscriber().await;
    let changed = other_keys(&world, &nobodys);
    world
        .post("/subscribe", &changed)
        .await
        .is(409, "subscription_conflict");
    world
        .post_as("alice", "/subscribe", &changed)
        .await
        .is(409, "subscription_conflict");
}

#[tokio::test]
async fn above_the_cap_the_least_recently_seen_makes_room() {
    let limits = SubscriptionLimits::new(100, 2);
    let world = World::with(|b| b.subscription_limits(limits)).await;
    let mut browsers = Vec::new();
    for _ in 0..3 {
        let (_, json) = world.browser();
        assert_eq!(
            world.post_as("alice", "/subscribe", &json).await.status,
            200
        );
        browsers.push(json);
        world.clock.advance(std::time::Duration::from_secs(1));
    }
    assert!(world.row(&browsers[0]).await.is_none());
    assert!(world.row(&browsers[2]).await.is_some());
}

#[tokio::test]
async fn an_application_can_demand_to_be_signed_in() {
    let world = World::with_api(|s| s.require_principal(true)).await;
    let (_, json) = world.browser();
    world
        .post("/subscribe", &json)
        .await
        .is(403, "principal_required");
    let renewal = json!({"oldEndpoint": json["endpoint"], "subscription": json});
    world
        .post("/renew", &renewal)
        .await
        .is(403, "principal_required");
    assert_eq!(world.count().await, 0);
    assert_eq!(
        world.post_as("alice", "/subscribe", &json).await.status,
        200
    );
}

#[tokio::test]
async fn another_site_cannot_act_for_a_signed_in_user() {
    let listed = Origin::parse("https://listed.example").unwrap();
    let world = World::with_api(|s| s.allowed_origins([listed])).await;
    let (_, json) = world.browser();
    // Headers, and whether the request passes.
    let cases: [(&[(&str, &str)], bool); 7] = [
        (
            &[("cookie", "a=b"), ("sec-fetch-site", "cross-site")],
            false,
        ),
        (&[("cookie", "a=b"), ("sec-fetch-site", "same-site")], false),
        (
            &[("cookie", "a=b"), ("origin", "https://evil.example")],
            false,
        ),
        (
            &[("cookie", "a=b"), ("origin", "https://listed.example")],
            true,
        ),
        (
            &[("cookie", "a=b"), ("origin", "https://app.example")],
            true,
        ),
        (
            &[("cookie", "a=b"), ("sec-fetch-site", "same-origin")],
            true,
        ),
        (
            &[
                ("sec-fetch-site", "cross-site"),
                ("origin", "https://evil.example"),
            ],
            true,
        ),
    ];
    for path in ["/subscribe", "/unsubscribe", "/renew", "/send-test"] {
        for (headers, passes) in cases {
            let mut request = Request::post(path)
                .header("host", "app.example")
                .header("content-type", "application/json");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let answer = world.call(request.body(full("{}")).unwrap()).await;
            let code = answer.code();
            assert_eq!(code != "cross_site", passes, "{path} {headers:?}");
            assert_eq!(answer.status == 403, !passes, "{path} {headers:?}");
        }
    }
    // Reading is harmless: pages of other sites load the scripts of the mount.
    let request = Request::get("/client.js")
        .header("cookie", "a=b")
        .header("sec-fetch-site", "cross-site");
    assert_eq!(
        world.call(request.body(full("")).unwrap()).await.status,
        200
    );
    let mut request = super::post("/subscribe", &json);
    request.extensions_mut().insert(Principal::from("alice"));
    request
        .headers_mut()
        .insert("sec-fetch-site", "cross-site".parse().unwrap());
    world.call(request).await.is(403, "cross_site");
    assert_eq!(world.count().await, 0);
}
