//! A server's address, and connecting to it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::store::StoreError;
use crate::store::reason::{misconfigured, parameter};
use crate::tls;

/// A parsed `redis://` or `rediss://` URL.
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
    /// Parses a URL. Errors contain only the names of parameters.
    pub(super) fn parse(url: &str, extra_roots: &[Vec<u8>]) -> Result<Self, StoreError> {
        let info = connection_info(url)?;
        let (host, port, is_tls) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => (host, port, false),
            ConnectionAddr::TcpTls { host, port, .. } => (host, port, true),
            _ => return Err(misconfigured(UNREADABLE)),
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

    /// Host and port.
    pub(super) fn server(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Connects. Without a timeout of its own.
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

const UNREADABLE: &str = "the URL cannot be read: redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// with TLS, with \
                          %XX for other characters than letters and digits in the password";

/// Parses a URL with the driver. Parts that the driver would ignore are refused by name.
fn connection_info(url: &str) -> Result<ConnectionInfo, StoreError> {
    let (scheme, _) = url.split_once("://").unwrap_or_default();
    let scheme = scheme.to_ascii_lowercase();
    match scheme.as_str() {
        "redis" | "rediss" | "valkey" | "valkeys" => {}
        _ if scheme.contains("sentinel") => {
            return Err(misconfigured(
                "Redis Sentinel is not asked: name the primary as redis://HOST, or give the store a connection of your own",
            ));
        }
        _ if scheme.contains("unix") || scheme.contains("socket") => {
            return Err(misconfigured(
                "a Unix socket is not connected to: name a host and a port as redis://HOST:PORT",
            ));
        }
        _ => {
            return Err(misconfigured(
                "the URL does not begin with redis://, or rediss:// for TLS",
            ));
        }
    }
    let url = redis::parse_redis_url(url).ok_or_else(|| misconfigured(UNREADABLE))?;
    match url.fragment() {
        Some("insecure") => {
            return Err(misconfigured(
                "#insecure is not taken: certificates are always checked",
            ));
        }
        Some(_) => {
            return Err(misconfigured(
                "the URL has a #: write # as %23 in a password",
            ));
        }
        None => {}
    }
    if url.query().is_some_and(|query| query.contains('@')) {
        return Err(misconfigured(
            "the URL has an @ behind its ?: write ? as %3F in a password",
        ));
    }
    for (name, value) in url.query_pairs() {
        match (name.as_ref(), value.as_ref()) {
            ("protocol", "2" | "3" | "resp2" | "resp3") => {}
            ("protocol", _) => return Err(parameter("protocol", "is neither 2 nor 3")),
            ("db", _) => {
                let why = "is not supported: the database is the path, as in redis://HOST/2";
                return Err(parameter("db", why));
            }
            (name, _) => return Err(parameter(name, "is not supported")),
        }
    }
    let database = url.path().trim_matches('/');
    if !database.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(misconfigured(
            "the database in the URL's path is not a number, as in redis://HOST/2",
        ));
    }
    // The driver would log in as the default user without a password.
    if !url.username().is_empty() && url.password().is_none() {
        return Err(misconfigured(
            "the URL names a user and no password: redis://USER:PASSWORD@HOST, or redis://:PASSWORD@HOST for the default \
             user",
        ));
    }
    url.into_connection_info()
        .map_err(|_| misconfigured(UNREADABLE))
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

/// A connection with or without TLS.
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

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use proptest::prelude::*;
    use redis::ProtocolVersion;

    use super::*;
    use crate::store::StoreErrorKind;

    #[test]
    fn a_url_is_taken_apart() {
        for (url, host, port, tls, login, database) in [
            ("redis://h", "h", 6379, false, None, 0),
            ("REDIS://h:1/", "h", 1, false, None, 0),
            ("valkey://h/7", "h", 6379, false, None, 7),
            ("valkeys://[::1]/0", "::1", 6379, true, None, 0),
            ("rediss://h:2/3?protocol=2", "h", 2, true, None, 3),
            (
                "redis://:p%40%3F%23%2F@h",
                "h",
                6379,
                false,
                Some((None, "p@?#/")),
                0,
            ),
            (
                "redis://u%3A:p@h/1?",
                "h",
                6379,
                false,
                Some((Some("u:"), "p")),
                1,
            ),
        ] {
            let address =
                Address::parse(url, &[]).unwrap_or_else(|error| panic!("{url}: {error:?}"));
            assert_eq!((address.host.as_str(), address.port), (host, port), "{url}");
            let server = address.server();
            assert!(server.ends_with(&format!(":{port}")), "{url}: {server}");
            assert_eq!(address.tls.is_some(), tls, "{url}");
            assert_eq!(address.settings.db(), database, "{url}");
            let (user, password) = (address.settings.username(), address.settings.password());
            assert_eq!(password.map(|password| (user, password)), login, "{url}");
        }
        for (url, protocol) in [
            ("redis://h?protocol=3", ProtocolVersion::RESP3),
            ("redis://h?protocol=resp2", ProtocolVersion::RESP2),
        ] {
            let address = Address::parse(url, &[]).unwrap();
            assert_eq!(address.settings.protocol(), protocol, "{url}");
        }
    }

    /// A command is small. It must not wait for the acknowledgement of the one before.
    #[tokio::test]
    async fn connections_send_at_once() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
        let server = listener.as_ref().unwrap().local_addr().unwrap();
        let address = Address::parse(&format!("redis://{server}"), &[]).unwrap();
        let Stream::Plain(stream) = address.dial().await.unwrap() else {
            panic!("without TLS");
        };
        assert!(stream.nodelay().unwrap());
    }

    #[test]
    fn what_is_not_understood_is_named_and_no_password_is() {
        for (url, said) in [
            ("redis-sentinel://:s3cret@h:26379/mymaster/0", "Sentinel"),
            ("redis+sentinel://:s3cret@h/0", "Sentinel"),
            ("redis+unix:///s3cret.sock", "Unix socket"),
            ("redis+socket:///s3cret.sock", "Unix socket"),
            ("unix:///s3cret", "Unix socket"),
            ("http://u:s3cret@h", "redis://"),
            ("h:6379", "redis://"),
            ("s3cret", "redis://"),
            ("redis:h", "redis://"),
            ("redis://", "cannot be read"),
            ("redis://u:s3cret@h:port", "cannot be read"),
            ("redis://u:s3cret@0.0.0.0", "cannot be read"),
            ("redis://:%ff-s3cret@h", "cannot be read"),
            ("redis://:s3/cret@h", "cannot be read"),
            ("redis://s3cret@h", "no password"),
            ("redis://u:1#s3cret@h", "%23"),
            ("rediss://u:s3cret@h#insecure", "#insecure"),
            ("redis://u:1?s3cret=x@h", "%3F"),
            ("redis://u:s3cret@h/zero", "not a number"),
            ("redis://u:s3cret@h/-1", "not a number"),
            ("redis://u:s3cret@h/1/2", "not a number"),
            ("redis://u:s3cret@h/99999999999999999999", "cannot be read"),
            ("redis://u:s3cret@h?protocol=4", "`protocol`"),
            ("redis://u:s3cret@h?db=1", "`db`"),
            (
                "rediss://u:s3cret@h/0?ssl_cert_reqs=none",
                "`ssl_cert_reqs`",
            ),
            ("redis://u:x@h?timeout=s3cret", "`timeout`"),
            ("redis://u:x@h?s3cret%0a=1", "parameter"),
        ] {
            let error = Address::parse(url, &[]).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{url}");
            let why = error.source().unwrap().to_string();
            assert!(why.contains(said), "{url}: {why}");
            assert!(!format!("{error:?}").contains("s3"), "{error:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever else is in the password, and behind it.
        #[test]
        fn no_error_shows_a_part_of_a_password(
            before in "[?#/&=@:;%\\[\\] +a-z0-9]{0,6}",
            after in "[?#/&=@:;%\\[\\] +a-z0-9]{0,6}",
            rest in "[?#/&=@:%,a-z0-9]{0,12}",
        ) {
            let url = format!("redis://u:{before}hunter2{after}@h{rest}");
            if let Err(error) = Address::parse(&url, &[]) {
                let why = error.source().map(ToString::to_string);
                prop_assert!(!format!("{error} {error:?} {why:?}").contains("hunter2"), "{}", url);
            }
        }
    }
}
