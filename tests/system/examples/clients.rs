//! Responses to clients over HTTP.

use std::fs;
use std::path::Path;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;
use tower_web_push::testing::UserAgent;

use super::world::{PASSWORD, TOKEN, World, next, subscription, vapid_key};
use crate::support::http_client::HttpClient;
use crate::support::replay::{self, Answered, Asked, Secrets, Server, replay};

/// The path of each file of the pages.
fn paths() -> Vec<String> {
    fn walk(folder: &Path, at: &str, paths: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{at}{name}/"), paths);
            } else if name != "index.html" {
                paths.push(format!("{at}{name}"));
            }
        }
    }
    let mut paths = vec!["/".to_owned(), "/console".to_owned()];
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/assets");
    walk(&assets, "/", &mut paths);
    assert!(paths.len() > 30, "{paths:?}");
    paths
}

pub(crate) async fn the_pages_may_do_nothing_but_what_they_need(name: &str) {
    let world = World::new().await;
    let (_server, client) = world.start(name, &[]).await;
    let paths = paths();
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
    for (page, script) in [("/", "app.js"), ("/console", "console/main.js")] {
        let page = client.get(page).await;
        let page = page.text();
        let tag = format!("<script type=\"module\" src=\"{script}\"></script>");
        assert!(page.contains(&tag), "{script}");
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
    for page in ["/", "/console"] {
        let post = client.post(page, &json!({})).await;
        assert_eq!(post.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(post.header("allow"), "GET, HEAD");
    }
}

/// Without the console the visitor's page is whole, and the API is as it was.
pub(crate) async fn the_console_can_be_switched_off(name: &str) {
    let world = World::new().await;
    let (server, client) = world.start(name, &[("CONSOLE", "false")]).await;
    for path in paths() {
        let is_console = path.starts_with("/console");
        let status = if is_console { 404 } else { 200 };
        assert_eq!(client.get(&path).await.status, status, "{path}");
    }
    let stats = client.call(Method::GET, "/web-push/stats").bearer(TOKEN);
    assert_eq!(stats.send().await.status, StatusCode::OK);
    assert!(
        !server.printed().contains("console"),
        "{}",
        server.printed()
    );
    let (server, _client) = world.start(name, &[]).await;
    let printed = format!("Operator's console: {}/console\n", server.url);
    // The second line, which may come after the address.
    while !server.printed().contains(&printed) {
        sleep(Duration::from_millis(10)).await;
    }
}

/// A client of a replaced server, under its prefix.
struct Client {
    http: HttpClient,
    at: &'static str,
    browser: UserAgent,
}

const SECRETS: Secrets = Secrets {
    token: TOKEN,
    password: PASSWORD,
};

impl Server for Client {
    async fn ask(&self, asked: Asked<'_>) -> Answered {
        let method = asked.exchange.method.parse().unwrap();
        let path = format!("{}{}", self.at, asked.exchange.path);
        let mut call = self.http.call(method, &path);
        if let Some(value) = &asked.authorization {
            call = call.header("authorization", value);
        }
        call = match (&asked.body, asked.exchange.content_type) {
            (Some(body), _) => call.json(body),
            (None, Some(content_type)) => call.header("content-type", content_type),
            (None, None) => call,
        };
        let answer = call.send().await;
        let challenge = answer.headers.get("www-authenticate");
        Answered {
            status: answer.status.as_u16(),
            challenge: challenge.map(|value| value.to_str().unwrap().to_owned()),
            text: answer.text().to_owned(),
        }
    }

    async fn next(&self) -> Value {
        next(&self.browser).await.json().unwrap()
    }
}

pub(crate) async fn a_client_of_the_flask_and_redis_demo_works_unchanged(name: &str) {
    let world = World::new().await;
    let (_server, http) = world.start(name, &[]).await;
    let browser = world.push_service.user_agent();
    let body = subscription(&http, &browser, json!({})).await;
    let key = vapid_key(&http).await.to_base64url();
    let at = "/api";
    let client = Client { http, at, browser };
    replay(replay::demo(&body, &key), &client, &SECRETS).await;
}

pub(crate) async fn a_client_of_the_flask_and_sqlite_server_works_unchanged(name: &str) {
    let world = World::new().await;
    let (_server, http) = world.start(name, &[("PUSH_SERVER_VERSION", "7.8.9")]).await;
    let browser = world.push_service.user_agent();
    let body = subscription(&http, &browser, json!({})).await;
    let key = vapid_key(&http).await.to_base64url();
    let at = "/web-push";
    let client = Client { http, at, browser };
    replay(replay::server(&body, &key, "7.8.9"), &client, &SECRETS).await;
}

pub(crate) async fn a_path_has_one_spelling(name: &str) {
    let world = World::new().await;
    let (_server, client) = world.start(name, &[]).await;
    for path in [
        "/web-push//stats",
        "/web-push///stats",
        "//web-push/stats",
        "/web-push/stats/",
        "/web-push/%73tats",
        "/web-push/./stats",
        "/web-push/../web-push/stats",
        "/api//stats",
        "//stats",
        "//metrics",
        "/metrics/",
        "/web-push//ping",
        "//",
    ] {
        let answer = client.call(Method::GET, path).bearer(TOKEN).send().await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}: {answer:?}");
    }
    for path in ["/web-push/stats", "/api/stats", "/metrics"] {
        let answer = client.call(Method::GET, path).bearer(TOKEN).send().await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
}

pub(crate) async fn the_admin_routes_and_the_metrics_want_credentials(name: &str) {
    let world = World::new().await;
    let (_server, client) = world.start(name, &[]).await;
    // admin:correct horse battery staple
    let basic = "Basic YWRtaW46Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ==";
    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({})).await;
    // Before the first look at the metrics, whose numbers of subscriptions may be a minute old.
    client.post("/web-push/subscribe", &body).await;
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
