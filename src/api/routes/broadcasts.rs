//! `GET`, `PATCH` and `DELETE /broadcasts/{id}`: status, pause and cancellation of a broadcast.

use std::num::NonZeroU32;

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use crate::api::WebPushService;
use crate::api::members::{Members, parse_object};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::reply::{self, Reply};
use crate::broadcast::{BroadcastId, BroadcastState, BroadcastStatus, Counts};
use crate::moment::iso8601;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BroadcastAnswer {
    id: BroadcastId,
    state: BroadcastState,
    recipients: u64,
    created_at: String,
    send_at: Option<String>,
    deadline: String,
    pace: Option<Pace>,
    counts: Counts,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pace {
    per_second: NonZeroU32,
}

impl From<BroadcastStatus> for BroadcastAnswer {
    fn from(status: BroadcastStatus) -> Self {
        Self {
            id: status.id,
            state: status.state,
            recipients: status.recipients,
            created_at: iso8601(status.created_at),
            send_at: status.send_at.map(iso8601),
            deadline: iso8601(status.deadline),
            pace: status.pace.map(|per_second| Pace { per_second }),
            counts: status.counts,
        }
    }
}

pub(super) async fn show(api: &WebPushService, id: &str) -> Result<Reply, Problem> {
    answer(api.engine.status(parse(id)?).await?)
}

pub(super) async fn cancel(api: &WebPushService, id: &str) -> Result<Reply, Problem> {
    answer(api.engine.cancel(parse(id)?).await?)
}

pub(super) async fn change(api: &WebPushService, id: &str, body: &[u8]) -> Result<Reply, Problem> {
    let object = parse_object(body)?;
    let state = Members::of(&object).value("state");
    let is_held = match state.and_then(Value::as_str) {
        Some("paused") => true,
        Some("sending") => false,
        _ => return Err(ProblemKind::InvalidState.into()),
    };
    answer(api.engine.hold(parse(id)?, is_held).await?)
}

fn parse(id: &str) -> Result<BroadcastId, Problem> {
    id.parse().map_err(|_| ProblemKind::UnknownBroadcast.into())
}

fn answer(status: Option<BroadcastStatus>) -> Result<Reply, Problem> {
    let status = status.ok_or(ProblemKind::UnknownBroadcast)?;
    Ok(reply::json(StatusCode::OK, &BroadcastAnswer::from(status)))
}
