//! `POST /broadcasts/estimate`: what an operator is shown before a message is sent.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tower_web_push::broadcast::Tag;
use tower_web_push::testing::{Answer, When};

use super::{World, news, with};

async fn estimated(world: &World, audience: Value) -> Value {
    let body = json!({"audience": audience});
    let answer = world
        .admin(Method::POST, "/broadcasts/estimate", &body)
        .await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.has_members(&["recipients"]);
    answer.json()["recipients"].clone()
}

/// The numbers are those that `/notify` answers with, and nothing is sent or stored.
#[tokio::test]
async fn an_estimate_is_the_number_of_recipients_and_sends_nothing() {
    let world = World::with_api(|s| s.public_tags([Tag::parse("news").unwrap()])).await;
    let (_, _, first) = world.subscriber().await;
    let (_, of_alice) = world.browser();
    world
        .post_as(
            "alice",
            "/subscribe",
            &with(&of_alice, json!({"tags": news()})),
        )
        .await;
    let unknown = "00000000-0000-4000-8000-000000000000";
    let ids = json!({"ids": [first.to_string(), unknown]});
    for (audience, recipients) in [
        (json!("all"), 2),
        (json!(null), 2),
        (json!({"user": "alice"}), 1),
        (json!({"user": "bob"}), 0),
        (json!({"tag": "news"}), 1),
        (json!({"tag": "sport"}), 0),
        (ids, 1),
    ] {
        assert_eq!(
            estimated(&world, audience.clone()).await,
            recipients,
            "{audience}"
        );
    }
    let stats = world.admin(Method::GET, "/stats", &Value::Null).await;
    assert_eq!(stats.json()["ledger"]["depth"], 0);

    // One that is gone does not count.
    world
        .service
        .script(When::any().times(1), Answer::status(StatusCode::GONE));
    world.clock.advance(std::time::Duration::from_secs(3600));
    world
        .notify(&json!({"title": "a", "audience": {"tag": "news"}}))
        .await;
    world.settle().await;
    assert_eq!(estimated(&world, json!("all")).await, 1);
    let queued = world.notify(&json!({"title": "a"})).await;
    assert_eq!(queued.json()["recipients"], 1);
}

#[tokio::test]
async fn an_estimate_of_no_audience_is_refused() {
    let world = World::new().await;
    for audience in [json!("everyone"), json!({"group": "a"}), json!(7)] {
        let body = json!({"audience": audience});
        let answer = world
            .admin(Method::POST, "/broadcasts/estimate", &body)
            .await;
        answer.is(400, "invalid_audience");
    }
}

#[tokio::test]
async fn an_estimate_refuses_members_that_a_message_does_not_have() {
    let world = World::new().await;
    world.subscriber().await;
    let estimate = async |body: Value| {
        world
            .admin(Method::POST, "/broadcasts/estimate", &body)
            .await
    };
    let refused = estimate(json!({"user": "alice"})).await;
    refused.is(400, "invalid_member");
    assert_eq!(refused.json()["member"], "user");
    let whole = json!({"title": "a", "ttl": 60, "audience": {"user": "alice"}});
    assert_eq!(estimate(whole).await.json()["recipients"], 0);
    assert_eq!(estimate(json!({})).await.json()["recipients"], 1);
}
