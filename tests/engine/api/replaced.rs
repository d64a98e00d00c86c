//! Clients of the two replaced servers, unchanged, under both prefixes.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_web_push::testing::UserAgent;

use super::{PASSWORD, World, full};
use crate::support::replay::{self, Answered, Asked, Secrets, Server, replay};

const SECRETS: Secrets = Secrets {
    token: "an-admin-token",
    password: PASSWORD,
};

/// A browser's script or a shell script, with the address of the mount.
struct Client<'a> {
    world: &'a World,
    at: &'static str,
    browser: UserAgent,
    read: AtomicUsize,
}

impl Server for Client<'_> {
    async fn ask(&self, asked: Asked<'_>) -> Answered {
        let inner = service_fn(|_: Request<Full<Bytes>>| async {
            Ok::<_, Infallible>(Response::new(full("the application's own page")))
        });
        let layer = self.world.layer.clone().at("/api").at("/web-push");
        let mut request = Request::builder()
            .method(asked.exchange.method)
            .uri(format!("{}{}", self.at, asked.exchange.path));
        if let Some(value) = asked.authorization {
            request = request.header("authorization", value);
        }
        if let Some(value) = asked.exchange.content_type {
            request = request.header("content-type", value);
        }
        let body = asked.body.map(|body| body.to_string()).unwrap_or_default();
        let request = request.body(full(body)).unwrap();
        let response = layer.layer(inner).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let challenge = parts.headers.get("www-authenticate");
        Answered {
            status: parts.status.as_u16(),
            challenge: challenge.map(|value| value.to_str().unwrap().to_owned()),
            text: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    async fn next(&self) -> Value {
        self.world.settle().await;
        let read = self.read.fetch_add(1, Ordering::Relaxed);
        let messages = self.browser.messages();
        assert_eq!(messages.len(), read + 1, "one push and no other");
        messages[read].json().unwrap()
    }
}

#[tokio::test]
async fn the_flask_and_redis_demo() {
    for at in ["/api", "/web-push"] {
        let world = World::new().await;
        let (browser, json) = world.browser();
        let key = world.push.vapid_public_key().to_base64url();
        let client = Client {
            world: &world,
            at,
            browser,
            read: AtomicUsize::new(0),
        };
        replay(replay::demo(&json, &key), &client, &SECRETS).await;
        assert_eq!(world.count().await, 0);
    }
}

#[tokio::test]
async fn the_flask_and_sqlalchemy_server() {
    for at in ["/web-push", "/api"] {
        let world = World::with_api(|s| s.server_version("7.8.9")).await;
        let (browser, json) = world.browser();
        let key = world.push.vapid_public_key().to_base64url();
        let client = Client {
            world: &world,
            at,
            browser,
            read: AtomicUsize::new(0),
        };
        replay(replay::server(&json, &key, "7.8.9"), &client, &SECRETS).await;
        assert_eq!(world.count().await, 0);
    }
}
