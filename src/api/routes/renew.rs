//! `POST /renew`: a new subscription in the place of an old one.

use http::request::Parts;

use super::registration::{MISSING_SUBSCRIPTION, Registration};
use super::subscribe::{self, principal};
use crate::api::WebPushService;
use crate::api::members::{Members, parse_object};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::reply::Reply;
use crate::store::SubscriptionRef;
use crate::subscription::{AuthSecret, Endpoint, EndpointKey};

/// Id, tags, principal and schedules move to the new endpoint when the caller knows the old one's secret or
/// is its owner. Else this is a plain subscribe, and the answer does not tell which it was.
pub(super) async fn renew(
    api: &WebPushService,
    parts: &Parts,
    body: &[u8],
) -> Result<Reply, Problem> {
    let object = parse_object(body)?;
    let members = Members::of(&object);
    let old = old_endpoint(members)?;
    let old_auth = old_auth(members)?;
    let subscription = members
        .object("subscription")?
        .ok_or_else(|| missing("subscription", MISSING_SUBSCRIPTION))?;
    let registration = Registration::parse(subscription, &api.settings, api.engine.now())?;
    let replaces = match old {
        Some(old) => replaceable(api, parts, &old, old_auth).await?,
        None => None,
    };
    let stored = subscribe::store(api, parts, registration, replaces).await?;
    Ok(subscribe::answer(&stored))
}

/// The old row's key, when the caller may take its place.
async fn replaceable(
    api: &WebPushService,
    parts: &Parts,
    old: &Endpoint,
    old_auth: Option<AuthSecret>,
) -> Result<Option<EndpointKey>, Problem> {
    let key = old.key();
    let rows = api
        .engine
        .subscriptions
        .get(&[SubscriptionRef::Key(key)])
        .await?;
    let row = rows.into_iter().flatten().next();
    let may = row.is_some_and(|row| {
        // Secrets compare in constant time.
        let knows = old_auth.is_some_and(|given| given == *row.subscription.auth());
        let owns = row.principal.is_some() && row.principal == principal(parts);
        knows || owns
    });
    Ok(may.then_some(key))
}

/// Must be there; null where the browser does not know it any more (`oldSubscription` may be null).
fn old_endpoint(members: Members<'_>) -> Result<Option<Endpoint>, Problem> {
    match members.text("oldEndpoint")? {
        Some(url) if !url.is_empty() => Ok(Some(Endpoint::parse(url)?)),
        None if members.has("oldEndpoint") => Ok(None),
        _ => Err(missing("oldEndpoint", "Missing endpoint information")),
    }
}

fn old_auth(members: Members<'_>) -> Result<Option<AuthSecret>, Problem> {
    let text = members.text("oldAuth")?;
    let auth = text.map(AuthSecret::parse).transpose();
    auth.map_err(|error| Problem::from(error).with_member("oldAuth"))
}

fn missing(member: &'static str, detail: &'static str) -> Problem {
    Problem::from(ProblemKind::MissingEndpoint)
        .with_member(member)
        .with_detail(detail)
}
