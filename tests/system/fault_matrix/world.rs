//! One application on one back end, the push service it sends to, and a clock that can be set.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower_service::Service as _;
use tower_web_push::broadcast::BroadcastId;
use tower_web_push::clock::{Clock, SystemClock, Timestamp};
use tower_web_push::deliver::{EndpointPolicy, RetryPolicy};
use tower_web_push::store::{
    MemoryStore, NewSubscription, PostgresStore, RedisStore, ScheduleStore, SqliteStore,
    SubscriptionLimits, SubscriptionStore, VapidKeyStore,
};
use tower_web_push::subscription::Endpoint;
use tower_web_push::testing::{Answer, Recording, TestPushService, When};
use tower_web_push::vapid::{KeyId, VapidKey};
use tower_web_push::{Audience, Message, WebPush};

use super::faults::Fault;
use super::table::Seen;
use crate::support::servers::{Kind, Server};

/// Subscriptions that have nothing to do with the fault.
pub(crate) const HEALTHY: usize = 38;
/// Subscriptions of the same push service that may have: one in twenty.
pub(crate) const SICK: usize = 2;
/// Generous: a database on a busy machine, and retries.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const POLL: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Memory,
    Sqlite,
    Postgres,
    Redis,
}

impl Backend {
    /// In the order of the table's columns.
    pub(crate) const ALL: &'static [Self] =
        &[Self::Memory, Self::Sqlite, Self::Postgres, Self::Redis];
}

/// The contracts that a server needs.
pub(crate) trait Stores: SubscriptionStore + VapidKeyStore + ScheduleStore {}
impl<T: SubscriptionStore + VapidKeyStore + ScheduleStore> Stores for T {}

/// The system's clock, set wrong by some milliseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct SettableClock(Arc<AtomicI64>);

impl SettableClock {
    /// Sets it this far from the right time; negative is behind.
    pub(crate) fn set_off_by(&self, millis: i64) {
        self.0.store(millis, Ordering::SeqCst);
    }
}

impl Clock for SettableClock {
    fn now(&self) -> Timestamp {
        let right = SystemClock::new().now().as_millis();
        Timestamp::from_millis(right + self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Option<Duration> {
        SystemClock::new().monotonic()
    }
}

pub(crate) struct World {
    pub(crate) push: WebPush,
    pub(crate) service: TestPushService,
    pub(crate) clock: SettableClock,
    pub(crate) store: Arc<dyn Stores>,
    pub(crate) backend: Backend,
    /// The server process of Postgres and Redis, this world's own.
    pub(crate) database: Option<Server>,
    pub(crate) healthy: Vec<Endpoint>,
    pub(crate) sick: Vec<Endpoint>,
    /// The key that the subscriptions were made with.
    pub(crate) key: VapidKey,
    /// Whether the sick subscriptions get other responses than the healthy ones.
    pub(crate) is_scripted: bool,
    /// What holds the write lock of the SQLite file.
    pub(crate) lock: Mutex<Option<rusqlite::Connection>>,
    folder: TempDir,
    pub(crate) running: Running,
    messages: u64,
}

/// A worker.
pub(crate) struct Running {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Running {
    /// Stops as a server does: what is in flight is finished, and the rest can be claimed at once. A worker that is
    /// dropped keeps its rows until their leases end.
    pub(crate) async fn stop(&mut self) {
        if self.task.is_finished() {
            return;
        }
        self.stop.send_replace(true);
        let stopped = timeout(LIMIT, &mut self.task).await;
        stopped.expect("it does not stop").unwrap();
    }
}

impl World {
    /// Everything works, and every subscription has accepted one message. `None` if the back end is not installed.
    pub(crate) async fn on(backend: Backend) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let database = match backend {
            Backend::Memory | Backend::Sqlite => None,
            Backend::Postgres => Some(Server::start(Kind::Postgres, &[]).await?),
            Backend::Redis => Some(Server::start(Kind::Redis, &[]).await?),
        };
        let url = database.as_ref().map(Server::url).unwrap_or_default();
        let path = folder.path().join("push.db");
        let store = open(backend, &path, &url).await;
        let service = TestPushService::builder()
            .recording(Recording::Counts)
            .build();
        let (clock, key) = (SettableClock::default(), VapidKey::generate().unwrap());
        let same = VapidKey::from_secret_bytes(&key.secret_bytes()[..]).unwrap();
        let push = start(&store, &service, &clock, Some(same)).await;
        let mut endpoints = Vec::new();
        for _ in 0..HEALTHY + SICK {
            let subscription = service.user_agent().subscribe(key.public_key()).unwrap();
            endpoints.push(subscription.endpoint().clone());
            let new = NewSubscription::new(subscription, KeyId::of(key.public_key()));
            // A row younger than a minute is asked again before it is retired.
            let now = clock.now() - Duration::from_secs(120);
            let limits = SubscriptionLimits::default();
            store.upsert(&new, &limits, now).await.unwrap();
        }
        let sick = endpoints.split_off(HEALTHY);
        let running = run(&push);
        let mut world = Self {
            push,
            service,
            clock,
            store,
            backend,
            database,
            healthy: endpoints,
            sick,
            key,
            is_scripted: false,
            lock: Mutex::default(),
            folder,
            running,
            messages: 0,
        };
        let first = world.notify().await;
        let over = world.push.wait_until_over(first, LIMIT).await.unwrap();
        let all = (HEALTHY + SICK) as u64;
        assert_eq!(over.unwrap().counts.accepted, all);
        Some(world)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("push.db")
    }

    pub(crate) fn path_aside(&self) -> PathBuf {
        self.folder.path().join("aside.db")
    }

    /// Causes the fault, sends during it, ends it and waits until every healthy subscription has every message.
    pub(crate) async fn suffer(&mut self, fault: &Fault) -> Seen {
        (fault.begin)(self).await;
        let mut from = Instant::now();
        let mut not_ready = Vec::new();
        if !fault.is_refusing {
            self.notify().await;
        }
        if !fault.not_ready.is_empty() {
            let red = async {
                while not_ready != fault.not_ready {
                    sleep(POLL).await;
                    not_ready = self.not_ready().await;
                }
            };
            // What it says instead is in the row.
            let _ = timeout(LIMIT, red).await;
        }
        if let Some(end) = fault.end {
            end(self).await;
            from = Instant::now();
        }
        if fault.is_refusing {
            self.notify().await;
        }
        self.everything_arrived().await;
        let took = from.elapsed();
        let scripted = self.service.counts().scripted;
        assert!(
            scripted > 0 || !self.is_scripted,
            "the fault did not happen"
        );
        if fault.not_ready.is_empty() {
            not_ready = self.not_ready().await;
        } else {
            // It gets well again.
            let green = async {
                while !self.not_ready().await.is_empty() {
                    sleep(POLL).await;
                }
            };
            if timeout(LIMIT, green).await.is_err() {
                not_ready.push("for ever".to_owned());
            }
        }
        let accepted: Vec<_> = self.healthy_accepted();
        Seen {
            messages: self.messages,
            delivered: accepted.iter().sum(),
            lost: accepted
                .iter()
                .map(|some| self.messages.saturating_sub(*some))
                .sum(),
            twice: accepted
                .iter()
                .map(|some| some.saturating_sub(self.messages))
                .sum(),
            not_ready,
            took,
        }
    }

    /// Accepts a message for every subscription, however long the store refuses. Returns its broadcast.
    pub(crate) async fn notify(&mut self) -> BroadcastId {
        let accept = async {
            loop {
                match self.push.enqueue(Audience::All, Message::new("x")).await {
                    Ok(queued) => break queued.broadcast,
                    Err(_refused) => sleep(POLL).await,
                }
            }
        };
        let id = timeout(LIMIT, accept)
            .await
            .expect("it is refused for ever");
        self.messages += 1;
        id
    }

    /// Starts again with the keys that are stored.
    pub(crate) async fn restart(&mut self) {
        self.start_again(None).await;
    }

    /// Starts again with the private key that the subscriptions were made with.
    pub(crate) async fn restart_with_the_key(&mut self) {
        let key = VapidKey::from_secret_bytes(&self.key.secret_bytes()[..]).unwrap();
        self.start_again(Some(key)).await;
    }

    async fn start_again(&mut self, key: Option<VapidKey>) {
        self.running.stop().await;
        self.push = start(&self.store, &self.service, &self.clock, key).await;
        self.running = run(&self.push);
    }

    /// Another process claims a message for everyone, and ends before it has sent any of it.
    pub(crate) async fn kill_another(&mut self) {
        self.running.stop().await;
        let url = self.database.as_ref().map(Server::url).unwrap_or_default();
        let store = open(self.backend, &self.path(), &url).await;
        let silent = TestPushService::builder().build();
        silent.script(When::any(), Answer::never());
        let push = start(&store, &silent, &self.clock, None).await;
        let running = run(&push);
        self.notify().await;
        // A push service that has not answered yet gets a few requests at a time.
        let claimed = async {
            while store.stats(self.clock.now()).await.unwrap().leased == 0 {
                sleep(POLL).await;
            }
        };
        timeout(LIMIT, claimed).await.expect("nothing is claimed");
        running.task.abort();
        let _ = running.task.await;
        drop((push, store));
        self.running = run(&self.push);
    }

    fn healthy_accepted(&self) -> Vec<u64> {
        let accepted = |endpoint| self.service.accepted_for(endpoint);
        self.healthy.iter().map(accepted).collect()
    }

    /// Waits until each healthy subscription has each message, as long as there is hope.
    async fn everything_arrived(&self) {
        let arrived = async {
            while self
                .healthy_accepted()
                .iter()
                .any(|some| *some < self.messages)
            {
                sleep(POLL).await;
            }
        };
        // Which are missing is in the row.
        let _ = timeout(LIMIT, arrived).await;
    }

    /// The members of `/ready` that are `false`, `ready` itself apart.
    async fn not_ready(&self) -> Vec<String> {
        let request = Request::get("/ready")
            .body(Full::<Bytes>::default())
            .unwrap();
        let response = self.push.service().call(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let Value::Object(members) = serde_json::from_slice(&body).unwrap() else {
            panic!("an object is expected: {body:?}");
        };
        let is_red = |(name, value): (String, Value)| {
            (value == Value::Bool(false) && name != "ready" && name != "senderFault")
                .then_some(name)
        };
        members.into_iter().filter_map(is_red).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.running.task.abort();
    }
}

async fn open(backend: Backend, path: &Path, url: &str) -> Arc<dyn Stores> {
    match backend {
        Backend::Memory => Arc::new(MemoryStore::new()),
        Backend::Sqlite => Arc::new(SqliteStore::open(path).await.unwrap()),
        Backend::Postgres => Arc::new(PostgresStore::connect(url).await.unwrap()),
        Backend::Redis => Arc::new(RedisStore::connect(url).await.unwrap()),
    }
}

async fn start(
    store: &Arc<dyn Stores>,
    service: &TestPushService,
    clock: &SettableClock,
    key: Option<VapidKey>,
) -> WebPush {
    let mut builder = WebPush::builder("mailto:ops@example.com")
        .store(Arc::clone(store))
        .client(service.clone())
        .clock(clock.clone())
        .endpoint_policy(EndpointPolicy::public_hosts())
        .poll_interval(Duration::from_millis(200))
        .retry_policy(RetryPolicy::new(
            Duration::from_millis(200),
            Duration::from_secs(2),
            8,
        ));
    if let Some(key) = key {
        builder = builder.vapid_private_key(key);
    }
    builder.build().await.unwrap()
}

/// Runs it; a run that fails is started again, as a supervisor would.
fn run(push: &WebPush) -> Running {
    let push = push.clone();
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(async move {
        let until = || {
            let mut stopped = stopped.clone();
            async move {
                // An error is a world that was dropped.
                let _ = stopped.wait_for(|is_stopped| *is_stopped).await;
            }
        };
        while let Err(_failed) = push.run(until()).await {
            sleep(POLL).await;
        }
    });
    Running { task, stop }
}
