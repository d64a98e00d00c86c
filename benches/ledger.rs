//! The cost of a long queue: drain rate, time to accept a broadcast, memory.
//!
//! `cargo bench --bench ledger --all-features`, about a minute. It prints, for SQLite in a temporary folder and
//! for memory:
//!
//! - the drain rate, claiming and settling as a worker does, with 1,000 and with 100,000 pending rows, and their
//!   ratio. With SQLite the target is at least 0.80, since claiming does not read pending rows. Memory is about
//!   twenty times as fast, so that a long queue which does not fit into the processor's caches shows;
//! - how long it takes to accept a broadcast to 100,000 stored subscriptions (the target is less than a second),
//!   and to write out its rows;
//! - the peak memory of the process while 1,000 and while 100,000 are delivered by [`WebPush::run`] to a client that
//!   accepts everything. With SQLite it is the same, except for its caches;
//! - how many messages share a commit on a disk that takes 5 ms for one, at a backlog. The target is at least 200.
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no number")]

#[allow(dead_code, reason = "other parts of it are for tests")]
#[path = "../tests/support/tampered_store.rs"]
mod tampered_store;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use tower::service_fn;
use tower_web_push::WebPush;
use tower_web_push::broadcast::{Audience, BroadcastState, FinalOutcome, Tag};
use tower_web_push::clock::{Clock as _, SystemClock, Timestamp};
use tower_web_push::engine::Queued;
use tower_web_push::message::Message;
use tower_web_push::p256::UaSecretKey;
use tower_web_push::push_request::PushBody;
use tower_web_push::store::{
    ClaimRequest, Cursor, DeliveryLedger, MemoryStore, NewBroadcast, NewDelivery, NewSubscription,
    ScheduleStore, Settlement, SqliteStore, SubscriptionLimits, SubscriptionStore, VapidKeyStore,
};
use tower_web_push::subscription::{AuthSecret, Endpoint, EndpointKey, Origin, Subscription};
use tower_web_push::vapid::KeyId;

use tampered_store::TamperedStore;

/// Pending rows, or subscriptions.
const FEW: usize = 1_000;
const MANY: usize = 100_000;
/// Measurements per median.
const WINDOWS: usize = 31;
/// As in the worker: rows claimed at once, outcomes settled together, recipients written together.
const CLAIMED: usize = 1024;
const SETTLED: usize = 256;
const PAGE: usize = 500;
const LEASE: Duration = Duration::from_secs(45);

const HOSTS: [&str; 4] = [
    "fcm.googleapis.com",
    "updates.push.services.mozilla.com",
    "web.push.apple.com",
    "wns2-am3p.notify.windows.com",
];
/// The part of the endpoints before the token.
const RESOURCES: [&str; 4] = ["/fcm/send/", "/wpush/v2/", "/Q", "/w/?token="];

fn main() {
    // `cargo test --benches` only checks that it builds.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let file = async |name| {
            let store = SqliteStore::open(folder.path().join(name)).await;
            Arc::new(store.unwrap())
        };
        drain("sqlite", &*file("few.db").await, &*file("many.db").await).await;
        drain("memory", &MemoryStore::new(), &MemoryStore::new()).await;
        deliver("sqlite", file("whole.db").await).await;
        deliver("memory", Arc::new(MemoryStore::new())).await;
        deliver_on_slow_disk().await;
    });
}

fn now() -> Timestamp {
    SystemClock::new().now()
}

/// Claims and settles beside a short and a long backlog in turns, so that other load on the machine affects both
/// alike.
async fn drain(name: &str, few: &dyn DeliveryLedger, many: &dyn DeliveryLedger) {
    wait_for(many, MANY).await;
    let mut rates = [const { Vec::new() }; 2];
    for _ in 0..WINDOWS {
        wait_for(few, FEW).await;
        rates[0].push(window(few).await);
        rates[1].push(window(many).await);
    }
    let [few, many] = rates.map(median);
    println!("{name}: {few:.0} rows/s drain with {FEW} waiting, {many:.0} with {MANY}");
    println!("{name}: ratio {:.2}", many / few);
}

/// Opens a broadcast with this number of recipients.
async fn wait_for(ledger: &dyn DeliveryLedger, number: usize) {
    let deadline = now() + Duration::from_secs(3600);
    let broadcast = NewBroadcast::new(Audience::All, Message::new("hello"), deadline);
    ledger.open(&broadcast, now()).await.unwrap();
    let mut rows: Vec<_> = (0..number).map(delivery).collect();
    rows.sort_by_key(|row| row.key);
    let mut cursor = Cursor::Start;
    for page in rows.chunks(PAGE) {
        let next = Cursor::After(page.last().unwrap().key);
        let written = ledger.enqueue_page(broadcast.id, &cursor, page, &next, now());
        written.await.unwrap();
        cursor = next;
    }
    let end = ledger.enqueue_page(broadcast.id, &cursor, &[], &Cursor::End, now());
    end.await.unwrap();
}

/// A recipient whose key is like a hash.
fn delivery(number: usize) -> NewDelivery {
    let mut key = [0; 32];
    // Fibonacci hashing spreads them.
    let hash = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    key[..8].copy_from_slice(&hash.to_be_bytes());
    let host = HOSTS[number % HOSTS.len()];
    let origin = Origin::parse(&format!("https://{host}")).unwrap();
    NewDelivery::new(EndpointKey::from_bytes(key), origin)
}

/// Claims and settles once. Returns rows per second.
async fn window(ledger: &dyn DeliveryLedger) -> f64 {
    let begun = Instant::now();
    let request = ClaimRequest::new(CLAIMED, LEASE);
    let claims = ledger.claim(&request, now()).await.unwrap();
    let ends: Vec<_> = claims
        .rows
        .iter()
        .map(|row| (row.token, Settlement::Finished(FinalOutcome::Accepted)))
        .collect();
    for ends in ends.chunks(SETTLED) {
        ledger.settle(ends, now()).await.unwrap();
    }
    assert!(ends.len() >= FEW);
    ends.len() as f64 / begun.elapsed().as_secs_f64()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Delivers broadcasts to stored subscriptions, from the call that accepts them to the last acceptance.
async fn deliver<S>(name: &str, store: Arc<S>)
where
    S: SubscriptionStore + VapidKeyStore + ScheduleStore,
{
    let client = service_fn(async |_: Request<PushBody>| {
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::CREATED;
        Ok::<_, Infallible>(response)
    });
    let push = WebPush::builder("mailto:ops@example.com")
        .store(Arc::clone(&store))
        .client(client)
        .build()
        .await
        .unwrap();
    subscribe(&*store, KeyId::of(&push.vapid_public_key())).await;

    let mut accepting = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        let queued = push
            .enqueue(Audience::All, Message::new("hello"))
            .await
            .unwrap();
        accepting.push(begun.elapsed().as_secs_f64());
        assert_eq!(queued.recipients, MANY as u64);
        push.cancel(queued.broadcast).await.unwrap();
    }
    accepting.sort_by(f64::total_cmp);
    println!(
        "{name}: a broadcast to {MANY} is accepted in {:.1} ms (worst of {})",
        accepting.last().unwrap() * 1e3,
        accepting.len()
    );
    let some = push.enqueue(Audience::Tag(few()), Message::new("hello"));
    run(name, &push, &some.await.unwrap()).await;
    let all = push.enqueue(Audience::All, Message::new("hello"));
    let all = all.await.unwrap();
    expand(name, &*store).await;
    run(name, &push, &all).await;
}

fn few() -> Tag {
    Tag::parse("few").unwrap()
}

async fn subscribe<S: SubscriptionStore>(store: &S, vapid_key: KeyId) {
    let secret = UaSecretKey::random().unwrap();
    let auth = AuthSecret::from_bytes(b"sixteen octets..").unwrap();
    let new = |number: usize| {
        let host = HOSTS[number % HOSTS.len()];
        let resource = RESOURCES[number % HOSTS.len()];
        let endpoint = Endpoint::parse(&format!("https://{host}{resource}{number}")).unwrap();
        let subscription = Subscription::new(endpoint, *secret.public(), auth.clone());
        let mut new = NewSubscription::new(subscription, vapid_key);
        new.tags = (number < FEW).then(|| BTreeSet::from([few()]));
        new
    };
    stream::iter((0..MANY).map(new))
        .for_each_concurrent(64, async |new| {
            let limits = SubscriptionLimits::default();
            store.upsert(&new, &limits, now()).await.unwrap();
        })
        .await;
}

/// Expands a broadcast as the worker does, without deliveries in between.
async fn expand<S: SubscriptionStore + DeliveryLedger>(name: &str, store: &S) {
    let begun = Instant::now();
    while let Some(next) = store.expandable(1, now()).await.unwrap().pop() {
        let after = match &next.cursor {
            Cursor::After(key) => Some(key),
            _ => None,
        };
        let page = store
            .page(&next.audience.unwrap(), after, PAGE, now())
            .await
            .unwrap();
        let rows: Vec<_> = page
            .iter()
            .map(|record| record.subscription.endpoint())
            .map(|endpoint| NewDelivery::new(endpoint.key(), endpoint.origin().clone()))
            .collect();
        let cursor = match rows.last() {
            Some(last) if rows.len() == PAGE => Cursor::After(last.key),
            _ => Cursor::End,
        };
        let written = store.enqueue_page(next.id, &next.cursor, &rows, &cursor, now());
        written.await.unwrap();
    }
    let took = begun.elapsed().as_secs_f64();
    println!("{name}: its rows are written in {took:.2} s");
}

/// Delivers a broadcast.
async fn run(name: &str, push: &WebPush, queued: &Queued) {
    reset_peak();
    let before = memory("VmRSS:");
    let begun = Instant::now();
    let done = {
        let (push, id) = (push.clone(), queued.broadcast);
        async move {
            while push.status(id).await.unwrap().unwrap().state != BroadcastState::Done {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    push.run(done).await.unwrap();
    let took = begun.elapsed().as_secs_f64();
    let status = push.status(queued.broadcast).await.unwrap().unwrap();
    assert_eq!(status.counts.accepted, queued.recipients);
    println!(
        "{name}: {} are delivered in {took:.2} s; {before:.1} MiB before, {:.1} MiB at most",
        queued.recipients,
        memory("VmHWM:")
    );
}

/// Delivers to a client that takes 1 to 80 ms, from a store in memory whose changes wait for a disk as those of SQLite do.
async fn deliver_on_slow_disk() {
    let client = service_fn(async |request: Request<PushBody>| {
        let octet = request.uri().path().bytes().last().unwrap_or_default();
        let takes = 1 + u64::from(octet) * 37 % 80;
        tokio::time::sleep(Duration::from_millis(takes)).await;
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::CREATED;
        Ok::<_, Infallible>(response)
    });
    let store = Arc::new(TamperedStore::over(&MemoryStore::new()));
    let push = WebPush::builder("mailto:ops@example.com")
        .store(Arc::clone(&store))
        .client(client)
        .build()
        .await
        .unwrap();
    subscribe(&*store, KeyId::of(&push.vapid_public_key())).await;
    store.join_writes();
    store.set_commit(Duration::from_millis(5));
    for name in ["first of a day", "second of a day"] {
        let before = store.commits();
        let all = push.enqueue(Audience::All, Message::new("hello"));
        run(name, &push, &all.await.unwrap()).await;
        let commits = store.commits() - before;
        let share = MANY as f64 / commits as f64;
        println!("disk of 5 ms, {name}: {share:.0} messages per commit");
    }
}

/// Starts a new peak (proc(5)).
fn reset_peak() {
    // Without this file there is no peak to read either.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Returns the memory of this process in MiB, or NaN without `/proc`.
fn memory(field: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines().filter_map(|line| line.strip_prefix(field));
    let kib = lines.next().and_then(|line| line.split_whitespace().next());
    kib.map_or(f64::NAN, |kib| kib.parse::<f64>().unwrap() / 1024.0)
}
