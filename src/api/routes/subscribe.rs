//! `POST /subscribe`: stores what the browser handed over.

use http::StatusCode;
use http::request::Parts;
use serde::Serialize;

use super::new_host;
use super::registration::Registration;
use crate::api::WebPushService;
use crate::api::members::{Members, parse_object};
use crate::api::peer;
use crate::api::problem::{Problem, ProblemKind};
use crate::api::reply::{self, Reply};
use crate::broadcast::{Audience, Principal};
use crate::engine::BroadcastRequest;
use crate::message::Message;
use crate::observe::event;
use crate::store::{Change, NewSubscription, SubscriptionRecord, Upserted};
use crate::subscription::{EndpointKey, SubscriptionId};
use crate::vapid::KeyId;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SubscribeAnswer {
    success: bool,
    message: &'static str,
    id: SubscriptionId,
    created: bool,
    stale_key: bool,
}

/// A stored registration.
pub(super) struct Stored {
    record: Box<SubscriptionRecord>,
    created: bool,
    has_schedule: bool,
    stale_key: bool,
}

pub(super) async fn subscribe(
    api: &WebPushService,
    parts: &Parts,
    body: &[u8],
) -> Result<Reply, Problem> {
    let object = parse_object(body)?;
    let members = Members::of(&object);
    let registration = Registration::parse(members, &api.settings, api.engine.now())?;
    let stored = store(api, parts, registration, None).await?;
    if stored.created && stored.has_schedule && api.settings.confirmation {
        confirm(api, parts, stored.record.id).await;
    }
    Ok(answer(&stored))
}

pub(super) fn answer(stored: &Stored) -> Reply {
    let answer = SubscribeAnswer {
        success: true,
        message: "Subscription saved successfully",
        id: stored.record.id,
        created: stored.created,
        stale_key: stored.stale_key,
    };
    reply::json(StatusCode::OK, &answer)
}

/// Who the application's authentication layer says is asking.
pub(super) fn principal(parts: &Parts) -> Option<Principal> {
    parts.extensions.get().cloned()
}

/// Stores a registration, in the place of another row where the caller may.
pub(super) async fn store(
    api: &WebPushService,
    parts: &Parts,
    registration: Registration,
    replaces: Option<EndpointKey>,
) -> Result<Stored, Problem> {
    let principal = principal(parts);
    if principal.is_none() && api.settings.require_principal {
        return Err(ProblemKind::PrincipalRequired.into());
    }
    let subscription = registration.subscription;
    api.engine.endpoint_policy.check(subscription.endpoint())?;
    let vapid_key = match registration.server_key {
        Some(key) => Some(live_key(api, key.id()).await?),
        None => None,
    };
    // Last of the checks: it costs a lookup.
    new_host::check(api, subscription.endpoint()).await?;
    // Asked after looking for the named key, which may have shown that another process rotated.
    let active = api.engine.key_ring.active().id();
    let mut new = NewSubscription::new(subscription, active);
    new.principal = principal;
    new.tags = registration.tags;
    new.vapid_key = vapid_key;
    new.replaces = replaces;

    let now = api.engine.now();
    let limits = &api.engine.limits;
    let upserted = api.engine.subscriptions.upsert(&new, limits, now).await?;
    let Upserted::Stored {
        record,
        created,
        superseded,
    } = upserted
    else {
        return Err(ProblemKind::SubscriptionConflict.into());
    };
    if let Some(superseded) = superseded {
        api.engine
            .ledger
            .move_schedules(superseded, record.id)
            .await?;
    }
    let has_schedule = registration.daily.is_some();
    if let Some(daily) = registration.daily {
        let scheduled = match daily.schedule(record.id, now) {
            Some(schedule) => api
                .engine
                .put_schedule(&schedule)
                .await
                .map_err(Problem::from),
            // Nothing that was parsed lacks one, but for a clock at the end of time.
            None => Err(ProblemKind::InvalidNotifyTime.into()),
        };
        if let Err(problem) = scheduled {
            // A row that was there before, here or at the endpoint that it replaces, has kept its id.
            if record.id == new.id {
                undo(api, &record).await;
            }
            return Err(problem);
        }
    }
    Ok(Stored {
        stale_key: record.vapid_key != active,
        record,
        created,
        has_schedule,
    })
}

async fn live_key(api: &WebPushService, id: KeyId) -> Result<KeyId, Problem> {
    let key = api.engine.key_ring.find(&id, api.engine.now()).await?;
    let key = key.ok_or(ProblemKind::UnknownVapidKey)?;
    Ok(key.id())
}

/// A refused request stores nothing: subscriptions and schedules may be in two databases.
async fn undo(api: &WebPushService, record: &SubscriptionRecord) {
    let delete = Change::Delete(record.subscription.endpoint().key());
    if let Err(error) = api
        .engine
        .subscriptions
        .apply(&[delete], api.engine.now())
        .await
    {
        event!(ERROR, error = %crate::observe::causes(&error), "a subscription without its schedule stays");
        let _ = error;
    }
}

/// The first push of a new subscriber, as far as its peer may cause one. Subscribing does not fail where this fails.
async fn confirm(api: &WebPushService, parts: &Parts, id: SubscriptionId) {
    if api.settings.pushes.take(peer(parts)).is_err() {
        event!(
            DEBUG,
            "a confirmation push was not sent: its peer has had its number for this minute"
        );
        return;
    }
    let mut request = BroadcastRequest::new(Audience::id(id), Message::new(CONFIRMATION));
    request.forget_when_over = true;
    if let Err(error) = api.engine.open(request).await {
        event!(WARN, error = %crate::observe::causes(&error), "a confirmation push was not accepted");
        let _ = error;
    }
}

/// The replaced server's own words.
const CONFIRMATION: &str =
    r#"{"title":"Subscription Successful","message":"Thank you for subscribing!"}"#;
