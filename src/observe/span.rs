//! The spans: their names and fields, and their links to the spans that broadcasts come from.
//!
//! They are of the target `tower_web_push` and of level DEBUG, so that the usual filters switch them off: then making one costs
//! a comparison. Fields have no endpoint, no key, no payload and no user. Without the feature `tracing` a span is nothing, and
//! without `opentelemetry` links are nothing.

use std::fmt::Display;

use http::StatusCode;

use crate::broadcast::{BroadcastId, TraceParent};
use crate::push_service::PushService;

/// The most links of one span, as in OpenTelemetry's default limits.
#[cfg(feature = "opentelemetry")]
const LINKS: usize = 128;

/// A span, open until its last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Span(#[cfg(feature = "tracing")] ::tracing::Span);

/// Makes a span: `span!("name", "kind of OpenTelemetry", field = value)`, or one without a parent: `span!(root, ...)`.
macro_rules! span {
    (root, $($rest:tt)+) => { span!([parent: None,] $($rest)+) };
    ([$($parent:tt)*] $name:literal, $kind:literal, $($field:ident = $value:expr),+ $(,)?) => {{
        #[cfg(all(feature = "tracing", feature = "opentelemetry"))]
        let span = Span(::tracing::debug_span!(
            target: "tower_web_push", $($parent)* $name, $($field = $value,)+ otel.kind = $kind
        ));
        #[cfg(all(feature = "tracing", not(feature = "opentelemetry")))]
        let span = Span(::tracing::debug_span!(
            target: "tower_web_push", $($parent)* $name, $($field = $value),+
        ));
        #[cfg(not(feature = "tracing"))]
        let span = Span();
        span
    }};
    ($($rest:tt)+) => { span!([] $($rest)+) };
}

/// Runs a block with the feature `tracing`, and only then.
macro_rules! traced {
    (($($argument:ident),*) $($body:tt)*) => {
        #[cfg(feature = "tracing")]
        $($body)*
        #[cfg(not(feature = "tracing"))]
        let _ = ($(&$argument,)*);
    };
}

#[cfg(feature = "tracing")]
use ::tracing::field::{Empty, display};

impl Span {
    /// The acceptance of a broadcast. It is a child of the current span if that is in the trace of `parent`, else of `parent`.
    pub(crate) fn enqueue(parent: Option<&TraceParent>) -> Self {
        #[cfg(feature = "opentelemetry")]
        let current = TraceParent::current();
        let span = span!(
            "enqueue",
            "producer",
            broadcast = Empty,
            recipients = Empty,
            outcome = Empty
        );
        #[cfg(feature = "opentelemetry")]
        if let Some(parent) = parent
            && current.is_none_or(|current| current.trace_id() != parent.trace_id())
        {
            links::set_parent(&span.0, parent);
        }
        let _ = parent;
        span
    }

    /// The writing of a page of a broadcast's recipients. It is a root: what causes it is its broadcast.
    pub(crate) fn page(broadcast: BroadcastId) -> Self {
        let _ = &broadcast;
        span!(
            root,
            "expand",
            "internal",
            broadcast = display(broadcast),
            recipients = Empty,
            outcome = Empty
        )
    }

    /// A claim of rows: a root.
    pub(crate) fn claim() -> Self {
        span!(root, "claim", "client", rows = Empty, outcome = Empty)
    }

    /// An attempt for a row of a broadcast: a root. Without a broadcast, it is a child of the current span.
    pub(crate) fn attempt(
        broadcast: Option<BroadcastId>,
        push_service: PushService,
        origin: &str,
        number: u32,
    ) -> Self {
        let _ = (&push_service, origin, number);
        match broadcast {
            Some(broadcast) => {
                let _ = &broadcast;
                span!(
                    root,
                    "attempt",
                    "consumer",
                    broadcast = display(broadcast),
                    push_service = push_service.as_str(),
                    origin = origin,
                    attempt = i64::from(number),
                    status = Empty,
                    outcome = Empty
                )
            }
            None => span!(
                "attempt",
                "client",
                push_service = push_service.as_str(),
                origin = origin,
                attempt = i64::from(number),
                status = Empty,
                outcome = Empty
            ),
        }
    }

    /// The current span, for a task that is part of it.
    pub(crate) fn current() -> Self {
        #[cfg(feature = "tracing")]
        let span = Self(::tracing::Span::current());
        #[cfg(not(feature = "tracing"))]
        let span = Self();
        span
    }

    /// Runs a future in the span: entered while it is polled, and not while it waits.
    pub(crate) fn around<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        #[cfg(feature = "tracing")]
        let future = ::tracing::Instrument::instrument(future, self.0.clone());
        future
    }

    /// Links it to the spans that broadcasts come from, each once.
    pub(crate) fn link<'a>(&self, parents: impl IntoIterator<Item = &'a TraceParent>) {
        #[cfg(feature = "opentelemetry")]
        if !self.0.is_disabled() {
            let parents: std::collections::HashSet<_> = parents.into_iter().collect();
            for parent in parents.into_iter().take(LINKS) {
                links::add(&self.0, parent);
            }
        }
        #[cfg(not(feature = "opentelemetry"))]
        let _ = parents;
    }

    /// Records the broadcast.
    pub(crate) fn broadcast(&self, id: impl Display) {
        traced! { (id) self.0.record("broadcast", display(id)); }
    }

    /// Records a number of recipients.
    pub(crate) fn recipients(&self, number: u64) {
        traced! { (number) self.0.record("recipients", signed(number)); }
    }

    /// Records a number of rows.
    pub(crate) fn rows(&self, number: usize) {
        traced! { (number) self.0.record("rows", signed(number as u64)); }
    }

    /// Records the status of a response.
    pub(crate) fn status(&self, status: StatusCode) {
        traced! { (status) self.0.record("status", i64::from(status.as_u16())); }
    }

    /// Records how it ended.
    pub(crate) fn outcome(&self, outcome: &'static str) {
        traced! { (outcome) self.0.record("outcome", outcome); }
    }

    /// Records how it ended, which was not well.
    pub(crate) fn failed(&self, outcome: &'static str) {
        self.outcome(outcome);
        #[cfg(feature = "opentelemetry")]
        links::fail(&self.0);
    }
}

/// As OpenTelemetry has numbers: its layer makes texts of others.
#[cfg(feature = "tracing")]
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What `tracing-opentelemetry` does with spans.
#[cfg(feature = "opentelemetry")]
mod links {
    use opentelemetry::Context;
    use opentelemetry::trace::{
        SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    };
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    use super::TraceParent;

    fn context(parent: &TraceParent) -> SpanContext {
        SpanContext::new(
            TraceId::from_bytes(parent.trace_id()),
            SpanId::from_bytes(parent.parent_id()),
            TraceFlags::default().with_sampled(parent.is_sampled()),
            true,
            TraceState::NONE,
        )
    }

    pub(super) fn add(span: &tracing::Span, parent: &TraceParent) {
        span.add_link(context(parent));
    }

    /// Has no effect without a layer of `tracing-opentelemetry`.
    pub(super) fn set_parent(span: &tracing::Span, parent: &TraceParent) {
        let _ = span.set_parent(Context::new().with_remote_span_context(context(parent)));
    }

    pub(super) fn fail(span: &tracing::Span) {
        span.set_status(Status::error(""));
    }
}
