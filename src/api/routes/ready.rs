//! `GET /ready`: whether this process should get traffic.

use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::WebPush;
use crate::api::reply::{self, Reply};
use crate::broadcast::Audience;
use crate::store::{Pause, PauseReason};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReadyAnswer {
    ready: bool,
    /// The stores answer.
    store: bool,
    /// Somebody looked at due work a short while ago.
    scheduler: bool,
    /// Something is running that delivers.
    worker: bool,
    /// A push service refuses us as a sender. An alarm, and no reason to keep traffic away: the others go on.
    sender_fault: bool,
}

pub(super) async fn ready(push: &WebPush) -> Reply {
    let last_run = push.ledger().last_run().await;
    let first = push
        .subscriptions()
        .page(&Audience::All, None, 1, push.now());
    let subscriptions = first.await;
    let grace = push.api_settings().scheduler_grace;
    let store = last_run.is_ok() && subscriptions.is_ok();
    let scheduler = matches!(last_run, Ok(Some(at)) if push.now().since(at) <= grace);
    let worker = push.worker_alive();
    let pauses = push.ledger().pauses(push.now()).await.unwrap_or_default();
    let is_fault = |pause: &Pause| pause.reason == PauseReason::SenderFault;
    let answer = ReadyAnswer {
        ready: store && scheduler && worker,
        store,
        scheduler,
        worker,
        sender_fault: pauses.iter().any(is_fault),
    };
    if answer.ready {
        return reply::json(StatusCode::OK, &answer);
    }
    let mut reply = reply::json(StatusCode::SERVICE_UNAVAILABLE, &answer);
    let wait = HeaderValue::from_static("5");
    reply.headers_mut().insert(RETRY_AFTER, wait);
    reply
}
