//! Where a server is, and the way there.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use redis::{ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::store::StoreError;
use crate::store::reason::misconfigured;
use crate::tls;

/// A `redis://` or `rediss://` URL that was understood.
#[derive(Clone)]
pub(super) struct Address {
    host: String,
    port: u16,
    tls: Option<Tls>,
    /// User, password and database.
    pub(super) settings: RedisConnectionInfo,
}

#[derive(Clone)]
struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Address {
    /// Reads a URL; its text is in no error.
    pub(super) fn parse(url: &str, extra_roots: &[Vec<u8>]) -> Result<Self, StoreError> {
        let info = url
            .into_connection_info()
            .map_err(|_| misconfigured("this is no redis:// or rediss:// URL"))?;
        let (host, port, is_tls) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => (host, port, false),
            ConnectionAddr::TcpTls { insecure: true, .. } => {
                return Err(misconfigured("certificates are always checked"));
            }
            ConnectionAddr::TcpTls { host, port, .. } => (host, port, true),
            _ => return Err(misconfigured("only redis:// and rediss:// URLs are taken")),
        };
        let tls = match is_tls {
            true => Some(Tls {
                config: Arc::new(tls::client_config(extra_roots)?),
                name: ServerName::try_from(host.clone())
                    .map_err(|_| misconfigured("no certificate can be for this host"))?,
            }),
            false => None,
        };
        Ok(Self {
            host: host.clone(),
            port: *port,
            tls,
            settings: info.redis_settings().clone(),
        })
    }

    /// Connects, without a limit of its own.
    pub(super) async fn dial(&self) -> io::Result<Stream> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Stream::Plain(stream));
        };
        let connector = TlsConnector::from(Arc::clone(&tls.config));
        let stream = connector.connect(tls.name.clone(), stream).await?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &self.tls.is_some())
            .field("database", &self.settings.db())
            .finish_non_exhaustive()
    }
}

/// A connection, in clear or not.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

macro_rules! forward {
    ($self:ident, $method:ident($($arg:expr),*)) => {
        match $self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).$method($($arg),*),
            Stream::Tls(stream) => Pin::new(stream).$method($($arg),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self, poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        forward!(self, poll_write(context, octets))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_shutdown(context))
    }
}
