//! The contact of the operator, for push services.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use http::Uri;

use super::{VapidError, VapidErrorKind};
use crate::local_names::is_local_name;

/// A `mailto:` or `https:` URI for the `sub` claim (RFC 8292 section 2.1).
///
/// Push services answer 403 to contacts that they reject: Apple refuses local names, `.invalid` domains, blanks,
/// angle brackets and `http:`. All of these are refused here, at the start, instead of at the first push. The text is
/// kept as it was given, with the scheme in lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Contact(Arc<str>);

impl Contact {
    /// The longest contact, in octets: every token contains it.
    pub const MAX_LEN: usize = 256;

    /// Parses a contact.
    ///
    /// A `mailto:` holds one address, without header fields. An `https:` URL has no userinfo and no port 0. The host
    /// is a public name: at least two labels, ASCII (Punycode for others), and not below a name for local or special
    /// use: `localhost`, `local`, `internal`, `lan`, `home`, `corp`, `intranet`, `private`, `localdomain`, `arpa`
    /// (with `home.arpa`), `test`, `invalid`, `onion`, `alt`.
    ///
    /// # Errors
    ///
    /// [`ContactScheme`](VapidErrorKind::ContactScheme),
    /// [`InvalidContact`](VapidErrorKind::InvalidContact) or
    /// [`LocalContact`](VapidErrorKind::LocalContact).
    pub fn parse(text: &str) -> Result<Self, VapidError> {
        let contact = Self::insecure_allow_local(text)?;
        let host = contact.host().ok_or(VapidErrorKind::InvalidContact)?;
        if is_local(host) {
            return Err(VapidErrorKind::LocalContact.into());
        }
        Ok(contact)
    }

    /// Parses a contact whose host may be a local name or a literal address.
    ///
    /// For push services on the same machine. Public ones refuse such a contact.
    ///
    /// # Errors
    ///
    /// [`ContactScheme`](VapidErrorKind::ContactScheme) or
    /// [`InvalidContact`](VapidErrorKind::InvalidContact).
    pub fn insecure_allow_local(text: &str) -> Result<Self, VapidError> {
        let (scheme, rest) = text.split_once(':').ok_or(VapidErrorKind::ContactScheme)?;
        let scheme = match scheme {
            _ if scheme.eq_ignore_ascii_case("mailto") => "mailto",
            _ if scheme.eq_ignore_ascii_case("https") => "https",
            _ => return Err(VapidErrorKind::ContactScheme.into()),
        };
        let contact = Self(format!("{scheme}:{rest}").into());
        if text.len() > Self::MAX_LEN || contact.host().is_none_or(|host| !is_host(host)) {
            return Err(VapidErrorKind::InvalidContact.into());
        }
        Ok(contact)
    }

    /// Returns the URI, as tokens contain it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the host of a well-formed contact.
    fn host(&self) -> Option<&str> {
        match self.0.split_once(':')? {
            ("mailto", address) => mail_host(address),
            (_, rest) => https_host(&self.0, rest),
        }
    }
}

impl FromStr for Contact {
    type Err = VapidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Contact({})", self.0)
    }
}

/// Returns the domain of one plain address: characters that RFC 6068 section 2 allows unencoded, or `%` and two
/// digits.
fn mail_host(address: &str) -> Option<&str> {
    let (local, host) = address.split_once('@')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$'*+%".contains(&byte);
    let dots = local.starts_with('.') || local.ends_with('.') || local.contains("..");
    let encoded = local.split('%').skip(1).all(|rest| {
        let digits = rest.get(..2).unwrap_or_default();
        digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    (!local.is_empty() && local.bytes().all(plain) && !dots && encoded).then_some(host)
}

/// Returns the host of an absolute https URL of visible ASCII, without userinfo.
fn https_host<'a>(url: &'a str, rest: &'a str) -> Option<&'a str> {
    // These are not part of any URI (RFC 3986 section 2), even if a parser accepts them.
    let odd = |byte: u8| !byte.is_ascii_graphic() || b"<>\"\\^`{|}".contains(&byte);
    if url.bytes().any(odd) {
        return None;
    }
    let uri = Uri::from_str(url).ok()?;
    let authority = rest.strip_prefix("//")?;
    let authority = authority.split(['/', '?', '#']).next()?;
    let host = uri.host()?;
    match authority.strip_prefix(host)?.strip_prefix(':') {
        None => (authority == host).then_some(authority),
        Some(port) => {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse::<u16>().ok().filter(|port| *port != 0);
            (digits && port.is_some()).then(|| authority.get(..host.len()))?
        }
    }
}

/// A domain name or a literal address.
fn is_host(host: &str) -> bool {
    literal(host).is_some()
        || (host.len() <= 253
            && host.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            }))
}

/// Whether a push service cannot reach it: a literal address or a name for local use.
fn is_local(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    is_local_name(host)
        || literal(host).is_some()
        // Addresses in unusual forms (`127.1`, `0x7f.0x1`): no top-level domain begins with a digit.
        || last.starts_with(|first: char| first.is_ascii_digit())
}

/// A literal address, in brackets or not.
fn literal(host: &str) -> Option<IpAddr> {
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match inner {
        Some(inner) => inner.parse().ok().filter(IpAddr::is_ipv6),
        None => host.parse().ok().filter(IpAddr::is_ipv4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> VapidErrorKind {
        Contact::parse(text)
            .map(|contact| panic!("{contact} was taken"))
            .unwrap_err()
            .kind()
    }

    #[test]
    fn a_reachable_contact_is_kept_as_given() {
        for text in [
            "mailto:push@example.com",
            "mailto:Push.Team+alerts@Mail.Example.co.uk",
            "mailto:a%40b@xn--bcher-kva.example",
            "https://example.com/contact",
            "https://example.com",
            "https://social.example/@push",
            "https://example.com:8443/contact?to=push#form",
        ] {
            assert_eq!(Contact::parse(text).unwrap().as_str(), text);
        }
        let contact = Contact::parse("MailTo:push@example.com").unwrap();
        assert_eq!(contact.as_str(), "mailto:push@example.com");
    }

    #[test]
    fn other_schemes_are_refused() {
        for text in [
            "",
            "ops@example.com",
            "http://example.com",
            "http://localhost",
            "tel:+15550100",
            " mailto:ops@example.com",
        ] {
            assert_eq!(kind(text), VapidErrorKind::ContactScheme, "{text}");
        }
    }

    #[test]
    fn what_apple_refuses_is_refused() {
        for text in [
            "mailto:x@localhost",
            "mailto:x@app.localhost",
            "mailto:x@example.invalid",
            "mailto:x@printer.local",
            "mailto:x@db.INTERNAL",
            "mailto:x@intranet",
            "mailto:x@nas.lan",
            "mailto:x@nas.home.arpa",
            "mailto:x@ci.test",
            "mailto:x@mail.corp",
            "mailto:x@a.onion",
            "https://nas.LAN/contact",
            "https://push.home.arpa/",
            "https://app.test:8443/",
            "mailto:x@127.0.0.1",
            "mailto:x@[::1]",
            "https://localhost",
            "https://127.0.0.1/contact",
            "https://127.1/contact",
            "https://0x7f.0x1/",
            "https://[2001:db8::1]:8443/",
            "https://intranet/contact",
        ] {
            assert_eq!(kind(text), VapidErrorKind::LocalContact, "{text}");
        }
        for text in [
            "mailto: x@example.com",
            "mailto:x@example.com ",
            "mailto:<x@example.com>",
            "https://example.com/a b",
        ] {
            assert_eq!(kind(text), VapidErrorKind::InvalidContact, "{text}");
        }
    }

    #[test]
    fn malformed_contacts_are_refused() {
        for text in [
            "mailto:",
            "mailto:@example.com",
            "mailto:example.com",
            "mailto:x@",
            "mailto:a@b@example.com",
            "mailto:a@example.com,b@example.com",
            "mailto:a@example.com?subject=push",
            "mailto:.a@example.com",
            "mailto:a..b@example.com",
            "mailto:a%4@example.com",
            "mailto:a@example..com",
            "mailto:a@example.com.",
            "mailto:a@-example.com",
            "mailto:a@ex_ample.com",
            "mailto:\u{e4}@example.com",
            "mailto:a@b\u{fc}cher.example",
            "mailto:x@::1",
            "https:",
            "https:example.com",
            "https://",
            "https:///contact",
            "https://user@example.com/",
            "https://example.com@example.com/",
            "https://example.com:443@example.com/",
            "https://example.com\\@evil.example/",
            "https://example.com:0/",
            "https://example.com:/",
            "https://example.com:+443/",
            "https://example.com:65536/",
            "https://example.com./",
            "https://example.com/\u{e4}",
            "https://example.com/<a>",
            "https://example.com/\r\nX: y",
        ] {
            assert_eq!(kind(text), VapidErrorKind::InvalidContact, "{text}");
        }
        let long = format!("https://example.com/{}", "a".repeat(Contact::MAX_LEN - 20));
        assert!(Contact::parse(&long).is_ok());
        assert_eq!(kind(&format!("{long}a")), VapidErrorKind::InvalidContact);
    }

    #[test]
    fn local_contacts_need_the_explicit_constructor() {
        for text in ["mailto:dev@localhost", "https://127.0.0.1:8080/"] {
            assert_eq!(Contact::insecure_allow_local(text).unwrap().as_str(), text);
        }
        assert!(Contact::insecure_allow_local("mailto:<dev@localhost>").is_err());
        assert!(Contact::insecure_allow_local("http://localhost/").is_err());
    }
}
