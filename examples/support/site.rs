//! The routes outside the API: the page and `/metrics`.

use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use tower::Service;
use tower_web_push::api::WebPushService;

use super::metrics::Metrics;
use super::page;

/// The service for requests outside the API.
#[derive(Clone)]
pub(crate) struct Site {
    api: WebPushService,
    metrics: Metrics,
}

impl Site {
    pub(crate) fn new(api: WebPushService, metrics: Metrics) -> Self {
        Self { api, metrics }
    }
}

impl<B> Service<Request<B>> for Site {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_get = request.method() == Method::GET;
        if request.uri().path() != "/metrics" || !is_get {
            let answer = page::answer(request.method(), request.uri().path());
            return Box::pin(ready(Ok(answer)));
        }
        let Self { api, metrics } = self.clone();
        let (head, _) = request.into_parts();
        Box::pin(async move { Ok(metrics.answer(api, head).await) })
    }
}
