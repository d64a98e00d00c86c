//! `/metrics`: the crate's metrics and the depth of the queue, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Full};
use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SetRecorderError, SharedString,
    Unit, gauge,
};
use serde_json::Value;
use tower::ServiceExt as _;
use tower_web_push::api::WebPushService;

use super::page::plain;

/// Every counter and gauge since the start. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Metrics(Arc<Mutex<BTreeMap<Name, Metric>>>);

/// A metric's name, and its labels as they are printed.
type Name = (String, String);

enum Metric {
    Counter(Arc<AtomicU64>),
    /// The bits of an `f64`.
    Gauge(Arc<AtomicU64>),
}

impl Metrics {
    /// Installs the recorder for this process.
    pub(crate) fn install() -> Result<Self, SetRecorderError<Self>> {
        let metrics = Self::default();
        metrics::set_global_recorder(metrics.clone())?;
        Ok(metrics)
    }

    /// Answers requests that may read `/stats`: the same credentials, refusals and limits per address.
    pub(crate) async fn answer(
        &self,
        api: WebPushService,
        mut head: Parts,
    ) -> Response<Full<Bytes>> {
        head.uri = Uri::from_static("/stats");
        let request = Request::from_parts(head, Empty::<Bytes>::new());
        let (head, body) = match api.oneshot(request).await {
            Ok(response) => response.into_parts(),
            Err(never) => match never {},
        };
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(never) => match never {},
        };
        if head.status != StatusCode::OK {
            return Response::from_parts(head, Full::new(body));
        }
        show(&serde_json::from_slice(&body).unwrap_or_default());
        let mut response = plain(StatusCode::OK, self.print());
        let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, format);
        response
    }

    /// Prometheus' text format 0.0.4.
    fn print(&self) -> String {
        let metrics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        let mut last = "";
        for ((name, labels), metric) in &*metrics {
            let (kind, value) = match metric {
                Metric::Counter(count) => ("counter", count.load(Ordering::Relaxed).to_string()),
                Metric::Gauge(bits) => {
                    let value = f64::from_bits(bits.load(Ordering::Relaxed));
                    ("gauge", value.to_string())
                }
            };
            if name != last {
                let _ = writeln!(text, "# TYPE {name} {kind}");
                last = name;
            }
            let _ = writeln!(text, "{name}{labels} {value}");
        }
        text
    }

    fn register(&self, key: &Key, new: impl FnOnce(Arc<AtomicU64>) -> Metric) -> Arc<AtomicU64> {
        let mut metrics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let metric = metrics
            .entry((key.name().to_owned(), labels(key)))
            .or_insert_with(|| new(Arc::default()));
        match metric {
            Metric::Counter(value) | Metric::Gauge(value) => Arc::clone(value),
        }
    }
}

impl Recorder for Metrics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.register(key, Metric::Counter))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.register(key, Metric::Gauge))
    }

    /// The crate has no histograms.
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn labels(key: &Key) -> String {
    let labels: Vec<_> = key
        .labels()
        .map(|label| {
            let value = label.value().replace('\\', "\\\\").replace('"', "\\\"");
            format!("{}=\"{}\"", label.key(), value.replace('\n', "\\n"))
        })
        .collect();
    match labels.join(",") {
        none if none.is_empty() => none,
        some => format!("{{{some}}}"),
    }
}

/// Sets the gauges that are read from `/stats`.
fn show(stats: &Value) {
    let number = |path: &str| stats.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
    for state in ["live", "stale", "retired"] {
        let count = number(&format!("/subscriptions/{state}"));
        gauge!("web_push_subscriptions", "state" => state).set(count);
    }
    gauge!("web_push_ledger_rows").set(number("/ledger/depth"));
    gauge!("web_push_ledger_leased").set(number("/ledger/leased"));
    let gates = stats["gates"].as_array().map_or(0, Vec::len);
    gauge!("web_push_gates_closed").set(u32::try_from(gates).unwrap_or(u32::MAX));
}
