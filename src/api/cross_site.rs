//! Whether a page of another site made the browser send a request.

use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::problem::{Problem, ProblemKind};
use crate::broadcast::Principal;
use crate::subscription::Origin;

/// Refuses a state-changing request that carries what browsers attach by themselves (a cookie, Basic
/// credentials) or comes from a signed-in user, and that another site may have caused.
///
/// `Sec-Fetch-Site` decides where there is one; else an `Origin` must be our own host or listed; a request
/// with neither is not a browser's.
pub(super) fn check(parts: &Parts, allowed: &[Origin]) -> Result<(), Problem> {
    let headers = &parts.headers;
    let is_somebody = parts.extensions.get::<Principal>().is_some()
        || headers.contains_key(COOKIE)
        || headers.get_all(AUTHORIZATION).iter().any(is_basic);
    if !is_somebody {
        return Ok(());
    }
    let passes = if headers.contains_key(&SEC_FETCH_SITE) {
        let site = only(headers, &SEC_FETCH_SITE);
        matches!(site, Some(b"same-origin" | b"none"))
    } else if headers.contains_key(ORIGIN) {
        is_ours_or_listed(parts, allowed).unwrap_or(false)
    } else {
        true
    };
    if passes {
        Ok(())
    } else {
        Err(ProblemKind::CrossSite.into())
    }
}

fn is_ours_or_listed(parts: &Parts, allowed: &[Origin]) -> Option<bool> {
    let text = std::str::from_utf8(only(&parts.headers, &ORIGIN)?).ok()?;
    let origin = Origin::parse(text).ok()?;
    // Behind a proxy that ends TLS the scheme is unknown: the host decides.
    let (scheme, _) = text.split_once("://")?;
    let own = match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => std::str::from_utf8(only(&parts.headers, &HOST)?).ok()?,
    };
    let own = Origin::parse(&format!("{scheme}://{own}")).ok();
    Some(own.as_ref() == Some(&origin) || allowed.contains(&origin))
}

/// A header's value, when there is exactly one.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

fn is_basic(value: &HeaderValue) -> bool {
    let scheme = value.as_bytes().get(..6);
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic "))
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
        check(&parts, &allowed).is_ok()
    }

    #[test]
    fn a_request_of_nobody_in_particular_passes() {
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
            let listed = ("origin", "https://listed.example");
            assert_eq!(
                passes(&[COOKIE, ("sec-fetch-site", site), listed]),
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
        assert!(check(&request.into_parts().0, &[]).is_err());
    }

    #[test]
    fn the_uri_names_the_host_in_http_2() {
        let request = Request::post("https://app.example/notify");
        let request = request
            .header("cookie", "a=1")
            .header("origin", "https://app.example");
        assert!(check(&request.body(()).unwrap().into_parts().0, &[]).is_ok());
    }
}
