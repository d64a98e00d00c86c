//! `POST /unsubscribe`: removes a subscription by id or by endpoint. Idempotent.

use http::StatusCode;
use serde::Serialize;

use super::registration::notify_type;
use crate::api::WebPushService;
use crate::api::members::{Members, parse_object};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::reply::{self, Reply};
use crate::schedule::NotifyType;
use crate::store::SubscriptionRef;
use crate::subscription::{Endpoint, SubscriptionId};

#[derive(Serialize)]
struct UnsubscribeAnswer {
    success: bool,
    message: &'static str,
}

/// The members that name the subscription. Knowing either is enough to remove it.
enum Form {
    /// `client_uuid`, the name in one of the replaced servers, or `id`.
    Id(SubscriptionId),
    /// The endpoint, and the one type of daily notification to remove.
    Endpoint(Endpoint, Option<NotifyType>),
}

pub(super) async fn unsubscribe(api: &WebPushService, body: &[u8]) -> Result<Reply, Problem> {
    let object = parse_object(body)?;
    let message = match Form::parse(Members::of(&object))? {
        Form::Id(id) => {
            api.engine.unsubscribe(id.into()).await?;
            "unsubscribed"
        }
        Form::Endpoint(endpoint, notify_type) => {
            let which = SubscriptionRef::from(&endpoint);
            match notify_type {
                None => api.engine.unsubscribe(which).await?,
                Some(notify_type) => api.engine.unsubscribe_daily(which, notify_type).await?,
            };
            "Subscription deleted successfully"
        }
    };
    let answer = UnsubscribeAnswer {
        success: true,
        message,
    };
    Ok(reply::json(StatusCode::OK, &answer))
}

impl Form {
    fn parse(members: Members<'_>) -> Result<Self, Problem> {
        if members.has("client_uuid") {
            let id = members.text("client_uuid")?.unwrap_or_default();
            if id.is_empty() {
                return Err(ProblemKind::MissingClientUuid.into());
            }
            return Ok(Self::Id(id.parse()?));
        }
        if let Some(id) = members.text("id")? {
            return Ok(Self::Id(id.parse()?));
        }
        let endpoint = members.text("endpoint")?.filter(|url| !url.is_empty());
        let endpoint = Endpoint::parse(endpoint.ok_or(ProblemKind::MissingEndpoint)?)?;
        Ok(Self::Endpoint(endpoint, notify_type(members)?))
    }
}
