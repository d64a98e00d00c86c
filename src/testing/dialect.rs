//! The refusals of the browsers' push services, in their own words.
//!
//! A sender that reads them gets the statuses, words and headers of production, so its handling of them can be tested
//! without the services.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};

use super::refusal::RefusalReason as Reason;
use crate::deliver::PushService;

/// Returns the answer of `service` to a request refused for `reason`.
pub(super) fn answer(service: PushService, reason: Reason) -> Response<Bytes> {
    let mut response = match service {
        PushService::Fcm => fcm(reason),
        PushService::Mozilla => mozilla(reason),
        PushService::Apple => apple(reason),
        PushService::Wns => wns(reason),
        PushService::Meta | PushService::Other => json(
            reason.status(),
            format!(r#"{{"reason":"{}"}}"#, reason.code()),
        ),
    };
    let headers = response.headers_mut();
    if reason == Reason::Method {
        headers.insert(ALLOW, HeaderValue::from_static("POST"));
    }
    if reason == Reason::NoCredentials {
        // RFC 8292 section 3: a challenge is just the scheme.
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("vapid"));
    }
    response
}

/// Statuses and plain texts.
fn fcm(reason: Reason) -> Response<Bytes> {
    let (status, text) = match reason {
        Reason::UnknownPath => (
            StatusCode::NOT_FOUND,
            "A valid push subscription endpoint should be specified in the URL as such: https://fcm.googleapis.com/wp/dHIweWNraGxlbWM",
        ),
        Reason::Gone => (
            StatusCode::GONE,
            "push subscription has unsubscribed or expired.",
        ),
        Reason::Ttl => (StatusCode::BAD_REQUEST, "InvalidTtlParameter"),
        Reason::TooLarge => (
            StatusCode::BAD_REQUEST,
            "binary data passed in the request must be less than 4096 bytes",
        ),
        Reason::NoCredentials => (
            StatusCode::UNAUTHORIZED,
            "Authorization header must be specified: either through a authorization key header",
        ),
        Reason::BadCredentials(_) => (
            StatusCode::FORBIDDEN,
            "permission denied: invalid JWT provided",
        ),
        Reason::KeyMismatch => (
            StatusCode::FORBIDDEN,
            "the VAPID credentials in the authorization header do not correspond to the credentials used to create the subscriptions.",
        ),
        other => (other.status(), other.code()),
    };
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// JSON with an `errno`; every VAPID failure is 401 with errno 109.
fn mozilla(reason: Reason) -> Response<Bytes> {
    let (status, errno, message) = match reason {
        Reason::UnknownPath => (StatusCode::NOT_FOUND, 102, "invalid endpoint"),
        Reason::Gone => (StatusCode::GONE, 106, "no such subscription"),
        Reason::TooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            104,
            "the message is too large",
        ),
        Reason::NoCredentials => (StatusCode::UNAUTHORIZED, 109, "missing VAPID token"),
        Reason::BadCredentials(kind) => (StatusCode::UNAUTHORIZED, 109, kind.code()),
        Reason::KeyMismatch => (StatusCode::UNAUTHORIZED, 109, "VAPID public key mismatch"),
        Reason::ContentEncoding => (StatusCode::BAD_REQUEST, 110, reason.code()),
        Reason::Ttl => (StatusCode::BAD_REQUEST, 111, reason.code()),
        Reason::Topic => (StatusCode::BAD_REQUEST, 113, reason.code()),
        other => (other.status(), 999, other.code()),
    };
    let error = status.canonical_reason().unwrap_or_default();
    let code = status.as_u16();
    json(
        status,
        format!(
            r#"{{"code":{code},"errno":{errno},"error":"{error}","message":"{message}","more_info":""}}"#
        ),
    )
}

/// JSON with a `reason`.
fn apple(reason: Reason) -> Response<Bytes> {
    let (status, text) = match reason {
        Reason::UnknownPath => (StatusCode::NOT_FOUND, "BadPath"),
        Reason::Gone => (StatusCode::GONE, "ExpiredToken"),
        Reason::Method => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        Reason::Ttl => (StatusCode::BAD_REQUEST, "BadTtl"),
        Reason::Urgency => (StatusCode::BAD_REQUEST, "BadUrgency"),
        Reason::Topic => (StatusCode::BAD_REQUEST, "BadWebPushTopic"),
        Reason::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge"),
        Reason::NoCredentials => (StatusCode::FORBIDDEN, "BadAuthorizationHeader"),
        Reason::BadCredentials(_) => (StatusCode::FORBIDDEN, "BadJwtToken"),
        Reason::KeyMismatch => (StatusCode::BAD_REQUEST, "VapidPkHashMismatch"),
        other => (other.status(), "BadWebPushRequest"),
    };
    json(status, format!(r#"{{"reason":"{text}"}}"#))
}

/// No body: the words are in the headers.
fn wns(reason: Reason) -> Response<Bytes> {
    let (status, text) = match reason {
        // A mismatch cannot be told from any other refused token.
        Reason::NoCredentials | Reason::BadCredentials(_) | Reason::KeyMismatch => {
            (StatusCode::UNAUTHORIZED, "Unauthorized")
        }
        Reason::Gone => (StatusCode::GONE, "Revoked channel URL"),
        Reason::CachePolicy => (
            StatusCode::BAD_REQUEST,
            "Ttl value conflicts with X-WNS-Cache-Policy.",
        ),
        other => (other.status(), other.code()),
    };
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("x-wns-status", HeaderValue::from_static("dropped"));
    headers.insert("x-wns-error-description", HeaderValue::from_static(text));
    response
}

fn json(status: StatusCode, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
