//! Clients that hold connections, and requests that no normal client makes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::world::World;
use crate::support::http_client::HttpClient;
use crate::support::server_process::ServerProcess;

/// Connections that have sent no whole request are closed after 10 s.
const BEFORE_THEY_ARE_CLOSED: Duration = Duration::from_secs(9);
/// The client's side of a new HTTP/2 connection (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// `SETTINGS_INITIAL_WINDOW_SIZE` of 0, and a `GET /`: the response is never read.
const UNREAD: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0\
    \0\0\x0e\x01\x05\0\0\0\x01\x82\x86\x84\x41\x09127.0.0.1";
const HALF_A_HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx-header: ";
/// The first octets of a browser that expects https.
const TLS_HELLO: &[u8] = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";

/// The first response may be late: the first poll for due work makes the server ready.
async fn ready(client: &HttpClient) {
    let ready = async {
        while client.get("/web-push/ready").await.status != StatusCode::OK {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), ready)
        .await
        .expect("it never gets ready");
}

fn address(server: &ServerProcess) -> &str {
    server.url.strip_prefix("http://").unwrap()
}

async fn connect(server: &ServerProcess, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address(server)).await.unwrap();
    // The server may have closed it already.
    let _ = stream.write_all(first).await;
    stream
}

/// Returns everything that the server answers until it closes.
async fn answer(server: &ServerProcess, request: &[u8]) -> String {
    let mut stream = connect(server, request).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = timeout(Duration::from_secs(60), read)
        .await
        .expect("it is not closed");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn status(server: &ServerProcess, request: &str) -> Option<u16> {
    let answer = answer(server, request.as_bytes()).await;
    answer.split(' ').nth(1)?.parse().ok()
}

/// Whether `/ready` answers within a second, as promised. On a busy machine there are some tries, before the connections that are
/// held since a moment have to be closed.
async fn is_ready(server: &ServerProcess, held_since: Instant) -> bool {
    let mut tries = 0;
    while tries < 5 || held_since.elapsed() < BEFORE_THEY_ARE_CLOSED {
        tries += 1;
        let client = HttpClient::new(&server.url);
        let ready = timeout(Duration::from_secs(1), client.get("/web-push/ready")).await;
        if ready.is_ok_and(|ready| ready.status == StatusCode::OK) {
            return true;
        }
    }
    false
}

pub(crate) async fn idle_connections_keep_no_one_out(name: &str) {
    let world = World::new().await;
    let store_url = world.store_url();
    let settings = World::settings(&store_url);
    let server = ServerProcess::start_with_files(name, 256, &settings).await;
    ready(&HttpClient::new(&server.url)).await;
    let served = b"GET /web-push/ping HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".as_slice();
    let h2_idle = [PREFACE, SETTINGS].concat();
    let half_a_body = b"POST /web-push/subscribe HTTP/1.1\r\nhost: 127.0.0.1\r\n\
        content-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    let mut held = Vec::new();
    for kind in [
        b"",
        HALF_A_HEAD,
        &PREFACE[..23],
        &h2_idle,
        served,
        half_a_body,
    ] {
        let held_since = Instant::now();
        for _ in 0..300 {
            held.push(connect(&server, kind).await);
        }
        let kind = String::from_utf8_lossy(kind);
        assert!(
            is_ready(&server, held_since).await,
            "no answer beside 300 of {kind:?}"
        );
    }
    drop(held);
}

pub(crate) async fn answers_that_are_not_read_keep_no_one_out(name: &str) {
    let world = World::new().await;
    let store_url = world.store_url();
    let mut settings = World::settings(&store_url);
    // Behind a proxy no address loses a connection because it has many.
    settings.push(("TRUSTED_PROXIES", "1"));
    let server = ServerProcess::start_with_files(name, 256, &settings).await;
    ready(&HttpClient::new(&server.url)).await;
    let unread = [PREFACE, UNREAD].concat();
    let mut held = Vec::new();
    let held_since = Instant::now();
    // All connections, and fewer than the system queues.
    for _ in 0..150 {
        held.push(connect(&server, &unread).await);
    }
    assert!(is_ready(&server, held_since).await, "no answer");
    drop(held);
}

pub(crate) async fn slow_clients_are_closed(name: &str) {
    let world = World::new().await;
    let (server, _) = world.start(name, &[]).await;
    let mut clients = JoinSet::new();
    let h2_idle = [PREFACE, SETTINGS].concat();
    for first in [
        b"".as_slice(),
        b"P",
        &PREFACE[..23],
        PREFACE,
        &h2_idle,
        HALF_A_HEAD,
        TLS_HELLO,
    ] {
        let mut stream = connect(&server, first).await;
        clients.spawn(async move { while !is_closed(stream.read(&mut [0; 1024]).await) {} });
    }
    // One octet a second, which a timeout between two octets would not detect.
    let mut stream = connect(&server, HALF_A_HEAD).await;
    clients.spawn(async move {
        loop {
            let _ = stream.write_all(b"x").await;
            let mut answer = [0; 1024];
            let read = timeout(Duration::from_secs(1), stream.read(&mut answer)).await;
            if read.is_ok_and(is_closed) {
                return;
            }
        }
    });
    // Some times the deadline, and less than an idle connection has.
    all(&mut clients, Duration::from_secs(45)).await;

    // After a response the connection may be idle for a minute. HTTP/2 answers pings all the time.
    let keep_alive = b"GET /web-push/ping HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
    let mut stream = connect(&server, keep_alive).await;
    clients.spawn(async move { while !is_closed(stream.read(&mut [0; 1024]).await) {} });
    let stream = TokioIo::new(connect(&server, b"").await);
    let (mut requests, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
    clients.spawn(async move {
        let _ = connection.await;
    });
    let request = Request::get(format!("{}/web-push/ping", server.url));
    let answer = requests.send_request(request.body(Empty::<Bytes>::new()).unwrap());
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body().collect().await.unwrap();
    all(&mut clients, Duration::from_secs(90)).await;
    drop(requests);
}

fn is_closed(read: std::io::Result<usize>) -> bool {
    !matches!(read, Ok(1..))
}

async fn all(clients: &mut JoinSet<()>, within: Duration) {
    let all = async {
        while let Some(closed) = clients.join_next().await {
            closed.unwrap();
        }
    };
    timeout(within, all)
        .await
        .unwrap_or_else(|_| panic!("some are still open"));
}

pub(crate) async fn a_drain_does_not_wait_for_them(name: &str) {
    let world = World::new().await;
    let (server, client) = world.start(name, &[]).await;
    ready(&client).await;
    let h2_idle = [PREFACE, SETTINGS].concat();
    let unread = [PREFACE, UNREAD].concat();
    let mut held = Vec::new();
    for first in [b"", &PREFACE[..23], PREFACE, &h2_idle, &unread, HALF_A_HEAD] {
        held.push(connect(&server, first).await);
    }
    ready(&client).await;
    // Later than the grace period would be an error.
    assert_eq!(server.terminate().await.code(), Some(0));
    drop(held);
}

pub(crate) async fn long_heads_are_refused(name: &str) {
    let world = World::new().await;
    let (server, client) = world.start(name, &[]).await;
    let long = "x".repeat(17 * 1024);
    let text = format!("GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx-header: {long}\r\n\r\n");
    assert_eq!(status(&server, &text).await, Some(431));
    let many = "x: y\r\n".repeat(101);
    let text = format!("GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n{many}\r\n");
    assert_eq!(status(&server, &text).await, Some(431));
    let fits = "x".repeat(15 * 1024);
    let fits = client.call(Method::GET, "/").header("x-header", &fits);
    assert_eq!(fits.send().await.status, StatusCode::OK);
}

pub(crate) async fn every_request_names_one_valid_host(name: &str) {
    let world = World::new().await;
    let known = [("ENDPOINT_POLICY", "known")];
    let (server, _) = world.start(name, &known).await;
    for path in ["/", "/nothing", "/web-push/vapid", "/api/vapid", "/metrics"] {
        for hosts in [
            "",
            "host: a.example\r\nhost: a.example\r\n",
            "host: a.example\r\nhost: b.example\r\n",
            "host:\r\n",
            "host: a b\r\n",
            "host: a.example/path\r\n",
            "host: user@a.example\r\n",
            "host: a.example:port\r\n",
            "host: a.example:65536\r\n",
            "host: [::1\r\n",
            "host: [a]\r\n",
            "host: a.example, b.example\r\n",
        ] {
            let text = format!("GET {path} HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
            assert_eq!(status(&server, &text).await, Some(400), "{text}");
        }
    }
    for request in [
        "GET / HTTP/1.1\r\nhost: a.example\r\n",
        "GET / HTTP/1.1\r\nhost: a.example:8080\r\n",
        "GET / HTTP/1.1\r\nhost: [2001:db8::1]:8080\r\n",
        "GET http://a.example/ HTTP/1.1\r\nhost: b.example\r\n",
        "GET / HTTP/1.0\r\n",
    ] {
        let text = format!("{request}connection: close\r\n\r\n");
        assert_eq!(status(&server, &text).await, Some(200), "{text}");
    }
    // HTTP/2 has it in `:authority`, and may repeat it in Host.
    let stream = TokioIo::new(connect(&server, b"").await);
    let (mut requests, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    for (uri, host, expected) in [
        ("http://a.example/", None, StatusCode::OK),
        ("http://a.example/", Some("a.example"), StatusCode::OK),
        (
            "http://a.example/",
            Some("b.example"),
            StatusCode::BAD_REQUEST,
        ),
        ("http://user@a.example/", None, StatusCode::BAD_REQUEST),
    ] {
        let mut request = Request::get(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answer = requests.send_request(request).await.unwrap();
        assert_eq!(answer.status(), expected, "{uri} {host:?}");
    }
    connection.abort();
}
