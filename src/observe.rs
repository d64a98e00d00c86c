//! Logs and metrics. Without the features `tracing` and `metrics` nothing of them is compiled.

/// Logs an event (feature `tracing`): `event!(WARN, field = value, "text")`.
macro_rules! event {
    ($level:ident, $($arg:tt)+) => {{
        #[cfg(feature = "tracing")]
        ::tracing::event!(target: "tower_web_push", ::tracing::Level::$level, $($arg)+);
    }};
}

pub(crate) use event;

/// An error and its causes in one line, since log lines do not show `source`. A cause that the error's own message
/// repeats is left out.
#[cfg(feature = "tracing")]
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

use crate::push_service::PushService;

/// Counts one attempt (feature `metrics`): `web_push_attempts_total{push_service, outcome}`.
pub(crate) fn count_attempt(push_service: PushService, outcome: &'static str) {
    #[cfg(feature = "metrics")]
    ::metrics::counter!(
        "web_push_attempts_total",
        "push_service" => push_service.as_str(),
        "outcome" => outcome,
    )
    .increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = (push_service, outcome);
}

/// Counts recipients by outcome (feature `metrics`): `web_push_finished_total{outcome}`.
pub(crate) fn count_finished(outcome: &'static str) {
    #[cfg(feature = "metrics")]
    ::metrics::counter!("web_push_finished_total", "outcome" => outcome).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = outcome;
}

/// Sets the number of attempts in flight (feature `metrics`): `web_push_in_flight`.
pub(crate) fn show_in_flight(attempts: usize) {
    #[cfg(feature = "metrics")]
    #[expect(clippy::cast_precision_loss, reason = "at most a few thousand")]
    ::metrics::gauge!("web_push_in_flight").set(attempts as f64);
    #[cfg(not(feature = "metrics"))]
    let _ = attempts;
}

/// Counts daily notifications (feature `metrics`): `web_push_daily_total{what}`, `fired` or `skipped`.
pub(crate) fn count_daily(fired: u64, skipped: u64) {
    #[cfg(feature = "metrics")]
    {
        ::metrics::counter!("web_push_daily_total", "what" => "fired").increment(fired);
        ::metrics::counter!("web_push_daily_total", "what" => "skipped").increment(skipped);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (fired, skipped);
}

/// Counts an entry of the outbox (feature `metrics`): `web_push_outbox_total{what}`, `opened` or `refused`.
pub(crate) fn count_outbox(what: &'static str) {
    #[cfg(feature = "metrics")]
    ::metrics::counter!("web_push_outbox_total", "what" => what).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = what;
}

/// Counts rows that a store could not read and left out, each time (feature `metrics`):
/// `web_push_unreadable_total{what}`, `subscriptions` or `schedules`.
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
pub(crate) fn count_unreadable(what: &'static str, rows: u64) {
    #[cfg(feature = "metrics")]
    ::metrics::counter!("web_push_unreadable_total", "what" => what).increment(rows);
    #[cfg(not(feature = "metrics"))]
    let _ = (what, rows);
}

#[cfg(all(test, feature = "tracing"))]
mod tests {
    use std::error::Error;
    use std::fmt;

    #[derive(Debug)]
    struct Failed(&'static str, Option<Box<Self>>);

    impl fmt::Display for Failed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Failed {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    #[test]
    fn a_log_line_names_every_cause() {
        let refused = Failed("connection refused", None);
        let store = Failed("the store is unavailable", Some(Box::new(refused)));
        let error = Failed("the key store failed", Some(Box::new(store)));
        assert_eq!(
            super::causes(&error),
            "the key store failed: the store is unavailable: connection refused"
        );
    }
}
