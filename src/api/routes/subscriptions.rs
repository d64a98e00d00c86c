//! `GET /subscriptions`, `POST /subscriptions/search` and `DELETE /subscriptions/{id}`: the subscriptions of all users,
//! for administrators.
//!
//! An endpoint is a capability: it is in no answer, and a search for one has it in the body, since addresses are logged.

use http::StatusCode;
use http::header::ACCEPT;
use http::request::Parts;
use serde::Serialize;

use super::devices::DeviceAnswer;
use super::export;
use crate::api::WebPushService;
use crate::api::journal::Target;
use crate::api::members::{Members, parse_object};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::Query;
use crate::api::reply::{self, Reply};
use crate::broadcast::{Principal, Tag};
use crate::encoding::{base64_any, base64url};
use crate::engine::SubscriptionInfo;
use crate::moment::iso8601;
use crate::push_service::PushService;
use crate::store::{Liveness, SubscriptionFilter, SubscriptionRef};
use crate::subscription::{Endpoint, EndpointKey, SubscriptionId};

#[derive(Serialize)]
struct SubscriptionsAnswer {
    subscriptions: Vec<SubscriptionAnswer>,
    next: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SubscriptionAnswer {
    #[serde(flatten)]
    device: DeviceAnswer,
    user: Option<String>,
    key_id: String,
    failure_streak: u32,
    retire_reason: Option<&'static str>,
    expiration_time: Option<String>,
}

impl From<SubscriptionInfo> for SubscriptionAnswer {
    fn from(info: SubscriptionInfo) -> Self {
        Self {
            device: info.device.into(),
            user: info.user.map(|user| user.as_str().to_owned()),
            key_id: info.vapid_key.to_string(),
            failure_streak: info.failure_streak,
            retire_reason: info.retire_reason.map(|reason| reason.as_str()),
            expiration_time: info.expiration_time.map(iso8601),
        }
    }
}

#[derive(Serialize)]
struct RemoveAnswer {
    success: bool,
    message: &'static str,
}

const PARAMETERS: &[&str] = &[
    "id",
    "user",
    "tag",
    "pushService",
    "state",
    "limit",
    "after",
    "format",
];

pub(super) async fn list(api: &WebPushService, parts: &Parts) -> Result<Reply, Problem> {
    let query = Query::parse(parts.uri.query(), PARAMETERS)?;
    let id = query.parsed("id", "a UUID", |id| id.parse::<SubscriptionId>().ok())?;
    let (is_one, formats) = match id {
        Some(_) => (true, "json, as with an id"),
        None => (false, "json or csv"),
    };
    let format = query.parsed("format", formats, |format| match format {
        "json" => Some(false),
        "csv" if !is_one => Some(true),
        _ => None,
    })?;
    if let Some(id) = id {
        return one(api, id.into()).await;
    }
    if format.unwrap_or_else(|| accepts_csv(parts)) {
        return export::answer(api, filter(&query)?).await;
    }
    let (limit, after) = (query.limit()?, query.parsed("after", "a cursor", cursor)?);
    let list = api
        .engine
        .subscriptions(&filter(&query)?, after.as_ref(), limit)
        .await?;
    let subscriptions = list.subscriptions.into_iter();
    let answer = SubscriptionsAnswer {
        subscriptions: subscriptions.map(SubscriptionAnswer::from).collect(),
        next: list.next.map(|key| base64url(key.as_bytes())),
    };
    Ok(reply::json(StatusCode::OK, &answer))
}

pub(super) async fn search(api: &WebPushService, body: &[u8]) -> Result<Reply, Problem> {
    let object = parse_object(body)?;
    let endpoint = Members::of(&object).text("endpoint")?;
    let endpoint = endpoint.ok_or(ProblemKind::MissingEndpoint)?;
    one(api, (&Endpoint::parse(endpoint)?).into()).await
}

pub(super) async fn remove(api: &WebPushService, id: &str) -> Result<Reply, Problem> {
    let id: SubscriptionId = id.parse().map_err(|_| ProblemKind::UnknownSubscription)?;
    api.engine.unsubscribe(id.into()).await?;
    let answer = RemoveAnswer {
        success: true,
        message: "Subscription deleted successfully",
    };
    let mut reply = reply::json(StatusCode::OK, &answer);
    reply.extensions_mut().insert(Target::subscription(id));
    Ok(reply)
}

async fn one(api: &WebPushService, which: SubscriptionRef) -> Result<Reply, Problem> {
    let found = api.engine.subscription(which).await?;
    let answer = SubscriptionsAnswer {
        subscriptions: found.into_iter().map(SubscriptionAnswer::from).collect(),
        next: None,
    };
    Ok(reply::json(StatusCode::OK, &answer))
}

fn filter(query: &Query) -> Result<SubscriptionFilter, Problem> {
    let named = |name: &str| {
        let mut services = PushService::ALL.iter();
        services.find(|service| service.as_str() == name).copied()
    };
    let liveness = query.parsed("state", "live, stale or retired", |state| match state {
        "live" => Some(Liveness::Live),
        "stale" => Some(Liveness::Stale),
        "retired" => Some(Liveness::Retired),
        _ => None,
    })?;
    Ok(SubscriptionFilter {
        user: query.text("user").map(Principal::from),
        tag: query.parsed("tag", "a tag", |tag| Tag::parse(tag).ok())?,
        push_service: query.parsed("pushService", "the name of a push service", named)?,
        liveness: liveness.unwrap_or(Liveness::Any),
    })
}

/// Whether the client asks for CSV by name.
fn accepts_csv(parts: &Parts) -> bool {
    let accepted = parts.headers.get_all(ACCEPT).iter();
    let mut ranges = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    ranges.any(|range| {
        let name = range.split(';').next().unwrap_or(range);
        name.trim().eq_ignore_ascii_case("text/csv")
    })
}

fn cursor(text: &str) -> Option<EndpointKey> {
    let key: &[u8] = &base64_any(text)?;
    key.try_into().ok().map(EndpointKey::from_bytes)
}
