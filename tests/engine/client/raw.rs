//! An HTTP/2 server of frames, which the test drives: no library decides what is sent, or when.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinSet, yield_now};
use tokio_rustls::server::TlsStream;
use tower::ServiceExt as _;
use tower_web_push::deliver::{HttpClient, HttpClientBuilder, HttpError};
use tower_web_push::push_request::PushBody;

use super::unprocessed::frame;
use super::world::local;
use crate::support::push_server::{acceptor, certificate};

/// What the client does on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A whole request: its stream, and its body.
    Request(u32, String),
    /// RST_STREAM: its stream, and the error code.
    Reset(u32, u32),
    /// GOAWAY: the error code.
    GoAway(u32),
    Closed,
}

pub(super) struct Server {
    pub(super) port: u16,
    pub(super) client: HttpClient,
    connections: UnboundedReceiver<Peer>,
    opened: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

/// The server's side of a connection.
pub(super) struct Peer {
    writer: WriteHalf<TlsStream<TcpStream>>,
    events: UnboundedReceiver<Event>,
    streams: Arc<Mutex<Streams>>,
}

/// The streams of a connection.
#[derive(Debug, Default)]
struct Streams {
    open: Vec<u32>,
    /// The most at once since it was last asked.
    most: usize,
    opened: usize,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::start_with(|client| client).await
    }

    /// A server, and a client that has these settings too.
    pub(super) async fn start_with(
        set: impl FnOnce(HttpClientBuilder) -> HttpClientBuilder,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let certified = certificate();
        let tls = acceptor(&[b"h2"], &certified);
        let (found, connections) = unbounded_channel();
        let opened = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&opened);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut readers = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                count.fetch_add(1, SeqCst);
                tcp.set_nodelay(true).unwrap();
                let (reader, writer) = tokio::io::split(tls.accept(tcp).await.unwrap());
                let (seen, events) = unbounded_channel();
                let streams = Arc::default();
                readers.spawn(read(reader, seen, Arc::clone(&streams)));
                let _ = found.send(Peer {
                    writer,
                    events,
                    streams,
                });
            }
        });
        let client = set(local().extra_root_ca_pem(certified.cert.pem())).build();
        Self {
            port,
            client: client.unwrap(),
            connections,
            opened,
            _tasks: tasks,
        }
    }

    /// The connections that were opened so far.
    pub(super) fn opened(&self) -> usize {
        self.opened.load(SeqCst)
    }

    /// The next connection, after the server's SETTINGS. `None` as the number of streams leaves it out.
    pub(super) async fn accept(&mut self, streams: Option<u32>) -> Peer {
        let mut peer = self.accept_silently().await;
        peer.settings(streams).await;
        peer
    }

    /// The next connection, before the server's SETTINGS.
    pub(super) async fn accept_silently(&mut self) -> Peer {
        self.connections.recv().await.unwrap()
    }

    /// Sends a message. Its body tells it from others.
    pub(super) fn post<B: ToString>(
        &self,
        body: B,
    ) -> impl Future<Output = Result<StatusCode, HttpError>> + use<B> {
        let request = Request::post(format!("https://localhost:{}/p", self.port));
        let request = request.body(PushBody::new(body.to_string())).unwrap();
        let response = self.client.clone().oneshot(request);
        async move { response.await.map(|response| response.status()) }
    }
}

impl Server {
    /// Whether a message is answered, on a new connection.
    pub(super) async fn post_is_answered(&mut self) -> bool {
        let request = tokio::spawn(self.post("another"));
        let mut peer = self.accept(Some(100)).await;
        let (stream, _) = peer.request().await;
        peer.answer(stream).await;
        request.await.unwrap().is_ok()
    }
}

/// Reads the client's frames. SETTINGS and pings are acknowledged by the test's `Peer`, lest two tasks write.
async fn read(
    mut reader: ReadHalf<TlsStream<TcpStream>>,
    seen: UnboundedSender<Event>,
    streams: Arc<Mutex<Streams>>,
) {
    const END: u8 = 1;
    let frames = async {
        let mut preface = [0; 24];
        reader.read_exact(&mut preface).await?;
        let mut bodies = std::collections::HashMap::<u32, Vec<u8>>::new();
        loop {
            let mut head = [0; 9];
            reader.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let mut payload = vec![0; length as usize];
            reader.read_exact(&mut payload).await?;
            let code = |from: usize| {
                let octets = payload.get(from..from + 4).unwrap();
                u32::from_be_bytes(octets.try_into().unwrap())
            };
            match head[3] {
                1 => {
                    let mut streams = streams.lock().unwrap();
                    streams.open.push(stream);
                    streams.opened += 1;
                    streams.most = streams.most.max(streams.open.len());
                }
                0 => {
                    let body = bodies.entry(stream).or_default();
                    body.extend(&payload);
                    if head[4] & END != 0 {
                        let body = bodies.remove(&stream).unwrap();
                        let body = String::from_utf8_lossy(&body).into_owned();
                        let _ = seen.send(Event::Request(stream, body));
                    }
                }
                3 => {
                    streams.lock().unwrap().close(stream);
                    let _ = seen.send(Event::Reset(stream, code(0)));
                }
                7 => drop(seen.send(Event::GoAway(code(4)))),
                _ => {}
            }
        }
    };
    let _: std::io::Result<()> = frames.await;
    let _ = seen.send(Event::Closed);
}

impl Streams {
    fn close(&mut self, stream: u32) {
        self.open.retain(|other| *other != stream);
    }
}

impl Peer {
    async fn write(&mut self, frame: &[u8]) {
        // The client may have closed the connection.
        let _ = self.writer.write_all(frame).await;
        let _ = self.writer.flush().await;
    }

    pub(super) async fn settings(&mut self, streams: Option<u32>) {
        let value = streams.map(|streams| [&[0, 3][..], &streams.to_be_bytes()].concat());
        self.write(&frame(4, 0, 0, &value.unwrap_or_default()))
            .await;
    }

    /// Answers by `:status: 200`, the end of the headers and of the stream.
    pub(super) async fn answer(&mut self, stream: u32) {
        self.streams.lock().unwrap().close(stream);
        self.write(&frame(1, 5, stream, &[0x88])).await;
    }

    /// Answers by `:status: 200` and so many headers of 4,000 octets each, and the end of the stream.
    pub(super) async fn answer_at_length(&mut self, stream: u32, headers: usize) {
        const END_OF_STREAM: u8 = 1;
        const END_OF_HEADERS: u8 = 4;
        self.streams.lock().unwrap().close(stream);
        // As in RFC 7541: a literal that is not indexed, its length in seven bits and more octets for the rest.
        let header = [&[0, 1, b'x', 127, 0xa1, 0x1e][..], &[b'y'; 4000]].concat();
        let last = |number| if number == headers { END_OF_HEADERS } else { 0 };
        self.write(&frame(1, END_OF_STREAM | last(0), stream, &[0x88]))
            .await;
        for number in 1..=headers {
            self.write(&frame(9, last(number), stream, &header)).await;
        }
    }

    /// Answers by `:status: 200` and the end of the headers. The body follows.
    pub(super) async fn head(&mut self, stream: u32) {
        self.write(&frame(1, 4, stream, &[0x88])).await;
    }

    /// The rest of a response: a body, and the end of the stream.
    pub(super) async fn body(&mut self, stream: u32, body: &[u8]) {
        self.streams.lock().unwrap().close(stream);
        self.write(&frame(0, 1, stream, body)).await;
    }

    pub(super) async fn reset(&mut self, stream: u32, reason: u32) {
        self.streams.lock().unwrap().close(stream);
        self.write(&frame(3, 0, stream, &reason.to_be_bytes()))
            .await;
    }

    pub(super) async fn go_away(&mut self, last: u32, reason: u32) {
        let payload = [last.to_be_bytes(), reason.to_be_bytes()].concat();
        self.write(&frame(7, 0, 0, &payload)).await;
    }

    pub(super) async fn close(&mut self) {
        self.writer.shutdown().await.unwrap();
    }

    pub(super) async fn next(&mut self) -> Event {
        self.events.recv().await.unwrap()
    }

    /// The next request: its stream, and its body.
    pub(super) async fn request(&mut self) -> (u32, String) {
        match self.next().await {
            Event::Request(stream, body) => (stream, body),
            other => panic!("{other:?} instead of a request"),
        }
    }

    /// This number of requests.
    pub(super) async fn requests(&mut self, number: usize) -> Vec<(u32, String)> {
        let mut requests = Vec::new();
        while requests.len() < number {
            requests.push(self.request().await);
        }
        requests
    }

    /// What has arrived and was not taken.
    pub(super) fn rest(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    /// The most streams at once since it was last asked, and all that were ever opened.
    pub(super) fn most(&self) -> (usize, usize) {
        let mut streams = self.streams.lock().unwrap();
        let most = streams.most;
        streams.most = streams.open.len();
        (most, streams.opened)
    }
}

/// Time for all that can go on without the test, over real sockets too.
pub(super) async fn settle() {
    for _ in 0..2000 {
        yield_now().await;
    }
}
