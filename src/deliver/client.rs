//! The default HTTP client: hyper and rustls behind an opaque type.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Sleep;
use tower_service::Service;

use super::connector::Connector;
use super::dialled::{DialError, Dialled, Protocol};
use super::error::find_source;
use super::guarded_resolver::GuardedResolver;
use super::resolver::{Resolver, SystemResolver};
use super::{EndpointPolicy, Jitter};
use crate::error::{BoxError, error_struct};
use crate::push_request::PushBody;
use crate::tls::{self, TlsError};

/// An HTTP client for pushes. Cheap to clone; clones share its connections.
///
/// HTTP/2 where the push service speaks it, one connection per origin, however many requests start at
/// once; else HTTP/1.1. TLS by rustls with aws-lc-rs, trusting the Mozilla root programme
/// (`webpki-roots`) and what [`extra_root_ca_pem`](HttpClientBuilder::extra_root_ca_pem) adds. No
/// redirects, no proxies, no cookies.
///
/// Every connection is opened by the client's [`EndpointPolicy`]: the name is looked up once, every
/// address is checked, and a checked one is dialled. One address that is not public refuses the name.
///
/// A connection may take [`CONNECT_TIMEOUT`](HttpClientBuilder::CONNECT_TIMEOUT); the limit on the whole
/// attempt is [`Deliver`](super::Deliver)'s, which covers any client.
///
/// # Runtime
///
/// Needs tokio. Connections are driven by tasks of their own, which end with the connection.
///
/// # Examples
///
/// ```
/// use tower_web_push::deliver::{Deliver, HttpClient};
/// use tower_web_push::vapid::Contact;
///
/// let contact = Contact::parse("mailto:ops@example.com")?;
/// let deliver = Deliver::new(HttpClient::builder().build()?, contact);
/// # let _ = deliver;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct HttpClient(Arc<Clients>);

/// One client for each protocol: told beforehand that it is HTTP/2, hyper-util opens one connection for
/// a burst of requests, and not one for each until the first has negotiated.
struct Clients {
    http2: Client<Connector, PushBody>,
    http1: Client<Connector, PushBody>,
    dialled: Dialled,
}

impl HttpClient {
    /// A client for the push services of the browsers, before it is built.
    pub fn builder() -> HttpClientBuilder {
        HttpClientBuilder {
            policy: EndpointPolicy::default(),
            resolver: Arc::new(SystemResolver),
            extra_roots: Vec::new(),
            connect_timeout: HttpClientBuilder::CONNECT_TIMEOUT,
            keep_alive: HttpClientBuilder::KEEP_ALIVE,
        }
    }
}

impl Service<Request<PushBody>> for HttpClient {
    type Response = Response<HttpBody>;
    type Error = HttpError;
    type Future = HttpFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<PushBody>) -> HttpFuture {
        let Self(clients) = self;
        if clients.dialled.protocol(request.uri()) == Some(Protocol::Http1) {
            return HttpFuture {
                response: clients.http1.request(request),
                again: None,
                pause: None,
            };
        }
        let again = Again {
            clients: Arc::clone(clients),
            request: request.clone(),
            start: Instant::now(),
            unprocessed: 0,
        };
        HttpFuture {
            response: clients.http2.request(request),
            again: Some(Box::new(again)),
            pause: None,
        }
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

/// The future of [`HttpClient`].
#[must_use = "futures do nothing unless polled"]
pub struct HttpFuture {
    response: legacy::ResponseFuture,
    again: Option<Box<Again>>,
    /// Until the request is sent again.
    pause: Option<Pin<Box<Sleep>>>,
}

/// What it takes to send the request once more, if the push service has not processed it.
struct Again {
    clients: Arc<Clients>,
    request: Request<PushBody>,
    start: Instant,
    /// How often a connection has left it unprocessed.
    unprocessed: u32,
}

impl Again {
    /// Bounds the requests to a server that processes none. One that ends its connection after each response still serves
    /// a hundred requests that start together: they spread over the pauses.
    const UNPROCESSED: u32 = 32;
    /// The longest pause before a request is sent again.
    const LONGEST: Duration = Duration::from_millis(500);

    /// The pause before the request is sent again; `None` if it was too often. The first time there is none.
    fn pause(&mut self) -> Option<Duration> {
        let ceiling = 1_u64.checked_shl(self.unprocessed).unwrap_or(u64::MAX);
        let ceiling = Duration::from_millis(ceiling).min(Self::LONGEST);
        let is_first = self.unprocessed == 0;
        self.unprocessed = self.unprocessed.saturating_add(1);
        if self.unprocessed > Self::UNPROCESSED {
            return None;
        }
        Some(if is_first {
            Duration::ZERO
        } else {
            Jitter::random().of(ceiling)
        })
    }
}

/// Whether the server certainly has not processed the request: its connection went away with a lower last stream
/// (RFC 9113 section 6.8), it refused the stream (section 8.7), or the request never left hyper's queue.
fn is_unprocessed(error: &legacy::Error) -> bool {
    match find_source::<h2::Error>(error) {
        Some(error) => {
            let is_refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
            error.is_remote() && (error.is_go_away() || (error.is_reset() && is_refused))
        }
        None => find_source::<hyper::Error>(error).is_some_and(hyper::Error::is_canceled),
    }
}

impl Future for HttpFuture {
    type Output = Result<Response<HttpBody>, HttpError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
                self.resend();
            }
            let error = match ready!(Pin::new(&mut self.response).poll(cx)) {
                Ok(response) => return Poll::Ready(Ok(response.map(HttpBody))),
                Err(error) => error,
            };
            if is_unprocessed(&error)
                && let Some(again) = &mut self.again
                && let Some(pause) = again.pause()
            {
                if pause.is_zero() {
                    self.resend();
                } else {
                    self.pause = Some(Box::pin(tokio::time::sleep(pause)));
                }
                continue;
            }
            // Nothing was sent when there was no connection, else nothing may be sent again.
            let Some(again) = self.again.take().filter(|_| error.is_connect()) else {
                return Poll::Ready(Err(HttpError(error.into())));
            };
            if find_source::<DialError>(&error).is_some() {
                return Poll::Ready(Err(HttpError(error.into())));
            }
            // What is left: the server chose HTTP/1.1, or the dial was another request's, and it failed
            // or was given up.
            let dialled = &again.clients.dialled;
            let uri = again.request.uri();
            if dialled.protocol(uri) == Some(Protocol::Http1) {
                self.response = again.clients.http1.request(again.request);
            } else if let Some(failure) = dialled.failure_since(uri, again.start) {
                return Poll::Ready(Err(HttpError(failure.into())));
            } else {
                self.again = Some(again);
                self.resend();
            }
        }
    }
}

impl HttpFuture {
    fn resend(&mut self) {
        if let Some(again) = &self.again {
            self.response = again.clients.http2.request(again.request.clone());
        }
    }
}

impl fmt::Debug for HttpFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpFuture").finish_non_exhaustive()
    }
}

/// The body of an answer.
#[derive(Debug)]
pub struct HttpBody(Incoming);

impl Body for HttpBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        Pin::new(&mut self.0)
            .poll_frame(cx)
            .map_err(|error| HttpError(error.into()))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// A request came to nothing: no connection, or it broke.
///
/// A refusal of the endpoint policy is among the causes where that was it.
#[derive(Debug)]
pub struct HttpError(BoxError);

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request could not be sent or got no response")
    }
}

impl std::error::Error for HttpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.0.as_ref())
    }
}

/// Settings of an [`HttpClient`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `build`"]
pub struct HttpClientBuilder {
    policy: EndpointPolicy,
    resolver: Arc<dyn Resolver>,
    extra_roots: Vec<Vec<u8>>,
    connect_timeout: Duration,
    keep_alive: Duration,
}

impl HttpClientBuilder {
    /// The longest that opening a connection may take: lookup, TCP and TLS.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// How often an HTTP/2 connection is asked whether it is still there, also while idle.
    pub const KEEP_ALIVE: Duration = Duration::from_secs(20);
    /// How long it may take to answer that.
    pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
    /// How long a connection is kept without a request.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

    /// Dials where this policy says; give [`Deliver`](super::Deliver) the same one.
    pub fn policy(mut self, policy: EndpointPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Trusts the certificates of a PEM file too, beside the built-in ones.
    pub fn extra_root_ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.extra_roots.push(pem.into());
        self
    }

    /// Gives up on opening a connection after this time.
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Asks HTTP/2 connections this often whether they are still there.
    pub const fn keep_alive(mut self, interval: Duration) -> Self {
        self.keep_alive = interval;
        self
    }

    /// Looks names up with this instead of the operating system.
    pub fn resolver(mut self, resolver: Arc<dyn Resolver>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Builds the client; connections are opened when they are needed.
    ///
    /// # Errors
    ///
    /// [`InvalidRootCa`](HttpClientErrorKind::InvalidRootCa) when a PEM file holds no certificate or a
    /// broken one, [`Tls`](HttpClientErrorKind::Tls) when the TLS provider cannot be set up.
    pub fn build(self) -> Result<HttpClient, HttpClientError> {
        let tls = tls::client_config(&self.extra_roots)?;
        let dialled = Dialled::new();
        let resolver = GuardedResolver::new(self.resolver, self.policy.clone());
        let connector = |protocol| {
            Connector::new(
                protocol,
                tls.clone(),
                resolver.clone(),
                self.policy.clone(),
                self.connect_timeout,
                dialled.clone(),
            )
        };
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Self::IDLE_TIMEOUT)
            // Answers are short; what a hostile server can make us buffer is too.
            .http1_max_buf_size(64 * 1024)
            .http2_initial_stream_window_size(16 * 1024)
            .http2_initial_connection_window_size(256 * 1024)
            .http2_keep_alive_interval(self.keep_alive)
            .http2_keep_alive_timeout(Self::KEEP_ALIVE_TIMEOUT)
            .http2_keep_alive_while_idle(true);
        let http1 = builder.build(connector(Protocol::Http1));
        let http2 = builder.http2_only(true).build(connector(Protocol::Http2));
        Ok(HttpClient(Arc::new(Clients {
            http2,
            http1,
            dialled,
        })))
    }
}

error_struct! {
    /// Why a client could not be built.
    HttpClientError, HttpClientErrorKind
}

/// What was wrong with a client's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HttpClientErrorKind {
    /// An extra root CA is not a PEM file with certificates.
    InvalidRootCa,
    /// The TLS provider cannot be set up.
    Tls,
}

impl fmt::Display for HttpClientErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidRootCa => "an extra root CA is not a PEM file with certificates",
            Self::Tls => "the TLS provider cannot be set up",
        })
    }
}

impl From<TlsError> for HttpClientError {
    fn from(source: TlsError) -> Self {
        let kind = match source {
            TlsError::Provider(_) => HttpClientErrorKind::Tls,
            _ => HttpClientErrorKind::InvalidRootCa,
        };
        Self::with_source(kind, source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let error = HttpClient::builder().extra_root_ca_pem("").build();
        let kind = error.unwrap_err().kind();
        assert_eq!(kind, HttpClientErrorKind::InvalidRootCa);
    }

    #[test]
    fn a_client_is_built_without_a_runtime() {
        assert!(HttpClient::builder().build().is_ok());
    }
}
