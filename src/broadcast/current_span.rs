//! The current span, as OpenTelemetry knows it.

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::TraceParent;

impl TraceParent {
    /// Returns the current span (feature `opentelemetry`): that of `tracing`, if the subscriber has a layer of
    /// `tracing-opentelemetry`, else that of OpenTelemetry's current context. `None` if there is none.
    ///
    /// The process must use the versions of `opentelemetry` and `tracing-opentelemetry` that this crate uses.
    #[must_use]
    pub fn current() -> Option<Self> {
        let of = |context: &Context| {
            let span = context.span();
            let span = span.span_context();
            let (trace_id, span_id) = (span.trace_id().to_bytes(), span.span_id().to_bytes());
            Self::new(trace_id, span_id, span.is_sampled()).ok()
        };
        of(&tracing::Span::current().context()).or_else(|| of(&Context::current()))
    }
}
