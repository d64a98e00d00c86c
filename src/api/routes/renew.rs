//! `POST /renew`: replaces an old subscription.

use http::request::Parts;

use super::registration::{self, MISSING_SUBSCRIPTION};
use super::subscribe;
use crate::api::WebPushService;
use crate::api::members::{Members, parse_object};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::reply::Reply;
use crate::engine::Renewal;
use crate::subscription::{AuthSecret, Endpoint};

/// Without an old endpoint it is a plain subscribe.
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
    let registration = registration::parse(subscription, parts, &api.settings)?;
    let registered = match old {
        None => api.engine.register(registration, None).await?,
        Some(old) => {
            let mut renewal = Renewal::new(old, registration);
            if let Some(auth) = old_auth {
                renewal = renewal.old_auth(auth);
            }
            api.engine.renew(renewal).await?
        }
    };
    Ok(subscribe::answer(registered))
}

/// Parses the old endpoint. The member is required; null if the browser no longer knows it (`oldSubscription` may be
/// null).
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
