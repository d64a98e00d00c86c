//! Which connections are those of the proxies in front of the server.

use std::net::IpAddr;

/// Blocks of addresses. Empty: any address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProxyAddresses(Vec<Block>);

/// The addresses that share a prefix (RFC 4632 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    address: IpAddr,
    /// In bits.
    prefix: u32,
}

impl ProxyAddresses {
    pub(super) const fn new(blocks: Vec<Block>) -> Self {
        Self(blocks)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a connection from here is a proxy's.
    pub(super) fn contains(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.is_empty() || self.0.iter().any(|block| block.contains(peer))
    }
}

impl Block {
    /// Parses an address or a block: `192.0.2.7`, `10.0.0.0/8`, `2001:db8::/32`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("neither an address nor a block as 10.0.0.0/8 is: {text}");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = bits(address).1;
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| wrong())?,
            None => most,
        };
        let block = Self { address, prefix };
        // A longer prefix was meant, or another address.
        if prefix > most || block.masked(address) != bits(address).0 {
            return Err(wrong());
        }
        Ok(block)
    }

    fn contains(self, peer: IpAddr) -> bool {
        peer.is_ipv4() == self.address.is_ipv4() && self.masked(peer) == self.masked(self.address)
    }

    /// The prefix of an address of the same family, the other bits zero.
    fn masked(self, address: IpAddr) -> u128 {
        let (value, width) = bits(address);
        let rest = width.saturating_sub(self.prefix);
        // A shift by all 128 bits is none.
        value
            .checked_shr(rest)
            .unwrap_or(0)
            .checked_shl(rest)
            .unwrap_or(0)
    }
}

/// An address as a number, and its width.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (address.to_bits().into(), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}
