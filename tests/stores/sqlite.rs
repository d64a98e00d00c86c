//! Tests specific to the SQLite store.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::FutureExt as _;
use rusqlite::Connection;
use tempfile::TempDir;
use tower_web_push::broadcast::{Audience, BroadcastState, FinalOutcome};
use tower_web_push::check::check_store;
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::store::{
    ClaimRequest, Cursor, DeliveryLedger, Liveness, NewBroadcast, NewDelivery, NewSubscription,
    PageWrite, ScheduleStore, Settlement, SqliteStore, StoreError, StoreErrorKind,
    SubscriptionLimits, SubscriptionRef, SubscriptionStore,
};
use tower_web_push::store::{CountFilter, Opened};
use tower_web_push::subscription::{EndpointKey, Origin, Subscription};
use tower_web_push::testing::ManualClock;
use tower_web_push::vapid::KeyId;

use crate::unreadable::{
    Damaged, NUMBERS, a_damaged_row_is_left_out, a_key_that_rows_name_is_in_use,
    both_are_claimed_again, damage_of_one_origin_stays_there, damaged_counts_hold_up_no_others,
    damaged_names, holds_up_no_others, numbers_below_zero_count_as_zero, put_counted, put_origins,
    put_rows_at_two_origins, put_schedules, put_subscriptions, the_healthy_origin_is_claimed,
    the_healthy_schedule_is_due, the_row_left_expires,
};

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + secs)
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("push.db");
    (folder, path)
}

fn subscription(number: u32) -> NewSubscription {
    let json = serde_json::json!({
        "endpoint": format!("https://push.example.net/{number}"),
        "keys": {
            "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            "auth": "BTBZMqHH6r4Tts7J_aSIgg",
        },
    });
    let subscription = Subscription::from_value(&json).unwrap();
    NewSubscription::new(subscription, KeyId::from_bytes([1; KeyId::LEN]))
}

async fn put(store: &SqliteStore, number: u32) {
    let limits = SubscriptionLimits::default();
    let new = subscription(number);
    store.upsert(&new, &limits, at(0)).await.unwrap();
}

fn deliveries(numbers: std::ops::Range<u8>) -> Vec<NewDelivery> {
    let origin = Origin::parse("https://push.example.net").unwrap();
    numbers
        .map(|n| NewDelivery::new(EndpointKey::from_bytes([n; 32]), origin.clone()))
        .collect()
}

async fn sending(store: &SqliteStore, rows: &[NewDelivery]) -> NewBroadcast {
    let new = NewBroadcast::new(Audience::All, Message::new("secret words"), at(9999));
    store.open(&new, at(0)).await.unwrap();
    let written = store
        .enqueue_page(new.id, &Cursor::Start, rows, &Cursor::End, at(0))
        .await
        .unwrap();
    assert_eq!(written, PageWrite::Stored);
    new
}

fn claim_of(limit: usize) -> ClaimRequest {
    ClaimRequest::new(limit, Duration::from_secs(45))
}

/// Copies the files as they are, as after a killed process.
fn files_after_a_crash(path: &Path) -> (TempDir, PathBuf) {
    let (folder, copy) = folder();
    for suffix in ["", "-wal"] {
        let from = format!("{}{suffix}", path.display());
        fs::copy(from, format!("{}{suffix}", copy.display())).unwrap();
    }
    (folder, copy)
}

async fn refused(path: &Path) -> StoreError {
    let error = SqliteStore::open(path).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{error:?}");
    let about = std::error::Error::source(&error).unwrap();
    assert_eq!(about.to_string(), path.display().to_string());
    assert!(about.source().is_some(), "{error:?}");
    error
}

#[tokio::test]
async fn what_was_answered_survives_a_crash() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, 1).await;
    let new = sending(&store, &deliveries(0..3)).await;
    let claimed = store.claim(&claim_of(2), at(0)).await.unwrap().rows;
    let accepted = Settlement::Finished(FinalOutcome::Accepted);
    let settled = [(claimed[0].token, accepted)];
    store.settle(&settled, at(1)).await.unwrap();
    store.record_run(at(1)).await.unwrap();

    let (_copies, copy) = files_after_a_crash(&path);
    let after = SqliteStore::open(&copy).await.unwrap();
    let status = after.status(new.id, at(2)).await.unwrap().unwrap();
    assert_eq!(status.state, BroadcastState::Sending);
    assert_eq!((status.counts.accepted, status.counts.pending), (1, 2));
    assert_eq!(after.last_run().await.unwrap(), Some(at(1)));
    let every = CountFilter::new(Audience::All, Liveness::Any);
    assert_eq!(after.count(&every, at(2)).await.unwrap(), 1);
    // The claimed row becomes claimable when its lease ends.
    assert_eq!(
        after.claim(&claim_of(9), at(2)).await.unwrap().rows.len(),
        1
    );
    let late = after.claim(&claim_of(9), at(45)).await.unwrap().rows;
    assert_eq!(late.len(), 1);
    assert_eq!(
        (late[0].token.key, late[0].attempt),
        (claimed[1].token.key, 2)
    );
}

#[tokio::test]
async fn a_closed_store_opens_again() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let clone = store.clone();
    put(&store, 1).await;
    store.close().await.unwrap();
    store.close().await.unwrap();
    let error = clone.last_run().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let error = clone.record_run(at(0)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(
        !path.with_extension("db-wal").exists(),
        "the log is folded in"
    );
    let again = SqliteStore::open(&path).await.unwrap();
    let key = subscription(1).subscription.endpoint().key();
    let rows = again.get(&[SubscriptionRef::Key(key)]).await.unwrap();
    assert!(rows[0].is_some());
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let (_folder, path) = folder();
    SqliteStore::open(&path)
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA user_version = 99;")
        .unwrap();
    drop(conn);
    let before = fs::read(&path).unwrap();
    let error = refused(&path).await;
    let about = std::error::Error::source(&error).unwrap();
    let source = about.source().unwrap();
    assert!(source.to_string().contains("newer version"), "{source}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn another_applications_database_is_left_alone() {
    let (_folder, path) = folder();
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("CREATE TABLE subscription (id)")
        .unwrap();
    drop(conn);
    let before = fs::read(&path).unwrap();
    refused(&path).await;
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let (folder, path) = folder();
    fs::write(&path, "just some text\n".repeat(100)).unwrap();
    refused(&path).await;
    assert!(fs::read_to_string(&path).unwrap().starts_with("just"));
    refused(folder.path()).await;
    refused(&folder.path().join("missing/push.db")).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_new_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, 1).await;
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("{}{suffix}", path.display());
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    store.close().await.unwrap();
    // The operator's mode stays.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
    SqliteStore::open(&path).await.unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[tokio::test]
async fn damage_is_an_error_and_no_panic() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    put(&store, 1).await;
    let new = sending(&store, &deliveries(0..1)).await;
    let conn = Connection::open(&path).unwrap();
    let key = SubscriptionRef::Key(subscription(1).subscription.endpoint().key());
    for damage in [
        "p256dh = x'04'",
        "auth = x''",
        "endpoint = 'ftp://x'",
        "id = x'01'",
        "failure_streak = -1",
        "retired_at = 5",
        "retired_at = 5, retire_reason = 'because'",
    ] {
        conn.execute_batch("SAVEPOINT whole").unwrap();
        conn.execute_batch(&format!("UPDATE subscription SET {damage}; RELEASE whole;"))
            .unwrap();
        let error = store.get(&[key]).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{damage}");
        conn.execute_batch("DELETE FROM subscription").unwrap();
        put(&store, 1).await;
    }
    conn.execute_batch("UPDATE broadcast SET accepted = -1")
        .unwrap();
    let error = store.status(new.id, at(0)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    conn.execute_batch("UPDATE broadcast SET accepted = 0")
        .unwrap();
    for damage in [
        "UPDATE broadcast SET accepted = -1",
        "UPDATE content SET urgency = 'very'",
        "UPDATE content SET padding = '-1'",
        "DELETE FROM content",
    ] {
        conn.execute_batch(damage).unwrap();
        // The row is claimed without its message (L5), and given back.
        let claims = store.claim(&claim_of(9), at(0)).await.unwrap();
        let tokens: Vec<_> = claims.rows.iter().map(|row| row.token).collect();
        assert_eq!((tokens.len(), claims.messages.len()), (1, 0), "{damage}");
        store.release(&tokens, at(0)).await.unwrap();
        let mend = "UPDATE content SET urgency = 'high', padding = 'none'; UPDATE broadcast SET accepted = 0";
        conn.execute_batch(mend).unwrap();
    }
    conn.execute_batch("DROP TABLE schedule").unwrap();
    let error = store.due_schedules(9, at(0)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Misconfigured);
    assert!(store.status(new.id, at(0)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_failed_change_takes_no_other_with_it() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let limits = SubscriptionLimits::new(10, 32);
    // All wait at the same time, so that many share a transaction.
    let answers = futures_util::future::join_all((0..40).map(|number| {
        let store = store.clone();
        async move { store.upsert(&subscription(number), &limits, at(0)).await }
    }))
    .await;
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(stored, 10);
    for answer in answers {
        if let Err(error) = answer {
            assert_eq!(error.kind(), StoreErrorKind::Full);
        }
    }
    let every = CountFilter::new(Audience::All, Liveness::Any);
    assert_eq!(store.count(&every, at(0)).await.unwrap(), 10);
    let live = CountFilter::new(Audience::All, Liveness::Live);
    assert_eq!(store.count(&live, at(0)).await.unwrap(), 10);
}

#[tokio::test]
async fn a_dropped_call_is_done_wholly_or_not_at_all() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let rows = deliveries(0..200);
    for _ in 0..20 {
        let new = NewBroadcast::new(Audience::All, Message::new("x"), at(9999));
        store.open(&new, at(0)).await.unwrap();
        let call = store.enqueue_page(new.id, &Cursor::Start, &rows, &Cursor::End, at(0));
        // Polled once, so that it is queued. Then its caller is gone.
        assert!(call.now_or_never().is_none());
        // The writer handles changes in order: after this answer the dropped one has been handled.
        assert!(matches!(
            store.open(&new, at(0)).await.unwrap(),
            Opened::Repeat(_)
        ));
        let status = store.status(new.id, at(0)).await.unwrap().unwrap();
        let whole = (BroadcastState::Sending, 200);
        let none = (BroadcastState::Expanding, 0);
        let now = (status.state, status.recipients);
        assert!(now == whole || now == none, "{now:?}");
    }
}

#[tokio::test]
async fn the_message_of_a_done_broadcast_is_wiped() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    sending(&store, &deliveries(0..1)).await;
    let claimed = store.claim(&claim_of(9), at(0)).await.unwrap().rows;
    let accepted = Settlement::Finished(FinalOutcome::Accepted);
    store
        .settle(&[(claimed[0].token, accepted)], at(1))
        .await
        .unwrap();
    store.close().await.unwrap();
    let conn = Connection::open(&path).unwrap();
    let contents: i64 = conn
        .query_row("SELECT count(*) FROM content", [], |row| row.get(0))
        .unwrap();
    assert_eq!(contents, 0);
    let bytes = fs::read(&path).unwrap();
    let words = b"secret words";
    assert!(!bytes.windows(words.len()).any(|window| window == words));
}

#[tokio::test]
async fn the_turns_of_a_done_broadcast_are_forgotten() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let conn = Connection::open(&path).unwrap();
    let flows = || -> u32 {
        conn.query_row("SELECT count(*) FROM flow", [], |row| row.get(0))
            .unwrap()
    };
    sending(&store, &deliveries(0..3)).await;
    assert_eq!(flows(), 1);
    let claimed = store.claim(&claim_of(9), at(0)).await.unwrap().rows;
    let accepted = Settlement::Finished(FinalOutcome::Accepted);
    let ends: Vec<_> = claimed.iter().map(|row| (row.token, accepted)).collect();
    store.settle(&ends, at(1)).await.unwrap();
    assert_eq!(flows(), 0);
}

#[tokio::test]
async fn debug_shows_the_path_and_no_content() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let debug = format!("{store:?}");
    assert!(debug.starts_with("SqliteStore") && debug.contains("push.db"));
}

/// L3, L5 and L17: damage of one broadcast's content does not hold up the others.
#[tokio::test]
async fn a_broadcast_that_cannot_be_read_holds_up_no_others() {
    damaged_by("UPDATE content SET audience = '?' WHERE broadcast").await;
    damaged_by("DELETE FROM content WHERE broadcast").await;
    for pace in [0, -1, 4_294_967_296_i64] {
        damaged_by(&format!("UPDATE broadcast SET pace = {pace} WHERE seq")).await;
    }
}

/// It is not taken for one that no worker has begun.
#[tokio::test]
async fn a_check_names_a_broadcast_that_cannot_be_read() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let new = NewBroadcast::new(Audience::All, Message::new("x"), at(9999));
    store.open(&new, at(0)).await.unwrap();
    let clock = ManualClock::new(at(301));
    let found = async || -> Vec<String> {
        let findings = check_store(&store, &[], &clock).await;
        let wrong = findings.iter().map(|finding| finding.text.clone());
        wrong
            .filter(|text| text.starts_with("queue: ") && !text.contains("pending"))
            .collect()
    };
    let untouched =
        "queue: a broadcast has been due for more than 5 minutes, and no worker has begun it";
    assert_eq!(found().await, [untouched]);
    let other = Connection::open(&path).unwrap();
    other
        .execute("UPDATE content SET audience = '?'", [])
        .unwrap();
    let damaged = format!("queue: broadcast {} cannot be read", new.id);
    assert_eq!(found().await, [damaged]);
}

/// By a statement that lacks the number of the broadcast.
async fn damaged_by(damage: &str) {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let damaged = sending(&store, &deliveries(0..2)).await.id;
    let healthy = sending(&store, &deliveries(2..5)).await.id;
    let open = || NewBroadcast::new(Audience::All, Message::new("x"), at(9999));
    let (unread, read) = (open(), open());
    for new in [&unread, &read] {
        store.open(new, at(0)).await.unwrap();
    }
    let other = Connection::open(&path).unwrap();
    let urgency = "UPDATE content SET urgency = 'urgent' WHERE broadcast";
    for (id, damage) in [(damaged, urgency), (unread.id, damage)] {
        let sql = format!("{damage} = (SELECT seq FROM broadcast WHERE id = ?1)");
        assert_eq!(other.execute(&sql, [id.as_bytes()]).unwrap(), 1);
    }
    let damaged = Damaged {
        unread: unread.id,
        read: read.id,
        healthy,
        rows: 5,
    };
    holds_up_no_others(&store, &damaged, at(1)).await;
}

#[tokio::test]
async fn a_file_that_was_deleted_or_replaced_takes_no_changes() {
    for replace in [false, true] {
        let (folder, path) = folder();
        let store = SqliteStore::open(&path).await.unwrap();
        put(&store, 1).await;
        if replace {
            let copy = folder.path().join("copy.db");
            fs::copy(&path, &copy).unwrap();
            fs::rename(&copy, &path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let (limits, new) = (SubscriptionLimits::default(), subscription(2));
        let error = store.upsert(&new, &limits, at(0)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{error:?}");
        assert!(store.record_run(at(0)).await.is_err());
    }
}

#[tokio::test]
async fn a_schedule_that_cannot_be_read_holds_up_no_others() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    put_schedules(&store, at(1)).await;
    let other = Connection::open(&path).unwrap();
    let damage = "UPDATE schedule SET audience = '?' WHERE name LIKE 'damaged%'";
    assert_eq!(other.execute(damage, []).unwrap(), damaged_names().count());
    the_healthy_schedule_is_due(&store, at(1)).await;
}

/// Counts below zero, and a text where a number belongs, which SQLite reads from a damaged file.
#[tokio::test]
async fn damaged_counts_of_a_broadcast_hold_up_no_others() {
    for damage in ["accepted = -1", "written = 'many'", "cursor = x'01'"] {
        let (_folder, path) = folder();
        let store = SqliteStore::open(&path).await.unwrap();
        let damaged = sending(&store, &deliveries(0..2)).await;
        let healthy = sending(&store, &deliveries(2..5)).await.id;
        let other = Connection::open(&path).unwrap();
        // The table is strict. A damaged page need not be.
        let schema = |sql: &str| {
            let sql = format!(
                "PRAGMA writable_schema = ON;
                 UPDATE sqlite_schema SET sql = {sql} WHERE name = 'broadcast';
                 PRAGMA writable_schema = RESET"
            );
            other.execute_batch(&sql).unwrap();
        };
        schema("replace(sql, ') STRICT', ')')");
        let sql = format!("UPDATE broadcast SET {damage} WHERE id = ?1");
        assert_eq!(other.execute(&sql, [damaged.id.as_bytes()]).unwrap(), 1);
        schema("sql || ' STRICT'");
        let both = (damaged.id, healthy);
        damaged_counts_hold_up_no_others(&store, both, (at(1), damaged.deadline)).await;
    }
}

/// A claim ends its rows, which it cannot count.
#[tokio::test]
async fn damaged_counts_of_a_cancelled_broadcast_hold_up_no_others() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let damaged = sending(&store, &deliveries(0..1)).await.id;
    let claims = store.claim(&claim_of(9), at(1)).await.unwrap();
    assert_eq!(claims.rows.len(), 1);
    store.cancel(damaged, at(1)).await.unwrap();
    let other = Connection::open(&path).unwrap();
    let sql = "UPDATE broadcast SET accepted = -1 WHERE id = ?1";
    assert_eq!(other.execute(sql, [damaged.as_bytes()]).unwrap(), 1);
    sending(&store, &deliveries(1..2)).await;
    // The lease has ended.
    let claims = store.claim(&claim_of(9), at(100)).await.unwrap();
    assert_eq!(claims.rows.len(), 1);
}

#[tokio::test]
async fn an_origin_whose_name_cannot_be_read_holds_up_no_others() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let (new, damaged) = put_rows_at_two_origins(&store, at(1)).await;
    let other = Connection::open(&path).unwrap();
    let sql = "UPDATE origin SET origin = '?' WHERE origin = ?1";
    assert_eq!(other.execute(sql, [damaged.as_str()]).unwrap(), 1);
    the_healthy_origin_is_claimed(&store, at(1)).await;
    the_row_left_expires(&store, &new).await;
}

#[tokio::test]
async fn numbers_that_are_only_counted_on_stop_no_claim() {
    for set in [
        "origin SET takes =",
        "origin SET (high, normal) = (0, 0), low =",
        "origin SET (high, low) = (0, 0), normal =",
        "delivery SET attempt =",
    ] {
        for number in NUMBERS {
            let (_folder, path) = folder();
            let store = SqliteStore::open(&path).await.unwrap();
            put_rows_at_two_origins(&store, at(1)).await;
            let other = Connection::open(&path).unwrap();
            let damage = async || {
                let sql = format!("UPDATE {set} {number}");
                assert!(other.execute(&sql, []).unwrap() > 0);
            };
            both_are_claimed_again(&store, damage, at(1)).await;
        }
    }
}

#[tokio::test]
async fn damage_of_one_origin_holds_up_no_others() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let damaged = put_origins(&store, at(1)).await;
    let other = Connection::open(&path).unwrap();
    let sql = "UPDATE origin SET pause_reason = '?', accepted = -1 WHERE origin = ?1";
    assert_eq!(other.execute(sql, [damaged.as_str()]).unwrap(), 1);
    damage_of_one_origin_stays_there(&store, &damaged, at(1)).await;
}

#[tokio::test]
async fn a_subscription_that_cannot_be_read_holds_up_no_others() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let some = [1, 2, 3].map(subscription);
    let damaged = put_subscriptions(&store, some, at(0)).await;
    let other = Connection::open(&path).unwrap();
    let sql = "UPDATE subscription SET auth = x'00' WHERE key = ?1";
    assert_eq!(other.execute(sql, [damaged.0.as_bytes()]).unwrap(), 1);
    a_damaged_row_is_left_out(&store, damaged, at(1)).await;
}

#[tokio::test]
async fn wrong_numbers_of_subscriptions_stop_nothing() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let key = put_counted(&store, [1, 2].map(subscription), at(0)).await;
    let damage = |sql: &str| Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    damage(
        "UPDATE subscription_number SET number = -5; \
         UPDATE meta SET value = -5 WHERE name = 'unproven'",
    );
    numbers_below_zero_count_as_zero(&store, &subscription(3), at(1)).await;
    damage("DELETE FROM subscription_number");
    a_key_that_rows_name_is_in_use(&store, key, at(1)).await;
}

/// Another program, or damage, removed a broadcast and left its recipients. Its number is given to the next one.
#[tokio::test]
async fn a_new_broadcast_does_not_inherit_what_another_one_left() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    sending(&store, &deliveries(0..3)).await;
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA foreign_keys = OFF; DELETE FROM broadcast")
        .unwrap();
    let left = || -> u32 {
        conn.query_row("SELECT count(*) FROM delivery", [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(left(), 3);
    let new = sending(&store, &deliveries(7..8)).await;
    assert_eq!(left(), 1);
    let claimed = store.claim(&claim_of(9), at(0)).await.unwrap().rows;
    assert_eq!(claimed.len(), 1);
    let status = store.status(new.id, at(0)).await.unwrap().unwrap();
    assert_eq!((status.recipients, status.counts.pending), (1, 1));
}

/// A page that was read twice. The turns of others are not affected.
#[tokio::test]
async fn recipients_that_are_pending_take_no_turns() {
    let store = SqliteStore::open_in_memory().await.unwrap();
    let new = NewBroadcast::new(Audience::All, Message::new("x"), at(9999));
    store.open(&new, at(0)).await.unwrap();
    let middle = Cursor::After(EndpointKey::from_bytes([49; 32]));
    for (expected, rows, next) in [
        (Cursor::Start, 0..50, middle),
        (middle, 0..100, Cursor::End),
    ] {
        let rows = deliveries(rows);
        let written = store.enqueue_page(new.id, &expected, &rows, &next, at(0));
        assert_eq!(written.await.unwrap(), PageWrite::Stored);
    }
    let other = sending(&store, &deliveries(100..200)).await;
    for _ in 0..12 {
        let claimed = store.claim(&claim_of(16), at(1)).await.unwrap().rows;
        let theirs = claimed.iter().filter(|row| row.token.broadcast == other.id);
        assert_eq!((theirs.count(), claimed.len()), (8, 16));
    }
}

/// A claim ends them where it meets them. It was asked for one row, and says that another origin stands behind.
#[tokio::test]
async fn rows_without_a_broadcast_hide_no_other_origin() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let left = deliveries(0..1);
    sending(&store, &left).await;
    let healthy = Origin::parse("https://push.example.org").unwrap();
    let row = NewDelivery::new(EndpointKey::from_bytes([7; 32]), healthy.clone());
    sending(&store, &[row]).await;
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA foreign_keys = OFF; DELETE FROM broadcast WHERE seq = 1")
        .unwrap();
    let mut request = claim_of(1);
    request.per_origin = 0;
    request.origins = [(left[0].origin.clone(), 1), (healthy.clone(), 1)].into();
    let claims = store.claim(&request, at(1)).await.unwrap();
    assert!(claims.rows.is_empty() && claims.more, "{claims:?}");
    let claims = store.claim(&request, at(1)).await.unwrap();
    assert_eq!(claims.rows.len(), 1);
    assert_eq!(claims.rows[0].origin, healthy);
}

/// A claim that has ended as many rows of one cancelled broadcast as it may says that those of another one stand in front.
#[tokio::test]
async fn a_claim_that_ends_no_more_rows_says_so() {
    const STEP: u32 = tower_web_push::store::STEP as u32;
    let store = SqliteStore::open_in_memory().await.unwrap();
    let rows = |numbers: std::ops::Range<u32>, host: &str| -> Vec<_> {
        let origin = Origin::parse(&format!("https://{host}.example.net")).unwrap();
        let row = |number: u32| {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            NewDelivery::new(EndpointKey::from_bytes(key), origin.clone())
        };
        numbers.map(row).collect()
    };
    let elsewhere = sending(&store, &rows(0..4 * STEP, "b")).await;
    // The first in line are the last by their keys, and end last.
    let mut in_front = rows(0..STEP + 20, "a");
    in_front.reverse();
    let in_front = sending(&store, &in_front).await;
    let other = sending(&store, &rows(9_000..9_001, "a")).await;
    for new in [&elsewhere, &in_front] {
        store.cancel(new.id, at(1)).await.unwrap();
    }
    let mut claims = store.claim(&claim_of(3), at(2)).await.unwrap();
    while claims.rows.is_empty() {
        assert!(claims.more, "nothing says that another row stands behind");
        claims = store.claim(&claim_of(3), at(2)).await.unwrap();
    }
    assert_eq!(claims.rows[0].token.broadcast, other.id);
}
