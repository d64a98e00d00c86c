//! What clients get over HTTP.

use std::fs;
use std::path::Path;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::{TOKEN, World, next, notify, subscription};

pub(crate) async fn the_page_may_do_nothing_but_what_it_needs(name: &str) {
    let world = World::new().await;
    let (_server, client) = world.start(name, &[]).await;
    let mut paths: Vec<String> = vec!["/".to_owned()];
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/assets");
    for file in fs::read_dir(assets).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        if name != "index.html" {
            paths.push(format!("/{name}"));
        }
    }
    assert!(paths.len() > 10, "{paths:?}");
    for path in &paths {
        let answer = client.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let content_type = match path.rsplit('.').next() {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("webmanifest") => "application/manifest+json",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(answer.header("content-type"), content_type);
        let length = answer.body.len().to_string();
        assert_eq!(answer.header("content-length"), length);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
    let page = client.get("/").await;
    let page = page.text();
    assert!(page.contains("<script type=\"module\" src=\"/app.js\"></script>"));
    assert_eq!(page.matches("<script").count(), 1);
    for inline in [
        "<style",
        " style=",
        " onclick=",
        " onsubmit=",
        "javascript:",
    ] {
        assert!(!page.contains(inline), "{inline}");
    }
    for path in paths.iter().filter(|path| path.ends_with(".js")) {
        let script = client.get(path).await;
        for markup in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "from \"http",
        ] {
            assert!(!script.text().contains(markup), "{path}: {markup}");
        }
    }
    for path in [
        "/api/client.js",
        "/web-push/client.js",
        "/web-push/service-worker.js",
    ] {
        let answer = client.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert!(answer.header("content-type").starts_with("text/javascript"));
    }
    assert_eq!(client.get("/nothing").await.status, StatusCode::NOT_FOUND);
    let post = client.post("/", &json!({})).await;
    assert_eq!(post.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(post.header("allow"), "GET, HEAD");
}

pub(crate) async fn a_client_of_the_flask_and_redis_demo_works_unchanged(name: &str) {
    let world = World::new().await;
    let (_server, client) = world.start(name, &[]).await;
    let browser = world.push_service.user_agent();

    let key = client.get("/api/subscribe").await;
    assert_eq!(key.status, StatusCode::OK);
    assert_eq!(key.json()["public_key"].as_str().unwrap().len(), 87);
    let body = subscription(&client, &browser, json!({})).await;
    let subscribed = client.post("/api/subscribe", &body).await;
    assert_eq!(subscribed.status, StatusCode::OK, "{subscribed:?}");

    let content = json!({"title": "Hello", "body": "World", "url": "/orders/7"});
    let sent = notify(&client, "/api/notify", &content).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED, "{sent:?}");
    assert_eq!(sent.json()["message"], "1 notification(s) queued");
    assert_eq!(next(&browser).await.json::<Value>().unwrap(), content);

    let id = &subscribed.json()["id"];
    let left = client
        .post("/api/unsubscribe", &json!({"client_uuid": id}))
        .await;
    assert_eq!(left.json()["message"], "unsubscribed", "{left:?}");
    let sent = notify(&client, "/api/notify", &content).await;
    assert_eq!(sent.json()["recipients"], 0);
}

pub(crate) async fn a_client_of_the_flask_and_sqlite_server_works_unchanged(name: &str) {
    let world = World::new().await;
    let (_server, client) = world.start(name, &[("PUSH_SERVER_VERSION", "7.8.9")]).await;
    let browser = world.push_service.user_agent();

    let ping = client.get("/web-push/ping").await;
    assert!(ping.text().starts_with("pong"), "{ping:?}");
    assert!(ping.text().contains("version 7.8.9"), "{ping:?}");

    let daily = json!({
        "notifyTime": {"utcHour": 12, "minute": 30},
        "notifyType": "DAILY_CHECK",
        "message": "Time to check",
    });
    let body = subscription(&client, &browser, daily).await;
    let subscribed = client.post("/web-push/subscribe", &body).await;
    assert_eq!(subscribed.json()["success"], true, "{subscribed:?}");
    let confirmation = next(&browser).await.json::<Value>().unwrap();
    assert_eq!(confirmation["title"], "Subscription Successful");

    let test = json!({"endpoint": body["endpoint"], "keys": body["keys"]});
    let test = client.post("/web-push/send-test", &test).await;
    assert_eq!(test.json()["success"], true, "{test:?}");
    let received = next(&browser).await.json::<Value>().unwrap();
    assert_eq!(received["title"], "Test Notification");

    let missing = client.post("/web-push/unsubscribe", &json!({})).await;
    assert_eq!(missing.status, StatusCode::BAD_REQUEST);
    assert_eq!(missing.json()["message"], "Missing endpoint information");
    let endpoint = json!({"endpoint": body["endpoint"]});
    let left = client.post("/web-push/unsubscribe", &endpoint).await;
    assert_eq!(left.json()["message"], "Subscription deleted successfully");
}

pub(crate) async fn the_admin_routes_and_the_metrics_want_credentials(name: &str) {
    let world = World::new().await;
    let (_server, client) = world.start(name, &[]).await;
    // admin:correct horse battery staple
    let basic = "Basic YWRtaW46Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ==";
    for path in ["/web-push/stats", "/metrics"] {
        let nobody = client.get(path).await;
        assert_eq!(nobody.status, StatusCode::UNAUTHORIZED, "{path}");
        let challenge = nobody.header("www-authenticate");
        assert_eq!(challenge, "Basic realm=\"Login Required\"");
        let other = client.call(Method::GET, path).bearer("other").send().await;
        assert_eq!(other.status, StatusCode::UNAUTHORIZED, "{path}");
        let token = client.call(Method::GET, path).bearer(TOKEN).send().await;
        assert_eq!(token.status, StatusCode::OK, "{path}");
        let call = client.call(Method::GET, path);
        let password = call.header("authorization", basic).send().await;
        assert_eq!(password.status, StatusCode::OK, "{path}");
    }

    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({})).await;
    client.post("/web-push/subscribe", &body).await;
    let content = json!({"title": "Counted"});
    let call = client.call(Method::POST, "/web-push/notify").bearer(TOKEN);
    let sent = call.header("prefer", "wait=30").json(&content).send().await;
    assert_eq!(sent.status, StatusCode::OK, "{sent:?}");
    let metrics = client
        .call(Method::GET, "/metrics")
        .bearer(TOKEN)
        .send()
        .await;
    assert!(
        metrics
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    for line in [
        "# TYPE web_push_finished_total counter",
        "web_push_finished_total{outcome=\"accepted\"} 1",
        "web_push_subscriptions{state=\"live\"} 1",
        "web_push_ledger_rows 0",
    ] {
        assert!(
            metrics.text().lines().any(|other| other == line),
            "{line}: {}",
            metrics.text()
        );
    }
}
