//! Spans, and their links to the span that enqueued.

use std::sync::{Arc, Mutex};

use opentelemetry::trace::{SpanKind, Status, TracerProvider as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tower_web_push::Broadcast;
use tower_web_push::broadcast::{OutboxDialect, TraceParent};
use tracing::Instrument as _;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;

use super::world::*;

/// The spans that ended.
#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Spans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl Spans {
    /// Collects the spans of this thread, up to a level.
    fn collect(level: LevelFilter) -> (Self, DefaultGuard) {
        let spans = Self::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(spans.clone())
            .build();
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("test"))
            .with_filter(level);
        let subscriber = tracing_subscriber::registry().with(layer);
        (spans, tracing::subscriber::set_default(subscriber))
    }

    fn named(&self, name: &str) -> Vec<SpanData> {
        let spans = self.0.lock().unwrap();
        let named = spans.iter().filter(|span| span.name == name);
        named.cloned().collect()
    }

    fn only(&self, name: &str) -> SpanData {
        let [span] = <[SpanData; 1]>::try_from(self.named(name)).unwrap();
        span
    }
}

fn field(span: &SpanData, name: &str) -> Option<String> {
    let found = span
        .attributes
        .iter()
        .find(|pair| pair.key.as_str() == name);
    found.map(|pair| pair.value.as_str().into_owned())
}

/// The span that a context names, with its flag.
fn parent(span: &SpanData) -> TraceParent {
    let of = &span.span_context;
    let (trace_id, span_id) = (of.trace_id().to_bytes(), of.span_id().to_bytes());
    TraceParent::new(trace_id, span_id, of.is_sampled()).unwrap()
}

/// The spans that a span links to.
fn links(span: &SpanData) -> Vec<TraceParent> {
    let links = span.links.iter().map(|link| {
        let of = &link.span_context;
        assert!(of.is_remote());
        let (trace_id, span_id) = (of.trace_id().to_bytes(), of.span_id().to_bytes());
        TraceParent::new(trace_id, span_id, of.is_sampled()).unwrap()
    });
    links.collect()
}

fn is_root(span: &SpanData) -> bool {
    span.parent_span_id.to_bytes() == [0; 8]
}

fn given(is_sampled: bool) -> TraceParent {
    TraceParent::new([0xab; 16], [0xcd; 8], is_sampled).unwrap()
}

fn to_all() -> Broadcast {
    Broadcast::to(Audience::All, Message::new("a-payload"))
}

#[tokio::test]
async fn a_broadcast_its_pages_claims_and_attempts_have_spans_that_link_to_what_enqueued() {
    let world = World::at(FCM).await;
    let browsers = world.subscribers(2).await;
    let gone = browsers[1].1.subscription.endpoint();
    world
        .service
        .script(When::endpoint(gone), Answer::status(StatusCode::GONE));
    let (spans, _guard) = Spans::collect(LevelFilter::DEBUG);
    let parent = given(true);
    let queued = world.push.enqueue_broadcast(to_all().trace_parent(parent));
    let id = queued.await.unwrap().broadcast.to_string();
    world.settle().await;

    let enqueue = spans.only("enqueue");
    assert_eq!(enqueue.span_kind, SpanKind::Producer);
    assert_eq!(
        enqueue.span_context.trace_id().to_bytes(),
        parent.trace_id()
    );
    assert_eq!(enqueue.parent_span_id.to_bytes(), parent.parent_id());
    assert_eq!(field(&enqueue, "broadcast"), Some(id.clone()));
    assert_eq!(field(&enqueue, "recipients").as_deref(), Some("2"));
    assert_eq!(field(&enqueue, "outcome").as_deref(), Some("queued"));

    let page = spans.only("expand");
    assert!(is_root(&page));
    assert_eq!(links(&page), [parent]);
    assert_eq!(field(&page, "broadcast"), Some(id.clone()));
    assert_eq!(field(&page, "recipients").as_deref(), Some("2"));
    assert_eq!(field(&page, "outcome").as_deref(), Some("stored"));

    for claim in spans.named("claim") {
        assert!(is_root(&claim));
        assert_eq!(claim.span_kind, SpanKind::Client);
        assert_eq!(field(&claim, "outcome").as_deref(), Some("claimed"));
        match field(&claim, "rows").as_deref() {
            Some("0") => assert_eq!(links(&claim), []),
            rows => {
                assert_eq!(rows, Some("2"));
                assert_eq!(links(&claim), [parent]);
            }
        }
    }

    let attempts = spans.named("attempt");
    let mut ends = Vec::new();
    for attempt in &attempts {
        assert!(is_root(attempt));
        assert_eq!(attempt.span_kind, SpanKind::Consumer);
        assert_eq!(links(attempt), [parent]);
        assert_eq!(field(attempt, "broadcast"), Some(id.clone()));
        assert_eq!(field(attempt, "push_service").as_deref(), Some("fcm"));
        assert_eq!(field(attempt, "origin").as_deref(), Some(FCM));
        assert_eq!(field(attempt, "attempt").as_deref(), Some("1"));
        let is_error = matches!(attempt.status, Status::Error { .. });
        ends.push((
            field(attempt, "status").unwrap(),
            field(attempt, "outcome").unwrap(),
            is_error,
        ));
    }
    ends.sort();
    let (accepted, gone) = (("201", "accepted", false), ("410", "gone", true));
    let expected = [accepted, gone];
    assert_eq!(
        ends,
        expected.map(|(status, outcome, is_error)| (
            status.to_owned(),
            outcome.to_owned(),
            is_error
        ))
    );

    // No field is secret.
    let all = format!("{:?}", spans.0.lock().unwrap());
    for (_, row) in &browsers {
        let endpoint = row.subscription.endpoint().as_str();
        let (_, path) = endpoint.rsplit_once('/').unwrap();
        let auth = row.subscription.auth().secret_to_base64url();
        for secret in [path, auth.as_str(), "a-payload"] {
            assert!(!all.contains(secret), "{secret}");
        }
    }
}

#[tokio::test]
async fn without_a_given_one_it_is_the_current_span() {
    let world = World::at(FCM).await;
    world.subscribers(1).await;
    let (spans, _guard) = Spans::collect(LevelFilter::DEBUG);
    let order = tracing::info_span!("order");
    let (queued, statement) = async {
        let statement = to_all().outbox_statement(OutboxDialect::SQLITE);
        (world.push.enqueue_broadcast(to_all()).await, statement)
    }
    .instrument(order.clone())
    .await;
    queued.unwrap();
    drop(order);
    world.settle().await;
    let (order, enqueue) = (spans.only("order"), spans.only("enqueue"));
    assert_eq!(enqueue.parent_span_id, order.span_context.span_id());
    assert_eq!(links(&spans.only("attempt")), [parent(&enqueue)]);
    // In the application's own transaction there is no span but its own.
    let opts: serde_json::Value = serde_json::from_str(&statement.parameters[2]).unwrap();
    assert_eq!(opts["traceparent"], parent(&order).to_string());
}

/// The application has extracted the header already: what it made of it stays the parent.
#[tokio::test]
async fn a_span_of_the_same_trace_stays_the_parent() {
    let world = World::at(FCM).await;
    let (spans, _guard) = Spans::collect(LevelFilter::DEBUG);
    let order = tracing::info_span!("order");
    async {
        let current = TraceParent::current().unwrap();
        let caller = TraceParent::new(current.trace_id(), [0xcd; 8], true).unwrap();
        let traced = to_all().trace_parent(caller);
        world.push.enqueue_broadcast(traced).await.unwrap();
    }
    .instrument(order.clone())
    .await;
    drop(order);
    let (order, enqueue) = (spans.only("order"), spans.only("enqueue"));
    assert_eq!(enqueue.parent_span_id, order.span_context.span_id());
}

#[tokio::test]
async fn the_usual_filters_switch_them_off() {
    let world = World::at(FCM).await;
    world.subscribers(1).await;
    let (spans, _guard) = Spans::collect(LevelFilter::INFO);
    let queued = world
        .push
        .enqueue_broadcast(to_all().trace_parent(given(true)));
    queued.await.unwrap();
    world.settle().await;
    assert!(spans.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn attempts_of_a_direct_send_are_children_of_its_callers_span() {
    let world = World::at(FCM).await;
    world.subscribers(2).await;
    let (spans, _guard) = Spans::collect(LevelFilter::DEBUG);
    let order = tracing::info_span!("order");
    let sent = world.push.send(Audience::All, Message::new("x"));
    sent.instrument(order.clone()).await.unwrap();
    drop(order);
    let (order, attempts) = (spans.only("order"), spans.named("attempt"));
    assert_eq!(attempts.len(), 2);
    for attempt in attempts {
        assert_eq!(attempt.parent_span_id, order.span_context.span_id());
        assert_eq!(field(&attempt, "broadcast"), None);
    }
}

/// A claim links to each span once, however many broadcasts came from it.
#[tokio::test]
async fn a_claim_of_several_broadcasts_links_to_each_span_once() {
    let world = World::at(FCM).await;
    world.subscribers(1).await;
    let (spans, _guard) = Spans::collect(LevelFilter::DEBUG);
    let other = TraceParent::new([1; 16], [2; 8], false).unwrap();
    for parent in [given(true), given(true), other] {
        let traced = to_all().trace_parent(parent);
        world.push.enqueue_broadcast(traced).await.unwrap();
    }
    world.settle().await;
    let claims = spans.named("claim");
    let claim = claims.iter().max_by_key(|claim| claim.links.len()).unwrap();
    assert_eq!(field(claim, "rows").as_deref(), Some("3"));
    let mut found = links(claim);
    found.sort_by_key(TraceParent::trace_id);
    assert_eq!(found, [other, given(true)]);
}
