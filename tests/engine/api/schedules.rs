use std::time::Duration;

use serde_json::json;
use tower_web_push::clock::{Clock as _, Timestamp};
use tower_web_push::schedule::{NotifyType, Plan, Schedule, ScheduleName};
use tower_web_push::store::ScheduleStore as _;

use super::{World, with};

/// The text of a subscriber's schedule.
fn message(schedule: &Schedule) -> Option<&str> {
    match &schedule.plan {
        Plan::Subscriber { message, .. } => message.as_deref(),
        Plan::Application { .. } => panic!("not the application's"),
    }
}

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
        let schedules = world.store.schedules(Some(id)).await.unwrap();
        let [schedule] = schedules.as_slice() else {
            panic!("one for each type");
        };
        let due = world.clock.now() + Duration::from_secs(ahead);
        let minute_of = Duration::from_secs(59);
        let spread = schedule.next_fire_at.since(due);
        assert!(
            schedule.next_fire_at >= due && spread <= minute_of,
            "{hour}:{minute}"
        );
        assert_eq!(
            schedule.name(),
            ScheduleName::Subscriber(id, NotifyType::DailyCheck)
        );
    }
    assert_eq!(
        Timestamp::from_secs(1_800_000_000).as_secs() % 86_400,
        8 * 3600
    );
}

#[tokio::test]
async fn each_type_is_stored_and_a_post_without_a_time_changes_none() {
    let world = World::new().await;
    let (_, json) = world.browser();
    let time = json!({"utcHour": 9, "minute": 30});
    let direct = json!({"notifyTime": time, "notifyType": "DIRECT_NOTIFICATION", "message": "ü".repeat(100)});
    world
        .post("/subscribe", &with(&json, json!({"notifyTime": time})))
        .await;
    let id = world.post("/subscribe", &with(&json, direct)).await.id();
    world.post("/subscribe", &json).await;
    let schedules = world.store.schedules(Some(id)).await.unwrap();
    assert_eq!(schedules.len(), 2);
    let text = message(&schedules[1]).unwrap();
    assert_eq!(text.chars().count(), 100);

    let empty = json!({"notifyTime": time, "notifyType": "DIRECT_NOTIFICATION", "message": ""});
    world.post("/subscribe", &with(&json, empty)).await;
    let schedules = world.store.schedules(Some(id)).await.unwrap();
    assert_eq!(message(&schedules[1]), None);
}

#[tokio::test]
async fn a_subscriber_with_a_time_gets_one_confirmation() {
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
async fn confirmations_can_be_switched_off() {
    let world = World::with_api(|s| s.confirmation(false)).await;
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

#[cfg(feature = "zones")]
#[tokio::test]
async fn a_time_of_another_zone_is_stored_as_posted() {
    let world = World::new().await;
    let (_, json) = world.browser();
    let time = json!({"hour": 8, "minute": 0, "zone": "europe/berlin", "weekdays": ["sat", "mon"]});
    let id = world
        .post("/subscribe", &with(&json, json!({"notifyTime": time})))
        .await
        .id();
    let schedules = world.store.schedules(Some(id)).await.unwrap();
    let time = &schedules[0].time;
    assert_eq!(time.to_string(), "08:00 Europe/Berlin");
    assert_eq!(time.weekdays().names().collect::<Vec<_>>(), ["mon", "sat"]);
    // It is Friday, 08:00 UTC: 08:00 in Berlin tomorrow is 07:00 UTC.
    let due = world.clock.now() + Duration::from_secs(23 * 3600);
    assert!(schedules[0].next_fire_at.since(due) < Duration::from_secs(60));
    assert!(schedules[0].next_fire_at >= due);
}

#[tokio::test]
async fn a_time_of_null_is_none_and_a_member_of_null_is_absent() {
    let world = World::new().await;
    let (browser, json) = world.browser();
    let none = with(&json, json!({"notifyTime": null}));
    let id = world.post("/subscribe", &none).await.id();
    assert_eq!(world.store.schedules(Some(id)).await.unwrap(), []);
    let typed = json!({"notifyTime": null, "notifyType": "DAILY_CHECK"});
    let refused = world.post("/subscribe", &with(&json, typed)).await;
    refused.is(400, "missing_notify_time");
    world.settle().await;
    world.clock.advance(Duration::from_secs(86_400));
    world.settle().await;
    assert!(browser.messages().is_empty());

    for time in [
        json!({"utcHour": 9, "minute": 30, "hour": null, "zone": null, "weekdays": null}),
        json!({"utcHour": null, "hour": 9, "minute": 30, "zone": "UTC", "weekdays": null}),
        json!({"utcHour": 9, "minute": 30, "second": 59, "utcMinute": 1}),
        json!({"utcHour": 9.0, "minute": 3e1}),
        json!({"hour": 9.0, "minute": 30.0, "zone": "UTC"}),
    ] {
        let daily = with(&json, json!({"notifyTime": time}));
        world.post("/subscribe", &daily).await.id();
        let schedules = world.store.schedules(Some(id)).await.unwrap();
        assert_eq!(schedules[0].time.to_string(), "09:30 UTC", "{time}");
    }
    for time in [
        json!({"utcHour": 9}),
        json!({"utcHour": 9, "minute": null}),
        json!({"hour": 9, "zone": "UTC"}),
        json!({"hour": 9, "minute": null, "zone": "UTC"}),
    ] {
        let daily = with(&json, json!({"notifyTime": time}));
        world.post("/subscribe", &daily).await.id();
        let schedules = world.store.schedules(Some(id)).await.unwrap();
        assert_eq!(schedules[0].time.to_string(), "09:00 UTC", "{time}");
    }
    for time in [
        json!({"utcHour": null, "minute": 30}),
        json!({"minute": null}),
        json!({"hour": 9, "minute": 30, "zone": null}),
        json!({"utcHour": 9, "hour": 9, "zone": "UTC"}),
        json!({"utcHour": 9, "minute": 30.5}),
        json!({"utcHour": 9, "minute": "30"}),
        json!({"hour": 9, "minute": -1, "zone": "UTC"}),
        json!({"utcHour": 1e300, "minute": 30}),
        json!({"utcHour": 18_446_744_073_709_551_615_u64, "minute": 30}),
        json!({"utcHour": true, "minute": 30}),
        json!([9, 30]),
        json!("09:30"),
    ] {
        let daily = with(&json, json!({"notifyTime": time}));
        let refused = world.post("/subscribe", &daily).await;
        refused.is(400, "invalid_notify_time");
    }
}

#[tokio::test]
async fn a_daily_notification_has_the_replaced_servers_text() {
    let world = World::new().await;
    let (browser, json) = world.browser();
    let time = json!({"utcHour": 9, "minute": 0});
    let daily = with(&json, json!({"notifyTime": time, "message": "look"}));
    world.post("/subscribe", &daily).await;
    let direct = json!({"notifyTime": time, "notifyType": "DIRECT_NOTIFICATION"});
    world.post("/subscribe", &with(&json, direct)).await;
    world.settle().await;
    let thanks = browser.messages().len();
    world.clock.advance(Duration::from_secs(3600 + 60));
    world.settle().await;
    let mut texts: Vec<_> = browser.messages()[thanks..]
        .iter()
        .map(|message| message.text().unwrap().to_owned())
        .collect();
    texts.sort();
    assert_eq!(
        texts,
        [
            r#"{"title":"DAILY_CHECK","message":"look"}"#,
            r#"{"title":"DIRECT_NOTIFICATION","message":"Here is your daily notification."}"#,
        ]
    );
    // Not before the next occurrence.
    let ttl = browser.messages()[thanks].ttl().as_secs();
    assert!((86_400 - 120..=86_400).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn the_text_of_daily_notifications_is_the_applications() {
    let world = World::with(|builder| builder.daily_text("Guten Morgen")).await;
    let (browser, json) = world.browser();
    let time = json!({"utcHour": 9, "minute": 0});
    let direct = json!({"notifyTime": time, "notifyType": "DIRECT_NOTIFICATION"});
    world.post("/subscribe", &with(&json, direct)).await;
    world.settle().await;
    let thanks = browser.messages().len();
    world.clock.advance(Duration::from_secs(3600 + 60));
    world.settle().await;
    assert_eq!(
        browser.messages()[thanks].text(),
        Some(r#"{"title":"DIRECT_NOTIFICATION","message":"Guten Morgen"}"#)
    );
}

#[tokio::test]
async fn a_removed_type_is_not_sent_any_more() {
    let world = World::new().await;
    let (browser, json) = world.browser();
    for notify_type in ["DAILY_CHECK", "DIRECT_NOTIFICATION"] {
        let time = json!({"utcHour": 9, "minute": 0});
        let daily = json!({"notifyTime": time, "notifyType": notify_type});
        world.post("/subscribe", &with(&json, daily)).await;
    }
    let direct = json!({"endpoint": json["endpoint"], "notifyType": "DIRECT_NOTIFICATION"});
    world.post("/unsubscribe", &direct).await;
    world.settle().await;
    let before = browser.messages().len();
    world.clock.advance(Duration::from_secs(3600 + 60));
    world.settle().await;
    let messages = browser.messages();
    assert_eq!(messages.len(), before + 1);
    assert_eq!(messages[before].text(), Some(r#"{"title":"DAILY_CHECK"}"#));
}
