//! Logs, spans and metrics. Without the features `tracing` and `metrics` nothing of them is compiled.

/// Logs an event (feature `tracing`): `event!(WARN, field = value, "text")`.
macro_rules! event {
    ($level:ident, $($arg:tt)+) => {{
        #[cfg(feature = "tracing")]
        ::tracing::event!(target: "tower_web_push", ::tracing::Level::$level, $($arg)+);
    }};
}

#[cfg(feature = "metrics")]
mod described;
mod folded;
mod lasting;
#[cfg(test)]
#[cfg(all(feature = "tracing", any(feature = "api", feature = "sqlite")))]
mod logged;
mod metrics;
mod span;
#[cfg(all(test, feature = "metrics"))]
mod tests;

pub(crate) use self::metrics::*;
#[cfg(feature = "metrics")]
pub(crate) use described::describe_metrics;
pub(crate) use event;
pub(crate) use folded::{Folded, Told};
pub(crate) use lasting::{Lasting, ToldOfLasting};
#[cfg(test)]
#[cfg(all(feature = "tracing", any(feature = "api", feature = "sqlite")))]
pub(crate) use logged::logged;
pub(crate) use span::Span;

/// An error and its causes in one line, since log lines do not show `source`. A cause that the error's own message
/// repeats is left out.
#[cfg(any(feature = "tracing", feature = "_engine"))]
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

#[cfg(all(test, feature = "tracing"))]
mod cause_tests {
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
