//! A database of its own, a push service behind TLS, and servers that come and go.

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
use crate::support::server_process::ServerProcess;
use crate::support::servers::{Kind, Server as Database};

/// Generous: debug builds, several servers, a lease to its end, a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);
/// With a hundred requests at once of each replica, some hundreds a second: a broadcast lasts long enough for servers
/// to come and go meanwhile, however fast the machine.
const ANSWERS_AFTER: Duration = Duration::from_millis(150);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
pub(crate) const TOKEN: &str = "the-token-of-the-replicas";

/// What outlives a server.
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
    /// `None`, said aloud, where there is no such database on this machine.
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
        let door = PushServer::start_on(listener, &certified, BOTH, {
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

    /// What a server is started with.
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
        let settings = self.settings();
        let settings: Vec<_> = settings
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let process = ServerProcess::start(name, &settings).await;
        let api = HttpClient::new(process.url.clone());
        Replica { process, api }
    }

    /// Redis has so many octets and no more; `0`: as many as there are.
    pub(crate) async fn redis_memory(&self, octets: u64) {
        let client = redis_rs::Client::open(self.database.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
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

    /// So many browsers, written into the database.
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
                Upserted::Conflict => panic!("a new endpoint is nobody else's"),
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
        Kind::Nats | Kind::Nginx => panic!("no store"),
    }
}

impl Replica {
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.api.call(Method::GET, path).bearer(TOKEN).send().await
    }

    /// The key that it gives to browsers.
    pub(crate) async fn vapid_key(&self) -> VapidPublicKey {
        let answer = self.get("/web-push/vapid").await.json();
        answer["vapidKey"].as_str().unwrap().parse().unwrap()
    }

    /// One `/notify` to everybody; the path of its broadcast.
    pub(crate) async fn notify(&self, recipients: usize) -> String {
        let call = self
            .api
            .call(Method::POST, "/web-push/notify")
            .bearer(TOKEN);
        // By which the push service tells one broadcast from another.
        let topic = Topic::of(BroadcastId::random().as_bytes());
        let queued = call
            .json(&json!({"title": "Hello", "topic": topic}))
            .send()
            .await;
        assert_eq!(queued.status, StatusCode::ACCEPTED, "{queued:?}");
        assert_eq!(queued.json()["recipients"], recipients);
        path_of(&queued)
    }

    /// Waits until a broadcast is over, and looks whether everybody was reached.
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

    /// A gauge of `/metrics`.
    async fn metric(&self, name: &str) -> f64 {
        let metrics = self.get("/metrics").await;
        let mut lines = metrics.text().lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |number| number.parse().unwrap())
    }

    pub(crate) async fn ready(&self) -> StatusCode {
        self.get("/web-push/ready").await.status
    }
}

/// Where the broadcast is that `/notify` has accepted.
pub(crate) fn path_of(queued: &Answer) -> String {
    let queued = queued.json();
    format!(
        "/web-push/broadcasts/{}",
        queued["broadcast"].as_str().unwrap()
    )
}

/// Looks again and again until it is as wanted.
pub(crate) async fn until(what: &str, mut wanted: impl AsyncFnMut() -> bool) {
    let is_so = async {
        while !wanted().await {
            sleep(LOOK_AGAIN).await;
        }
    };
    assert!(timeout(LIMIT, is_so).await.is_ok(), "never: {what}");
}
