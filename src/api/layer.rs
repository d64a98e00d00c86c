//! The API as middleware, for servers without a router.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Extensions, Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{ApiBody, ApiFuture, ApiSettings, WebPushService};
use crate::error::BoxError;

/// Middleware that answers requests under its prefixes and passes all others on, each with the
/// [`WebPush`](crate::WebPush) handle in its extensions.
///
/// Without [`at`](Self::at) it answers no request and only adds the handle, for an application that mounts the
/// [service](WebPushService) elsewhere.
///
/// # Examples
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_web_push::WebPush;
///
/// # async fn example<S: Clone>(app: S) -> Result<(), Box<dyn std::error::Error>> {
/// let push = WebPush::builder("mailto:ops@example.com").build().await?;
/// // For example with bare hyper: `/web-push/subscribe` is answered here, everything else goes to `app`.
/// let service = ServiceBuilder::new().layer(push.layer().at("/web-push")).service(app);
/// # let _ = service;
/// # Ok(())
/// # }
/// ```
///
/// # Layer order
///
/// Put the application's authentication layer around this one: it adds the [`Principal`](crate::broadcast::Principal)
/// that `/subscribe` reads.
#[derive(Clone, Debug)]
pub struct WebPushLayer {
    service: WebPushService,
    prefixes: Arc<[Box<str>]>,
    /// The extensions that requests to the inner service get.
    handle: Extensions,
}

impl WebPushLayer {
    pub(crate) fn new(service: WebPushService, handle: Extensions) -> Self {
        Self {
            service,
            prefixes: Arc::new([]),
            handle,
        }
    }

    /// Changes the settings, as [`WebPushService::with`] does.
    #[must_use]
    pub fn with(mut self, settings: ApiSettings) -> Self {
        self.service = self.service.with(settings);
        self
    }

    /// Returns the API under the prefixes, with the same settings and limits, for routes that call it.
    #[must_use]
    pub fn service(&self) -> WebPushService {
        self.service.clone()
    }

    /// Adds a prefix, such as `/web-push`. It is stripped from the path.
    ///
    /// The prefix is whole path segments, compared octet by octet. A slash at its end is ignored, and one at its
    /// beginning is added if missing. Of several that match the longest one is stripped.
    #[must_use]
    pub fn at(mut self, prefix: &str) -> Self {
        let segments = prefix.trim_matches('/');
        let prefix = match segments {
            "" => String::new(),
            segments => format!("/{segments}"),
        };
        let mut prefixes: Vec<Box<str>> = self.prefixes.to_vec();
        prefixes.push(prefix.into());
        prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
        self.prefixes = prefixes.into();
        self
    }
}

impl<S> Layer<S> for WebPushLayer {
    type Service = WebPushMiddleware<S>;

    fn layer(&self, inner: S) -> Self::Service {
        WebPushMiddleware {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service behind a [`WebPushLayer`].
#[derive(Clone, Debug)]
pub struct WebPushMiddleware<S> {
    inner: S,
    layer: WebPushLayer,
}

impl<S, B, R> Service<Request<B>> for WebPushMiddleware<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<LayerBody<R>>;
    type Error = S::Error;
    type Future = LayerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let prefixes = self.layer.prefixes.iter();
        let stripped = prefixes
            .filter_map(|prefix| strip_prefix(request.uri(), prefix))
            .next();
        if let Some(uri) = stripped {
            *request.uri_mut() = uri;
            let future = self.layer.service.call(request);
            return LayerFuture {
                kind: Kind::Api { future },
            };
        }
        request.extensions_mut().extend(self.layer.handle.clone());
        let future = self.inner.call(request);
        LayerFuture {
            kind: Kind::Inner { future },
        }
    }
}

/// Returns the URI without the prefix of its path, or `None` if it is not under the prefix.
fn strip_prefix(uri: &Uri, prefix: &str) -> Option<Uri> {
    let path_and_query = uri.path_and_query()?.as_str();
    let rest = path_and_query.strip_prefix(prefix)?;
    let rest = match rest.as_bytes().first() {
        Some(b'/') => rest.to_owned(),
        None | Some(b'?') => format!("/{rest}"),
        // Another path that begins with the same characters.
        Some(_) => return None,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(rest).ok()?);
    Uri::from_parts(parts).ok()
}

pin_project! {
    /// The future of a [`WebPushMiddleware`].
    pub struct LayerFuture<F> {
        #[pin]
        kind: Kind<F>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<F> {
        Api { #[pin] future: ApiFuture },
        Inner { #[pin] future: F },
    }
}

impl<F, R, E> Future for LayerFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<LayerBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project().kind.project() {
            KindProj::Api { future } => match ready!(future.poll(cx)) {
                Ok(response) => Ok(response.map(|body| LayerBody {
                    either: Either::Api { body },
                })),
                Err(never) => match never {},
            },
            KindProj::Inner { future } => ready!(future.poll(cx)).map(|response| {
                response.map(|body| LayerBody {
                    either: Either::Inner { body },
                })
            }),
        })
    }
}

impl<F> fmt::Debug for LayerFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// The body of a response through a [`WebPushLayer`]: the API's or the inner service's.
    pub struct LayerBody<R> {
        #[pin]
        either: Either<R>,
    }
}

pin_project! {
    #[project = EitherProj]
    enum Either<R> {
        Api { #[pin] body: ApiBody },
        Inner { #[pin] body: R },
    }
}

impl<R> Body for LayerBody<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().either.project() {
            EitherProj::Api { body } => body.poll_frame(cx),
            EitherProj::Inner { body } => body
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Into::into))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.either {
            Either::Api { body } => body.is_end_stream(),
            Either::Inner { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.either {
            Either::Api { body } => body.size_hint(),
            Either::Inner { body } => body.size_hint(),
        }
    }
}

impl<R: Default> Default for LayerBody<R> {
    /// The inner body's default.
    fn default() -> Self {
        Self {
            either: Either::Inner { body: R::default() },
        }
    }
}

impl<R> fmt::Debug for LayerBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerBody").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(uri: &str, prefix: &str) -> Option<String> {
        strip_prefix(&uri.parse().unwrap(), prefix).map(|uri| uri.to_string())
    }

    #[test]
    fn a_prefix_is_whole_segments() {
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(strip("/web-push/vapid", "/web-push"), is("/vapid"));
        assert_eq!(
            strip("/web-push/vapid?a=/b", "/web-push"),
            is("/vapid?a=/b")
        );
        assert_eq!(strip("/web-push", "/web-push"), is("/"));
        assert_eq!(strip("/web-push?a", "/web-push"), is("/?a"));
        assert_eq!(strip("/web-push//vapid", "/web-push"), is("//vapid"));
        assert_eq!(strip("/web-pusher", "/web-push"), None);
        assert_eq!(strip("/other/web-push/vapid", "/web-push"), None);
        assert_eq!(strip("/Web-Push/vapid", "/web-push"), None);
        assert_eq!(strip("/vapid", ""), is("/vapid"));
    }

    #[test]
    fn the_rest_of_the_uri_stays() {
        assert_eq!(
            strip("https://app.example:8443/api/vapid", "/api").unwrap(),
            "https://app.example:8443/vapid"
        );
        assert_eq!(strip("app.example:443", "/api"), None);
    }
}
