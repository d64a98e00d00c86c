//! A store that is not the one it was: deleted, replaced, empty or another one.

use std::fs;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::world::{World, notify, subscription, vapid_key};
use crate::support::http_client::HttpClient;
use crate::support::server_process::{command, finish};

/// Generous: a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

async fn until_ready_is(client: &HttpClient, status: StatusCode) -> Value {
    let ready = async {
        loop {
            let ready = client.get("/web-push/ready").await;
            if ready.status == status {
                return ready.json();
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, ready).await.expect("never")
}

async fn refuses_changes(world: &World, client: &HttpClient) {
    // Within one interval, without a call.
    let red = until_ready_is(client, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(
        (&red["store"], &red["worker"]),
        (&json!(false), &json!(true))
    );
    let live = client.get("/web-push/live").await;
    assert_eq!(live.status, StatusCode::OK);
    let browser = world.push_service.user_agent();
    let body = subscription(client, &browser, json!({})).await;
    let refused = client.post("/web-push/subscribe", &body).await;
    assert_eq!(refused.json()["code"], "store_unavailable");
    let refused = notify(client, "/web-push/notify", &json!({"title": "lost"})).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
}

pub(crate) async fn a_deleted_file_refuses_changes_and_is_not_ready(name: &str) {
    let world = World::new().await;
    let (server, client) = world.start(name, &[]).await;
    until_ready_is(&client, StatusCode::OK).await;
    fs::remove_file(world.folder.path().join("push.db")).unwrap();
    refuses_changes(&world, &client).await;
    assert!(server.printed().contains("deleted while it was open"));
    server.kill().await;
}

pub(crate) async fn a_replaced_file_refuses_changes_and_is_not_ready(name: &str) {
    let world = World::new().await;
    let (server, client) = world.start(name, &[]).await;
    until_ready_is(&client, StatusCode::OK).await;
    let file = world.folder.path().join("push.db");
    let copy = world.folder.path().join("copy.db");
    fs::copy(&file, &copy).unwrap();
    fs::rename(&copy, &file).unwrap();
    refuses_changes(&world, &client).await;
    assert!(server.printed().contains("replaced while it was open"));
    server.kill().await;
}

pub(crate) async fn a_locked_file_is_not_ready_until_it_can_be_written(name: &str) {
    let world = World::new().await;
    let (server, client) = world.start(name, &[]).await;
    until_ready_is(&client, StatusCode::OK).await;
    let other = rusqlite::Connection::open(world.folder.path().join("push.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let red = until_ready_is(&client, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(red["store"], false);
    other.execute_batch("ROLLBACK").unwrap();
    until_ready_is(&client, StatusCode::OK).await;
    assert_eq!(server.terminate().await.code(), Some(0));
}

pub(crate) async fn an_empty_store_is_refused_if_it_must_not_be_created(name: &str) {
    let world = World::new().await;
    let url = world.store_url();
    let mut settings = World::settings(&url);
    settings.push(("CREATE_STORE", "false"));
    let output = finish(command(name, &settings)).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("CREATE_STORE=false"), "{said}");
    let file = world.folder.path().join("push.db");
    assert!(!file.exists());
    // A file without anything in it.
    fs::write(&file, "").unwrap();
    let output = finish(command(name, &settings)).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("the store is empty"), "{said}");

    let (server, client) = world.start(name, &[]).await;
    let key = vapid_key(&client).await;
    assert!(
        server.printed().contains("is_new=true"),
        "{}",
        server.printed()
    );
    server.terminate().await;
    let (server, client) = world.start(name, &[("CREATE_STORE", "false")]).await;
    assert_eq!(vapid_key(&client).await, key);
    assert!(
        server.printed().contains("is_new=false"),
        "{}",
        server.printed()
    );
    server.terminate().await;
}

pub(crate) async fn a_store_with_another_key_is_refused(name: &str) {
    let world = World::new().await;
    let (server, client) = world.start(name, &[]).await;
    let key = vapid_key(&client).await;
    server.terminate().await;
    for expected in [key.to_base64url(), key.id().to_string()] {
        let expected = [("EXPECT_VAPID_KEY", expected.as_str())];
        let (server, client) = world.start(name, &expected).await;
        assert_eq!(vapid_key(&client).await, key);
        server.terminate().await;
    }
    let elsewhere = World::new().await;
    let url = elsewhere.store_url();
    for expected in [key.to_base64url(), key.id().to_string()] {
        let mut settings = World::settings(&url);
        settings.push(("EXPECT_VAPID_KEY", &expected));
        let output = finish(command(name, &settings)).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        let expected = format!("expected {}, there is no key", key.id());
        assert!(said.contains(&expected), "{said}");
    }
    let mut settings = World::settings(&url);
    settings.push(("EXPECT_VAPID_KEY", "another"));
    let output = finish(command(name, &settings)).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("EXPECT_VAPID_KEY: neither"), "{said}");
}
