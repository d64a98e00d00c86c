//! An SQLite file, a push service behind TLS, and servers that are started and killed.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tower_service::Service as _;
use tower_web_push::clock::{Clock as _, SystemClock, Timestamp};
use tower_web_push::store::{
    DeliveryLedger as _, LedgerStats, NewSubscription, SqliteStore, SubscriptionLimits,
    SubscriptionStore as _,
};
use tower_web_push::subscription::{EndpointKey, Origin, Subscription};
use tower_web_push::testing::{Recording, TestPushService};
use tower_web_push::vapid::{KeyId, VapidKey};

use super::gate::Gate;
use crate::support::http_client::HttpClient;
use crate::support::push_server::{BOTH, Certified, PushServer, STREAMS, certificate};
use crate::support::server_process::ServerProcess;

/// Long enough for debug builds, several servers, a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
/// Between two polls of another process's state.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// If nothing has changed for this long, a process has stopped, even on a busy machine.
pub(crate) const QUIET: Duration = Duration::from_secs(2);
/// The host of every endpoint, unless a test wants another.
pub(crate) const HOST: &str = "localhost";
const TOKEN: &str = "the-token-of-the-crash-test";

/// What remains when a server is killed.
pub(crate) struct World {
    pub(crate) push_service: TestPushService,
    pub(crate) gate: Gate,
    folder: TempDir,
    vapid_key: VapidKey,
    port: u16,
    certified: Certified,
    /// The push service's socket, until it is opened.
    listener: Option<TcpListener>,
    _open: Option<PushServer>,
}

/// A server and its clients.
pub(crate) struct Server {
    pub(crate) process: ServerProcess,
    pub(crate) api: HttpClient,
}

/// A broadcast, from the server's response.
#[derive(Clone, Debug)]
pub(crate) struct Broadcast {
    pub(crate) path: String,
    pub(crate) recipients: u64,
}

/// The remaining rows of the file, one per recipient.
pub(crate) type Rows = HashMap<EndpointKey, IsLeased>;
pub(crate) type IsLeased = bool;

impl World {
    /// With a push service that answers.
    pub(crate) async fn new() -> Self {
        let mut world = Self::unanswered().await;
        world.open_push_service();
        world
    }

    /// With a push service that accepts TCP connections and sends nothing.
    pub(crate) async fn unanswered() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let certified = certificate();
        fs::write(folder.path().join("ca.pem"), certified.cert.pem()).unwrap();
        let push_service = TestPushService::builder()
            .origin(origin(HOST, port))
            .recording(Recording::Counts)
            .build();
        Self {
            push_service,
            gate: Gate::new(),
            folder,
            vapid_key: VapidKey::generate().unwrap(),
            port,
            certified,
            listener: Some(listener),
            _open: None,
        }
    }

    pub(crate) fn open_push_service(&mut self) {
        let mounted = self.push_service.mount();
        let gate = self.gate.clone();
        let handler = move |request: http::Request<hyper::body::Incoming>| {
            let (mut service, gate) = (mounted.clone(), gate.clone());
            let host = request.uri().host().map(str::to_owned);
            Box::pin(async move {
                let answer = gate.through(host.as_deref(), async move {
                    let answer = service.call(request).await.unwrap();
                    answer.map(|body| body.map_err(std::io::Error::other).boxed())
                });
                answer.await
            }) as crate::support::push_server::Answering
        };
        let listener = self.listener.take().unwrap();
        let server = PushServer::start_on(listener, &self.certified, BOTH, STREAMS, handler);
        self._open = Some(server);
    }

    pub(crate) fn origin(&self, host: &str) -> Origin {
        origin(host, self.port)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("push.db")
    }

    pub(crate) async fn start(&self, name: &str) -> Server {
        let store = format!("sqlite://{}", self.path().display());
        let ca = self.folder.path().join("ca.pem");
        let key = self.vapid_key.secret_to_pkcs8_pem();
        let settings = [
            ("BIND", "127.0.0.1:0"),
            ("STORE_URL", &store),
            ("VAPID_SUBJECT", "mailto:ops@example.com"),
            ("VAPID_PRIVATE_KEY", &key),
            ("ADMIN_TOKEN", TOKEN),
            ("PUBLIC_REQUESTS_PER_MINUTE", "0"),
            ("ENDPOINT_POLICY", "local"),
            ("EXTRA_ROOT_CA", ca.to_str().unwrap()),
            // A server does not notice what another one accepts, but polls.
            ("SECONDS_BETWEEN_NOTIFICATIONS", "1"),
        ];
        let process = ServerProcess::start(name, &settings).await;
        let api = HttpClient::new(process.url.clone());
        Server { process, api }
    }

    /// The file, opened by another process than the server.
    pub(crate) async fn store(&self) -> SqliteStore {
        SqliteStore::open(self.path()).await.unwrap()
    }

    /// Opens the file without the crate's own code.
    pub(crate) fn connection(&self) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(self.path(), flags).unwrap();
        conn.busy_timeout(LIMIT).unwrap();
        conn
    }

    /// Subscribes this number of browsers through the server's API.
    pub(crate) async fn subscribe(&self, server: &Server, number: usize) -> Vec<Subscription> {
        let browsers = stream::iter(0..number).map(async |_| {
            let subscription = self.subscription(HOST);
            let json = serde_json::to_value(&subscription).unwrap();
            let answer = server.api.post("/web-push/subscribe", &json).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            subscription
        });
        browsers.buffer_unordered(16).collect().await
    }

    /// Subscribes directly in the file, which takes less time. Makes the file if it is missing.
    pub(crate) async fn subscribe_at(&self, host: &str, number: usize) -> Vec<Subscription> {
        let store = self.store().await;
        let (limits, now) = (SubscriptionLimits::default(), SystemClock::new().now());
        let vapid_key = KeyId::of(self.vapid_key.public_key());
        let browsers = stream::iter(0..number).map(async |_| {
            let subscription = self.subscription(host);
            let new = NewSubscription::new(subscription.clone(), vapid_key);
            store.upsert(&new, &limits, now).await.unwrap();
            subscription
        });
        let browsers = browsers.buffer_unordered(64).collect().await;
        store.close().await.unwrap();
        browsers
    }

    fn subscription(&self, host: &str) -> Subscription {
        let browser = self.push_service.user_agent_at(&self.origin(host));
        browser.subscribe(self.vapid_key.public_key()).unwrap()
    }

    pub(crate) fn accepted(&self, subscription: &Subscription) -> u64 {
        self.push_service.accepted_for(subscription.endpoint())
    }

    pub(crate) async fn stats(&self, store: &SqliteStore) -> LedgerStats {
        store.stats(SystemClock::new().now()).await.unwrap()
    }

    /// Returns the remaining rows of the file.
    pub(crate) fn rows(&self) -> Rows {
        let conn = self.connection();
        let sql = "SELECT key, leased FROM delivery";
        let mut rows = conn.prepare(sql).unwrap();
        let rows = rows.query_map([], |row| {
            let is_leased: bool = row.get(1)?;
            Ok((EndpointKey::from_bytes(row.get(0)?), is_leased))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// Returns when the first of the leases expires. They last 45 s.
    pub(crate) fn leases_end(&self) -> Timestamp {
        let sql = "SELECT min(at) FROM delivery WHERE leased = 1 AND turn IS NULL";
        let end: Option<i64> = self
            .connection()
            .query_row(sql, [], |row| row.get(0))
            .unwrap();
        end.map_or(Timestamp::MAX, Timestamp::from_millis)
    }

    /// Returns the rows that a worker has leased which does not live any more.
    pub(crate) fn rows_of_the_dead(&self) -> HashSet<EndpointKey> {
        let conn = self.connection();
        let sql = "SELECT key, worker FROM delivery WHERE leased = 1 AND turn IS NULL";
        let mut rows = conn.prepare(sql).unwrap();
        let rows = rows.query_map([], |row| {
            let worker: i64 = row.get(1)?;
            Ok((EndpointKey::from_bytes(row.get(0)?), worker))
        });
        let rows = rows.unwrap().map(Result::unwrap);
        let is_dead = |worker: i64| {
            let path = self.folder.path().join(format!("push.db-worker-{worker}"));
            // Without the file its rows were taken since they were read.
            fs::File::open(path).is_ok_and(|file| file.try_lock().is_ok())
        };
        rows.filter(|(_, worker)| is_dead(*worker))
            .map(|(key, _)| key)
            .collect()
    }
}

fn origin(host: &str, port: u16) -> Origin {
    Origin::parse(&format!("https://{host}:{port}")).unwrap()
}

impl Server {
    /// Sends one `/notify` to everyone.
    pub(crate) async fn notify(&self, recipients: usize) -> Broadcast {
        let call = self.api.call(Method::POST, "/web-push/notify");
        let queued = call
            .bearer(TOKEN)
            .json(&json!({"title": "Hello"}))
            .send()
            .await;
        assert_eq!(queued.status, StatusCode::ACCEPTED, "{queued:?}");
        let queued = queued.json();
        assert_eq!(queued["recipients"], recipients);
        Broadcast {
            path: format!(
                "/web-push/broadcasts/{}",
                queued["broadcast"].as_str().unwrap()
            ),
            recipients: recipients as u64,
        }
    }

    async fn status(&self, broadcast: &Broadcast) -> Value {
        let call = self.api.call(Method::GET, &broadcast.path).bearer(TOKEN);
        call.send().await.json()
    }

    /// Waits until a broadcast is over, and checks that its numbers add up.
    pub(crate) async fn done(&self, broadcast: &Broadcast) {
        let is_done = async {
            loop {
                let status = self.status(broadcast).await;
                if status["state"] == "done" {
                    return status;
                }
                sleep(10 * LOOK_AGAIN).await;
            }
        };
        let Ok(status) = timeout(LIMIT, is_done).await else {
            panic!("{}", self.status(broadcast).await);
        };
        let recipients = broadcast.recipients;
        assert_eq!(status["recipients"], recipients, "{status}");
        for (outcome, count) in status["counts"].as_object().unwrap() {
            let expected = if outcome == "accepted" { recipients } else { 0 };
            assert_eq!(*count, expected, "{outcome}: {status}");
        }
    }

    /// Returns a counter or gauge of `/metrics`, summed over its labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let call = self.api.call(Method::GET, "/metrics").bearer(TOKEN);
        let answer = call.send().await;
        let of_it = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        let lines = answer.text().lines().filter(of_it);
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }
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
