//! `/metrics`: the crate's metrics and the process's, in the text format of Prometheus.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SetRecorderError,
    SharedString, Unit,
};

/// The upper bounds of a histogram's buckets, in seconds: from a call of a local store to a message that waits for hours.
const BUCKETS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0,
    3600.0,
];

/// Every metric since the start. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Metrics(Arc<Registry>);

#[derive(Default)]
struct Registry {
    values: RwLock<HashMap<Key, Value>>,
    described: Mutex<HashMap<String, (&'static str, SharedString)>>,
}

#[derive(Clone)]
enum Value {
    Counter(Arc<AtomicU64>),
    /// The bits of an `f64`.
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Distribution>),
}

/// The values of a histogram: the number in each bucket and above the last, and their sum as the bits of an `f64`.
#[derive(Default)]
pub(crate) struct Distribution {
    counts: [AtomicU64; BUCKETS.len() + 1],
    sum: AtomicU64,
}

impl HistogramFn for Distribution {
    fn record(&self, value: f64) {
        let bucket = BUCKETS.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let plus = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // Cannot fail: the closure always returns a value.
        let _ = self
            .sum
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, plus);
    }
}

impl Metrics {
    /// Installs the recorder for this process.
    pub(crate) fn install() -> Result<Self, SetRecorderError<Self>> {
        let metrics = Self::default();
        metrics::set_global_recorder(metrics.clone())?;
        Ok(metrics)
    }

    /// Prometheus' text format 0.0.4: in the order of names and labels, and with the type of each metric that is described,
    /// also before it has a value.
    pub(crate) fn print(&self) -> String {
        let described = self.0.described.lock();
        let described = described.unwrap_or_else(PoisonError::into_inner).clone();
        let values = self.0.values.read();
        let values = values.unwrap_or_else(PoisonError::into_inner);
        let mut series: Vec<_> = values
            .iter()
            .map(|(key, value)| (key.name(), labels(key), value))
            .collect();
        series.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        let mut names: Vec<_> = series.iter().map(|(name, ..)| *name).collect();
        names.extend(described.keys().map(String::as_str));
        names.sort_unstable();
        names.dedup();
        let mut text = String::new();
        for name in names {
            let of_it = series.iter().filter(|(other, ..)| *other == name);
            let kind = match (of_it.clone().next(), described.get(name)) {
                (Some((.., value)), _) => value.kind(),
                (None, Some((kind, _))) => kind,
                (None, None) => continue,
            };
            if let Some((_, help)) = described.get(name) {
                let help = help.replace('\\', "\\\\").replace('\n', "\\n");
                let _ = writeln!(text, "# HELP {name} {help}");
            }
            let _ = writeln!(text, "# TYPE {name} {kind}");
            for (_, labels, value) in of_it {
                value.print(&mut text, name, labels);
            }
        }
        text
    }

    fn register(&self, key: &Key, new: impl FnOnce() -> Value) -> Value {
        let values = self.0.values.read();
        if let Some(value) = values.unwrap_or_else(PoisonError::into_inner).get(key) {
            return value.clone();
        }
        let values = self.0.values.write();
        let mut values = values.unwrap_or_else(PoisonError::into_inner);
        values.entry(key.clone()).or_insert_with(new).clone()
    }

    fn describe(&self, kind: &'static str, name: &KeyName, help: SharedString) {
        let described = self.0.described.lock();
        let mut described = described.unwrap_or_else(PoisonError::into_inner);
        described.insert(name.as_str().to_owned(), (kind, help));
    }
}

impl Value {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }

    fn print(&self, text: &mut String, name: &str, labels: &str) {
        let braced = |labels: &str| match labels {
            "" => String::new(),
            labels => format!("{{{labels}}}"),
        };
        match self {
            Self::Counter(count) => {
                let count = count.load(Ordering::Relaxed);
                let _ = writeln!(text, "{name}{} {count}", braced(labels));
            }
            Self::Gauge(bits) => {
                let value = f64::from_bits(bits.load(Ordering::Relaxed));
                let _ = writeln!(text, "{name}{} {value}", braced(labels));
            }
            Self::Histogram(values) => {
                let mut below = 0;
                let bounds = BUCKETS
                    .iter()
                    .map(f64::to_string)
                    .chain(["+Inf".to_owned()]);
                for (bound, count) in bounds.zip(&values.counts) {
                    below += count.load(Ordering::Relaxed);
                    let comma = if labels.is_empty() { "" } else { "," };
                    let _ = writeln!(
                        text,
                        "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}"
                    );
                }
                let sum = f64::from_bits(values.sum.load(Ordering::Relaxed));
                let _ = writeln!(text, "{name}_sum{} {sum}", braced(labels));
                let _ = writeln!(text, "{name}_count{} {below}", braced(labels));
            }
        }
    }
}

impl Recorder for Metrics {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe("counter", &name, help);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe("gauge", &name, help);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe("histogram", &name, help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.register(key, || Value::Counter(Arc::default())) {
            Value::Counter(count) => Counter::from_arc(count),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.register(key, || Value::Gauge(Arc::default())) {
            Value::Gauge(value) => Gauge::from_arc(value),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.register(key, || Value::Histogram(Arc::default())) {
            Value::Histogram(values) => Histogram::from_arc(values),
            _ => Histogram::noop(),
        }
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
    labels.join(",")
}
