//! A database of its own, a push service behind TLS, and servers that are started and stopped.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tower_service::Service as _;
use tower_web_push::broadcast::BroadcastId;
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Topic;
use tower_web_push::store::{
    NewSubscription, Pause, PauseReason, PostgresStore, RedisStore, ScheduleStore,
    SubscriptionLimits, SubscriptionRecord, SubscriptionStore, Upserted, redis_rs,
};
use tower_web_push::subscription::Origin;
use tower_web_push::testing::{Recording, TestPushService};
use tower_web_push::vapid::{KeyId, VapidPublicKey};

use super::traffic::{Delivery, Traffic, now};
use crate::support::http_client::{Answer, HttpClient};
use crate::support::push_server::{Answering, BOTH, PushServer, certificate};
use crate::support::redis_client;
use crate::support::server_process::ServerProcess;
use crate::support::servers::{Kind, Server as Database};

/// Long enough for debug builds, several servers, a lease until its expiry, a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);
/// With so few streams, some hundreds a second from each replica: a broadcast lasts long enough for servers to start and stop
/// meanwhile, on any machine.
pub(crate) const ANSWERS_AFTER: Duration = Duration::from_millis(150);
const STREAMS: u32 = 16;
/// A replica's most: it opens up to 6 connections.
pub(crate) const IN_FLIGHT: usize = 6 * STREAMS as usize;
const LOOK_AGAIN: Duration = Duration::from_millis(20);
pub(crate) const TOKEN: &str = "the-token-of-the-replicas";

/// What remains when a server is killed.
pub(crate) struct World {
    pub(crate) database: Database,
    pub(crate) traffic: Traffic,
    pub(crate) push_service: TestPushService,
    pub(crate) subscriptions: Arc<dyn SubscriptionStore>,
    pub(crate) schedules: Arc<dyn ScheduleStore>,
    origin: Origin,
    folder: TempDir,
    _door: PushServer,
}

/// A server and its clients.
pub(crate) struct Replica {
    pub(crate) process: ServerProcess,
    pub(crate) api: HttpClient,
}

impl World {
    /// Returns `None`, with a message, if this machine lacks the database.
    pub(crate) async fn on(kind: Kind) -> Option<Self> {
        let database = Database::start(kind, &[]).await?;
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let origin = Origin::parse(&format!("https://localhost:{port}")).unwrap();
        let certified = certificate();
        fs::write(folder.path().join("ca.pem"), certified.cert.pem()).unwrap();
        let push_service = TestPushService::builder()
            .origin(origin.clone())
            .recording(Recording::Counts)
            .build();
        let traffic = Traffic::new();
        let door = PushServer::start_on(listener, &certified, BOTH, STREAMS, {
            let (mounted, traffic) = (push_service.mount(), traffic.clone());
            move |request: Request<Incoming>| -> Answering {
                let (mut service, traffic) = (mounted.clone(), traffic.clone());
                let came = now();
                let delivery = Delivery::of(request.uri().path(), request.headers());
                Box::pin(async move {
                    let answer = service.call(request).await.unwrap();
                    traffic.note(delivery, came, answer.status());
                    sleep(ANSWERS_AFTER).await;
                    answer.map(|body| body.map_err(std::io::Error::other).boxed())
                })
            }
        });
        let (subscriptions, schedules) = stores(kind, &database.url()).await;
        Some(Self {
            database,
            traffic,
            push_service,
            subscriptions,
            schedules,
            origin,
            folder,
            _door: door,
        })
    }

    /// Returns the settings of a server.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let ca = self.folder.path().join("ca.pem");
        vec![
            ("BIND", "127.0.0.1:0".to_owned()),
            ("STORE_URL", self.database.url()),
            ("VAPID_SUBJECT", "mailto:ops@example.com".to_owned()),
            ("ADMIN_TOKEN", TOKEN.to_owned()),
            ("ENDPOINT_POLICY", "local".to_owned()),
            ("EXTRA_ROOT_CA", ca.display().to_string()),
            ("SECONDS_BETWEEN_NOTIFICATIONS", "2".to_owned()),
        ]
    }

    pub(crate) async fn start(&self, name: &str) -> Replica {
        self.start_with(name, &self.settings()).await
    }

    pub(crate) async fn start_with(
        &self,
        name: &str,
        settings: &[(&'static str, String)],
    ) -> Replica {
        let settings: Vec<_> = settings
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let process = ServerProcess::start(name, &settings).await;
        let api = HttpClient::new(process.url.clone());
        Replica { process, api }
    }

    /// A broadcast with an hour to go; its path.
    pub(crate) async fn scheduled(&self, server: &Replica) -> String {
        let later = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
        let call = server.api.call(Method::POST, "/web-push/notify");
        let body = json!({"title": "Later", "sendAt": later.to_string()});
        let queued = call.bearer(TOKEN).json(&body).send().await;
        assert_eq!(queued.status, StatusCode::ACCEPTED, "{queued:?}");
        path_of(&queued)
    }

    /// Limits Redis to this number of octets; `0`: no limit.
    pub(crate) async fn redis_memory(&self, octets: u64) {
        let mut connection = redis_client::connect(&self.database.url()).await;
        let mut set = redis_rs::cmd("CONFIG");
        set.arg("SET").arg("maxmemory").arg(octets);
        let set: String = set.query_async(&mut connection).await.unwrap();
        assert_eq!(set, "OK");
    }

    /// Pauses the push service for all servers. Returns the end of the pause.
    pub(crate) async fn pause(&self, length: Duration) -> Timestamp {
        let pause = Pause::new(
            self.origin.clone(),
            now() + length,
            PauseReason::RateLimited,
        );
        self.schedules.pause(&pause, now()).await.unwrap();
        pause.until
    }

    /// Waits until all that these servers had begun has ended.
    pub(crate) async fn is_quiet(&self, servers: [&Replica; 2]) {
        for server in servers {
            until("nothing is under way", async || {
                server.metric("web_push_in_flight").await == 0.0
            })
            .await;
        }
    }

    /// Writes this number of browsers into the database.
    pub(crate) async fn subscribe(
        &self,
        key: &VapidPublicKey,
        number: usize,
    ) -> Vec<SubscriptionRecord> {
        let (limits, now, key_id) = (SubscriptionLimits::default(), now(), KeyId::of(key));
        let browsers = stream::iter(0..number).map(async |_| {
            let browser = self.push_service.user_agent_at(&self.origin);
            let new = NewSubscription::new(browser.subscribe(key).unwrap(), key_id);
            match self.subscriptions.upsert(&new, &limits, now).await.unwrap() {
                Upserted::Stored { record, .. } => *record,
                Upserted::Conflict => panic!("a new endpoint has no conflict"),
            }
        });
        browsers.buffer_unordered(32).collect().await
    }
}

async fn stores(kind: Kind, url: &str) -> (Arc<dyn SubscriptionStore>, Arc<dyn ScheduleStore>) {
    match kind {
        Kind::Postgres => {
            let store = Arc::new(PostgresStore::connect(url).await.unwrap());
            (Arc::clone(&store) as _, store)
        }
        Kind::Redis | Kind::Valkey => {
            let store = Arc::new(RedisStore::connect(url).await.unwrap());
            (Arc::clone(&store) as _, store)
        }
        Kind::Nats | Kind::Nginx | Kind::PgBouncer => panic!("no store"),
    }
}

impl Replica {
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.api.call(Method::GET, path).bearer(TOKEN).send().await
    }

    /// Returns the key that it gives to browsers.
    pub(crate) async fn vapid_key(&self) -> VapidPublicKey {
        let answer = self.get("/web-push/vapid").await.json();
        answer["vapidKey"].as_str().unwrap().parse().unwrap()
    }

    /// Sends one `/notify` to everyone. Returns the path of its broadcast.
    pub(crate) async fn notify(&self, recipients: usize) -> String {
        let call = self
            .api
            .call(Method::POST, "/web-push/notify")
            .bearer(TOKEN);
        // The push service distinguishes broadcasts by it.
        let topic = Topic::of(BroadcastId::random().as_bytes());
        let queued = call
            .json(&json!({"title": "Hello", "topic": topic}))
            .send()
            .await;
        assert_eq!(queued.status, StatusCode::ACCEPTED, "{queued:?}");
        assert_eq!(queued.json()["recipients"], recipients);
        path_of(&queued)
    }

    /// Waits until a broadcast is over, and checks that every recipient was reached.
    pub(crate) async fn done(&self, broadcast: &str, recipients: usize) {
        let mut status = Value::Null;
        until("the broadcast is done", async || {
            status = self.get(broadcast).await.json();
            status["state"] == "done"
        })
        .await;
        assert_eq!(status["recipients"], recipients, "{status}");
        for (outcome, count) in status["counts"].as_object().unwrap() {
            let expected = if outcome == "accepted" { recipients } else { 0 };
            assert_eq!(*count, expected, "{outcome}: {status}");
        }
    }

    /// Returns a gauge of `/metrics`.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let metrics = self.get("/metrics").await;
        let mut lines = metrics.text().lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |number| number.parse().unwrap())
    }

    pub(crate) async fn ready(&self) -> StatusCode {
        self.get("/web-push/ready").await.status
    }
}

/// Returns the path of the broadcast that `/notify` has accepted.
pub(crate) fn path_of(queued: &Answer) -> String {
    let queued = queued.json();
    format!(
        "/web-push/broadcasts/{}",
        queued["broadcast"].as_str().unwrap()
    )
}

/// Polls until it is as wanted.
pub(crate) async fn until(what: &str, mut wanted: impl AsyncFnMut() -> bool) {
    let is_so = async {
        while !wanted().await {
            sleep(LOOK_AGAIN).await;
        }
    };
    assert!(timeout(LIMIT, is_so).await.is_ok(), "never: {what}");
}
