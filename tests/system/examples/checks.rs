//! `check`: what is wrong, in words.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use rusqlite::Connection;
use serde_json::json;
use tower_web_push::clock::Timestamp;
use tower_web_push::push_service::{Pause, PauseReason};
use tower_web_push::store::{
    DeliveryLedger as _, Failure, LastFailure, PortableStore as _, RedisStore, RetireReason,
    Retired, SqliteStore, SubscriptionRecord, VapidKeyStore as _,
};
use tower_web_push::subscription::{
    AuthSecret, Endpoint, Subscription, SubscriptionId, UaPublicKey,
};
use tower_web_push::testing::{Answer, ManualClock, When};
use tower_web_push::vapid::{KeyEncryptionKeys, KeyId};
use tower_web_push::{Audience, Message, WebPush};

use super::world::{PASSWORD, TOKEN, World, subscription};
use crate::support::server_process::{command, finish};
use crate::support::servers::{Kind, shared};

const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";

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

/// A row of the store, with a key that the store has.
fn row(number: u32, key: KeyId) -> SubscriptionRecord {
    let endpoint = format!("https://updates.push.services.mozilla.com/wpush/v2/{number}");
    let subscription = Subscription::new(
        Endpoint::parse(&endpoint).unwrap(),
        UaPublicKey::parse(P256DH).unwrap(),
        AuthSecret::from_bytes(&[7; AuthSecret::LEN]).unwrap(),
    );
    let seen = ago(3 * 3600);
    SubscriptionRecord::new(SubscriptionId::random(), subscription, key, seen)
}

fn ago(secs: u64) -> Timestamp {
    Timestamp::from(SystemTime::now()) - Duration::from_secs(secs)
}

/// A store with a VAPID key, on which no server runs.
async fn made(world: &World, name: &str) -> (SqliteStore, KeyId) {
    let (server, _) = world.start(name, &[]).await;
    assert_eq!(server.terminate().await.code(), Some(0));
    let path = world.folder.path().join("push.db");
    let store = SqliteStore::open(path).await.unwrap();
    let key = store.keys().await.unwrap()[0].id;
    (store, key)
}

/// Nobody judges them, so they look as if they got messages.
pub(crate) async fn subscriptions_whose_key_is_lost_are_found(name: &str) {
    let world = World::new().await;
    let (store, key) = made(&world, name).await;
    let lost = row(1, KeyId::from_bytes([7; KeyId::LEN]));
    store.put(&[row(0, key), lost.clone()]).await.unwrap();
    let (code, said) = check(&world, name, &[], &[]).await;
    assert_eq!(code, Some(1), "{said}");
    let found =
        "WRONG keys: 1 of 2 subscriptions were made with a VAPID key that the store does not have";
    assert!(said.contains(found), "{said}");
    let id = lost.id.to_string();
    let (code, said) = check(&world, name, &[], &["--subscription", &id]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(!said.contains("it gets messages"), "{said}");
    let found = format!("WRONG subscription {id}: it was made with the VAPID key");
    assert!(said.contains(&found), "{said}");
    // It is lost for ever.
    let give_up = async |key: &str| {
        let store_url = world.store_url();
        let mut command = command(name, &World::settings(&store_url));
        command.args(["give-up-key", key]);
        finish(command).await
    };
    let output = give_up(&key.to_string()).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = give_up(&lost.vapid_key.to_string()).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains(": 1 subscriptions are stale"), "{printed}");
    let (code, said) = check(&world, name, &[], &[]).await;
    assert_eq!(code, Some(0), "{said}");
    store.close().await.unwrap();
}

pub(crate) async fn what_keeps_a_subscription_from_messages_is_said(name: &str) {
    let world = World::new().await;
    let (store, key) = made(&world, name).await;
    let failure = LastFailure::new(ago(7200), Failure::new(Some(410), Some("Gone")));
    let mut rows: Vec<_> = (0..4).map(|number| row(number, key)).collect();
    rows[0].retired = Some(Retired {
        at: ago(7200),
        reason: RetireReason::Gone,
    });
    rows[0].last_failure = Some(failure);
    rows[1].stale_since = Some(ago(7200));
    let expired = rows[2].subscription.clone();
    rows[2].subscription = expired.with_expiration_time(Some(ago(7200)));
    store.put(&rows).await.unwrap();
    let pause = Pause {
        origin: rows[3].subscription.endpoint().origin().clone(),
        until: Timestamp::from(SystemTime::now()) + Duration::from_secs(1790),
        reason: PauseReason::Unreachable,
        closures: 1,
        contact: None,
    };
    store.pause(&pause, ago(0)).await.unwrap();
    for (number, words) in [
        (
            0,
            "retired 2 hours ago: the push service said that it does not exist any more",
        ),
        (1, "stale since 2 hours ago"),
        (2, "its expiration time is past"),
        (3, "ENDPOINT_POLICY refuses its endpoint"),
    ] {
        let id = rows[number].id.to_string();
        let policy = match number {
            3 => "push.example.com",
            _ => "known",
        };
        let more = [("ENDPOINT_POLICY", policy)];
        let (code, said) = check(&world, name, &more, &["--subscription", &id]).await;
        assert_eq!(code, Some(1), "{said}");
        let found = format!("WRONG subscription {id}: {words}");
        assert!(said.contains(&found), "{found}: {said}");
        let failed = "a message last failed 2 hours ago with status 410: Gone";
        assert_eq!(said.contains(failed), number == 0, "{said}");
        let paused = "https://updates.push.services.mozilla.com: no message is sent there for 30 minutes: it does not answer";
        assert!(said.contains(paused), "{said}");
    }
    // A file that is none, and one that has no endpoint: other causes, and other hints.
    let file = world.folder.path().join("endpoint");
    std::fs::write(&file, "hello").unwrap();
    for (file, hint) in [
        ("no/such/file", "or a file that has the endpoint"),
        (file.to_str().unwrap(), "The file has to have the endpoint"),
    ] {
        let (code, said) = check(&world, name, &[], &["--subscription", file]).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(hint), "{said}");
        assert!(!said.contains("has unsubscribed"), "{said}");
    }
    store.close().await.unwrap();
}

pub(crate) async fn the_policy_and_its_names_are_checked(name: &str) {
    let world = World::new().await;
    let (store, _) = made(&world, name).await;
    store.close().await.unwrap();
    for (policy, expected) in [
        (
            "known",
            "ok    policy: the push services of all browsers are allowed",
        ),
        (
            "updates.push.services.mozilla.com",
            "note  policy: ENDPOINT_POLICY refuses the push service of Chrome, Safari, Edge",
        ),
        (
            "push.tower-web-push.example",
            "note  policy: ENDPOINT_POLICY allows no browser's push service",
        ),
    ] {
        let (_, said) = check(&world, name, &[("ENDPOINT_POLICY", policy)], &[]).await;
        assert!(said.contains(expected), "{policy}: {said}");
        let firefox = "names: updates.push.services.mozilla.com:443 (Firefox)";
        assert_eq!(
            said.contains(firefox),
            !policy.contains("example"),
            "{said}"
        );
        assert_eq!(said.contains("(Chrome)"), policy == "known", "{said}");
        // A name that nobody can have.
        let own = "WRONG names: push.tower-web-push.example:443 (ENDPOINT_POLICY)";
        assert_eq!(said.contains(own), policy.contains("example"), "{said}");
    }
}

pub(crate) async fn a_store_that_cannot_be_written_and_a_late_queue_are_found(name: &str) {
    let world = World::new().await;
    let (store, key) = made(&world, name).await;
    let row = row(0, key);
    store.put(std::slice::from_ref(&row)).await.unwrap();
    let kek = World::settings("")
        .into_iter()
        .find(|(name, _)| *name == "KEY_ENCRYPTION_KEY");
    let push = WebPush::builder("mailto:ops@example.com")
        .store(store.clone())
        .clock(ManualClock::new(ago(600)))
        .key_encryption_keys(KeyEncryptionKeys::parse(kek.unwrap().1).unwrap());
    let push = push.build().await.unwrap();
    push.enqueue(Audience::Ids([row.id].into()), Message::new("x"))
        .await
        .unwrap();
    drop(push);
    let (code, said) = check(&world, name, &[], &[]).await;
    assert_eq!(code, Some(1), "{said}");
    let late = "WRONG queue: 1 messages are pending, and the oldest has been due for 10 minutes";
    assert!(said.contains(late), "{said}");
    assert!(said.contains("ok    store: it can be written"), "{said}");
    let path = world.folder.path().join("push.db");
    let refusing =
        "CREATE TRIGGER refuse BEFORE UPDATE ON vapid_key BEGIN SELECT RAISE(ABORT, 'no'); END";
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(refusing).unwrap();
    drop(conn);
    let (code, said) = check(&world, name, &[], &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("WRONG store: it cannot be written"), "{said}");
    store.close().await.unwrap();
}

/// A misspelt prefix is another store, which nobody has begun.
pub(crate) async fn a_prefix_without_a_store_is_not_made_one(name: &str) {
    let world = World::new().await;
    let Some(url) = shared(Kind::Redis) else {
        return;
    };
    let prefix = format!("typo-{}", SubscriptionId::random());
    let separator = if url.contains('?') { '&' } else { '?' };
    let store_url = format!("{url}{separator}prefix={prefix}");
    let to = world.folder.path().join("export.jsonl");
    let (code, said) = check(&world, name, &[("STORE_URL", &store_url)], &[]).await;
    assert_eq!(code, Some(1), "{said}");
    let none = "there is no store under this prefix";
    assert!(
        said.contains(&format!("the store is misconfigured: {none}")),
        "{said}"
    );
    let mut command = command(name, &[("STORE_URL", &store_url)]);
    command.arg("export").arg(&to);
    let output = finish(command).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(none));
    assert!(!to.exists());
    // Nothing was begun: a store of this prefix is refused still.
    let opened = RedisStore::builder().prefix(&prefix).existing_only();
    opened.connect(&url).await.unwrap_err();
    RedisStore::builder()
        .prefix(&prefix)
        .connect(&url)
        .await
        .unwrap();
    let opened = RedisStore::builder().prefix(&prefix).existing_only();
    opened.connect(&url).await.unwrap();
}
