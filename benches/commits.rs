//! Two commits of the standalone server side by side, through HTTP and nothing else.
//!
//! `benches/commits.sh OLD [NEW]` builds `examples/axum_server.rs` of both and calls this bench with the two files; it takes
//! from ten minutes to half an hour. PostgreSQL and Redis are started, if they are installed, as packaged, with their data in a
//! temporary folder. The push service runs in this process over TLS and HTTP/2, allows 100 streams on each connection, and
//! answers after 50 ms. All of them share this machine. The commits are measured in turns, each time with an empty store; medians
//! of the rounds are printed.
//!
//! - `subscribe`: `POST /subscribe` of 10,000 browsers, 64 at a time.
//! - `idle`: from the answer to `POST /notify` to the request at the push service, one recipient, nothing else to do; 50 times.
//! - `one each`: 2,000 `POST /notify` with one recipient each, 64 at a time, until the last has been sent.
//! - `broadcast`: one to all 10,000, until the last has been sent.
//! - `urgent`: as `idle`, with urgency `high`, four a second while a broadcast to all is sent: the median, and the longest.
//! - `killed`: from a SIGKILL after a third of a broadcast, with a new start at once, until nothing is waiting or leased; and
//!   how many were sent twice. Once per commit and store.
//!
//! CPU time is that of the server's process. `-- … sqlite` measures only this store, and `-- … only-subscribe` only the first of
//! these.
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no number")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]
// Only parts of the tests' support are used.
#![allow(dead_code)]

#[path = "../tests/support/http_client.rs"]
mod http_client;
#[path = "../tests/support/push_server.rs"]
mod push_server;
#[path = "../tests/support/server_process.rs"]
mod server_process;
#[path = "../tests/support/servers.rs"]
mod servers;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tower_web_push::p256::UaSecretKey;

use http_client::HttpClient;
use push_server::{PushServer, answer, certificate};
use server_process::ServerProcess;
use servers::{Kind, Server};

const BROWSERS: usize = 10_000;
const SINGLE: usize = 2_000;
const IDLE: usize = 50;
/// Requests to the server at a time.
const AT_ONCE: usize = 64;
/// Concurrent streams on each connection to the push service, and how long it takes to answer.
const STREAMS: u32 = 100;
const ANSWER: Duration = Duration::from_millis(50);
const ROUNDS: usize = 3;
/// Longer only if the code is broken.
const LIMIT: Duration = Duration::from_secs(300);
/// What all browsers but the last have.
const TAG: &str = "all";
const TOKEN: &str = "the-token-of-this-bench";

/// Medians are made of the values below each name.
type Measured = BTreeMap<&'static str, Vec<f64>>;

#[tokio::main]
async fn main() {
    let words: Vec<_> = std::env::args().skip(1).collect();
    // `cargo test --benches` only checks that it builds.
    if !words.iter().any(|word| word == "--bench") {
        return;
    }
    let commits: Vec<_> = words
        .iter()
        .filter_map(|word| word.split_once('='))
        .collect();
    assert!(
        !commits.is_empty(),
        "name the servers: -- old=FILE new=FILE"
    );
    let names = ["sqlite", "postgres", "redis"];
    let asked = |name: &str| words.iter().any(|word| word == name);
    let all = !names.iter().any(|name| asked(name));
    let only_subscribe = asked("only-subscribe");
    for name in names.into_iter().filter(|name| all || asked(name)) {
        let mut measured = vec![Measured::new(); commits.len()];
        for round in 0..ROUNDS {
            for ((_, program), measured) in commits.iter().zip(&mut measured) {
                let Some(world) = World::start(Path::new(program), name).await else {
                    break;
                };
                world.measure(measured, only_subscribe, round == 0).await;
            }
        }
        for ((commit, _), measured) in commits.iter().zip(&mut measured) {
            for (what, values) in measured {
                values.sort_by(f64::total_cmp);
                println!(
                    "{name:8} {commit:8} {what:36} {:10.1}",
                    values[values.len() / 2]
                );
            }
        }
    }
    println!("repeat it: benches/commits.sh OLD [NEW]");
}

/// The requests that reached the push service, by the browser's number.
#[derive(Default)]
struct Arrivals {
    of: Mutex<Vec<Vec<Instant>>>,
    news: Notify,
}

impl Arrivals {
    fn add(&self, path: &str) {
        let number: usize = path.rsplit('/').next().unwrap().parse().unwrap();
        let mut of = self.of.lock().unwrap();
        if of.len() <= number {
            of.resize_with(number + 1, Vec::new);
        }
        of[number].push(Instant::now());
        drop(of);
        self.news.notify_waiters();
    }

    fn clear(&self) {
        self.of.lock().unwrap().clear();
    }

    /// How many browsers got a message, and how many messages there were; without the last browser.
    fn counts(&self) -> (usize, usize) {
        let of = self.of.lock().unwrap();
        let of = &of[..of.len().min(BROWSERS)];
        let reached = of.iter().filter(|times| !times.is_empty()).count();
        (reached, of.iter().map(Vec::len).sum())
    }

    /// When the browser got its latest message, once there are this many.
    async fn nth(&self, browser: usize, number: usize) -> Instant {
        let seen = async {
            loop {
                let news = self.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                let time = self
                    .of
                    .lock()
                    .unwrap()
                    .get(browser)
                    .and_then(|times| times.get(number).copied());
                match time {
                    Some(time) => return time,
                    None => news.await,
                }
            }
        };
        timeout(LIMIT, seen).await.unwrap()
    }

    async fn reached(&self, browsers: usize) -> Instant {
        let all = async {
            // Looking at each would take longer than the messages do.
            while self.counts().0 < browsers {
                sleep(Duration::from_millis(5)).await;
            }
            Instant::now()
        };
        timeout(LIMIT, all).await.unwrap()
    }
}

struct World {
    program: PathBuf,
    server: ServerProcess,
    api: HttpClient,
    url: String,
    arrivals: Arc<Arrivals>,
    push_service: PushServer,
    folder: TempDir,
    /// Until it has been measured.
    _database: Option<Server>,
}

impl World {
    /// `None`: the database is not installed.
    async fn start(program: &Path, store: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let database = match store {
            "sqlite" => None,
            "postgres" => Some(Server::start(Kind::Postgres, &[]).await?),
            _ => Some(Server::start(Kind::Redis, &[]).await?),
        };
        let file = folder.path().join("push.db");
        let url = database
            .as_ref()
            .map_or_else(|| format!("sqlite://{}", file.display()), Server::url);
        let arrivals = Arc::<Arrivals>::default();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let seen = Arc::clone(&arrivals);
        let alpn: push_server::Alpn = Some(&[b"h2"]);
        let push_service =
            PushServer::start_on(listener, &certificate(), alpn, STREAMS, move |request| {
                seen.add(request.uri().path());
                Box::pin(async move {
                    let body = request.into_body().collect().await;
                    sleep(ANSWER).await;
                    answer(if body.is_ok() { 201 } else { 400 }, &[], "")
                })
            });
        fs::write(folder.path().join("ca.pem"), &push_service.ca_pem).unwrap();
        let server = serve(program, &url, folder.path()).await;
        let api = HttpClient::new(format!("{}/web-push", server.url));
        Some(Self {
            program: program.to_owned(),
            server,
            api,
            url,
            arrivals,
            push_service,
            folder,
            _database: database,
        })
    }

    async fn measure(mut self, measured: &mut Measured, only_subscribe: bool, kill: bool) {
        let mut add = |what, value| measured.entry(what).or_default().push(value);

        let (began, cpu) = (Instant::now(), self.cpu());
        let ids = self.subscribe().await;
        let (rate, cpu) = self.since(began, cpu, BROWSERS);
        add("subscribe: per second", rate);
        add("subscribe: us CPU", cpu);
        if only_subscribe {
            return;
        }

        // The first messages prove the push service and fill caches.
        for id in &ids[..20] {
            self.notify(&json!({"ids": [id]}), "normal").await;
        }
        self.arrivals.reached(20).await;
        self.settle().await;
        let mut waits = Vec::new();
        for _ in 0..IDLE {
            sleep(Duration::from_millis(100)).await;
            waits.push(self.wait_of_one(&ids, "normal").await);
        }
        add("idle: ms, median", median(&mut waits));

        self.settle().await;
        let (began, cpu) = (Instant::now(), self.cpu());
        stream::iter(&ids[..SINGLE])
            .for_each_concurrent(AT_ONCE, async |id| {
                self.notify(&json!({"ids": [id]}), "normal").await
            })
            .await;
        self.arrivals.reached(SINGLE).await;
        let (rate, cpu) = self.since(began, cpu, SINGLE);
        add("one each: per second", rate);
        add("one each: us CPU", cpu);

        // The first grows the number of requests in flight, as a server in use has done long ago.
        self.settle().await;
        self.notify(&json!({"tag": TAG}), "normal").await;
        self.arrivals.reached(BROWSERS).await;
        self.settle().await;
        let (began, cpu) = (Instant::now(), self.cpu());
        self.notify(&json!({"tag": TAG}), "normal").await;
        self.arrivals.reached(BROWSERS).await;
        let (rate, cpu) = self.since(began, cpu, BROWSERS);
        add("broadcast: per second", rate);
        add("broadcast: us CPU", cpu);

        self.settle().await;
        self.notify(&json!({"tag": TAG}), "normal").await;
        let mut waits = Vec::new();
        while self.arrivals.counts().0 < BROWSERS {
            waits.push(self.wait_of_one(&ids, "high").await);
            sleep(Duration::from_millis(250)).await;
        }
        add(
            "urgent: ms, longest",
            waits.iter().copied().fold(0.0, f64::max),
        );
        add("urgent: ms, median", median(&mut waits));
        add(
            "peak memory: MiB",
            peak_kib(self.server.id()) as f64 / 1024.0,
        );

        if kill {
            self.settle().await;
            self.notify(&json!({"tag": TAG}), "normal").await;
            self.arrivals.reached(BROWSERS / 3).await;
            self.server.kill().await;
            let began = Instant::now();
            self.server = serve(&self.program, &self.url, self.folder.path()).await;
            self.api = HttpClient::new(format!("{}/web-push", self.server.url));
            self.until_idle().await;
            add(
                "killed: seconds until all is settled",
                began.elapsed().as_secs_f64(),
            );
            let (reached, sent) = self.arrivals.counts();
            add("killed: sent twice", (sent - reached) as f64);
        }
        drop(self.push_service);
    }

    async fn subscribe(&self) -> Vec<String> {
        let key = UaSecretKey::random().unwrap().public().to_base64url();
        let port = self.push_service.port();
        let (api, key) = (&self.api, &key);
        let ids = stream::iter(0..=BROWSERS).map(async |number| {
            let endpoint = format!("https://localhost:{port}/push/{number}");
            let keys = json!({"p256dh": key, "auth": "c2l4dGVlbiBvY3RldHMuLg"});
            let tags = if number < BROWSERS {
                vec![TAG]
            } else {
                Vec::new()
            };
            let body = json!({"endpoint": endpoint, "keys": keys, "tags": tags});
            let answer = api.post("/subscribe", &body).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            answer.json()["id"].as_str().unwrap().to_owned()
        });
        // In their order, which is that of the endpoints' numbers.
        ids.buffered(AT_ONCE).collect().await
    }

    async fn notify(&self, audience: &Value, urgency: &str) {
        let content = json!({"title": "Hello", "body": "x".repeat(120), "urgency": urgency, "audience": audience});
        let call = self.api.call(Method::POST, "/notify").bearer(TOKEN);
        let answer = call.json(&content).send().await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    }

    /// Milliseconds from the acceptance of a message to the last browser until its request.
    async fn wait_of_one(&self, ids: &[String], urgency: &str) -> f64 {
        // Broadcasts do not go to it.
        let last = BROWSERS;
        let before = self
            .arrivals
            .of
            .lock()
            .unwrap()
            .get(last)
            .map_or(0, Vec::len);
        self.notify(&json!({"ids": [ids[last]]}), urgency).await;
        let accepted = Instant::now();
        let arrived = self.arrivals.nth(last, before).await;
        arrived.saturating_duration_since(accepted).as_secs_f64() * 1e3
    }

    /// Waits until nothing is under way, and forgets what has arrived.
    async fn settle(&self) {
        self.until_idle().await;
        sleep(Duration::from_millis(300)).await;
        self.arrivals.clear();
    }

    async fn until_idle(&self) {
        let idle = async {
            loop {
                let stats = self
                    .api
                    .call(Method::GET, "/stats")
                    .bearer(TOKEN)
                    .send()
                    .await
                    .json();
                let number = |what: &str| stats["ledger"][what].as_u64().unwrap();
                if number("depth") + number("leased") == 0 {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(LIMIT, idle).await.unwrap();
    }

    fn cpu(&self) -> Duration {
        cpu_time(self.server.id())
    }

    /// How many there were per second, and microseconds of CPU time for each.
    fn since(&self, began: Instant, cpu: Duration, number: usize) -> (f64, f64) {
        let spent = self.cpu().saturating_sub(cpu).as_secs_f64();
        let number = number as f64;
        (number / began.elapsed().as_secs_f64(), spent * 1e6 / number)
    }
}

async fn serve(program: &Path, store: &str, folder: &Path) -> ServerProcess {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("BIND", "127.0.0.1:0")
        .env("STORE_URL", store)
        .env("VAPID_SUBJECT", "mailto:ops@example.com")
        .env("ADMIN_TOKEN", TOKEN)
        .env("PUBLIC_REQUESTS_PER_MINUTE", "0")
        .env("ENDPOINT_POLICY", "local")
        .env("PUBLIC_TAGS", TAG)
        .env("EXTRA_ROOT_CA", folder.join("ca.pem"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    ServerProcess::start_command(command).await
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The most memory that the process ever held, in KiB.
fn peak_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let mut lines = status.lines();
    let line = lines.find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// User and system time of a process: the 14th and 15th field, of which the name, in parentheses, is the second.
fn cpu_time(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let fields = after_name.split_whitespace().skip(11).take(2);
    // A tick is 10 ms on every Linux.
    Duration::from_millis(
        fields
            .map(|ticks| ticks.parse::<u64>().unwrap())
            .sum::<u64>()
            * 10,
    )
}
