//! The HTTP API: a [`WebPushService`] to mount, or a [`WebPushLayer`] without a router.
//!
//! Paths are relative to where the service is mounted. A path has one spelling, without a slash at its end.
//! `GET /openapi.json` is the whole contract. Refusals are problem details (RFC 9457) with a stable `code`;
//! [`ProblemKind`] lists them.
//!
//! | route | for |
//! |---|---|
//! | `GET /vapid`, `GET /subscribe` | everyone |
//! | `POST /subscribe` | everyone, or signed-in users only |
//! | `POST /unsubscribe`, `POST /renew`, `POST /send-test` | holders of the subscription |
//! | `GET /devices`, `DELETE /devices/{id}` | signed-in users: their own subscriptions |
//! | `POST /notify`, `GET /broadcasts`, `GET`, `PATCH` and `DELETE /broadcasts/{id}`, `POST /regenerate-vapid`, `GET /stats` | administrators: [`Authorizer`] |
//! | `GET /subscriptions`, `POST /subscriptions/search`, `PATCH` and `DELETE /subscriptions/{id}` | administrators |
//! | `POST /broadcasts/estimate`, `POST /open-gate` | administrators |
//! | `GET /live`, `GET /ready`, `GET /ping`, `GET /openapi.json`, `GET /client.js`, `GET /service-worker.js` | everyone |
//!
//! `client.js` and `service-worker.js` are the browser's part, ready to use: see
//! [In the browser](crate::guide::in_the_browser).
//!
//! # Examples
//!
//! ```
//! use axum::Router;
//! use tower_web_push::WebPush;
//! use tower_web_push::api::{AdminCredentials, ApiSettings};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let push = WebPush::builder("mailto:ops@example.com").build().await?;
//! let operators = AdminCredentials::new().with_bearer_token("h9Jm3pXq7vTz2LkB")?;
//! let service = push.service().with(ApiSettings::new().authorizer(operators));
//!
//! // One line in axum. Elsewhere put `push.layer().at("/web-push")` in front of any service.
//! let app: Router = Router::new().nest_service("/web-push", service);
//! # Ok(())
//! # }
//! ```
//!
//! The application authenticates users: a layer of its own around this service puts a
//! [`Principal`](crate::broadcast::Principal) into the request's extensions. `/subscribe` gives the subscription to
//! that user, and `Audience::user` reaches it.
//!
//! ```
//! use axum::Router;
//! use axum::extract::Request;
//! use axum::middleware::{self, Next};
//! use axum::response::Response;
//! use tower_web_push::{Principal, WebPush};
//!
//! async fn who(mut request: Request, next: Next) -> Response {
//!     if let Some(user) = signed_in(&request) {
//!         request.extensions_mut().insert(Principal::from(user));
//!     }
//!     next.run(request).await
//! }
//!
//! /// Reads the application's session.
//! fn signed_in(_: &Request) -> Option<String> {
//!     None
//! }
//!
//! fn app(push: WebPush) -> Router {
//!     Router::new()
//!         .nest_service("/web-push", push.service())
//!         .layer(middleware::from_fn(who))
//! }
//! ```
//!
//! Each route parses, calls the engine and answers. The same rules hold for the calls of [`WebPush`](crate::WebPush),
//! for applications with routes of their own: [`subscribe`](crate::WebPush::subscribe),
//! [`renew`](crate::WebPush::renew), [`devices`](crate::WebPush::devices), [`forget`](crate::WebPush::forget) and the
//! rest. Public tags, required users, the confirmation and limits per peer belong to the mount, not to the calls.
//!
//! # Two mounts
//!
//! Each [`WebPush::service`](crate::WebPush::service) has [settings](ApiSettings) and limits of its own; the
//! subscriptions, keys and messages are shared. So an application can keep the routes of administrators off the public
//! network: a mount without an [`Authorizer`] answers them 403 `admin_not_configured`.
//!
//! ```
//! use axum::Router;
//! use tower_web_push::WebPush;
//! use tower_web_push::api::{AdminCredentials, ApiSettings, CredentialsError};
//!
//! /// For the listener that the public network reaches: no administrators.
//! fn public(push: &WebPush) -> Router {
//!     let settings = ApiSettings::new().require_principal(true);
//!     Router::new().nest_service("/web-push", push.service().with(settings))
//! }
//!
//! /// For a listener of the internal network.
//! fn internal(push: &WebPush, token: &str) -> Result<Router, CredentialsError> {
//!     let operators = AdminCredentials::new().with_bearer_token(token)?;
//!     let settings = ApiSettings::new().authorizer(operators);
//!     Ok(Router::new().nest_service("/web-push", push.service().with(settings)))
//! }
//! ```
//!
//! # Security
//!
//! A server that reports the sender's address with a [`PeerAddr`] in the extensions limits each peer: 60 requests a
//! minute to the public POST routes, 20 test and confirmation pushes a minute, and 10 wrong passwords a minute.
//! Without it only the limits of the store hold for unauthenticated callers:
//! [`SubscriptionLimits`](crate::store::SubscriptionLimits).
//!
//! Bodies are read up to 64 KiB and 10 seconds. State-changing requests that carry a cookie, Basic credentials or a
//! signed-in user, and those to administrators' routes without a bearer token, must not come from another site, except from a page
//! of [`allowed_origins`](crate::api::ApiSettings::allowed_origins): `Sec-Fetch-Site` decides, else `Origin`. Refusals
//! never repeat an endpoint or a key. `/send-test` gives the same answer for an endpoint that the policy refuses and
//! for one that cannot be reached.
//!
//! A proxy in front may have rules for single paths, such as `/web-push/notify`. They hold, because
//! `/web-push//notify` is another path and is answered with 404. axum's `nest_service` is the exception: axum 0.8
//! drops an empty segment after the prefix before the service sees the path. If such rules matter in axum, use
//! `Router::layer(push.layer().at("/web-push"))`, as `examples/axum_server` does.
//!
//! Limits on connections, request heads and idle time belong to the server that runs the service. `axum::serve` has
//! none; `examples/support/accept.rs` is an accept loop with limits.

mod authorizer;
mod body;
mod credentials;
mod cross_site;
mod journal;
mod layer;
mod members;
mod peer_addr;
mod peer_limit;
mod problem;
mod query;
mod read_body;
mod reply;
mod request_id;
mod routes;
mod settings;
mod trace_context;
mod wrong_passwords;

pub use authorizer::{AdminAction, Authorizer, Denied};
pub use body::ApiBody;
pub use credentials::{AdminCredentials, CredentialsError};
pub use layer::{LayerBody, LayerFuture, WebPushLayer, WebPushMiddleware};
pub use peer_addr::PeerAddr;
pub use problem::ProblemKind;
pub use settings::ApiSettings;

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;
#[cfg(feature = "tracing")]
use tracing::Instrument as _;

use crate::engine::{Engine, HoldsLines as _};
use crate::error::BoxError;
use crate::observe;
use journal::{Audited, Journal, Target};
use problem::Problem;
use reply::Reply;
use routes::Route;

/// The HTTP API as a service, for axum's `nest_service`, for bare hyper, for any Tower server.
///
/// Always ready. It never fails: errors are responses. Bodies are read up to 64 KiB and for 10 seconds, which needs a
/// tokio runtime with its timer enabled.
///
/// # Cancel safety
///
/// If its future is dropped, a request may have changed the store or not. Every request can be repeated.
#[derive(Clone, Debug)]
pub struct WebPushService {
    engine: Engine,
    settings: Arc<ApiSettings>,
    journal: Arc<Journal>,
}

impl WebPushService {
    pub(crate) fn new(engine: Engine) -> Self {
        #[cfg(feature = "metrics")]
        {
            for reason in Denied::NAMES {
                observe::begin("web_push_admin_refused_total", &[("reason", reason)]);
            }
            // Else the first errors after a start would be no increase.
            let errors = [
                ProblemKind::StoreUnavailable,
                ProblemKind::VapidUnavailable,
                ProblemKind::NoWorker,
            ];
            for route in Route::NAMES {
                for error in errors {
                    observe::begin_requests(route, error.status(), error.code());
                }
            }
        }
        let journal = Arc::<Journal>::default();
        engine.signals.reminders.add(&journal);
        Self {
            engine,
            settings: Arc::default(),
            journal,
        }
    }

    /// Changes the settings. The counters of its limits start from zero.
    #[must_use]
    pub fn with(mut self, settings: ApiSettings) -> Self {
        self.settings = Arc::new(settings);
        self
    }

    /// Checks whether a request may do what an administrator's route does, for routes of the application beside this
    /// service: with the [`Authorizer`] of its settings, and counted and logged as its own requests are.
    ///
    /// # Errors
    ///
    /// Returns why not; [`Denied::into_response`] is the response.
    pub async fn authorize(&self, action: AdminAction, parts: &Parts) -> Result<(), Denied> {
        let decided = self.settings.authorizer.authorize(action, parts).await;
        decided.inspect_err(|denied| {
            let reason = denied.reason(parts);
            observe::count_admin_refused(reason);
            self.journal.denied(reason, action, parts);
        })
    }
}

impl<B> Service<Request<B>> for WebPushService
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<ApiBody>;
    type Error = Infallible;
    type Future = ApiFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ApiFuture {
        ApiFuture(Box::pin(serve(self.clone(), request)))
    }
}

async fn serve<B>(api: WebPushService, request: Request<B>) -> Reply
where
    B: Body + Send,
    B::Data: Send,
{
    api.journal.tell_due();
    let (parts, body) = request.into_parts();
    let id = request_id::of(&parts.headers);
    let reply = respond(&api, &parts, body);
    #[cfg(feature = "tracing")]
    let reply = {
        let id = id.to_str().unwrap_or_default();
        reply.instrument(tracing::error_span!(target: "tower_web_push", "request", id))
    };
    let mut reply = reply.await;
    reply.headers_mut().insert(&request_id::X_REQUEST_ID, id);
    reply::finished(reply, &parts.method)
}

/// Answers, counts the response, and tells the log what it should know.
async fn respond<B>(api: &WebPushService, parts: &Parts, body: B) -> Reply
where
    B: Body + Send,
    B::Data: Send,
{
    let route = Route::find(&parts.method, parts.uri.path());
    let name = route.as_ref().map_or(Route::NONE, |route| route.name());
    let counted = Counted {
        route: name,
        began: Instant::now(),
        answer: None,
    };
    let answer = match route {
        Ok(route) => answer(api, route, parts, body).await,
        Err(problem) => Err(problem),
    };
    let mut code = "none";
    let reply = answer.unwrap_or_else(|problem| {
        api.journal.refused(name, &problem);
        code = problem.kind().code();
        problem.into_response()
    });
    counted.answered(reply.status(), code);
    reply
}

/// A request that is counted when it is dropped: without an answer if its client has gone.
struct Counted {
    route: &'static str,
    began: Instant,
    answer: Option<(StatusCode, &'static str)>,
}

impl Counted {
    fn answered(mut self, status: StatusCode, code: &'static str) {
        self.answer = Some((status, code));
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        observe::count_request(self.route, self.answer, self.began.elapsed());
    }
}

/// Checks everything that the head alone can fail first, then the body, then the route.
async fn answer<B>(
    api: &WebPushService,
    route: Route<'_>,
    parts: &Parts,
    body: B,
) -> Result<Reply, Problem>
where
    B: Body + Send,
    B::Data: Send,
{
    let mut audited = None;
    let action = route.admin_action();
    if let Some(action) = action {
        api.authorize(action, parts).await?;
        audited = (!parts.method.is_safe()).then(|| Audited::new(action, parts));
    }
    let answer = allowed(api, route, parts, body).await;
    // What reads is told only if it is worth it: an export of all users, for example.
    if let (None, Some(action), Ok(reply)) = (&audited, action, &answer)
        && Target::of(reply).is_some()
    {
        audited = Some(Audited::new(action, parts));
    }
    if let Some(audited) = audited {
        audited.answered(&answer);
    }
    answer
}

/// Answers a request that the caller may make.
async fn allowed<B>(
    api: &WebPushService,
    route: Route<'_>,
    parts: &Parts,
    body: B,
) -> Result<Reply, Problem>
where
    B: Body + Send,
    B::Data: Send,
{
    let settings = &*api.settings;
    if !parts.method.is_safe() {
        let is_admin = route.admin_action().is_some();
        cross_site::check(parts, is_admin, &settings.allowed_origins)?;
    }
    let body = if route.takes_json() {
        let is_declared = read_body::check_head(&parts.headers)?;
        if route.is_public() {
            // A request refused by its head takes no token, and the body of a request without a token is not read.
            let taken = settings.requests.take(peer(parts));
            taken.map_err(|wait| {
                Problem::from(ProblemKind::TooManyRequests).with_retry_after(wait)
            })?;
        }
        read_body::read_json(&parts.headers, is_declared, body, settings.body_limits).await?
    } else {
        drop(body);
        Vec::new()
    };
    let answer = routes::answer(api, route, parts, &body).await;
    let is_unavailable = |problem: &Problem| problem.kind() == ProblemKind::StoreUnavailable;
    if !parts.method.is_safe() && answer.as_ref().is_err_and(is_unavailable) {
        api.engine.suspect_store();
    }
    answer
}

/// Returns the sender's address as the server reports it.
fn peer(parts: &Parts) -> Option<PeerAddr> {
    parts.extensions.get().copied()
}

/// The future of a [`WebPushService`].
pub struct ApiFuture(Pin<Box<dyn Future<Output = Response<ApiBody>> + Send>>);

impl Future for ApiFuture {
    type Output = Result<Response<ApiBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for ApiFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiFuture").finish_non_exhaustive()
    }
}
