//! `check`: what is wrong, in words.

use http::StatusCode;
use serde_json::json;
use tower_web_push::WebPush;
use tower_web_push::store::{SqliteStore, VapidKeyStore as _};
use tower_web_push::testing::{Answer, When};
use tower_web_push::vapid::KeyEncryptionKeys;

use super::world::{PASSWORD, TOKEN, World, subscription};
use crate::support::server_process::{command, finish};

/// Runs it with more or other settings; an empty value removes a setting.
async fn check(
    world: &World,
    name: &str,
    more: &[(&str, &str)],
    arguments: &[&str],
) -> (Option<i32>, String) {
    let store_url = world.store_url();
    let mut settings = World::settings(&store_url);
    settings.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
    settings.extend(more.iter().filter(|(_, value)| !value.is_empty()));
    let mut command = command(name, &settings);
    command.arg("check").args(arguments);
    let output = finish(command).await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for secret in [TOKEN, PASSWORD, "hunter2", "qXV4Yv1RHMbKn0gTzCZ2PjBdW8EJ"] {
        assert!(!said.contains(secret), "{said}");
    }
    (output.status.code(), said)
}

pub(crate) async fn what_is_wrong_is_said_in_words(name: &str) {
    let world = World::new().await;
    let (code, said) = check(&world, name, &[], &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("WRONG store: STORE_URL: there is no file"),
        "{said}"
    );
    // It created none.
    assert!(!world.folder.path().join("push.db").exists());
    let (server, _) = world.start(name, &[]).await;
    let (code, said) = check(&world, name, &[], &[]).await;
    assert_eq!(code, Some(0), "{said}");
    for found in [
        "ok    settings",
        "ok    contact: mailto:ops@example.com",
        "ok    store: SQLite",
        "ok    store: it can be written",
        "ok    keys: all can be read",
        "ok    queue: 0 messages",
        "Nothing is wrong.",
    ] {
        assert!(said.contains(found), "{found}: {said}");
    }
    for (setting, value, found) in [
        (
            "VAPID_SUBJECT",
            "",
            "WRONG contact: VAPID_SUBJECT is not set",
        ),
        ("VAPID_SUBJECT", "ops", "WRONG settings: VAPID_SUBJECT"),
        (
            "KEY_ENCRYPTION_KEY",
            "YlCsc3nGpXoMCfZ0ntyb2bL+J5cA6tIEHmvbzS5oOY4=",
            "WRONG keys: ",
        ),
        ("EXPECT_VAPID_KEY", "AAAAAAAAAAAAAAAAAAAAAA", "WRONG keys: "),
        (
            "STORE_URL",
            "postgres://push:hunter2@127.0.0.1:1/push",
            "WRONG store: STORE_URL: the store is unavailable",
        ),
    ] {
        let (code, said) = check(&world, name, &[(setting, value)], &[]).await;
        assert_eq!(code, Some(1), "{setting}: {said}");
        assert!(said.contains(found), "{setting}: {said}");
        assert!(said.contains("is wrong."), "{said}");
    }
    assert_eq!(server.terminate().await.code(), Some(0));
}

/// Neither a first start nor a new KEY_ENCRYPTION_KEY is anticipated.
pub(crate) async fn a_check_changes_nothing(name: &str) {
    let world = World::new().await;
    let path = world.folder.path().join("push.db");
    std::fs::write(&path, "").unwrap();
    let (code, said) = check(&world, name, &[], &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("push.db is empty"), "{said}");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    // A store without keys is what a first start finds.
    let store = SqliteStore::open(&path).await.unwrap();
    let (code, said) = check(&world, name, &[], &[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("note  store: it is empty"), "{said}");
    assert!(store.keys().await.unwrap().is_empty());
    store.close().await.unwrap();
    let (server, _) = world.start(name, &[]).await;
    assert_eq!(server.terminate().await.code(), Some(0));
    let settings = World::settings("");
    let kek = settings
        .iter()
        .find(|(name, _)| *name == "KEY_ENCRYPTION_KEY");
    let keks = format!(
        "YlCsc3nGpXoMCfZ0ntyb2bL+J5cA6tIEHmvbzS5oOY4=,{}",
        kek.unwrap().1
    );
    let store = SqliteStore::open(&path).await.unwrap();
    let before = store.keys().await.unwrap();
    let (code, said) = check(&world, name, &[("KEY_ENCRYPTION_KEY", &keks)], &[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("ok    keys: all can be read"), "{said}");
    assert_eq!(store.keys().await.unwrap(), before);
    // A test message is signed with the key of its row.
    let (server, client) = world.start(name, &[]).await;
    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({})).await;
    let answer = client.post("/web-push/subscribe", &body).await;
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(server.terminate().await.code(), Some(0));
    let push = WebPush::builder("mailto:ops@example.com")
        .store(store.clone())
        .key_encryption_keys(KeyEncryptionKeys::parse(kek.unwrap().1).unwrap());
    push.build()
        .await
        .unwrap()
        .rotate_vapid_key()
        .await
        .unwrap();
    let arguments = ["--subscription", &id, "--send"];
    let (code, said) = check(&world, name, &[], &arguments).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("ok    sent: the push service accepted"),
        "{said}"
    );
    super::world::next(&browser).await;
    store.close().await.unwrap();
}

pub(crate) async fn a_subscription_is_explained(name: &str) {
    let world = World::new().await;
    let (server, client) = world.start(name, &[]).await;
    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({})).await;
    let answer = client.post("/web-push/subscribe", &body).await;
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let (code, said) = check(&world, name, &[], &["--subscription", &id]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("it gets messages"), "{said}");
    assert!(said.contains("it can be reached"), "{said}");
    let endpoint = body["endpoint"].as_str().unwrap();
    assert!(!said.contains(endpoint), "{said}");
    // By its endpoint, in a file.
    let file = world.folder.path().join("endpoint");
    std::fs::write(&file, format!("{endpoint}\n")).unwrap();
    let arguments = ["--subscription", file.to_str().unwrap(), "--send"];
    let (code, said) = check(&world, name, &[], &arguments).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("ok    sent: the push service accepted"),
        "{said}"
    );
    super::world::next(&browser).await;
    world
        .push_service
        .script(When::any(), Answer::status(StatusCode::GONE));
    let (code, said) = check(&world, name, &[], &arguments).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("WRONG sent: gone (410 Gone)"), "{said}");
    assert!(
        said.contains("The subscription does not exist any more"),
        "{said}"
    );
    let unknown = "7d1cbf1e-2c56-4a0e-a8a5-6b4f3d2f6f10";
    let (code, said) = check(&world, name, &[], &["--subscription", unknown]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("WRONG subscription: the store does not have it"),
        "{said}"
    );
    assert_eq!(server.terminate().await.code(), Some(0));
}
