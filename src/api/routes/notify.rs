//! `POST /notify`: accepts a broadcast.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::prefer;
use crate::api::WebPushService;
use crate::api::members::{Members, malformed, parse_object};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::reply::{self, Reply};
use crate::api::time::rfc3339;
use crate::broadcast::{Audience, Broadcast, BroadcastId, BroadcastStatus, Counts};
use crate::clock::Timestamp;
use crate::engine::{Queued, SendError, SendErrorKind};
use crate::json::whole_number;
use crate::message::{Message, Notification, Topic, Ttl, Urgency};

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
    let object = parse_object(body)?;
    let members = Members::of(&object);
    let message = message(members, body)?;
    let mut broadcast = Broadcast::to(audience(members)?, message);
    broadcast.send_at = send_at(members)?;
    broadcast.pace = pace(members)?;
    if let Some(key) = prefer::idempotency_key(&parts.headers)? {
        broadcast = broadcast.idempotency_key(key);
        // A repeated request has the same body, octet for octet.
        broadcast.fingerprint = Some(Sha256::digest(body).into());
    }
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

/// Parses content and delivery options.
fn message(members: Members<'_>, body: &[u8]) -> Result<Message, Problem> {
    let mut message: Message = match (members.has("title"), members.has("payload")) {
        (true, true) => return Err(ProblemKind::AmbiguousContent.into()),
        (false, false) => return Err(ProblemKind::MissingContent.into()),
        (true, false) => Notification::from_members(members.map())?.into(),
        (false, true) => Message::new(raw_payload(body)?),
    };
    if let Some(ttl) = members.value("ttl") {
        let secs = whole_number(ttl).ok_or(ProblemKind::InvalidTtl)?;
        message = message.with_ttl(Ttl::from_secs(secs));
    }
    if let Some(urgency) = members.value("urgency") {
        let urgency = urgency
            .as_str()
            .and_then(|text| text.parse::<Urgency>().ok());
        message = message.with_urgency(urgency.ok_or(ProblemKind::InvalidUrgency)?);
    }
    if let Some(topic) = members.text("topic")? {
        message = message.with_topic(Topic::parse(topic)?);
    }
    if message.is_too_large() {
        return Err(ProblemKind::PayloadTooLarge.into());
    }
    Ok(message)
}

/// Returns `payload` as in the request, byte for byte.
fn raw_payload(body: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut members: BTreeMap<String, &RawValue> =
        serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    let payload = members
        .remove("payload")
        .ok_or(ProblemKind::MissingContent)?;
    Ok(payload.get().as_bytes().to_vec())
}

fn send_at(members: Members<'_>) -> Result<Option<Timestamp>, Problem> {
    let Some(value) = members.value("sendAt") else {
        return Ok(None);
    };
    let at = value.as_str().and_then(rfc3339);
    Ok(Some(at.ok_or(ProblemKind::InvalidSendAt)?))
}

fn pace(members: Members<'_>) -> Result<Option<NonZeroU32>, Problem> {
    let Some(value) = members.value("pace") else {
        return Ok(None);
    };
    let per_second = value.get("perSecond").and_then(whole_number);
    // A larger number is no limit either.
    let per_second = per_second.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    let pace = per_second.and_then(NonZeroU32::new);
    Ok(Some(pace.ok_or(ProblemKind::InvalidPace)?))
}

fn audience(members: Members<'_>) -> Result<Audience, Problem> {
    let Some(value) = members.value("audience") else {
        return Ok(Audience::All);
    };
    serde_json::from_value(value.clone()).map_err(|_| ProblemKind::InvalidAudience.into())
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
