//! The `Authorization` header of the `vapid` scheme (RFC 8292 section 3, RFC 9110 section 11.4).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::VapidErrorKind;

/// `t` and `k` as given in the header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Credentials<'a> {
    pub(super) token: &'a str,
    pub(super) key: &'a str,
}

impl<'a> Credentials<'a> {
    /// Parses the header: scheme and names in any case, parameters in any order. Unknown ones are ignored.
    pub(super) fn parse(header: &'a [u8]) -> Result<Self, VapidErrorKind> {
        let header = header.trim_ascii();
        let end = header.iter().position(|byte| BLANKS.contains(byte));
        let (scheme, params) = header
            .split_at_checked(end.unwrap_or(header.len()))
            .unwrap_or_default();
        if !scheme.eq_ignore_ascii_case(b"vapid") {
            return Err(VapidErrorKind::NoCredentials);
        }
        std::str::from_utf8(params)
            .ok()
            .and_then(Self::parse_params)
            .ok_or(VapidErrorKind::InvalidCredentials)
    }

    fn parse_params(params: &'a str) -> Option<Self> {
        let (mut token, mut key) = (None, None);
        let mut rest = trim(params);
        while !rest.is_empty() {
            // A list may have empty members (RFC 9110 section 5.6.1).
            if let Some(after) = rest.strip_prefix(',') {
                rest = trim(after);
                continue;
            }
            let (name, after) = rest.split_once('=')?;
            let name = trim(name);
            if name.is_empty() || !name.bytes().all(is_token) {
                return None;
            }
            let (value, after) = value(trim(after))?;
            let after = trim(after);
            if !after.is_empty() && !after.starts_with(',') {
                return None;
            }
            rest = after;
            let known = match name {
                _ if name.eq_ignore_ascii_case("t") => &mut token,
                _ if name.eq_ignore_ascii_case("k") => &mut key,
                _ => continue,
            };
            if known.replace(value).is_some() {
                return None;
            }
        }
        Some(Self {
            token: token?,
            key: key?,
        })
    }
}

/// Splits off a token or a quoted string. A quoted pair is not decoded: neither base64 nor a JWT has one.
fn value(text: &str) -> Option<(&str, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at_checked(end)?;
        let plain = |byte: u8| is_token(byte) || byte == b'/' || byte == b'=';
        return (!value.is_empty() && value.bytes().all(plain)).then_some((value, rest));
    };
    let mut escaped = false;
    let end = quoted.find(|c| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    })?;
    let (value, rest) = quoted.split_at_checked(end)?;
    Some((value, rest.strip_prefix('"')?))
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// `tchar` (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

const BLANKS: &[u8] = b" \t";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_order_and_blanks_do_not_matter() {
        for header in [
            "vapid t=a.b.c, k=d",
            "vapid t=a.b.c,k=d",
            "VAPID K=d , T=a.b.c",
            "Vapid\tk=\"d\",t = \"a.b.c\"",
            " vapid  ,, t=a.b.c ,, k=d, ",
            "vapid v=1, x=\"a, t=z \\\" k=y\", t=a.b.c, k=d, t2=e/==",
            "vapid x=\"\", y=\"a\\\\\", t=a.b.c, k=d",
        ] {
            let expected = Credentials {
                token: "a.b.c",
                key: "d",
            };
            assert_eq!(
                Credentials::parse(header.as_bytes()),
                Ok(expected),
                "{header}"
            );
        }
    }

    #[test]
    fn other_schemes_are_no_credentials() {
        for header in [
            "",
            " ",
            "Bearer a.b.c",
            "WebPush a.b.c",
            "vapidt=a, k=b",
            "vapid,t=a",
        ] {
            let result = Credentials::parse(header.as_bytes());
            assert_eq!(result, Err(VapidErrorKind::NoCredentials), "{header}");
        }
    }

    #[test]
    fn both_parameters_are_needed_once() {
        for header in [
            "vapid",
            "vapid ",
            "vapid t=a",
            "vapid k=a",
            "vapid t=a k=b",
            "vapid t=, k=b",
            "vapid =a, t=a, k=b",
            "vapid x y=a, t=a, k=b",
            "vapid t=a, k=b, t=a",
            "vapid t=a, k=b, K=b",
            "vapid t=a, k=b, v",
            "vapid t=a, k=\"b",
            "vapid t=a, k=\"b\"c",
            "vapid t=a, k=\"b\\\"",
            "vapid t=a, k=b\u{7f}",
            "vapid t=a, k=\u{e9}",
        ] {
            let result = Credentials::parse(header.as_bytes());
            assert_eq!(result, Err(VapidErrorKind::InvalidCredentials), "{header}");
        }
        let result = Credentials::parse(b"vapid t=a, k=b, x=\xff");
        assert_eq!(result, Err(VapidErrorKind::InvalidCredentials));
    }
}
