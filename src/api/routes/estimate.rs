//! `POST /broadcasts/estimate`: the number of recipients that a message would have now.

use http::StatusCode;
use serde::{Deserialize as _, Serialize};

use crate::api::WebPushService;
use crate::api::members::{Members, parse_object};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::reply::{self, Reply};
use crate::broadcast::{Audience, check_names};

#[derive(Serialize)]
struct EstimateAnswer {
    recipients: u64,
}

/// The audience is the member of `/notify`, with the same default. The whole body of `/notify` is accepted.
pub(super) async fn estimate(api: &WebPushService, body: &[u8]) -> Result<Reply, Problem> {
    let object = parse_object(body)?;
    check_names(&object)?;
    let audience = match Members::of(&object).value("audience") {
        None => Audience::All,
        Some(value) => {
            Audience::deserialize(value).map_err(|_| Problem::from(ProblemKind::InvalidAudience))?
        }
    };
    let recipients = api.engine.estimate(&audience).await?;
    Ok(reply::json(StatusCode::OK, &EstimateAnswer { recipients }))
}
