//! The address that limits for strangers count against.

use std::net::{IpAddr, Ipv6Addr};

/// The network address of a request's sender, as far as this server knows it.
///
/// A server puts it into the request's extensions, as it does with a [`Principal`](crate::broadcast::Principal): the
/// address of the connection, or, behind proxies that it trusts, the one that they report. Limits per address apply
/// to requests that carry one; requests without one share a single allowance.
///
/// An IPv6 address counts as its /64 network, which is what a single subscriber usually controls, and an IPv4 address
/// mapped into IPv6 counts as the IPv4 address.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddr(IpAddr);

impl PeerAddr {
    /// The peer at an address.
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

    /// The address, or the first one of the IPv6 network.
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
