//! A push service on a real socket, a folder, and a server that uses both.

use std::time::Duration;

use axum::Router;
use http::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tower_web_push::subscription::Origin;
use tower_web_push::testing::{ReceivedPush, TestPushService, UserAgent};
use tower_web_push::vapid::VapidPublicKey;

use crate::support::http_client::{Answer, HttpClient};
use crate::support::server_process::ServerProcess;

pub(crate) const TOKEN: &str = "h9Jm3pXq7vTz2LkB";
pub(crate) const PASSWORD: &str = "correct horse battery staple";
const KEK: &str = "qXV4Yv1RHMbKn0gTzCZ2PjBdW8EJ_Ut3hsOl5r-Qa7k";

/// A temporary folder, a push service on a real socket, and the settings that go with them.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) push_service: TestPushService,
}

impl World {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let push_service = TestPushService::builder()
            .origin(Origin::parse(&origin).unwrap())
            .build();
        let app = Router::new().fallback_service(push_service.mount());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            folder: tempfile::tempdir().unwrap(),
            push_service,
        }
    }

    pub(crate) fn store_url(&self) -> String {
        format!("sqlite://{}", self.folder.path().join("push.db").display())
    }

    /// Starts a server with all settings it needs, and more or other ones. An empty value removes a setting.
    pub(crate) async fn start(
        &self,
        name: &str,
        more: &[(&str, &str)],
    ) -> (ServerProcess, HttpClient) {
        let store_url = self.store_url();
        let mut settings = Self::settings(&store_url);
        settings.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
        settings.extend(more.iter().filter(|(_, value)| !value.is_empty()));
        let server = ServerProcess::start(name, &settings).await;
        let client = HttpClient::new(&server.url);
        (server, client)
    }

    /// Returns the settings that a server needs.
    pub(crate) fn settings(store_url: &str) -> Vec<(&str, &str)> {
        vec![
            ("BIND", "127.0.0.1:0"),
            ("STORE_URL", store_url),
            ("VAPID_SUBJECT", "mailto:ops@example.com"),
            ("ENDPOINT_POLICY", "local"),
            ("ADMIN_TOKEN", TOKEN),
            ("ADMIN_PASSWORD", PASSWORD),
            ("KEY_ENCRYPTION_KEY", KEK),
            ("SECONDS_BETWEEN_NOTIFICATIONS", "1"),
        ]
    }
}

pub(crate) async fn vapid_key(client: &HttpClient) -> VapidPublicKey {
    let answer = client.get("/web-push/vapid").await.json();
    VapidPublicKey::parse(answer["vapidKey"].as_str().unwrap()).unwrap()
}

/// Returns the body that a page posts, with more members.
pub(crate) async fn subscription(client: &HttpClient, browser: &UserAgent, more: Value) -> Value {
    let subscription = browser.subscribe(&vapid_key(client).await).unwrap();
    let mut body = serde_json::to_value(subscription).unwrap();
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

pub(crate) async fn notify(client: &HttpClient, path: &str, content: &Value) -> Answer {
    let call = client.call(Method::POST, path).bearer(TOKEN);
    call.json(content).send().await
}

pub(crate) async fn next(browser: &UserAgent) -> ReceivedPush {
    timeout(Duration::from_secs(120), browser.next())
        .await
        .expect("nothing arrives")
}
