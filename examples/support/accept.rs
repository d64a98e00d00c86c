//! The accept loop of both servers: axum's own sets no timers, and neither limits connections.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
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
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;
use tower::{Service, ServiceExt as _};

use super::BoxError;
use super::connections::{self, Connections, Open};
use super::listeners::{Listeners, Stream};
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
/// The address that connections on a Unix socket count by.
pub(super) const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Accepts connections and serves HTTP/1 and HTTP/2 on them, within limits.
pub(crate) struct Acceptor {
    listeners: Listeners,
    tls: Option<TlsAcceptor>,
    connections: Connections,
    rules: RequestRules,
    shutdown: Shutdown,
    accepted: u64,
    /// One for each connection.
    tasks: JoinSet<()>,
}

impl Acceptor {
    /// Makes an acceptor of at most `limit` connections.
    pub(super) fn new(
        listeners: Listeners,
        tls: Option<TlsAcceptor>,
        limit: usize,
        rules: RequestRules,
        shutdown: Shutdown,
    ) -> Self {
        let direct = rules.trusted_proxies == 0 && listeners.have_addresses();
        Self {
            listeners,
            tls,
            connections: Connections::new(limit, direct),
            rules,
            shutdown,
            accepted: 0,
            tasks: JoinSet::new(),
        }
    }

    /// Returns a line for each socket, to be printed.
    pub(super) fn lines(&self) -> io::Result<Vec<String>> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        self.listeners.lines(scheme)
    }

    /// Serves until the shutdown signal, then until no request is in flight.
    pub(crate) async fn serve<S, B>(mut self, service: S) -> io::Result<()>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.accept(service, self.shutdown.clone()).await;
        drop(self.listeners);
        while self.tasks.join_next().await.is_some() {}
        Ok(())
    }

    /// Accepts connections until the signal, which ends those that it has accepted too, once no request is in flight.
    ///
    /// Connections are always accepted. At the limit another one is closed for the new one: if the server stopped
    /// accepting, idle connections could hold every place.
    ///
    /// # Cancel safety
    ///
    /// If dropped, a connection that waits for a place is closed. The others are served on.
    pub(super) async fn accept<S, B>(&mut self, service: S, until: Shutdown)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut stop = pin!(until.clone().begun());
        let mut failures = Failures::default();
        loop {
            while self.tasks.try_join_next().is_some() {}
            self.accepted += 1;
            let (listeners, connections, id) =
                (&mut self.listeners, &self.connections, self.accepted);
            let accept = async {
                let (stream, peer) = listeners.accept().await?;
                let address = peer.unwrap_or(LOCAL);
                Ok::<_, io::Error>((stream, peer, connections.enter(id, address).await))
            };
            let accepted = tokio::select! {
                () = &mut stop => break,
                accepted = accept => accepted,
            };
            match accepted {
                Ok((stream, peer, open)) => {
                    failures = Failures {
                        pause: Duration::ZERO,
                        ..failures
                    };
                    let (tls, rules) = (self.tls.clone(), self.rules.clone());
                    self.tasks.spawn(drive(
                        stream,
                        peer,
                        open,
                        tls,
                        rules,
                        service.clone(),
                        until.clone(),
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
    }
}

/// Serves one connection until it ends, is idle for too long or is closed for a new one.
async fn drive<S, B>(
    stream: Stream,
    peer: Option<IpAddr>,
    // Dropped last: the connection counts until its file is closed.
    open: Open,
    tls: Option<TlsAcceptor>,
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
    let connection = open.connection();
    let stream = match tls {
        None => stream,
        // Within the time of the first head.
        Some(tls) => tokio::select! {
            shaken = tls.accept(stream) => match shaken {
                Ok(stream) => Box::new(stream) as Stream,
                Err(error) => return log(Err(error.into())),
            },
            () = connection.evicted() => return,
            () = connection.quiet_too_long() => return,
            () = shutdown.clone().begun() => return,
        },
    };
    let requests = open.connection();
    let service = service_fn(move |request| {
        let mut under_way = requests.request();
        let admitted = rules.admit(request, peer);
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
        let this = self.project();
        let polled = this.body.poll_frame(cx);
        if let Poll::Ready(Some(Ok(_))) = &polled {
            this.under_way.progress();
        }
        polled
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
