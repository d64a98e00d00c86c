//! An application and a store in one SQLite file: how long the application's own writes wait beside a worker, how soon a
//! worker is told of an entry in the outbox, and what an idle store costs.
//!
//! `cargo bench --bench shared_file --all-features`, half a minute. The application commits one row after the other with a
//! pause of a millisecond, in a thread of its own with a busy timeout of ten seconds and `synchronous = NORMAL`. The worker's
//! calls are those of `stores`, one after the other and as fast as they go: no push service is that quick.
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no number")]

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use rusqlite::Connection;
use tokio::sync::watch;
use tower_web_push::Broadcast;
use tower_web_push::broadcast::{Audience, FinalOutcome, OutboxDialect};
use tower_web_push::clock::{Clock as _, SystemClock, Timestamp};
use tower_web_push::message::Message;
use tower_web_push::store::{
    ClaimRequest, Cursor, DeliveryLedger, NewBroadcast, NewDelivery, Settlement, SqliteStore,
};
use tower_web_push::subscription::{EndpointKey, Origin};

const PREFIX: &str = "web_push_";
/// Writes of the application per measurement.
const WRITES: usize = 2_000;
const PAUSE: Duration = Duration::from_millis(1);
/// As in the worker: rows claimed at once, outcomes settled together, recipients written together.
const CLAIMED: usize = 1024;
const SETTLED: usize = 256;
const PAGE: usize = 500;
const LEASE: Duration = Duration::from_secs(45);
/// The time over which idle stores are measured.
const IDLE: Duration = Duration::from_secs(10);

fn main() {
    // `cargo test --benches` only checks that it builds.
    if !std::env::args().any(|word| word == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        println!(
            "| the application's write | p50 | p99 | longest | rows of the worker per second |"
        );
        println!("|---|---|---|---|---|");
        for rows in [None, Some(1), Some(100), Some(CLAIMED)] {
            measure(rows).await;
        }
        println!();
        hints().await;
        idle().await;
    });
}

fn now() -> Timestamp {
    SystemClock::new().now()
}

fn application(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(Duration::from_secs(10)).unwrap();
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
         CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, state TEXT)",
    )
    .unwrap();
    conn
}

/// The application's writes beside a worker that handles this number of rows at once.
async fn measure(rows: Option<usize>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let conn = application(&path);
    let store = SqliteStore::open_in(&path, PREFIX).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let worker = rows.map(|rows| tokio::spawn(work(store, rows, stopped)));
    let writing = tokio::task::spawn_blocking(move || {
        let write = || {
            std::thread::sleep(PAUSE);
            let begun = Instant::now();
            conn.execute_batch(
                "BEGIN IMMEDIATE; INSERT INTO orders (state) VALUES ('paid'); COMMIT",
            )
            .unwrap();
            begun.elapsed()
        };
        let mut waits: Vec<_> = (0..WRITES).map(|_| write()).collect();
        waits.sort();
        waits
    });
    let waits = writing.await.unwrap();
    stop.send_replace(true);
    let (name, rate) = match worker {
        None => ("alone".to_owned(), 0.0),
        Some(worker) => (
            format!("beside a worker with {} rows at once", rows.unwrap()),
            worker.await.unwrap(),
        ),
    };
    let of = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize];
    println!(
        "| {name} | {:.2?} | {:.2?} | {:.2?} | {rate:.0} |",
        of(0.5),
        of(0.99),
        of(1.0)
    );
}

/// Enqueues, claims and settles. Returns the rows per second.
async fn work(store: SqliteStore, rows: usize, stopped: watch::Receiver<bool>) -> f64 {
    let (mut done, begun) = (0, Instant::now());
    let deliveries: Vec<_> = (0..rows).map(delivery).collect();
    while !*stopped.borrow() {
        let deadline = now() + Duration::from_secs(3600);
        let new = NewBroadcast::new(Audience::All, Message::new("hello"), deadline);
        store.open(&new, now()).await.unwrap();
        let mut cursor = Cursor::Start;
        for page in deliveries.chunks(PAGE) {
            let last = page.last().unwrap().key;
            let next = match Some(last) == deliveries.last().map(|row| row.key) {
                true => Cursor::End,
                false => Cursor::After(last),
            };
            store
                .enqueue_page(new.id, &cursor, page, &next, now())
                .await
                .unwrap();
            cursor = next;
        }
        let request = ClaimRequest::new(CLAIMED, LEASE);
        let claims = store.claim(&request, now()).await.unwrap();
        let accepted = Settlement::Finished(FinalOutcome::Accepted);
        let ends: Vec<_> = claims
            .rows
            .iter()
            .map(|row| (row.token, accepted))
            .collect();
        for ends in ends.chunks(SETTLED) {
            store.settle(ends, now()).await.unwrap();
        }
        done += ends.len();
    }
    done as f64 / begun.elapsed().as_secs_f64()
}

/// A recipient. The keys are in order, as the pages of a broadcast are.
fn delivery(number: usize) -> NewDelivery {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&(number as u64).to_be_bytes());
    let origin = Origin::parse("https://fcm.googleapis.com").unwrap();
    NewDelivery::new(EndpointKey::from_bytes(key), origin)
}

/// The time from the return of COMMIT to the hint for the worker.
async fn hints() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let conn = application(&path);
    let store = SqliteStore::open_in(&path, PREFIX).await.unwrap();
    let mut changes = store.changes();
    let mut waits = Vec::new();
    for number in 0..200_u64 {
        tokio::time::sleep(Duration::from_micros(20_000 + number * 37)).await;
        let broadcast = Broadcast::to(Audience::All, Message::new("hello"));
        let statement = broadcast.outbox_statement(OutboxDialect::SQLITE);
        conn.execute(&statement.sql, statement.parameters.each_ref())
            .unwrap();
        let begun = Instant::now();
        changes.next().await;
        waits.push(begun.elapsed());
        conn.execute("DELETE FROM web_push_outbox", []).unwrap();
        // The hint of the deletion, if there is one, is not counted.
        tokio::time::sleep(Duration::from_millis(20)).await;
        while changes.next().now_or_never().is_some() {}
    }
    waits.sort();
    println!(
        "from COMMIT to the hint: p50 {:.2?}, p99 {:.2?}",
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100]
    );
}

/// The CPU time of an open store, with and without a worker that listens.
async fn idle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let _conn = application(&path);
    for listens in [false, true] {
        let store = SqliteStore::open_in(&path, PREFIX).await.unwrap();
        let changes = listens.then(|| store.changes());
        let before = cpu_time();
        tokio::time::sleep(IDLE).await;
        let used = cpu_time() - before;
        let share = 100.0 * used.as_secs_f64() / IDLE.as_secs_f64();
        println!("idle, a worker listens: {listens}: {share:.2} % of one core");
        drop(changes);
    }
}

/// Of this process, by the kernel's clock ticks of 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, numbers) = stat.rsplit_once(')').unwrap();
    let ticks = numbers.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}
