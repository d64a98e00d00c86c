//! Endpoints at hosts that have not answered this process yet.

use crate::api::WebPushService;
use crate::api::problem::{Problem, ProblemKind};
use crate::deliver::Unverified;
use crate::store::SubscriptionRef;
use crate::subscription::Endpoint;

/// Checks the host of an endpoint before it is stored. One that is stored already adds no host.
pub(super) async fn check(api: &WebPushService, endpoint: &Endpoint) -> Result<(), Problem> {
    let hosts = &api.engine.host_check;
    if !hosts.is_unproven(endpoint) || is_stored(api, endpoint).await? {
        return Ok(());
    }
    let checked = hosts.check(endpoint, api.engine.now()).await;
    checked.map_err(|unverified| match unverified {
        Unverified::NotAllowed => ProblemKind::EndpointNotAllowed.into(),
        Unverified::TryAgain(wait) => {
            Problem::from(ProblemKind::EndpointUnverified).with_retry_after(wait)
        }
    })
}

async fn is_stored(api: &WebPushService, endpoint: &Endpoint) -> Result<bool, Problem> {
    let key = SubscriptionRef::Key(endpoint.key());
    let rows = api.engine.subscriptions.get(&[key]).await?;
    let row = rows.into_iter().flatten().next();
    Ok(row.is_some_and(|row| row.retired.is_none()))
}
