//! `POST /subscribe`: stores a subscription.

use http::StatusCode;
use http::request::Parts;
use serde::Serialize;

use super::registration;
use crate::api::WebPushService;
use crate::api::members::{Members, parse_object};
use crate::api::peer;
use crate::api::problem::Problem;
use crate::api::reply::{self, Reply};
use crate::api::trace_context::trace_parent;
use crate::engine::Registered;
use crate::observe::event;
use crate::subscription::{EndpointKey, SubscriptionId};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SubscribeAnswer {
    success: bool,
    message: &'static str,
    id: SubscriptionId,
    created: bool,
    stale_key: bool,
}

pub(super) async fn subscribe(
    api: &WebPushService,
    parts: &Parts,
    body: &[u8],
) -> Result<Reply, Problem> {
    let object = parse_object(body)?;
    let registration = registration::parse(Members::of(&object), parts, &api.settings)?;
    let has_daily = registration.has_daily();
    let key = registration.resource_key();
    let registered = api.engine.register(registration, None).await?;
    if registered.created && has_daily && api.settings.confirmation {
        confirm(api, parts, key, registered.id).await;
    }
    Ok(answer(registered))
}

pub(super) fn answer(registered: Registered) -> Reply {
    let answer = SubscribeAnswer {
        success: true,
        message: "Subscription saved successfully",
        id: registered.id,
        created: registered.created,
        stale_key: registered.stale_key,
    };
    reply::json(StatusCode::OK, &answer)
}

/// Sends a confirmation push to a new subscriber, within the limits of its endpoint and its peer. An error does not fail
/// the subscribe.
async fn confirm(api: &WebPushService, parts: &Parts, key: EndpointKey, id: SubscriptionId) {
    let settings = &api.settings;
    // A client that knows the endpoint can remove the subscription and make it again.
    if settings.confirmations.take(key).is_err() {
        event!(
            DEBUG,
            "a confirmation push was not sent: its subscription got one a moment ago"
        );
        return;
    }
    if settings.pushes.take(peer(parts)).is_err() {
        settings.confirmations.give_back(&key);
        event!(
            DEBUG,
            "a confirmation push was not sent: the limit of its peer is reached"
        );
        return;
    }
    let parent = trace_parent(&parts.headers);
    if let Err(error) = api.engine.confirm(id, parent).await {
        event!(WARN, error = %crate::observe::causes(&error), "a confirmation push was not accepted");
        let _ = error;
    }
}
