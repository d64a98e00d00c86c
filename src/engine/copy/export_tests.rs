//! Exports, and what is restored from them.

use std::collections::BTreeSet;
use std::io::Cursor;

use super::super::restore::{RestoreInto, restore};
use super::*;
use crate::broadcast::{Principal, Tag};
use crate::clock::Timestamp;
use crate::schedule::{DailyTime, NotifyType, Plan, Schedule, Weekdays};
use crate::store::{
    MemoryStore, NewSubscription, RetireReason, Retired, StoredVapidKey, SubscriptionLimits,
    SubscriptionRef, SubscriptionStore as _,
};
use crate::subscription::{AuthSecret, Endpoint, Subscription, SubscriptionId, UaPublicKey};
use crate::vapid::{KeyEncryptionKeys, VapidKey};

const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + secs)
}

fn rows(key: &StoredVapidKey) -> Vec<SubscriptionRecord> {
    // More than a page of those that are retired, and of those that are stale.
    (0..6 * PAGE + 3)
        .map(|number| {
            let endpoint = format!("https://updates.push.services.mozilla.com/{number}");
            let subscription = Subscription::new(
                Endpoint::parse(&endpoint).unwrap(),
                UaPublicKey::parse(P256DH).unwrap(),
                AuthSecret::from_bytes(&[9; AuthSecret::LEN]).unwrap(),
            );
            let id = SubscriptionId::random();
            let mut row = SubscriptionRecord::new(id, subscription, key.id, at(0));
            row.last_seen_at = at(5);
            match number % 5 {
                0 => {
                    row.principal = Some(Principal::from("alice \"\n\u{1f600}"));
                    row.tags = BTreeSet::from([Tag::parse("news").unwrap()]);
                }
                1 => {
                    row.principal = Some(Principal::from("bob"));
                    row.retired = Some(Retired::new(at(6), RetireReason::Gone));
                }
                2 => row.stale_since = Some(at(7)),
                3 => {
                    row.retired = Some(Retired::new(at(6), RetireReason::BadRequest));
                    row.stale_since = Some(at(7));
                    row.failing_since = Some(at(8));
                    row.failure_streak = 3;
                }
                _ => row.last_success_at = Some(at(9)),
            }
            row
        })
        .collect()
}

async fn filled() -> (MemoryStore, Vec<SubscriptionRecord>) {
    let store = MemoryStore::new();
    let mut first = None;
    for number in 0..2 {
        let key = VapidKey::generate().unwrap();
        let sealed = KeyEncryptionKeys::default().seal(&key).unwrap();
        let key = StoredVapidKey::new(key.id(), *key.public_key(), sealed, at(number), true);
        store.insert(&key).await.unwrap();
        first.get_or_insert(key);
    }
    let rows = rows(&first.unwrap());
    store.put(&rows).await.unwrap();
    let time = DailyTime::new(7, 30).unwrap();
    let time = time.on(Weekdays::parse(["mon", "fri"]).unwrap());
    let plan = Plan::Subscriber {
        subscription: rows[1].id,
        notify_type: NotifyType::DirectNotification,
        message: Some("Good morning".to_owned()),
    };
    let schedule = Schedule::new(plan, time, at(77));
    store.put_schedule(&schedule).await.unwrap();
    (store, rows)
}

async fn exported(store: &MemoryStore, secrets: Secrets) -> Vec<u8> {
    let mut out = Vec::new();
    export(store.clone(), &mut out, secrets, |_| {})
        .await
        .unwrap();
    out
}

async fn restored(store: &MemoryStore, bytes: &[u8], into: RestoreInto) -> Result<u64, CopyError> {
    let mut lines = Cursor::new(bytes);
    let report = restore(store.clone(), &mut lines, into, |_| {}).await?;
    Ok(report.subscriptions)
}

#[tokio::test]
async fn what_was_exported_is_restored_whole() {
    let (store, rows) = filled().await;
    let bytes = exported(&store, Secrets::Included).await;
    assert_eq!(
        bytes.iter().filter(|octet| **octet == b'\n').count(),
        rows.len() + 5
    );
    let other = MemoryStore::new();
    let mut written = vec![0];
    let mut lines = Cursor::new(&bytes);
    let report = restore(other.clone(), &mut lines, RestoreInto::Empty, |report| {
        written.push(report.subscriptions);
    });
    assert_eq!(report.await.unwrap().subscriptions, rows.len() as u64);
    let is_page = |two: &[u64]| two[1] - two[0] <= PAGE as u64;
    assert!(written.windows(2).all(is_page), "{written:?}");
    let names: Vec<_> = rows.iter().map(|row| SubscriptionRef::Id(row.id)).collect();
    let found: Vec<_> = other
        .get(&names)
        .await
        .unwrap()
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(found, rows);
    assert_eq!(other.keys().await.unwrap(), store.keys().await.unwrap());
    let of = Some(rows[1].id);
    assert_eq!(
        other.schedules(of).await.unwrap(),
        store.schedules(of).await.unwrap()
    );
    // The same again changes nothing, and only on request.
    let error = restored(&other, &bytes, RestoreInto::Empty)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), CopyErrorKind::NotEmpty);
    assert_eq!(
        restored(&other, &bytes, RestoreInto::Existing)
            .await
            .unwrap(),
        0
    );
    assert_eq!(other.keys().await.unwrap(), store.keys().await.unwrap());
}

#[tokio::test]
async fn without_secrets_it_names_none_and_is_not_restored() {
    let (store, _) = filled().await;
    let bytes = exported(&store, Secrets::LeftOut).await;
    let text = String::from_utf8(bytes.clone()).unwrap();
    let sealed = store.keys().await.unwrap();
    for secret in ["https://", P256DH, "CQkJ", sealed[0].sealed.secret_str()] {
        assert!(!text.contains(secret), "{secret}");
    }
    let error = restored(&MemoryStore::new(), &bytes, RestoreInto::Empty)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), CopyErrorKind::File);
}

#[tokio::test]
async fn a_damaged_file_changes_nothing() {
    let (store, rows) = filled().await;
    let whole = exported(&store, Secrets::Included).await;
    let text = String::from_utf8(whole.clone()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let without = |left_out: usize| {
        let mut lines = lines.clone();
        lines.remove(left_out);
        lines.join("\n").into_bytes()
    };
    let of_other_version = text.replacen("\"version\":1", "\"version\":2", 1);
    for (name, damaged) in [
        ("no head", without(0)),
        ("a key less", without(1)),
        ("a row less", without(9)),
        ("no end", without(lines.len() - 1)),
        ("a line behind the end", [&whole[..], b"\n"].concat()),
        ("more behind the end", [&whole[..], &whole[..]].concat()),
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("another version", of_other_version.into_bytes()),
        (
            "another key",
            text.replacen("\"p256dh\":\"B", "\"p256dh\":\"C", 1)
                .into_bytes(),
        ),
    ] {
        let other = MemoryStore::new();
        let error = restored(&other, &damaged, RestoreInto::Empty)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), CopyErrorKind::File, "{name}");
        assert!(other.keys().await.unwrap().is_empty(), "{name}");
        let row = other.get(&[rows[0].id.into()]).await.unwrap();
        assert_eq!(row, [None], "{name}");
    }
}

#[tokio::test]
async fn notifications_of_a_newer_subscription_stay_and_missing_ones_are_restored() {
    let (store, rows) = filled().await;
    let bytes = exported(&store, Secrets::Included).await;
    let of = Some(rows[1].id);
    let stored = store.schedules(of).await.unwrap();
    let restore_again = async || {
        let mut lines = Cursor::new(&bytes);
        let report = restore(store.clone(), &mut lines, RestoreInto::Existing, |_| {}).await;
        report.unwrap().schedules
    };
    // As after a restoration that failed between the two.
    store.remove_schedules(rows[1].id).await.unwrap();
    assert_eq!(restore_again().await, 1);
    assert_eq!(store.schedules(of).await.unwrap(), stored);
    // What has changed since stays.
    let mut later = stored[0].clone();
    later.time = DailyTime::new(8, 0).unwrap();
    store.put_schedule(&later).await.unwrap();
    assert_eq!(restore_again().await, 0);
    let there = store.schedules(of).await.unwrap();
    assert_eq!(there[0].time, later.time);
    let mut newer = rows[1].clone();
    newer.last_seen_at = at(50);
    store.put(&[newer]).await.unwrap();
    store.remove_schedules(rows[1].id).await.unwrap();
    assert_eq!(restore_again().await, 0);
    assert_eq!(store.schedules(of).await.unwrap(), []);
}

#[tokio::test]
async fn a_key_that_became_active_during_the_export_comes_along() {
    let (store, _) = filled().await;
    let key = VapidKey::generate().unwrap();
    let sealed = KeyEncryptionKeys::default().seal(&key).unwrap();
    let key = StoredVapidKey::new(key.id(), *key.public_key(), sealed, at(9), true);
    let mut out = Vec::new();
    let report = export(store.clone(), &mut out, Secrets::Included, |report| {
        if report.vapid_keys == 2 {
            // It is done at once.
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let inserted = std::pin::pin!(store.insert(&key)).poll(&mut context);
            assert!(inserted.is_ready());
        }
    });
    assert_eq!(report.await.unwrap().vapid_keys, 3);
    let other = MemoryStore::new();
    restored(&other, &out, RestoreInto::Empty).await.unwrap();
    assert_eq!(other.keys().await.unwrap(), store.keys().await.unwrap());
}

/// What is done at once, as all calls of the store in memory are.
fn at_once<T>(call: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(call).poll(&mut context) {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

fn registration(number: usize) -> NewSubscription {
    let endpoint = format!("https://updates.push.services.mozilla.com/{number}");
    let subscription = Subscription::new(
        Endpoint::parse(&endpoint).unwrap(),
        UaPublicKey::parse(P256DH).unwrap(),
        AuthSecret::from_bytes(&[9; AuthSecret::LEN]).unwrap(),
    );
    NewSubscription::new(subscription, KeyId::from_bytes([1; KeyId::LEN]))
}

/// A browser renews its subscription while the export is between both keys: each walk in the order of keys would miss it.
#[tokio::test]
async fn what_is_registered_again_during_the_export_comes_along() {
    let store = MemoryStore::new();
    let limits = SubscriptionLimits::default().with_unproven(u64::MAX);
    let key = |number| registration(number).subscription.endpoint().key();
    let mut numbers: Vec<_> = (0..PAGE + 20).collect();
    numbers.sort_unstable_by_key(|number| key(*number));
    let (first, last) = (numbers[0], numbers[PAGE + 19]);
    for number in &numbers {
        let new = registration(*number);
        store.upsert(&new, &limits, at(-50_000_000)).await.unwrap();
    }
    let row = |store: &MemoryStore, number| {
        at_once(store.get(&[SubscriptionRef::Key(key(number))]))
            .unwrap()
            .remove(0)
    };
    let id = row(&store, last).unwrap().id;
    // Behind the first page when it is written.
    let renewed = (PAGE + 20..).find(|number| key(*number) < key(first));
    let renewed = renewed.unwrap();
    let mut out = Vec::new();
    let mut is_done = false;
    let report = export(store.clone(), &mut out, Secrets::Included, |_| {
        if std::mem::replace(&mut is_done, true) {
            return;
        }
        let now = SystemClock::new().now();
        let mut new = registration(renewed);
        new.replaces = Some(key(last));
        at_once(store.upsert(&new, &limits, now)).unwrap();
        let plan = Plan::Subscriber {
            subscription: id,
            notify_type: NotifyType::DailyCheck,
            message: None,
        };
        let schedule = Schedule::new(plan, DailyTime::new(8, 0).unwrap(), at(77));
        at_once(store.put_schedule(&schedule)).unwrap();
        // This one is in the first page, in an earlier version.
        let mut again = registration(first);
        again.tags = Some([Tag::parse("news").unwrap()].into());
        at_once(store.upsert(&again, &limits, now)).unwrap();
    });
    let rows = report.await.unwrap().subscriptions;
    assert_eq!(rows, PAGE as u64 + 21);
    let other = MemoryStore::new();
    restored(&other, &out, RestoreInto::Empty).await.unwrap();
    for number in numbers.into_iter().chain([renewed]) {
        assert_eq!(row(&other, number), row(&store, number), "{number}");
    }
    assert_eq!(row(&other, renewed).unwrap().id, id);
    let schedules = store.schedules(Some(id)).await.unwrap();
    assert_eq!(other.schedules(Some(id)).await.unwrap(), schedules);
}

/// Its id has another endpoint in a later line, and both may be of one page.
#[tokio::test]
async fn of_two_lines_with_one_id_the_newer_is_restored() {
    let (store, rows) = filled().await;
    let text = String::from_utf8(exported(&store, Secrets::Included).await).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let (end, others) = lines.split_last().unwrap();
    let mut renewed = rows[4].clone();
    renewed.subscription = registration(9_999).subscription;
    renewed.last_seen_at = at(10);
    let added = Line::Subscription(Box::new(Row::of(&renewed, true)));
    let added = serde_json::to_string(&added).unwrap();
    let all = format!("\"subscriptions\":{}", rows.len());
    let end = end.replace(&all, &format!("\"subscriptions\":{}", rows.len() + 1));
    let of_id = format!("\"{}\"", renewed.id);
    let is_of_it = |line: &&&str| line.contains(&of_id);
    let place = others.iter().find(is_of_it).unwrap();
    let calls = async |text: String, other: &MemoryStore| {
        let (mut lines, mut calls) = (Cursor::new(text), 0);
        let report = restore(other.clone(), &mut lines, RestoreInto::Empty, |_| {
            calls += 1
        });
        report.await.unwrap();
        calls
    };
    let usual = calls(text.clone(), &MemoryStore::new()).await;
    for added_first in [false, true] {
        let pair = match added_first {
            true => format!("{added}\n{place}"),
            false => format!("{place}\n{added}"),
        };
        let file = format!("{}\n{end}\n", others.join("\n").replace(place, &pair));
        let other = MemoryStore::new();
        // No two rows of a call have the same id.
        assert_eq!(calls(file, &other).await, usual + 1);
        let found = other.get(&[renewed.id.into()]).await.unwrap();
        assert_eq!(found, [Some(renewed.clone())]);
        let old = SubscriptionRef::from(rows[4].subscription.endpoint());
        assert_eq!(other.get(&[old]).await.unwrap(), [None]);
    }
}

/// Two versions of another one, which are in different calls, stand between a subscription and its notification.
#[tokio::test]
async fn notifications_follow_their_page_also_if_it_is_written_in_two_calls() {
    let (store, rows) = filled().await;
    let text = String::from_utf8(exported(&store, Secrets::Included).await).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let mut twice = rows[4].clone();
    twice.subscription = registration(9_999).subscription;
    twice.id = SubscriptionId::random();
    let place = lines
        .iter()
        .position(|line| line.starts_with("{\"schedule\""));
    for secs in [10, 11] {
        twice.last_seen_at = at(secs);
        let line = Line::Subscription(Box::new(Row::of(&twice, true)));
        lines.insert(place.unwrap(), serde_json::to_string(&line).unwrap());
    }
    let all = format!("\"subscriptions\":{}", rows.len());
    let end = lines.pop().unwrap();
    lines.push(end.replace(&all, &format!("\"subscriptions\":{}", rows.len() + 2)));
    let (file, other) = (format!("{}\n", lines.join("\n")), MemoryStore::new());
    restored(&other, file.as_bytes(), RestoreInto::Empty)
        .await
        .unwrap();
    let of = Some(rows[1].id);
    let schedules = store.schedules(of).await.unwrap();
    assert_eq!(schedules.len(), 1);
    assert_eq!(other.schedules(of).await.unwrap(), schedules);
}

/// Browsers subscribe with it: the file's keys are added, and none becomes the active one.
#[tokio::test]
async fn a_store_that_is_in_use_keeps_its_active_key() {
    let (store, _) = filled().await;
    let bytes = exported(&store, Secrets::Included).await;
    let other = MemoryStore::new();
    let key = VapidKey::generate().unwrap();
    let sealed = KeyEncryptionKeys::default().seal(&key).unwrap();
    let own = StoredVapidKey::new(key.id(), *key.public_key(), sealed, at(50), true);
    other.insert(&own).await.unwrap();
    restored(&other, &bytes, RestoreInto::Existing)
        .await
        .unwrap();
    let keys = other.keys().await.unwrap();
    let active: Vec<_> = keys.iter().filter(|key| key.active).collect();
    assert_eq!(active, [&own]);
    assert_eq!(keys.len(), 1 + store.keys().await.unwrap().len());
}

/// The newer version of a subscription comes later, and with its daily notifications only.
#[tokio::test]
async fn a_notification_that_was_switched_off_during_the_export_is_not_restored() {
    let (store, rows) = filled().await;
    let text = String::from_utf8(exported(&store, Secrets::Included).await).unwrap();
    let mut newer = rows[1].clone();
    newer.last_seen_at = at(50);
    newer.retired = None;
    let again = Line::Subscription(Box::new(Row::of(&newer, true)));
    let again = serde_json::to_string(&again).unwrap();
    let (number, end) = (rows.len(), "{\"end\":");
    let text = text.replace(end, &format!("{again}\n{end}")).replace(
        &format!("\"subscriptions\":{number}"),
        &format!("\"subscriptions\":{}", number + 1),
    );
    for into in [RestoreInto::Empty, RestoreInto::Existing] {
        let other = MemoryStore::new();
        restored(&other, text.as_bytes(), into).await.unwrap();
        let found = other.get(&[newer.id.into()]).await.unwrap();
        assert_eq!(found, [Some(newer.clone())]);
        assert_eq!(
            other.schedules(Some(newer.id)).await.unwrap(),
            [],
            "{into:?}"
        );
    }
}

/// A server that uses the store removes keys that no subscription has.
#[tokio::test]
async fn a_key_that_is_removed_before_its_rows_come_is_written_again() {
    let (store, rows) = filled().await;
    let mut lines = Cursor::new(exported(&store, Secrets::Included).await);
    let other = MemoryStore::new();
    let used = rows[0].vapid_key;
    let mut removals = 0;
    let report = restore(other.clone(), &mut lines, RestoreInto::Empty, |report| {
        if report.subscriptions < rows.len() as u64 {
            removals += u32::from(at_once(other.remove(&used)).unwrap());
        }
    });
    report.await.unwrap();
    assert!(removals > 0);
    assert_eq!(other.keys().await.unwrap(), store.keys().await.unwrap());
}

/// The store has its endpoint with another id and another user, who has registered it before or after that of the file.
#[tokio::test]
async fn a_row_that_is_restored_leaves_no_notifications_of_the_former_user() {
    let (store, rows) = filled().await;
    let bytes = exported(&store, Secrets::Included).await;
    let of = rows[1].id;
    let schedule = store.schedules(Some(of)).await.unwrap().remove(0);
    for (secs, expected) in [(1, (1, 0)), (50, (0, 1))] {
        let other = MemoryStore::new();
        let mut alice = rows[1].clone();
        alice.id = SubscriptionId::random();
        alice.principal = Some(Principal::from("alice"));
        alice.last_seen_at = at(secs);
        other.put(std::slice::from_ref(&alice)).await.unwrap();
        let plan = Plan::Subscriber {
            subscription: alice.id,
            notify_type: NotifyType::DailyCheck,
            message: None,
        };
        let hers = Schedule::new(plan, schedule.time.clone(), at(77));
        other.put_schedule(&hers).await.unwrap();
        restored(&other, &bytes, RestoreInto::Existing)
            .await
            .unwrap();
        let number = async |id| other.schedules(Some(id)).await.unwrap().len();
        assert_eq!((number(of).await, number(alice.id).await), expected);
    }
}

/// Its endpoint has a newer row of another id, so that it is not written. The row of its id is another user's.
#[tokio::test]
async fn a_row_that_is_not_restored_gives_no_notifications() {
    let (store, rows) = filled().await;
    let bytes = exported(&store, Secrets::Included).await;
    let other = MemoryStore::new();
    let mut alice = rows[1].clone();
    alice.subscription = registration(9_999).subscription;
    alice.principal = Some(Principal::from("alice"));
    alice.last_seen_at = at(1);
    let mut newer = rows[1].clone();
    newer.id = SubscriptionId::random();
    newer.last_seen_at = at(50);
    other.put(&[alice, newer]).await.unwrap();
    restored(&other, &bytes, RestoreInto::Existing)
        .await
        .unwrap();
    assert_eq!(other.schedules(Some(rows[1].id)).await.unwrap(), []);
}
