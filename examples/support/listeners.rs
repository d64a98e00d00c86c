//! The sockets that the server listens on: a TCP port, a Unix socket, or those that a service manager opened.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcpListener, ToSocketAddrs as _};
#[cfg(unix)]
use std::path::PathBuf;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

#[cfg(unix)]
use super::unix_socket::UnixSocket;

/// Where to listen.
pub(crate) enum Bind {
    Tcp(SocketAddr),
    /// A Unix socket, and the mode of its file.
    #[cfg(unix)]
    Unix(PathBuf, u32),
    /// Sockets of a service manager: socket activation, `sd_listen_fds(3)`.
    Inherited(Vec<Inherited>),
}

/// A socket that the service manager opened.
pub(crate) enum Inherited {
    Tcp(StdTcpListener, SocketAddr),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
}

/// Listening sockets, at least one.
pub(crate) struct Listeners {
    listeners: Vec<Listener>,
    /// Asked first for the next connection, so that a busy socket does not keep others waiting.
    next: usize,
}

enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixSocket),
}

/// A connection's octets.
pub(crate) type Stream = Box<dyn Duplex>;

/// What HTTP needs of a connection.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Bind {
    /// Parses `HOST:PORT` or `unix:PATH`.
    pub(crate) fn parse(text: &str, mode: u32) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            #[cfg(unix)]
            Some("") => Err("no path follows unix:".to_owned()),
            #[cfg(unix)]
            Some(path) => Ok(Self::Unix(path.into(), mode)),
            #[cfg(not(unix))]
            Some(_) => Err("this system has no Unix sockets".to_owned()),
            // `localhost:8080` as well as `127.0.0.1:8080`.
            None => text
                .to_socket_addrs()
                .ok()
                .and_then(|mut addresses| addresses.next())
                .map(Self::Tcp)
                .ok_or_else(|| {
                    format!(
                        "not an address and a port, as in 127.0.0.1:8080, nor unix:PATH: {text}"
                    )
                }),
        }
    }

    /// Whether only this machine can connect. Behind a Unix socket there is a proxy, to which others connect.
    pub(crate) fn is_loopback(&self) -> bool {
        let is_loopback = |ip: Option<IpAddr>| ip.is_some_and(|ip| ip.is_loopback());
        self.addresses().into_iter().all(is_loopback)
    }

    /// Whether other machines can connect, past any proxy on this one.
    pub(crate) fn is_exposed(&self) -> bool {
        let is_exposed = |ip: Option<IpAddr>| ip.is_some_and(|ip| !ip.is_loopback());
        self.addresses().into_iter().any(is_exposed)
    }

    /// Whether a Unix socket is among them.
    pub(crate) fn has_unix(&self) -> bool {
        self.addresses().contains(&None)
    }

    /// One for each socket, `None` for a Unix socket.
    fn addresses(&self) -> Vec<Option<IpAddr>> {
        match self {
            Self::Tcp(address) => vec![Some(address.ip())],
            #[cfg(unix)]
            Self::Unix(..) => vec![None],
            Self::Inherited(sockets) => sockets.iter().map(Inherited::address).collect(),
        }
    }

    /// Opens the sockets.
    pub(crate) async fn listen(self) -> io::Result<Listeners> {
        let listeners = match self {
            Self::Tcp(address) => vec![Listener::Tcp(TcpListener::bind(address).await?)],
            #[cfg(unix)]
            Self::Unix(path, mode) => vec![Listener::Unix(UnixSocket::bind(path, mode)?)],
            Self::Inherited(sockets) => sockets
                .into_iter()
                .map(Inherited::listen)
                .collect::<io::Result<_>>()?,
        };
        Ok(Listeners { listeners, next: 0 })
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            #[cfg(unix)]
            Self::Unix(path, _) => write!(f, "unix:{}", path.display()),
            Self::Inherited(_) => f.write_str("the sockets of LISTEN_FDS"),
        }
    }
}

impl Inherited {
    fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, address) => Some(address.ip()),
            #[cfg(unix)]
            Self::Unix(_) => None,
        }
    }

    fn listen(self) -> io::Result<Listener> {
        match self {
            Self::Tcp(socket, _) => {
                socket.set_nonblocking(true)?;
                Ok(Listener::Tcp(TcpListener::from_std(socket)?))
            }
            #[cfg(unix)]
            Self::Unix(socket) => Ok(Listener::Unix(UnixSocket::inherited(socket)?)),
        }
    }
}

impl Listeners {
    /// Accepts a connection. The address is `None` on a Unix socket.
    ///
    /// # Cancel safety
    ///
    /// If dropped, no connection is accepted.
    pub(super) async fn accept(&mut self) -> io::Result<(Stream, Option<IpAddr>)> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Option<IpAddr>)>> {
        let count = self.listeners.len();
        for at in (self.next..count).chain(0..self.next) {
            if let Poll::Ready(accepted) = self.listeners[at].poll_accept(cx) {
                self.next = (at + 1) % count;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }

    /// Whether the address of every connection is its peer's.
    pub(crate) fn have_addresses(&self) -> bool {
        self.listeners
            .iter()
            .all(|listener| matches!(listener, Listener::Tcp(_)))
    }

    /// One line for each socket: the URL to open, or the file.
    pub(super) fn lines(&self, scheme: &str) -> io::Result<Vec<String>> {
        let line = |listener: &Listener| match listener {
            Listener::Tcp(listener) => {
                let mut address = listener.local_addr()?;
                if address.ip().is_unspecified() {
                    address.set_ip([127, 0, 0, 1].into());
                }
                Ok(format!("Open {scheme}://{address}/"))
            }
            #[cfg(unix)]
            Listener::Unix(socket) => Ok(format!("Listening on {socket}")),
        };
        self.listeners.iter().map(line).collect()
    }
}

impl Listener {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Option<IpAddr>)>> {
        match self {
            Self::Tcp(listener) => listener.poll_accept(cx).map_ok(|(stream, address)| {
                // Responses are small and written at once, so delaying packets gains nothing.
                let _ = stream.set_nodelay(true);
                (Box::new(stream) as Stream, Some(address.ip()))
            }),
            #[cfg(unix)]
            Self::Unix(socket) => socket
                .poll_accept(cx)
                .map_ok(|stream| (Box::new(stream) as Stream, None)),
        }
    }
}
