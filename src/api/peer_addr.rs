//! The address that limits per peer count by.

use std::net::{IpAddr, Ipv6Addr};

/// The network address of a request's sender, which limits per peer count by.
///
/// A server puts it into the request's extensions, as it does with a [`Principal`](crate::broadcast::Principal): the
/// address of the connection, or, behind trusted proxies, the one that they report. An address that a client can
/// choose, in a header that no proxy has written, makes every limit ineffective.
///
/// An IPv6 address counts as its /64 network, which is what a single subscriber usually controls, and an IPv4 address
/// mapped into IPv6 counts as the IPv4 address.
///
/// # Requests without an address
///
/// - The public POST routes, and the pushes that they cause, are not limited: a shared limit would be one for all
///   users together. See [`public_requests_per_minute`](crate::api::ApiSettings::public_requests_per_minute) and
///   [`public_pushes_per_minute`](crate::api::ApiSettings::public_pushes_per_minute).
/// - Wrong passwords are counted together: see [`AdminCredentials`](super::AdminCredentials).
///
/// # Examples
///
/// ```
/// use tower_web_push::api::PeerAddr;
///
/// let one = PeerAddr::new("2001:db8::1".parse()?);
/// let other = PeerAddr::new("2001:db8::2".parse()?);
/// assert_eq!(one, other);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
///
/// In axum, a layer around this service, in an application that is served with
/// `into_make_service_with_connect_info::<SocketAddr>()`. Behind a proxy the connection is the proxy's, so the layer takes
/// the address from the header that the proxy writes.
///
/// ```
/// use std::net::SocketAddr;
///
/// use axum::Router;
/// use axum::extract::{ConnectInfo, Request};
/// use axum::middleware::{self, Next};
/// use axum::response::Response;
/// use tower_web_push::WebPush;
/// use tower_web_push::api::PeerAddr;
///
/// async fn peer_addr(mut request: Request, next: Next) -> Response {
///     if let Some(ConnectInfo(addr)) = request.extensions().get::<ConnectInfo<SocketAddr>>() {
///         let peer = PeerAddr::new(addr.ip());
///         request.extensions_mut().insert(peer);
///     }
///     next.run(request).await
/// }
///
/// fn app(push: WebPush) -> Router {
///     Router::new()
///         .nest_service("/web-push", push.service())
///         .layer(middleware::from_fn(peer_addr))
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddr(IpAddr);

impl PeerAddr {
    /// Makes a peer of an address.
    #[must_use]
    pub fn new(addr: IpAddr) -> Self {
        Self(match addr.to_canonical() {
            IpAddr::V6(addr) => {
                let [a, b, c, d, ..] = addr.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 => v4,
        })
    }

    /// Returns the address, or the first one of the IPv6 network.
    #[must_use]
    pub const fn ip(self) -> IpAddr {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> PeerAddr {
        PeerAddr::new(text.parse().unwrap())
    }

    #[test]
    fn an_ipv6_network_is_one_peer() {
        assert_eq!(peer("2001:db8:0:1::1"), peer("2001:db8:0:1:ffff::"));
        assert_ne!(peer("2001:db8:0:1::1"), peer("2001:db8:0:2::1"));
    }

    #[test]
    fn ipv4_addresses_are_whole_also_when_mapped() {
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
        assert_eq!(peer("::ffff:192.0.2.1").ip(), peer("192.0.2.1").ip());
    }
}
