//! `GET /vapid` and `GET /subscribe`: the key that pages subscribe with.

use http::StatusCode;
use serde::Serialize;

use crate::api::WebPushService;
use crate::api::reply::{self, Reply};

/// The key under the names of both replaced servers.
#[derive(Serialize)]
struct VapidAnswer {
    #[serde(rename = "vapidKey")]
    vapid_key: String,
    public_key: String,
    #[serde(rename = "keyId")]
    key_id: String,
}

pub(super) fn show(api: &WebPushService) -> Reply {
    let active = api.engine.key_ring.active();
    let public_key = active.public_key().to_base64url();
    let answer = VapidAnswer {
        vapid_key: public_key.clone(),
        public_key,
        key_id: active.id().to_string(),
    };
    reply::json(StatusCode::OK, &answer)
}
