//! The checks before any route: the `Host`, the client's address and the signed-in user.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HOST, HeaderName};
use http::uri::Authority;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::Full;
use tower_web_push::Principal;
use tower_web_push::api::PeerAddr;

use super::accept::LOCAL;
use super::page::plain;
use super::proxies;
use super::proxy_addresses::ProxyAddresses;

/// The rules, from the settings. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct RequestRules {
    /// Accept only requests to loopback names. A page of another site can make its own name resolve to this server (DNS
    /// rebinding), but not a loopback name.
    pub(super) loopback_only: bool,
    /// Proxies in front, see [`proxies::client`].
    pub(super) trusted_proxies: usize,
    /// Where the nearest of them connects from.
    pub(super) proxy_addresses: Arc<ProxyAddresses>,
    /// The header in which the nearest proxy names the user.
    pub(super) principal_header: Option<Arc<HeaderName>>,
}

impl RequestRules {
    /// Adds the client's address and user to the request's extensions, or refuses the request. `peer` is the other end of the
    /// connection, `None` on a Unix socket, which only a proxy of this machine connects to.
    ///
    /// A header of a proxy has no meaning in a request of anyone else.
    #[expect(clippy::result_large_err, reason = "the response is sent at once")]
    pub(super) fn admit<B>(
        &self,
        mut request: Request<B>,
        peer: Option<IpAddr>,
    ) -> Result<Request<B>, Response<Full<Bytes>>> {
        let hosts = hosts(&request)
            .ok_or_else(|| plain(StatusCode::BAD_REQUEST, "one valid Host is needed\n"))?;
        if self.loopback_only && (hosts.is_empty() || !hosts.iter().all(is_loopback)) {
            let why =
                "with ENDPOINT_POLICY=local only localhost is served, and this is another name\n";
            return Err(plain(StatusCode::MISDIRECTED_REQUEST, why));
        }
        let is_proxy = peer.is_none_or(|peer| self.proxy_addresses.contains(peer));
        let hops = if is_proxy { self.trusted_proxies } else { 0 };
        let client = proxies::client(request.headers(), peer.unwrap_or(LOCAL), hops);
        let principal = match is_proxy {
            true => self.principal(request.headers()),
            false => None,
        };
        if hops == 0 {
            // A client does not choose what log lines say of its request.
            request.headers_mut().remove("x-request-id");
        }
        let extensions = request.extensions_mut();
        extensions.insert(PeerAddr::new(client));
        if let Some(principal) = principal {
            extensions.insert(principal);
        }
        Ok(request)
    }

    /// The user, if the header has exactly one value. A second one may be the client's, if the proxy appends to the header
    /// instead of replacing it.
    fn principal(&self, headers: &HeaderMap) -> Option<Principal> {
        let mut values = headers.get_all(self.principal_header.as_deref()?).iter();
        let (value, None) = (values.next()?, values.next()) else {
            return None;
        };
        // HTTP's own white space (RFC 9110 section 5.6.3). A name with other white space around it would look like another user's.
        let name = str::from_utf8(value.as_bytes()).ok()?;
        let name = name.trim_matches([' ', '\t']);
        let is_plain = !name.is_empty() && name.trim() == name;
        is_plain.then(|| Principal::from(name))
    }
}

/// The hosts that a request names: one, or two equal ones. `None` for a request to refuse: no `Host` in HTTP/1.1, more
/// than one, an invalid one (RFC 9112 section 3.2), or one that differs from `:authority` (RFC 9113 section 8.3.1). An
/// HTTP/1.0 request may have none.
fn hosts<B>(request: &Request<B>) -> Option<Vec<Authority>> {
    let headers = request.headers().get_all(HOST);
    let (mut lines, is_http1) = (headers.iter(), request.version() < Version::HTTP_2);
    let header = match (lines.next(), lines.next()) {
        (Some(line), None) => Some(str::from_utf8(line.as_bytes()).ok()?.parse().ok()?),
        (None, None) => None,
        _ => return None,
    };
    let target = request.uri().authority().cloned();
    let missing = match request.version() {
        Version::HTTP_11 => header.is_none(),
        Version::HTTP_2 => header.is_none() && target.is_none(),
        _ => false,
    };
    // In HTTP/1 the target goes before Host (RFC 9112 section 3.2.2), so they may differ.
    if missing || (!is_http1 && header.is_some() && target.is_some() && header != target) {
        return None;
    }
    let hosts: Vec<_> = header.into_iter().chain(target).collect();
    hosts.iter().all(is_valid).then_some(hosts)
}

/// `http` parses an authority of any scheme: with userinfo, without a host, or with any text as port.
fn is_valid(authority: &Authority) -> bool {
    let (text, host) = (authority.as_str(), authority.host());
    let literal = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok()),
        None => true,
    };
    let port = match text.strip_prefix(host) {
        Some("") => true,
        Some(rest) => rest
            .strip_prefix(':')
            .is_some_and(|port| port.is_empty() || port.parse::<u16>().is_ok()),
        None => false,
    };
    !host.is_empty() && literal && port
}

/// `localhost`, a name below it (RFC 6761 section 6.3), or a loopback address.
fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host().to_ascii_lowercase();
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    match literal.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}
