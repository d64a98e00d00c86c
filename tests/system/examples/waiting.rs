//! A start before the database is up.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use super::world::{TOKEN, World};
use crate::support::alert_rules::{Scrape, matches, rules};
use crate::support::http_client::{Answer, HttpClient};
use crate::support::server_process::command;
use crate::support::servers::{Kind, Port, Server};

const RULES: &str = include_str!("../../../deploy/prometheus/alerts.yml");
const LIMIT: Duration = Duration::from_secs(60);

/// A server that does not find its database.
struct Waiting {
    process: Child,
    address: String,
}

impl Waiting {
    async fn start(name: &str, store_url: &str, port: &Port) -> Self {
        let address = format!("127.0.0.1:{}", port.number());
        let mut settings = World::settings(store_url);
        settings.retain(|(name, _)| *name != "BIND");
        settings.extend([("BIND", address.as_str()), ("WAIT_FOR_STORE", "600")]);
        let process = command(name, &settings).spawn().unwrap();
        let listens = async {
            while TcpStream::connect(&address).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, listens).await.expect("it does not listen");
        let waiting = Self { process, address };
        waiting.is_alive_and_not_ready().await;
        waiting
    }

    /// Gets it over a connection of its own: those of the wait end with it.
    async fn get(&self, path: &str) -> Answer {
        HttpClient::new(format!("http://{}", self.address))
            .get(path)
            .await
    }

    /// A connection that the wait has accepted may end with it, before its request is read.
    async fn is_ready(&self) -> bool {
        let client = HttpClient::new(format!("http://{}", self.address));
        let answer = client.call(Method::GET, "/web-push/ready").try_send().await;
        answer.is_ok_and(|answer| answer.status == StatusCode::OK)
    }

    async fn is_alive_and_not_ready(&self) {
        for prefix in ["/web-push", "/api"] {
            let live = self.get(&format!("{prefix}/live")).await;
            assert_eq!((live.status, live.text()), (StatusCode::OK, "live"));
            let ready = self.get(&format!("{prefix}/ready")).await;
            assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(ready.header("retry-after"), "5");
            assert_eq!(ready.json()["ready"], false);
            assert_eq!(ready.json()["store"], false);
            assert_eq!(ready.json()["contact"], true);
            for path in ["/", &format!("{prefix}/vapid"), "/live"] {
                let answer = self.get(path).await;
                assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            }
        }
        // Else a restart while the database is down would look as if no server ran.
        assert_eq!(self.get("/metrics").await.status, StatusCode::UNAUTHORIZED);
        let client = HttpClient::new(format!("http://{}", self.address));
        let scraped = client.call(Method::GET, "/metrics").bearer(TOKEN);
        let scraped = scraped.send().await;
        assert_eq!(scraped.status, StatusCode::OK);
        let scrape = Scrape::parse(scraped.text());
        for (name, expected) in [
            ("web_push_build_info", 1.0),
            ("web_push_store_up", 0.0),
            ("web_push_worker_running", 0.0),
        ] {
            assert_eq!(scrape.sum(name), expected, "{scrape:#?}");
        }
        let now = [(0.0, &scrape)];
        for rule in rules(RULES) {
            let expected = ["WebPushStoreDown", "WebPushWorkerMissing"].contains(&&*rule.name);
            assert_eq!(matches(&rule.expression, &now), expected, "{rule:?}");
        }
        let posted = client.call(Method::POST, "/metrics").bearer(TOKEN);
        assert_eq!(posted.send().await.status, StatusCode::SERVICE_UNAVAILABLE);
    }

    async fn signal(&self, signal: &str) {
        let id = self.process.id().expect("it runs").to_string();
        let mut kill = tokio::process::Command::new("kill");
        assert!(
            kill.args(["-s", signal, &id])
                .status()
                .await
                .unwrap()
                .success()
        );
    }

    async fn ended(&mut self) -> Option<i32> {
        let ended = timeout(LIMIT, self.process.wait()).await;
        ended.expect("it does not end").unwrap().code()
    }
}

pub(crate) async fn a_database_that_comes_up_is_waited_for(name: &str) {
    for kind in [Kind::Redis, Kind::Postgres] {
        let Some(mut database) = Server::start(kind, &[]).await else {
            continue;
        };
        database.stop().await;
        let port = Port::free();
        let mut waiting = Waiting::start(name, &database.url(), &port).await;
        let mut log = BufReader::new(waiting.process.stderr.take().unwrap()).lines();
        let told = async {
            while let Some(line) = log.next_line().await.unwrap() {
                if line.contains("the store is not up yet") {
                    return;
                }
            }
            panic!("it ended");
        };
        timeout(LIMIT, told)
            .await
            .expect("the log does not name it");
        // Keep reading, or the process blocks once the pipe is full.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        waiting.is_alive_and_not_ready().await;
        let stream = TcpStream::connect(&waiting.address).await.unwrap();
        let (mut kept, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut live = async || {
            let request = Request::get("/web-push/live").header("host", "localhost");
            let request = request.body(Empty::<Bytes>::new()).unwrap();
            let answer = kept.send_request(request).await.ok()?;
            // An unread body would close the connection.
            answer.into_body().collect().await.ok()
        };
        assert!(live().await.is_some());
        database.start_again().await;
        let ready = async {
            while !waiting.is_ready().await {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(LIMIT, ready)
            .await
            .expect("it does not become ready");
        // A connection of the wait is closed, in use or not: its answers would go on.
        let closed = async {
            while live().await.is_some() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, closed).await.expect("it stays open");
        let mut lines = BufReader::new(waiting.process.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        assert_eq!(line, format!("Open http://{}/", waiting.address));
        assert_eq!(waiting.get("/web-push/vapid").await.status, StatusCode::OK);
        waiting.signal("TERM").await;
        assert_eq!(waiting.ended().await, Some(0));
    }
}

pub(crate) async fn sigterm_ends_the_wait(name: &str) {
    let (port, closed) = (Port::free(), Port::free());
    let postgres = format!("postgres://u:hunter2@127.0.0.1:{}/d", closed.number());
    let redis = format!("redis://:hunter2@127.0.0.1:{}", closed.number());
    for url in [postgres, redis] {
        let mut waiting = Waiting::start(name, &url, &port).await;
        let client = HttpClient::new(format!("http://{}", waiting.address));
        for _ in 0..3 {
            let refused = client.call(Method::GET, "/metrics").bearer("guessed");
            assert_eq!(refused.send().await.status, StatusCode::UNAUTHORIZED);
        }
        waiting.signal("TERM").await;
        assert_eq!(waiting.ended().await, Some(0));
        let mut printed = String::new();
        let mut log = waiting.process.stderr.take().unwrap();
        log.read_to_string(&mut printed).await.unwrap();
        assert!(!printed.contains("hunter2"), "{printed}");
        // Refused credentials leave one line, and one at the end with the number of the others. Requests without any leave none.
        let refused = "administrators' requests were refused while the server waits for its store";
        let lines: Vec<_> = printed
            .lines()
            .filter(|line| line.contains(refused))
            .collect();
        assert_eq!(lines.len(), 2, "{printed}");
        assert!(lines[0].contains("127.0.0.1"), "{printed}");
        assert!(lines[0].ends_with("requests=1"), "{printed}");
        assert!(lines[1].ends_with("requests=2"), "{printed}");
        assert!(!printed.contains("guessed"), "{printed}");
        let mut printed = String::new();
        let mut output = waiting.process.stdout.take().unwrap();
        output.read_to_string(&mut printed).await.unwrap();
        assert_eq!(printed, "");
    }
}
