//! The layer that reads the user from a token in the request.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use tower::{Layer, Service};
use tower_web_push::broadcast::Principal;

use super::BoxError;
use super::page::plain;
use super::principal_tokens::{PrincipalTokens, is_token};

/// Adds the user to the extensions of requests with `Authorization: Bearer TOKEN`, and answers those with an invalid token by
/// 401 `invalid_token` (RFC 6750 section 3.1). Without [`PrincipalTokens`] it does nothing.
///
/// On the routes of users each bearer token is a user's, and whatever is none is refused: a page may send the text of an error in
/// its place. On other routes one of another form is an administrator's.
///
/// It stands inside the CORS layer, so that pages of other origins can read the refusal and get another token.
#[derive(Clone)]
pub(crate) struct Users(pub(super) Option<Arc<PrincipalTokens>>);

/// The service of [`Users`].
#[derive(Clone)]
pub(crate) struct WithUser<S> {
    tokens: Option<Arc<PrincipalTokens>>,
    inner: S,
}

type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

impl<S> Layer<S> for Users {
    type Service = WithUser<S>;

    fn layer(&self, inner: S) -> WithUser<S> {
        WithUser {
            tokens: self.0.clone(),
            inner,
        }
    }
}

impl<S, B, R> Service<Request<B>> for WithUser<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<AnyBody>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some(tokens) = &self.tokens {
            match principal(tokens, &request) {
                Ok(Some(principal)) => {
                    request.extensions_mut().insert(principal);
                }
                Ok(None) => {}
                Err(reason) => {
                    tracing::debug!(reason, "a user token was refused");
                    return Box::pin(ready(Ok(refusal())));
                }
            }
        }
        let answered = self.inner.call(request);
        Box::pin(async move {
            let response = answered.await?;
            Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
        })
    }
}

/// The user that a request's token names, if it has one.
fn principal<B>(
    tokens: &PrincipalTokens,
    request: &Request<B>,
) -> Result<Option<Principal>, String> {
    let is_of_users = is_of_users(request.uri().path());
    let mut values = request.headers().get_all(AUTHORIZATION).iter();
    let (Some(value), other) = (values.next(), values.next()) else {
        return Ok(None);
    };
    if other.is_some() && is_of_users {
        return Err("there is more than one".to_owned());
    }
    let text = str::from_utf8(value.as_bytes()).unwrap_or_default();
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    let token = token.trim();
    match scheme.eq_ignore_ascii_case("bearer") && (is_of_users || is_token(token)) {
        true => tokens.principal(token).map(Some),
        false => Ok(None),
    }
}

/// Whether no administrator's credentials have a meaning at this path.
fn is_of_users(path: &str) -> bool {
    let mut segments = path.split('/');
    segments.any(|segment| {
        ["devices", "renew", "send-test", "subscribe", "unsubscribe"].contains(&segment)
    })
}

/// Anonymous instead of refused, a request would store a subscription without its user. The reason is in the log only.
fn refusal() -> Response<AnyBody> {
    const PROBLEM: &str = r#"{"type":"about:blank","title":"Unauthorized","status":401,"code":"invalid_token","detail":"The user token is invalid or has expired: get a new one from the application.","success":false,"message":"The user token is invalid or has expired: get a new one from the application."}"#;
    let mut response = plain(StatusCode::UNAUTHORIZED, PROBLEM);
    for (name, value) in [
        (CONTENT_TYPE, "application/problem+json"),
        (CACHE_CONTROL, "no-store"),
        (WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response.map(|body: Full<Bytes>| body.map_err(|never| match never {}).boxed_unsync())
}
