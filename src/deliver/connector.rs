//! Opening connections: only to hosts and addresses that the endpoint policy admits, and within the budget.

use std::fmt;
use std::future::{Future, Ready, ready};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Authority;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use rustls::ClientConfig;
use tower_service::Service;

use super::connection_budget::{ConnectionBudget, Usage};
use super::connection_place::Place;
use super::dialled::Dialled;
use super::endpoint_policy::literal_addr;
use super::guarded_resolver::GuardedResolver;
use super::local_error::{Lack, LocalError};
use super::shares::registrable_domain;
use super::socket::Socket;
use super::{EndpointPolicy, PolicyError, PolicyErrorKind};
use crate::error::BoxError;

/// Opens connections: policy, a place in the budget, then name, addresses, TCP and TLS within one time limit.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    tls: Arc<ClientConfig>,
    shared: Arc<Shared>,
}

/// What the connectors of a client share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) resolver: GuardedResolver,
    pub(super) policy: EndpointPolicy,
    pub(super) timeout: Duration,
    pub(super) dialled: Dialled,
    pub(super) budget: ConnectionBudget,
}

impl Connector {
    /// Offers HTTP/1.1 only.
    pub(super) fn http1(tls: ClientConfig, shared: Arc<Shared>) -> Self {
        let tls = Arc::new(tls);
        Self { tls, shared }
    }

    /// Offers HTTP/2 and HTTP/1.1 by ALPN (RFC 9113 section 3.2).
    pub(super) fn http2(mut tls: ClientConfig, shared: Arc<Shared>) -> Self {
        tls.alpn_protocols = [&b"h2"[..], b"http/1.1"].map(Vec::from).into();
        Self::http1(tls, shared)
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Opens a connection. One that `is_spare` takes a free place of the budget only.
    pub(super) async fn dial(&self, uri: Uri, is_spare: bool) -> Result<(Stream, Usage), BoxError> {
        let Shared {
            policy,
            budget,
            timeout,
            ..
        } = &*self.shared;
        policy.check_uri(&uri)?;
        let authority = uri.authority().cloned();
        let authority =
            authority.ok_or_else(|| PolicyError::from(PolicyErrorKind::MalformedHost))?;
        let host = uri.host().unwrap_or_default();
        // A literal address does not pass the resolver, which checks all others.
        if let Some(addr) = literal_addr(host) {
            policy.check_addr(addr)?;
        }
        let domain = registrable_domain(host).filter(|_| !policy.names(host));
        let place = match is_spare {
            true => budget
                .spare_place(domain)
                .ok_or(LocalError::from(Lack::Connections))?,
            false => budget.place(domain).await?,
        };
        tokio::time::timeout(*timeout, self.open(uri, authority, place))
            .await
            .map_err(|_| ConnectTimeout)?
    }

    async fn open(
        &self,
        uri: Uri,
        authority: Authority,
        mut place: Place,
    ) -> Result<(Stream, Usage), BoxError> {
        let host = uri.host().unwrap_or_default();
        let addrs = match literal_addr(host) {
            Some(addr) => vec![addr],
            None => self.shared.resolver.look_up(host).await?,
        };
        let addrs = place.at(addrs).await;
        let mut tcp = HttpConnector::new_with_resolver(LookedUp(addrs.clone()));
        tcp.enforce_http(false);
        // With Nagle's algorithm a request would wait for the acknowledgement of the previous one.
        tcp.set_nodelay(true);
        // hyper-util divides the timeout among the addresses, so that one silent address leaves time for the next.
        tcp.set_connect_timeout(Some(self.shared.timeout));
        let tcp = tcp.call(uri.clone()).await.map_err(|error| {
            let error = LocalError::of_socket(error.into(), &addrs);
            let local = error.downcast_ref().map(LocalError::lack);
            if local == Some(Lack::Sockets) {
                self.shared.budget.close_idle();
            }
            error
        })?;
        let peer = tcp.inner().peer_addr().ok().map(|peer| peer.ip());
        let connection = place.open(authority, peer);
        let usage = connection.usage();
        let opened = Opened(Some(Socket::new(tcp, connection)));
        let mut tls = HttpsConnector::from((opened, Arc::clone(&self.tls)));
        Ok((tls.call(uri).await?, usage))
    }
}

/// A connection after the TLS handshake, if there is one.
pub(super) type Stream = MaybeHttpsStream<Socket>;

/// The addresses of a host, looked up and checked. Port 0: the connector sets the endpoint's.
#[derive(Clone)]
struct LookedUp(Vec<IpAddr>);

impl Service<Name> for LookedUp {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        let addrs = self.0.iter().map(|addr| SocketAddr::new(*addr, 0));
        ready(Ok(addrs.collect::<Vec<_>>().into_iter()))
    }
}

/// A connector that has connected already: TLS comes next.
struct Opened(Option<Socket>);

impl Service<Uri> for Opened {
    type Response = Socket;
    type Error = BoxError;
    type Future = Ready<Result<Socket, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(
            self.0
                .take()
                .ok_or_else(|| "the connector was called twice".into()),
        )
    }
}

/// For HTTP/1.1.
impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let authority = uri.authority().cloned();
            let authority =
                authority.ok_or_else(|| PolicyError::from(PolicyErrorKind::MalformedHost))?;
            let turn = this.shared.dialled.turn(&authority).await?;
            match this.dial(uri, false).await {
                Ok((stream, _)) => Ok(stream),
                Err(error) => Err(turn.failed(error).into()),
            }
        })
    }
}

/// The connection was not open within the time limit.
#[derive(Debug)]
struct ConnectTimeout;

impl fmt::Display for ConnectTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection took too long")
    }
}

impl std::error::Error for ConnectTimeout {}
