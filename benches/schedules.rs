//! The cost of many daily notifications while few of them are due.
//!
//! `cargo bench --bench schedules --all-features`, about three minutes, most of which puts a million schedules into
//! an SQLite file. It prints, with 10,000 and with 1,000,000 schedules of which 1,000 are due, and with their ratio:
//!
//! - how long it takes to read when the next one is due, and to list those that are fired together;
//! - how long [`WebPush::tick`] takes until nothing is due;
//! - how long it takes from there until each message is accepted, by a client that accepts everything.
//!
//! The cost must not depend on the million: the target is a ratio of at most 1.25. Firing has missed it so far, with
//! 1.62: perhaps because it writes to as many pages of the file as hold schedules that are due. Among few schedules
//! several stand on one page; among many each may have a page of its own, however many more there are.
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no number")]

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use tower::service_fn;
use tower_web_push::WebPush;
use tower_web_push::clock::{Clock as _, SystemClock, Timestamp};
use tower_web_push::p256::UaSecretKey;
use tower_web_push::push_request::PushBody;
use tower_web_push::schedule::{DailyTime, NotifyType, Plan, Schedule, ScheduleName};
use tower_web_push::store::{
    NewSubscription, ScheduleStore as _, SqliteStore, SubscriptionLimits, SubscriptionStore as _,
    Upserted,
};
use tower_web_push::subscription::{AuthSecret, Endpoint, Subscription, SubscriptionId};
use tower_web_push::vapid::KeyId;

const FEW: usize = 10_000;
const MANY: usize = 1_000_000;
const DUE: usize = 1_000;
/// Measurements per median: of one poll, and of firing all that is due.
const LOOKS: usize = 101;
const ROUNDS: usize = 7;
/// As in the worker: schedules fired together.
const AT_ONCE: usize = 256;
const HOUR: Duration = Duration::from_secs(3600);

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
        let few = Node::new(&folder.path().join("few.db"), FEW).await;
        let many = Node::new(&folder.path().join("many.db"), MANY).await;
        // In turns, so that other load on the machine affects both alike.
        let mut costs = [const { Vec::new() }; 2];
        for _ in 0..ROUNDS {
            costs[0].push(few.round().await);
            costs[1].push(many.round().await);
        }
        let [few, many] = costs;
        print("the next moment", "us", 1e6, &few, &many, |cost| cost.next);
        print("256 that are due", "ms", 1e3, &few, &many, |cost| cost.list);
        print("firing 1000", "ms", 1e3, &few, &many, |cost| cost.fire);
        print("delivering 1000", "ms", 1e3, &few, &many, |cost| {
            cost.deliver
        });
    });
}

fn print(what: &str, unit: &str, per_second: f64, few: &[Cost], many: &[Cost], of: Of) {
    let [few, many] = [few, many].map(|costs| median(costs.iter().map(of).collect()));
    println!(
        "{what}: {:.2} {unit} of {FEW}, {:.2} {unit} of {MANY}; ratio {:.2}",
        few * per_second,
        many * per_second,
        many / few
    );
}

type Of = fn(&Cost) -> f64;

/// Seconds.
struct Cost {
    next: f64,
    list: f64,
    fire: f64,
    deliver: f64,
}

/// A process and its file.
struct Node {
    push: WebPush,
    store: Arc<SqliteStore>,
    /// The subscriptions whose schedules are due in each round.
    due: Vec<SubscriptionId>,
}

impl Node {
    async fn new(path: &Path, schedules: usize) -> Self {
        let store = Arc::new(SqliteStore::open(path).await.unwrap());
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
        let due = subscribe(&store, KeyId::of(&push.vapid_public_key())).await;
        let begun = Instant::now();
        // The others are due within a day, but not during the benchmark.
        let later = (DUE..schedules).map(|number| {
            let ahead = Duration::from_secs(number as u64 % (22 * 3600));
            schedule(id(number), now() + HOUR + ahead)
        });
        put(&store, later).await;
        let took = begun.elapsed().as_secs_f64();
        println!("{} schedules are put in {took:.1} s", schedules - DUE);
        Self { push, store, due }
    }

    async fn round(&self) -> Cost {
        // The time is unchanged, and so the moment would be.
        for id in &self.due {
            let name = ScheduleName::Subscriber(*id, NotifyType::DailyCheck);
            self.store.remove_schedule(&name).await.unwrap();
        }
        let at = now() - Duration::from_secs(60);
        put(&self.store, self.due.iter().map(|id| schedule(*id, at))).await;

        let (mut next, mut list) = (Vec::new(), Vec::new());
        for _ in 0..LOOKS {
            let begun = Instant::now();
            assert_eq!(self.store.next_fire_at().await.unwrap(), Some(at));
            next.push(begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            let due = self.store.due_schedules(AT_ONCE, now()).await.unwrap();
            list.push(begun.elapsed().as_secs_f64());
            assert_eq!(due.len(), AT_ONCE);
        }

        let (mut fired, mut attempted) = (0, 0);
        let begun = Instant::now();
        while self.store.next_fire_at().await.unwrap() <= Some(now()) {
            let tick = self.push.tick().await.unwrap();
            fired += tick.fired;
            attempted += tick.attempted;
        }
        let fire = begun.elapsed().as_secs_f64();
        assert_eq!(fired, DUE as u64);
        let begun = Instant::now();
        while attempted < DUE {
            attempted += self.push.tick().await.unwrap().attempted;
        }
        Cost {
            next: median(next),
            list: median(list),
            fire,
            deliver: begun.elapsed().as_secs_f64(),
        }
    }
}

fn now() -> Timestamp {
    SystemClock::new().now()
}

/// Stores the subscriptions that are reached.
async fn subscribe(store: &SqliteStore, vapid_key: KeyId) -> Vec<SubscriptionId> {
    let secret = UaSecretKey::random().unwrap();
    let auth = AuthSecret::from_bytes(b"sixteen octets..").unwrap();
    let mut ids = Vec::new();
    for number in 0..DUE {
        let url = format!("https://updates.push.services.mozilla.com/wpush/v2/{number}");
        let endpoint = Endpoint::parse(&url).unwrap();
        let subscription = Subscription::new(endpoint, *secret.public(), auth.clone());
        let new = NewSubscription::new(subscription, vapid_key);
        let limits = SubscriptionLimits::default();
        if let Upserted::Stored { record, .. } = store.upsert(&new, &limits, now()).await.unwrap() {
            ids.push(record.id);
        }
    }
    ids
}

/// Makes an id that is like a random one.
fn id(number: usize) -> SubscriptionId {
    let mut id = [0; 16];
    // Fibonacci hashing spreads them.
    let hash = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    id[..8].copy_from_slice(&hash.to_be_bytes());
    SubscriptionId::from_bytes(id)
}

fn schedule(subscription: SubscriptionId, next_fire_at: Timestamp) -> Schedule {
    let plan = Plan::Subscriber {
        subscription,
        notify_type: NotifyType::DailyCheck,
        message: None,
    };
    let minutes = u64::try_from(next_fire_at.as_secs()).unwrap() / 60 % 1440;
    let time = DailyTime::new((minutes / 60) as u8, (minutes % 60) as u8).unwrap();
    Schedule::new(plan, time, next_fire_at)
}

/// Puts schedules, many in one transaction.
async fn put(store: &SqliteStore, schedules: impl Iterator<Item = Schedule>) {
    stream::iter(schedules)
        .for_each_concurrent(256, async |schedule| {
            store.put_schedule(&schedule).await.unwrap();
        })
        .await;
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
