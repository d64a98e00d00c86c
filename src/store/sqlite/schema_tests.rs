//! A file that an earlier version wrote.

use std::time::Duration;

use super::*;
use crate::broadcast::{Audience, FinalOutcome};
use crate::clock::Timestamp;
use crate::message::Message;
use crate::schedule::{DailyTime, NotifyType, Plan, Schedule};
use crate::store::sqlite::{SqliteStore, broadcasts};
use crate::store::{
    ClaimRequest, Cursor, DeliveryLedger as _, Fired, Firing, NewBroadcast, NewDelivery,
    PauseReason, ScheduleStore as _, Settlement, Tally,
};
use crate::subscription::{EndpointKey, Origin, SubscriptionId};

const fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

/// Version 1, with what was in it when the process was stopped: a paused origin, and one with a row under a lease
/// and one that is due.
fn version_1(path: &std::path::Path) -> NewBroadcast {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(VERSION_1).unwrap();
    let version = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1");
    conn.execute_batch(&version).unwrap();
    let new = NewBroadcast::new(Audience::All, Message::new("x"), at(9_999));
    broadcasts::open(&conn, &new, at(0)).unwrap();
    let row = |n: u8, origin: &str| {
        NewDelivery::new(
            EndpointKey::from_bytes([n; 32]),
            Origin::parse(origin).unwrap(),
        )
    };
    let rows = [
        row(1, "https://a.example.com"),
        row(2, "https://b.example.com"),
        row(3, "https://b.example.com"),
    ];
    let (start, end) = (Cursor::Start, Cursor::End);
    broadcasts::enqueue_page(&conn, new.id, start, &rows, end, at(0)).unwrap();
    conn.execute_batch(
        "UPDATE origin SET paused_until = 60000, pause_reason = 'rate_limited'
             WHERE origin = 'https://a.example.com';
         UPDATE delivery SET leased = 1, at = 45000, fence = 1, attempt = 1 WHERE hex(key) LIKE '02%';
         UPDATE meta SET value = 1 WHERE name = 'fence';",
    )
    .unwrap();
    new
}

#[test]
fn version_5_counts_the_unproven_rows_that_are_there() {
    let conn = Connection::open_in_memory().unwrap();
    for script in &MIGRATIONS[..4] {
        conn.execute_batch(script).unwrap();
    }
    let version = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 4");
    conn.execute_batch(&version).unwrap();
    // Two of them have no verdict.
    for (key, columns) in [
        (1, "NULL, NULL, 0, NULL"),
        (2, "NULL, NULL, 0, NULL"),
        (3, "'alice', NULL, 0, NULL"),
        (4, "NULL, 1, 0, NULL"),
        (5, "NULL, NULL, 1, NULL"),
        (6, "NULL, NULL, 0, 1"),
    ] {
        let insert = format!(
            "INSERT INTO subscription (key, id, endpoint, p256dh, auth, vapid_key, push_service, created_at, \
             keys_changed_at, last_seen_at, failure_streak, principal, last_success_at, stale, retired_at) \
             VALUES (x'0{key}', x'0{key}', '', x'', x'', x'', '', 1, 1, 1, 0, {columns})"
        );
        conn.execute_batch(&insert).unwrap();
    }
    migrate(&conn).unwrap();
    let unproven = "SELECT value FROM meta WHERE name = 'unproven'";
    assert_eq!(number(&conn, unproven).unwrap(), 2);
}

#[tokio::test]
async fn a_file_of_version_1_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("push.db");
    let broadcast = version_1(&path);
    let store = SqliteStore::open(&path).await.unwrap();

    let pauses = store.pauses(at(1)).await.unwrap();
    assert_eq!(pauses.len(), 1);
    assert_eq!(pauses[0].reason, PauseReason::RateLimited);
    assert_eq!((pauses[0].until, pauses[0].closures), (at(60), 1));
    assert_eq!(pauses[0].contact, None);
    assert_eq!(store.tallies().await.unwrap(), []);

    let request = ClaimRequest::new(9, Duration::from_secs(45));
    let mut settled = 0;
    for (secs, rows, attempt) in [(1, 1, 1), (50, 1, 2), (60, 1, 1)] {
        let claims = store.claim(&request, at(secs)).await.unwrap();
        assert_eq!(claims.rows.len(), rows, "at {secs}");
        assert_eq!(claims.rows[0].attempt, attempt, "at {secs}");
        assert!(claims.rows[0].token.fence > 1);
        let ends: Vec<_> = claims
            .rows
            .iter()
            .map(|row| (row.token, Settlement::Finished(FinalOutcome::Accepted)))
            .collect();
        settled += store.settle(&ends, at(secs)).await.unwrap().len();
    }
    assert_eq!(settled, 3);
    let status = store.status(broadcast.id, at(61)).await.unwrap().unwrap();
    assert_eq!((status.counts.accepted, status.counts.pending), (3, 0));

    let origin = Origin::parse("https://a.example.com").unwrap();
    let gone = Tally::new(1, 2);
    let sums = store.tally(&[(origin.clone(), gone)], at(61)).await;
    assert_eq!(sums.unwrap(), [gone]);
    store.close().await.unwrap();
    // Opened again, nothing is left to be done.
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.tallies().await.unwrap(), [(origin, gone)]);
}

#[tokio::test]
async fn a_schedule_of_version_1_or_2_is_of_utc_and_every_day() {
    for version in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("push.db");
        let id = SubscriptionId::from_bytes([7; 16]);
        let conn = Connection::open(&path).unwrap();
        for script in &MIGRATIONS[..version] {
            conn.execute_batch(script).unwrap();
        }
        conn.execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};
             INSERT INTO schedule (subscription, notify_type, minute_of_day, message, next_fire_at) VALUES
                 (x'{id}', 'DAILY_CHECK', 570, NULL, 1000),
                 (x'{id}', 'DIRECT_NOTIFICATION', 0, 'look', 2000);",
            id = "07".repeat(16)
        ))
        .unwrap();
        drop(conn);
        let store = SqliteStore::open(&path).await.unwrap();
        let stored = |notify_type, hour, minute, message: Option<&str>, next| {
            let plan = Plan::Subscriber {
                subscription: id,
                notify_type,
                message: message.map(str::to_owned),
            };
            Schedule::new(plan, DailyTime::new(hour, minute).unwrap(), at(next))
        };
        let expected = [
            stored(NotifyType::DailyCheck, 9, 30, None, 1),
            stored(NotifyType::DirectNotification, 0, 0, Some("look"), 2),
        ];
        assert_eq!(store.schedules(Some(id)).await.unwrap(), expected);
        assert_eq!(store.due_schedules(9, at(2)).await.unwrap(), expected);
        let firing = Firing::new(&expected[0], at(9), None);
        let fired = store.fire(&[firing], at(2)).await.unwrap();
        assert_eq!(fired, [Fired::Fired]);
        // The same time again keeps what it is due.
        store.put_schedule(&expected[0]).await.unwrap();
        let due = store.due_schedules(9, at(8)).await.unwrap();
        assert_eq!(due, expected[1..]);
    }
}
