//! The outbox: what an `enqueue` adds to the application's own transactions, and the time from their COMMIT to the request.
//!
//! `cargo bench --bench outbox --all-features`, some minutes. It starts a PostgreSQL of its own if it is installed, as packaged, with
//! its data in a temporary folder; SQLite is a file of the application with the tables of the store in it. The push
//! service is a client in the process that answers at once, so no time contains a network.
//!
//! Two measurements for each database:
//! - transactions per second of eight connections (SQLite: one, as it has one writer), each of which changes one row of a table: alone, with
//!   an enqueue, and with an enqueue while a worker sends;
//! - from the return of COMMIT to the request, one message at a time: messages in a row, and messages after three seconds of
//!   silence; on PostgreSQL without and with `announce`.
//!
//! `-- sqlite` or `-- postgres` measures only this one.
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no number")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]

#[path = "../tests/support/servers.rs"]
mod servers;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet, block_in_place};
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};
use tower::service_fn;
use tower_web_push::broadcast::{Audience, Broadcast, OutboxDialect};
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::p256::UaSecretKey;
use tower_web_push::push_request::PushBody;
use tower_web_push::store::{
    DeliveryLedger, NewSubscription, PostgresStore, ScheduleStore, SqliteStore, SubscriptionLimits,
    SubscriptionStore, VapidKeyStore,
};
use tower_web_push::subscription::{AuthSecret, Endpoint, Subscription};
use tower_web_push::vapid::KeyId;
use tower_web_push::{Notification, WebPush};

use servers::{Kind, Server};

/// Rows of the application's table. Two transactions rarely change the same one.
const ORDERS: i64 = 100_000;
const CONNECTIONS: usize = 8;
/// Each window of the first measurement, and the number of windows of each kind.
const WINDOW: Duration = Duration::from_secs(10);
const WINDOWS: usize = 3;
/// Messages of the second measurement: in a row, and after silence.
const IN_A_ROW: (usize, Duration) = (200, Duration::from_millis(20));
const AFTER_SILENCE: (usize, Duration) = (20, Duration::from_secs(3));

const CREATE: &str = "CREATE TABLE orders (id bigint PRIMARY KEY, state bigint NOT NULL)";
const UPDATE: &str = "UPDATE orders SET state = state + 1 WHERE id = $1";

fn main() {
    // `cargo test --benches` only checks that it builds.
    let words: Vec<_> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == "--bench") {
        return;
    }
    let asked = |name: &str| words.iter().any(|word| word == name);
    let all = !asked("sqlite") && !asked("postgres");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        if all || asked("sqlite") {
            sqlite().await;
        }
        if all || asked("postgres") {
            postgres().await;
        }
    });
    println!("repeat it: cargo bench --bench outbox --all-features");
}

async fn postgres() {
    let Some(server) = Server::start(Kind::Postgres, &[]).await else {
        return;
    };
    let store = PostgresStore::connect(&server.url()).await.unwrap();
    let rows = format!("INSERT INTO orders SELECT id, 0 FROM generate_series(1, {ORDERS}) AS id");
    let setup = connect(&server).await;
    setup
        .batch_execute(&format!("{CREATE}; {rows}"))
        .await
        .unwrap();
    let mut applications = Vec::new();
    for _ in 0..CONNECTIONS {
        applications.push(Application::Postgres(connect(&server).await));
    }
    let worker = Worker::new(store.clone()).await;
    rates("postgres", &mut applications, &worker).await;
    let announce = async || store.announce().await;
    latencies("postgres", &mut applications[0], worker, async || ()).await;
    let worker = Worker::new(store.clone()).await;
    latencies("announced", &mut applications[0], worker, announce).await;
}

async fn sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.db");
    let connection = Connection::open(&file).unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    let rows = format!(
        "INSERT INTO orders WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n LIMIT {ORDERS}) \
         SELECT id, 0 FROM n"
    );
    connection
        .execute_batch(&format!("PRAGMA journal_mode = wal; {CREATE}; {rows}"))
        .unwrap();
    let store = SqliteStore::open_in(&file, "web_push_").await.unwrap();
    let mut applications = vec![Application::Sqlite(connection)];
    let worker = Worker::new(store.clone()).await;
    rates("sqlite", &mut applications, &worker).await;
    latencies("sqlite", &mut applications[0], worker, async || ()).await;
    store.close().await.unwrap();
}

async fn connect(server: &Server) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A connection of the application.
enum Application {
    Postgres(Client),
    Sqlite(Connection),
}

impl Application {
    /// One transaction: it changes a row, and may enqueue.
    async fn transaction(&mut self, enqueue: Option<Broadcast>) {
        static NEXT: AtomicI64 = AtomicI64::new(0);
        // A prime, so that neighbours are far apart.
        let order = NEXT.fetch_add(1, Ordering::Relaxed) * 7919 % ORDERS + 1;
        match self {
            Self::Postgres(client) => {
                let transaction = client.transaction().await.unwrap();
                transaction.execute(UPDATE, &[&order]).await.unwrap();
                if let Some(broadcast) = enqueue {
                    let enqueue = broadcast.outbox_statement(OutboxDialect::POSTGRES);
                    let [audience, message, opts] = &enqueue.parameters;
                    let done = transaction
                        .execute(&enqueue.sql, &[audience, message, opts])
                        .await;
                    done.unwrap();
                }
                transaction.commit().await.unwrap();
            }
            Self::Sqlite(connection) => block_in_place(|| {
                let behavior = TransactionBehavior::Immediate;
                let transaction = connection.transaction_with_behavior(behavior).unwrap();
                let mut update = transaction.prepare_cached(UPDATE).unwrap();
                update.execute([order]).unwrap();
                drop(update);
                if let Some(broadcast) = enqueue {
                    let enqueue = broadcast.outbox_statement(OutboxDialect::SQLITE);
                    let mut statement = transaction.prepare_cached(&enqueue.sql).unwrap();
                    statement.execute(enqueue.parameters).unwrap();
                }
                transaction.commit().unwrap();
            }),
        }
    }
}

/// What sends, and the requests that it makes.
struct Worker {
    push: WebPush,
    ledger: Arc<dyn DeliveryLedger>,
    arrived: mpsc::UnboundedReceiver<Instant>,
}

/// The user whose messages are timed.
const USER: &str = "alice";

impl Worker {
    async fn new<S>(store: S) -> Self
    where
        S: SubscriptionStore + VapidKeyStore + ScheduleStore + Clone,
    {
        let (arrivals, arrived) = mpsc::unbounded_channel();
        let service = service_fn(move |_: Request<PushBody>| {
            let _ = arrivals.send(Instant::now());
            let mut answer = Response::new(Empty::<Bytes>::new());
            *answer.status_mut() = StatusCode::CREATED;
            async { Ok::<_, Infallible>(answer) }
        });
        let push = WebPush::builder("mailto:ops@example.com")
            .store(store.clone())
            .client(service)
            .build()
            .await
            .unwrap();
        let endpoint = Endpoint::parse("https://fcm.googleapis.com/fcm/send/alice").unwrap();
        let secret = UaSecretKey::random().unwrap();
        let auth = AuthSecret::from_bytes(b"sixteen octets..").unwrap();
        let subscription = Subscription::new(endpoint, *secret.public(), auth);
        let mut new = NewSubscription::new(subscription, KeyId::of(&push.vapid_public_key()));
        new.principal = Some(USER.into());
        let now = SystemClock::new().now();
        let limits = SubscriptionLimits::default();
        store.upsert(&new, &limits, now).await.unwrap();
        let ledger = Arc::new(store);
        Self {
            push,
            ledger,
            arrived,
        }
    }

    fn run(&self) -> (oneshot::Sender<()>, JoinHandle<()>) {
        let (stop, stopped) = oneshot::channel::<()>();
        let running = self.push.run(async { stopped.await.unwrap_or_default() });
        let running = tokio::spawn(async { running.await.unwrap() });
        (stop, running)
    }
}

fn to(user: &str) -> Broadcast {
    let shipped = Notification::new("Shipped").body("Your order is on its way");
    Broadcast::to(Audience::user(user), shipped)
}

/// Transactions per second, in windows that take turns.
async fn rates(name: &str, applications: &mut Vec<Application>, worker: &Worker) {
    let mut totals = [0; 3];
    for _ in 0..WINDOWS {
        totals[0] += window(applications, false).await;
        totals[1] += window(applications, true).await;
        let (stop, running) = worker.run();
        totals[2] += window(applications, true).await;
        drop(stop);
        running.await.unwrap();
    }
    let seconds = (WINDOW * WINDOWS as u32).as_secs_f64();
    let [alone, enqueuing, drained] = totals.map(|total| f64::from(total) / seconds);
    println!(
        "{name:9} {alone:7.0} transactions/s alone, {enqueuing:7.0} with an enqueue, {drained:7.0} while a worker sends"
    );
}

/// The number of transactions in one window.
async fn window(applications: &mut Vec<Application>, enqueues: bool) -> u32 {
    let ends = Instant::now() + WINDOW;
    let mut tasks = JoinSet::new();
    for mut application in applications.drain(..) {
        tasks.spawn(async move {
            let mut number = 0;
            while Instant::now() < ends {
                // Nobody with this name has subscribed, so that what is counted is the outbox.
                let broadcast = enqueues.then(|| to("nobody"));
                application.transaction(broadcast).await;
                number += 1;
            }
            (application, number)
        });
    }
    let mut total = 0;
    for (application, number) in tasks.join_all().await {
        applications.push(application);
        total += number;
    }
    total
}

/// From the return of COMMIT to the request.
async fn latencies(
    name: &str,
    application: &mut Application,
    mut worker: Worker,
    committed: impl AsyncFn(),
) {
    let (stop, running) = worker.run();
    // What the first measurement has left.
    while worker.ledger.outbox_stats().await.unwrap().waiting > 0 {
        sleep(Duration::from_millis(100)).await;
    }
    for (what, (messages, pause)) in [("in a row", IN_A_ROW), ("after silence", AFTER_SILENCE)] {
        let mut times = Vec::new();
        for _ in 0..messages {
            sleep(pause).await;
            application.transaction(Some(to(USER))).await;
            let at = Instant::now();
            committed().await;
            let arrived = worker.arrived.recv().await.unwrap();
            times.push(arrived.saturating_duration_since(at));
        }
        times.sort();
        let percentile = |share: f64| {
            let index = (times.len() as f64 * share).ceil() as usize;
            times[index.clamp(1, times.len()) - 1].as_secs_f64() * 1e3
        };
        println!(
            "{name:9} COMMIT to request, {what}: p50 {:7.2} ms, p99 {:7.2} ms, longest {:7.2} ms of {messages}",
            percentile(0.50),
            percentile(0.99),
            percentile(1.0)
        );
    }
    drop(stop);
    running.await.unwrap();
}
