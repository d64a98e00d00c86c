//! Data that survives the process.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tower_web_push::testing::{Answer, When};
use tower_web_push::vapid::VapidKey;

use super::world::{TOKEN, World, next, notify, subscription, vapid_key};
use crate::support::http_client::HttpClient;
use crate::support::server_process::{command, finish};

pub(crate) async fn a_restart_keeps_keys_subscriptions_and_what_is_due(name: &str) {
    let world = World::new().await;
    let browser = world.push_service.user_agent();
    let (server, client) = world.start(name, &[]).await;
    let key = vapid_key(&client).await;
    let body = subscription(&client, &browser, json!({})).await;
    client.post("/web-push/subscribe", &body).await;
    // Shut down cleanly ...
    let status = server.terminate().await;
    assert_eq!(status.code(), Some(0));

    let (server, client) = world.start(name, &[]).await;
    assert_eq!(vapid_key(&client).await, key);
    let sent = notify(
        &client,
        "/web-push/notify",
        &json!({"title": "After the drain"}),
    )
    .await;
    assert_eq!(sent.json()["recipients"], 1);
    let received = next(&browser).await.json::<Value>().unwrap();
    assert_eq!(received["title"], "After the drain");
    // ... or killed: an accepted message is sent after the next start.
    world.push_service.script(
        When::any(),
        Answer::status(StatusCode::SERVICE_UNAVAILABLE).with_retry_after(1),
    );
    let sent = notify(&client, "/web-push/notify", &json!({"title": "Accepted"})).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED);
    // If it were killed during the attempt, the row would wait until its lease expires, 45 s.
    wait_until_nothing_is_leased(&world, &client).await;
    server.kill().await;
    world.push_service.clear_script();

    let (server, client) = world.start(name, &[]).await;
    assert_eq!(vapid_key(&client).await, key);
    let received = next(&browser).await.json::<Value>().unwrap();
    assert_eq!(received["title"], "Accepted");
    server.terminate().await;

    // The stored key cannot be decrypted under another key-encryption key: no start, no new key.
    let store_url = world.store_url();
    let other = [
        ("STORE_URL", store_url.as_str()),
        ("BIND", "127.0.0.1:0"),
        ("RUST_LOG", "off"),
        (
            "KEY_ENCRYPTION_KEY",
            "q7Rt0ZbWm3xPdLh9Yc5VnA2sKfE8uJgT4iO6wD1yBXk",
        ),
    ];
    let output = finish(command(name, &other)).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(str::from_utf8(&output.stderr).unwrap().lines().count(), 1);
}

pub(crate) async fn wait_until_nothing_is_leased(world: &World, client: &HttpClient) {
    world
        .push_service
        .wait_until(|counts| counts.scripted > 0)
        .await;
    let settled = async {
        loop {
            let stats = client.call(Method::GET, "/web-push/stats").bearer(TOKEN);
            let stats = stats.send().await.json();
            if stats["ledger"]["leased"] == 0 {
                assert_eq!(stats["ledger"]["depth"], 1, "{stats}");
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), settled)
        .await
        .expect("the attempt does not end");
}

pub(crate) async fn memory_is_forgotten(name: &str) {
    let world = World::new().await;
    let memory = [("STORE_URL", "memory:"), ("VAPID_PRIVATE_KEY", "")];
    let (server, client) = world.start(name, &memory).await;
    let key = vapid_key(&client).await;
    assert_eq!(server.terminate().await.code(), Some(0));
    let (server, client) = world.start(name, &memory).await;
    assert_ne!(vapid_key(&client).await, key);
    assert_eq!(server.terminate().await.code(), Some(0));
    // A given key is imported.
    let given = VapidKey::generate().unwrap();
    let text = given.secret_to_pkcs8_pem();
    let memory = [
        ("STORE_URL", "memory:"),
        ("VAPID_PRIVATE_KEY", text.as_str()),
    ];
    let (_server, client) = world.start(name, &memory).await;
    assert_eq!(vapid_key(&client).await, *given.public_key());
}
