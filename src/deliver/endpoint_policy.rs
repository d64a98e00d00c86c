//! Which endpoints the server may send to.
//!
//! Whoever registers a subscription chooses where the server posts. The policy is asked when a
//! subscription comes in, before every request, and for every address that is about to be dialled.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use http::Uri;
use http::uri::Scheme;

use super::address::{is_loopback, is_public};
use crate::error::error_struct;
use crate::local_names::is_local_name;
use crate::push_service::{PushService, is_below};
use crate::subscription::Endpoint;

/// Which endpoints may be sent to. Cheap to clone.
///
/// Whatever the policy: a host of whole, non-empty labels of letters, digits, `-` and `_`, no numeric last label, no
/// single label, no name for local use or for none (`localhost`, `local`, `internal`, `lan`, `home`, `corp`, `intranet`,
/// `private`, `localdomain`, `arpa`, `test`, `invalid`, `onion`, `alt`), no literal address, `https`, port 443; and only
/// public addresses behind it. A list may name other ports, and
/// [`insecure_allow_local`](Self::insecure_allow_local) alone admits loopback.
///
/// An endpoint of a known push service has the path and query that the service gives to its endpoints, also where a list
/// names the host. A token is one segment or parameter.
///
/// - FCM: `/fcm/send/` or `/wp/` and a token, no query.
/// - Mozilla: `/wpush/`, a version, and a token, no query.
/// - WNS: `/w/`, and a query that begins with `token=`.
/// - Meta: `/rl_push_send`, and a query of `notif_token=` and a token. Apple documents no rule.
///
/// `_` is no letter of host names (RFC 952), but RFC 2181 section 11 allows any octet in the DNS, resolvers look such
/// names up, and TLS clients check their certificates: so they are admitted.
///
/// # Examples
///
/// ```
/// use tower_web_push::deliver::EndpointPolicy;
/// use tower_web_push::subscription::Endpoint;
///
/// let policy: EndpointPolicy = "known, *.push.example.com, ntfy.example.org:8443".parse()?;
/// assert!(policy.check(&Endpoint::parse("https://fcm.googleapis.com/fcm/send/x").unwrap()).is_ok());
/// assert!(policy.check(&Endpoint::parse("https://eu.push.example.com/x").unwrap()).is_ok());
/// assert!(policy.check(&Endpoint::parse("https://ntfy.example.org:8443/x").unwrap()).is_ok());
/// assert!(policy.check(&Endpoint::parse("https://169.254.169.254/x").unwrap()).is_err());
/// # Ok::<(), tower_web_push::deliver::PolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPolicy(Rule);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Public,
    Local,
    Nowhere,
    Hosts(Arc<[Pattern]>),
}

/// One entry of an own list, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Known,
    Public(u16),
    Exact(Box<str>, u16),
    Below(Box<str>, u16),
}

impl EndpointPolicy {
    /// The push services of the browsers: FCM, Mozilla, Apple, WNS, Meta. The default.
    #[must_use]
    pub fn known_push_services() -> Self {
        Self(Rule::Hosts(Arc::new([Pattern::Known])))
    }

    /// Any public host: what UnifiedPush needs, whose users bring their own.
    #[must_use]
    pub const fn public_hosts() -> Self {
        Self(Rule::Public)
    }

    /// An own list: `push.example.com`, `*.example.com` (any name below it, not itself) and the word `public` for any
    /// public host, each with or without a `:port`, and the word `known` for the push services of the browsers. An entry
    /// without a port means 443. An endpoint that any entry admits is admitted: `public` and
    /// `ntfy.example.org:8443` together are any public host on 443, and that one on 8443 as well.
    ///
    /// # Errors
    ///
    /// [`InvalidPattern`](PolicyErrorKind::InvalidPattern) for an empty list, and for an entry that no
    /// endpoint could ever match.
    pub fn hosts<I>(patterns: I) -> Result<Self, PolicyError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let patterns = patterns
            .into_iter()
            .map(|text| Pattern::parse(text.as_ref()))
            .collect::<Result<Arc<[_]>, _>>()?;
        match &*patterns {
            [] => Err(PolicyErrorKind::InvalidPattern.into()),
            [Pattern::Public(HTTPS)] => Ok(Self::public_hosts()),
            _ => Ok(Self(Rule::Hosts(patterns))),
        }
    }

    /// Any public host, and loopback by `http` or `https` on any port.
    ///
    /// # Security
    ///
    /// For tests: whoever can register a subscription can make the server post to its own ports.
    #[must_use]
    pub const fn insecure_allow_local() -> Self {
        Self(Rule::Local)
    }

    /// No endpoint and no address: nothing can be registered and nothing is sent.
    ///
    /// [`WebPush::builder_without_contact`](crate::WebPush::builder_without_contact) uses it.
    pub(crate) const fn nowhere() -> Self {
        Self(Rule::Nowhere)
    }

    /// Whether loopback and plain `http` are admitted.
    #[must_use]
    pub const fn allows_local(&self) -> bool {
        matches!(self.0, Rule::Local)
    }

    /// Whether an endpoint may be sent to, as far as its URL tells.
    ///
    /// # Errors
    ///
    /// The kind says which rule refused it; its HTTP code is always `endpoint_not_allowed`.
    pub fn check(&self, endpoint: &Endpoint) -> Result<(), PolicyError> {
        self.check_uri(endpoint.uri())?;
        if !PushService::of(endpoint).has_shape(endpoint) {
            return Err(PolicyErrorKind::Path.into());
        }
        Ok(())
    }

    /// The same for what is about to be dialled, whoever built the request: scheme, host and port, all that is known of
    /// it by then.
    pub(super) fn check_uri(&self, uri: &Uri) -> Result<(), PolicyError> {
        let host = uri.host().unwrap_or_default();
        if self.allows_local() && is_local_host(host) {
            return Ok(());
        }
        check_host(host)?;
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(PolicyErrorKind::InsecureScheme.into());
        }
        let port = uri.port_u16().unwrap_or(HTTPS);
        match &self.0 {
            Rule::Public | Rule::Local if port == HTTPS => Ok(()),
            Rule::Public | Rule::Local => Err(PolicyErrorKind::Port.into()),
            Rule::Nowhere => Err(PolicyErrorKind::NotListed.into()),
            Rule::Hosts(patterns) => {
                let named = patterns.iter().filter(|pattern| pattern.names(host));
                let mut ports = named.map(Pattern::port).peekable();
                if ports.peek().is_none() {
                    Err(PolicyErrorKind::NotListed.into())
                } else if ports.any(|listed| listed == port) {
                    Ok(())
                } else {
                    Err(PolicyErrorKind::Port.into())
                }
            }
        }
    }

    /// The suffix, in lower case, below which a host is one of any number of names that the policy admits; `None` for
    /// hosts that are listed or well known one by one, and for local ones. Below no suffix of a list, as under `public`, it
    /// is the last two labels.
    pub(crate) fn open_suffix(&self, host: &str) -> Option<String> {
        if self.allows_local() && is_local_host(host) {
            return None;
        }
        let is_known = PushService::of_host(host) != PushService::Other;
        let mut suffix = match is_known {
            true => PushService::suffix_of_host(host),
            false => Some(last_two_labels(host)),
        };
        if let Rule::Hosts(patterns) = &self.0 {
            for pattern in patterns.iter().filter(|pattern| pattern.names(host)) {
                match pattern {
                    Pattern::Exact(..) => return None,
                    Pattern::Below(name, _) if !is_known => suffix = Some(name),
                    Pattern::Known | Pattern::Public(_) | Pattern::Below(..) => {}
                }
            }
        }
        suffix.map(str::to_ascii_lowercase)
    }

    /// Whether an address may be dialled. Every address that a name resolves to is asked for.
    ///
    /// # Errors
    ///
    /// [`PrivateAddress`](PolicyErrorKind::PrivateAddress) for whatever is not globally reachable
    /// unicast, also when it is embedded in an IPv6 address.
    pub fn check_addr(&self, addr: IpAddr) -> Result<(), PolicyError> {
        let public = is_public(addr) && !matches!(self.0, Rule::Nowhere);
        if public || (self.allows_local() && is_loopback(addr)) {
            Ok(())
        } else {
            Err(PolicyErrorKind::PrivateAddress.into())
        }
    }
}

impl Default for EndpointPolicy {
    fn default() -> Self {
        Self::known_push_services()
    }
}

impl FromStr for EndpointPolicy {
    type Err = PolicyError;

    /// Reads the setting: `local`, or a comma list for [`hosts`](Self::hosts), such as `known`, `public` or
    /// `public, ntfy.example.org:8443`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "local" => Ok(Self::insecure_allow_local()),
            list => Self::hosts(list.split(',').map(str::trim)),
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, PolicyError> {
        if text == "known" {
            return Ok(Self::Known);
        }
        let invalid = || PolicyError::from(PolicyErrorKind::InvalidPattern);
        let (name, port) = match text.split_once(':') {
            None => (text, HTTPS),
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                let port = port.parse().ok().filter(|port| *port != 0);
                (name, port.ok_or_else(invalid)?)
            }
            Some(_) => return Err(invalid()),
        };
        if name == "public" {
            return Ok(Self::Public(port));
        }
        let below = name.strip_prefix("*.");
        let host = below.unwrap_or(name).to_ascii_lowercase();
        check_host(&host)
            .map_err(|error| PolicyError::with_source(PolicyErrorKind::InvalidPattern, error))?;
        Ok(match below {
            Some(_) => Self::Below(host.into(), port),
            None => Self::Exact(host.into(), port),
        })
    }

    fn names(&self, host: &str) -> bool {
        match self {
            Self::Known => PushService::of_host(host) != PushService::Other,
            Self::Public(_) => true,
            Self::Exact(name, _) => host.eq_ignore_ascii_case(name),
            Self::Below(name, _) => is_below(host, name),
        }
    }

    const fn port(&self) -> u16 {
        match self {
            Self::Known => HTTPS,
            Self::Public(port) | Self::Exact(_, port) | Self::Below(_, port) => *port,
        }
    }
}

/// `localhost`, a name below it (RFC 6761 section 6.3), or a literal loopback address.
pub(super) fn is_local_host(host: &str) -> bool {
    literal_addr(host).map_or_else(
        || host.eq_ignore_ascii_case("localhost") || is_below(host, "localhost"),
        is_loopback,
    )
}

/// The address that a host spells out, with or without the brackets of a URL.
pub(super) fn literal_addr(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    bare.parse().ok()
}

fn last_two_labels(host: &str) -> &str {
    let before = host.rmatch_indices('.').nth(1);
    let labels = before.and_then(|(dot, _)| host.get(dot.saturating_add(1)..));
    labels.unwrap_or(host)
}

/// What no policy but the local one admits, by the name alone.
fn check_host(host: &str) -> Result<(), PolicyError> {
    if literal_addr(host).is_some() {
        return Err(PolicyErrorKind::LiteralAddress.into());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    // A trailing dot makes an empty last label.
    let well_formed = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
    if host.len() > 253 || !host.split('.').all(well_formed) {
        return Err(PolicyErrorKind::MalformedHost.into());
    }
    let (_, last) = host.rsplit_once('.').ok_or(PolicyErrorKind::LocalName)?;
    // What the WHATWG calls "ends in a number": resolvers read 127.1, 0x7f.1 and 0177.1 as addresses.
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    if last.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err(PolicyErrorKind::NumericHost.into());
    }
    if is_local_name(host) {
        return Err(PolicyErrorKind::LocalName.into());
    }
    // Google Cloud Messaging, which FCM replaced.
    if host.eq_ignore_ascii_case("android.googleapis.com") {
        return Err(PolicyErrorKind::DeadHost.into());
    }
    Ok(())
}

const HTTPS: u16 = 443;

error_struct! {
    /// Why an endpoint, an address or a policy's own text was refused.
    PolicyError, PolicyErrorKind
}

/// Which rule of the policy refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PolicyErrorKind {
    /// Not `https`.
    InsecureScheme,
    /// A port that is not listed.
    Port,
    /// A literal address instead of a name.
    LiteralAddress,
    /// An empty or overlong label, a trailing dot among them.
    MalformedHost,
    /// The last label is a number, decimal or hexadecimal.
    NumericHost,
    /// A single label, or a name for local use or for none.
    LocalName,
    /// A push service that no longer exists.
    DeadHost,
    /// A host that the policy does not list.
    NotListed,
    /// A path or query that no endpoint of its push service has.
    Path,
    /// The name resolves to an address that is not public.
    PrivateAddress,
    /// The policy's own text cannot be read.
    InvalidPattern,
}

impl PolicyErrorKind {
    /// The stable word that HTTP answers carry as `code`: one for whatever endpoint is refused, so that
    /// nobody learns the inside of the network from it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidPattern => "invalid_endpoint_policy",
            _ => "endpoint_not_allowed",
        }
    }
}

impl fmt::Display for PolicyErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InsecureScheme => "the endpoint is not https",
            Self::Port => "the endpoint's port is not allowed",
            Self::LiteralAddress => "the endpoint's host is a literal address",
            Self::MalformedHost => "the endpoint's host is not a plain host name",
            Self::NumericHost => "the endpoint's host ends in a number",
            Self::LocalName => "the endpoint's host is a local name",
            Self::DeadHost => "the endpoint's push service no longer exists",
            Self::NotListed => "the endpoint's host is not an allowed push service",
            Self::Path => "the endpoint's path is not one that its push service uses for endpoints",
            Self::PrivateAddress => "the endpoint's host has an address that is not public",
            Self::InvalidPattern => {
                "the endpoint policy is neither local nor a list of known, public and host names"
            }
        })
    }
}

#[cfg(test)]
#[path = "endpoint_policy_tests.rs"]
mod tests;
