//! `POST /open-gate`: an operator ends the pause of a push service.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tower_web_push::clock::Clock as _;
use tower_web_push::store::{DeliveryLedger as _, Pause, PauseReason};
use tower_web_push::subscription::Origin;

use super::{FCM, World};

async fn gates(world: &World) -> Value {
    let stats = world.admin(Method::GET, "/stats", &Value::Null).await;
    stats.json()["gates"].clone()
}

/// Whatever the reason: what waited is sent, and only this origin is opened.
#[tokio::test]
async fn a_paused_push_service_gets_messages_once_it_is_opened() {
    const OTHER: &str = "https://updates.push.services.mozilla.com";
    for reason in PauseReason::ALL {
        let world = World::new().await;
        let (browser, ..) = world.subscriber().await;
        let now = world.clock.now();
        for origin in [FCM, OTHER] {
            let origin = Origin::parse(origin).unwrap();
            let mut pause = Pause::new(origin, now + Duration::from_secs(600), *reason);
            // A fault of this sender: one of another sender is lifted at the start.
            let key = world.push.vapid_public_key().id();
            pause.contact = Some(format!("mailto:ops@example.com {key}"));
            world.store.pause(&pause, now).await.unwrap();
        }
        world.notify(&json!({"title": "Waits"})).await;
        world.settle().await;
        assert_eq!(browser.try_next().map(|_| ()), None, "{reason:?}");

        let body = json!({"origin": FCM});
        let opened = world.admin(Method::POST, "/open-gate", &body).await;
        assert_eq!(opened.status, 200);
        assert_eq!(
            opened.json(),
            json!({"success": true, "message": "The push service gets messages again", "origin": FCM, "wasPaused": true})
        );
        let left = gates(&world).await;
        assert_eq!(left[0]["origin"], OTHER, "{reason:?}");
        assert_eq!(left.as_array().unwrap().len(), 1, "{reason:?}");
        world.settle().await;
        let push = browser.try_next().expect("it is sent now");
        assert_eq!(push.json::<Value>().unwrap()["title"], "Waits");

        let again = world.admin(Method::POST, "/open-gate", &body).await;
        assert_eq!(again.status, 200);
        assert_eq!(again.json()["wasPaused"], false);
    }
}

#[tokio::test]
async fn what_is_no_origin_is_refused() {
    let world = World::new().await;
    for body in [
        json!({}),
        json!({"origin": 7}),
        json!({"origin": "fcm.googleapis.com"}),
        json!({"origin": "https://fcm.googleapis.com/path"}),
    ] {
        let answer = world.admin(Method::POST, "/open-gate", &body).await;
        answer.is(400, "invalid_member");
        assert_eq!(answer.json()["member"], "origin");
    }
}
