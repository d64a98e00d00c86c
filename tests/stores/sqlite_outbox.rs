//! The outbox in an application's file: what an application commits is opened once, whoever is killed meanwhile.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use tower_web_push::Broadcast;
use tower_web_push::broadcast::{Audience, BroadcastId, OutboxDialect, Principal};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::store::conformance::Handles;
use tower_web_push::store::{
    DeliveryLedger, NewBroadcast, OutboxSettled, OutboxSettlement, OutboxStats, STEP, SqliteStore,
    StoreErrorKind,
};

use crate::application_file::{ApplicationFile, PREFIX};

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + secs)
}

async fn in_an_applications_file() -> Handles<SqliteStore> {
    let file = ApplicationFile::new();
    let (first, second) = (file.store().await, file.store().await);
    Handles::two(first, second).keeping(file)
}

/// As an application does, with a connection of its own to the file that the store names.
async fn write(store: &SqliteStore, audience: &str, message: &str, opts: &str) {
    let description = store.description();
    let path = description.strip_prefix("SQLite ").unwrap();
    let path = path.split_once(", tables").unwrap().0;
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(Duration::from_secs(10)).unwrap();
    let insert = "INSERT INTO web_push_outbox (audience, message, opts) VALUES (?, ?, ?)";
    conn.execute(insert, [audience, message, opts]).unwrap();
}

tower_web_push::outbox_conformance!(applications_file, in_an_applications_file, write);

fn shipped() -> Broadcast {
    Broadcast::to(Audience::user("alice"), Message::new("shipped"))
}

fn opened(id: BroadcastId) -> OutboxSettlement {
    let mut new = NewBroadcast::new(Audience::All, Message::new("shipped"), at(9999));
    new.id = id;
    OutboxSettlement::Open(Box::new(new))
}

#[tokio::test]
async fn an_entry_is_there_if_its_transaction_commits() {
    let file = ApplicationFile::new();
    let store = file.store().await;
    let mut conn = file.connect();
    let ids = async || -> Vec<_> {
        let entries = store.outbox(9).await.unwrap();
        entries.iter().map(|entry| entry.opts.clone()).collect()
    };
    let mut transaction = conn.transaction().unwrap();
    let first = store.enqueue_in(&transaction, &shipped()).unwrap();
    transaction
        .execute("UPDATE orders SET state = 'shipped' WHERE id = 1", [])
        .unwrap();
    let mut savepoint = transaction.savepoint().unwrap();
    let taken_back = {
        let statement = shipped().outbox_statement(OutboxDialect::SQLITE);
        savepoint
            .execute(&statement.sql, statement.parameters)
            .unwrap();
        savepoint.rollback().unwrap();
        statement.id
    };
    drop(savepoint);
    assert_eq!(ids().await, [""; 0], "not committed");
    transaction.commit().unwrap();
    let committed = ids().await;
    assert_eq!(committed.len(), 1);
    assert!(committed[0].contains(&first.to_string()));
    assert!(!committed[0].contains(&taken_back.to_string()));
    let transaction = conn.transaction().unwrap();
    store.enqueue_in(&transaction, &shipped()).unwrap();
    transaction.rollback().unwrap();
    assert_eq!(ids().await, committed);
    conn.execute("UPDATE orders SET state = 'paid' WHERE id = 1", [])
        .unwrap();
}

#[tokio::test]
async fn a_store_with_a_file_of_its_own_has_no_outbox() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("push.db");
    let store = SqliteStore::open(&path).await.unwrap();
    assert!(!store.has_outbox());
    assert_eq!(store.outbox(9).await.unwrap(), []);
    let settling = [(1, opened(BroadcastId::random()))];
    let settled = store.settle_outbox(&settling, at(0));
    assert_eq!(settled.await.unwrap(), [OutboxSettled::Taken]);
    assert_eq!(store.outbox_stats().await.unwrap(), OutboxStats::default());
    let mut conn = Connection::open(&path).unwrap();
    let error = store.enqueue_in(&conn.transaction().unwrap(), &shipped());
    assert_eq!(error.unwrap_err().kind(), StoreErrorKind::Misconfigured);
    store
        .erase(&Principal::from("alice"), &[], at(0))
        .await
        .unwrap();
}

/// A worker that read an entry before the user was erased does not send it.
#[tokio::test]
async fn an_erased_entry_is_not_opened() {
    let file = ApplicationFile::new();
    let store = file.store().await;
    let mut conn = file.connect();
    let transaction = conn.transaction().unwrap();
    store.enqueue_in(&transaction, &shipped()).unwrap();
    transaction.commit().unwrap();
    let entries = store.outbox(9).await.unwrap();
    let [entry] = &entries[..] else {
        panic!("one entry")
    };
    store
        .erase(&Principal::from("alice"), &[], at(0))
        .await
        .unwrap();
    let settling = [(entry.seq, opened(entry.id))];
    let settled = store.settle_outbox(&settling, at(0));
    assert_eq!(settled.await.unwrap(), [OutboxSettled::Taken]);
    assert!(store.status(entry.id, at(0)).await.unwrap().is_none());
}

/// Entries to others stand in front, more than one step looks at.
#[tokio::test]
async fn entries_behind_many_others_are_erased() {
    for (table, columns, values) in [
        ("outbox", "", ""),
        (
            "outbox_refused",
            ", opts, code, detail, refused_at",
            ", '{}', 'invalid_audience', 'x.', 0",
        ),
    ] {
        let file = ApplicationFile::new();
        let store = file.store().await;
        let insert = |user: &str, number: usize| {
            let sql = format!(
                "WITH RECURSIVE many(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many LIMIT {number})
                 INSERT INTO {PREFIX}{table} (id, audience, message{columns})
                 SELECT randomblob(16), '{{\"user\":\"{user}\"}}', '{{}}'{values} FROM many"
            );
            file.connect().execute_batch(&sql).unwrap();
        };
        insert("bob", STEP + 1);
        insert("alice", 1);
        let erased = store.erase(&Principal::from("alice"), &[], at(0)).await;
        assert_eq!(erased.unwrap().broadcasts, 1, "{table}");
        let stats = store.outbox_stats().await.unwrap();
        assert_eq!(stats.waiting + stats.refused, STEP as u64 + 1, "{table}");
    }
}

/// Of another process on the same file too.
#[tokio::test]
async fn a_commit_is_followed_by_a_hint() {
    let file = ApplicationFile::new();
    let (store, other) = (file.store().await, file.store().await);
    let mut changes = store.changes();
    let mut conn = file.connect();
    let transaction = conn.transaction().unwrap();
    store.enqueue_in(&transaction, &shipped()).unwrap();
    transaction.commit().unwrap();
    changes.next().await;
    conn.execute("DELETE FROM web_push_outbox", []).unwrap();
    let new = NewBroadcast::new(Audience::All, Message::new("x"), at(9999));
    other.open(&new, at(0)).await.unwrap();
    changes.next().await;
    // A listener does not keep the file open.
    store.close().await.unwrap();
    other.close().await.unwrap();
    drop(conn);
    assert!(!file.path.with_extension("db-wal").exists());
}

#[tokio::test]
async fn a_store_with_a_file_of_its_own_hears_of_other_processes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("push.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let other = SqliteStore::open(&path).await.unwrap();
    let mut changes = store.changes();
    let new = NewBroadcast::new(Audience::All, Message::new("x"), at(9999));
    other.open(&new, at(0)).await.unwrap();
    changes.next().await;
}

const PATH: &str = "TOWER_WEB_PUSH_OUTBOX_TEST_PATH";
const ROLE: &str = "TOWER_WEB_PUSH_OUTBOX_TEST_ROLE";
/// Entries of each application that is killed.
const ENOUGH: u32 = 40;

/// Opens a broadcast for each entry, with its number as the message, until it is killed. An entry that was read and not
/// removed would get a second one: their ids are new ones.
async fn work_until_killed(path: &Path) {
    let store = SqliteStore::open_in(path, PREFIX).await.unwrap();
    loop {
        if drain_once(&store).await == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        println!("\n@ round");
    }
}

async fn drain_once(store: &SqliteStore) -> usize {
    let entries = store.outbox(7).await.unwrap();
    let open = |seq: i64| {
        let message = Message::new(seq.to_string());
        let new = NewBroadcast::new(Audience::All, message, at(9999));
        (seq, OutboxSettlement::Open(Box::new(new)))
    };
    let all: Vec<_> = entries.iter().map(|entry| open(entry.seq)).collect();
    store.settle_outbox(&all, at(0)).await.unwrap();
    all.len()
}

/// Changes an order and says so in one transaction, until it is killed. Each second one is rolled back.
fn sell_until_killed(path: &Path) {
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(Duration::from_secs(10)).unwrap();
    for number in 0.. {
        let end = ["COMMIT", "ROLLBACK"][number % 2];
        let sale = format!(
            "BEGIN IMMEDIATE; INSERT INTO web_push_sale DEFAULT VALUES;
             INSERT INTO web_push_outbox (audience, message) VALUES ('\"all\"', '{{\"title\":\"sold\"}}'); {end}"
        );
        conn.execute_batch(&sale).unwrap();
        println!("\n@ round");
    }
}

fn start(role: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "sqlite_outbox::what_was_committed_is_opened_once_whoever_is_killed",
            "--nocapture",
        ])
        .env(PATH, path)
        .env(ROLE, role)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills a process after this number of rounds.
fn kill_after(rounds: u32, mut child: Child) {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let rounds_seen = lines.map_while(Result::ok).filter(|line| line == "@ round");
    let rounds = usize::try_from(rounds).unwrap();
    assert_eq!(rounds_seen.take(rounds).count(), rounds);
    // SIGKILL: no clean-up.
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn what_was_committed_is_opened_once_whoever_is_killed() {
    if let Some(path) = std::env::var_os(PATH) {
        return match std::env::var(ROLE).as_deref() {
            Ok("worker") => work_until_killed(Path::new(&path)).await,
            _ => sell_until_killed(Path::new(&path)),
        };
    }
    let file = ApplicationFile::new();
    file.store().await.close().await.unwrap();
    let conn = file.connect();
    // With the prefix, so that it does not count as a change of the application's tables.
    conn.execute_batch("CREATE TABLE web_push_sale (id INTEGER PRIMARY KEY)")
        .unwrap();
    for round in 0..4 {
        let worker = start("worker", &file.path);
        let application = start("application", &file.path);
        kill_after(ENOUGH, application);
        kill_after(5 + 3 * round, worker);
    }
    let store = file.store().await;
    while drain_once(&store).await > 0 {}
    assert_eq!(store.outbox_stats().await.unwrap(), OutboxStats::default());
    let count = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap();
    let sold = count("SELECT count(*) FROM web_push_sale");
    assert!(sold >= 4 * ENOUGH / 2);
    assert_eq!(count("SELECT count(*) FROM web_push_broadcast"), sold);
    let messages = "SELECT count(DISTINCT payload) FROM web_push_content";
    assert_eq!(count(messages), sold);
}
