//! The rate of messages to a push service that works, alone and beside one that does not; and how long messages to a push
//! service wait behind a broadcast to the same one.
//!
//! `cargo bench --bench fairness --all-features`. Real sockets, TLS and HTTP/2: the push services run on a thread of
//! their own in this process, and answer at once; the sender runs on another, with the threads of its store. The other
//! push service has accepted a push for each of its 20,000 subscriptions. With a backlog of as many it then answers
//! nothing, or 429 with a `Retry-After` of an hour. A broadcast to the one that works is measured before that, at once after
//! it, while the sender finds out, and then again: the loss of throughput may be at most 5 %. As a control the same is
//! measured while nothing happens at the other one, which shows what the machine's own variation is. It also prints the CPU
//! time of the sender's threads per message (Linux).
//!
//! Within one push service, which then takes 50 ms to answer: while a broadcast to 20,000 is sent, others to 100 are
//! accepted one after the other, and single messages of urgency `high`, from acceptance to the last answer; and the loss of
//! the rate of all of them, against a broadcast alone.
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no number")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]

// Only a part of the tests' support is used.
#[allow(dead_code)]
#[path = "../tests/support/push_server.rs"]
mod push_server;

use std::collections::BTreeSet;
use std::fs;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use http_body_util::BodyExt as _;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tower_web_push::broadcast::{BroadcastId, BroadcastState, Tag};
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::message::Urgency;
use tower_web_push::p256::UaSecretKey;
use tower_web_push::store::{
    MemoryStore, NewSubscription, ScheduleStore, SqliteStore, SubscriptionLimits,
    SubscriptionStore, VapidKeyStore,
};
use tower_web_push::subscription::{AuthSecret, Endpoint, Subscription};
use tower_web_push::vapid::KeyId;
use tower_web_push::{Audience, Message, WebPush};

use push_server::{BOTH, PushServer, answer};

/// Messages to the push service that works, per measurement.
const MESSAGES: usize = 20_000;
/// Messages to the other push service.
const BACKLOG: usize = 20_000;
/// Messages of a small broadcast.
const SMALL: usize = 100;
/// Rounds of each measurement. Medians are printed.
const ROUNDS: usize = 5;

/// Longer only if the code is broken.
const LIMIT: Duration = Duration::from_secs(300);

/// The other push service.
#[derive(Clone, Copy, Debug)]
enum Beside {
    Nothing,
    BlackHole,
    Paused,
}

const ALL: [(Beside, &str); 3] = [
    (Beside::Nothing, "beside one that has nothing"),
    (Beside::BlackHole, "beside one that never answers"),
    (Beside::Paused, "beside one that is paused"),
];

#[derive(Clone, Copy, Debug)]
struct Measured {
    per_second: f64,
    /// CPU time of the sender's threads, per message.
    cpu: Duration,
}

fn main() {
    let push_services = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(PUSH_SERVICES)
        .enable_all()
        .build()
        .unwrap();
    let sender = Builder::new_current_thread().enable_all().build().unwrap();
    for store in ["memory", "sqlite"] {
        let mut measured = [const { Vec::new() }; ALL.len()];
        // In turns, so that other load on the machine affects all alike.
        for _ in 0..ROUNDS {
            for (list, (beside, _)) in measured.iter_mut().zip(ALL) {
                list.push(sender.block_on(measure(store, beside, &push_services)));
            }
        }
        report(store, &measured);
        let mut within = Vec::new();
        for _ in 0..ROUNDS {
            within.push(sender.block_on(measure_within(store, &push_services)));
        }
        report_within(store, &within);
    }
    println!("repeat it: cargo bench --bench fairness --all-features");
}

fn report(store: &str, measured: &[Vec<[Measured; 3]>; ALL.len()]) {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for (rounds, (_, what)) in measured.iter().zip(ALL) {
        for (index, when) in ["before", "at once", "then"].into_iter().enumerate() {
            let of = |value: fn(&[Measured; 3], usize) -> f64| {
                median(rounds.iter().map(|round| value(round, index)).collect())
            };
            let per_second = of(|round, index| round[index].per_second);
            let cpu = of(|round, index| round[index].cpu.as_secs_f64() * 1e6);
            let loss =
                of(|round, index| (1.0 - round[index].per_second / round[0].per_second) * 100.0);
            println!(
                "{store:6} {what:30} {when:7} {per_second:7.0} messages/s, loss {loss:5.1} %, {cpu:4.0} us CPU per message"
            );
        }
    }
}

async fn measure(store: &str, beside: Beside, push_services: &Runtime) -> [Measured; 3] {
    match store {
        "memory" => measure_with(Arc::new(MemoryStore::new()), beside, push_services).await,
        _ => {
            let folder = tempfile::tempdir().unwrap();
            let store = SqliteStore::open(folder.path().join("push.db"))
                .await
                .unwrap();
            let measured = measure_with(store.clone(), beside, push_services).await;
            store.close().await.unwrap();
            measured
        }
    }
}

async fn measure_with<S>(store: S, beside: Beside, push_services: &Runtime) -> [Measured; 3]
where
    S: SubscriptionStore + VapidKeyStore + ScheduleStore + Clone,
{
    let well = push_services
        .spawn(PushServer::start(BOTH, |request| {
            Box::pin(async {
                read(request).await;
                answer(201, &[], "")
            })
        }))
        .await
        .unwrap();
    let works = Arc::new(AtomicBool::new(true));
    let still_works = Arc::clone(&works);
    let sick = push_services
        .spawn(PushServer::start(BOTH, move |request| {
            let works = still_works.load(Ordering::Relaxed);
            Box::pin(async move {
                read(request).await;
                match beside {
                    _ if works => answer(201, &[], ""),
                    Beside::Paused => answer(429, &[("retry-after", "3600")], ""),
                    Beside::BlackHole | Beside::Nothing => pending().await,
                }
            })
        }))
        .await
        .unwrap();
    let push = WebPush::builder("mailto:ops@example.com")
        .store(store.clone())
        .endpoint_policy(EndpointPolicy::insecure_allow_local())
        .extra_root_ca_pem(format!("{}{}", well.ca_pem, sick.ca_pem))
        .build()
        .await
        .unwrap();
    subscribe(&push, &store, "well", &well, MESSAGES).await;
    subscribe(&push, &store, "sick", &sick, BACKLOG).await;

    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(push.run(async { stopped.await.unwrap_or_default() }));
    // Both have accepted something before, and all that is made once is there.
    for tag in ["sick", "well"] {
        let first = enqueue(&push, tag).await;
        until(&push, first, BroadcastState::Done).await;
    }
    let before = measure_one(&push).await;
    works.store(false, Ordering::Relaxed);
    if !matches!(beside, Beside::Nothing) {
        let backlog = enqueue(&push, "sick").await;
        until(&push, backlog, BroadcastState::Sending).await;
    }
    let measured = [before, measure_one(&push).await, measure_one(&push).await];
    // The messages to the black hole would be waited for.
    drop(stop);
    running.abort();
    let _ = running.await;
    measured
}

async fn measure_one(push: &WebPush) -> Measured {
    let (began, cpu) = (Instant::now(), sender_cpu());
    let broadcast = enqueue(push, "well").await;
    until(push, broadcast, BroadcastState::Done).await;
    let (took, cpu) = (began.elapsed(), sender_cpu().saturating_sub(cpu));
    Measured {
        per_second: MESSAGES as f64 / took.as_secs_f64(),
        cpu: cpu / MESSAGES as u32,
    }
}

/// What others waited behind a large broadcast to the same push service.
#[derive(Clone, Debug)]
struct Within {
    /// The large broadcast alone, and beside the others.
    alone: Duration,
    beside: Duration,
    /// The number of messages to others meanwhile.
    others: usize,
    small: Vec<Duration>,
    urgent: Vec<Duration>,
}

fn report_within(store: &str, rounds: &[Within]) {
    let mut small: Vec<_> = rounds.iter().flat_map(|one| one.small.clone()).collect();
    let mut urgent: Vec<_> = rounds.iter().flat_map(|one| one.urgent.clone()).collect();
    for (waits, what) in [
        (&mut small, "a broadcast to 100"),
        (&mut urgent, "one urgent message"),
    ] {
        waits.sort_unstable();
        let at = |share: usize| waits[(waits.len() - 1) * share / 100].as_secs_f64() * 1e3;
        println!(
            "{store:6} {what:18} behind 20,000 at the same origin: p50 {:.0} ms, p99 {:.0} ms ({})",
            at(50),
            at(99),
            waits.len()
        );
    }
    let mut losses: Vec<_> = rounds
        .iter()
        .map(|one| {
            // What the others took is no loss.
            let rate = (MESSAGES + one.others) as f64 / one.beside.as_secs_f64();
            (1.0 - rate * one.alone.as_secs_f64() / MESSAGES as f64) * 100.0
        })
        .collect();
    losses.sort_by(f64::total_cmp);
    println!(
        "{store:6} loss of the rate of that origin {:.1} %",
        losses[losses.len() / 2]
    );
}

async fn measure_within(store: &str, push_services: &Runtime) -> Within {
    match store {
        "memory" => within(Arc::new(MemoryStore::new()), push_services).await,
        _ => {
            let folder = tempfile::tempdir().unwrap();
            let store = SqliteStore::open(folder.path().join("push.db"))
                .await
                .unwrap();
            let measured = within(store.clone(), push_services).await;
            store.close().await.unwrap();
            measured
        }
    }
}

async fn within<S>(store: S, push_services: &Runtime) -> Within
where
    S: SubscriptionStore + VapidKeyStore + ScheduleStore + Clone,
{
    let service = push_services
        .spawn(PushServer::start(BOTH, |request| {
            Box::pin(async {
                read(request).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
                answer(201, &[], "")
            })
        }))
        .await
        .unwrap();
    let push = WebPush::builder("mailto:ops@example.com")
        .store(store.clone())
        .endpoint_policy(EndpointPolicy::insecure_allow_local())
        .extra_root_ca_pem(service.ca_pem.clone())
        .build()
        .await
        .unwrap();
    for (tag, number) in [("large", MESSAGES), ("small", SMALL), ("one", 1)] {
        subscribe(&push, &store, tag, &service, number).await;
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(push.run(async { stopped.await.unwrap_or_default() }));
    // Connections are opened, and the number of requests in flight is found, before anything is measured.
    let mut alone = Duration::ZERO;
    for _ in 0..4 {
        let began = Instant::now();
        let one = enqueue(&push, "large").await;
        until(&push, one, BroadcastState::Done).await;
        alone = began.elapsed();
    }

    let began = Instant::now();
    let large = enqueue(&push, "large").await;
    let (mut small, mut urgent) = (Vec::new(), Vec::new());
    let is_over = async || push.status(large).await.unwrap().unwrap().state == BroadcastState::Done;
    while !is_over().await {
        for (tag, number, urgency, waits) in [
            ("small", SMALL, Urgency::Normal, &mut small),
            ("one", 1, Urgency::High, &mut urgent),
        ] {
            let asked = Instant::now();
            let message = Message::new(vec![b'x'; 200]).with_urgency(urgency);
            let audience = Audience::Tag(Tag::parse(tag).unwrap());
            let queued = push.enqueue(audience, message).await.unwrap();
            until(&push, queued.broadcast, BroadcastState::Done).await;
            let status = push.status(queued.broadcast).await.unwrap().unwrap();
            assert_eq!(status.counts.accepted, number as u64, "{status:?}");
            waits.push(asked.elapsed());
        }
    }
    let beside = began.elapsed();
    drop(stop);
    let _ = running.await;
    let others = SMALL * small.len() + urgent.len();
    Within {
        alone,
        beside,
        others,
        small,
        urgent,
    }
}

/// Reads a body. An unread one resets its stream, and a server that resets too many ends the connection.
async fn read(request: http::Request<hyper::body::Incoming>) {
    let _ = request.into_body().collect().await;
}

async fn subscribe<S: SubscriptionStore>(
    push: &WebPush,
    store: &S,
    tag: &str,
    server: &PushServer,
    number: usize,
) {
    let secret = UaSecretKey::random().unwrap();
    let auth = AuthSecret::from_bytes(b"sixteen octets..").unwrap();
    let now = SystemClock::new().now();
    let limits = SubscriptionLimits::default();
    let tags = BTreeSet::from([Tag::parse(tag).unwrap()]);
    stream::iter(0..number)
        .for_each_concurrent(64, |number| {
            let endpoint = format!("https://localhost:{}/{tag}/{number}", server.port());
            let endpoint = Endpoint::parse(&endpoint).unwrap();
            // It is not decrypted, so the keys of one browser are enough.
            let subscription = Subscription::new(endpoint, *secret.public(), auth.clone());
            let mut new = NewSubscription::new(subscription, KeyId::of(&push.vapid_public_key()));
            new.tags = Some(tags.clone());
            async move {
                store.upsert(&new, &limits, now).await.unwrap();
            }
        })
        .await;
}

async fn enqueue(push: &WebPush, tag: &str) -> BroadcastId {
    let audience = Audience::Tag(Tag::parse(tag).unwrap());
    let message = Message::new(vec![b'x'; 200]);
    push.enqueue(audience, message).await.unwrap().broadcast
}

async fn until(push: &WebPush, broadcast: BroadcastId, state: BroadcastState) {
    let began = Instant::now();
    let mut look = tokio::time::interval(Duration::from_millis(5));
    loop {
        look.tick().await;
        let status = push.status(broadcast).await.unwrap().unwrap();
        if status.state == state {
            return;
        }
        assert!(began.elapsed() < LIMIT, "{status:?}");
    }
}

/// The name of the threads that are not the sender's.
const PUSH_SERVICES: &str = "push-services";

/// Returns the CPU time of the process so far, except for the push services; zero without `/proc`.
fn sender_cpu() -> Duration {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return Duration::ZERO;
    };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("stat")).ok())
        .filter(|stat| !stat.contains(PUSH_SERVICES))
        .map(|stat| cpu_of(&stat))
        .sum()
}

/// User and system time: the 14th and 15th field, of which the name, in parentheses, is the second.
fn cpu_of(stat: &str) -> Duration {
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
