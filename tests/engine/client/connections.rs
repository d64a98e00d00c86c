//! How connections are opened, shared and reopened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use http::{Request, StatusCode, Version};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::ServiceExt as _;
use tower_web_push::deliver::{EndpointPolicy, HttpClient, OriginGates, Outcome};
use tower_web_push::push_request::PushBody;
use tower_web_push::subscription::Origin;

use super::world::{Rebinding, fixed, local, over, push, send, to, url};
#[cfg(target_os = "linux")]
use crate::support::push_server::PLAIN;
use crate::support::push_server::{Answering, BOTH, HTTP1, NO_ALPN, PushServer, answer};

#[tokio::test]
async fn a_push_goes_over_http2_and_is_accepted() {
    let headers = &[("location", "https://localhost/m/1"), ("ttl", "60")];
    let (server, seen) = fixed(BOTH, 201, headers).await;
    let deliver = to(&server);
    let accepted = send(&deliver, &url(&server, "/p/1?a=%2F")).await.unwrap();
    assert_eq!(accepted.status(), StatusCode::CREATED);
    assert_eq!(accepted.location(), Some("https://localhost/m/1"));
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].version(), Version::HTTP_2);
    assert_eq!(seen[0].uri().path_and_query().unwrap(), "/p/1?a=%2F");
    assert_eq!(seen[0].headers()["content-encoding"], "aes128gcm");
    let len = seen[0].headers()["content-length"].to_str().unwrap();
    assert_eq!(len.parse(), Ok(seen[0].body().len()));
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let (server, seen) = fixed(BOTH, 201, &[]).await;
    let deliver = to(&server);
    for _ in 0..5 {
        send(&deliver, &url(&server, "/p")).await.unwrap();
    }
    assert_eq!(seen.lock().unwrap().len(), 5);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_origin_has_one_connection_however_it_is_spelled() {
    let (server, seen) = fixed(BOTH, 201, &[]).await;
    let client = local().extra_root_ca_pem(server.ca_pem.as_str());
    let client = client.build().unwrap();
    for number in 0..20 {
        let host = ["localhost", "LOCALHOST", "LocalHost", "localHost"][number % 4];
        let zeros = "0".repeat(number / 4);
        let uri = format!("https://{host}:{zeros}{}/p/{number}", server.port());
        let request = Request::post(uri).body(PushBody::new("x")).unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
    }
    assert_eq!(seen.lock().unwrap().len(), 20);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_burst_opens_one_http2_connection() {
    let (server, seen) = fixed(BOTH, 201, &[]).await;
    let deliver = to(&server);
    let endpoint = url(&server, "/p");
    let sent = join_all((0..100).map(|_| send(&deliver, &endpoint))).await;
    for sent in &sent {
        assert!(sent.is_ok(), "{sent:?}");
    }
    assert_eq!(seen.lock().unwrap().len(), 100);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_server_without_http2_gets_http1_and_is_remembered() {
    for alpn in [HTTP1, NO_ALPN] {
        let (server, seen) = fixed(alpn, 201, &[]).await;
        let deliver = to(&server);
        for _ in 0..3 {
            send(&deliver, &url(&server, "/p")).await.unwrap();
        }
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 3);
        for request in seen.iter() {
            assert_eq!(request.version(), Version::HTTP_11);
            assert!(!request.headers().contains_key("transfer-encoding"));
            assert!(request.headers().contains_key("content-length"));
        }
        // One to learn the protocol, one for the request.
        assert_eq!(server.connections(), 2);
    }
}

#[tokio::test]
async fn a_burst_to_a_server_without_http2_asks_once() {
    let (server, seen) = fixed(HTTP1, 201, &[]).await;
    let deliver = to(&server);
    let endpoint = url(&server, "/p");
    let sent = join_all((0..10).map(|_| send(&deliver, &endpoint))).await;
    for sent in &sent {
        assert!(sent.is_ok(), "{sent:?}");
    }
    assert_eq!(seen.lock().unwrap().len(), 10);
    assert!(server.connections() <= 11, "{}", server.connections());
}

#[tokio::test]
async fn as_many_requests_are_in_flight_per_origin_as_the_gate_allows() {
    let door = Arc::new(Semaphore::new(0));
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (door, inside, most) = (Arc::clone(&door), Arc::clone(&inside), Arc::clone(&most));
        move |_| {
            let (door, inside, most) = (Arc::clone(&door), Arc::clone(&inside), Arc::clone(&most));
            let answering: Answering = Box::pin(async move {
                let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                if now == 40 {
                    // All permits are in use.
                    door.add_permits(Semaphore::MAX_PERMITS / 2);
                }
                let _through = door.acquire().await.unwrap();
                inside.fetch_sub(1, Ordering::SeqCst);
                answer(201, &[], "")
            });
            answering
        }
    };
    let server = PushServer::start(BOTH, handler).await;
    let deliver = to(&server).with_gates(OriginGates::with_in_flight_between(40, 40));
    let endpoint = url(&server, "/p");
    let sent = join_all((0..150).map(|_| send(&deliver, &endpoint))).await;
    for sent in &sent {
        assert!(sent.is_ok(), "{sent:?}");
    }
    assert_eq!(most.load(Ordering::SeqCst), 40);
}

#[tokio::test]
async fn a_server_that_is_restarted_is_reached_again() {
    let (server, _) = fixed(BOTH, 201, &[]).await;
    let deliver = to(&server);
    let endpoint = url(&server, "/p");
    send(&deliver, &endpoint).await.unwrap();
    let addr = server.addr;
    drop(server);
    let error = send(&deliver, &endpoint).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Transient, "{addr}");
}

#[tokio::test]
async fn requests_that_wait_for_a_dial_learn_why_it_failed() {
    let resolver = Rebinding::to(&["10.0.0.1"]);
    let asked = Arc::clone(&resolver);
    let policy = EndpointPolicy::public_hosts();
    let deliver = over(HttpClient::builder().resolver(resolver), policy)
        .with_gates(OriginGates::with_in_flight_between(20, 20));
    let sent = join_all((0..20).map(|_| send(&deliver, "https://push.example.com/p"))).await;
    for error in sent {
        assert_eq!(error.unwrap_err().outcome(), Outcome::Refused);
    }
    assert_eq!(asked.asked.load(Ordering::SeqCst), 1, "one dial for all");
}

#[tokio::test]
async fn a_dial_that_its_request_gave_up_is_taken_over() {
    let (server, seen) = fixed(BOTH, 201, &[]).await;
    let deliver = to(&server);
    let endpoint = url(&server, "/p");
    let mut first = Box::pin(send(&deliver, &endpoint));
    assert!((&mut first).now_or_never().is_none());
    let mut second = Box::pin(send(&deliver, &endpoint));
    assert!((&mut second).now_or_never().is_none());
    drop(first);
    second.await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[test]
fn the_client_is_send_and_sync() {
    fn everywhere<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: &T) {}
    fn sendable<T: Send + 'static>(_: &T) {}
    let deliver = over(HttpClient::builder(), EndpointPolicy::default());
    everywhere(&deliver);
    sendable(&deliver.oneshot(push("https://fcm.googleapis.com/x")));
}

/// The time of a handshake is not that of the push service: otherwise each new connection would seem to show a queue there, and
/// end the growth of the limit.
#[tokio::test]
async fn a_slow_handshake_does_not_keep_the_limit_from_growing() {
    // Answers that take a fifth longer end the growth. A handshake would be that much, and a delay by a busy machine is not.
    const ANSWER: Duration = Duration::from_secs(3);
    const HANDSHAKE: Duration = Duration::from_secs(2);
    let server = PushServer::start(BOTH, |_| {
        Box::pin(async {
            sleep(ANSWER).await;
            answer(201, &[], "")
        })
    })
    .await;
    let is_slow = Arc::new(AtomicBool::new(false));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (delays, to_server) = (Arc::clone(&is_slow), server.addr);
    let mut path = JoinSet::new();
    // A path to the server on which connections are made slowly.
    path.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let delays = Arc::clone(&delays);
            connections.spawn(async move {
                if delays.load(Ordering::SeqCst) {
                    sleep(HANDSHAKE).await;
                }
                let mut server = TcpStream::connect(to_server).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    let deliver = to(&server);
    let endpoint = format!("https://localhost:{port}/p");
    send(&deliver, &endpoint).await.unwrap();
    is_slow.store(true, Ordering::SeqCst);
    server.break_connections();
    // The client sees the end of the connection.
    sleep(Duration::from_secs(1)).await;
    let started = Instant::now();
    let sent = join_all((0..8).map(|_| send(&deliver, &endpoint))).await;
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    assert!(started.elapsed() >= HANDSHAKE + ANSWER);
    let origin = Origin::parse(&format!("https://localhost:{port}")).unwrap();
    let limit = deliver.gates().gate(&origin).limit();
    assert!(limit > 8, "{limit}");
}

/// An address of loopback that takes no connection: its queue is full.
#[cfg(target_os = "linux")]
async fn silent(port: u16) -> (TcpListener, Vec<TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    let addr = std::net::SocketAddr::from(([127, 0, 0, 2], port));
    socket.bind(addr).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut queue = Vec::new();
    let patience = Duration::from_millis(500);
    while let Ok(connected) = tokio::time::timeout(patience, TcpStream::connect(addr)).await {
        queue.push(connected.unwrap());
    }
    (listener, queue)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_silent_address_leaves_time_for_the_next_one() {
    let (server, _) = fixed(PLAIN, 201, &[]).await;
    let _silent = silent(server.port()).await;
    let client = local()
        .resolver(Rebinding::to(&["127.0.0.2", "127.0.0.1"]))
        .connect_timeout(Duration::from_secs(4));
    let deliver = over(client, EndpointPolicy::insecure_allow_local());
    let endpoint = format!("http://push.localhost:{}/p", server.port());
    let sent = send(&deliver, &endpoint).await;
    assert!(sent.is_ok(), "{sent:?}");
}
