//! Messages per second through each store: to one recipient each, and of one broadcast.
//!
//! `cargo bench --bench rates --all-features`, some minutes. It starts a PostgreSQL and a Redis of its own if they are
//! installed, as packaged, with their data in a temporary folder. The push service is a client in the process that answers
//! after 10 ms: what is measured is acceptance, expansion, encryption, signature and settlement, and no network. The database
//! shares the cores. Medians of five.
//!
//! - One recipient each: 4,000 messages, each enqueued to one of 1,000 users, 64 at a time, until the last has been sent. The
//!   targets are 4,000 a second on PostgreSQL and Redis, and 12,000 on SQLite.
//! - One broadcast: to 20,000, from acceptance to its end. The target is 15,000 a second on PostgreSQL and Redis.
//!
//! CPU time is that of the process, without the database's. For SQLite there is what was written, too, to the log and by
//! checkpoints, which other load does not change as much. `-- sqlite postgres` measures only these. `-- sqlite single rounds=5`
//! measures messages to one recipient each alone, five times: what a program such as `perf stat` or `strace -c` counts beside
//! `rounds=0` is theirs.
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no number")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]

#[path = "../tests/support/servers.rs"]
mod servers;

use std::convert::Infallible;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response};
use http_body_util::Empty;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};
use tower::service_fn;
use tower_web_push::WebPush;
use tower_web_push::broadcast::{Audience, BroadcastState};
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::message::Message;
use tower_web_push::p256::UaSecretKey;
use tower_web_push::push_request::PushBody;
use tower_web_push::store::{
    MemoryStore, NewSubscription, PostgresStore, RedisStore, ScheduleStore, SqliteStore,
    SubscriptionLimits, SubscriptionStore, VapidKeyStore,
};
use tower_web_push::subscription::{AuthSecret, Endpoint, Subscription};
use tower_web_push::vapid::KeyId;

use servers::{Kind, Server};

const USERS: usize = 1_000;
const SINGLE: usize = 4_000;
const BROADCAST: usize = 20_000;
/// Messages that are enqueued at a time.
const AT_ONCE: usize = 64;
/// How long the push service takes.
const ANSWER: Duration = Duration::from_millis(10);
/// Rounds of each measurement, if no other number is given. Medians are printed.
const ROUNDS: usize = 5;
/// Longer only if the code is broken.
const LIMIT: Duration = Duration::from_secs(120);

fn main() {
    // `cargo test --benches` only checks that it builds.
    let words: Vec<_> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == "--bench") {
        return;
    }
    let names = ["memory", "sqlite", "postgres", "redis"];
    let asked = |name: &str| words.iter().any(|word| word == name);
    let all = !names.iter().any(|name| asked(name));
    let rounds = words.iter().find_map(|word| word.strip_prefix("rounds="));
    let rounds = rounds.map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let plan = Plan {
        rounds,
        has_broadcasts: !asked("single"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for name in names.into_iter().filter(|name| all || asked(name)) {
            measure_store(name, plan).await;
        }
    });
    println!("repeat it: cargo bench --bench rates --all-features");
}

/// What is measured of each store.
#[derive(Clone, Copy)]
struct Plan {
    rounds: usize,
    has_broadcasts: bool,
}

async fn measure_store(name: &str, plan: Plan) {
    match name {
        "memory" => measure(name, plan, Arc::new(MemoryStore::new())).await,
        "sqlite" => {
            let folder = tempfile::tempdir().unwrap();
            let store = SqliteStore::open(folder.path().join("push.db"))
                .await
                .unwrap();
            measure(name, plan, store.clone()).await;
            store.close().await.unwrap();
        }
        "postgres" => {
            let Some(server) = Server::start(Kind::Postgres, &[]).await else {
                return;
            };
            let store = PostgresStore::connect(&server.url()).await.unwrap();
            measure(name, plan, store).await;
        }
        _ => {
            let Some(server) = Server::start(Kind::Redis, &[]).await else {
                return;
            };
            let store = RedisStore::connect(&server.url()).await.unwrap();
            measure(name, plan, store).await;
        }
    }
}

async fn measure<S>(name: &str, plan: Plan, store: S)
where
    S: SubscriptionStore + VapidKeyStore + ScheduleStore + Clone,
{
    let sent = Arc::new(Sent::default());
    let service = {
        let sent = Arc::clone(&sent);
        service_fn(move |_: Request<PushBody>| {
            sent.number.fetch_add(1, Ordering::Relaxed);
            sent.one_more.notify_one();
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
    subscribe(&push, &store).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(push.run(async { stopped.await.unwrap_or_default() }));
    // The push service is proven, and caches are full.
    broadcast(&push).await;
    let (mut single, mut large) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        single.push(timed(SINGLE, one_each(&push, &sent)).await);
        if plan.has_broadcasts {
            large.push(timed(BROADCAST, broadcast(&push)).await);
        }
    }
    report(name, "one recipient each", &single);
    report(name, "one broadcast", &large);
    drop(stop);
    let _ = running.await;
}

/// The requests so far.
#[derive(Default)]
struct Sent {
    number: AtomicUsize,
    one_more: Notify,
}

async fn one_each(push: &WebPush, sent: &Sent) {
    let all = sent.number.load(Ordering::Relaxed) + SINGLE;
    stream::iter(0..SINGLE)
        .for_each_concurrent(AT_ONCE, |number| async move {
            let audience = Audience::user(format!("user-{}", number % USERS).as_str());
            let message = Message::new(vec![b'x'; 200]);
            push.enqueue(audience, message).await.unwrap();
        })
        .await;
    let are_sent = async {
        while sent.number.load(Ordering::Relaxed) < all {
            sent.one_more.notified().await;
        }
    };
    timeout(LIMIT, are_sent).await.unwrap();
}

async fn broadcast(push: &WebPush) {
    let message = Message::new(vec![b'x'; 200]);
    let queued = push.enqueue(Audience::All, message).await.unwrap();
    let is_done = async {
        loop {
            let status = push.status(queued.broadcast).await.unwrap().unwrap();
            if status.state == BroadcastState::Done {
                return status.counts.accepted;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let accepted = timeout(LIMIT, is_done).await.unwrap();
    assert_eq!(accepted, BROADCAST as u64);
}

/// What one message took.
#[derive(Clone, Copy)]
struct Cost {
    per_second: f64,
    cpu_us: f64,
    written: f64,
}

async fn timed(messages: usize, work: impl Future<Output = ()>) -> Cost {
    let (began, cpu, before) = (Instant::now(), cpu_time(), written());
    work.await;
    let (took, cpu) = (began.elapsed(), cpu_time().saturating_sub(cpu));
    let messages = messages as f64;
    Cost {
        per_second: messages / took.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / messages,
        written: (written() - before) / messages,
    }
}

/// The users, each with one subscription, and others.
async fn subscribe<S: SubscriptionStore>(push: &WebPush, store: &S) {
    let secret = UaSecretKey::random().unwrap();
    let auth = AuthSecret::from_bytes(b"sixteen octets..").unwrap();
    let now = SystemClock::new().now();
    let limits = SubscriptionLimits::default();
    stream::iter(0..BROADCAST)
        .for_each_concurrent(64, |number| {
            let endpoint = format!("https://fcm.googleapis.com/fcm/send/{number}");
            let endpoint = Endpoint::parse(&endpoint).unwrap();
            // Nothing is decrypted, so the keys of one browser are enough.
            let subscription = Subscription::new(endpoint, *secret.public(), auth.clone());
            let mut new = NewSubscription::new(subscription, KeyId::of(&push.vapid_public_key()));
            new.principal = Some(format!("user-{number}").into());
            let limits = &limits;
            async move {
                store.upsert(&new, limits, now).await.unwrap();
            }
        })
        .await;
}

fn report(name: &str, what: &str, measured: &[Cost]) {
    if measured.is_empty() {
        return;
    }
    let median = |of: fn(&Cost) -> f64| {
        let mut values: Vec<_> = measured.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (per_second, cpu) = (median(|cost| cost.per_second), median(|cost| cost.cpu_us));
    print!("{name:8} {what:18} {per_second:7.0} messages/s, {cpu:4.0} us CPU per message");
    if name == "sqlite" {
        print!(", {:6.0} octets written", median(|cost| cost.written));
    }
    println!();
}

/// The octets that this process has written so far; zero without `/proc`.
fn written() -> f64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar:"));
    line.map_or(0.0, |octets| octets.trim().parse().unwrap())
}

/// The CPU time of this process so far; zero without `/proc`.
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
