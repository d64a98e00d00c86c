//! The default HTTP client: hyper and rustls behind an opaque type.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, sleep};
use tower_service::Service;

use super::calm::Calm;
use super::connection_budget::{self, ConnectionBudget};
use super::connector::{Connector, Shared};
use super::dialled::{Dialled, Protocol};
use super::guarded_resolver::GuardedResolver;
use super::http2_connection::IDLE_TIMEOUT;
use super::http2_pool::{Http2Pool, NoStream};
use super::http2_stream::{self, Delayed, ResponseBody};
use super::resolver::{Resolver, SystemResolver};
use super::unprocessed::Repeats;
use super::{EndpointPolicy, PolicyError, PolicyErrorKind};
use crate::error::{BoxError, error_struct};
use crate::push_request::PushBody;
use crate::subscription::Origin;
use crate::tls::{self, TlsError};

/// An HTTP client for pushes. Cheap to clone; clones share its connections.
///
/// HTTP/2 if the push service supports it; otherwise HTTP/1.1. TLS by rustls with aws-lc-rs. It trusts the Mozilla root programme (`webpki-roots`) and the certificates of
/// [`extra_root_ca_pem`](HttpClientBuilder::extra_root_ca_pem). No redirects, no proxies, no cookies.
///
/// Every connection is subject to the client's [`EndpointPolicy`]: the name is looked up once, every address is
/// checked, and only checked addresses are dialled. If one address is refused, the name is refused.
///
/// An origin has one HTTP/2 connection until all streams that the server allows on it are in use (RFC 9113 section 5.1.2; at
/// most 256), then another one, up to six, opened one at a time. If all are in use, requests wait in order. A new connection
/// carries one request until the server's SETTINGS are here. The fullest one with a free stream is used next, so that
/// those not needed become idle. A connection that the server ends by GOAWAY gets no new requests, and one on which eight requests
/// in a row had no response is replaced. After a failed connection the next one waits for up to 100 ms, after more of them in
/// a row for up to 2 s; the requests that wait share its result. Beside an open one the next is tried again after 2 s.
///
/// The number of open connections is limited: see [`max_connections`](HttpClientBuilder::max_connections). One without requests
/// is closed after 90 s. While requests are under way on an HTTP/2 connection and there is no response, it is pinged after 4 s,
/// then after 8 s more and so on up to 20 s, and given up if a ping has no response within 4 s. An idle connection is not
/// pinged: after 20 s without requests it carries one until it has responded, and after 3 s without a response another
/// connection may be opened beside it.
///
/// Opening a connection may take 5 s ([`connect_timeout`](HttpClientBuilder::connect_timeout)).
/// [`Deliver`](super::Deliver) limits the whole attempt, with any client.
///
/// # Runtime
///
/// Requires tokio. Each connection is driven by a task that ends with the connection, on the runtime of the request that
/// it was opened for. The rest of a response body that is dropped is read in a task, at most 16 KiB and for 1 s.
///
/// # Cancel safety
///
/// Dropping the future of a request resets its stream. Whether the server has processed it is then unknown.
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

/// HTTP/2 over connections of our own, HTTP/1.1 over those of hyper-util.
struct Clients {
    http2: Http2Pool,
    http1: Client<Connector, PushBody>,
    shared: Arc<Shared>,
}

impl HttpClient {
    /// Returns a builder. The default policy admits the push services of the browsers.
    pub fn builder() -> HttpClientBuilder {
        HttpClientBuilder {
            policy: EndpointPolicy::default(),
            resolver: Arc::new(SystemResolver),
            extra_roots: Vec::new(),
            connect_timeout: HttpClientBuilder::CONNECT_TIMEOUT,
            max_connections: None,
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
        HttpFuture(Box::pin(Arc::clone(&self.0).send(request)))
    }
}

impl Clients {
    async fn send(
        self: Arc<Self>,
        request: Request<PushBody>,
    ) -> Result<Response<HttpBody>, HttpError> {
        self.exchange(request).await.map_err(HttpError)
    }

    async fn exchange(
        &self,
        mut request: Request<PushBody>,
    ) -> Result<Response<HttpBody>, BoxError> {
        let malformed = || PolicyError::from(PolicyErrorKind::MalformedHost);
        *request.uri_mut() = in_one_spelling(request.uri()).ok_or_else(malformed)?;
        let authority = request.uri().authority().ok_or_else(malformed)?;
        let began = Instant::now();
        let calm = request.extensions().get::<Calm>().cloned();
        let mut repeats = Repeats::default();
        let (mut delay, mut avoided) = (Duration::ZERO, None);
        loop {
            if self.shared.dialled.protocol(request.uri()) == Some(Protocol::Http1) {
                let under_way = self.shared.budget.request(authority.clone()).await;
                let authority = authority.clone();
                let response = self.http1.request(request).await?;
                self.shared.dialled.answered(&authority);
                return Ok(response.map(|body| {
                    HttpBody(Inner::Http1 {
                        body,
                        _under_way: under_way,
                    })
                }));
            }
            let permit = match self.http2.stream(authority, avoided).await {
                Ok(permit) => permit,
                Err(NoStream::Http1) => continue,
                Err(NoStream::Dial(error)) => return Err(error.into()),
            };
            delay += permit.delay();
            let unanswered = match http2_stream::send(permit, request.clone()).await {
                Ok(mut response) => {
                    if !delay.is_zero() {
                        response.extensions_mut().insert(Delayed(delay));
                    }
                    return Ok(response.map(|body| HttpBody(Inner::Http2(body))));
                }
                Err(unanswered) => unanswered,
            };
            if unanswered.asks_for_calm
                && let Some(calm) = &calm
            {
                calm.ask();
            }
            // In all other cases a repeat could deliver the message twice.
            if unanswered.is_unprocessed
                && let Some(pause) = repeats.pause(unanswered.asks_for_calm)
            {
                avoided = Some(unanswered.connection);
                if !pause.is_zero() {
                    sleep(pause).await;
                }
                delay = began.elapsed();
                continue;
            }
            return Err(unanswered.error);
        }
    }
}

/// The same URL with the host in lower case and without the default port. Everything that is kept for an origin, connections
/// above all, is kept once, however endpoints spell it.
fn in_one_spelling(uri: &Uri) -> Option<Uri> {
    let origin = Origin::of(uri)?;
    let (_, authority) = origin.as_str().split_once("://")?;
    if uri.authority()?.as_str() == authority {
        return Some(uri.clone());
    }
    let mut parts = uri.clone().into_parts();
    parts.authority = authority.parse().ok();
    Uri::from_parts(parts).ok()
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

/// The future of [`HttpClient`].
#[must_use = "futures do nothing unless polled"]
pub struct HttpFuture(Exchange);

type Exchange = Pin<Box<dyn Future<Output = Result<Response<HttpBody>, HttpError>> + Send>>;

impl Future for HttpFuture {
    type Output = Result<Response<HttpBody>, HttpError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for HttpFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpFuture").finish_non_exhaustive()
    }
}

/// The body of a response.
#[derive(Debug)]
pub struct HttpBody(Inner);

#[derive(Debug)]
enum Inner {
    Http2(ResponseBody),
    Http1 {
        body: Incoming,
        /// The connection is not idle before the body was read or dropped.
        _under_way: connection_budget::Request,
    },
}

impl Body for HttpBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        match &mut self.0 {
            Inner::Http2(body) => {
                let frame = Pin::new(body).poll_frame(cx);
                frame.map_err(|error| HttpError(error.into()))
            }
            Inner::Http1 { body, .. } => {
                let frame = Pin::new(body).poll_frame(cx);
                frame.map_err(|error| HttpError(error.into()))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Http2(body) => body.is_end_stream(),
            Inner::Http1 { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Http2(body) => body.size_hint(),
            Inner::Http1 { body, .. } => body.size_hint(),
        }
    }
}

/// An error of a request: no connection could be opened, or the connection failed.
///
/// If the endpoint policy refused the request, a [`PolicyError`](super::PolicyError) is among the sources.
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
    max_connections: Option<usize>,
}

impl HttpClientBuilder {
    /// The longest time for opening a connection: lookup, TCP and TLS.
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

    /// Sets the policy for connections. [`Deliver`](super::Deliver) should have the same one. Default:
    /// [`known_push_services`](EndpointPolicy::known_push_services).
    pub fn policy(mut self, policy: EndpointPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Trusts the certificates of a PEM file in addition to the built-in ones.
    pub fn extra_root_ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.extra_roots.push(pem.into());
        self
    }

    /// Sets the limit on opening a connection: lookup, TCP and TLS. Default: 5 s.
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the number of connections that may be open at once. Default: a quarter of the soft limit on open files when the
    /// client is built, from 16 to 4,096. A program that sends to many hosts should raise its soft limit before.
    ///
    /// Half of them are for the hosts that the policy names: the known push services, and the entries of a list without
    /// `*`. Of the other half no registrable domain and no block of addresses (/24, or /48 for IPv6) has more than an eighth.
    /// If no connection is free, an idle one is closed; if all are in use, the request waits for 5 s and fails.
    pub const fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = Some(connections);
        self
    }

    /// Sets the resolver. Default: [`SystemResolver`].
    pub fn resolver(mut self, resolver: Arc<dyn Resolver>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Builds the client. It opens no connection before the first request.
    ///
    /// # Errors
    ///
    /// [`InvalidRootCa`](HttpClientErrorKind::InvalidRootCa) if a PEM file contains no certificate or an invalid one,
    /// [`Tls`](HttpClientErrorKind::Tls) if the TLS provider cannot be set up.
    pub fn build(self) -> Result<HttpClient, HttpClientError> {
        let tls = tls::client_config(&self.extra_roots)?;
        let max_connections = self
            .max_connections
            .unwrap_or_else(ConnectionBudget::derived_limit);
        let shared = Arc::new(Shared {
            resolver: GuardedResolver::new(self.resolver, self.policy.clone()),
            policy: self.policy,
            timeout: self.connect_timeout,
            dialled: Dialled::new(),
            budget: ConnectionBudget::new(max_connections),
        });
        let http1 = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            // Responses are short. A small buffer limits what a hostile server can make the client buffer.
            .http1_max_buf_size(64 * 1024)
            .build(Connector::http1(tls.clone(), Arc::clone(&shared)));
        Ok(HttpClient(Arc::new(Clients {
            http2: Http2Pool::new(Connector::http2(tls, Arc::clone(&shared))),
            http1,
            shared,
        })))
    }
}

error_struct! {
    /// An error of [`HttpClientBuilder::build`].
    HttpClientError, HttpClientErrorKind
}

/// The kinds of [`HttpClientError`].
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
#[path = "client_tests.rs"]
mod tests;
