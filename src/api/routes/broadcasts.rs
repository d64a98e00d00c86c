//! `GET /broadcasts`, and `GET`, `PATCH` and `DELETE /broadcasts/{id}`: list, status, pause and cancellation of broadcasts.

use std::num::NonZeroU32;

use http::StatusCode;
use http::request::Parts;
use serde::Serialize;
use serde_json::Value;

use crate::api::WebPushService;
use crate::api::members::{Members, parse_object};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::Query;
use crate::api::reply::{self, Reply};
use crate::broadcast::{BroadcastId, BroadcastState, BroadcastStatus, Counts};
use crate::clock::Timestamp;
use crate::engine::FailedRecipient;
use crate::moment::iso8601;
use crate::store::{BroadcastCursor, BroadcastFilter, ReasonWord};
use crate::subscription::SubscriptionId;

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

#[derive(Serialize)]
struct BroadcastsAnswer {
    broadcasts: Vec<BroadcastAnswer>,
    next: Option<String>,
}

const PARAMETERS: &[&str] = &["state", "createdAfter", "createdBefore", "limit", "after"];

pub(super) async fn list(api: &WebPushService, parts: &Parts) -> Result<Reply, Problem> {
    let query = Query::parse(parts.uri.query(), PARAMETERS)?;
    let states = query.parsed("state", "a comma list of states", |states| {
        states.split(',').map(BroadcastState::from_name).collect()
    })?;
    let filter = BroadcastFilter {
        states: states.unwrap_or_default(),
        created_after: query.time("createdAfter")?,
        created_before: query.time("createdBefore")?,
    };
    let after = query.parsed("after", "a cursor", cursor)?;
    let limit = query.limit()?;
    let page = api
        .engine
        .broadcasts(&filter, after.as_ref(), limit)
        .await?;
    let broadcasts = page.broadcasts.into_iter().map(BroadcastAnswer::from);
    let answer = BroadcastsAnswer {
        broadcasts: broadcasts.collect(),
        next: page.next.map(|next| cursor_text(&next)),
    };
    Ok(reply::json(StatusCode::OK, &answer))
}

/// A place in the list as text for an address.
fn cursor_text(cursor: &BroadcastCursor) -> String {
    format!("{}.{}", cursor.created_at.as_millis(), cursor.id)
}

fn cursor(text: &str) -> Option<BroadcastCursor> {
    let (at, id) = text.split_once('.')?;
    let created_at = Timestamp::from_millis(at.parse().ok()?);
    Some(BroadcastCursor::new(created_at, id.parse().ok()?))
}

/// A broadcast with samples of its failures.
#[derive(Serialize)]
struct ShowAnswer {
    #[serde(flatten)]
    broadcast: BroadcastAnswer,
    failures: Vec<FailureAnswer>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FailureAnswer {
    at: String,
    outcome: &'static str,
    status: Option<u16>,
    reason: Option<ReasonWord>,
    push_service: &'static str,
    subscription: Option<SubscriptionId>,
}

impl From<FailedRecipient> for FailureAnswer {
    fn from(failed: FailedRecipient) -> Self {
        Self {
            at: iso8601(failed.at),
            outcome: failed.outcome.as_str(),
            status: failed.failure.status,
            reason: failed.failure.reason,
            push_service: failed.push_service.as_str(),
            subscription: failed.subscription,
        }
    }
}

pub(super) async fn show(api: &WebPushService, id: &str) -> Result<Reply, Problem> {
    let id = parse(id)?;
    let status = api.engine.status(id).await?;
    let status = status.ok_or(ProblemKind::UnknownBroadcast)?;
    let failures = api.engine.failures(id).await?;
    let answer = ShowAnswer {
        broadcast: status.into(),
        failures: failures.into_iter().map(FailureAnswer::from).collect(),
    };
    let mut reply = reply::json(StatusCode::OK, &answer);
    reply.extensions_mut().insert(id);
    Ok(reply)
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
    let id = status.id;
    let mut reply = reply::json(StatusCode::OK, &BroadcastAnswer::from(status));
    reply.extensions_mut().insert(id);
    Ok(reply)
}
