//! `GET /ping`: one line of text in the format of the replaced server. The dots are part of it.

use crate::api::WebPushService;
use crate::api::problem::Problem;
use crate::api::reply::{self, Reply};
use crate::moment::iso8601;

pub(super) async fn ping(api: &WebPushService) -> Result<Reply, Problem> {
    let last = api.engine.ledger.last_run().await?;
    let last = last.map_or_else(|| "None".to_owned(), iso8601);
    let version = &api.settings.version;
    Ok(reply::text(format!(
        "pong ... version {version} ... with latest subscription run at {last}"
    )))
}
