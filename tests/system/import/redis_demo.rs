//! From the Flask and Redis demo: its set, its texts, and the key in a PEM file.

use std::fs;

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tower_web_push::Subscription;
use tower_web_push::subscription::SubscriptionId;
use tower_web_push::vapid::VapidKey;

use super::process::{KEK, dump, import, millis_from_now, stats};
use super::world::subscription;
use crate::examples::world::{World, next, notify, vapid_key};
use crate::support::redis_client;
use crate::support::servers::{Kind, Server};

const SET: &str = "webpush:subscriptions";

fn info_of(id: &str) -> String {
    format!("webpush:subscription:info:{id}")
}

/// A text as the demo's `json.dumps` writes it.
fn info(subscription: &Subscription, expiration_time: Value) -> String {
    let mut json = serde_json::to_value(subscription).unwrap();
    let object = json.as_object_mut().unwrap();
    object.remove("expirationTime");
    object.insert("expiration_time".to_owned(), expiration_time);
    json.to_string()
}

async fn put(redis: &mut MultiplexedConnection, id: &str, text: &str) {
    let _: () = redis.set(info_of(id), text).await.unwrap();
    let _: () = redis.sadd(SET, id).await.unwrap();
}

/// Returns every key with its value.
async fn content(redis: &mut MultiplexedConnection) -> Vec<(String, String)> {
    let mut keys: Vec<String> = redis.keys("*").await.unwrap();
    keys.sort();
    let mut content = Vec::new();
    for key in keys {
        let value = if key == SET {
            let mut ids: Vec<String> = redis.smembers(&key).await.unwrap();
            ids.sort();
            ids.join(" ")
        } else {
            redis.get(&key).await.unwrap()
        };
        content.push((key, value));
    }
    content
}

#[tokio::test]
async fn all_rows_are_imported_with_their_ids_and_a_second_run_changes_nothing() {
    let Some(server) = Server::start(Kind::Redis, &[]).await else {
        return;
    };
    let mut redis = redis_client::connect(&server.url()).await;
    let world = World::new().await;
    let key = VapidKey::generate().unwrap();
    let pem = world.folder.path().join("private_key.pem");
    fs::write(&pem, key.secret_to_pkcs8_pem().as_bytes()).unwrap();

    let mut browsers = Vec::new();
    for expiration_time in [Value::Null, json!(millis_from_now(3_600_000))] {
        let browser = world.push_service.user_agent();
        let subscription = browser.subscribe(key.public_key()).unwrap();
        let id = SubscriptionId::random().to_string();
        put(&mut redis, &id, &info(&subscription, expiration_time)).await;
        browsers.push((id, browser));
    }
    // Enough for several steps, and one endpoint that subscribed twice.
    for number in 0..1200_u32 {
        let id = SubscriptionId::random().to_string();
        let text = info(&subscription(number, 1), Value::Null);
        put(&mut redis, &id, &text).await;
    }
    let twice = info(&subscription(7, 1), Value::Null);
    put(&mut redis, &SubscriptionId::random().to_string(), &twice).await;
    let id = || SubscriptionId::random().to_string();
    let (expired, no_text, broken, keyless) = (id(), id(), id(), id());
    let past = info(&subscription(5000, 1), json!(millis_from_now(-1)));
    put(&mut redis, &expired, &past).await;
    put(&mut redis, &broken, "{'endpoint': None}").await;
    let null_keys =
        r#"{"endpoint": "https://push.example.net/5001", "keys": null, "expiration_time": null}"#;
    put(&mut redis, &keyless, null_keys).await;
    put(
        &mut redis,
        "no-uuid",
        &info(&subscription(5002, 1), Value::Null),
    )
    .await;
    let _: () = redis.sadd(SET, &no_text).await.unwrap();
    let stray = id();
    let text = info(&subscription(5003, 1), Value::Null);
    let _: () = redis.set(info_of(&stray), text).await.unwrap();
    let source = content(&mut redis).await;

    let (url, store_url, pem) = (server.url(), world.store_url(), pem.display().to_string());
    let arguments = [
        "--from",
        &url,
        "--to",
        &store_url,
        "--vapid-private-key",
        &pem,
    ];
    let settings = [("ENDPOINT_POLICY", "local"), ("KEY_ENCRYPTION_KEY", KEK)];
    let first = import(&arguments, &settings).await;
    assert_eq!(first.code, Some(3), "{first:?}");
    let says = |line: &str| assert!(first.out.contains(line), "{line}: {}", first.out);
    says("Subscriptions: 1202 created, 0 updated, 0 unchanged, 1 superseded, 6 refused");
    says(&format!("Refused: {expired}: it has expired"));
    says(&format!(
        "Refused: {no_text}: it cannot be imported: its webpush:subscription:info is missing"
    ));
    says(&format!("Refused: {broken}: it cannot be imported: "));
    says(&format!(
        "Refused: {keyless}: it cannot be imported: the subscription has no keys"
    ));
    says("Refused: no-uuid: it cannot be imported: the id is not a UUID");
    says(&format!(
        "Refused: {}: it cannot be imported: it is not in webpush:subscriptions",
        info_of(&stray)
    ));
    assert!(!first.all().contains("BEGIN PRIVATE KEY"));

    let before = dump(&world);
    let second = import(&arguments, &settings).await;
    let line = "Subscriptions: 0 created, 0 updated, 1202 unchanged, 1 superseded, 6 refused";
    assert!(second.out.contains(line), "{}", second.out);
    assert_eq!(dump(&world), before);
    assert_eq!(content(&mut redis).await, source, "it is only read");

    let more = [("KEY_ENCRYPTION_KEY", KEK)];
    let (server, client) = world.start("hyper_server", &more).await;
    assert_eq!(vapid_key(&client).await, *key.public_key());
    assert_eq!(stats(&client).await["subscriptions"]["live"], 1202);
    let ids: Vec<_> = browsers.iter().map(|(id, _)| id).collect();
    let body = json!({"title": "Hello", "audience": {"ids": ids}});
    let sent = notify(&client, "/api/notify", &body).await;
    assert_eq!(sent.json()["recipients"], 2);
    for (_, browser) in &browsers {
        let received = next(browser).await;
        assert_eq!(received.json::<Value>().unwrap()["title"], "Hello");
        assert_eq!(received.vapid().unwrap().public_key(), key.public_key());
    }
    let body = json!({"client_uuid": browsers[0].0});
    let answer = client.post("/api/unsubscribe", &body).await;
    assert_eq!(answer.json()["message"], "unsubscribed");
    assert_eq!(stats(&client).await["subscriptions"]["live"], 1201);
    assert_eq!(server.terminate().await.code(), Some(0));
}
