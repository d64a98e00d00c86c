//! `POST /regenerate-vapid`: a new active key; subscriptions of the old ones keep working.

use http::StatusCode;
use serde::Serialize;

use crate::api::WebPushService;
use crate::api::journal::Target;
use crate::api::problem::Problem;
use crate::api::reply::{self, Reply};

#[derive(Serialize)]
struct RegenerateAnswer {
    success: bool,
    message: &'static str,
    #[serde(rename = "keyId")]
    key_id: String,
}

pub(super) async fn regenerate(api: &WebPushService) -> Result<Reply, Problem> {
    let answer = RegenerateAnswer {
        success: true,
        message: "VAPID keys regenerated successfully",
        key_id: api.engine.rotate_vapid_key().await?.to_string(),
    };
    let mut reply = reply::json(StatusCode::OK, &answer);
    reply.extensions_mut().insert(Target(answer.key_id));
    Ok(reply)
}
