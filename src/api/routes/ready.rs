//! `GET /ready`: whether this process should get traffic.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use tokio::time::timeout;

use crate::api::WebPushService;
use crate::api::reply::{self, Reply};
use crate::broadcast::Audience;

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
    /// There is a contact. Without one nothing is sent.
    contact: bool,
}

/// How old the last look at due work may be in any case.
const LOOKS_WITHIN: Duration = Duration::from_secs(60);
/// Whoever asks has less patience than a store that tries to come back.
const STORE_ANSWERS_WITHIN: Duration = Duration::from_secs(3);

pub(super) async fn ready(api: &WebPushService) -> Reply {
    let now = api.engine.now();
    let ledger = &api.engine.ledger;
    let looks = async {
        tokio::join!(
            ledger.last_run(),
            api.engine.subscriptions.page(&Audience::All, None, 1, now),
            ledger.pauses(now)
        )
    };
    let (store, last_run) = match timeout(STORE_ANSWERS_WITHIN, looks).await {
        Ok((Ok(last_run), Ok(_), Ok(_))) => (true, last_run),
        // What is known of a store that is in trouble may be old.
        _ => (false, None),
    };
    // A few times the longest pause between two looks.
    let grace = api.engine.poll_interval.saturating_mul(3).max(LOOKS_WITHIN);
    let scheduler = last_run.is_some_and(|at| now.since(at) <= grace);
    let worker = api.engine.has_worker();
    let contact = api.engine.has_contact;
    let answer = ReadyAnswer {
        ready: store && scheduler && worker && contact,
        store,
        scheduler,
        worker,
        contact,
    };
    if answer.ready {
        return reply::json(StatusCode::OK, &answer);
    }
    let mut reply = reply::json(StatusCode::SERVICE_UNAVAILABLE, &answer);
    let wait = HeaderValue::from_static("5");
    reply.headers_mut().insert(RETRY_AFTER, wait);
    reply
}
