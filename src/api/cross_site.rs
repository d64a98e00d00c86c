//! The check of requests that a page of another site caused.

use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::problem::{Problem, ProblemKind};
use crate::broadcast::Principal;
use crate::subscription::Origin;

/// Refuses a state-changing request that carries credentials which browsers attach on their own (a cookie, Basic
/// credentials) or a signed-in user, and that another site may have caused.
///
/// An [`Authorizer`](super::Authorizer) may decide by what browsers show without a trace in the head, such as a certificate or
/// an address. So of a request to an administrator's route only a bearer token, which no browser attaches, counts as none of it.
///
/// A listed `Origin` passes: browsers set that header, and the list is for pages of other sites. Else
/// `Sec-Fetch-Site` decides, and without it an `Origin`, which must be the request's own host. A request with neither
/// is not from a browser. Two `Origin` headers do not count as listed.
pub(super) fn check(parts: &Parts, is_admin: bool, allowed: &[Origin]) -> Result<(), Problem> {
    let headers = &parts.headers;
    let is_signed_in = parts.extensions.get::<Principal>().is_some()
        || headers.contains_key(COOKIE)
        || headers.get_all(AUTHORIZATION).iter().any(is_basic)
        || is_admin && !headers.get_all(AUTHORIZATION).iter().any(is_bearer);
    if !is_signed_in {
        return Ok(());
    }
    let origin = origin(headers);
    let is_listed = |(_, origin): &(_, Origin)| allowed.contains(origin);
    let passes = if origin.as_ref().is_some_and(is_listed) {
        true
    } else if headers.contains_key(&SEC_FETCH_SITE) {
        let site = only(headers, &SEC_FETCH_SITE);
        matches!(site, Some(b"same-origin" | b"none"))
    } else if headers.contains_key(ORIGIN) {
        origin.is_some_and(|(scheme, origin)| own(parts, scheme).is_some_and(|own| own == origin))
    } else {
        true
    };
    if passes {
        Ok(())
    } else {
        Err(ProblemKind::CrossSite.into())
    }
}

/// Returns the request's only `Origin`, with its scheme.
fn origin(headers: &HeaderMap) -> Option<(&str, Origin)> {
    let text = std::str::from_utf8(only(headers, &ORIGIN)?).ok()?;
    let (scheme, _) = text.split_once("://")?;
    Some((scheme, Origin::parse(text).ok()?))
}

/// Returns the origin that the request was sent to. Behind a proxy that terminates TLS its scheme is unknown: the
/// host decides.
fn own(parts: &Parts, scheme: &str) -> Option<Origin> {
    let authority = match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => std::str::from_utf8(only(&parts.headers, &HOST)?).ok()?,
    };
    Origin::parse(&format!("{scheme}://{authority}")).ok()
}

/// Returns a header's value if there is exactly one.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

fn is_basic(value: &HeaderValue) -> bool {
    has_scheme(value, b"basic ")
}

fn is_bearer(value: &HeaderValue) -> bool {
    has_scheme(value, b"bearer ")
}

fn has_scheme(value: &HeaderValue, scheme: &[u8]) -> bool {
    let given = value.as_bytes().get(..scheme.len());
    given.is_some_and(|given| given.eq_ignore_ascii_case(scheme))
}

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const COOKIE: (&str, &str) = ("cookie", "session=1");

    fn passes(headers: &[(&str, &str)]) -> bool {
        let mut request = Request::post("/notify").header("host", "app.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let allowed = [Origin::parse("https://listed.example").unwrap()];
        check(&parts, false, &allowed).is_ok()
    }

    #[test]
    fn a_request_without_credentials_passes() {
        assert!(passes(&[("sec-fetch-site", "cross-site")]));
        assert!(passes(&[("origin", "https://evil.example")]));
        assert!(passes(&[
            ("authorization", "Bearer x"),
            ("origin", "https://evil.example")
        ]));
    }

    #[test]
    fn sec_fetch_site_decides_where_there_is_one() {
        for (site, expected) in [
            ("same-origin", true),
            ("none", true),
            ("same-site", false),
            ("cross-site", false),
            ("", false),
        ] {
            assert_eq!(
                passes(&[COOKIE, ("sec-fetch-site", site)]),
                expected,
                "{site}"
            );
            let unlisted = ("origin", "https://evil.example");
            assert_eq!(
                passes(&[COOKIE, ("sec-fetch-site", site), unlisted]),
                expected,
                "{site}"
            );
        }
        let twice = [
            COOKIE,
            ("sec-fetch-site", "none"),
            ("sec-fetch-site", "cross-site"),
        ];
        assert!(!passes(&twice));
    }

    #[test]
    fn a_listed_origin_passes_from_any_site() {
        let listed = ("origin", "https://listed.example");
        for who in [COOKIE, ("authorization", "Basic YWRtaW46eA==")] {
            for site in ["same-origin", "same-site", "cross-site", "none", ""] {
                assert!(passes(&[who, ("sec-fetch-site", site), listed]), "{site}");
            }
            for not_listed in [
                "http://listed.example",
                "https://listed.example:8443",
                "https://listed.example.evil.example",
                "https://a.listed.example",
                "null",
                "",
            ] {
                let origin = ("origin", not_listed);
                for site in ["same-site", "cross-site"] {
                    assert!(
                        !passes(&[who, ("sec-fetch-site", site), origin]),
                        "{not_listed} {site}"
                    );
                }
            }
        }
    }

    #[test]
    fn two_origins_are_none() {
        let listed = ("origin", "https://listed.example");
        for other in ["https://listed.example", "https://evil.example"] {
            let other = ("origin", other);
            assert!(!passes(&[COOKIE, listed, other]));
            for site in ["same-site", "cross-site"] {
                assert!(!passes(&[COOKIE, ("sec-fetch-site", site), listed, other]));
            }
        }
    }

    #[test]
    fn without_it_the_origin_must_be_ours_or_listed() {
        for (origin, expected) in [
            ("https://app.example", true),
            ("http://app.example", true),
            ("https://APP.example", true),
            ("https://listed.example", true),
            ("http://listed.example", false),
            ("https://app.example:8443", false),
            ("https://app.example.evil.example", false),
            ("https://evil.example", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(passes(&[COOKIE, ("origin", origin)]), expected, "{origin}");
        }
    }

    #[test]
    fn without_a_host_no_origin_is_ours() {
        let request = Request::post("/notify")
            .header("cookie", "a=1")
            .header("origin", "https://app.example");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        assert!(check(&parts, false, &[]).is_err());
    }

    #[test]
    fn what_is_no_browser_passes() {
        assert!(passes(&[COOKIE]));
        assert!(passes(&[("authorization", "Basic YWRtaW46eA==")]));
    }

    #[test]
    fn basic_credentials_count_as_a_cookie() {
        let basic = ("authorization", "bAsIc YWRtaW46eA==");
        assert!(!passes(&[basic, ("sec-fetch-site", "cross-site")]));
        assert!(passes(&[basic, ("sec-fetch-site", "same-origin")]));
    }

    #[test]
    fn a_principal_counts_as_a_cookie() {
        let request = Request::post("/notify").header("sec-fetch-site", "cross-site");
        let request = request
            .extension(Principal::from("alice"))
            .body(())
            .unwrap();
        assert!(check(&request.into_parts().0, false, &[]).is_err());
    }

    #[test]
    fn on_an_administrators_route_only_a_bearer_token_is_none_of_a_browsers_credentials() {
        let passes = |authorization: Option<&str>, is_admin| {
            let mut request = Request::post("/notify").header("sec-fetch-site", "cross-site");
            if let Some(authorization) = authorization {
                request = request.header("authorization", authorization);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            check(&parts, is_admin, &[]).is_ok()
        };
        for (authorization, admins) in [
            (None, false),
            (Some("Digest x"), false),
            (Some("Bearer"), false),
            (Some("bEARER x"), true),
        ] {
            assert_eq!(passes(authorization, true), admins, "{authorization:?}");
            assert!(passes(authorization, false), "{authorization:?}");
        }
    }

    #[test]
    fn the_uri_names_the_host_in_http_2() {
        for (host, expected) in [("app.example", true), ("evil.example", false)] {
            let request = Request::post("https://app.example/notify")
                .header("cookie", "a=1")
                .header("host", host)
                .header("origin", format!("https://{host}"));
            let (parts, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(check(&parts, false, &[]).is_ok(), expected, "{host}");
        }
    }
}
