//! Globally reachable addresses: a request to one of them does not reach a private network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Returns whether an address is globally reachable unicast.
pub(super) fn is_public(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// Returns whether an address is in `127.0.0.0/8`, also mapped into IPv6, or is `::1`.
pub(super) fn is_loopback(addr: IpAddr) -> bool {
    addr.to_canonical().is_loopback()
}

/// The block that an address belongs to, by its first address: /24, or /48 for IPv6. One customer of a network usually has
/// no more. An address that a NAT64 translator embeds (RFC 6052 section 2.1) is in the block of the IPv4 address.
#[cfg(feature = "client")]
pub(super) fn block(addr: IpAddr) -> IpAddr {
    let v4 = |addr: Ipv4Addr| {
        let [a, b, c, _] = addr.octets();
        IpAddr::from([a, b, c, 0])
    };
    match addr.to_canonical() {
        IpAddr::V4(addr) => v4(addr),
        IpAddr::V6(addr) => match (addr.segments(), addr.octets()) {
            ([0x64, 0xff9b, 0, 0, 0, 0, ..], [.., a, b, c, d]) => v4(Ipv4Addr::new(a, b, c, d)),
            ([a, b, c, ..], _) => IpAddr::from([a, b, c, 0, 0, 0, 0, 0]),
        },
    }
}

fn is_public_v4(addr: Ipv4Addr) -> bool {
    let [a, b, c, _] = addr.octets();
    let refused = match (a, b, c) {
        // This network, private, loopback (RFC 6890).
        (0 | 10 | 127, ..) => true,
        // Shared by carriers' NAT (RFC 6598).
        (100, 64..=127, _) => true,
        // Link-local: cloud metadata lives here (RFC 3927).
        (169, 254, _) => true,
        // Private (RFC 1918).
        (172, 16..=31, _) | (192, 168, _) => true,
        // Protocol assignments, documentation, 6to4 relays (RFC 6890, RFC 5737, RFC 7526).
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 51, 100) | (203, 0, 113) => true,
        // Benchmarks (RFC 2544).
        (198, 18 | 19, _) => true,
        // Multicast, reserved, broadcast.
        (224.., ..) => true,
        _ => false,
    };
    !refused
}

fn is_public_v6(addr: Ipv6Addr) -> bool {
    if let Some(v4) = addr.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    let [.., a, b, c, d] = addr.octets();
    let low = Ipv4Addr::new(a, b, c, d);
    match addr.segments() {
        // NAT64 (RFC 6052 section 2.1): the translator sends to the address inside.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => is_public_v4(low),
        // NAT64 for local use (RFC 8215): the length of the prefix is the network's choice, and so is the position of
        // the embedded address.
        [0x64, 0xff9b, 1, ..] => is_public_v4(low) && nat64_inner(addr).all(is_public_v4),
        // 6to4 (RFC 3056): the relay sends to the address inside.
        [0x2002, high, low, ..] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        // Teredo, benchmarks, ORCHID (RFC 4380, 5180, 4843, 7343), documentation (RFC 3849, 9637).
        [0x2001, 0, ..] | [0x2001, 2, 0, ..] | [0x2001, 0x10..=0x2f, ..] => false,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // The range allocated for global unicast (RFC 4291 section 2.4). Outside of it are `::`, `::1`, discard
        // (100::/64), unique local (fc00::/7), link-local (fe80::/10), site-local (fec0::/10), multicast (ff00::/8) and
        // unallocated ranges.
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

/// The addresses embedded at the positions of a translator with a prefix of 48, 56 or 64 bits (RFC 6052 section 2.2).
/// Positions whose first octet is 0 are left out.
fn nat64_inner(addr: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let [_, _, _, _, _, _, o6, o7, _, o9, o10, o11, o12, ..] = addr.octets();
    [[o6, o7, o9, o10], [o7, o9, o10, o11], [o9, o10, o11, o12]]
        .into_iter()
        .filter(|[first, ..]| *first != 0)
        .map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(text: &str) -> bool {
        is_public(text.parse().unwrap())
    }

    /// Checks the first and last address of a refused range, and its neighbours.
    macro_rules! ranges {
        ($($name:ident: $first:literal ..= $last:literal, below $below:expr, above $above:expr;)*) => {$(
            #[test]
            fn $name() {
                assert!(!public($first), $first);
                assert!(!public($last), $last);
                let neighbours: [Option<(&str, bool)>; 2] = [$below, $above];
                for (addr, expected) in neighbours.into_iter().flatten() {
                    assert_eq!(public(addr), expected, "{addr}");
                }
            }
        )*};
    }

    ranges! {
        this_network: "0.0.0.0" ..= "0.255.255.255", below None, above Some(("1.0.0.0", true));
        private_10: "10.0.0.0" ..= "10.255.255.255",
            below Some(("9.255.255.255", true)), above Some(("11.0.0.0", true));
        shared: "100.64.0.0" ..= "100.127.255.255",
            below Some(("100.63.255.255", true)), above Some(("100.128.0.0", true));
        loopback: "127.0.0.0" ..= "127.255.255.255",
            below Some(("126.255.255.255", true)), above Some(("128.0.0.0", true));
        link_local: "169.254.0.0" ..= "169.254.255.255",
            below Some(("169.253.255.255", true)), above Some(("169.255.0.0", true));
        private_172: "172.16.0.0" ..= "172.31.255.255",
            below Some(("172.15.255.255", true)), above Some(("172.32.0.0", true));
        protocol_assignments: "192.0.0.0" ..= "192.0.0.255",
            below Some(("191.255.255.255", true)), above Some(("192.0.1.0", true));
        documentation_1: "192.0.2.0" ..= "192.0.2.255",
            below Some(("192.0.1.255", true)), above Some(("192.0.3.0", true));
        relays_6to4: "192.88.99.0" ..= "192.88.99.255",
            below Some(("192.88.98.255", true)), above Some(("192.88.100.0", true));
        private_192: "192.168.0.0" ..= "192.168.255.255",
            below Some(("192.167.255.255", true)), above Some(("192.169.0.0", true));
        benchmarks: "198.18.0.0" ..= "198.19.255.255",
            below Some(("198.17.255.255", true)), above Some(("198.20.0.0", true));
        documentation_2: "198.51.100.0" ..= "198.51.100.255",
            below Some(("198.51.99.255", true)), above Some(("198.51.101.0", true));
        documentation_3: "203.0.113.0" ..= "203.0.113.255",
            below Some(("203.0.112.255", true)), above Some(("203.0.114.0", true));
        multicast: "224.0.0.0" ..= "239.255.255.255",
            below Some(("223.255.255.255", true)), above Some(("240.0.0.0", false));
        reserved_and_broadcast: "240.0.0.0" ..= "255.255.255.255", below None, above None;
        v6_unspecified_and_loopback: "::" ..= "::1", below None, above Some(("::2", false));
        v6_mapped_private: "::ffff:10.0.0.0" ..= "::ffff:10.255.255.255",
            below Some(("::ffff:9.255.255.255", true)), above Some(("::ffff:11.0.0.0", true));
        v6_nat64_private: "64:ff9b::10.0.0.0" ..= "64:ff9b::10.255.255.255",
            below Some(("64:ff9b::9.255.255.255", true)), above Some(("64:ff9b::11.0.0.0", true));
        v6_nat64_local_private: "64:ff9b:1::10.0.0.0" ..= "64:ff9b:1::10.255.255.255",
            below Some(("64:ff9b:1::9.255.255.255", true)), above Some(("64:ff9b:1::11.0.0.0", true));
        v6_discard: "100::" ..= "100::ffff:ffff:ffff:ffff",
            below Some(("ff:ffff::1", false)), above Some(("100:0:0:1::", false));
        v6_teredo: "2001::" ..= "2001:0:ffff:ffff:ffff:ffff:ffff:ffff",
            below Some(("2000:ffff::1", true)), above Some(("2001:1::", true));
        v6_benchmarks: "2001:2::" ..= "2001:2:0:ffff:ffff:ffff:ffff:ffff",
            below Some(("2001:1:ffff::1", true)), above Some(("2001:2:1::", true));
        v6_orchid: "2001:10::" ..= "2001:2f:ffff::1",
            below Some(("2001:f:ffff::1", true)), above Some(("2001:30::", true));
        v6_documentation: "2001:db8::" ..= "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            below Some(("2001:db7:ffff::1", true)), above Some(("2001:db9::", true));
        v6_6to4_private: "2002:a00::" ..= "2002:aff:ffff::1",
            below Some(("2002:9ff:ffff::1", true)), above Some(("2002:b00::", true));
        v6_documentation_2: "3fff::" ..= "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
            below Some(("3ffe:ffff::1", true)), above Some(("3fff:1000::", true));
        v6_unassigned: "4000::" ..= "fbff:ffff::1", below Some(("3fff:ffff::1", true)), above None;
        v6_unique_local: "fc00::" ..= "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", below None, above None;
        v6_link_local: "fe80::" ..= "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", below None, above None;
        v6_site_local: "fec0::" ..= "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", below None, above None;
        v6_multicast: "ff00::" ..= "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", below None, above None;
    }

    #[test]
    fn real_push_services_are_public() {
        for addr in [
            "142.250.74.10",
            "34.117.65.55",
            "17.188.143.1",
            "2a00:1450:4001:80b::200a",
        ] {
            assert!(public(addr), "{addr}");
        }
    }

    #[test]
    fn every_refused_v4_address_is_refused_inside_v6() {
        for v4 in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            for prefix in ["::ffff:", "::", "64:ff9b::", "64:ff9b:1::", "::ffff:0:"] {
                assert!(!public(&format!("{prefix}{v4}")), "{prefix}{v4}");
            }
            let [a, b, c, d] = v4.parse::<Ipv4Addr>().unwrap().octets();
            let six = Ipv6Addr::from([0x20, 2, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            assert!(!is_public(six.into()), "{six}");
        }
        assert!(public("64:ff9b::8.8.8.8") && public("64:ff9b:1::8.8.8.8"));
    }

    #[test]
    fn an_address_embedded_by_a_local_nat64_prefix_of_any_length_is_checked() {
        for inner in [
            // 10.0.0.1 after a prefix of 48, 56 and 64 bits, followed by a public address.
            [0, 0x64, 0xff, 0x9b, 0, 1, 10, 0, 0, 0, 1, 0, 8, 8, 8, 8],
            [0, 0x64, 0xff, 0x9b, 0, 1, 0, 10, 0, 0, 0, 1, 8, 8, 8, 8],
            [0, 0x64, 0xff, 0x9b, 0, 1, 0, 0, 0, 10, 0, 0, 1, 8, 8, 8],
        ] {
            assert!(!is_public(Ipv6Addr::from(inner).into()), "{inner:?}");
        }
    }

    #[cfg(feature = "client")]
    #[test]
    fn a_block_is_what_one_customer_has() {
        for (addr, expected) in [
            ("203.0.113.7", "203.0.113.0"),
            ("::ffff:203.0.113.7", "203.0.113.0"),
            ("64:ff9b::203.0.113.7", "203.0.113.0"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
        ] {
            let expected: IpAddr = expected.parse().unwrap();
            assert_eq!(block(addr.parse().unwrap()), expected, "{addr}");
        }
    }

    #[test]
    fn a_mapped_loopback_address_is_loopback() {
        for addr in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_loopback(addr.parse().unwrap()), "{addr}");
        }
        for addr in ["128.0.0.1", "::2", "::ffff:10.0.0.1", "0.0.0.0"] {
            assert!(!is_loopback(addr.parse().unwrap()), "{addr}");
        }
    }
}
