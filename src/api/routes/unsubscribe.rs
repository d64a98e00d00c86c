//! `POST /unsubscribe`: removes a subscription by id or by endpoint. Idempotent.

use http::StatusCode;
use serde::Serialize;

use super::registration::notify_type;
use crate::api::WebPushService;
use crate::api::members::{Members, parse_object};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::reply::{self, Reply};
use crate::store::SubscriptionRef;
use crate::subscription::{Endpoint, SubscriptionId};

#[derive(Serialize)]
struct UnsubscribeAnswer {
    success: bool,
    message: &'static str,
}

pub(super) async fn unsubscribe(api: &WebPushService, body: &[u8]) -> Result<Reply, Problem> {
    let object = parse_object(body)?;
    let members = Members::of(&object);
    let (which, message) = named(members)?;
    match notify_type(members)? {
        None => api.engine.unsubscribe(which).await?,
        Some(notify_type) => api.engine.unsubscribe_daily(which, notify_type).await?,
    };
    let answer = UnsubscribeAnswer {
        success: true,
        message,
    };
    Ok(reply::json(StatusCode::OK, &answer))
}

/// Returns the subscription that the members name, and the text of the response. Knowing the id or the endpoint is enough to
/// remove it.
fn named(members: Members<'_>) -> Result<(SubscriptionRef, &'static str), Problem> {
    let by_id = |id: &str| Ok((id.parse::<SubscriptionId>()?.into(), "unsubscribed"));
    // The name in one of the replaced servers.
    if members.has("client_uuid") {
        let id = members.text("client_uuid")?.filter(|id| !id.is_empty());
        return by_id(id.ok_or(ProblemKind::MissingClientUuid)?);
    }
    if let Some(id) = members.text("id")? {
        return by_id(id);
    }
    let endpoint = members.text("endpoint")?.filter(|url| !url.is_empty());
    let endpoint = Endpoint::parse(endpoint.ok_or(ProblemKind::MissingEndpoint)?)?;
    let which = SubscriptionRef::from(&endpoint);
    Ok((which, "Subscription deleted successfully"))
}
