//! `WebPush::import` on a store in memory.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tower_web_push::broadcast::Principal;
use tower_web_push::import::{ImportReport, ImportedSubscription, RefusalKind, RefusedRow};
use tower_web_push::schedule::NotifyType;
use tower_web_push::store::{NewSubscription, ScheduleStore as _, SubscriptionLimits};
use tower_web_push::subscription::SubscriptionId;
use tower_web_push::vapid::{KeyId, VapidKey};
use tower_web_push::{Audience, Message};

use super::world::{EIGHT, HOUR, World, counts, daily, imported, of_type, subscription, tag};

fn kinds(report: &ImportReport) -> Vec<(String, RefusalKind)> {
    let kind = |row: &RefusedRow| (row.row().to_owned(), row.kind());
    let mut kinds: Vec<_> = report.refusals.iter().map(kind).collect();
    kinds.sort_by(|a, b| a.0.cmp(&b.0));
    kinds
}

#[tokio::test]
async fn a_row_is_stored_with_all_its_members() {
    let world = World::new().await;
    let mut import = world.push.import();
    let key = import
        .vapid_key(&VapidKey::generate().unwrap())
        .await
        .unwrap();
    let id = SubscriptionId::random();
    let mut row = imported(1);
    row.id = Some(id);
    row.principal = Some("alice".into());
    row.tags = BTreeSet::from([tag("news")]);
    row.vapid_key = Some(key);
    row.created_at = Some(EIGHT - 500 * HOUR);
    row.daily = vec![
        daily(9, "Good morning"),
        of_type(NotifyType::DailyCheck, 20, ""),
        daily(10, "of the same type"),
    ];
    import.add([Ok(row)]).await.unwrap();
    assert_eq!(counts(import.report()), [1, 0, 0, 0, 0]);
    assert_eq!(import.report().daily, 2);

    let stored = world.row(1).await.unwrap();
    assert_eq!(stored.id, id);
    assert_eq!(stored.subscription, subscription(1, 1));
    assert_eq!(stored.principal, Some(Principal::from("alice")));
    assert_eq!(stored.tags, BTreeSet::from([tag("news")]));
    assert_eq!(stored.vapid_key, key);
    assert_eq!(stored.created_at, EIGHT - 500 * HOUR);
    assert_eq!(
        stored.last_seen_at,
        EIGHT - 500 * HOUR,
        "its page was not here"
    );
    let schedules = world.store.schedules(Some(id)).await.unwrap();
    let times: Vec<_> = schedules
        .iter()
        .map(|schedule| schedule.time.hour())
        .collect();
    assert_eq!(times, [20, 9]);
    assert!(
        schedules
            .iter()
            .all(|schedule| schedule.next_fire_at > EIGHT)
    );
}

#[tokio::test]
async fn the_limit_of_unproven_rows_does_not_hold_for_imports() {
    let limits = SubscriptionLimits::new(9, 2).with_unproven(1);
    let world = World::with(|_, builder| builder.subscription_limits(limits)).await;
    let mut import = world.push.import();
    import
        .add((0..3).map(|number| Ok(imported(number))))
        .await
        .unwrap();
    assert_eq!(counts(import.report()), [3, 0, 0, 0, 0]);
}

#[tokio::test]
async fn bad_rows_are_reported_and_stop_no_other() {
    let limits = SubscriptionLimits::new(6, 2);
    let world = World::with(|_, builder| builder.subscription_limits(limits)).await;
    let of = |number: u32, principal: &str| {
        let mut row = imported(number);
        row.principal = Some(principal.into());
        row
    };
    let mut expired = imported(1);
    expired.subscription = expired.subscription.with_expiration_time(Some(EIGHT));
    let mut tagged = imported(2);
    tagged.tags = (0..33).map(|number| tag(&format!("t{number}"))).collect();
    let mut unknown = imported(3);
    unknown.vapid_key = Some(KeyId::from_bytes([7; KeyId::LEN]));
    let json = json!({
        "endpoint": "https://10.0.0.1/x",
        "keys": {
            "p256dh": subscription(0, 1).ua_public().to_base64url(),
            "auth": subscription(0, 1).auth().secret_to_base64url(),
        },
    });
    let inside = tower_web_push::Subscription::from_value(&json).unwrap();
    let rows = vec![
        Err(RefusedRow::new("row 0", "no keys")),
        Ok(expired),
        Ok(imported(10)),
        Ok(tagged),
        Ok(unknown),
        Ok(ImportedSubscription::new(inside)),
        Ok(imported(11)),
        Ok(of(12, "alice")),
        Ok(of(13, "alice")),
        Ok(of(14, "alice")),
        Ok(of(15, "bob")),
        Ok(of(16, &"b".repeat(1025))),
    ];
    let mut import = world.push.import();
    import.add(rows).await.unwrap();
    assert_eq!(counts(import.report()), [5, 0, 0, 0, 7]);
    let kinds = kinds(import.report());
    assert!(
        kinds[0].0.starts_with("Endpoint(https://10.0.0.1, "),
        "{kinds:?}"
    );
    assert_eq!(kinds[0].1, RefusalKind::EndpointNotAllowed);
    let named: Vec<_> = kinds[1..]
        .iter()
        .map(|(row, kind)| (row.as_str(), *kind))
        .collect();
    let expected = [
        ("row 0", RefusalKind::Unreadable),
        ("row 1", RefusalKind::Expired),
        ("row 14", RefusalKind::PrincipalFull),
        ("row 16", RefusalKind::PrincipalTooLong),
        ("row 2", RefusalKind::TooManyTags),
        ("row 3", RefusalKind::UnknownVapidKey),
    ];
    assert_eq!(named, expected);
    // Her other subscriptions are all stored: none was removed. The next one is the last within the limit.
    assert!(world.row(12).await.is_some() && world.row(13).await.is_some());
    let import = world.import((20..70).map(imported)).await;
    assert_eq!(counts(import.report()), [1, 0, 0, 0, 49]);
    assert_eq!(import.report().refusals.len(), 32);
    assert!(
        import
            .report()
            .refusals
            .iter()
            .all(|row| row.kind() == RefusalKind::StoreFull)
    );
    let shown = format!("{import:?}");
    assert!(!shown.contains("push.example.net/"), "{shown}");
}

#[tokio::test]
async fn of_rows_with_one_endpoint_or_one_id_the_first_stays() {
    let world = World::new().await;
    let id = SubscriptionId::random();
    let mut first = imported(1);
    first.id = Some(id);
    first.daily = vec![daily(9, "first")];
    let mut same = imported(1);
    same.daily = vec![daily(10, "second"), of_type(NotifyType::DailyCheck, 11, "")];
    let mut other_keys = ImportedSubscription::new(subscription(1, 9));
    other_keys.daily = vec![daily(12, "third")];
    let mut same_id = imported(2);
    same_id.id = Some(id);
    let import = world.import([first, same, other_keys, same_id]).await;
    assert_eq!(counts(import.report()), [1, 1, 0, 2, 0]);
    let stored = world.row(1).await.unwrap();
    assert_eq!((stored.id, &stored.subscription), (id, &subscription(1, 1)));
    assert_eq!(world.row(2).await, None);
    let schedules = world.store.schedules(Some(id)).await.unwrap();
    let hours: Vec<_> = schedules
        .iter()
        .map(|schedule| schedule.time.hour())
        .collect();
    assert_eq!(hours, [11, 9]);
}

#[tokio::test]
async fn the_imported_active_key_becomes_active_once_if_the_local_one_is_unused() {
    let theirs = VapidKey::generate().unwrap();
    let world = World::new().await;
    let mut import = world.push.import();
    import.active_vapid_key(&theirs).await.unwrap();
    assert_eq!(world.push.vapid_public_key(), *theirs.public_key());
    // Rotated since: a second run does not revert it.
    let rotated = world.push.rotate_vapid_key().await.unwrap();
    let before = world.content().await;
    world.push.import().active_vapid_key(&theirs).await.unwrap();
    assert_eq!(world.push.vapid_public_key().id(), rotated);
    assert_eq!(world.content().await, before);

    // A subscription uses the local key: it stays the active one, and the imported key is live.
    let world = World::new().await;
    let ours = world.push.vapid_public_key();
    world
        .subscribe(&NewSubscription::new(subscription(1, 1), ours.id()))
        .await;
    let mut import = world.push.import();
    import.active_vapid_key(&theirs).await.unwrap();
    import.add([Ok(imported(2))]).await.unwrap();
    assert_eq!(world.push.vapid_public_key(), ours);
    assert_eq!(world.row(2).await.unwrap().vapid_key, theirs.id());
    assert_eq!(world.content().await.keys.len(), 2);
}

#[tokio::test]
async fn an_imported_subscription_keeps_its_vapid_key() {
    let (old, older) = (VapidKey::generate().unwrap(), VapidKey::generate().unwrap());
    let world = World::new().await;
    let mut import = world.push.import();
    let older_id = import.vapid_key(&older).await.unwrap();
    import.active_vapid_key(&old).await.unwrap();
    let browsers = [world.service.user_agent(), world.service.user_agent()];
    let rows = browsers.iter().zip([&old, &older]).map(|(browser, key)| {
        let mut row = ImportedSubscription::new(browser.subscribe(key.public_key()).unwrap());
        row.vapid_key = (key.id() == older_id).then_some(older_id);
        Ok(row)
    });
    let rows: Vec<_> = rows.collect();
    import.add(rows).await.unwrap();
    assert_eq!(counts(import.report()), [2, 0, 0, 0, 0]);
    let report = world
        .push
        .send(Audience::All, Message::new("hello"))
        .await
        .unwrap();
    assert_eq!(report.counts.accepted, 2);
    for (browser, key) in browsers.iter().zip([&old, &older]) {
        let received = browser.next().await;
        assert_eq!(received.text(), Some("hello"));
        assert_eq!(received.vapid().unwrap().public_key(), key.public_key());
    }
}

#[tokio::test]
async fn notifications_due_since_the_source_last_sent_are_sent_once() {
    // It is 08:00. The source stopped at 06:30, and 30 hours ago.
    for (ago, expected) in [
        (HOUR * 3 / 2, vec!["7"]),
        (HOUR * 30, vec!["6", "7", "9"]),
        (Duration::ZERO, vec![]),
    ] {
        let world = World::new().await;
        let key = VapidKey::generate().unwrap();
        let mut import = world.push.import().daily_sent_until(EIGHT - ago);
        import.active_vapid_key(&key).await.unwrap();
        let mut rows = Vec::new();
        let browsers: Vec<_> = [6, 7, 9]
            .into_iter()
            .map(|hour| (hour, world.service.user_agent()))
            .collect();
        for (hour, browser) in &browsers {
            let subscription = browser.subscribe(key.public_key()).unwrap();
            let mut row = ImportedSubscription::new(subscription);
            row.daily = vec![daily(*hour, &hour.to_string())];
            rows.push(Ok(row));
        }
        import.add(rows).await.unwrap();
        let first = world.store.next_fire_at().await.unwrap().unwrap();
        assert!(
            first > EIGHT - 24 * HOUR,
            "what is later than that is not even looked at"
        );
        // Each has a second of its own within its minute.
        world.clock.advance(Duration::from_secs(60));
        world.settle().await;
        world.settle().await;
        let mut received = Vec::new();
        for (_, browser) in &browsers {
            for push in browser.messages() {
                received.push(push.json::<Value>().unwrap()["message"].clone());
            }
        }
        assert_eq!(received, expected, "{ago:?}");
    }
}

#[tokio::test]
async fn times_in_the_future_become_now() {
    let world = World::new().await;
    let mut import = world.push.import().daily_sent_until(EIGHT + 2 * HOUR);
    let mut row = imported(1);
    row.created_at = Some(EIGHT + HOUR);
    row.daily = vec![daily(9, "x")];
    import.add([Ok(row)]).await.unwrap();
    let stored = world.row(1).await.unwrap();
    assert_eq!((stored.created_at, stored.last_seen_at), (EIGHT, EIGHT));
    let first = world.store.next_fire_at().await.unwrap().unwrap();
    assert!(first.since(EIGHT) < 2 * HOUR, "today's is to come");
}
