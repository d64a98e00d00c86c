//! The routes outside the API: the pages and `/metrics`.

use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tower::Service;
use tower_web_push::WebPush;
use tower_web_push::api::{AdminAction, Denied, WebPushService};

use super::metrics::Metrics;
use super::{page, process};

/// The service for requests outside the API.
#[derive(Clone)]
pub(crate) struct Site {
    push: WebPush,
    api: WebPushService,
    metrics: Metrics,
    has_console: bool,
}

impl Site {
    pub(crate) fn new(
        push: WebPush,
        api: WebPushService,
        metrics: Metrics,
        has_console: bool,
    ) -> Self {
        Self {
            push,
            api,
            metrics,
            has_console,
        }
    }

    /// Answers requests that may read `/stats`, also while the store is down.
    async fn metrics(&self, head: &Parts) -> Response<Full<Bytes>> {
        if let Err(denied) = self.api.authorize(AdminAction::ShowStats, head).await {
            return refusal(denied).await;
        }
        self.push.refresh_metrics().await;
        exposition(&self.metrics)
    }
}

/// The answer to a request that may not read the metrics.
pub(super) async fn refusal(denied: Denied) -> Response<Full<Bytes>> {
    let (head, body) = denied.into_response().into_parts();
    let body = body.collect().await;
    let body = body.map_or_else(|_| Bytes::new(), |body| body.to_bytes());
    Response::from_parts(head, Full::new(body))
}

/// The metrics as they are, with those of the process.
pub(super) fn exposition(metrics: &Metrics) -> Response<Full<Bytes>> {
    process::show();
    let mut response = page::plain(StatusCode::OK, metrics.print());
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, format);
    response
}

impl<B> Service<Request<B>> for Site {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (method, path) = (request.method(), request.uri().path());
        if path != "/metrics" {
            let answer = page::answer(method, path, self.has_console);
            return Box::pin(ready(Ok(answer)));
        }
        // The HTTP server leaves out the body of an answer to HEAD.
        if method != Method::GET && method != Method::HEAD {
            return Box::pin(ready(Ok(page::only_get())));
        }
        let site = self.clone();
        let (head, _) = request.into_parts();
        Box::pin(async move { Ok(site.metrics(&head).await) })
    }
}
