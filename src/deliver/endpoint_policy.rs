//! The endpoints that the server may send to.
//!
//! A client that registers a subscription chooses where the server posts. The policy is checked at registration, before
//! every request, and for every address before it is dialled.

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
use crate::subscription::{Endpoint, Origin};

/// The endpoints that may be sent to. Cheap to clone.
///
/// Every policy requires: a host of non-empty labels of letters, digits, `-` and `_`, no numeric last label, no
/// single label, no name that is reserved or for local use (`localhost`, `local`, `internal`, `lan`, `home`, `corp`, `intranet`,
/// `private`, `localdomain`, `arpa`, `test`, `invalid`, `onion`, `alt`), no literal address, `https`, port 443, and only
/// public addresses for the host. A list may name other ports. Only
/// [`insecure_allow_local`](Self::insecure_allow_local) admits loopback.
///
/// An endpoint of a known push service must have the path and query of that service, also if a list names the host. A token is one segment or parameter, without
/// other parameters, and its `:`, `=` and, of WNS, `+` and `/` are percent-encoded all or none, in one case: each spelling is an
/// endpoint of its own.
///
/// - FCM: `/fcm/send/` or `/wp/` and a token, no query.
/// - Mozilla: `/wpush/`, a version, and a token, no query.
/// - WNS: `/w/`, and a query of `token=` and a token.
/// - Meta: `/rl_push_send`, and a query of `notif_token=` and a token. Apple documents no rule.
///
/// `_` is not allowed in host names (RFC 952). RFC 2181 section 11 allows any octet in the DNS, resolvers look such names
/// up, and TLS clients check their certificates; so they are admitted.
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

/// One entry of a list, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Known,
    Public(u16),
    Exact(Box<str>, u16),
    Below(Box<str>, u16),
}

impl EndpointPolicy {
    /// Admits the push services of the browsers: FCM, Mozilla, Apple, WNS, Meta. The default.
    #[must_use]
    pub fn known_push_services() -> Self {
        Self(Rule::Hosts(Arc::new([Pattern::Known])))
    }

    /// Admits any public host. UnifiedPush needs it, since its users choose their push server.
    #[must_use]
    pub const fn public_hosts() -> Self {
        Self(Rule::Public)
    }

    /// Admits the hosts of a list: `push.example.com`, `*.example.com` (any name below it, not itself) and the word `public` for any
    /// public host, each with or without a `:port`, and the word `known` for the push services of the browsers. An entry
    /// without a port means 443. An endpoint that any entry admits is admitted: `public` and
    /// `ntfy.example.org:8443` together are any public host on 443, and that one on 8443 as well.
    ///
    /// # Errors
    ///
    /// [`InvalidPattern`](PolicyErrorKind::InvalidPattern) for an empty list, and for an entry that cannot match any
    /// endpoint.
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

    /// Admits any public host, and loopback by `http` or `https` on any port.
    ///
    /// # Security
    ///
    /// For tests only: a client that can register a subscription can make the server post to ports of its own machine.
    #[must_use]
    pub const fn insecure_allow_local() -> Self {
        Self(Rule::Local)
    }

    /// Admits no endpoint and no address: nothing can be registered and nothing is sent.
    ///
    /// [`WebPush::builder_without_contact`](crate::WebPush::builder_without_contact) uses it.
    pub(crate) const fn nowhere() -> Self {
        Self(Rule::Nowhere)
    }

    /// Returns whether loopback and plain `http` are admitted.
    #[must_use]
    pub const fn allows_local(&self) -> bool {
        matches!(self.0, Rule::Local)
    }

    /// Checks the URL of an endpoint. The addresses of its host are checked by [`check_addr`](Self::check_addr).
    ///
    /// # Errors
    ///
    /// The kind names the rule that refused it. Its HTTP code is always `endpoint_not_allowed`.
    pub fn check(&self, endpoint: &Endpoint) -> Result<(), PolicyError> {
        self.check_uri(endpoint.uri())?;
        if !PushService::of(endpoint).has_shape(endpoint) {
            return Err(PolicyErrorKind::Path.into());
        }
        Ok(())
    }

    /// Checks scheme, host and port: all that is known when a connection is opened.
    pub(super) fn check_uri(&self, uri: &Uri) -> Result<(), PolicyError> {
        let host = uri.host().unwrap_or_default();
        // One origin would have thousands of spellings, and each endpoint as many keys.
        if uri
            .port()
            .is_some_and(|port| port.as_str().starts_with('0'))
        {
            return Err(PolicyErrorKind::Port.into());
        }
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

    /// The suffix, in lower case, below which the policy admits any name; `None` for hosts that are listed or well known
    /// individually, and for local ones. For a host that matches no suffix of a list, as under `public`, it is the
    /// registrable domain with the built-in client, and the last two labels without.
    pub(crate) fn open_suffix(&self, host: &str) -> Option<String> {
        if self.allows_local() && is_local_host(host) {
            return None;
        }
        let is_known = PushService::of_host(host) != PushService::Other;
        let domain;
        let mut suffix = match is_known {
            true => PushService::suffix_of_host(host),
            false => {
                domain = domain_of(host);
                Some(&*domain)
            }
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

    /// Returns whether the policy names a host: a known push service, or an entry of the list without `*`. Strangers
    /// cannot add such hosts.
    pub(super) fn names(&self, host: &str) -> bool {
        let is_exact =
            |pattern: &Pattern| matches!(pattern, Pattern::Exact(..)) && pattern.names(host);
        PushService::of_host(host) != PushService::Other
            || matches!(&self.0, Rule::Hosts(patterns) if patterns.iter().any(is_exact))
    }

    /// As [`names`](Self::names), for the host of an origin.
    pub(crate) fn names_origin(&self, origin: &Origin) -> bool {
        self.names(origin.host())
    }

    /// Returns the origins that are known one by one: those of push services that every browser of a vendor uses, whether the
    /// policy admits them or not, and the entries of the list without `*`.
    pub fn named_origins(&self) -> impl Iterator<Item = Origin> {
        let patterns = match &self.0 {
            Rule::Hosts(patterns) => &**patterns,
            Rule::Public | Rule::Local | Rule::Nowhere => &[],
        };
        let listed = patterns.iter().filter_map(|pattern| match pattern {
            Pattern::Exact(host, port) => Some(format!("https://{host}:{port}")),
            Pattern::Known | Pattern::Public(_) | Pattern::Below(..) => None,
        });
        let known = PushService::hosts().map(|host| format!("https://{host}"));
        known
            .chain(listed)
            .filter_map(|origin| Origin::parse(&origin).ok())
    }

    /// Checks an address before it is dialled. The client checks every address of a name.
    ///
    /// # Errors
    ///
    /// [`PrivateAddress`](PolicyErrorKind::PrivateAddress) for an address that is not globally reachable unicast, also if it
    /// is embedded in an IPv6 address.
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

    /// Parses `local`, or a comma-separated list for [`hosts`](Self::hosts), such as `known`, `public` or
    /// `public, ntfy.example.org:8443`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "local" => Ok(Self::insecure_allow_local()),
            list => Self::hosts(list.split(',').map(str::trim)),
        }
    }
}

impl fmt::Display for EndpointPolicy {
    /// Writes what [`from_str`](Self::from_str) parses, and `none` for the policy that admits no endpoint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Rule::Public => f.write_str("public"),
            Rule::Local => f.write_str("local"),
            Rule::Nowhere => f.write_str("none"),
            Rule::Hosts(patterns) => {
                for (place, pattern) in patterns.iter().enumerate() {
                    f.write_str(if place > 0 { "," } else { "" })?;
                    pattern.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known => f.write_str("known")?,
            Self::Public(_) => f.write_str("public")?,
            Self::Exact(host, _) => f.write_str(host)?,
            Self::Below(host, _) => write!(f, "*.{host}")?,
        }
        match self.port() {
            HTTPS => Ok(()),
            port => write!(f, ":{port}"),
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

/// Returns whether a host is `localhost`, a name below it (RFC 6761 section 6.3), or a literal loopback address.
pub(super) fn is_local_host(host: &str) -> bool {
    literal_addr(host).map_or_else(
        || host.eq_ignore_ascii_case("localhost") || is_below(host, "localhost"),
        is_loopback,
    )
}

/// The address of a host that is a literal address, with or without the brackets of a URL.
pub(super) fn literal_addr(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    bare.parse().ok()
}

/// The domain that one owner has, of a host that is a name: as the connections of the client are shared out.
#[cfg(feature = "client")]
fn domain_of(host: &str) -> Box<str> {
    super::shares::registrable_domain(host).unwrap_or_else(|| host.into())
}

/// The last two labels, for want of the public suffix list.
#[cfg(not(feature = "client"))]
fn domain_of(host: &str) -> Box<str> {
    let before = host.rmatch_indices('.').nth(1);
    let labels = before.and_then(|(dot, _)| host.get(dot.saturating_add(1)..));
    labels.unwrap_or(host).into()
}

/// Checks a name against the rules of every policy except the local one.
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
    // "Ends in a number" in the WHATWG URL standard: resolvers read 127.1, 0x7f.1 and 0177.1 as addresses.
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    if last.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err(PolicyErrorKind::NumericHost.into());
    }
    if is_local_name(host) {
        return Err(PolicyErrorKind::LocalName.into());
    }
    // Google Cloud Messaging, shut down and replaced by FCM.
    if host.eq_ignore_ascii_case("android.googleapis.com") {
        return Err(PolicyErrorKind::DeadHost.into());
    }
    Ok(())
}

const HTTPS: u16 = 443;

error_struct! {
    /// An endpoint, an address or the text of a policy was refused.
    PolicyError, PolicyErrorKind
}

/// The rule that refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PolicyErrorKind {
    /// Not `https`.
    InsecureScheme,
    /// The port is not listed, or begins with a zero.
    Port,
    /// The host is a literal address.
    LiteralAddress,
    /// A label is empty, too long or has characters that host names do not have. A trailing dot makes an empty label.
    MalformedHost,
    /// The last label is a number, decimal or hexadecimal.
    NumericHost,
    /// A single label, or a name that is reserved or for local use.
    LocalName,
    /// The push service no longer exists.
    DeadHost,
    /// The policy does not list the host.
    NotListed,
    /// The endpoints of this push service have another path or query.
    Path,
    /// The name resolves to an address that is not public.
    PrivateAddress,
    /// The text of the policy is invalid.
    InvalidPattern,
}

impl PolicyErrorKind {
    /// The stable `code` of HTTP responses. All refusals of an endpoint have the same one, so that the response reveals
    /// nothing about the internal network.
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
