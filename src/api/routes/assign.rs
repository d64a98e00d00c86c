//! `PATCH /subscriptions/{id}`: the user and the tags of a subscription.

use std::collections::BTreeSet;

use http::StatusCode;
use serde::Serialize;

use super::registration;
use crate::api::WebPushService;
use crate::api::journal::Target;
use crate::api::members::{Members, parse_object};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::reply::{self, Reply};
use crate::broadcast::{Principal, Tag};
use crate::store::Assignment;
use crate::subscription::SubscriptionId;

#[derive(Serialize)]
struct Assigned {
    success: bool,
    id: SubscriptionId,
    user: Option<Principal>,
    tags: BTreeSet<Tag>,
}

/// A member that is absent changes nothing. An unknown id and a malformed one get the same answer.
pub(super) async fn assign(api: &WebPushService, id: &str, body: &[u8]) -> Result<Reply, Problem> {
    let object = parse_object(body)?;
    let members = Members::of(&object);
    let assignment = Assignment {
        principal: match members.text("user")? {
            Some("") => return Err(Problem::member("user", "not empty")),
            Some(user) => Some(Some(Principal::from(user))),
            None => members.has("user").then_some(None),
        },
        tags: registration::tags(members)?,
    };
    let unknown = || Problem::from(ProblemKind::UnknownSubscription);
    let id = id.parse().map_err(|_| unknown())?;
    let row = api.engine.assign(id, assignment).await?;
    let row = row.ok_or_else(unknown)?;
    let answer = Assigned {
        success: true,
        id: row.id,
        user: row.principal,
        tags: row.tags,
    };
    let mut reply = reply::json(StatusCode::OK, &answer);
    let Target(id) = Target::subscription(answer.id);
    let user = answer.user.as_ref().map_or("none", Principal::as_str);
    reply
        .extensions_mut()
        .insert(Target(format!("{id}, user {user}")));
    Ok(reply)
}
