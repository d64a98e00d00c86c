//! Exports spans to a collector of OpenTelemetry: OTLP over HTTP, as JSON.
//!
//! The exporter is written here: the collector gets it through the HTTP client and the TLS that the server has anyway.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::{Layer, layer::Filter};

use super::causes::with_causes;
use super::{BoxError, otlp};

/// The path of a collector's route for spans.
const PATH: &str = "/v1/traces";
/// OpenTelemetry's default for an exporter.
const LONGEST_REQUEST: Duration = Duration::from_secs(10);
/// The longest wait for the last spans, at the end of the process.
const LONGEST_END: Duration = Duration::from_secs(3);
/// The longest answer that is read.
const LONGEST_ANSWER: usize = 64 * 1024;
/// The pause between two lines of the log about a collector that does not take spans.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// The name of the service, where neither OTEL_SERVICE_NAME nor OTEL_RESOURCE_ATTRIBUTES have one.
const SERVICE: &str = "web-push";

/// Where spans go to.
pub(crate) struct Collector {
    uri: Uri,
    headers: HeaderMap,
}

/// What ends the export.
pub(crate) struct Spans(SdkTracerProvider);

/// A layer of the subscriber.
pub(crate) type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

impl Collector {
    /// Parses the address of a collector, to which the path of the route is added.
    ///
    /// # Errors
    ///
    /// Returns an error that does not repeat the address: it may have a password in it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "not an address as http://127.0.0.1:4318".to_owned();
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let is_http = [Scheme::HTTP, Scheme::HTTPS]
            .iter()
            .any(|scheme| uri.scheme() == Some(scheme));
        if !is_http || uri.query().is_some() {
            return Err(wrong());
        }
        if uri.authority().is_some_and(|at| at.as_str().contains('@')) {
            return Err("credentials belong into OTEL_EXPORTER_OTLP_HEADERS".to_owned());
        }
        let path = format!("{}{PATH}", uri.path().trim_end_matches('/'));
        let mut parts = uri.into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(path).map_err(|_| wrong())?);
        Ok(Self {
            uri: Uri::from_parts(parts).map_err(|_| wrong())?,
            headers: HeaderMap::new(),
        })
    }

    /// Sets the headers of its requests: a comma list of `name=value`, with values in percent-encoding.
    ///
    /// # Errors
    ///
    /// Returns an error that does not repeat them.
    pub(crate) fn with_headers(mut self, text: &str) -> Result<Self, String> {
        for (number, pair) in (1..).zip(text.split(',')) {
            let wrong =
                || format!("header {number} is not name=value, with other characters as %XX");
            let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
            let name = HeaderName::try_from(name.trim()).map_err(|_| wrong())?;
            let value = decoded(value.trim()).ok_or_else(wrong)?;
            let mut value = HeaderValue::try_from(value).map_err(|_| wrong())?;
            value.set_sensitive(true);
            self.headers.append(name, value);
        }
        Ok(self)
    }

    /// Starts the export, and returns the layer that collects the spans. Call it in the runtime that sends them.
    ///
    /// # Errors
    ///
    /// Returns an error if a certificate of the file of `EXTRA_ROOT_CA` is wrong.
    pub(crate) fn start(
        self,
        extra_root_ca_pem: Option<&[u8]>,
    ) -> Result<(SpanLayer, Spans), BoxError> {
        let exporter = Exporter {
            client: Client::builder(TokioExecutor::new()).build(connector(extra_root_ca_pem)?),
            runtime: Handle::current(),
            to: self,
            resource: Value::Null,
            failures: Arc::default(),
        };
        let provider = SdkTracerProvider::builder()
            .with_resource(resource())
            .with_batch_exporter(exporter)
            .build();
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("tower-web-push"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(ours());
        Ok((Box::new(layer), Spans(provider)))
    }
}

impl Spans {
    /// Sends what is left, for a few seconds at most.
    pub(crate) async fn end(self) {
        // It waits for a thread that waits for this runtime.
        // The log knows of a failure already.
        let _ = spawn_blocking(move || self.0.shutdown_with_timeout(LONGEST_END)).await;
    }
}

/// The spans of broadcasts, pages, claims and attempts, without events: whatever the log's filter is. The span of a request
/// is the log's.
fn ours<S>() -> impl Filter<S> {
    filter_fn(|of| {
        of.is_span() && of.target() == "tower_web_push" && *of.level() == tracing::Level::DEBUG
    })
    .with_max_level_hint(LevelFilter::DEBUG)
}

/// What the environment says of this process.
fn resource() -> Resource {
    let name = Key::from_static_str("service.name");
    let resource = Resource::builder().build();
    match resource.get(&name) {
        Some(name) if !name.as_str().starts_with("unknown_service") => resource,
        _ => Resource::builder()
            .with_attribute(KeyValue::new(name, SERVICE))
            .build(),
    }
}

/// Connects as the client of the push services does, to any address.
fn connector(extra_root_ca_pem: Option<&[u8]>) -> Result<HttpsConnector<HttpConnector>, BoxError> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    for certificate in CertificateDer::pem_slice_iter(extra_root_ca_pem.unwrap_or_default()) {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(config);
    Ok(connector.https_or_http().enable_http1().build())
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut octets = text.bytes();
    let mut decoded = Vec::new();
    while let Some(octet) = octets.next() {
        decoded.push(match octet {
            b'%' => {
                let digits = [octets.next()?, octets.next()?];
                u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    Some(decoded)
}

/// Sends spans, in batches that the SDK makes in a thread of its own.
struct Exporter {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    to: Collector,
    /// The attributes of this process.
    resource: Value,
    failures: Arc<Failures>,
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

impl Exporter {
    fn request(&self, spans: &[SpanData]) -> Result<Request<Full<Bytes>>, http::Error> {
        let body = otlp::request(&self.resource, spans).to_string();
        let mut request = Request::post(self.to.uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body))?;
        request.headers_mut().extend(self.to.headers.clone());
        Ok(request)
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (client, failures) = (self.client.clone(), Arc::clone(&self.failures));
        let request = self.request(&batch);
        let spans = batch.len();
        let sending = async move {
            let answer = client.request(request?).await?;
            let status = answer.status();
            // Read to its end, so that the connection can be used again.
            Limited::new(answer.into_body(), LONGEST_ANSWER)
                .collect()
                .await?;
            if status.is_success() {
                Ok::<_, BoxError>(())
            } else {
                Err(format!("the collector answered {status}").into())
            }
        };
        // The thread of the SDK has no runtime, and a timer begins in one.
        let sending = async move { timeout(LONGEST_REQUEST, sending).await };
        let sent = self.runtime.spawn(sending).await;
        let error = match sent {
            Ok(Ok(Ok(()))) => return Ok(()),
            Ok(Ok(Err(error))) => with_causes(&*error),
            Ok(Err(elapsed)) => elapsed.to_string(),
            Err(error) => error.to_string(),
        };
        failures.tell(spans, &error);
        Err(OTelSdkError::InternalFailure(error))
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = otlp::attributes(resource.iter());
    }
}

/// Spans that were not taken. The first are told at once, and others once a minute.
#[derive(Default)]
struct Failures(Mutex<(Option<Instant>, usize)>);

impl Failures {
    fn tell(&self, spans: usize, error: &str) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, untold) = &mut *state;
        *untold += spans;
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            let spans = std::mem::take(untold);
            tracing::warn!(error, spans, "spans were not exported");
        }
    }
}
