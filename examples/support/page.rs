//! The visitor's page, the operator's console, and their content security policy.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;

/// Allows only what the pages need from its own server: no inline script or style, no frames, no other host.
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

/// Path, content type, content: the visitor's page and what both pages use.
const FILES: [(&str, &str, &str); 16] = [
    ("/", HTML, include_str!("../assets/index.html")),
    asset!(CSS, "theme.css"),
    asset!(CSS, "style.css"),
    asset!("image/svg+xml", "icon.svg"),
    asset!("application/manifest+json", "manifest.webmanifest"),
    asset!(JAVASCRIPT, "app.js"),
    asset!(JAVASCRIPT, "browser-card.js"),
    asset!(JAVASCRIPT, "browser.js"),
    asset!(JAVASCRIPT, "daily-form.js"),
    asset!(JAVASCRIPT, "daily.js"),
    asset!(JAVASCRIPT, "dom.js"),
    asset!(JAVASCRIPT, "log.js"),
    asset!(JAVASCRIPT, "scheduled.js"),
    asset!(JAVASCRIPT, "server.js"),
    asset!(JAVASCRIPT, "status.js"),
    asset!(JAVASCRIPT, "stored.js"),
];

/// The operator's console, which is left out where it is switched off.
const CONSOLE: [(&str, &str, &str); 25] = [
    (
        "/console",
        HTML,
        include_str!("../assets/console/index.html"),
    ),
    asset!(CSS, "console/charts.css"),
    asset!(CSS, "console/compose.css"),
    asset!(CSS, "console/console.css"),
    asset!(JAVASCRIPT, "console/audience.js"),
    asset!(JAVASCRIPT, "console/broadcast-card.js"),
    asset!(JAVASCRIPT, "console/broadcasts.js"),
    asset!(JAVASCRIPT, "console/charts.js"),
    asset!(JAVASCRIPT, "console/compose.js"),
    asset!(JAVASCRIPT, "console/confirm.js"),
    asset!(JAVASCRIPT, "console/days.js"),
    asset!(JAVASCRIPT, "console/failures.js"),
    asset!(JAVASCRIPT, "console/health.js"),
    asset!(JAVASCRIPT, "console/keys.js"),
    asset!(JAVASCRIPT, "console/main.js"),
    asset!(JAVASCRIPT, "console/message.js"),
    asset!(JAVASCRIPT, "console/overview.js"),
    asset!(JAVASCRIPT, "console/preview.js"),
    asset!(JAVASCRIPT, "console/recipients.js"),
    asset!(JAVASCRIPT, "console/sent.js"),
    asset!(JAVASCRIPT, "console/session.js"),
    asset!(JAVASCRIPT, "console/undo.js"),
    asset!(JAVASCRIPT, "console/unlock.js"),
    asset!(JAVASCRIPT, "console/views.js"),
    asset!(JAVASCRIPT, "console/words.js"),
];

/// A page, or one of their files.
pub(crate) fn answer(method: &Method, path: &str, has_console: bool) -> Response<Full<Bytes>> {
    let console = if has_console { &CONSOLE[..] } else { &[] };
    let mut files = FILES.iter().chain(console);
    let Some(&(_, content_type, content)) = files.find(|(name, ..)| *name == path) else {
        return plain(StatusCode::NOT_FOUND, "not found\n");
    };
    if method != Method::GET && method != Method::HEAD {
        return only_get();
    }
    let mut response = plain(StatusCode::OK, content);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// The refusal of another method than GET and HEAD.
pub(crate) fn only_get() -> Response<Full<Bytes>> {
    let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    let headers = refusal.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    refusal
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
