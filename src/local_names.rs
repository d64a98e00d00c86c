//! Host names that are for local use only or are never delegated.

/// Top-level names that are never delegated in the public DNS, or never to a web host:
///
/// - RFC 6761: `localhost`, `test`, `invalid`. Chromium returns `permanently-removed.invalid` if there is no push
///   service. `example` is not listed: documentation uses it.
/// - RFC 6762: `local`, and the names for private networks of its appendix G.
/// - RFC 3172: `arpa`, with `home.arpa` (RFC 8375) and the reverse trees in it.
/// - RFC 7686: `onion`. RFC 9476: `alt`. ICANN's resolution of 29 July 2024: `internal`.
const NAMES: [&str; 14] = [
    "localhost",
    "test",
    "invalid",
    "local",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "localdomain",
    "arpa",
    "onion",
    "alt",
    "internal",
];

/// Returns whether a host is a single label, or a name below one of [`NAMES`]. Case is ignored.
pub(crate) fn is_local_name(host: &str) -> bool {
    host.rsplit_once('.')
        .is_none_or(|(_, last)| NAMES.iter().any(|name| last.eq_ignore_ascii_case(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_for_local_use_are_known_whatever_their_case() {
        for host in [
            "",
            "localhost",
            "intranet",
            "a.localhost",
            "a.b.TEST",
            "x.invalid",
            "printer.local",
            "push.lan",
            "push.home.arpa",
            "1.0.0.127.in-addr.arpa",
            "x.onion",
            "x.alt",
            "db.Internal",
            "a.corp",
            "a.home",
            "a.private",
            "a.intranet",
            "a.localdomain",
        ] {
            assert!(is_local_name(host), "{host}");
        }
        for host in [
            "push.example.com",
            "push.example",
            "lan.example.net",
            "test.dev",
            "local.host",
            "arpa.net",
            "latest.example.org",
        ] {
            assert!(!is_local_name(host), "{host}");
        }
    }
}
