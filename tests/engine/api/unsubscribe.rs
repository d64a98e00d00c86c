use serde_json::{Value, json};
use tower_web_push::broadcast::Tag;
use tower_web_push::store::ScheduleStore as _;

use super::{World, news, with};

#[tokio::test]
async fn both_names_of_a_subscription_remove_it_and_can_be_repeated() {
    let world = World::new().await;
    let (_, one, by_uuid) = world.subscriber().await;
    let (_, other, by_id) = world.subscriber().await;
    let (_, third, _) = world.subscriber().await;
    for (body, text) in [
        (json!({"client_uuid": by_uuid}), "unsubscribed"),
        (json!({"id": by_id}), "unsubscribed"),
        (
            json!({"endpoint": third["endpoint"]}),
            "Subscription deleted successfully",
        ),
    ] {
        for _ in 0..2 {
            let answer = world.post("/unsubscribe", &body).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.json(), json!({"success": true, "message": text}));
        }
    }
    for json in [one, other, third] {
        assert!(world.row(&json).await.is_none());
    }
}

#[tokio::test]
async fn a_request_without_a_name_is_refused() {
    let world = World::new().await;
    for (body, code, text) in [
        (
            json!({}),
            "missing_endpoint",
            "Missing endpoint information",
        ),
        (
            json!({"endpoint": ""}),
            "missing_endpoint",
            "Missing endpoint information",
        ),
        (
            json!({"endpoint": null}),
            "missing_endpoint",
            "Missing endpoint information",
        ),
        (
            json!({"client_uuid": ""}),
            "missing_client_uuid",
            "client_uuid is required",
        ),
        (
            json!({"client_uuid": null}),
            "missing_client_uuid",
            "client_uuid is required",
        ),
        (
            json!({"client_uuid": 1}),
            "invalid_member",
            "client_uuid is not a string.",
        ),
        (
            json!({"client_uuid": "x"}),
            "invalid_id",
            "The id is not a UUID.",
        ),
        (json!({"id": []}), "invalid_member", "id is not a string."),
        (json!({"id": ""}), "invalid_id", "The id is not a UUID."),
        (
            json!({"endpoint": 1}),
            "invalid_member",
            "endpoint is not a string.",
        ),
        (
            json!({"endpoint": "https://fcm.googleapis.com/x", "notifyType": "x"}),
            "invalid_notify_type",
            "Invalid notifyType",
        ),
    ] {
        let answer = world.post("/unsubscribe", &body).await;
        answer.is(400, code);
        assert_eq!(answer.message(), text);
    }
    world
        .post("/unsubscribe", &json!({"endpoint": "x"}))
        .await
        .is(400, "invalid_endpoint");
}

#[tokio::test]
async fn the_last_schedule_removes_the_subscription_unless_it_has_a_user_or_tags() {
    let tag = Tag::parse("news").unwrap();
    let world = World::with_api(|s| s.public_tags([tag])).await;
    let daily = |notify_type: &str| json!({"notifyTime": {"utcHour": 8, "minute": 0}, "notifyType": notify_type});
    let end = |json: &Value, notify_type: &str| json!({"endpoint": json["endpoint"], "notifyType": notify_type});

    let (_, plain) = world.browser();
    world
        .post("/subscribe", &with(&plain, daily("DAILY_CHECK")))
        .await;
    let id = world
        .post("/subscribe", &with(&plain, daily("DIRECT_NOTIFICATION")))
        .await
        .id();
    assert_eq!(world.store.schedules(Some(id)).await.unwrap().len(), 2);
    let answer = world
        .post("/unsubscribe", &end(&plain, "DAILY_CHECK"))
        .await;
    assert_eq!(answer.message(), "Subscription deleted successfully");
    assert_eq!(world.store.schedules(Some(id)).await.unwrap().len(), 1);
    world
        .post("/unsubscribe", &end(&plain, "DAILY_CHECK"))
        .await;
    assert!(
        world.row(&plain).await.is_some(),
        "that type was not there any more"
    );
    world
        .post("/unsubscribe", &end(&plain, "DIRECT_NOTIFICATION"))
        .await;
    assert!(world.row(&plain).await.is_none());
    assert!(world.store.schedules(Some(id)).await.unwrap().is_empty());

    let (_, tagged) = world.browser();
    let body = with(
        &with(&tagged, daily("DAILY_CHECK")),
        json!({"tags": news()}),
    );
    let id = world.post("/subscribe", &body).await.id();
    world
        .post("/unsubscribe", &end(&tagged, "DAILY_CHECK"))
        .await;
    assert!(world.row(&tagged).await.is_some());
    assert!(world.store.schedules(Some(id)).await.unwrap().is_empty());

    let (_, owned) = world.browser();
    world
        .post_as("alice", "/subscribe", &with(&owned, daily("DAILY_CHECK")))
        .await;
    world
        .post("/unsubscribe", &end(&owned, "DAILY_CHECK"))
        .await;
    assert!(world.row(&owned).await.is_some());
    let all = json!({"endpoint": owned["endpoint"]});
    world.post("/unsubscribe", &all).await;
    assert!(
        world.row(&owned).await.is_none(),
        "the whole subscription goes when asked to"
    );
}

/// With an id as with an endpoint: to end the daily check is not to end the subscription.
#[tokio::test]
async fn a_type_ends_by_id_as_well() {
    let world = World::new().await;
    for name in ["id", "client_uuid"] {
        let (_, json) = world.browser();
        let daily = json!({"notifyTime": {"utcHour": 8, "minute": 0}});
        let both = [json!("DAILY_CHECK"), json!("DIRECT_NOTIFICATION")];
        for notify_type in &both {
            let body = with(
                &with(&json, daily.clone()),
                json!({"notifyType": notify_type}),
            );
            world.post("/subscribe", &body).await;
        }
        let id = world.row(&json).await.unwrap().id;
        let end = |notify_type: &Value| json!({name: id, "notifyType": notify_type});
        world
            .post("/unsubscribe", &end(&json!("WEEKLY")))
            .await
            .is(400, "invalid_notify_type");
        let answer = world.post("/unsubscribe", &end(&both[0])).await;
        assert_eq!(
            (answer.status, answer.message()),
            (200, "unsubscribed".into())
        );
        assert_eq!(world.store.schedules(Some(id)).await.unwrap().len(), 1);
        assert!(world.row(&json).await.is_some(), "{name}");
        // The last one of a subscription without user and tags.
        world.post("/unsubscribe", &end(&both[1])).await;
        assert!(world.row(&json).await.is_none(), "{name}");
    }
}

#[tokio::test]
async fn a_subscription_without_schedules_stays_when_a_type_ends() {
    let world = World::new().await;
    let (_, json, _) = world.subscriber().await;
    let body = json!({"endpoint": json["endpoint"], "notifyType": "DAILY_CHECK"});
    assert_eq!(world.post("/unsubscribe", &body).await.status, 200);
    assert!(world.row(&json).await.is_some());
}

#[tokio::test]
async fn schedules_end_with_their_subscription() {
    let world = World::new().await;
    let (_, json) = world.browser();
    let daily = with(&json, json!({"notifyTime": {"utcHour": 8, "minute": 0}}));
    let id = world.post("/subscribe", &daily).await.id();
    world
        .post("/unsubscribe", &json!({"client_uuid": id}))
        .await;
    assert!(world.store.schedules(Some(id)).await.unwrap().is_empty());
}
