//! The client address behind proxies.

#[path = "../../../examples/support/proxies.rs"]
mod proxies;

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::{any, prop};

/// Header lines: name and value.
type Lines = [(&'static str, &'static str)];

const PROXY: &str = "10.0.0.9";

fn client(hops: usize, lines: &[(&str, &str)]) -> String {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    proxies::client(&headers, PROXY.parse().unwrap(), hops).to_string()
}

#[test]
fn without_trusted_proxies_the_headers_mean_nothing() {
    for lines in [
        [("x-forwarded-for", "192.0.2.1")],
        [("forwarded", "for=192.0.2.1")],
    ] {
        assert_eq!(client(0, &lines), PROXY);
    }
}

#[test]
fn the_client_is_the_nth_entry_from_the_right() {
    let x = "x-forwarded-for";
    let f = "forwarded";
    #[rustfmt::skip]
    let cases: &[(usize, &Lines, &str)] = &[
        (1, &[(x, "192.0.2.1")], "192.0.2.1"),
        (1, &[(x, "6.6.6.6, 192.0.2.1")], "192.0.2.1"),
        (2, &[(x, "6.6.6.6, 192.0.2.1, 10.0.0.8")], "192.0.2.1"),
        (2, &[(x, "6.6.6.6, 192.0.2.1"), (x, "10.0.0.8")], "192.0.2.1"),
        (1, &[(x, "192.0.2.1:4711")], "192.0.2.1"),
        (1, &[(x, "2001:db8::1")], "2001:db8::1"),
        (1, &[(x, "[2001:db8::1]")], "2001:db8::1"),
        (1, &[(x, "[2001:db8::1]:4711")], "2001:db8::1"),
        (1, &[(x, "junk \" ,,, , 192.0.2.1")], "192.0.2.1"),
        (1, &[(f, "for=192.0.2.1")], "192.0.2.1"),
        (1, &[(f, "For=\"192.0.2.1:4711\"")], "192.0.2.1"),
        (1, &[(f, "for=\"[2001:db8::1]\"")], "2001:db8::1"),
        (1, &[(f, "for=\"[2001:db8::1]:4711\"")], "2001:db8::1"),
        (1, &[(f, "for=6.6.6.6;by=\"a,b;for=7.7.7.7\" , proto=http;by=203.0.113.43;for=192.0.2.1")], "192.0.2.1"),
        (2, &[(f, "for=192.0.2.1"), (f, "for=10.0.0.8;proto=https")], "192.0.2.1"),
        (1, &[(f, "for=\"_\\\"x\", for=192.0.2.1")], "192.0.2.1"),
        // Both headers, with the same content.
        (1, &[(x, "192.0.2.1"), (f, "for=192.0.2.1")], "192.0.2.1"),
        (1, &[(x, "6.6.6.6, 192.0.2.1"), (f, "for=192.0.2.1")], "192.0.2.1"),
    ];
    for (hops, lines, expected) in cases {
        assert_eq!(client(*hops, lines), *expected, "{hops} {lines:?}");
    }
}

#[test]
fn an_unclear_header_counts_as_the_proxy() {
    let x = "x-forwarded-for";
    let f = "forwarded";
    #[rustfmt::skip]
    let cases: &[(usize, &Lines)] = &[
        (1, &[]),
        // Fewer entries than proxies.
        (2, &[(x, "192.0.2.1")]),
        (2, &[(f, "for=192.0.2.1")]),
        (255, &[(x, "192.0.2.1, 192.0.2.2")]),
        // The entry is not an address.
        (1, &[(x, "192.0.2.1, unknown")]),
        (1, &[(x, "192.0.2.1, ")]),
        (1, &[(x, "192.0.2.1, 300.0.0.1")]),
        (1, &[(x, "localhost")]),
        (1, &[(x, "[192.0.2.1]")]),
        (1, &[(f, "for=unknown")]),
        (1, &[(f, "for=\"_hidden:_port\"")]),
        (1, &[(f, "for=_SEVKISEK")]),
        (1, &[(f, "proto=https")]),
        (1, &[(f, "for=192.0.2.1,")]),
        // An IPv6 address has to be quoted in Forwarded (RFC 7239 section 6).
        (1, &[(f, "for=[2001:db8::1]")]),
        (1, &[(f, "for=192.0.2.1:80")]),
        // Malformed: quotes that the client opened, repeated parameters, blanks around the equals sign.
        (1, &[(f, "for=6.6.6.6;by=\", for=192.0.2.1")]),
        (1, &[(f, "for=6.6.6.6;by=\", for=\"[2001:db8::1]\"")]),
        (1, &[(f, "for=\"6.6.6.6\\"), (f, "for=192.0.2.1")]),
        (1, &[(f, "for=192.0.2.1;for=6.6.6.6")]),
        (1, &[(f, "for = 192.0.2.1")]),
        (1, &[(f, "for=192.0.2.1 for=6.6.6.6")]),
        (1, &[(f, "192.0.2.1")]),
        // Both headers, with different content: one of them is the client's own.
        (1, &[(x, "192.0.2.1"), (f, "for=6.6.6.6")]),
        (1, &[(f, "for=192.0.2.1"), (x, "6.6.6.6")]),
        (1, &[(x, "192.0.2.1"), (f, "for=\"")]),
        (2, &[(x, "192.0.2.1, 10.0.0.8"), (f, "for=192.0.2.1")]),
    ];
    for (hops, lines) in cases {
        assert_eq!(client(*hops, lines), PROXY, "{hops} {lines:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_client_chooses_its_address(
        own in prop::collection::vec((any::<bool>(), "[ -~]{0,40}"), 0..4),
        ends_in_own_line in any::<bool>(),
    ) {
        // A client's headers, behind a proxy that appends to one header and passes the other one on.
        let mut headers = HeaderMap::new();
        for (forwarded, text) in own {
            let name = if forwarded { "forwarded" } else { "x-forwarded-for" };
            headers.append(name, HeaderValue::from_str(&text).unwrap());
        }
        let mut by_x = headers.clone();
        append(&mut by_x, "x-forwarded-for", "192.0.2.1", ends_in_own_line);
        let mut by_forwarded = headers;
        append(&mut by_forwarded, "forwarded", "for=\"192.0.2.1:80\"", ends_in_own_line);
        for headers in [by_x, by_forwarded] {
            let proxy: IpAddr = PROXY.parse().unwrap();
            let found = proxies::client(&headers, proxy, 1).to_string();
            proptest::prop_assert!(found == "192.0.2.1" || found == PROXY, "{found}");
        }
    }
}

/// Appends an entry as proxies do: in a line of its own, or at the end of the last one.
fn append(headers: &mut HeaderMap, name: &'static str, entry: &str, own_line: bool) {
    let last = headers.get_all(name).iter().next_back().cloned();
    match last {
        Some(last) if !own_line => {
            let mut lines: Vec<_> = headers.get_all(name).iter().cloned().collect();
            lines.pop();
            headers.remove(name);
            for line in lines {
                headers.append(name, line);
            }
            let text = format!("{}, {entry}", last.to_str().unwrap());
            headers.append(name, HeaderValue::from_str(&text).unwrap());
        }
        _ => {
            headers.append(name, HeaderValue::from_str(entry).unwrap());
        }
    }
}
