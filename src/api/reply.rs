//! Responses other than refusals, and the headers of every response.

use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Method, Response, StatusCode};
use serde::Serialize;

use super::ApiBody;

/// The response of a route.
pub(super) type Reply = Response<ApiBody>;

/// Returns JSON that must not be cached.
pub(super) fn json(status: StatusCode, content: &impl Serialize) -> Reply {
    // The wire types have string keys only: they cannot fail to serialize.
    let json = serde_json::to_vec(content).unwrap_or_default();
    dynamic(status, "application/json", json)
}

/// Returns plain text that must not be cached.
pub(super) fn text(text: String) -> Reply {
    dynamic(StatusCode::OK, "text/plain; charset=utf-8", text.into())
}

fn dynamic(status: StatusCode, content_type: &'static str, content: Vec<u8>) -> Reply {
    let mut reply = Response::new(ApiBody::new(content));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// Adds the two headers of every response.
pub(super) fn secured(mut reply: Reply) -> Reply {
    let headers = reply.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    reply
}

/// Adds the headers of every response and removes the body for HEAD (RFC 9110 section 9.3.2).
pub(super) fn finished(reply: Reply, method: &Method) -> Reply {
    let mut reply = secured(reply);
    if *method == Method::HEAD {
        if let Some(length) = reply.body().len()
            && reply.status() != StatusCode::NOT_MODIFIED
        {
            let length = HeaderValue::from(length);
            reply.headers_mut().insert(CONTENT_LENGTH, length);
        }
        *reply.body_mut() = ApiBody::default();
    }
    reply
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    #[test]
    fn head_keeps_the_headers_and_loses_the_body() {
        let get = finished(text("pong".into()), &Method::GET);
        let head = finished(text("pong".into()), &Method::HEAD);
        assert_eq!(get.body().size_hint().exact(), Some(4));
        assert!(head.body().is_end_stream());
        assert_eq!(head.headers()[CONTENT_LENGTH], "4");
        for reply in [get, head] {
            assert_eq!(reply.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
            assert_eq!(reply.headers()[REFERRER_POLICY], "no-referrer");
            assert_eq!(reply.headers()[CACHE_CONTROL], "no-store");
        }
    }

    /// It would be the length of the file (RFC 9110 section 8.6), and the body of this reply is empty.
    #[test]
    fn what_is_not_modified_has_no_length() {
        for method in [Method::GET, Method::HEAD] {
            let mut reply = text("".into());
            *reply.status_mut() = StatusCode::NOT_MODIFIED;
            let reply = finished(reply, &method);
            assert!(!reply.headers().contains_key(CONTENT_LENGTH), "{method}");
        }
    }
}
