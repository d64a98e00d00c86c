//! `GET /ready`: whether this process should receive traffic.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::api::WebPushService;
use crate::api::reply::{self, Reply};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReadyAnswer {
    ready: bool,
    /// The store responds, and the last claim, settlement and write of this process succeeded.
    store: bool,
    /// A worker polled for due work recently.
    scheduler: bool,
    /// A worker runs.
    worker: bool,
    /// This machine's clock agrees with its monotonic clock and with the store's. If it does not, nothing is delivered.
    clock: bool,
    /// A contact is configured. Without one nothing is sent.
    contact: bool,
}

/// The shortest time after which a missing poll counts as a failure.
const POLLS_WITHIN: Duration = Duration::from_secs(60);

pub(super) async fn ready(api: &WebPushService) -> Reply {
    let engine = &api.engine;
    let (store, last_run) = engine.is_store_up().await;
    let now = engine.now();
    // A few times the longest pause between two polls.
    let grace = engine.poll_interval.saturating_mul(3).max(POLLS_WITHIN);
    let health = &engine.signals.health;
    let scheduler = last_run.is_some_and(|at| now.since(at) <= grace)
        && (!engine.has_own_worker() || health.has_claimed_within(grace));
    let worker = engine.has_worker();
    let clock = engine.clock.fault().is_none();
    let contact = engine.has_contact;
    let answer = ReadyAnswer {
        ready: store && scheduler && worker && clock && contact,
        store,
        scheduler,
        worker,
        clock,
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
