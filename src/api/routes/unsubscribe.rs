//! `POST /unsubscribe`: by id or by endpoint, as often as one likes.

use http::StatusCode;
use serde::Serialize;

use super::registration::notify_type;
use crate::api::WebPushService;
use crate::api::members::{Members, parse_object};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::reply::{self, Reply};
use crate::schedule::{NotifyType, ScheduleName};
use crate::store::{Change, SubscriptionRecord, SubscriptionRef};
use crate::subscription::{Endpoint, SubscriptionId};

#[derive(Serialize)]
struct UnsubscribeAnswer {
    success: bool,
    message: &'static str,
}

/// What names the subscription. Whoever knows either may end it.
enum Form {
    /// `client_uuid`, as one of the replaced servers called it, or `id`.
    Id(SubscriptionId),
    /// The endpoint, and the one type of daily notification to end.
    Endpoint(Endpoint, Option<NotifyType>),
}

pub(super) async fn unsubscribe(api: &WebPushService, body: &[u8]) -> Result<Reply, Problem> {
    let object = parse_object(body)?;
    let message = match Form::parse(Members::of(&object))? {
        Form::Id(id) => {
            // Schedules may be left of an attempt that was cut off: they go whether there is a row or not.
            api.engine.ledger.remove_schedules(id).await?;
            if let Some(row) = find(api, SubscriptionRef::Id(id)).await? {
                delete(api, &row).await?;
            }
            "unsubscribed"
        }
        Form::Endpoint(endpoint, notify_type) => {
            if let Some(row) = find(api, SubscriptionRef::Key(endpoint.key())).await? {
                by_endpoint(api, &row, notify_type).await?;
            }
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

async fn by_endpoint(
    api: &WebPushService,
    row: &SubscriptionRecord,
    notify_type: Option<NotifyType>,
) -> Result<(), Problem> {
    if let Some(notify_type) = notify_type {
        let name = ScheduleName::Subscriber(row.id, notify_type);
        let schedules = api.engine.ledger.schedules(Some(row.id)).await?;
        let is_last = matches!(schedules.as_slice(), [only] if only.name() == name);
        // A row that is somebody's, or that messages are sent to by tag, is of use without a schedule.
        if !is_last || row.principal.is_some() || !row.tags.is_empty() {
            api.engine.ledger.remove_schedule(&name).await?;
            return Ok(());
        }
    }
    api.engine.ledger.remove_schedules(row.id).await?;
    delete(api, row).await
}

async fn find(
    api: &WebPushService,
    which: SubscriptionRef,
) -> Result<Option<SubscriptionRecord>, Problem> {
    let rows = api.engine.subscriptions.get(&[which]).await?;
    Ok(rows.into_iter().flatten().next())
}

async fn delete(api: &WebPushService, row: &SubscriptionRecord) -> Result<(), Problem> {
    let delete = Change::Delete(row.subscription.endpoint().key());
    api.engine
        .subscriptions
        .apply(&[delete], api.engine.now())
        .await?;
    Ok(())
}
