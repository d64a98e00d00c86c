//! The HTTP API: every route with requests of pages, administrators and unauthenticated callers.

mod admin;
mod assign;
mod authorization;
mod bodies;
mod budgets;
mod devices;
mod estimate;
mod gates;
mod journal;
mod limits;
mod listing;
mod mounting;
mod new_hosts;
mod notify;
mod operator;
mod ownership;
mod renew;
mod replaced;
mod schedules;
mod send_test;
mod subscribe;
mod undo;
mod unsubscribe;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tower_web_push::api::{AdminCredentials, ApiBody, ApiSettings, ProblemKind, WebPushLayer};
use tower_web_push::broadcast::{Audience, Principal};
use tower_web_push::clock::{Clock as _, Timestamp};
use tower_web_push::error::BoxError;
use tower_web_push::store::{
    CountFilter, Liveness, MemoryStore, SubscriptionRecord, SubscriptionRef, SubscriptionStore as _,
};
use tower_web_push::subscription::{Endpoint, Origin, SubscriptionId};
use tower_web_push::testing::{ManualClock, TestPushService, UserAgent};
use tower_web_push::{WebPush, WebPushBuilder};

const FCM: &str = "https://fcm.googleapis.com";
const TOKEN: &str = "Bearer an-admin-token";
const PASSWORD: &str = "a long password";
/// An id that nothing has.
const NO_ID: &str = "00000000-0000-4000-8000-000000000000";

/// Each route of the contract, its ids those of nothing, and whether it is for administrators.
fn routes() -> Vec<(Method, String, bool)> {
    let contract = include_str!("../../../src/api/openapi.json");
    let contract: Value = serde_json::from_str(contract).unwrap();
    let mut routes = Vec::new();
    for (path, operations) in contract["paths"].as_object().unwrap() {
        for (name, operation) in operations.as_object().unwrap() {
            if name != "parameters" {
                let method = Method::from_bytes(name.to_uppercase().as_bytes()).unwrap();
                let is_admins = operation.get("security").is_some();
                routes.push((method, path.replace("{id}", NO_ID), is_admins));
            }
        }
    }
    routes
}

/// Each route for administrators.
fn admin_routes() -> Vec<(Method, String)> {
    let routes = routes().into_iter();
    let routes: Vec<_> = routes
        .filter_map(|(method, path, is_admins)| is_admins.then_some((method, path)))
        .collect();
    assert!(routes.len() >= 13, "{routes:?}");
    routes
}

/// One application, its store, and the push service it sends to, on one clock.
struct World {
    push: WebPush,
    layer: WebPushLayer,
    store: Arc<MemoryStore>,
    service: TestPushService,
    clock: ManualClock,
}

impl World {
    async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    async fn with(configure: impl FnOnce(WebPushBuilder) -> WebPushBuilder) -> Self {
        Self::made(configure, |settings| settings).await
    }

    async fn with_api(configure: impl FnOnce(ApiSettings) -> ApiSettings) -> Self {
        Self::made(|builder| builder, configure).await
    }

    async fn made(
        configure: impl FnOnce(WebPushBuilder) -> WebPushBuilder,
        configure_api: impl FnOnce(ApiSettings) -> ApiSettings,
    ) -> Self {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let service = TestPushService::builder()
            .origin(Origin::parse(FCM).unwrap())
            .clock(clock.clone())
            .build();
        let store = Arc::new(MemoryStore::new());
        let credentials = AdminCredentials::new().with_bearer_token("an-admin-token");
        let builder = WebPush::builder("mailto:ops@example.com")
            .store(Arc::clone(&store))
            .client(service.clone())
            .clock(clock.clone())
            .remote_workers(true);
        let push = configure(builder).build().await.unwrap();
        let settings =
            ApiSettings::new().authorizer(credentials.unwrap().with_password(PASSWORD).unwrap());
        Self {
            layer: push.layer().with(configure_api(settings)),
            push,
            store,
            service,
            clock,
        }
    }

    /// A browser that subscribed with the active key, and the body that its page posts.
    fn browser(&self) -> (UserAgent, Value) {
        let browser = self.service.user_agent();
        browser.subscribe(&self.push.vapid_public_key()).unwrap();
        let json = browser.subscription_json().unwrap();
        (browser, serde_json::from_str(&json).unwrap())
    }

    /// The same, stored by the server.
    async fn subscriber(&self) -> (UserAgent, Value, SubscriptionId) {
        let (browser, json) = self.browser();
        let answer = self.post("/subscribe", &json).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        (browser, json, answer.id())
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(post(path, body)).await
    }

    async fn post_as(&self, principal: &str, path: &str, body: &Value) -> Answer {
        let mut request = post(path, body);
        request.extensions_mut().insert(Principal::from(principal));
        self.call(request).await
    }

    /// With the administrator's token.
    async fn admin(&self, method: Method, path: &str, body: &Value) -> Answer {
        let mut request = post(path, body);
        *request.method_mut() = method;
        request
            .headers_mut()
            .insert("authorization", TOKEN.parse().unwrap());
        self.call(request).await
    }

    async fn notify(&self, body: &Value) -> Answer {
        self.admin(Method::POST, "/notify", body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Request::get(path).body(full("")).unwrap()).await
    }

    async fn call<B>(&self, request: Request<B>) -> Answer
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let response = self.layer.service().oneshot(request).await;
        Answer::read(response.unwrap_or_else(|never| match never {})).await
    }

    /// The number of rows in all states.
    async fn count(&self) -> u64 {
        let filter = CountFilter::new(Audience::All, Liveness::Any);
        self.store.count(&filter, self.clock.now()).await.unwrap()
    }

    async fn row(&self, of: &Value) -> Option<SubscriptionRecord> {
        let endpoint = Endpoint::parse(of["endpoint"].as_str().unwrap()).unwrap();
        let which = [SubscriptionRef::Key(endpoint.key())];
        self.store.get(&which).await.unwrap().remove(0)
    }

    /// Ticks until there is nothing to do.
    async fn settle(&self) {
        while !self.push.tick().await.unwrap().is_idle() {}
    }
}

fn full(body: impl Into<Bytes>) -> Full<Bytes> {
    Full::new(body.into())
}

fn post(path: &str, body: &Value) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("content-type", "application/json")
        .body(full(body.to_string()))
        .unwrap()
}

/// The object with some members replaced. Null removes one.
fn with(object: &Value, members: Value) -> Value {
    let mut object = object.clone();
    for (name, value) in members.as_object().unwrap() {
        match value {
            Value::Null => drop(object.as_object_mut().unwrap().remove(name)),
            value => object[name] = value.clone(),
        }
    }
    object
}

/// A response, after the checks that hold for all responses.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    async fn read(response: Response<ApiBody>) -> Self {
        let (parts, body) = response.into_parts();
        let answer = Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        };
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["referrer-policy"], "no-referrer");
        if let Some(kind) = parts.extensions.get::<ProblemKind>() {
            assert_eq!(answer.headers["content-type"], "application/problem+json");
            assert_eq!(answer.status, kind.status().as_u16());
            let limited = matches!(answer.status, 429 | 503);
            assert_eq!(answer.headers.contains_key("retry-after"), limited);
            if !answer.body.is_empty() {
                assert_eq!(answer.code(), kind.code());
                assert_eq!(answer.json()["success"], false);
                assert_eq!(answer.json()["status"], answer.status);
            }
        } else {
            assert!(
                answer.status < 400 || answer.status == 503,
                "{}",
                answer.status
            );
        }
        answer
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }

    fn id(&self) -> SubscriptionId {
        self.json()["id"].as_str().unwrap().parse().unwrap()
    }

    /// It has exactly these members.
    fn has_members(&self, names: &[&str]) {
        let json = self.json();
        let there: HashSet<_> = json
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(there, names.iter().copied().collect());
    }

    fn is(&self, status: u16, code: &str) {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(
            (self.status, self.code().as_str()),
            (status, code),
            "{text}"
        );
    }
}

/// A public tag for the tests.
fn news() -> Value {
    json!(["news"])
}
