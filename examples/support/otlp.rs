//! Spans in the form of OTLP, as JSON: <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status};
use opentelemetry::{Key, KeyValue, Value as Attribute};
use opentelemetry_sdk::trace::SpanData;
use serde_json::{Value, json};

/// The flags of a context that say whether it is remote: that this is known, and that it is.
const IS_REMOTE_KNOWN: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// The body of a request. All spans are of one scope.
pub(crate) fn request(resource: &Value, spans: &[SpanData]) -> Value {
    let scope = spans.first().map(|span| {
        let scope = &span.instrumentation_scope;
        json!({"name": scope.name(), "version": scope.version().unwrap_or_default()})
    });
    let spans: Vec<_> = spans.iter().map(span).collect();
    json!({
        "resourceSpans": [{
            "resource": {"attributes": resource},
            "scopeSpans": [{"scope": scope, "spans": spans}],
        }],
    })
}

/// Without its events: the log has them.
fn span(span: &SpanData) -> Value {
    let context = &span.span_context;
    let parent = match span.parent_span_id {
        SpanId::INVALID => String::new(),
        parent => parent.to_string(),
    };
    let links: Vec<_> = span
        .links
        .iter()
        .map(|link| {
            let of = &link.span_context;
            json!({
                "traceId": of.trace_id().to_string(),
                "spanId": of.span_id().to_string(),
                "flags": flags(of, of.is_remote()),
            })
        })
        .collect();
    let status = match &span.status {
        Status::Unset => json!({}),
        Status::Ok => json!({"code": 1}),
        Status::Error { description } => json!({"code": 2, "message": description}),
    };
    json!({
        "traceId": context.trace_id().to_string(),
        "spanId": context.span_id().to_string(),
        "parentSpanId": parent,
        "flags": flags(context, span.parent_span_is_remote),
        "name": span.name,
        "kind": kind(&span.span_kind),
        "startTimeUnixNano": nanos(span.start_time),
        "endTimeUnixNano": nanos(span.end_time),
        "attributes": attributes(span.attributes.iter().map(|KeyValue { key, value, .. }| (key, value))),
        "droppedAttributesCount": span.dropped_attributes_count,
        "links": links,
        "droppedLinksCount": span.links.dropped_count,
        "status": status,
    })
}

pub(crate) fn attributes<'a>(pairs: impl Iterator<Item = (&'a Key, &'a Attribute)>) -> Value {
    pairs
        .map(|(key, value)| json!({"key": key.as_str(), "value": attribute(value)}))
        .collect()
}

fn attribute(value: &Attribute) -> Value {
    match value {
        Attribute::Bool(value) => json!({"boolValue": value}),
        // As all numbers of 64 bits, which JavaScript does not have.
        Attribute::I64(value) => json!({"intValue": value.to_string()}),
        Attribute::F64(value) => json!({"doubleValue": value}),
        other => json!({"stringValue": other.as_str()}),
    }
}

fn kind(kind: &SpanKind) -> u8 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

fn flags(context: &SpanContext, is_remote: bool) -> u32 {
    let remote = if is_remote { IS_REMOTE } else { 0 };
    u32::from(context.trace_flags().to_u8()) | IS_REMOTE_KNOWN | remote
}

fn nanos(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().to_string()
}
