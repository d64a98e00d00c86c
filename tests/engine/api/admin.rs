use std::time::Duration;

use http::request::Parts;
use http::{Method, Request};
use serde_json::{Value, json};
use tower_web_push::api::{AdminAction, AdminCredentials, Authorizer, Denied};

use super::{Answer, NO_ID, PASSWORD, World, admin_routes, full};

async fn ask(world: &World, method: &Method, path: &str, authorization: Option<&str>) -> Answer {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json");
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    let body = full(json!({"title": "a"}).to_string());
    world.call(request.body(body).unwrap()).await
}

fn basic(pair: &str) -> String {
    use base64ct::Encoding as _;
    format!("Basic {}", base64ct::Base64::encode_string(pair.as_bytes()))
}

#[tokio::test]
async fn every_admin_route_asks_for_credentials() {
    for (method, path) in &admin_routes() {
        let world = World::new().await;
        let key = world.push.vapid_public_key();
        let wrong = basic("admin:not the password");
        let user = basic(&format!("root:{PASSWORD}"));
        for refused in [
            None,
            Some("Bearer x"),
            Some("Basic"),
            Some("x"),
            Some(&*wrong),
            Some(&*user),
        ] {
            let answer = ask(&world, method, path, refused).await;
            answer.is(401, "wrong_credentials");
            assert_eq!(answer.json()["error"], "Wrong password");
            assert_eq!(
                answer.headers["www-authenticate"],
                "Basic realm=\"Login Required\""
            );
        }
        assert_eq!(world.push.vapid_public_key(), key);
        for good in [
            "Bearer an-admin-token",
            &basic(&format!("admin:{PASSWORD}")),
        ] {
            let answer = ask(&world, method, path, Some(good)).await;
            assert!(
                !matches!(answer.status, 401 | 403),
                "{method} {path} {}",
                answer.status
            );
        }
    }
}

#[tokio::test]
async fn without_credentials_admin_routes_are_refused() {
    let world = World::with_api(|s| s.authorizer(AdminCredentials::new())).await;
    for (method, path) in &admin_routes() {
        for credentials in [None, Some("Bearer x"), Some("Basic YWRtaW46YWRtaW4=")] {
            let answer = ask(&world, method, path, credentials).await;
            answer.is(403, "admin_not_configured");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn passwords_are_limited_to_ten_a_minute() {
    let world = World::new().await;
    let wrong = basic("admin:not the password");
    let right = basic(&format!("admin:{PASSWORD}"));
    for _ in 0..10 {
        ask(&world, &Method::GET, "/stats", Some(&wrong))
            .await
            .is(401, "wrong_credentials");
    }
    let refused = ask(&world, &Method::GET, "/stats", Some(&right)).await;
    refused.is(429, "too_many_failures");
    let wait: u64 = refused.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    let token = ask(
        &world,
        &Method::GET,
        "/stats",
        Some("Bearer an-admin-token"),
    )
    .await;
    assert_eq!(token.status, 200);
    tokio::time::advance(Duration::from_secs(wait)).await;
    assert_eq!(
        ask(&world, &Method::GET, "/stats", Some(&right))
            .await
            .status,
        200
    );
}

/// An application with roles of its own.
#[derive(Debug)]
struct OnlyReading;

#[async_trait::async_trait]
impl Authorizer for OnlyReading {
    async fn authorize(&self, action: AdminAction, parts: &Parts) -> Result<(), Denied> {
        match (parts.headers.get("x-role"), action) {
            (None, _) => Err(Denied::WrongCredentials),
            (Some(_), AdminAction::ShowStats | AdminAction::ShowBroadcast) => Ok(()),
            (Some(_), AdminAction::Notify) => Err(Denied::Unavailable),
            (Some(_), _) => Err(Denied::Forbidden),
        }
    }
}

#[tokio::test]
async fn an_application_decides_by_its_own_rule() {
    let world = World::with_api(|s| s.authorizer(OnlyReading)).await;
    for (method, path) in &admin_routes() {
        ask(&world, method, path, None)
            .await
            .is(401, "wrong_credentials");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("x-role", "reader");
        let answer = world.call(request.body(full("")).unwrap()).await;
        match (method.as_str(), path.as_str()) {
            ("GET", "/stats") => assert_eq!(answer.status, 200),
            ("GET", path) if path.ends_with(NO_ID) => answer.is(404, "unknown_broadcast"),
            ("POST", "/notify") => answer.is(503, "authorizer_unavailable"),
            _ => answer.is(403, "forbidden"),
        }
    }
}

#[tokio::test]
async fn credentials_come_before_the_body() {
    let world = World::new().await;
    let request = Request::post("/notify").header("content-length", "99999999");
    world
        .call(request.body(full("x")).unwrap())
        .await
        .is(401, "wrong_credentials");
}

#[tokio::test]
async fn cached_basic_credentials_do_not_work_for_another_site() {
    let world = World::new().await;
    let request = Request::post("/regenerate-vapid")
        .header("authorization", basic(&format!("admin:{PASSWORD}")))
        .header("sec-fetch-site", "cross-site");
    world
        .call(request.body(full("")).unwrap())
        .await
        .is(403, "cross_site");
}

/// An application whose administrators are known by what the connection shows: a certificate, an address, Kerberos.
#[derive(Debug)]
struct ByConnection;

#[derive(Clone)]
struct Certificate;

#[async_trait::async_trait]
impl Authorizer for ByConnection {
    async fn authorize(&self, _: AdminAction, parts: &Parts) -> Result<(), Denied> {
        match parts.extensions.get::<Certificate>() {
            Some(Certificate) => Ok(()),
            None => Err(Denied::WrongCredentials),
        }
    }
}

#[tokio::test]
async fn what_browsers_show_by_themselves_does_not_work_for_another_site() {
    let world = World::with_api(|s| s.authorizer(ByConnection)).await;
    let post = async |headers: &[(&str, &str)]| {
        let mut request = Request::post("/regenerate-vapid").extension(Certificate);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        world.call(request.body(full("")).unwrap()).await
    };
    for another_site in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
    ] {
        post(&[another_site]).await.is(403, "cross_site");
        let negotiated = ("authorization", "Negotiate YII=");
        post(&[another_site, negotiated])
            .await
            .is(403, "cross_site");
        // No form sends it, and no page of another site may set it unless it is allowed to.
        let answer = post(&[another_site, ("authorization", "Bearer x")]).await;
        assert_eq!(answer.status, 200, "{another_site:?}");
    }
    for own in [&[][..], &[("sec-fetch-site", "same-origin")]] {
        assert_eq!(post(own).await.status, 200, "{own:?}");
    }
}

#[tokio::test]
async fn a_new_key_is_made_and_the_old_one_keeps_working() {
    let world = World::new().await;
    let (browser, ..) = world.subscriber().await;
    let old = world.push.vapid_public_key();
    let answer = world
        .admin(Method::POST, "/regenerate-vapid", &Value::Null)
        .await;
    assert_eq!(answer.status, 200);
    let new = world.push.vapid_public_key();
    assert_ne!(new, old);
    assert_eq!(
        answer.json(),
        json!({"success": true, "message": "VAPID keys regenerated successfully", "keyId": new.id().to_string()})
    );
    world.notify(&json!({"title": "a"})).await;
    world.settle().await;
    assert_eq!(browser.messages().len(), 1);
}
