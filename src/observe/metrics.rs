//! The metrics: their names, units and descriptions, and a function for each that records it.
//!
//! Labels have closed sets of values: a push service, an outcome, a route. Origins, endpoints, users and ids are never
//! labels, so the number of time series has a bound. Without the feature `metrics` every function does nothing.

use std::time::Duration;
#[cfg(feature = "metrics")]
use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;

use crate::push_service::PushService;

/// Runs a block with the feature `metrics`, and only then.
macro_rules! recorded {
    (($($argument:ident),*) $($body:tt)*) => {
        #[cfg(feature = "metrics")]
        $($body)*
        #[cfg(not(feature = "metrics"))]
        let _ = ($(&$argument,)*);
    };
}

/// Counts one request to a push service, and its duration with the wait for a permit. `status` is that of the response.
pub(crate) fn count_attempt(
    push_service: PushService,
    outcome: &'static str,
    status: Option<StatusCode>,
    elapsed: Duration,
) {
    recorded! { (push_service, outcome, status, elapsed) {
        let of = ("push_service", push_service.as_str());
        let labels = [of, ("outcome", outcome)];
        ::metrics::counter!("web_push_attempts_total", &labels).increment(1);
        ::metrics::histogram!("web_push_attempt_duration_seconds", &labels).record(elapsed);
        let labels = [of, ("status", class(status))];
        ::metrics::counter!("web_push_responses_total", &labels).increment(1);
    } }
}

/// The class of a status (RFC 9110 section 15).
#[cfg(feature = "metrics")]
fn class(status: Option<StatusCode>) -> &'static str {
    match status.map(|status| status.as_u16() / 100) {
        Some(1) => "1xx",
        Some(2) => "2xx",
        Some(3) => "3xx",
        Some(4) => "4xx",
        Some(_) => "5xx",
        None => "none",
    }
}

/// Records the time from when a message was due until the push service accepted it for a recipient.
pub(crate) fn count_delivery(push_service: PushService, since_due: Duration) {
    recorded! { (push_service, since_due) {
        let labels = [("push_service", push_service.as_str())];
        ::metrics::histogram!("web_push_delivery_duration_seconds", &labels).record(since_due);
    } }
}

/// Counts recipients that are finished.
pub(crate) fn count_finished(outcome: &'static str, recipients: u64) {
    recorded! { (outcome, recipients) {
        ::metrics::counter!("web_push_finished_total", "outcome" => outcome).increment(recipients);
    } }
}

/// Counts outcomes that were not written, since another process has claimed the row.
pub(crate) fn count_lost(rows: u64) {
    recorded! { (rows) {
        ::metrics::counter!("web_push_settlements_lost_total").increment(rows);
    } }
}

/// Counts a subscription that was retired, or is without a VAPID key that fits (`stale`).
pub(crate) fn count_retired(push_service: PushService, reason: &'static str) {
    recorded! { (push_service, reason) {
        let labels = [("push_service", push_service.as_str()), ("reason", reason)];
        ::metrics::counter!("web_push_retired_total", &labels).increment(1);
    } }
}

/// Counts what was deleted after its retention: `subscriptions` or `broadcasts`.
pub(crate) fn count_purged(what: &'static str, rows: u64) {
    recorded! { (what, rows) {
        ::metrics::counter!("web_push_purged_total", "what" => what).increment(rows);
    } }
}

/// Counts a new VAPID key.
pub(crate) fn count_rotation() {
    #[cfg(feature = "metrics")]
    ::metrics::counter!("web_push_key_rotations_total").increment(1);
}

/// The attempts of one worker that are in flight. The gauge is the sum over the workers of this process, and a worker that is
/// dropped has none.
#[derive(Debug, Default)]
pub(crate) struct InFlight(usize);

impl InFlight {
    pub(crate) fn show(&mut self, attempts: usize) {
        let before = std::mem::replace(&mut self.0, attempts);
        recorded! { (attempts, before) {
            let gauge = ::metrics::gauge!("web_push_in_flight");
            #[expect(clippy::cast_precision_loss, reason = "at most a few thousand")]
            gauge.increment(attempts as f64 - before as f64);
        } }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.show(0);
    }
}

/// Counts daily notifications. When some were last skipped is kept, too: a process that starts skips what its downtime has missed
/// before its first scrape, and a counter that begins above 0 is no increase.
pub(crate) fn count_daily(fired: u64, skipped: u64) {
    recorded! { (fired, skipped) {
        ::metrics::counter!("web_push_daily_total", "what" => "fired").increment(fired);
        ::metrics::counter!("web_push_daily_total", "what" => "skipped").increment(skipped);
        if skipped > 0 {
            // The clock of Prometheus, not that of the engine.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            show("web_push_daily_skipped_timestamp_seconds", &[], now.as_secs_f64());
        }
    } }
}

/// Counts an entry of the outbox: `opened` or `refused`.
pub(crate) fn count_outbox(what: &'static str) {
    recorded! { (what) {
        ::metrics::counter!("web_push_outbox_total", "what" => what).increment(1);
    } }
}

/// Counts rows that a store could not read and left out, each time: `broadcasts`, `origins`, `subscriptions`
/// or `schedules`; `days` once.
pub(crate) fn count_unreadable(what: &'static str, rows: u64) {
    recorded! { (what, rows) {
        ::metrics::counter!("web_push_unreadable_total", "what" => what).increment(rows);
    } }
}

/// The kind of error of a call that was dropped before it ended: its time was over, or its caller was gone.
#[cfg(any(feature = "metrics", feature = "tracing"))]
pub(crate) const DROPPED: &str = "dropped";

/// Records a call of a store, and its error by kind.
#[cfg(any(feature = "metrics", feature = "tracing"))]
pub(crate) fn count_store_call(
    operation: &'static str,
    elapsed: Duration,
    error: Option<&'static str>,
) {
    recorded! { (operation, elapsed, error) {
        let labels = [("operation", operation)];
        ::metrics::histogram!("web_push_store_call_duration_seconds", &labels).record(elapsed);
        if let Some(kind) = error {
            ::metrics::counter!("web_push_store_errors_total", "kind" => kind).increment(1);
        }
    } }
}

/// Counts a request to the HTTP API, and the time that it took. The answer is the status and the code of a problem (or
/// `none`); a request without an answer was aborted by its client.
#[cfg(feature = "api")]
pub(crate) fn count_request(
    route: &'static str,
    answer: Option<(StatusCode, &'static str)>,
    elapsed: Duration,
) {
    recorded! { (route, answer, elapsed) {
        match answer {
            Some((status, code)) => requests(route, status.as_str().to_owned(), code).increment(1),
            None => requests(route, "aborted".to_owned(), "none").increment(1),
        }
        ::metrics::histogram!("web_push_api_request_duration_seconds", "route" => route)
            .record(elapsed);
    } }
}

/// Begins the counter of requests with this answer at 0.
#[cfg(all(feature = "api", feature = "metrics"))]
pub(crate) fn begin_requests(route: &'static str, status: StatusCode, code: &'static str) {
    requests(route, status.as_str().to_owned(), code).increment(0);
}

#[cfg(all(feature = "api", feature = "metrics"))]
fn requests(route: &'static str, status: String, code: &'static str) -> ::metrics::Counter {
    ::metrics::counter!("web_push_api_requests_total", "route" => route, "status" => status, "code" => code)
}

/// Counts a refused request to an administrator's route.
#[cfg(feature = "api")]
pub(crate) fn count_admin_refused(reason: &'static str) {
    recorded! { (reason) {
        ::metrics::counter!("web_push_admin_refused_total", "reason" => reason).increment(1);
    } }
}

/// Sets a gauge that is read on request.
#[cfg(feature = "metrics")]
pub(crate) fn show(name: &'static str, labels: &[(&'static str, &'static str)], value: f64) {
    ::metrics::gauge!(name, labels).set(value);
}

/// Begins a gauge at 0, and changes none that another instance in this process has set.
#[cfg(feature = "metrics")]
pub(crate) fn begin_gauge(name: &'static str) {
    ::metrics::gauge!(name).increment(0.0);
}

/// Begins a histogram without values.
#[cfg(feature = "metrics")]
pub(crate) fn begin_histogram(name: &'static str, labels: &[(&'static str, &'static str)]) {
    let _ = ::metrics::histogram!(name, labels);
}

/// Begins a counter at 0: without this its first event would be no increase.
#[cfg(feature = "metrics")]
pub(crate) fn begin(name: &'static str, labels: &[(&'static str, &'static str)]) {
    ::metrics::counter!(name, labels).increment(0);
}
