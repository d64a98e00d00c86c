//! Opening connections: only to hosts and addresses that the endpoint policy admits.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connection as _, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use super::EndpointPolicy;
use super::dialled::{DialError, Dialled, Protocol};
use super::endpoint_policy::literal_addr;
use super::guarded_resolver::GuardedResolver;
use crate::error::BoxError;

/// Opens connections: policy, name, addresses, TCP, TLS, all within one time limit.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    https: HttpsConnector<HttpConnector<GuardedResolver>>,
    policy: EndpointPolicy,
    timeout: Duration,
    dialled: Dialled,
    only: Protocol,
}

impl Connector {
    /// A connector for one protocol. For HTTP/2 it offers both protocols by ALPN and fails with [`NotHttp2`] if the server
    /// chooses HTTP/1.1. For HTTP/1.1 it offers HTTP/1.1 only.
    pub(super) fn new(
        only: Protocol,
        tls: ClientConfig,
        resolver: GuardedResolver,
        policy: EndpointPolicy,
        timeout: Duration,
        dialled: Dialled,
    ) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        // With Nagle's algorithm a request would wait for the acknowledgement of the previous one.
        tcp.set_nodelay(true);
        // hyper-util divides the timeout among the addresses, so that one silent address leaves time for the next.
        tcp.set_connect_timeout(Some(timeout));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http();
        let https = match only {
            Protocol::Http2 => https.enable_all_versions().wrap_connector(tcp),
            Protocol::Http1 => https.enable_http1().wrap_connector(tcp),
        };
        Self {
            https,
            policy,
            timeout,
            dialled,
            only,
        }
    }

    async fn connect(mut self, uri: Uri) -> Result<Stream, BoxError> {
        if self.only == Protocol::Http1 {
            return Ok(self.dial(uri).await.map_err(DialError::new)?);
        }
        if self.dialled.protocol(&uri) == Some(Protocol::Http1) {
            return Err(NotHttp2.into());
        }
        match self.dial(uri.clone()).await {
            Err(error) => {
                let error = DialError::new(error);
                self.dialled.failed(&uri, error.clone());
                Err(error.into())
            }
            Ok(stream) if stream.connected().is_negotiated_h2() => {
                self.dialled.speaks(&uri, Protocol::Http2);
                Ok(stream)
            }
            Ok(_) => {
                self.dialled.speaks(&uri, Protocol::Http1);
                Err(NotHttp2.into())
            }
        }
    }

    async fn dial(&mut self, uri: Uri) -> Result<Stream, BoxError> {
        self.policy.check_uri(&uri)?;
        // A literal address does not pass the resolver, which checks all others.
        if let Some(addr) = uri.host().and_then(literal_addr) {
            self.policy.check_addr(addr)?;
        }
        tokio::time::timeout(self.timeout, self.https.call(uri))
            .await
            .map_err(|_| ConnectTimeout)?
    }
}

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// The server chose HTTP/1.1.
#[derive(Debug)]
pub(super) struct NotHttp2;

impl fmt::Display for NotHttp2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server does not support HTTP/2")
    }
}

impl std::error::Error for NotHttp2 {}

/// The connection was not open within the time limit.
#[derive(Debug)]
struct ConnectTimeout;

impl fmt::Display for ConnectTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection took too long")
    }
}

impl std::error::Error for ConnectTimeout {}
