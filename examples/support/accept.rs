//! The accept loop of both servers: axum's own sets no timers, and neither limits connections.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use pin_project_lite::pin_project;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceExt as _};

use super::BoxError;
use super::connections::{self, Connections, Open};
use super::request_rules::RequestRules;
use super::shutdown::Shutdown;

/// The longest request head, in octets: the request line or pseudo-headers, and all headers.
const HEAD: usize = 16 * 1024;
/// The most headers of an HTTP/1 request. In HTTP/2 each counts 32 octets more than its text (RFC 9113 section 6.5.2).
const HEADERS: usize = 100;
/// The most concurrent requests of an HTTP/2 connection: the least that RFC 9113 section 6.5.2 recommends.
const STREAMS: u32 = 100;
/// Octets of a body that are buffered before it is read: the default of RFC 9113 section 6.9.2.
const WINDOW: u32 = 65_535;
/// How long a connection may take to close gracefully.
const GOODBYE: Duration = Duration::from_secs(1);
/// The soft limit on open files is raised to this, as far as the hard limit allows.
const FILES: u64 = 65_536;
/// The most connections, whatever the limit on open files. Each may hold a request head: 64 MiB in all.
const CONNECTIONS: usize = 4_096;

/// Accepts connections and serves HTTP/1 and HTTP/2 on them, within limits.
pub(crate) struct Acceptor {
    pub(super) listener: TcpListener,
    pub(super) connections: Connections,
    pub(super) rules: RequestRules,
    pub(super) shutdown: Shutdown,
}

impl Acceptor {
    /// Serves until the shutdown signal, then until no request is in flight.
    ///
    /// Connections are always accepted. At the limit another one is closed for the new one: if the server stopped
    /// accepting, idle connections could hold every place.
    pub(crate) async fn serve<S, B>(self, service: S) -> io::Result<()>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut stop = pin!(self.shutdown.clone().begun());
        let mut tasks = JoinSet::new();
        let mut failures = Failures::default();
        for id in 0.. {
            while tasks.try_join_next().is_some() {}
            let accept = async {
                let (stream, address) = self.listener.accept().await?;
                Ok::<_, io::Error>((stream, address, self.connections.enter(id, address).await))
            };
            let accepted = tokio::select! {
                () = &mut stop => break,
                accepted = accept => accepted,
            };
            match accepted {
                Ok((stream, address, open)) => {
                    failures = Failures {
                        pause: Duration::ZERO,
                        ..failures
                    };
                    let (rules, shutdown) = (self.rules.clone(), self.shutdown.clone());
                    tasks.spawn(drive(
                        stream,
                        address,
                        open,
                        rules,
                        service.clone(),
                        shutdown,
                    ));
                }
                Err(error) => {
                    // There may be no file left for it.
                    self.connections.evict();
                    let pause = failures.add(&error);
                    tokio::select! {
                        () = &mut stop => break,
                        () = sleep(pause) => {}
                    }
                }
            }
        }
        drop(self.listener);
        while tasks.join_next().await.is_some() {}
        Ok(())
    }
}

/// Serves one connection until it ends, is idle for too long or is closed for a new one.
async fn drive<S, B>(
    stream: TcpStream,
    address: SocketAddr,
    // Dropped last: the connection counts until its file is closed.
    open: Open,
    rules: RequestRules,
    service: S,
    shutdown: Shutdown,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    // Responses are small and written at once, so delaying packets gains nothing.
    let _ = stream.set_nodelay(true);
    let connection = open.connection();
    let requests = open.connection();
    let service = service_fn(move |request| {
        let mut under_way = requests.request();
        let admitted = rules.admit(request, address.ip());
        let service = service.clone();
        async move {
            let response = match admitted {
                Ok(request) => service.oneshot(request).await?.map(Either::Left),
                Err(refusal) => refusal.map(Either::Right),
            };
            under_way.answered();
            Ok::<_, Infallible>(response.map(|body| CountedBody { body, under_way }))
        }
    });
    let http = http();
    let mut serving = pin!(http.serve_connection(TokioIo::new(stream), service));
    let draining = tokio::select! {
        ended = serving.as_mut() => return log(ended),
        () = connection.evicted() => return,
        () = connection.quiet_too_long() => false,
        () = shutdown.begun() => true,
    };
    serving.as_mut().graceful_shutdown();
    loop {
        tokio::select! {
            ended = serving.as_mut() => return log(ended),
            () = connection.evicted() => return,
            () = sleep(GOODBYE) => if !draining || connection.is_over() {
                return;
            },
        }
    }
}

pin_project! {
    /// A response body: the request ends when it has been sent or dropped.
    struct CountedBody<B> {
        #[pin]
        body: B,
        under_way: connections::Request,
    }
}

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn http() -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    // hyper's own timers begin only once the version is known, which 23 octets of the HTTP/2 preface put off for
    // ever, and an HTTP/2 connection that answers pings never expires. So the deadlines are the connection's.
    http.http1().max_buf_size(HEAD).max_headers(HEADERS);
    http.http2()
        .max_header_list_size(HEAD as u32)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(WINDOW as usize);
    http
}

fn log(ended: Result<(), BoxError>) {
    if let Err(error) = ended {
        tracing::debug!(error, "connection failed");
    }
}

/// Raises the soft limit on open files. Returns how many connections it allows: half of the files. A quarter is for
/// connections to push services; the rest is for lookups and the store.
pub(super) fn connection_limit() -> usize {
    let files = rlimit::increase_nofile_limit(FILES).unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit on open files could not be raised");
        256
    });
    let connections = usize::try_from(files / 2).unwrap_or(CONNECTIONS);
    connections.clamp(1, CONNECTIONS)
}

/// Errors of `accept` in a row.
#[derive(Default)]
struct Failures {
    pause: Duration,
    logged: Option<Instant>,
    unlogged: u64,
}

impl Failures {
    const LOG_EVERY: Duration = Duration::from_secs(60);
    const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
    const LONGEST_PAUSE: Duration = Duration::from_secs(1);

    /// Logs the first error and then one a minute. Returns how long to wait: an error of the process, such as too many
    /// open files, would come again at once, and for ever.
    fn add(&mut self, error: &io::Error) -> Duration {
        if self.logged.is_none_or(|at| at.elapsed() >= Self::LOG_EVERY) {
            tracing::warn!(%error, unlogged = self.unlogged, "a connection was not accepted");
            self.logged = Some(Instant::now());
            self.unlogged = 0;
        } else {
            self.unlogged += 1;
        }
        if is_of_the_connection(error) {
            return Duration::ZERO;
        }
        self.pause = (self.pause * 2).clamp(Self::SHORTEST_PAUSE, Self::LONGEST_PAUSE);
        self.pause
    }
}

/// Whether an error concerns one connection, which was closed before it was accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
