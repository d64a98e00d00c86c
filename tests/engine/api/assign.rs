use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tower_web_push::api::{AdminAction, Authorizer, Denied};
use tower_web_push::store::{Change, RetireReason, SubscriptionStore as _};

use super::{Answer, World, with};

async fn assign(world: &World, id: &str, body: &Value) -> Answer {
    let path = format!("/subscriptions/{id}");
    world.admin(Method::PATCH, &path, body).await
}

async fn recipients(world: &World, audience: Value) -> Value {
    let content = json!({"title": "Hello", "audience": audience});
    world.notify(&content).await.json()["recipients"].clone()
}

#[tokio::test]
async fn an_administrator_sets_user_and_tags() {
    let world = World::new().await;
    let (_, row, id) = world.subscriber().await;
    let id = id.to_string();
    // No tag is public here.
    let answer = assign(
        &world,
        &id,
        &json!({"user": "alice", "tags": ["staff", "berlin"]}),
    )
    .await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({"success": true, "id": id, "user": "alice", "tags": ["berlin", "staff"]})
    );
    assert_eq!(recipients(&world, json!({"user": "alice"})).await, 1);
    assert_eq!(recipients(&world, json!({"tag": "staff"})).await, 1);

    // Each alone, and nothing.
    let answer = assign(&world, &id, &json!({"tags": []})).await.json();
    assert_eq!(
        (&answer["user"], &answer["tags"]),
        (&json!("alice"), &json!([]))
    );
    assign(&world, &id, &json!({"tags": ["staff"]})).await;
    let answer = assign(&world, &id, &json!({"user": null})).await.json();
    assert_eq!(
        (&answer["user"], &answer["tags"]),
        (&json!(null), &json!(["staff"]))
    );
    let answer = assign(&world, &id, &json!({})).await.json();
    assert_eq!(
        (&answer["user"], &answer["tags"]),
        (&json!(null), &json!(["staff"]))
    );
    assert_eq!(recipients(&world, json!({"user": "alice"})).await, 0);
    assert_eq!(world.row(&row).await.unwrap().tags.len(), 1);
}

#[tokio::test]
async fn a_retired_subscription_stays_retired() {
    let world = World::new().await;
    let (_, row, id) = world.subscriber().await;
    let before = world.row(&row).await.unwrap();
    let retire = Change::Retire {
        key: before.subscription.endpoint().key(),
        reason: RetireReason::Gone,
        observed_at: before.last_seen_at,
        failure: tower_web_push::store::Failure::default(),
    };
    world
        .store
        .apply(&[retire], before.last_seen_at)
        .await
        .unwrap();
    world.clock.advance(Duration::from_secs(60));
    let answer = assign(&world, &id.to_string(), &json!({"user": "alice"})).await;
    assert_eq!(answer.status, 200);
    let after = world.row(&row).await.unwrap();
    assert!(after.retired.is_some());
    assert_eq!(after.last_seen_at, before.last_seen_at);
    assert_eq!(recipients(&world, json!({"user": "alice"})).await, 0);
}

#[tokio::test]
async fn what_cannot_be_set_changes_nothing() {
    let world = World::new().await;
    let (_, row, id) = world.subscriber().await;
    let id = id.to_string();
    let before = world.row(&row).await;
    let many: Vec<_> = (0..33).map(|number| number.to_string()).collect();
    for (body, status, code) in [
        (json!({"user": 1}), 400, "invalid_member"),
        (json!({"user": ""}), 400, "invalid_member"),
        (
            json!({"tags": "staff", "user": "alice"}),
            400,
            "invalid_member",
        ),
        (json!({"tags": [1], "user": "alice"}), 400, "invalid_member"),
        (
            json!({"tags": ["a tag"], "user": "alice"}),
            400,
            "invalid_tag",
        ),
        (json!({"tags": many, "user": "alice"}), 422, "too_many_tags"),
        (json!({"user": "é".repeat(513)}), 422, "principal_too_long"),
        (json!([]), 400, "invalid_json"),
    ] {
        assign(&world, &id, &body).await.is(status, code);
    }
    assert_eq!(world.row(&row).await, before);
    for unknown in ["00000000-0000-4000-8000-000000000000", "alice"] {
        let answer = assign(&world, unknown, &json!({"user": "alice"})).await;
        answer.is(404, "unknown_subscription");
    }
    assert_eq!(world.count().await, 1);
}

/// Allows one action.
#[derive(Debug)]
struct Only(AdminAction);

#[async_trait::async_trait]
impl Authorizer for Only {
    async fn authorize(&self, action: AdminAction, _: &http::request::Parts) -> Result<(), Denied> {
        (action == self.0).then_some(()).ok_or(Denied::Forbidden)
    }
}

#[tokio::test]
async fn it_is_an_action_of_its_own() {
    for (allowed, status) in [
        (AdminAction::ChangeSubscription, 200),
        (AdminAction::Notify, 403),
    ] {
        let world = World::with_api(|s| s.authorizer(Arc::new(Only(allowed)))).await;
        let (_, row) = world.browser();
        let id = world.post("/subscribe", &with(&row, json!({}))).await.id();
        let answer = assign(&world, &id.to_string(), &json!({"user": "alice"})).await;
        assert_eq!(answer.status, status);
    }
}
