//! The demo page and its content security policy.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;

/// Allows only what the page needs from its own server: no inline script or style, no frames, no other host.
/// `worker-src` is for the service worker, `manifest-src` for the Home Screen, which push on iOS requires.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    worker-src 'self'; img-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// A file of `examples/assets`, served under its own name.
macro_rules! asset {
    ($content_type:expr, $name:literal) => {
        (
            concat!("/", $name),
            $content_type,
            include_str!(concat!("../assets/", $name)),
        )
    };
}

/// Path, content type, content.
const FILES: [(&str, &str, &str); 21] = [
    ("/", HTML, include_str!("../assets/index.html")),
    asset!(CSS, "theme.css"),
    asset!(CSS, "style.css"),
    asset!("image/svg+xml", "icon.svg"),
    asset!("application/manifest+json", "manifest.webmanifest"),
    asset!(JAVASCRIPT, "app.js"),
    asset!(JAVASCRIPT, "broadcasts.js"),
    asset!(JAVASCRIPT, "browser.js"),
    asset!(JAVASCRIPT, "compose.js"),
    asset!(JAVASCRIPT, "confirm.js"),
    asset!(JAVASCRIPT, "daily-form.js"),
    asset!(JAVASCRIPT, "daily.js"),
    asset!(JAVASCRIPT, "dom.js"),
    asset!(JAVASCRIPT, "log.js"),
    asset!(JAVASCRIPT, "message.js"),
    asset!(JAVASCRIPT, "operator.js"),
    asset!(JAVASCRIPT, "preview.js"),
    asset!(JAVASCRIPT, "scheduled.js"),
    asset!(JAVASCRIPT, "server.js"),
    asset!(JAVASCRIPT, "status.js"),
    asset!(JAVASCRIPT, "stored.js"),
];

/// The page, or one of its files.
pub(crate) fn answer(method: &Method, path: &str) -> Response<Full<Bytes>> {
    let Some(&(_, content_type, content)) = FILES.iter().find(|(name, ..)| *name == path) else {
        return plain(StatusCode::NOT_FOUND, "not found\n");
    };
    if method != Method::GET && method != Method::HEAD {
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        refusal
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    let mut response = plain(StatusCode::OK, content);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A short text, with the headers that every response has.
pub(crate) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers: [(HeaderName, &'static str); 5] = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
