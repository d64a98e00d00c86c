use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower_web_push::broadcast::{BroadcastState, Tag};
use tower_web_push::clock::Clock as _;
use tower_web_push::message::{Ttl, Urgency};
use tower_web_push::store::DeliveryLedger as _;
use tower_web_push::{Audience, Message};

use super::{Answer, TOKEN, World, full, news, post, with};

async fn notify_with(world: &World, headers: &[(&'static str, &str)], body: &Value) -> Answer {
    let mut request = post("/notify", body);
    request
        .headers_mut()
        .insert("authorization", TOKEN.parse().unwrap());
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    world.call(request).await
}

#[tokio::test]
async fn a_message_reaches_every_subscription() {
    let world = World::new().await;
    let (one, ..) = world.subscriber().await;
    let (other, ..) = world.subscriber().await;
    let answer = world.notify(&json!({"title": "Shipped"})).await;
    assert_eq!(answer.status, 202);
    answer.has_members(&["success", "message", "broadcast", "recipients"]);
    assert_eq!(answer.message(), "2 notification(s) queued");
    assert_eq!(answer.json()["recipients"], 2);
    world.settle().await;
    for browser in [one, other] {
        let mut payload: Value = browser.messages()[0].json().unwrap();
        payload.as_object_mut().unwrap().remove("tag").unwrap();
        assert_eq!(
            payload,
            json!({"title": "Shipped", "body": null, "url": null})
        );
    }
}

/// A repeated copy is shown once. A topic would hide it too, but costs messages.
#[tokio::test]
async fn a_notification_without_a_tag_has_one_for_all_recipients_and_no_topic() {
    let world = World::new().await;
    let (one, ..) = world.subscriber().await;
    let (other, ..) = world.subscriber().await;
    let untagged = json!({"title": "a", "renotify": true});
    let empty = json!({"title": "a", "tag": "", "url": "https://shop.example/"});
    let given = json!({"title": "a", "tag": "order-7", "renotify": true});
    for body in [&untagged, &untagged, &empty, &given] {
        assert_eq!(world.notify(body).await.status, 202);
    }
    world.settle().await;
    let texts = |browser: &tower_web_push::testing::UserAgent| -> Vec<String> {
        let messages = browser.messages();
        assert!(messages.iter().all(|message| message.topic().is_none()));
        let text = messages
            .iter()
            .map(|message| message.text().unwrap().into());
        text.collect()
    };
    let mut received = texts(&one);
    let mut same = texts(&other);
    received.sort();
    same.sort();
    assert_eq!(received, same);
    let mut tags = Vec::new();
    for text in &received {
        let payload: Value = serde_json::from_str(text).unwrap();
        let options = payload.get("notification").unwrap_or(&payload);
        let tag = options["tag"].as_str().unwrap().to_owned();
        assert!(!tag.is_empty(), "{text}");
        // With a random tag it would alert for the second copy.
        assert_eq!(
            options.get("renotify").is_some(),
            tag == "order-7",
            "{text}"
        );
        tags.push(tag);
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4);
    assert!(tags.contains(&"order-7".to_owned()));
}

#[tokio::test]
async fn an_absolute_url_makes_the_message_declarative_as_well() {
    let world = World::new().await;
    let (browser, ..) = world.subscriber().await;
    let body = json!({"title": "a", "body": "b", "url": "https://shop.example/7", "tag": "t"});
    world.notify(&body).await;
    world.settle().await;
    let payload: Value = browser.messages()[0].json().unwrap();
    assert_eq!(payload["web_push"], 8030);
    assert_eq!(
        payload["notification"]["navigate"],
        "https://shop.example/7"
    );
    assert_eq!(
        (&payload["title"], &payload["url"]),
        (&json!("a"), &json!("https://shop.example/7"))
    );
}

#[tokio::test]
async fn a_payload_goes_out_byte_for_byte() {
    let world = World::new().await;
    let (browser, ..) = world.subscriber().await;
    for payload in [
        "{ \"b\" : 1.00,\n\"a\":\"\\u00e4\",\"b\":2 }",
        "null",
        "\"text\"",
        "[1,2]",
        "1e400",
    ] {
        let mut request = post("/notify", &json!({}));
        *request.body_mut() = full(format!("{{\"ttl\":60, \"payload\" : {payload} }}"));
        request
            .headers_mut()
            .insert("authorization", TOKEN.parse().unwrap());
        let answer = world.call(request).await;
        if payload == "1e400" {
            // A number that no JSON parser accepts: refused before anything is sent.
            answer.is(400, "invalid_json");
            continue;
        }
        assert_eq!(answer.status, 202, "{payload}");
        world.settle().await;
        assert_eq!(browser.messages().pop().unwrap().text(), Some(payload));
    }
}

#[tokio::test]
async fn delivery_options_reach_the_push_service() {
    let world = World::new().await;
    let (browser, ..) = world.subscriber().await;
    let body = json!({"title": "a", "ttl": 300, "urgency": "very-low", "topic": "abcd-_12"});
    world.notify(&body).await;
    world.settle().await;
    let message = browser.messages().remove(0);
    assert_eq!(message.ttl(), Ttl::from_secs(300));
    assert_eq!(message.urgency(), Urgency::VeryLow);
    assert_eq!(message.topic(), Some("abcd-_12"));
}

#[tokio::test]
async fn a_whole_number_may_be_written_as_a_float() {
    let world = World::new().await;
    let (browser, ..) = world.subscriber().await;
    for ttl in ["60", "60.0", "6e1", "600e-1"] {
        let mut request = post("/notify", &Value::Null);
        let headers = request.headers_mut();
        headers.insert("authorization", TOKEN.parse().unwrap());
        let content = r#""timestamp": 1.8e12, "vibrate": [1e2, 50.0], "app_badge": 3.0"#;
        let body = format!(r#"{{"title": "a", "ttl": {ttl}, {content}}}"#);
        *request.body_mut() = full(body);
        let answer = world.call(request).await;
        assert_eq!(answer.status, 202, "{ttl}: {}", answer.text());
        world.settle().await;
        let message = browser.messages().pop().unwrap();
        assert_eq!(message.ttl(), Ttl::from_secs(60), "{ttl}");
        let content: Value = message.json().unwrap();
        assert_eq!(content["timestamp"].to_string(), "1800000000000");
        assert_eq!(content["vibrate"].to_string(), "[100,50]");
        assert_eq!(content["app_badge"].to_string(), "3");
    }
    for (name, value) in [
        ("timestamp", json!(0.5)),
        ("vibrate", json!(99.5)),
        ("vibrate", json!([1, 0.5])),
        ("app_badge", json!(-1.0)),
        ("app_badge", json!(1.5)),
    ] {
        let refused = world.notify(&json!({"title": "a", name: value})).await;
        refused.is(400, "invalid_member");
    }
}

#[tokio::test]
async fn an_audience_is_all_a_user_a_tag_or_ids() {
    let world = World::with_api(|s| s.public_tags([Tag::parse("news").unwrap()])).await;
    let (_, tagged) = world.browser();
    world
        .post("/subscribe", &with(&tagged, json!({"tags": news()})))
        .await;
    let (_, alices) = world.browser();
    world.post_as("alice", "/subscribe", &alices).await;
    let (_, _, id) = world.subscriber().await;
    let unknown = "00000000-0000-4000-8000-000000000000";
    for (audience, recipients) in [
        (json!("all"), 3),
        (json!(null), 3),
        (json!({"user": "alice"}), 1),
        (json!({"user": "nobody"}), 0),
        (json!({"tag": "news"}), 1),
        (json!({"ids": [id, unknown]}), 1),
        (json!({"ids": []}), 0),
    ] {
        let mut body = json!({"title": "a"});
        body["audience"] = audience.clone();
        let answer = world.notify(&body).await;
        assert_eq!(
            (answer.status, &answer.json()["recipients"]),
            (202, &json!(recipients)),
            "{audience}"
        );
    }
}

#[tokio::test]
async fn every_malformed_member_has_its_code_and_queues_nothing() {
    let world = World::new().await;
    let (browser, ..) = world.subscriber().await;
    let title = json!({"title": "a"});
    let cases = [
        (json!({"title": null}), 400, "missing_content"),
        (json!({"payload": 1}), 400, "ambiguous_content"),
        (json!({"title": 1}), 400, "invalid_member"),
        (json!({"body": 1}), 400, "invalid_member"),
        (json!({"url": {}}), 400, "invalid_member"),
        (json!({"icon": 1}), 400, "invalid_member"),
        (json!({"image": []}), 400, "invalid_member"),
        (json!({"badge": 1}), 400, "invalid_member"),
        (json!({"tag": 1}), 400, "invalid_member"),
        (json!({"actions": "a"}), 400, "invalid_member"),
        (json!({"actions": [{"action": "a"}]}), 400, "invalid_member"),
        (json!({"silent": "yes"}), 400, "invalid_member"),
        (json!({"vibrate": "x"}), 400, "invalid_member"),
        (json!({"ttl": "60"}), 400, "invalid_ttl"),
        (json!({"ttl": -1}), 400, "invalid_ttl"),
        (json!({"ttl": 60.5}), 400, "invalid_ttl"),
        (json!({"ttl": -60.0}), 400, "invalid_ttl"),
        (json!({"urgency": "urgent"}), 400, "invalid_urgency"),
        (json!({"urgency": 1}), 400, "invalid_urgency"),
        (json!({"topic": 1}), 400, "invalid_member"),
        (json!({"topic": ""}), 422, "invalid_topic"),
        (json!({"topic": "a"}), 422, "invalid_topic"),
        (json!({"topic": "a b"}), 422, "invalid_topic"),
        (json!({"topic": "a".repeat(34)}), 422, "invalid_topic"),
        (json!({"sendAt": 1_800_000_000}), 400, "invalid_send_at"),
        (json!({"sendAt": "tomorrow"}), 400, "invalid_send_at"),
        (
            json!({"sendAt": "2027-01-16T08:00:00"}),
            400,
            "invalid_send_at",
        ),
        (
            json!({"sendAt": "2027-02-14T08:00:01Z"}),
            422,
            "send_at_too_far_ahead",
        ),
        (json!({"pace": 500}), 400, "invalid_pace"),
        (json!({"pace": {}}), 400, "invalid_pace"),
        (json!({"pace": {"perSecond": 0}}), 400, "invalid_pace"),
        (json!({"pace": {"perSecond": 0.5}}), 400, "invalid_pace"),
        (json!({"pace": {"perSecond": "500"}}), 400, "invalid_pace"),
        (json!({"audience": "some"}), 400, "invalid_audience"),
        (json!({"audience": {"user": 1}}), 400, "invalid_audience"),
        (json!({"audience": {"ids": ["x"]}}), 400, "invalid_audience"),
        (
            json!({"audience": {"user": "a", "tag": "b"}}),
            400,
            "invalid_audience",
        ),
        (json!({"body": "x".repeat(4000)}), 422, "payload_too_large"),
    ];
    for (members, status, code) in cases {
        let answer = world.notify(&with(&title, members.clone())).await;
        answer.is(status, code);
        if code == "invalid_member" {
            let member = answer.json()["member"].as_str().unwrap().to_owned();
            let name = members.as_object().unwrap().keys().next().unwrap();
            assert!(member.starts_with(name.as_str()), "{member}");
        }
    }
    world.settle().await;
    assert!(browser.messages().is_empty());
}

/// Of `{"user": "alice"}` beside the title the server would make a message to everyone.
#[tokio::test]
async fn a_member_that_is_not_known_is_refused_and_queues_nothing() {
    let world = World::new().await;
    let (browser, ..) = world.subscriber().await;
    for (members, name) in [
        (json!({"user": "alice"}), "user"),
        (json!({"ids": []}), "ids"),
        (json!({"audiences": {"user": "alice"}}), "audiences"),
        (json!({"sendat": "2027-01-16T08:00:00Z"}), "sendat"),
        (json!({"message": "b"}), "message"),
    ] {
        let answer = world.notify(&with(&json!({"title": "a"}), members)).await;
        answer.is(400, "invalid_member");
        assert_eq!(answer.json()["member"], name);
        assert!(answer.message().contains("audience"), "{}", answer.text());
    }
    let nulled = world.notify(&json!({"title": "a", "user": null})).await;
    nulled.is(400, "invalid_member");
    world.settle().await;
    assert!(browser.messages().is_empty());
}

#[tokio::test]
async fn the_largest_payload_is_exact() {
    let world = World::new().await;
    let payload = |len: usize| json!({"payload": "x".repeat(len - 2)});
    assert_eq!(world.notify(&payload(3993)).await.status, 202);
    world
        .notify(&payload(3994))
        .await
        .is(422, "payload_too_large");
    // A message that fits without a random tag is accepted.
    let around = r#"{"body":null,"title":"","url":null}"#.len();
    let title = |len: usize| json!({"title": "x".repeat(len - around)});
    assert_eq!(world.notify(&title(3993)).await.status, 202);
    world
        .notify(&title(3994))
        .await
        .is(422, "payload_too_large");
}

#[tokio::test]
async fn a_message_is_sent_at_its_time() {
    let world = World::new().await;
    let (browser, ..) = world.subscriber().await;
    let body = json!({"title": "a", "sendAt": "2027-01-15T10:00:00+01:00"});
    let answer = notify_with(&world, &[("prefer", "wait=5")], &body).await;
    assert_eq!(
        answer.status, 202,
        "a broadcast that is not due is not waited for"
    );
    assert!(!answer.headers.contains_key("preference-applied"));
    let path = format!(
        "/broadcasts/{}",
        answer.json()["broadcast"].as_str().unwrap()
    );
    world.settle().await;
    assert!(browser.messages().is_empty());
    let status = world.admin(Method::GET, &path, &Value::Null).await.json();
    assert_eq!(
        (&status["state"], &status["sendAt"]),
        (&json!("scheduled"), &json!("2027-01-15T09:00:00Z"))
    );
    world.clock.advance(Duration::from_secs(3600));
    world.settle().await;
    assert_eq!(browser.messages().len(), 1);

    let past = world
        .notify(&json!({"title": "a", "sendAt": "2020-01-01T00:00:00Z"}))
        .await;
    assert_eq!(past.status, 202);
    world.settle().await;
    assert_eq!(browser.messages().len(), 2, "the past is now");
}

#[tokio::test]
async fn a_message_may_have_a_pace() {
    let world = World::new().await;
    for _ in 0..3 {
        world.subscriber().await;
    }
    for (pace, shown) in [
        (json!({"perSecond": 2}), json!({"perSecond": 2})),
        (
            json!({"perSecond": 2.0, "else": 1}),
            json!({"perSecond": 2}),
        ),
        (json!({"perSecond": 1e12}), json!({"perSecond": u32::MAX})),
        (Value::Null, Value::Null),
    ] {
        let key = [("idempotency-key", &*pace.to_string())];
        let body = json!({"title": "a", "pace": pace});
        let answer = notify_with(&world, &key, &body).await;
        assert_eq!(answer.status, 202, "{pace}");
        let id = answer.json()["broadcast"].clone();
        let path = format!("/broadcasts/{}", id.as_str().unwrap());
        world.settle().await;
        let status = world.admin(Method::GET, &path, &Value::Null).await.json();
        assert_eq!(status["pace"], shown);
        let is_slow = shown == json!({"perSecond": 2});
        let accepted = if is_slow { 1 } else { 3 };
        assert_eq!(status["counts"]["accepted"], accepted, "{pace}");
        let other = json!({"title": "a", "pace": {"perSecond": 3}});
        notify_with(&world, &key, &other)
            .await
            .is(409, "idempotency_conflict");
    }
}

#[tokio::test]
async fn a_broadcast_can_be_paused_and_resumed() {
    let world = World::new().await;
    let (browser, ..) = world.subscriber().await;
    let id = world.notify(&json!({"title": "a"})).await.json()["broadcast"].clone();
    let path = format!("/broadcasts/{}", id.as_str().unwrap());
    let change = async |state: Value| {
        let body = json!({"state": state});
        world.admin(Method::PATCH, &path, &body).await
    };
    for _ in 0..2 {
        let paused = change(json!("paused")).await;
        assert_eq!(
            (paused.status, &paused.json()["state"]),
            (200, &json!("paused"))
        );
        world.settle().await;
        let status = world.admin(Method::GET, &path, &Value::Null).await;
        let status = with(&status.json(), json!({"failures": null}));
        assert_eq!(status, paused.json());
    }
    assert!(browser.messages().is_empty());
    for state in [json!("done"), json!("Paused"), json!(1), Value::Null] {
        change(state).await.is(400, "invalid_state");
    }
    let resumed = change(json!("sending")).await;
    assert_eq!(resumed.json()["state"], "expanding");
    world.settle().await;
    assert_eq!(browser.messages().len(), 1);
    for state in ["paused", "sending"] {
        assert_eq!(change(json!(state)).await.json()["state"], "done");
    }
    for unknown in ["x", "f47ac10b-58cc-4372-a567-0e02b2c3d479"] {
        let path = format!("/broadcasts/{unknown}");
        let body = json!({"state": "paused"});
        let answer = world.admin(Method::PATCH, &path, &body).await;
        answer.is(404, "unknown_broadcast");
    }
}

#[tokio::test]
async fn a_broadcast_has_a_status_and_can_be_cancelled() {
    let world = World::new().await;
    world.subscriber().await;
    let id = world.notify(&json!({"title": "a", "ttl": 60})).await.json()["broadcast"].clone();
    let path = format!("/broadcasts/{}", id.as_str().unwrap());
    world.settle().await;
    let answer = world.admin(Method::GET, &path, &Value::Null).await;
    answer.has_members(&[
        "id",
        "state",
        "recipients",
        "createdAt",
        "sendAt",
        "deadline",
        "pace",
        "counts",
        "failures",
    ]);
    let status = answer.json();
    assert_eq!(status["id"], id);
    assert_eq!(status["state"], "done");
    assert_eq!(status["createdAt"], "2027-01-15T08:00:00Z");
    assert_eq!(status["deadline"], "2027-01-15T08:01:00Z");
    assert_eq!(status["sendAt"], Value::Null);
    assert_eq!(status["counts"]["accepted"], 1);
    assert_eq!(status["counts"].as_object().unwrap().len(), 11);

    let later = json!({"title": "a", "sendAt": "2027-01-16T08:00:00Z"});
    let id = world.notify(&later).await.json()["broadcast"].clone();
    let path = format!("/broadcasts/{}", id.as_str().unwrap());
    let cancelled = world.admin(Method::DELETE, &path, &Value::Null).await;
    assert_eq!(
        (cancelled.status, &cancelled.json()["state"]),
        (200, &json!("cancelled"))
    );
    let again = world.admin(Method::DELETE, &path, &Value::Null).await;
    assert_eq!(again.json(), cancelled.json());

    for unknown in [
        "/broadcasts/x",
        "/broadcasts/00000000-0000-4000-8000-000000000000",
    ] {
        for method in [Method::GET, Method::DELETE] {
            world
                .admin(method, unknown, &Value::Null)
                .await
                .is(404, "unknown_broadcast");
        }
    }
}

#[tokio::test]
async fn a_request_that_prefers_to_wait_gets_the_counts() {
    let world = World::with(|b| b.remote_workers(false)).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(world.push.run(async { stopped.await.unwrap_or_default() }));
    tokio::task::yield_now().await;
    world.subscriber().await;
    let body = json!({"title": "a"});
    let answer = notify_with(&world, &[("prefer", "respond-async, wait=20")], &body).await;
    assert_eq!(answer.status, 200);
    answer.has_members(&["success", "message", "broadcast", "recipients", "counts"]);
    assert_eq!(answer.message(), "1 notification(s) sent");
    assert_eq!(answer.json()["counts"]["accepted"], 1);
    assert_eq!(answer.headers["preference-applied"], "wait=20");
    drop(stop);
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_a_wait_without_result_the_message_is_still_queued() {
    let world = World::new().await;
    world.subscriber().await;
    let answer = notify_with(&world, &[("prefer", "wait=99")], &json!({"title": "a"})).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.headers["preference-applied"], "wait=30");
    assert_eq!(answer.message(), "1 notification(s) queued");
}

#[tokio::test]
async fn nothing_is_accepted_without_a_worker() {
    let world = World::with(|b| b.remote_workers(false)).await;
    world
        .notify(&json!({"title": "a"}))
        .await
        .is(503, "no_worker");
    // From the call on, not from its first poll: a server listens before its worker has begun.
    let run = world.push.run(std::future::pending());
    let accepted = world.notify(&json!({"title": "a"})).await;
    assert_eq!(accepted.status, 202);
    drop(run);
    world
        .notify(&json!({"title": "a"}))
        .await
        .is(503, "no_worker");
    world
        .notify(&json!({"title": 1}))
        .await
        .is(400, "invalid_member");
}

#[tokio::test]
async fn the_callers_span_is_kept_and_a_wrong_one_refuses_nothing() {
    let world = World::new().await;
    world.subscriber().await;
    let span = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (header, expected) in [
        (Some(span), Some(span)),
        (
            Some("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03-x"),
            Some(span),
        ),
        (None, None),
        (Some(""), None),
        (Some("7"), None),
        (
            Some("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"),
            None,
        ),
        (
            Some("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
            None,
        ),
        (
            Some("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            None,
        ),
    ] {
        let headers: Vec<_> = header
            .map(|text| ("traceparent", text))
            .into_iter()
            .collect();
        let answer = notify_with(&world, &headers, &json!({"title": "Shipped"})).await;
        assert_eq!(answer.status, 202, "{header:?}");
        let id = answer.json()["broadcast"].as_str().unwrap().to_owned();
        let listed = world.store.expandable(9, world.clock.now()).await.unwrap();
        let found = listed.iter().find(|one| one.id.to_string() == id).unwrap();
        let expected = expected.map(|text| text.parse().unwrap());
        assert_eq!(found.trace_parent, expected, "{header:?}");
        // No answer has it.
        for path in ["/broadcasts".to_owned(), format!("/broadcasts/{id}")] {
            let listed = world.admin(Method::GET, &path, &json!({})).await;
            let text = String::from_utf8_lossy(&listed.body).to_lowercase();
            assert!(text.contains(&id) && !text.contains("4bf92f"), "{text}");
        }
        world.settle().await;
    }
}

#[tokio::test]
async fn an_idempotency_key_is_for_one_message() {
    let world = World::new().await;
    let (browser, ..) = world.subscriber().await;
    let key = [("idempotency-key", "order-7")];
    let body = json!({"title": "a"});
    let first = notify_with(&world, &key, &body).await;
    let again = notify_with(&world, &key, &body).await;
    assert_eq!((again.status, again.json()), (202, first.json()));
    notify_with(&world, &key, &json!({"title": "b"}))
        .await
        .is(409, "idempotency_conflict");
    world.settle().await;
    assert_eq!(browser.messages().len(), 1);
    let after = notify_with(&world, &key, &body).await;
    assert_eq!(after.json(), first.json(), "also when it is done");
    let bad = [("idempotency-key", "a b")];
    notify_with(&world, &bad, &body)
        .await
        .is(400, "invalid_idempotency_key");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_broadcast_hears_of_its_cancellation_at_once() {
    let world = World::new().await;
    world.subscriber().await;
    let queued = world.push.enqueue(Audience::All, Message::new("hello"));
    let queued = queued.await.unwrap();
    let id = queued.broadcast;
    let waiting = async {
        // The next look at the store would be a quarter of a second later.
        let soon = Duration::from_millis(1);
        let over = world.push.wait_until_over(id, Duration::from_secs(9));
        let over = tokio::time::timeout(soon, over).await;
        over.expect("no look is waited for").unwrap().unwrap()
    };
    let path = format!("/broadcasts/{id}");
    let cancelling = world.admin(Method::DELETE, &path, &Value::Null);
    let (status, cancelled) = tokio::join!(waiting, cancelling);
    assert_eq!(cancelled.status, 200);
    assert_eq!(status.state, BroadcastState::Cancelled);
}
