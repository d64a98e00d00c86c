//! The time from the return of `enqueue` to the request, per store, and what an idle worker costs.
//!
//! `cargo bench --bench latency --all-features`, some minutes. It starts a PostgreSQL and a Redis of its own if they are
//! installed, as packaged, with their data in a temporary folder. The push service is a client in the process that
//! answers after 50 ms: the time ends when the client gets the request, encrypted and signed, so it contains no network.
//!
//! Three measurements for each store:
//! - idle: one message at a time to one subscriber, with nothing else to do; on PostgreSQL and Redis also enqueued by another
//!   instance with connections of its own, as on another machine;
//! - behind a backlog: one message a second with urgency `high`, and one with urgency `normal`, behind rows of the same
//!   origin (1,000,000 of them, or `--rows N`), and the rate of the backlog with and without them;
//! - the worker without work: wake-ups of the process's threads, CPU time, and statements that the database counts.
//!
//! `-- sqlite postgres` measures only these.
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no number")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]

#[path = "../tests/support/servers.rs"]
mod servers;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response};
use http_body_util::Empty;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tower::service_fn;
use tower_web_push::WebPush;
use tower_web_push::broadcast::{Audience, BroadcastId, BroadcastState, Tag};
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::push_request::PushBody;

use tower_web_push::message::{Message, Urgency};
use tower_web_push::p256::UaSecretKey;
use tower_web_push::store::{
    MemoryStore, NewSubscription, PostgresStore, RedisStore, ScheduleStore, SqliteStore,
    SubscriptionLimits, SubscriptionStore, VapidKeyStore,
};
use tower_web_push::subscription::{AuthSecret, Endpoint, Subscription};
use tower_web_push::vapid::KeyId;

use servers::{Kind, Server};

/// How long the push service takes.
const ANSWER: Duration = Duration::from_millis(50);
/// Messages of the idle measurement, and the pause between two of them.
const MESSAGES: usize = 200;
const BETWEEN: Duration = Duration::from_millis(100);
/// The backlog is made of this number of broadcasts.
const BROADCASTS: usize = 10;
/// Each window of the measurement behind a backlog, and the number of pairs of windows.
const WINDOW: Duration = Duration::from_secs(20);
const WINDOWS: usize = 2;
/// How long the worker is watched while it has nothing to do.
const IDLE: Duration = Duration::from_secs(20);

fn main() {
    // `cargo test --benches` only checks that it builds.
    let words: Vec<_> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == "--bench") {
        return;
    }
    let rows = words.iter().position(|word| word == "--rows");
    let rows = rows.and_then(|at| words.get(at + 1)?.parse().ok());
    let rows = rows.unwrap_or(1_000_000);
    let names = ["memory", "sqlite", "postgres", "redis"];
    let asked = |name: &str| words.iter().any(|word| word == name);
    let all = !names.iter().any(|name| asked(name));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for name in names.into_iter().filter(|name| all || asked(name)) {
            measure_store(name, rows).await;
        }
    });
    println!("repeat it: cargo bench --bench latency --all-features -- --rows {rows}");
}

async fn measure_store(name: &str, rows: usize) {
    match name {
        "memory" => {
            let store = Arc::new(MemoryStore::with_max_rows(2 * rows));
            measure(name, (store, None), rows, || async { 0 }).await;
        }
        "sqlite" => {
            let folder = tempfile::tempdir().unwrap();
            let store = SqliteStore::open(folder.path().join("push.db"))
                .await
                .unwrap();
            measure(name, (store.clone(), None), rows, || async { 0 }).await;
            store.close().await.unwrap();
        }
        "postgres" => {
            let Some(server) = Server::start(Kind::Postgres, &[]).await else {
                return;
            };
            let store = PostgresStore::connect(&server.url()).await.unwrap();
            let other = PostgresStore::connect(&server.url()).await.unwrap();
            let (client, connection) =
                tokio_postgres::connect(&server.url(), tokio_postgres::NoTls)
                    .await
                    .unwrap();
            tokio::spawn(connection);
            let client = Arc::new(client);
            let transactions = || {
                let client = Arc::clone(&client);
                async move {
                    let row = client
                        .query_one(
                            "SELECT sum(xact_commit + xact_rollback)::bigint FROM pg_stat_database",
                            &[],
                        )
                        .await
                        .unwrap();
                    row.get::<_, i64>(0).unsigned_abs()
                }
            };
            measure(name, (store, Some(other)), rows, transactions).await;
        }
        _ => {
            let Some(server) = Server::start(Kind::Redis, &[]).await else {
                return;
            };
            let store = RedisStore::connect(&server.url()).await.unwrap();
            let other = RedisStore::connect(&server.url()).await.unwrap();
            let client = redis::Client::open(server.url()).unwrap();
            let commands = || {
                let client = client.clone();
                async move {
                    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
                    let info: String = redis::cmd("INFO")
                        .arg("stats")
                        .query_async(&mut connection)
                        .await
                        .unwrap();
                    let number = info
                        .lines()
                        .find_map(|line| line.strip_prefix("total_commands_processed:"));
                    number.unwrap().trim().parse().unwrap()
                }
            };
            measure(name, (store, Some(other)), rows, commands).await;
        }
    }
}

/// The tag of the subscribers of the backlog, and the users whose messages are timed.
const BULK: &str = "bulk";
const TIMED: [(&str, Urgency); 2] = [("high", Urgency::High), ("normal", Urgency::Normal)];

async fn measure<S, F>(
    name: &str,
    (store, other): (S, Option<S>),
    rows: usize,
    statements: impl Fn() -> F,
) where
    S: SubscriptionStore + VapidKeyStore + ScheduleStore + Clone,
    F: Future<Output = u64>,
{
    // Requests of the backlog.
    let bulk = Arc::new(AtomicU64::new(0));
    let (arrivals, mut arrived) = mpsc::unbounded_channel();
    let service = {
        let bulk = Arc::clone(&bulk);
        service_fn(move |request: Request<PushBody>| {
            if request.uri().path().starts_with("/fcm/send/bulk-") {
                bulk.fetch_add(1, Ordering::Relaxed);
            } else {
                let _ = arrivals.send((request.uri().path().to_owned(), Instant::now()));
            }
            async {
                sleep(ANSWER).await;
                let mut answer = Response::new(Empty::<Bytes>::new());
                *answer.status_mut() = http::StatusCode::CREATED;
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let push = WebPush::builder("mailto:ops@example.com")
        .store(store.clone())
        .client(service)
        .build()
        .await
        .unwrap();
    for (user, _) in TIMED {
        subscribe(&push, &store, user, 1).await;
    }
    subscribe(&push, &store, BULK, rows / BROADCASTS).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(push.run(async { stopped.await.unwrap_or_default() }));

    // Its first messages prove the push service, and fill caches.
    for _ in 0..20 {
        timed(&push, TIMED[1], &mut arrived).await;
    }
    let mut idle = Vec::new();
    for _ in 0..MESSAGES {
        sleep(BETWEEN).await;
        idle.push(timed(&push, TIMED[1], &mut arrived).await);
    }
    report(name, "idle", &mut idle);
    if let Some(other) = other {
        // It only enqueues.
        let other = WebPush::builder("mailto:ops@example.com").store(other);
        let other = other.build().await.unwrap();
        let mut idle = Vec::new();
        for _ in 0..MESSAGES {
            sleep(BETWEEN).await;
            idle.push(timed(&other, TIMED[1], &mut arrived).await);
        }
        report(name, "idle, enqueued elsewhere", &mut idle);
    }

    sleep(Duration::from_secs(2)).await;
    let (before, switches, cpu) = (statements().await, wake_ups(), cpu_time());
    sleep(IDLE).await;
    let (after, switches, cpu) = (statements().await, wake_ups() - switches, cpu_time() - cpu);
    let seconds = IDLE.as_secs_f64();
    println!(
        "{name:8} without work: {:6.1} wake-ups/s, {:5.2} ms CPU/s, {:5.1} statements/s",
        switches as f64 / seconds,
        cpu.as_secs_f64() * 1e3 / seconds,
        (after - before) as f64 / seconds
    );

    let mut last = None;
    for _ in 0..BROADCASTS {
        last = Some(enqueue(&push, BULK, Urgency::Normal).await);
    }
    until_expanded(&push, last.unwrap(), (rows / BROADCASTS) as u64).await;
    let (mut high, mut normal) = (Vec::new(), Vec::new());
    let (mut alone, mut beside) = (0, 0);
    for _ in 0..WINDOWS {
        let before = bulk.load(Ordering::Relaxed);
        sleep(WINDOW).await;
        alone += bulk.load(Ordering::Relaxed) - before;
        let (before, ends) = (bulk.load(Ordering::Relaxed), Instant::now() + WINDOW);
        while Instant::now() < ends {
            let next = Instant::now() + Duration::from_secs(1);
            high.push(timed(&push, TIMED[0], &mut arrived).await);
            normal.push(timed(&push, TIMED[1], &mut arrived).await);
            sleep(next.saturating_duration_since(Instant::now())).await;
        }
        beside += bulk.load(Ordering::Relaxed) - before;
    }
    report(name, "high, behind a backlog", &mut high);
    report(name, "normal, behind a backlog", &mut normal);
    let seconds = (WINDOW * WINDOWS as u32).as_secs_f64();
    println!(
        "{name:8} the backlog of {rows}: {:7.0} messages/s alone, {:7.0} beside the two a second",
        alone as f64 / seconds,
        beside as f64 / seconds
    );
    drop(stop);
    running.abort();
    let _ = running.await;
}

/// Sends a message and returns the time from the return of `enqueue` to its request.
async fn timed(
    push: &WebPush,
    (user, urgency): (&str, Urgency),
    arrived: &mut mpsc::UnboundedReceiver<(String, Instant)>,
) -> Duration {
    enqueue(push, user, urgency).await;
    let accepted = Instant::now();
    loop {
        let (path, at) = arrived.recv().await.unwrap();
        if path == format!("/fcm/send/{user}-0") {
            return at.saturating_duration_since(accepted);
        }
    }
}

async fn enqueue(push: &WebPush, user: &str, urgency: Urgency) -> BroadcastId {
    let message = Message::new(vec![b'x'; 200]).with_urgency(urgency);
    let audience = match user {
        BULK => Audience::Tag(Tag::parse(BULK).unwrap()),
        user => Audience::user(user),
    };
    let queued = push.enqueue(audience, message).await;
    queued.unwrap().broadcast
}

async fn until_expanded(push: &WebPush, broadcast: BroadcastId, rows: u64) {
    loop {
        let status = push.status(broadcast).await.unwrap().unwrap();
        if status.state != BroadcastState::Expanding && status.recipients >= rows {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn subscribe<S: SubscriptionStore>(push: &WebPush, store: &S, user: &str, number: usize) {
    let secret = UaSecretKey::random().unwrap();
    let auth = AuthSecret::from_bytes(b"sixteen octets..").unwrap();
    let now = SystemClock::new().now();
    let limits = SubscriptionLimits::new(u64::MAX, u32::MAX);
    stream::iter(0..number)
        .for_each_concurrent(64, |number| {
            let endpoint = format!("https://fcm.googleapis.com/fcm/send/{user}-{number}");
            let endpoint = Endpoint::parse(&endpoint).unwrap();
            // Nothing is decrypted, so the keys of one browser are enough.
            let subscription = Subscription::new(endpoint, *secret.public(), auth.clone());
            let mut new = NewSubscription::new(subscription, KeyId::of(&push.vapid_public_key()));
            if user == BULK {
                // The rows of one user would be counted for each of them.
                new.principal = Some(format!("{user}-{number}").into());
                new.tags = Some(BTreeSet::from([Tag::parse(BULK).unwrap()]));
            } else {
                new.principal = Some(user.into());
            }
            let limits = &limits;
            async move {
                store.upsert(&new, limits, now).await.unwrap();
            }
        })
        .await;
}

fn report(name: &str, what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |share: f64| {
        let index = (times.len() as f64 * share).ceil() as usize;
        times[index.clamp(1, times.len()) - 1].as_secs_f64() * 1e3
    };
    println!(
        "{name:8} {what}: p50 {:6.2} ms, p99 {:6.2} ms, longest {:6.2} ms of {}",
        at(0.50),
        at(0.99),
        at(1.0),
        times.len()
    );
}

/// The number of times that threads of this process were put to sleep so far; zero without `/proc`.
fn wake_ups() -> u64 {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return 0;
    };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
        .filter_map(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            line.trim().parse::<u64>().ok()
        })
        .sum()
}

/// User and system time of the process: the 14th and 15th field, of which the name, in parentheses, is the second.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum();
    // A tick is 10 ms on every Linux.
    Duration::from_millis(ticks * 10)
}
