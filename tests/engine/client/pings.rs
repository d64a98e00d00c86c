//! Pings are for connections with requests under way: servers take others for abuse.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio_rustls::server::TlsStream;
use tower::ServiceExt as _;
use tower_web_push::deliver::HttpClient;
use tower_web_push::push_request::PushBody;

use super::unprocessed::frame;
use super::world::local;
use crate::support::push_server::{acceptor, certificate};

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    connections: usize,
    closed: usize,
    requests: usize,
    pings: usize,
}

struct Server {
    port: u16,
    client: HttpClient,
    seen: watch::Sender<Seen>,
    /// Whether requests are answered.
    answers: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let certified = certificate();
        let tls = acceptor(&[b"h2"], &certified);
        let seen = watch::Sender::new(Seen::default());
        let answers = Arc::new(AtomicBool::new(true));
        let (log, answering) = (seen.clone(), Arc::clone(&answers));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                let (tls, log, answering) = (tls.clone(), log.clone(), Arc::clone(&answering));
                connections.spawn(async move {
                    log.send_modify(|seen| seen.connections += 1);
                    if let Ok(tls) = tls.accept(tcp).await {
                        // It ends when the client closes the connection.
                        let _ = serve(tls, &log, &answering).await;
                    }
                    log.send_modify(|seen| seen.closed += 1);
                });
            }
        });
        let client = local().extra_root_ca_pem(certified.cert.pem()).build();
        Self {
            port,
            client: client.unwrap(),
            seen,
            answers,
            _tasks: tasks,
        }
    }

    fn post(&self) -> impl Future<Output = StatusCode> + use<> {
        let request = Request::post(format!("https://localhost:{}/p", self.port));
        let request = request.body(PushBody::new("x")).unwrap();
        let response = self.client.clone().oneshot(request);
        async move { response.await.unwrap().status() }
    }

    async fn until(&self, is_seen: impl FnMut(&Seen) -> bool) {
        self.seen.subscribe().wait_for(is_seen).await.unwrap();
    }

    /// As [`until`](Self::until) while simulated time stands still: what a timer does later does not count.
    async fn at_once(&self, is_seen: impl Fn(&Seen) -> bool) -> bool {
        tokio::time::pause();
        let limit = std::time::Instant::now() + Duration::from_secs(60);
        while !is_seen(&self.now()) && std::time::Instant::now() < limit {
            yield_now().await;
        }
        tokio::time::resume();
        is_seen(&self.now())
    }

    fn now(&self) -> Seen {
        *self.seen.borrow()
    }
}

/// The least of HTTP/2 that a client can talk to.
async fn serve(
    mut tls: TlsStream<TcpStream>,
    seen: &watch::Sender<Seen>,
    answers: &AtomicBool,
) -> std::io::Result<()> {
    const END: u8 = 1;
    let mut preface = [0; 24];
    tls.read_exact(&mut preface).await?;
    tls.write_all(&frame(4, 0, 0, &[])).await?;
    loop {
        let mut head = [0; 9];
        tls.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        tls.read_exact(&mut payload).await?;
        let reply = match (head[3], head[4]) {
            (4, flags) if flags & 1 == 0 => frame(4, 1, 0, &[]),
            (6, flags) if flags & 1 == 0 => {
                seen.send_modify(|seen| seen.pings += 1);
                frame(6, 1, 0, &payload)
            }
            (0, flags) if flags & END != 0 => {
                seen.send_modify(|seen| seen.requests += 1);
                if !answers.load(SeqCst) {
                    continue;
                }
                // `:status: 200`, the end of the headers and of the stream.
                frame(1, 5, stream, &[0x88])
            }
            _ => continue,
        };
        tls.write_all(&reply).await?;
        tls.flush().await?;
    }
}

/// Lets simulated time pass, with time for what arrives over real sockets.
pub(super) async fn pass(time: Duration) {
    tokio::time::pause();
    for _ in 0..time.as_secs() {
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..200 {
            yield_now().await;
        }
    }
    tokio::time::resume();
}

#[tokio::test]
async fn an_idle_connection_is_not_pinged_and_is_closed_after_ninety_seconds() {
    let server = Server::start().await;
    for requests in 1..=4 {
        assert_eq!(server.post().await, StatusCode::OK);
        let before = server.now();
        assert_eq!((before.connections, before.requests), (1, requests));
        assert_eq!(before.pings, 0);
        if requests < 4 {
            pass(Duration::from_secs(80)).await;
            assert_eq!(server.now().pings, 0);
        }
    }
    pass(Duration::from_secs(200)).await;
    server.until(|seen| seen.closed == 1).await;
    assert_eq!(server.now().pings, 0);
}

#[tokio::test]
async fn a_connection_with_a_request_under_way_is_pinged() {
    let server = Server::start().await;
    server.answers.store(false, SeqCst);
    let waiting = tokio::spawn(server.post());
    server.until(|seen| seen.requests == 1).await;
    pass(Duration::from_secs(45)).await;
    server.until(|seen| seen.pings >= 2).await;
    // After 4 s, 8 s, 16 s: servers count pings without responses.
    assert_eq!(server.now().pings, 3);
    assert_eq!(server.now().connections, 1);
    assert!(!waiting.is_finished());
    waiting.abort();
}

/// However long the response takes: a connection that broke without a sign is noticed in half a minute.
#[tokio::test]
async fn pings_go_on_every_twenty_seconds() {
    let server = Server::start().await;
    server.answers.store(false, SeqCst);
    let waiting = tokio::spawn(server.post());
    server.until(|seen| seen.requests == 1).await;
    pass(Duration::from_secs(45)).await;
    assert!(server.at_once(|seen| seen.pings >= 3).await);
    assert_eq!(server.now().pings, 3);
    // The fourth would come 32 s after the third if the pauses doubled without end.
    pass(Duration::from_secs(10)).await;
    assert!(
        server.at_once(|seen| seen.pings >= 4).await,
        "{:?}",
        server.now()
    );
    assert_eq!((server.now().pings, server.now().connections), (4, 1));
    assert!(!waiting.is_finished());
    waiting.abort();
}
