//! The client's address behind proxies that report it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address, with `hops` proxies in front of this server.
///
/// Each proxy adds the address that it was called from at the right end of `X-Forwarded-For` or `Forwarded` (RFC
/// 7239). So the nearest proxy wrote the last entry, and the client is the `hops`-th from the right. The entries before
/// that came with the request, and any client can write them.
///
/// Returns the connection's own address, which is the nearest proxy's, if
///
/// - the list is shorter, cannot be read, or has no address at that place (`unknown`, an obfuscated identifier);
/// - both headers are present and name different addresses: a proxy that writes one of them forwards the other one as
///   the client wrote it, and the server cannot tell which is which.
///
/// Limits per address then apply to all such requests together, so no client gains by causing it.
pub(super) fn client(headers: &HeaderMap, connection: IpAddr, hops: usize) -> IpAddr {
    if hops == 0 {
        return connection;
    }
    let at = |entries: Option<Vec<Option<IpAddr>>>| {
        let entries = entries?;
        *entries.get(entries.len().checked_sub(hops)?)?
    };
    let x_forwarded_for = headers.contains_key(&X_FORWARDED_FOR);
    let forwarded = headers.contains_key(FORWARDED);
    let client = match (x_forwarded_for, forwarded) {
        (true, false) => at(entries_of_x_forwarded_for(headers)),
        (false, true) => at(entries_of_forwarded(headers)),
        (true, true) => at(entries_of_x_forwarded_for(headers))
            .filter(|address| at(entries_of_forwarded(headers)) == Some(*address)),
        (false, false) => None,
    };
    client.unwrap_or(connection)
}

/// One entry for each proxy, `None` if it is not an address. Several lines are one list (RFC 9110 section 5.3).
fn entries_of_x_forwarded_for(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    let list = list(headers, &X_FORWARDED_FOR)?;
    let entries = list.split(',').map(str::trim);
    Some(entries.map(address).collect())
}

/// The `for` parameter of each element. A header that breaks the grammar has no entries at all: after an unclosed
/// quote it cannot be told where an element ends, and the client may have opened it.
fn entries_of_forwarded(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    let list = list(headers, &FORWARDED)?;
    let mut rest = list.as_str();
    let mut entries = vec![None];
    let mut has_for = false;
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some((name, after)) = token(rest) {
            let (value, after) = value(after.strip_prefix('=')?)?;
            if name.eq_ignore_ascii_case("for") {
                // Each parameter may occur once per element (RFC 7239 section 4).
                if has_for {
                    return None;
                }
                has_for = true;
                *entries.last_mut()? = address(&value);
            }
            rest = after.trim_start_matches([' ', '\t']);
        }
        let Some(separator) = rest.chars().next() else {
            return Some(entries);
        };
        match separator {
            ';' => {}
            ',' => {
                entries.push(None);
                has_for = false;
            }
            _ => return None,
        }
        rest = rest.get(1..)?;
    }
}

/// All lines of a header as one list.
fn list(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines: Result<Vec<_>, _> = headers
        .get_all(name)
        .iter()
        .map(|line| line.to_str())
        .collect();
    Some(lines.ok()?.join(","))
}

/// A token (RFC 9110 section 5.6.2) at the beginning of a text, and what follows it.
fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A token or a quoted string, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = token(text)?;
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(chars.next()?),
            other => value.push(other),
        }
    }
}

/// An address, with or without a port; IPv6 also in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = || {
        text.strip_prefix('[')?
            .strip_suffix(']')?
            .parse::<Ipv6Addr>()
            .ok()
    };
    text.parse::<IpAddr>()
        .ok()
        .or_else(|| Some(bracketed()?.into()))
        .or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))
}
