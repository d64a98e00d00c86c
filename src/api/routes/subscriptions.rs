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

/// Whether the client asks for CSV by name, and not for JSON rather (RFC 9110 section 12.5.1).
fn accepts_csv(parts: &Parts) -> bool {
    let csv = weight(parts, "text/csv");
    csv > 0.0 && csv >= weight(parts, "application/json")
}

/// The weight of a media type that `Accept` names (RFC 9110 section 12.4.2), 0 of another.
fn weight(parts: &Parts, media_type: &str) -> f32 {
    let accepted = parts.headers.get_all(ACCEPT).iter();
    let ranges = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let weights = ranges.filter_map(|range| {
        let mut words = range.split(';').map(str::trim);
        let is_named = words.next()?.eq_ignore_ascii_case(media_type);
        let weight = words.find_map(|word| word.strip_prefix(['q', 'Q'])?.strip_prefix('='));
        is_named.then(|| weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
    });
    weights.fold(0.0, f32::max)
}

fn cursor(text: &str) -> Option<EndpointKey> {
    let key: &[u8] = &base64_any(text)?;
    key.try_into().ok().map(EndpointKey::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_is_what_a_client_names_and_does_not_refuse() {
        for (accept, is_csv) in [
            (&["text/csv"][..], true),
            (&["application/json", "Text/CSV; Q=0.5"], false),
            (&["application/json;q=0.4, text/csv;q=0.5"], true),
            (&["application/json, text/csv"], true),
            (&["application/json, text/csv;q=0"], false),
            (&["text/csv;q=0.000"], false),
            (&["text/csv;q=nan"], false),
            (&["text/csv;q="], false),
            (&["text/csv;header=present;q=0.1"], true),
            (&["*/*"], false),
            (&["text/*"], false),
            (&["text/csvx"], false),
            (&[], false),
        ] {
            let mut request = http::Request::builder();
            for value in accept {
                request = request.header(ACCEPT, *value);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(accepts_csv(&parts), is_csv, "{accept:?}");
        }
    }
}
