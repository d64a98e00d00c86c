//! Spans of a server, as a collector of OpenTelemetry gets them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use super::world::{TOKEN, World, next, notify, subscription};

/// Generous: a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const USER: &str = "carol.jones@mail.example";
const TEXT: &str = "A text for nobody else";

/// A collector on a real socket, and what it has got.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(HeaderMap, Value)>>>);

impl Collector {
    /// Returns it with the address for the setting.
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let take = async |State(of): State<Self>, headers: HeaderMap, Json(body): Json<Value>| {
            of.0.lock().unwrap().push((headers, body));
            Json(json!({}))
        };
        let app = Router::new().route("/otlp/v1/traces", post(take));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/otlp/", listener.local_addr().unwrap());
        let app = app.with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (collector, address)
    }

    fn requests(&self) -> Vec<(HeaderMap, Value)> {
        self.0.lock().unwrap().clone()
    }

    fn spans(&self) -> Vec<Value> {
        let of = |value: &Value, name: &str| value[name].as_array().unwrap().clone();
        let requests = self.requests().into_iter();
        let resources = requests.flat_map(|(_, body)| of(&body, "resourceSpans"));
        let scopes = resources.flat_map(|resource| of(&resource, "scopeSpans"));
        scopes.flat_map(|scope| of(&scope, "spans")).collect()
    }

    /// Waits for a span of this name, of this trace or with a link into it.
    async fn span(&self, name: &str) -> Value {
        let found = async {
            loop {
                let spans = self.spans().into_iter();
                let mut named = spans.filter(|span| span["name"] == name);
                if let Some(span) = named.find(|span| span.to_string().contains(TRACE)) {
                    return span;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        let found = timeout(LIMIT, found).await;
        found.unwrap_or_else(|_| panic!("no {name}: {:?}", self.requests()))
    }
}

fn field<'a>(span: &'a Value, name: &str) -> &'a Value {
    let fields = span["attributes"].as_array().unwrap();
    let found = fields.iter().find(|field| field["key"] == name);
    &found.unwrap_or_else(|| panic!("{name}: {span}"))["value"]
}

pub(crate) async fn they_link_to_the_span_given_at_notify(name: &str) {
    let world = World::new().await;
    let (collector, address) = Collector::start().await;
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", address.as_str()),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "x-tenant=a%20b,authorization=Bearer%20k",
        ),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        // The filter of the log is not that of the spans.
        ("RUST_LOG", "error"),
        ("PRINCIPAL_HEADER", "remote-user"),
        ("TRUSTED_PROXIES", "1"),
    ];
    let (server, client) = world.start(name, &settings).await;
    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({})).await;
    let subscribe = client.call(Method::POST, "/web-push/subscribe");
    let subscribe = subscribe.header("remote-user", USER);
    let subscribed = subscribe.header("x-forwarded-for", "192.0.2.1").json(&body);
    assert_eq!(subscribed.send().await.status, StatusCode::OK);
    let call = client.call(Method::POST, "/web-push/notify").bearer(TOKEN);
    let call = call.header("traceparent", &format!("00-{TRACE}-{SPAN}-01"));
    let queued = call.json(&json!({"title": TEXT})).send().await.json();
    let id = queued["broadcast"].as_str().unwrap();
    next(&browser).await;

    let link = json!({"traceId": TRACE, "spanId": SPAN, "flags": 0x301});
    let attempt = collector.span("attempt").await;
    assert_eq!(attempt["links"], json!([link]));
    assert_ne!(attempt["traceId"], TRACE);
    assert_eq!(attempt["parentSpanId"], "");
    assert_eq!(attempt["kind"], 5);
    assert_eq!(attempt["status"], json!({}));
    assert_eq!(field(&attempt, "broadcast"), &json!({"stringValue": id}));
    assert_eq!(field(&attempt, "status"), &json!({"intValue": "201"}));
    assert_eq!(
        field(&attempt, "outcome"),
        &json!({"stringValue": "accepted"})
    );
    let nanos = |name: &str| attempt[name].as_str().unwrap().parse::<u128>().unwrap();
    let (began, ended) = (nanos("startTimeUnixNano"), nanos("endTimeUnixNano"));
    assert!(1_700_000_000_000_000_000 < began && began < ended);
    for page_or_claim in ["expand", "claim"] {
        let span = collector.span(page_or_claim).await;
        assert_eq!(span["links"], json!([link]), "{span}");
    }
    let enqueue = collector.span("enqueue").await;
    assert_eq!(enqueue["traceId"], TRACE);
    assert_eq!(enqueue["parentSpanId"], SPAN);
    assert_eq!(enqueue["kind"], 4);

    // What is left is sent at the end.
    let printed = server.terminate_and_read().await;
    assert!(!printed.contains("spans"), "{printed}");
    let requests = collector.requests();
    for (headers, body) in &requests {
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["x-tenant"], "a b");
        assert_eq!(headers["authorization"], "Bearer k");
        let of = &body["resourceSpans"][0];
        assert_eq!(
            field(&of["resource"], "service.name"),
            &json!({"stringValue": "web-push"})
        );
        assert_eq!(of["scopeSpans"][0]["scope"]["name"], "tower-web-push");
    }
    let all = format!("{requests:?}");
    let endpoint = body["endpoint"].as_str().unwrap();
    let path = endpoint.rsplit_once('/').unwrap().1;
    let auth = body["keys"]["auth"].as_str().unwrap();
    for secret in [USER, TEXT, TOKEN, path, auth] {
        assert!(!all.contains(secret), "{secret}");
    }
}

pub(crate) async fn a_collector_out_of_reach_costs_one_line(name: &str) {
    let world = World::new().await;
    let settings = [
        // A port that no program listens at.
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ];
    let (server, client) = world.start(name, &settings).await;
    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({})).await;
    let subscribed = client.post("/web-push/subscribe", &body).await;
    assert_eq!(subscribed.status, StatusCode::OK);
    for _ in 0..3 {
        notify(&client, "/web-push/notify", &json!({"title": TEXT})).await;
        next(&browser).await;
    }
    let told = async {
        while !server.printed().contains("spans were not exported") {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, told).await.expect("the log does not tell");
    let printed = server.terminate_and_read().await;
    let lines = printed.matches("spans were not exported").count();
    assert_eq!(lines, 1, "{printed}");
}
