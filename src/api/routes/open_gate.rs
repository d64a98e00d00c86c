//! `POST /open-gate`: ends the pause of a push service.

use http::StatusCode;
use serde::Serialize;

use crate::api::WebPushService;
use crate::api::journal::Target;
use crate::api::members::{Members, parse_object};
use crate::api::problem::Problem;
use crate::api::reply::{self, Reply};
use crate::subscription::Origin;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OpenGateAnswer {
    success: bool,
    message: &'static str,
    origin: String,
    was_paused: bool,
}

/// The origin is that of `gates` in `/stats`. Of one that is not paused nothing changes.
pub(super) async fn open_gate(api: &WebPushService, body: &[u8]) -> Result<Reply, Problem> {
    let object = parse_object(body)?;
    let text = Members::of(&object).text("origin")?;
    let origin = text.and_then(|text| Origin::parse(text).ok());
    let expected = "the origin of a push service, as https://push.example.com";
    let origin = origin.ok_or_else(|| Problem::member("origin", expected))?;
    let was_paused = api.engine.open_gate(&origin).await?;
    let answer = OpenGateAnswer {
        success: true,
        message: if was_paused {
            "The push service gets messages again"
        } else {
            "The push service was not paused"
        },
        origin: origin.as_str().to_owned(),
        was_paused,
    };
    let mut reply = reply::json(StatusCode::OK, &answer);
    reply.extensions_mut().insert(Target(answer.origin));
    Ok(reply)
}
