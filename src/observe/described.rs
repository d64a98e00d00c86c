//! The list of the metrics.

use ::metrics::Unit;

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

use Kind::{Counter, Gauge, Histogram};

/// Every metric: type, name, unit and description.
#[rustfmt::skip]
pub(crate) const METRICS: &[(Kind, &str, Unit, &str)] = &[
    (Counter, "web_push_attempts_total", Unit::Count, "Requests to push services, by outcome."),
    (Counter, "web_push_responses_total", Unit::Count, "Requests to push services, by the class of the response's status; `none` if there was no response."),
    (Histogram, "web_push_attempt_duration_seconds", Unit::Seconds, "Duration of requests to push services, with the wait for a permit of the origin."),
    (Histogram, "web_push_delivery_duration_seconds", Unit::Seconds, "Time from when a message was due (accepted, or its sendAt) until the push service accepted it for a recipient."),
    (Counter, "web_push_finished_total", Unit::Count, "Recipients that are finished, by final outcome; those of a broadcast that expires before they are written count in its status only."),
    (Counter, "web_push_settlements_lost_total", Unit::Count, "Outcomes that were not written, since another process had claimed the row: its message may have been sent twice. Those of deleted subscriptions are left out."),
    (Counter, "web_push_retired_total", Unit::Count, "Subscriptions that were retired, by reason; `stale`: no VAPID key fits."),
    (Counter, "web_push_purged_total", Unit::Count, "Rows that were deleted after their retention. Subscriptions count once more when they expire."),
    (Counter, "web_push_key_rotations_total", Unit::Count, "VAPID keys made by this process after the first one."),
    (Counter, "web_push_daily_total", Unit::Count, "Daily notifications that were fired, or skipped because they were too late."),
    (Gauge, "web_push_daily_skipped_timestamp_seconds", Unit::Seconds, "When this process last skipped daily notifications, since the Unix epoch; 0 before the first time."),
    (Counter, "web_push_outbox_total", Unit::Count, "Entries of the outbox: `opened`, or `refused` and kept until they are retried or dropped."),
    (Counter, "web_push_unreadable_total", Unit::Count, "Rows that the store could not read, each time they were left out; a number of a day once, until it is repaired."),
    (Counter, "web_push_store_errors_total", Unit::Count, "Calls of the store that failed, by kind; `dropped`: their time was over, or their caller was gone."),
    (Histogram, "web_push_store_call_duration_seconds", Unit::Seconds, "Duration of calls of the store, by operation."),
    (Counter, "web_push_api_requests_total", Unit::Count, "Requests to the HTTP API, by route, status and code of the problem; `aborted`: the client closed the connection before the answer."),
    (Histogram, "web_push_api_request_duration_seconds", Unit::Seconds, "Duration of requests to the HTTP API, with the time that a request asked to wait (Prefer: wait)."),
    (Counter, "web_push_admin_refused_total", Unit::Count, "Refused requests to administrators' routes, by reason."),
    (Gauge, "web_push_in_flight", Unit::Count, "Attempts of the workers of this process that are under way."),
    (Gauge, "web_push_requests_in_flight", Unit::Count, "Requests without a response, by push service."),
    (Gauge, "web_push_requests_limit", Unit::Count, "The most requests in flight that the push service takes, as found out from its responses: the sum over its origins."),
    (Gauge, "web_push_gates_closed", Unit::Count, "Origins that get no requests for now, by push service and reason."),
    (Gauge, "web_push_pruning_suspended", Unit::Count, "Origins whose subscriptions are not retired, since an unusual share of responses says that they are gone."),
    (Gauge, "web_push_store_up", Unit::Count, "1 if the store answers and the worker's last claim, settlement and write succeeded, else 0."),
    (Gauge, "web_push_worker_running", Unit::Count, "1 if a worker runs in this process, else 0."),
    (Gauge, "web_push_last_claim_timestamp_seconds", Unit::Seconds, "When due rows were last claimed or there were none, since the Unix epoch; 0 before the first time, NaN without a worker."),
    (Gauge, "web_push_poll_interval_seconds", Unit::Seconds, "The longest pause between two claims while nothing is known to be due."),
    (Gauge, "web_push_step_failing", Unit::Count, "1 for a step of the worker that fails, else 0."),
    (Gauge, "web_push_clock_fault", Unit::Count, "1 if this machine's clock disagrees with its monotonic clock or the store's, so that nothing is delivered; else 0."),
    (Gauge, "web_push_parked_broadcasts", Unit::Count, "Broadcasts that cannot be read or expanded, and are retried slowly."),
    (Gauge, "web_push_unreadable_rows", Unit::Count, "Messages that wait because the store cannot read their subscription."),
    (Gauge, "web_push_ledger_rows", Unit::Count, "Recipients that messages wait for, leased ones included."),
    (Gauge, "web_push_ledger_leased", Unit::Count, "Recipients that a worker has claimed."),
    (Gauge, "web_push_oldest_due_age_seconds", Unit::Seconds, "How long the oldest due row has been waiting, by push service, behind a closed gate too; 0 if none is due."),
    (Gauge, "web_push_subscriptions", Unit::Count, "Subscriptions, by state."),
    (Gauge, "web_push_live_subscriptions", Unit::Count, "Live subscriptions, by push service."),
    (Gauge, "web_push_missing_keys", Unit::Count, "VAPID keys that subscriptions name and the server does not have."),
    (Gauge, "web_push_build_info", Unit::Count, "1; the version is a label."),
];

/// Describes every metric to the recorder of the process.
pub(crate) fn describe_metrics() {
    for &(kind, name, unit, help) in METRICS {
        match kind {
            Counter => ::metrics::describe_counter!(name, unit, help),
            Gauge => ::metrics::describe_gauge!(name, unit, help),
            Histogram => ::metrics::describe_histogram!(name, unit, help),
        }
    }
}
