//! The push resource's URL, its origin, and its key in stores.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::Uri;
use http::uri::Scheme;
use sha2::{Digest as _, Sha256};

use super::{SubscriptionError, SubscriptionErrorKind};
use crate::encoding::base64url;

/// The URL of a push resource, kept byte for byte (RFC 8030 section 5).
///
/// An absolute `http` or `https` URL of at most [`MAX_LEN`](Self::MAX_LEN) octets, with a host of ASCII
/// letters, digits, `-`, `_` and `.` (or a literal address), without userinfo and fragment. Whether the
/// server may *send* there is the endpoint policy's decision, not this type's.
///
/// # Security
///
/// Anyone who holds the URL can send to it, or flood it (RFC 8030 section 8.3). `Debug` shows the origin
/// and a short hash; there is no `Display`.
#[derive(Clone)]
pub struct Endpoint {
    url: Arc<str>,
    uri: Uri,
    origin: Origin,
    key: EndpointKey,
}

impl Endpoint {
    /// The longest URL, in octets: FCM needs about 200, WNS several hundred.
    pub const MAX_LEN: usize = 2048;

    /// Parses a URL.
    ///
    /// # Errors
    ///
    /// [`EndpointTooLong`](SubscriptionErrorKind::EndpointTooLong) or
    /// [`InvalidEndpoint`](SubscriptionErrorKind::InvalidEndpoint).
    pub fn parse(url: &str) -> Result<Self, SubscriptionError> {
        if url.len() > Self::MAX_LEN {
            return Err(SubscriptionErrorKind::EndpointTooLong.into());
        }
        let invalid = || SubscriptionError::from(SubscriptionErrorKind::InvalidEndpoint);
        // `Uri` would silently drop a fragment, and keeps octets above ASCII.
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\';
        if !url.bytes().all(plain) {
            return Err(invalid());
        }
        let uri = Uri::from_str(url).map_err(|_| invalid())?;
        let origin = Origin::of(&uri).ok_or_else(invalid)?;
        Ok(Self {
            url: url.into(),
            uri,
            origin,
            key: EndpointKey(Sha256::digest(url.as_bytes()).into()),
        })
    }

    /// The URL as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// The same URL, parsed once.
    #[must_use]
    pub const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The host, as it was given.
    #[must_use]
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// The push service's origin.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The key of this endpoint in stores.
    #[must_use]
    pub const fn key(&self) -> EndpointKey {
        self.key
    }

    /// A key that all spellings of one push resource share, for limits on what is sent to it: of the origin, and of octets that are
    /// percent-encoded or not. Hashes on every call.
    #[cfg(feature = "api")]
    pub(crate) fn resource_key(&self) -> EndpointKey {
        let path = self.uri.path_and_query();
        let path = path.map_or("", http::uri::PathAndQuery::as_str);
        let mut hash = Sha256::new().chain_update(self.origin.as_str());
        let mut parts = path.split('%');
        hash.update(parts.next().unwrap_or_default());
        for part in parts {
            let octet = part
                .get(..2)
                .and_then(|code| u8::from_str_radix(code, 16).ok());
            match (octet, part.get(2..)) {
                (Some(octet), Some(rest)) => {
                    hash.update([octet]);
                    hash.update(rest);
                }
                _ => hash.update(part),
            }
        }
        EndpointKey(hash.finalize().into())
    }
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.url == other.url
    }
}

impl Eq for Endpoint {}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}, {:?})", self.origin, self.key())
    }
}

impl FromStr for Endpoint {
    type Err = SubscriptionError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        Self::parse(url)
    }
}

/// The origin of a push service as VAPID's `aud` spells it (RFC 8292 section 2, RFC 6454 section 6.1):
/// `scheme://host[:port]` in lower case, the default port left out, no trailing slash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(Arc<str>);

impl Origin {
    /// The origin of an absolute http or https URI with a plain host; `None` for any other.
    #[must_use]
    pub fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme()?;
        let default_port = match scheme {
            s if *s == Scheme::HTTPS => 443,
            s if *s == Scheme::HTTP => 80,
            _ => return None,
        };
        let authority = uri.authority()?;
        let host = authority.host();
        if authority.as_str().contains('@') || !is_plain_host(host) {
            return None;
        }
        // Digits only: integer parsing would take a sign as well.
        let port = match authority.as_str().get(host.len()..)?.strip_prefix(':') {
            None => default_port,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                port.parse::<u16>().ok().filter(|port| *port != 0)?
            }
            Some(_) => return None,
        };
        let mut origin = format!("{}://{}", scheme.as_str(), host);
        origin.make_ascii_lowercase();
        if port != default_port {
            origin.push(':');
            origin.push_str(&port.to_string());
        }
        Some(Self(origin.into()))
    }

    /// Parses the text of an origin, with or without the default port.
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint`](SubscriptionErrorKind::InvalidEndpoint) if there is anything other than scheme, host and
    /// port.
    pub fn parse(text: &str) -> Result<Self, SubscriptionError> {
        let endpoint = Endpoint::parse(text)?;
        let uri = endpoint.uri();
        if uri
            .path_and_query()
            .is_some_and(|rest| rest.as_str() != "/")
            || text.ends_with('/')
        {
            return Err(SubscriptionErrorKind::InvalidEndpoint.into());
        }
        Ok(endpoint.origin)
    }

    /// The serialized origin.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host; an IPv6 address in brackets.
    #[cfg(feature = "_engine")]
    pub(crate) fn host(&self) -> &str {
        let authority = self.0.split_once("://").map_or(&*self.0, |(_, rest)| rest);
        let port = authority
            .rfind(':')
            .filter(|at| authority.rfind(']') < Some(*at));
        port.and_then(|at| authority.get(..at)).unwrap_or(authority)
    }
}

/// Letters, digits, `-`, `_`, `.`, or a bracketed IPv6 literal: nothing that two parsers could read differently.
fn is_plain_host(host: &str) -> bool {
    if let Some(inner) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    !host.is_empty()
        && host.len() <= 253
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({})", self.0)
    }
}

/// SHA-256 of an endpoint: the key by which stores order, page and address subscriptions.
///
/// It is used where the endpoint itself, a capability, must not appear.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey([u8; 32]);

impl EndpointKey {
    /// A key read back from a store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, ..] = self.0;
        write!(f, "#{}", base64url(&[a, b, c, d, e, g]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> String {
        Endpoint::parse(url).unwrap().origin().as_str().to_owned()
    }

    #[cfg(feature = "api")]
    #[test]
    fn all_spellings_of_a_push_resource_have_one_key() {
        let key = |url: &str| Endpoint::parse(url).unwrap().resource_key();
        let wns = key("https://db5p.notify.windows.com/w/?token=a%2f%3d");
        for same in [
            "https://DB5P.notify.windows.com:443/w/?token=a%2F%3D",
            "https://db5p.notify.windows.com/w/?token=a/=",
            "https://db5p.notify.windows.com/w/?tok%65n=%61/=",
        ] {
            assert_eq!(key(same), wns, "{same}");
        }
        for other in [
            "https://db5p.notify.windows.com/w/?token=b%2f%3d",
            "https://db5p.notify.windows.com/w/?token=a%2f",
            "https://db5p.notify.windows.com/w/?token=a%2f%3",
            "https://db5p.notify.windows.com/w/?token=a%zz",
            "https://wns2-par02p.notify.windows.com/w/?token=a%2f%3d",
        ] {
            assert_ne!(key(other), wns, "{other}");
        }
    }

    #[test]
    fn an_origin_is_lower_case_without_the_default_port() {
        assert_eq!(
            origin("https://Push.Example.NET/p/1?q=2"),
            "https://push.example.net"
        );
        assert_eq!(
            origin("https://push.example.net:443/p"),
            "https://push.example.net"
        );
        assert_eq!(origin("http://127.0.0.1:80/p"), "http://127.0.0.1");
        assert_eq!(origin("http://[::1]:8080/p"), "http://[::1]:8080");
    }

    #[test]
    fn an_origin_keeps_another_port() {
        assert_eq!(
            origin("https://push.example.net:8443/p"),
            "https://push.example.net:8443"
        );
        assert_eq!(
            origin("http://push.example.net:443/p"),
            "http://push.example.net:443"
        );
    }

    /// Resolvers look such names up, and TLS clients check their certificates.
    #[test]
    fn an_underscore_is_plain() {
        assert_eq!(
            origin("https://Push_1.example.net/p"),
            "https://push_1.example.net"
        );
    }

    #[test]
    fn the_url_is_kept_byte_for_byte() {
        let url = "https://db5p.Notify.Windows.com/w/?token=a%2Fb%3d%3D";
        assert_eq!(Endpoint::parse(url).unwrap().as_str(), url);
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for url in [
            "",
            "/p",
            "push.example.net/p",
            "ftp://push.example.net/p",
            "https:///p",
            "https://user@push.example.net/p",
            "https://user:pw@push.example.net/p",
            "https://push.example.net/p#frag",
            "https://push.example.net\\@evil.example/p",
            "https://push.example.net/ p",
            "https://push.example.net/\u{e9}",
            "https://pu%73h.example.net/p",
            "https://push.example.net:/p",
            "https://push.example.net:0/p",
            "https://push.example.net:65536/p",
            "https://push.example.net:+443/p",
            "https://[fe80::1%25eth0]/p",
            "https://[::1/p",
        ] {
            assert!(Endpoint::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_length_is_limited() {
        let url = |len: usize| format!("https://push.example.net/{}", "a".repeat(len - 25));
        assert!(Endpoint::parse(&url(Endpoint::MAX_LEN)).is_ok());
        let kind = Endpoint::parse(&url(Endpoint::MAX_LEN + 1))
            .unwrap_err()
            .kind();
        assert_eq!(kind, SubscriptionErrorKind::EndpointTooLong);
    }

    #[test]
    fn debug_hides_the_capability() {
        let endpoint = Endpoint::parse("https://push.example.net/secret-token").unwrap();
        let debug = format!("{endpoint:?}");
        assert!(
            debug.contains("https://push.example.net") && !debug.contains("secret"),
            "{debug}"
        );
    }

    #[test]
    fn an_origin_has_no_path() {
        assert!(Origin::parse("https://push.example.net:8443").is_ok());
        for text in [
            "https://push.example.net/",
            "https://push.example.net/p",
            "push.example.net",
        ] {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn equal_means_the_whole_url() {
        let endpoint = |url: &str| Endpoint::parse(url).unwrap();
        let one = endpoint("https://push.example.net/p/1?q=2");
        assert_eq!(one, endpoint("https://push.example.net/p/1?q=2"));
        for other in [
            "https://push.example.net/p/1?q=3",
            "https://push.example.net/p/2?q=2",
            "https://push.example.net/p/1",
            "https://push.example.org/p/1?q=2",
            "https://push.example.net:8443/p/1?q=2",
            "http://push.example.net/p/1?q=2",
        ] {
            let other = endpoint(other);
            assert_ne!(one, other);
            assert_ne!(one.key(), other.key());
        }
    }
}
