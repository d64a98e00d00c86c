//! Waiting for a database that is not up yet.

use std::convert::Infallible;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;
use tokio::time::{Instant, sleep};
use tower::Service;
use tower_web_push::api::{AdminAction, AdminCredentials, Authorizer as _, PeerAddr};
use tower_web_push::store::{StoreError, StoreErrorKind};

use super::accept::Acceptor;
use super::causes::with_causes;
use super::metrics::Metrics;
use super::page::plain;
use super::shutdown::Shutdown;
use super::{PREFIXES, service_manager, site};

const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// As often as the API tells what repeats.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Calls `open` until it succeeds, fails for another reason than a database that is out of reach, or `patience` is over.
/// The pauses double from a quarter of a second to five. Each failure is one line of the log.
///
/// # Cancel safety
///
/// If dropped, the call under way is dropped.
pub(super) async fn patiently<T, F>(
    patience: Duration,
    mut open: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let began = Instant::now();
    let mut pause = SHORTEST_PAUSE;
    loop {
        let error = match open().await {
            Err(error) if error.kind() == StoreErrorKind::Unavailable => error,
            done => return done,
        };
        if began.elapsed() + pause > patience {
            return Err(error);
        }
        let error = with_causes(error);
        tracing::warn!(error, ?pause, "the store is not up yet: trying again");
        service_manager::waiting("waiting for the store");
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Answers while the store is opened: `/live` as always, `/metrics` with what there is, `/ready` and everything else by 503.
#[derive(Clone)]
pub(super) struct NotReady {
    pub(super) has_contact: bool,
    pub(super) metrics: Metrics,
    pub(super) admin: Arc<AdminCredentials>,
    pub(super) refusals: Refusals,
}

/// Refused requests for the metrics: the first is a line of the log, and then those of each minute. The API, which has a line
/// for each address, is not there yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals(Arc<Mutex<Refused>>);

#[derive(Debug, Default)]
struct Refused {
    told: Option<Instant>,
    /// Those since then.
    requests: u64,
}

impl Drop for Refused {
    fn drop(&mut self) {
        if self.requests > 0 {
            tell(None, self.requests);
        }
    }
}

fn tell(peer: Option<String>, requests: u64) {
    tracing::warn!(
        action = "show_stats",
        peer,
        requests,
        "administrators' requests were refused while the server waits for its store"
    );
}

impl Refusals {
    /// One without credentials is no attempt.
    fn add(&self, head: &Parts) {
        if !head.headers.contains_key(AUTHORIZATION) {
            return;
        }
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused.requests += 1;
        if refused.told.is_some_and(|told| told.elapsed() < TOLD_EVERY) {
            return;
        }
        let requests = mem::take(&mut refused.requests);
        refused.told = Some(Instant::now());
        let peer = head
            .extensions
            .get()
            .map(|peer: &PeerAddr| peer.ip().to_string());
        tell(peer, requests);
    }
}

impl NotReady {
    /// Opens the store, and answers meanwhile. Returns `None` after the shutdown signal.
    pub(super) async fn while_opening<T>(
        self,
        acceptor: &mut Acceptor,
        shutdown: &Shutdown,
        opening: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<Option<T>, StoreError> {
        // Dropped at the end, which ends these connections: the next request on one would be answered here, too.
        let (_over, meanwhile) = Shutdown::by_hand();
        tokio::select! {
            opened = opening => opened.map(Some),
            () = acceptor.accept(self, meanwhile) => Ok(None),
            () = shutdown.clone().begun() => Ok(None),
        }
    }

    /// Answers requests that may read `/stats`. Without this a restart while the database is down would look as if no server
    /// ran.
    async fn metrics(&self, head: &Parts) -> Response<Full<Bytes>> {
        match self.admin.authorize(AdminAction::ShowStats, head).await {
            Ok(()) => {
                show_waiting();
                site::exposition(&self.metrics)
            }
            Err(denied) => {
                self.refusals.add(head);
                site::refusal(denied).await
            }
        }
    }

    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let route = PREFIXES.iter().find_map(|prefix| path.strip_prefix(prefix));
        if route == Some("/live") {
            return plain(StatusCode::OK, "live");
        }
        let mut response = plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "the server waits for its store\n",
        );
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        if route == Some("/ready") {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let ready = json!({
                "ready": false,
                "store": false,
                "scheduler": false,
                "worker": false,
                "clock": true,
                "contact": self.has_contact,
            });
            *response.body_mut() = Full::from(ready.to_string());
        }
        response
    }
}

impl<B> Service<Request<B>> for NotReady {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let waiting = self.clone();
        let (head, _) = request.into_parts();
        Box::pin(async move {
            let is_read = head.method == Method::GET || head.method == Method::HEAD;
            Ok(match head.uri.path() {
                "/metrics" if is_read => waiting.metrics(&head).await,
                path => waiting.answer(path),
            })
        })
    }
}

/// Sets what is known of a server without its store. Their full descriptions come with the store.
fn show_waiting() {
    for (name, help) in [
        ("web_push_build_info", "1; the version is a label."),
        (
            "web_push_store_up",
            "0 while the server waits for its store.",
        ),
        (
            "web_push_worker_running",
            "0 while the server waits for its store.",
        ),
    ] {
        metrics::describe_gauge!(name, help);
    }
    metrics::gauge!("web_push_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    metrics::gauge!("web_push_store_up").set(0.0);
    metrics::gauge!("web_push_worker_running").set(0.0);
}
