use std::time::Duration;

use serde_json::json;
use tower_web_push::clock::{Clock as _, Timestamp};
use tower_web_push::schedule::NotifyType;
use tower_web_push::store::ScheduleStore as _;

use super::{World, with};

#[tokio::test]
async fn a_daily_notification_is_due_at_its_next_occurrence() {
    let world = World::new().await;
    let (_, json) = world.browser();
    // The clock stands at 08:00:00 UTC.
    for (hour, minute, ahead) in [(8, 1, 60), (8, 0, 86_400), (7, 59, 86_340)] {
        let time = json!({"utcHour": hour, "minute": minute});
        let id = world
            .post("/subscribe", &with(&json, json!({"notifyTime": time})))
            .await
            .id();
        let schedules = world.store.schedules(id).await.unwrap();
        let [schedule] = schedules.as_slice() else {
            panic!("one for each type");
        };
        let due = world.clock.now() + Duration::from_secs(ahead);
        assert_eq!(schedule.next_fire_at, due, "{hour}:{minute}");
        assert_eq!(schedule.notify_type, NotifyType::DailyCheck);
    }
    assert_eq!(
        Timestamp::from_secs(1_800_000_000).as_secs() % 86_400,
        8 * 3600
    );
}

#[tokio::test]
async fn types_stand_beside_each_other_and_a_post_without_leaves_them() {
    let world = World::new().await;
    let (_, json) = world.browser();
    let time = json!({"utcHour": 9, "minute": 30});
    let direct = json!({"notifyTime": time, "notifyType": "DIRECT_NOTIFICATION", "message": "ü".repeat(100)});
    world
        .post("/subscribe", &with(&json, json!({"notifyTime": time})))
        .await;
    let id = world.post("/subscribe", &with(&json, direct)).await.id();
    world.post("/subscribe", &json).await;
    let schedules = world.store.schedules(id).await.unwrap();
    assert_eq!(schedules.len(), 2);
    assert_eq!(
        schedules[1].message.as_deref().unwrap().chars().count(),
        100
    );

    let empty = json!({"notifyTime": time, "notifyType": "DIRECT_NOTIFICATION", "message": ""});
    world.post("/subscribe", &with(&json, empty)).await;
    assert_eq!(world.store.schedules(id).await.unwrap()[1].message, None);
}

#[tokio::test]
async fn who_subscribes_with_a_time_is_thanked_once() {
    let world = World::new().await;
    let (browser, json) = world.browser();
    let daily = with(&json, json!({"notifyTime": {"utcHour": 9, "minute": 0}}));
    world.post("/subscribe", &daily).await;
    world.post("/subscribe", &daily).await;
    world.settle().await;
    let messages = browser.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(
        messages[0].text(),
        Some(r#"{"title":"Subscription Successful","message":"Thank you for subscribing!"}"#)
    );

    let (quiet, json, _) = world.subscriber().await;
    world
        .post(
            "/subscribe",
            &with(&json, json!({"notifyTime": {"utcHour": 9, "minute": 0}})),
        )
        .await;
    world.settle().await;
    assert!(
        quiet.messages().is_empty(),
        "it was not created with a time"
    );
}

#[tokio::test]
async fn thanks_can_be_switched_off() {
    let world = World::with(|b| b.confirmation(false)).await;
    let (browser, json) = world.browser();
    world
        .post(
            "/subscribe",
            &with(&json, json!({"notifyTime": {"utcHour": 9, "minute": 0}})),
        )
        .await;
    world.settle().await;
    assert!(browser.messages().is_empty());
}
