//! The blocks of addresses of `PROXY_ADDRESSES`.

#[path = "../../../examples/support/proxy_addresses.rs"]
mod blocks;

use blocks::{Block, ProxyAddresses};

fn addresses(list: &[&str]) -> ProxyAddresses {
    ProxyAddresses::new(
        list.iter()
            .map(|text| Block::parse(text).unwrap())
            .collect(),
    )
}

#[test]
fn a_block_is_its_addresses_and_no_others() {
    for (block, inside, outside) in [
        ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
        ("192.0.2.7/32", "192.0.2.7", "192.0.2.8"),
        ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
        ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
        ("0.0.0.0/0", "255.255.255.255", "2001:db8::1"),
        ("::/0", "2001:db8::1", "192.0.2.1"),
        ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
        ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
        // As a socket for both families shows an IPv4 peer.
        ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
    ] {
        let blocks = addresses(&["198.51.100.1", block]);
        assert!(blocks.contains(inside.parse().unwrap()), "{block} {inside}");
        assert!(
            !blocks.contains(outside.parse().unwrap()),
            "{block} {outside}"
        );
    }
    assert!(addresses(&[]).contains("192.0.2.1".parse().unwrap()));
}

#[test]
fn what_was_not_meant_is_refused() {
    for text in [
        "",
        "localhost",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/8/8",
        "::/129",
        // The address of a host in the block, or one octet too few.
        "10.1.0.0/8",
        "10.0.0/8",
        "2001:db8::1/32",
    ] {
        assert!(Block::parse(text).is_err(), "{text}");
    }
}
