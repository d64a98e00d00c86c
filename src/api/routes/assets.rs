//! `GET /openapi.json`, `GET /client.js`, `GET /service-worker.js`: the crate's files.

use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use sha2::{Digest as _, Sha256};

use crate::api::ApiBody;
use crate::api::reply::Reply;
use crate::encoding::base64url;

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The contract, OpenAPI 3.1.
pub(super) static OPENAPI: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("application/json", include_bytes!("../openapi.json")));

/// The module that a page imports.
pub(super) static CLIENT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new(JAVASCRIPT, include_bytes!("../assets/client.js")));

/// The service worker. Its path limits its scope to where the API is mounted.
pub(super) static SERVICE_WORKER: LazyLock<Asset> =
    LazyLock::new(|| Asset::new(JAVASCRIPT, include_bytes!("../assets/service-worker.js")));

/// A file and its entity tag.
#[derive(Debug)]
pub(super) struct Asset {
    content_type: &'static str,
    content: &'static [u8],
    /// Includes its quotes (RFC 9110 section 8.8.3).
    etag: String,
}

impl Asset {
    fn new(content_type: &'static str, content: &'static [u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(content).into();
        Self {
            content_type,
            content,
            etag: format!("\"{}\"", base64url(&digest)),
        }
    }

    /// Returns the file, or 304 if the client has it.
    pub(super) fn answer(&self, request: &HeaderMap) -> Reply {
        let known = is_known(request, &self.etag);
        let content = if known { &[] } else { self.content };
        let mut reply = Response::new(ApiBody::new(Bytes::from_static(content)));
        let headers = reply.headers_mut();
        if let Ok(etag) = HeaderValue::from_str(&self.etag) {
            headers.insert(ETAG, etag);
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if known {
            *reply.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        reply
    }
}

/// The weak comparison of RFC 9110 section 13.1.2. The crate's own tags contain no comma.
fn is_known(request: &HeaderMap, etag: &str) -> bool {
    let lists = request.get_all(IF_NONE_MATCH).iter();
    lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(if_none_match: &str) -> StatusCode {
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, HeaderValue::from_str(if_none_match).unwrap());
        CLIENT.answer(&headers).status()
    }

    #[test]
    fn a_client_that_has_it_gets_304() {
        let etag = &CLIENT.etag;
        for known in [
            etag,
            "*",
            &format!("W/{etag}"),
            &format!("\"other\", {etag}"),
        ] {
            assert_eq!(status(known), 304, "{known}");
        }
        for unknown in ["\"other\"", "", &etag[1..]] {
            assert_eq!(status(unknown), 200, "{unknown}");
        }
        assert_ne!(OPENAPI.etag, CLIENT.etag);
    }

    #[test]
    fn other_clients_get_it_with_its_tag() {
        let reply = SERVICE_WORKER.answer(&HeaderMap::new());
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()[ETAG], SERVICE_WORKER.etag.as_str());
        assert_eq!(reply.headers()[CACHE_CONTROL], "no-cache");
        assert_eq!(reply.headers()[CONTENT_TYPE], JAVASCRIPT);
    }
}
