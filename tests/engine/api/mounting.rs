use std::convert::Infallible;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tower::{ServiceBuilder, ServiceExt as _, service_fn};
use tower_web_push::WebPush;
use tower_web_push::api::{
    AdminCredentials, ApiBody, ApiFuture, ApiSettings, LayerBody, PeerAddr, WebPushLayer,
    WebPushService,
};
use tower_web_push::broadcast::Principal;

use super::{World, full, post};

async fn text<B>(response: Response<B>) -> (u16, String)
where
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[test]
fn what_servers_need_of_the_types_holds() {
    fn service<T: Clone + Send + Sync + std::fmt::Debug + 'static>() {}
    fn future<T: Send + Unpin + std::fmt::Debug>() {}
    service::<WebPushService>();
    service::<WebPushLayer>();
    service::<WebPush>();
    future::<ApiFuture>();
    future::<ApiBody>();
    future::<LayerBody<ApiBody>>();
}

#[tokio::test]
async fn axum_nests_the_service() {
    let world = World::new().await;
    let app: Router = Router::new()
        .route("/", get(|| async { "home" }))
        .nest_service("/web-push", world.layer.service());
    for (path, status) in [
        ("/web-push/vapid", 200),
        ("/web-push/ping", 200),
        ("/web-push/nothing", 404),
        ("/web-push/vapid/", 404),
        ("/web-push", 404),
        ("/", 200),
    ] {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        let (answered, text) = text(app.clone().oneshot(request).await.unwrap()).await;
        assert_eq!(answered, status, "{path}: {text}");
    }
}

#[tokio::test]
async fn axum_takes_the_layer_and_handlers_get_the_handle() {
    let world = World::new().await;
    let handler = |axum::Extension(push): axum::Extension<WebPush>| async move {
        push.vapid_public_key().to_base64url()
    };
    let app: Router = Router::new()
        .route("/key", get(handler))
        .layer(world.layer.clone().at("/web-push").at("/api"));
    let key = world.push.vapid_public_key().to_base64url();
    let request = Request::get("/key")
        .body(axum::body::Body::empty())
        .unwrap();
    assert_eq!(
        text(app.clone().oneshot(request).await.unwrap()).await,
        (200, key.clone())
    );
    for path in ["/web-push/vapid", "/api/vapid"] {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        let (status, text) = text(app.clone().oneshot(request).await.unwrap()).await;
        assert!(status == 200 && text.contains(&key), "{path}: {text}");
    }
}

/// An application that answers with the path of the request.
fn layered(
    layer: WebPushLayer,
) -> impl tower::Service<
    Request<Full<Bytes>>,
    Response = Response<LayerBody<Full<Bytes>>>,
    Error = Infallible,
    Future: Send,
> + Clone {
    let inner = |request: Request<Full<Bytes>>| async move {
        let has_handle = request.extensions().get::<WebPush>().is_some();
        let text = format!("inner {} {has_handle}", request.uri());
        Ok::<_, Infallible>(Response::new(full(text)))
    };
    ServiceBuilder::new()
        .layer(layer)
        .service(service_fn(inner))
}

#[tokio::test]
async fn requests_under_a_prefix_are_answered_and_all_others_go_on() {
    let world = World::new().await;
    let service = layered(world.layer.clone().at("/web-push").at("api/").at("/api/v2"));
    for (uri, expected) in [
        ("/web-push/ping", "pong"),
        ("/api/ping?x=/api", "pong"),
        ("/api/v2/ping", "pong"),
        ("http://app.example/api/ping", "pong"),
        ("/web-push", "not_found"),
        ("/api/", "not_found"),
        ("/api/v2", "not_found"),
        ("/ping", "inner /ping true"),
        ("/apiary/ping?x", "inner /apiary/ping?x true"),
        ("/x/api/ping", "inner /x/api/ping true"),
    ] {
        let request = Request::get(uri).body(full("")).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        // Servers make `Content-Length` of it.
        let length = response.body().size_hint().exact();
        let (_, text) = text(response).await;
        assert!(text.contains(expected), "{uri}: {text}");
        assert_eq!(length, Some(text.len() as u64), "{uri}");
    }
}

#[tokio::test]
async fn a_doubled_slash_is_another_path() {
    let world = World::new().await;
    for path in [
        "//stats",
        "///stats",
        "//ping",
        "/ping/",
        "//",
        "/broadcasts//x",
    ] {
        world.get(path).await.is(404, "not_found");
    }
    let root = layered(world.layer.clone().at("/"));
    let nested = layered(world.layer.clone().at("/web-push").at("/api/v2"));
    let app: Router = Router::new()
        .route("/", get(|| async { "home" }))
        .layer(world.layer.clone().at("/web-push").at("/api/v2"));
    for prefix in ["", "/web-push", "/api/v2"] {
        for rest in ["//stats", "///stats", "//ping", "//subscribe", "/ping//"] {
            let uri = format!("{prefix}{rest}");
            let request = Request::get(&uri)
                .header("authorization", super::TOKEN)
                .body(full(""))
                .unwrap();
            let service = if prefix.is_empty() { &root } else { &nested };
            let (status, body) = text(service.clone().oneshot(request).await.unwrap()).await;
            assert_eq!(status, 404, "{uri}: {body}");
            let request = Request::get(&uri)
                .header("authorization", super::TOKEN)
                .body(axum::body::Body::empty())
                .unwrap();
            let (status, body) = text(app.clone().oneshot(request).await.unwrap()).await;
            assert_eq!(status, 404, "axum: {uri}: {body}");
        }
    }
    // A doubled slash before the prefix is another path.
    let request = Request::get("//web-push/ping").body(full("")).unwrap();
    let (_, body) = text(nested.oneshot(request).await.unwrap()).await;
    assert_eq!(body, "inner //web-push/ping true");
}

#[tokio::test]
async fn without_a_prefix_the_layer_only_hands_the_handle_out() {
    let world = World::new().await;
    let service = layered(world.layer.clone());
    let request = Request::get("/vapid").body(full("")).unwrap();
    let answer = text(service.oneshot(request).await.unwrap()).await;
    assert_eq!(answer.1, "inner /vapid true");
    let request = Request::get("/vapid").body(full("")).unwrap();
    let answer = text(
        layered(world.layer.clone().at("/"))
            .oneshot(request)
            .await
            .unwrap(),
    )
    .await;
    assert!(answer.1.contains("vapidKey"), "the root is everything");
}

#[tokio::test]
async fn head_works_wherever_get_does() {
    let world = World::new().await;
    for path in [
        "/vapid",
        "/subscribe",
        "/ping",
        "/live",
        "/ready",
        "/openapi.json",
        "/client.js",
        "/service-worker.js",
    ] {
        let get = world.get(path).await;
        let request = Request::head(path).body(full("")).unwrap();
        let head = world.call(request).await;
        assert_eq!(head.status, get.status, "{path}");
        assert!(head.body.is_empty(), "{path}");
        assert_eq!(
            head.headers["content-length"],
            get.body.len().to_string(),
            "{path}"
        );
        assert_eq!(
            head.headers["content-type"], get.headers["content-type"],
            "{path}"
        );
    }
    let stats = world.admin(Method::HEAD, "/stats", &Value::Null).await;
    assert!(stats.status == 200 && stats.body.is_empty());
    let unknown = world
        .call(Request::head("/x").body(full("")).unwrap())
        .await;
    assert!(unknown.status == 404 && unknown.body.is_empty());
}

#[tokio::test]
async fn another_method_or_path_is_refused() {
    let world = World::new().await;
    for (method, path, allow) in [
        (Method::PUT, "/subscribe", "GET, HEAD, POST"),
        (Method::GET, "/notify", "POST"),
        (Method::POST, "/ping", "GET, HEAD"),
        (Method::OPTIONS, "/vapid", "GET, HEAD"),
        (Method::PUT, "/broadcasts/x", "GET, HEAD, PATCH, DELETE"),
    ] {
        let request = Request::builder().method(&method).uri(path);
        let answer = world.call(request.body(full("")).unwrap()).await;
        answer.is(405, "method_not_allowed");
        assert_eq!(answer.headers["allow"], allow);
    }
    for path in ["/", "/vapid/", "/metrics", "/broadcast", "/.."] {
        world.get(path).await.is(404, "not_found");
    }
}

/// A public mount without administrators, and an internal one with a token, of one `WebPush`.
fn two_mounts(push: &WebPush) -> Router {
    let public = ApiSettings::new()
        .require_principal(true)
        .public_requests_per_minute(2);
    let token = AdminCredentials::new().with_bearer_token("an-admin-token");
    let internal = ApiSettings::new()
        .authorizer(token.unwrap())
        .public_requests_per_minute(1);
    Router::new()
        .nest_service("/web-push", push.service().with(public))
        .nest_service("/internal/web-push", push.service().with(internal))
}

/// The status and `code` of an answer.
async fn ask(app: &Router, mut request: Request<Full<Bytes>>) -> (u16, String) {
    let peer = PeerAddr::new("192.0.2.1".parse().unwrap());
    request.extensions_mut().insert(peer);
    let request = request.map(axum::body::Body::new);
    let (status, text) = text(app.clone().oneshot(request).await.unwrap()).await;
    let json: Value = serde_json::from_str(&text).unwrap();
    (status, json["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn only_the_internal_mount_has_administrators() {
    let world = World::new().await;
    let app = two_mounts(&world.push);
    for (mount, status, code) in [
        ("/web-push", 403, "admin_not_configured"),
        ("/internal/web-push", 200, ""),
    ] {
        for (method, path, body, accepted) in [
            (Method::GET, "/stats", "", 200),
            (Method::POST, "/notify", r#"{"title":"x"}"#, 202),
            (Method::POST, "/regenerate-vapid", "", 200),
        ] {
            let request = Request::builder()
                .method(&method)
                .uri(format!("{mount}{path}"))
                .header("content-type", "application/json")
                .header("authorization", super::TOKEN);
            let answer = ask(&app, request.body(full(body)).unwrap()).await;
            let status = if status == 200 { accepted } else { status };
            assert_eq!(answer, (status, code.to_owned()), "{mount}{path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_mount_counts_the_requests_of_a_peer_by_itself() {
    let world = World::new().await;
    let app = two_mounts(&world.push);
    let (_, json) = world.browser();
    let subscribe = async |mount: &str, principal: Option<&str>| {
        let mut request = post(&format!("{mount}/subscribe"), &json);
        if let Some(principal) = principal {
            request.extensions_mut().insert(Principal::from(principal));
        }
        ask(&app, request).await.0
    };
    // The mounts have different rules, but share the subscriptions.
    assert_eq!(subscribe("/web-push", None).await, 403);
    assert_eq!(subscribe("/web-push", Some("alice")).await, 200);
    assert_eq!(subscribe("/web-push", Some("alice")).await, 429);
    assert_eq!(subscribe("/internal/web-push", Some("alice")).await, 200);
    assert_eq!(subscribe("/internal/web-push", Some("alice")).await, 429);
    assert_eq!(world.count().await, 1);
}
