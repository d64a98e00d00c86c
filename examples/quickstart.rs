//! Everything in one process, without a network or a browser:
//! `cargo run --example quickstart --features testing`.

use std::error::Error;

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::Full;
use tower::ServiceExt as _;
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::testing::TestPushService;
use tower_web_push::{Audience, Notification, WebPush};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A push service and a browser, as strict as real ones. An application leaves out `client` and the policy: then
    // it sends over HTTP/2, and only to the push services of browsers.
    let push_service = TestPushService::new();
    let browser = push_service.user_agent();
    let push = WebPush::builder("mailto:ops@example.com")
        .client(push_service.clone())
        .endpoint_policy(EndpointPolicy::public_hosts())
        .build()
        .await?;

    // The page subscribes with the server's key, and posts the subscription to the HTTP API that the application
    // mounts.
    let subscription = serde_json::to_string(&browser.subscribe(&push.vapid_public_key())?)?;
    let request = Request::post("/subscribe")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::<Bytes>::from(subscription))?;
    let answer = push.service().oneshot(request).await?;
    println!("subscribed: {}", answer.status());

    // One future delivers every message from now on, also those of other parts of the application.
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(push.run(async { stopped.await.unwrap_or_default() }));
    let hello = Notification::new("Shipped").body("Order 7 is on its way");
    push.enqueue(Audience::All, hello).await?;

    // The message in the browser's service worker, decrypted.
    let received = browser.next().await;
    println!("received: {}", received.text().unwrap_or_default());

    drop(stop);
    running.await??;
    Ok(())
}
