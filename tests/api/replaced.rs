//! The clients of the two servers that this API replaces, as they are, under both prefixes.

use std::convert::Infallible;

use base64ct::Encoding as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::{Answer, PASSWORD, TOKEN, World, full, with};

/// A browser's script or a shell, which knows where the server is mounted.
struct Client<'a> {
    world: &'a World,
    at: &'static str,
}

impl Client<'_> {
    async fn call(
        &self,
        method: &str,
        path: &str,
        authorization: Option<&str>,
        body: Option<&Value>,
    ) -> Answer {
        let inner = service_fn(|_: Request<Full<Bytes>>| async {
            Ok::<_, Infallible>(Response::new(full("the application's own page")))
        });
        let layer = self.world.push.layer().at("/api").at("/web-push");
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.at));
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map(ToString::to_string).unwrap_or_default();
        let request = request.body(full(body)).unwrap();
        let response = layer.layer(inner).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, None, Some(body)).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None, None).await
    }
}

#[tokio::test]
async fn the_flask_and_redis_demo() {
    for at in ["/api", "/web-push"] {
        let world = World::new().await;
        let client = Client { world: &world, at };
        let key = client.get("/subscribe").await;
        let (browser, json) = world.browser();
        assert_eq!(
            key.json()["public_key"],
            world.push.vapid_public_key().to_base64url()
        );
        let subscribed = client.post("/subscribe", &json).await;
        assert_eq!(subscribed.status, 200);

        let hello = json!({"title": "Hello", "body": "World", "url": "/orders/7"});
        let stranger = client.post("/notify", &hello).await;
        assert_eq!(stranger.status, 401);
        let queued = client
            .call("POST", "/notify", Some(TOKEN), Some(&hello))
            .await;
        assert_eq!(
            (queued.status, queued.message().as_str()),
            (202, "1 notification(s) queued")
        );
        world.settle().await;
        let mut received: Value = browser.messages()[0].json().unwrap();
        received.as_object_mut().unwrap().remove("tag").unwrap();
        assert_eq!(received, hello);

        let end = json!({"client_uuid": subscribed.json()["id"]});
        let ended = client.post("/unsubscribe", &end).await;
        assert_eq!(
            ended.json(),
            json!({"success": true, "message": "unsubscribed"})
        );
        let empty = client
            .post("/unsubscribe", &json!({"client_uuid": ""}))
            .await;
        assert_eq!(
            (empty.status, empty.message().as_str()),
            (400, "client_uuid is required")
        );
        assert_eq!(world.count().await, 0);
    }
}

#[tokio::test]
async fn the_flask_and_sqlalchemy_server() {
    for at in ["/web-push", "/api"] {
        let world = World::new().await;
        let client = Client { world: &world, at };
        let key = client.get("/vapid").await;
        assert_eq!(
            key.json()["vapidKey"],
            world.push.vapid_public_key().to_base64url()
        );
        let (browser, json) = world.browser();
        let daily = json!({"notifyTime": {"utcHour": 22, "minute": 5}});
        let direct = json!({
            "notifyTime": {"utcHour": 7, "minute": 0},
            "notifyType": "DIRECT_NOTIFICATION",
            "message": "Time to stretch",
        });
        for members in [daily, direct] {
            let answer = client.post("/subscribe", &with(&json, members)).await;
            assert_eq!(
                (answer.status, &answer.json()["success"]),
                (200, &json!(true))
            );
        }
        world.settle().await;
        let thanks: Value = browser.messages()[0].json().unwrap();
        assert_eq!(thanks["title"], "Subscription Successful");

        let test = client.post("/send-test", &json).await;
        assert_eq!((test.status, &test.json()["success"]), (200, &json!(true)));
        let test: Value = browser.messages()[1].json().unwrap();
        assert_eq!(
            test,
            json!({"title": "Test Notification", "message": "This is a test notification."})
        );

        let ping = client.get("/ping").await;
        assert!(
            ping.text().starts_with("pong ") && ping.text().contains("latest subscription run at ")
        );

        let wrong = client
            .call(
                "POST",
                "/regenerate-vapid",
                Some("Basic YWRtaW46YWRtaW4="),
                None,
            )
            .await;
        assert_eq!(
            (wrong.status, &wrong.json()["error"]),
            (401, &json!("Wrong password"))
        );
        let right = base64ct::Base64::encode_string(format!("admin:{PASSWORD}").as_bytes());
        let right = format!("Basic {right}");
        let made = client
            .call("POST", "/regenerate-vapid", Some(&right), None)
            .await;
        assert_eq!(made.message(), "VAPID keys regenerated successfully");

        let one = json!({"endpoint": json["endpoint"], "notifyType": "DIRECT_NOTIFICATION"});
        let rest = json!({"endpoint": json["endpoint"]});
        for body in [one, rest.clone(), rest] {
            let ended = client.post("/unsubscribe", &body).await;
            assert_eq!(
                (ended.status, ended.message().as_str()),
                (200, "Subscription deleted successfully")
            );
        }
        assert_eq!(world.count().await, 0);
        let nothing = client.post("/unsubscribe", &json!({})).await;
        assert_eq!(
            (nothing.status, nothing.message().as_str()),
            (400, "Missing endpoint information")
        );
        let gone = client.post("/send-test", &json).await;
        assert_eq!(
            (gone.status, gone.message().as_str()),
            (404, "Subscription not found")
        );
    }
}
