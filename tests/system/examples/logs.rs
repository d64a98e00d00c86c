//! The log of the example servers, in JSON: what an operator finds in it, and what nobody may find in it.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tower_web_push::deliver::OriginGates;
use tower_web_push::testing::{Answer, When};

use super::world::{PASSWORD, TOKEN, World, next, notify, subscription};
use crate::support::server_process::ServerProcess;

/// Generous: a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
const JSON: [(&str, &str); 1] = [("LOG_FORMAT", "json")];

/// The lines of the log with this message.
fn lines(printed: &str, message: &str) -> Vec<Value> {
    let lines = printed.lines().filter(|line| line.starts_with('{'));
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).expect(line));
    lines.filter(|line| line["message"] == message).collect()
}

async fn line(server: &ServerProcess, message: &str) -> Value {
    let found = async {
        loop {
            if let Some(line) = lines(&server.printed(), message).pop() {
                return line;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let found = timeout(LIMIT, found).await;
    found.unwrap_or_else(|_| panic!("no line {message:?}: {}", server.printed()))
}

pub(crate) async fn a_start_and_the_end_of_a_broadcast_are_one_line_each(name: &str) {
    const RECIPIENTS: u64 = 12;
    let world = World::new().await;
    let (server, client) = world.start(name, &JSON).await;
    let start = line(&server, "store opened").await;
    for (field, expected) in [
        ("level", json!("INFO")),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("policy", json!("local")),
        ("subscriptions", json!(0)),
        ("pending", json!(0)),
        ("is_new", json!(true)),
        ("most_subscriptions", json!(10_000_000)),
        ("most_unproven", json!(100_000)),
        ("in_flight_per_origin", json!(OriginGates::IN_FLIGHT)),
        ("has_contact", json!(true)),
    ] {
        assert_eq!(start[field], expected, "{field}: {start}");
    }
    assert!(
        start["store"].as_str().unwrap().contains("push.db"),
        "{start}"
    );
    assert!(start["key"].as_str().is_some(), "{start}");

    for number in 0..RECIPIENTS {
        let browser = world.push_service.user_agent();
        let body = subscription(&client, &browser, json!({})).await;
        client.post("/web-push/subscribe", &body).await;
        if number == 0 {
            let endpoint = browser.subscription().unwrap().endpoint().clone();
            let refusal = Answer::status(StatusCode::PAYLOAD_TOO_LARGE);
            world
                .push_service
                .script(When::endpoint(&endpoint), refusal);
        }
    }
    let queued = notify(&client, "/web-push/notify", &json!({"title": "Told of"})).await;
    let end = line(&server, "broadcast over").await;
    for (field, expected) in [
        ("broadcast", queued.json()["broadcast"].clone()),
        ("state", json!("done")),
        ("recipients", json!(RECIPIENTS)),
        ("accepted", json!(RECIPIENTS - 1)),
        ("too_large", json!(1)),
    ] {
        assert_eq!(end[field], expected, "{field}: {end}");
    }
    let refused = line(&server, "messages were not accepted").await;
    for (field, expected) in [
        ("push_service", json!("other")),
        ("outcome", json!("too_large")),
        ("status", json!(413)),
        ("messages", json!(1)),
    ] {
        assert_eq!(refused[field], expected, "{field}: {refused}");
    }
    let printed = server.terminate_and_read().await;
    for message in [
        "store opened",
        "broadcast over",
        "messages were not accepted",
    ] {
        assert_eq!(lines(&printed, message).len(), 1, "{message}: {printed}");
    }
}

pub(crate) async fn administrators_and_wrong_credentials_are_told_without_secrets(name: &str) {
    let world = World::new().await;
    let behind_a_proxy = [JSON[0], ("TRUSTED_PROXIES", "1")];
    let (server, client) = world.start(name, &behind_a_proxy).await;
    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({})).await;
    client.post("/web-push/subscribe", &body).await;
    let call = client.call(Method::POST, "/web-push/notify").bearer(TOKEN);
    let call = call.header("x-request-id", "from-the-proxy.1");
    let sent = call.json(&json!({"title": "A secret title"})).send().await;
    assert_eq!(sent.status, StatusCode::ACCEPTED);
    assert_eq!(sent.header("x-request-id"), "from-the-proxy.1");
    next(&browser).await;
    let told = line(&server, "administrator").await;
    for (field, expected) in [
        ("action", json!("notify")),
        ("status", json!(202)),
        ("peer", json!("127.0.0.1")),
        ("credentials", json!("bearer")),
        ("broadcast", sent.json()["broadcast"].clone()),
    ] {
        assert_eq!(told[field], expected, "{field}: {told}");
    }
    assert_eq!(told["span"]["id"], "from-the-proxy.1", "{told}");

    // A visitor without credentials is no attempt.
    client.get("/web-push/stats").await;
    let call = client.call(Method::POST, "/web-push/regenerate-vapid");
    let made = call.bearer(TOKEN).send().await;
    assert_eq!(made.status, StatusCode::OK);
    let key = made.json()["keyId"].as_str().unwrap().to_owned();
    // What it was about is told, and of an id, with which one can unsubscribe, the beginning.
    let call = client.call(Method::GET, "/web-push/subscriptions");
    let listed = call.bearer(TOKEN).send().await.json();
    let id = listed["subscriptions"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/web-push/subscriptions/{id}");
    for (call, body) in [
        (client.call(Method::PATCH, &path), json!({"user": "alice"})),
        (client.call(Method::PATCH, &path), json!({"user": null})),
        (
            client.call(Method::POST, "/web-push/open-gate"),
            json!({"origin": "https://push.example.com"}),
        ),
        (client.call(Method::DELETE, &path), json!({})),
    ] {
        let done = call.bearer(TOKEN).json(&body).send().await;
        assert_eq!(done.status, StatusCode::OK, "{done:?}");
    }
    let csv = client.call(Method::GET, "/web-push/subscriptions?format=csv");
    assert_eq!(csv.bearer(TOKEN).send().await.status, StatusCode::OK);
    let told = async {
        loop {
            let told = lines(&server.printed(), "administrator");
            if told
                .iter()
                .any(|line| line["action"] == "list_subscriptions")
            {
                return told;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let told = timeout(LIMIT, told).await.unwrap();
    let told: Vec<_> = told
        .iter()
        .map(|line| (line["action"].as_str().unwrap(), line["about"].as_str()))
        .collect();
    let short = &id[..8];
    let (assigned, taken) = (
        format!("{short}, user alice"),
        format!("{short}, user none"),
    );
    assert_eq!(
        told,
        [
            ("notify", None),
            ("regenerate_vapid", Some(&*key)),
            ("change_subscription", Some(&*assigned)),
            ("change_subscription", Some(&*taken)),
            ("open_gate", Some("https://push.example.com")),
            ("remove_subscription", Some(short)),
            ("list_subscriptions", Some("all that match, as CSV")),
        ]
    );
    line(&server, "a new VAPID key is active; the others stay usable").await;
    let refusals = "administrators' requests were refused";
    assert_eq!(lines(&server.printed(), refusals), [] as [Value; 0]);
    // The same again is no line.
    for path in ["/web-push/stats", "/metrics"] {
        for _ in 0..3 {
            let call = client.call(Method::GET, path).bearer("hunter2-hunter2");
            assert_eq!(call.send().await.status, StatusCode::UNAUTHORIZED);
        }
    }
    let refused = line(&server, refusals).await;
    for (field, expected) in [
        ("level", json!("WARN")),
        ("action", json!("show_stats")),
        ("reason", json!("wrong_credentials")),
        ("peer", json!("127.0.0.1")),
        ("requests", json!(1)),
    ] {
        assert_eq!(refused[field], expected, "{field}: {refused}");
    }
    let other = client
        .call(Method::DELETE, "/web-push/broadcasts/x")
        .bearer(TOKEN);
    let request = other.send().await.header("x-request-id").to_owned();
    assert_eq!(request.len(), 32, "{request}");
    let printed = server.terminate_and_read().await;
    assert_eq!(lines(&printed, refusals).len(), 1, "{printed}");
    for secret in [
        TOKEN,
        PASSWORD,
        "hunter2",
        "A secret title",
        body["endpoint"].as_str().unwrap(),
        &id,
    ] {
        assert!(!printed.contains(secret), "{secret}: {printed}");
    }
}

pub(crate) async fn a_store_that_fails_is_one_line_for_each_route(name: &str) {
    let world = World::new().await;
    let (server, client) = world.start(name, &JSON).await;
    let browser = world.push_service.user_agent();
    let body = subscription(&client, &browser, json!({})).await;
    std::fs::remove_file(world.folder.path().join("push.db")).unwrap();
    let mut ids = Vec::new();
    for _ in 0..5 {
        let call = client.call(Method::POST, "/web-push/subscribe");
        let call = call.header("x-request-id", "of-the-client");
        let refused = call.json(&body).send().await;
        assert_eq!(
            refused.json()["code"],
            "store_unavailable",
            "{}",
            refused.text()
        );
        assert_ne!(refused.header("x-request-id"), "of-the-client");
        ids.push(refused.header("x-request-id").to_owned());
    }
    let told = line(&server, "requests failed").await;
    assert_eq!(told["route"], "subscribe", "{told}");
    assert_eq!(told["code"], "store_unavailable", "{told}");
    assert!(
        told["error"].as_str().unwrap().contains("deleted"),
        "{told}"
    );
    assert_eq!(told["span"]["id"], *ids[0], "{told}");
    assert_eq!(lines(&server.printed(), "requests failed").len(), 1);
    server.kill().await;
}
