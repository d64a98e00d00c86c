//! `GET /ping`: one line of text in the format of the replaced server. The dots are part of it.

use std::sync::Arc;

use crate::api::WebPushService;
use crate::api::problem::{Problem, ProblemKind};
use crate::api::reply::{self, Reply};
use crate::moment::iso8601;

pub(super) async fn ping(api: &WebPushService) -> Result<Reply, Problem> {
    let read = api.engine.signals.last_run.get(|| {
        let ledger = Arc::clone(&api.engine.ledger);
        async move { ledger.last_run().await.map_err(Arc::new) }
    });
    let last = match read.await {
        Some(Ok(last)) => last,
        Some(Err(error)) => return Err((&*error).into()),
        None => return Err(ProblemKind::StoreUnavailable.into()),
    };
    let last = last.map_or_else(|| "None".to_owned(), iso8601);
    let version = &api.settings.version;
    Ok(reply::text(format!(
        "pong ... version {version} ... with latest subscription run at {last}"
    )))
}
