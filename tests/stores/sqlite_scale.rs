//! Large tables in SQLite: purging, cancelling, pruning and erasing take steps of bounded size and memory, between which
//! other writers have their turn.
//!
//! The long form, which takes some minutes:
//! `WEB_PUSH_TEST_ROWS=1000000 cargo test --all-features --test stores sqlite_scale -- --nocapture`

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tower_web_push::broadcast::{Audience, Principal};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::store::{
    Change, Cursor, DeliveryLedger as _, NewBroadcast, NewDelivery, STEP, SqliteStore,
    SubscriptionRecord, SubscriptionStore as _, Tally,
};
use tower_web_push::subscription::{EndpointKey, Origin, Subscription, SubscriptionId};
use tower_web_push::vapid::KeyId;

const FOLDER: &str = "TOWER_WEB_PUSH_SCALE_TEST_FOLDER";
const ROWS: &str = "WEB_PUSH_TEST_ROWS";
/// The limit of the process' memory, in KiB.
const MEMORY: u64 = 128 * 1024;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + secs)
}

fn rows() -> u64 {
    let rows = std::env::var(ROWS).ok();
    rows.map_or(50_000, |rows| rows.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_tables_are_changed_in_steps_within_128_mib() {
    // The test starts itself again in a second process with a limit of its memory.
    if let Some(folder) = std::env::var_os(FOLDER) {
        return work(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new("sh")
        .args(["-c", "ulimit -d \"$0\" && exec \"$@\""])
        .arg(MEMORY.to_string())
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "sqlite_scale::large_tables_are_changed_in_steps_within_128_mib",
        ])
        .arg("--nocapture")
        .env(FOLDER, folder.path())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

async fn work(folder: &Path) {
    let path = folder.join("push.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let origin = Origin::parse("https://push.example.net").unwrap();
    let sending = NewBroadcast::new(Audience::All, Message::new("x"), at(3600));
    store.open(&sending, at(0)).await.unwrap();
    let row = NewDelivery::new(EndpointKey::from_bytes([0xff; 32]), origin.clone());
    store
        .enqueue_page(sending.id, &Cursor::Start, &[row], &Cursor::End, at(0))
        .await
        .unwrap();
    let user = user();
    fill(&path, rows(), &user);

    let beside = Beside::start(&store, origin);
    let purge = [Change::Purge {
        before: at(0),
        expired_before: at(0),
    }];
    beside
        .measure("purge", async || store.apply(&purge, at(0)).await.unwrap())
        .await;
    let mut pending = rows() + 1;
    beside
        .measure("cancel", async || {
            let status = store.cancel(sending.id, at(0)).await.unwrap().unwrap();
            let ended = pending - status.counts.pending;
            pending = status.counts.pending;
            ended
        })
        .await;
    beside
        .measure("prune", async || {
            store.prune(at(0)).await.unwrap().broadcasts
        })
        .await;
    let started = Instant::now();
    let principal = user.principal.clone().unwrap();
    let erased = store.erase(&principal, &[user], at(0)).await.unwrap();
    println!(
        "erase: {} rows in {:?}",
        erased.deliveries,
        started.elapsed()
    );
    assert_eq!(erased.deliveries, rows() / 50);
    println!("longest wait of another writer: {:?}", beside.end().await);
    let peak = peak_memory();
    println!("peak memory: {peak} KiB");
    assert!(peak < MEMORY, "{peak} KiB");
}

fn user() -> SubscriptionRecord {
    let json = serde_json::json!({
        "endpoint": "https://push.example.net/user",
        "keys": {
            "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            "auth": "BTBZMqHH6r4Tts7J_aSIgg",
        },
    });
    let subscription = Subscription::from_value(&json).unwrap();
    let (id, key) = (SubscriptionId::random(), KeyId::from_bytes([1; KeyId::LEN]));
    let mut user = SubscriptionRecord::new(id, subscription, key, at(0));
    user.principal = Some(Principal::from("alice"));
    user
}

/// Writes retired subscriptions, rows of the one broadcast, finished broadcasts, and open ones to the user.
fn fill(path: &Path, rows: u64, user: &SubscriptionRecord) {
    let key = user.subscription.endpoint().key();
    let key: String = key
        .as_bytes()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    let now = at(0).as_millis();
    let many = |rows: u64| {
        format!(
            "WITH RECURSIVE many(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many LIMIT {rows})"
        )
    };
    let sql = format!(
        "BEGIN;
         {all} INSERT INTO subscription (key, id, endpoint, p256dh, auth, vapid_key, push_service, created_at,
             keys_changed_at, last_seen_at, failure_streak, retired_at, retire_reason)
         SELECT CAST(printf('%032d', n) AS BLOB), CAST(printf('%016d', n) AS BLOB),
             'https://updates.push.services.mozilla.com/wpush/v2/' || hex(randomblob(70)), zeroblob(65), zeroblob(16),
             zeroblob(16), 'mozilla', 1, 1, 1, 0, 1000 + n, 'gone' FROM many;
         {all} INSERT INTO delivery (broadcast, key, origin, band, turn, at)
         SELECT (SELECT max(seq) FROM broadcast), CAST(printf('%032d', n) AS BLOB), (SELECT min(id) FROM origin), 1, n, {now}
         FROM many;
         UPDATE broadcast SET written = written + {rows};
         {tenth} INSERT INTO broadcast (seq, id, created_at, due_at, deadline, band, expected, expanding, expand_at, ended_at)
         SELECT 1000 + n, CAST(printf('e%015d', n) AS BLOB), 1, 1, 1, 1, 0, 0, 1, 1 FROM many;
         {fiftieth} INSERT INTO broadcast (seq, id, created_at, due_at, deadline, band, expected, written, expanding, expand_at)
         SELECT 100000000 + n, CAST(printf('o%015d', n) AS BLOB), 1, 1, 9000000000000, 1, 2, 2, 0, 1 FROM many;
         {fiftieth} INSERT INTO content (broadcast, audience, ttl, urgency, padding, forget_when_over)
         SELECT 100000000 + n, '\"all\"', 60, 'normal', 'none', 0 FROM many;
         {fiftieth} INSERT INTO delivery (broadcast, key, origin, band, turn, at)
         SELECT 100000000 + n, x'{key}', (SELECT min(id) FROM origin), 1, 1, {now} FROM many;
         COMMIT",
        all = many(rows),
        tenth = many(rows / 10),
        fiftieth = many(rows / 50),
    );
    let started = Instant::now();
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(&sql).unwrap();
    // Otherwise the first step would write the log of all this into the file.
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    println!("\n{rows} rows written in {:?}", started.elapsed());
}

/// A writer beside the steps, which measures how long it waits.
struct Beside {
    is_over: Arc<AtomicBool>,
    longest: tokio::task::JoinHandle<Duration>,
}

impl Beside {
    fn start(store: &SqliteStore, origin: Origin) -> Self {
        let (store, is_over) = (store.clone(), Arc::new(AtomicBool::new(false)));
        let longest = tokio::spawn({
            let is_over = Arc::clone(&is_over);
            async move {
                let mut longest = Duration::ZERO;
                while !is_over.load(Ordering::Relaxed) {
                    let started = Instant::now();
                    let counts = [(origin.clone(), Tally::new(1, 0))];
                    store.tally(&counts, at(0)).await.unwrap();
                    longest = longest.max(started.elapsed());
                }
                longest
            }
        });
        Self { is_over, longest }
    }

    /// Repeats a step until it does nothing. Each changes at most [`STEP`] rows.
    async fn measure(&self, what: &str, mut step: impl AsyncFnMut() -> u64) {
        let started = Instant::now();
        let (mut steps, mut rows, mut longest) = (0_u32, 0, Duration::ZERO);
        loop {
            let step_started = Instant::now();
            let changed = step().await;
            longest = longest.max(step_started.elapsed());
            assert!(changed <= STEP as u64, "{what}: {changed}");
            if changed == 0 {
                break;
            }
            steps += 1;
            rows += changed;
        }
        let all = started.elapsed();
        println!(
            "{what}: {rows} rows in {steps} steps, {all:?}; the longest step took {longest:?}"
        );
        assert!(u64::from(steps) >= rows / STEP as u64 && rows > 0);
    }

    async fn end(self) -> Duration {
        self.is_over.store(true, Ordering::Relaxed);
        self.longest.await.unwrap()
    }
}

/// The largest resident set of this process so far, in KiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().trim_end_matches(" kB");
    peak.parse().unwrap()
}
