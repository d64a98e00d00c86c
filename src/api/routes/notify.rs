//! `POST /notify`: accepts a broadcast.

use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::prefer;
use crate::api::WebPushService;
use crate::api::members::parse_object;
use crate::api::problem::{Problem, ProblemKind};
use crate::api::reply::{self, Reply};
use crate::api::trace_context::trace_parent;
use crate::broadcast::{Broadcast, BroadcastId, BroadcastStatus, Counts};
use crate::engine::{Queued, SendError, SendErrorKind};

#[derive(Serialize)]
struct NotifyAnswer {
    success: bool,
    message: String,
    broadcast: BroadcastId,
    recipients: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<Counts>,
}

pub(super) async fn notify(
    api: &WebPushService,
    parts: &Parts,
    body: &[u8],
) -> Result<Reply, Problem> {
    let mut broadcast = Broadcast::from_members(&parse_object(body)?, body)?;
    if let Some(key) = prefer::idempotency_key(&parts.headers)? {
        broadcast = broadcast.idempotency_key(key);
        // A repeated request has the same body, octet for octet.
        broadcast.fingerprint = Some(Sha256::digest(body).into());
    }
    broadcast.trace_parent = trace_parent(&parts.headers);
    if !api.engine.has_worker() {
        return Err(ProblemKind::NoWorker.into());
    }
    // A broadcast that is not due is not waited for.
    let is_due = broadcast.send_at.is_none_or(|at| at <= api.engine.now());
    let wait = prefer::wait(&parts.headers).filter(|_| is_due);
    let accepted = api.engine.enqueue(broadcast).await?;
    let Some(wait) = wait else {
        return Ok(queued(accepted));
    };
    // It is accepted even if the store cannot be asked for its status now.
    let mut reply = match api.engine.wait_until_over(accepted.broadcast, wait).await {
        Ok(Some(status)) if status.is_over() => sent(&status),
        _ => queued(accepted),
    };
    if let Ok(applied) = HeaderValue::from_str(&format!("wait={}", wait.as_secs())) {
        reply.headers_mut().insert(&PREFERENCE_APPLIED, applied);
    }
    Ok(reply)
}

fn queued(queued: Queued) -> Reply {
    let answer = NotifyAnswer {
        success: true,
        message: format!("{} notification(s) queued", queued.recipients),
        broadcast: queued.broadcast,
        recipients: queued.recipients,
        counts: None,
    };
    let mut reply = reply::json(StatusCode::ACCEPTED, &answer);
    reply.extensions_mut().insert(queued.broadcast);
    reply
}

fn sent(status: &BroadcastStatus) -> Reply {
    let answer = NotifyAnswer {
        success: true,
        message: format!("{} notification(s) sent", status.counts.accepted),
        broadcast: status.id,
        recipients: status.recipients,
        counts: Some(status.counts),
    };
    let mut reply = reply::json(StatusCode::OK, &answer);
    reply.extensions_mut().insert(status.id);
    reply
}

impl From<SendError> for Problem {
    fn from(error: SendError) -> Self {
        match error.kind() {
            SendErrorKind::PayloadTooLarge => ProblemKind::PayloadTooLarge.into(),
            SendErrorKind::SendAtTooFarAhead => ProblemKind::SendAtTooFarAhead.into(),
            SendErrorKind::NeverDue => ProblemKind::UnknownZone.into(),
            SendErrorKind::InvalidIdempotencyKey => ProblemKind::InvalidIdempotencyKey.into(),
            SendErrorKind::IdempotencyConflict => ProblemKind::IdempotencyConflict.into(),
            SendErrorKind::Store => Self::from(ProblemKind::StoreUnavailable).because(&error),
        }
    }
}

static PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
