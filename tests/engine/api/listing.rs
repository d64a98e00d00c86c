//! What an operator lists: broadcasts, and the subscriptions of all users.

use std::collections::BTreeSet;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tower_web_push::broadcast::{Audience, BroadcastState, Tag};
use tower_web_push::clock::Timestamp;
use tower_web_push::store::{
    BroadcastFilter, CountFilter, Liveness, ScheduleStore as _, SubscriptionFilter,
    SubscriptionStore as _,
};
use tower_web_push::testing::{Answer as Response, When};

use super::{Answer, World, news, with};
use crate::support::tampered_store::TamperedStore;

async fn get(world: &World, path: &str) -> Answer {
    world.admin(Method::GET, path, &Value::Null).await
}

/// The ids of a list in pages of `limit`.
async fn ids(world: &World, path: &str, of: &str, limit: usize) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let mark = if path.contains('?') { '&' } else { '?' };
        let page = get(world, &format!("{path}{mark}limit={limit}&after={after}")).await;
        assert_eq!(page.status, 200, "{}", page.text());
        assert_eq!(page.headers["cache-control"], "no-store");
        page.has_members(&[of, "next"]);
        let page = page.json();
        let entries = page[of].as_array().unwrap();
        assert!(entries.len() <= limit);
        found.extend(
            entries
                .iter()
                .map(|one| one["id"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            None => return found,
            Some(next) => after = next.to_owned(),
        }
    }
}

#[tokio::test]
async fn scheduled_broadcasts_are_found_and_cancelled() {
    let world = World::new().await;
    world.subscriber().await;
    let mut queued = Vec::new();
    for send_at in [
        Value::Null,
        json!("2027-01-16T08:00:00Z"),
        json!("2027-01-17T08:00:00Z"),
    ] {
        let answer = world
            .notify(&json!({"title": "a", "sendAt": send_at}))
            .await;
        queued.push(answer.json()["broadcast"].as_str().unwrap().to_owned());
        world.settle().await;
        world.clock.advance(Duration::from_secs(60));
    }
    queued.reverse();
    for limit in [1, 2, 9] {
        assert_eq!(
            ids(&world, "/broadcasts", "broadcasts", limit).await,
            queued
        );
    }
    let scheduled = ids(&world, "/broadcasts?state=scheduled", "broadcasts", 1).await;
    assert_eq!(scheduled, queued[..2]);
    let at =
        "/broadcasts?createdAfter=2027-01-15T08:00:30%2B00:00&createdBefore=2027-01-15T08:02:00Z";
    assert_eq!(ids(&world, at, "broadcasts", 9).await, [queued[1].as_str()]);

    let one = &get(&world, "/broadcasts?limit=1").await.json()["broadcasts"][0];
    let alone = get(&world, &format!("/broadcasts/{}", queued[0]))
        .await
        .json();
    for (name, value) in one.as_object().unwrap() {
        assert_eq!(alone[name], *value, "{name}");
    }
    let path = format!("/broadcasts/{}", queued[0]);
    world.admin(Method::DELETE, &path, &Value::Null).await;
    let scheduled = ids(
        &world,
        "/broadcasts?state=scheduled,paused",
        "broadcasts",
        9,
    )
    .await;
    assert_eq!(scheduled, [queued[1].as_str()]);
    let over = ids(&world, "/broadcasts?state=done,cancelled", "broadcasts", 9).await;
    assert_eq!(over, [queued[0].as_str(), queued[2].as_str()]);

    // The same by a call.
    let filter = BroadcastFilter {
        states: vec![BroadcastState::Scheduled],
        ..BroadcastFilter::default()
    };
    let page = world.push.broadcasts(&filter, None, 100).await.unwrap();
    assert_eq!(page.broadcasts.len(), 1);
    assert_eq!(page.broadcasts[0].id.to_string(), queued[1]);
}

#[tokio::test]
async fn a_query_that_is_wrong_is_refused() {
    let world = World::new().await;
    for path in [
        "/broadcasts?state=new",
        "/broadcasts?state=done,",
        "/broadcasts?status=done",
        "/broadcasts?limit=0",
        "/broadcasts?limit=101",
        "/broadcasts?createdAfter=yesterday",
        "/broadcasts?after=x",
        "/broadcasts?after=1.x",
        "/broadcasts?limit=1&limit=2",
        "/subscriptions?state=expired",
        "/subscriptions?pushService=firebase",
        "/subscriptions?tag=%20",
        "/subscriptions?id=x",
        "/subscriptions?after=AAAA",
        "/subscriptions?user=%FF",
        "/subscriptions?endpoint=https://fcm.googleapis.com/fcm/send/x",
    ] {
        let refused = get(&world, path).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (400, "invalid_query"),
            "{path}"
        );
        assert!(!refused.text().contains("googleapis"));
    }
}

#[tokio::test]
async fn subscriptions_of_all_users_are_listed_without_secrets() {
    let world = World::with_api(|s| s.public_tags(["news".parse().unwrap()])).await;
    let mut all = Vec::new();
    for number in 0..7 {
        let (_, row) = world.browser();
        let tags = if number % 2 == 0 { news() } else { json!([]) };
        let body = with(&row, json!({"tags": tags}));
        let answer = match number % 3 {
            0 => world.post("/subscribe", &body).await,
            1 => world.post_as("al ice", "/subscribe", &body).await,
            _ => world.post_as("bob", "/subscribe", &body).await,
        };
        all.push((number, answer.id().to_string(), row));
    }
    let expected = |takes: fn(i32) -> bool| {
        let ids = all.iter().filter(|(number, ..)| takes(*number));
        let mut ids: Vec<_> = ids.map(|(_, id, _)| id.clone()).collect();
        ids.sort();
        ids
    };
    for (query, takes) in [
        ("", (|_| true) as fn(i32) -> bool),
        ("?user=al+ice", |number| number % 3 == 1),
        ("?user=bob&tag=news", |number| {
            number % 3 == 2 && number % 2 == 0
        }),
        ("?tag=news&state=live", |number| number % 2 == 0),
        ("?pushService=fcm", |_| true),
        ("?pushService=apple", |_| false),
        ("?state=retired", |_| false),
        ("?user=nobody", |_| false),
    ] {
        for limit in [1, 3, 100] {
            let path = format!("/subscriptions{query}");
            let mut found = ids(&world, &path, "subscriptions", limit).await;
            found.sort();
            assert_eq!(found, expected(takes), "{query}");
        }
    }
    let list = get(&world, "/subscriptions").await;
    for (_, _, row) in &all {
        for secret in [
            &row["endpoint"],
            &row["keys"]["auth"],
            &row["keys"]["p256dh"],
        ] {
            assert!(!list.text().contains(secret.as_str().unwrap()));
        }
    }
    let (_, id, row) = &all[4];
    let one = get(&world, &format!("/subscriptions?id={id}")).await.json();
    assert_eq!(
        one,
        json!({"next": null, "subscriptions": [{
            "id": id,
            "pushService": "fcm",
            "state": "live",
            "user": "al ice",
            "tags": ["news"],
            "keyId": world.push.vapid_public_key().id().to_string(),
            "createdAt": "2027-01-15T08:00:00Z",
            "lastSeenAt": "2027-01-15T08:00:00Z",
            "lastSuccessAt": null,
            "failureStreak": 0,
            "lastFailure": null,
            "retireReason": null,
            "expirationTime": null,
            "schedules": [],
        }]})
    );
    let endpoint = json!({"endpoint": row["endpoint"]});
    let found = world
        .admin(Method::POST, "/subscriptions/search", &endpoint)
        .await;
    assert_eq!(found.json(), one);
    assert!(!found.text().contains("googleapis"));
    let unknown = json!({"endpoint": "https://fcm.googleapis.com/fcm/send/unknown"});
    let none = world
        .admin(Method::POST, "/subscriptions/search", &unknown)
        .await;
    assert_eq!(none.json(), json!({"subscriptions": [], "next": null}));
    let none = json!({"endpoint": null});
    let refused = world
        .admin(Method::POST, "/subscriptions/search", &none)
        .await;
    refused.is(400, "missing_endpoint");
    let wrong = json!({"endpoint": "ftp://x"});
    let refused = world
        .admin(Method::POST, "/subscriptions/search", &wrong)
        .await;
    refused.is(400, "invalid_endpoint");
    let all = SubscriptionFilter::default();
    let list = world.push.subscriptions(&all, None, 3);
    assert_eq!(list.await.unwrap().subscriptions.len(), 3);
}

#[tokio::test]
async fn any_subscription_is_deleted_with_its_daily_notifications() {
    let world = World::new().await;
    let (_, row) = world.browser();
    let daily = with(&row, json!({"notifyTime": {"utcHour": 8}}));
    let id = world.post_as("alice", "/subscribe", &daily).await.id();
    let path = format!("/subscriptions/{id}");
    let one = get(&world, &format!("/subscriptions?id={id}")).await.json();
    assert_eq!(
        one["subscriptions"][0]["schedules"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    for _ in 0..2 {
        let answer = world.admin(Method::DELETE, &path, &Value::Null).await;
        assert_eq!(
            (answer.status, answer.json()),
            (
                200,
                json!({"success": true, "message": "Subscription deleted successfully"})
            )
        );
        assert!(world.row(&row).await.is_none());
    }
    assert_eq!(world.store.schedules(Some(id)).await.unwrap(), []);
    let malformed = world
        .admin(Method::DELETE, "/subscriptions/x", &Value::Null)
        .await;
    malformed.is(404, "unknown_subscription");
}

#[tokio::test]
async fn the_last_failure_tells_why_a_user_did_not_get_it() {
    let world = World::with_api(|s| s.confirmation(false)).await;
    let (_, row) = world.browser();
    let id = world.post_as("alice", "/subscribe", &row).await.id();
    let last = async || {
        let path = format!("/subscriptions?id={id}");
        let found = get(&world, &path).await.json()["subscriptions"][0].clone();
        let mut request = Request::get("/devices").body(super::full("")).unwrap();
        let alice = tower_web_push::broadcast::Principal::from("alice");
        request.extensions_mut().insert(alice);
        let devices = world.call(request).await.json();
        assert_eq!(devices["devices"][0]["lastFailure"], found["lastFailure"]);
        found
    };
    let once = |answer: Response| world.service.script(When::any().times(1), answer);

    // It is busy, and the repetition is accepted: the failure stays with its time.
    once(Response::status(StatusCode::SERVICE_UNAVAILABLE));
    world.notify(&json!({"title": "a"})).await;
    world.settle().await;
    let busy = json!({"at": "2027-01-15T08:00:00Z", "status": 503, "reason": null});
    let found = last().await;
    assert_eq!(
        (&found["lastFailure"], &found["failureStreak"]),
        (&busy, &json!(1))
    );
    world.clock.advance(Duration::from_secs(600));
    world.settle().await;
    let found = last().await;
    assert_eq!(
        (&found["lastFailure"], &found["failureStreak"]),
        (&busy, &json!(0))
    );
    assert_eq!(found["lastSuccessAt"], "2027-01-15T08:10:00Z");

    // It is gone, in words of the push service, of which only plain characters are kept.
    once(
        Response::status(StatusCode::GONE)
            .with_body("push subscription has unsubscribed or expired"),
    );
    world.notify(&json!({"title": "a"})).await;
    world.settle().await;
    let found = last().await;
    let reason = "push_subscription_has_unsubscribed_or_expired";
    assert_eq!(
        found["lastFailure"],
        json!({"at": "2027-01-15T08:10:00Z", "status": 410, "reason": reason})
    );
    assert_eq!(
        (&found["state"], &found["retireReason"]),
        (&json!("retired"), &json!("gone"))
    );
    let retired = ids(&world, "/subscriptions?state=retired", "subscriptions", 9).await;
    assert_eq!(retired, [id.to_string()]);
    let info = world.push.subscription(id).await.unwrap().unwrap();
    let failure = info.device.last_failure.unwrap().failure;
    assert_eq!(failure.status, Some(410));
    assert_eq!(failure.reason.unwrap().as_str(), reason);
}

#[tokio::test]
async fn a_broadcast_shows_samples_of_its_failures() {
    let world = World::with_api(|s| s.confirmation(false)).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let (_, row) = world.browser();
        ids.push(world.post("/subscribe", &row).await.id());
    }
    world.subscriber().await;
    // A row whose keys are young is not believed to be gone.
    world.clock.advance(Duration::from_secs(120));
    let gone = Response::status(StatusCode::GONE);
    world.service.script(When::any().times(2), gone);
    let large = Response::status(StatusCode::PAYLOAD_TOO_LARGE).with_body("<script>");
    world.service.script(When::any().times(1), large);
    let queued = world.notify(&json!({"title": "a"})).await.json();
    let path = format!("/broadcasts/{}", queued["broadcast"].as_str().unwrap());
    assert_eq!(get(&world, &path).await.json()["failures"], json!([]));
    world.settle().await;
    let shown = get(&world, &path).await.json();
    assert_eq!(shown["counts"]["accepted"], 1);
    let failures = shown["failures"].as_array().unwrap();
    let of = |outcome: &str, status: u16| {
        let same = failures.iter();
        same.filter(|failure| failure["outcome"] == outcome && failure["status"] == status)
            .count()
    };
    assert_eq!(
        (of("gone", 410), of("too_large", 413), failures.len()),
        (2, 1, 3)
    );
    for failure in failures {
        assert_eq!(failure["at"], "2027-01-15T08:02:00Z");
        assert_eq!(
            (&failure["pushService"], &failure["reason"]),
            (&json!("fcm"), &Value::Null)
        );
        assert_eq!(failure.as_object().unwrap().len(), 6);
    }
    // One whose subscription is deleted stays, without it.
    let one = failures[0]["subscription"].as_str().unwrap().to_owned();
    world
        .admin(
            Method::DELETE,
            &format!("/subscriptions/{one}"),
            &Value::Null,
        )
        .await;
    let shown = get(&world, &path).await.json();
    let failures = shown["failures"].as_array().unwrap();
    let deleted = failures
        .iter()
        .filter(|failure| failure["subscription"].is_null());
    assert_eq!((deleted.count(), failures.len()), (1, 3));
    let id = queued["broadcast"].as_str().unwrap().parse().unwrap();
    let failures = world.push.failures(id).await.unwrap();
    assert_eq!(failures.len(), 3);
}

#[tokio::test]
async fn all_that_match_are_exported_as_csv() {
    let store = std::sync::Arc::new(TamperedStore::default());
    let world = World::with(|builder| builder.store(std::sync::Arc::clone(&store))).await;
    let users = ["=1+1", "a,\"b\"", "bob"];
    for number in 0..1_200 {
        let (_, row) = world.browser();
        world.post_as(users[number % 3], "/subscribe", &row).await;
        if number % 3 == 2 {
            continue;
        }
        // So that no user has too many.
        let alone = world.browser().1;
        world.post("/subscribe", &alone).await;
    }
    let all = get(&world, "/subscriptions?format=csv").await;
    assert_eq!(all.status, 200);
    assert_eq!(
        all.headers["content-type"],
        "text/csv; charset=utf-8; header=present"
    );
    assert_eq!(all.headers["cache-control"], "no-store");
    assert!(!all.headers.contains_key("content-length"));
    let lines: Vec<_> = all.text().split_terminator("\r\n").collect();
    assert!(lines[0].starts_with("id,state,pushService,user,tags,keyId,createdAt,"));
    let count = usize::try_from(store_rows(&store).await).unwrap();
    assert!(count > 800, "more than a page: {count}");
    assert_eq!(lines.len(), 1 + count);
    assert!(
        lines
            .iter()
            .any(|line| line.contains(",live,fcm,\"'=1+1\",,"))
    );
    assert!(
        lines
            .iter()
            .any(|line| line.contains(",live,fcm,\"a,\"\"b\"\"\",,"))
    );
    assert!(!all.text().contains("googleapis"));

    let bobs = Request::get("/subscriptions?user=bob")
        .header("authorization", super::TOKEN)
        .header("accept", "text/html;q=0.5, Text/CSV;q=0.9");
    let bobs = world.call(bobs.body(super::full("")).unwrap()).await;
    assert_eq!(bobs.text().split_terminator("\r\n").count(), 1 + 32);
    let wrong = get(&world, "/subscriptions?format=xml").await;
    wrong.is(400, "invalid_query");

    // The store fails: before the first page it is a refusal, later the file has no end.
    let ask = async || {
        let request =
            Request::get("/subscriptions?format=csv").header("authorization", super::TOKEN);
        let request = request.body(super::full("")).unwrap();
        let response = world.layer.service().oneshot(request).await;
        response.unwrap_or_else(|never| match never {})
    };
    store.fail("list_subscriptions");
    assert_eq!(ask().await.status(), 503);
    store.fail(None);
    let mut body = ask().await.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    store.fail("list_subscriptions");
    assert!(body.frame().await.unwrap().is_err());
    assert!(body.frame().await.is_none());
}

/// Each page of an export has the rows that the filter takes, and no others.
#[tokio::test]
async fn the_filter_of_an_export_holds_for_all_of_its_pages() {
    let world = World::with_api(|s| s.public_tags([Tag::parse("news").unwrap()])).await;
    for number in 0..1_300 {
        let (_, row) = world.browser();
        let row = match number % 2 {
            0 => with(&row, json!({"tags": ["news"]})),
            _ => row,
        };
        assert_eq!(world.post("/subscribe", &row).await.status, 200);
    }
    let tagged = get(&world, "/subscriptions?format=csv&tag=news").await;
    assert_eq!(tagged.text().split_terminator("\r\n").count(), 1 + 650);
}

async fn store_rows(store: &TamperedStore) -> u64 {
    let any = CountFilter::new(Audience::All, Liveness::Any);
    store
        .count(&any, Timestamp::from_secs(1_800_000_000))
        .await
        .unwrap()
}

/// An open console lists them again and again: not with a read for each row.
#[tokio::test(start_paused = true)]
async fn a_page_of_subscriptions_reads_their_schedules_side_by_side() {
    let store = std::sync::Arc::new(TamperedStore::default());
    let world = World::with(|builder| builder.store(std::sync::Arc::clone(&store))).await;
    let mut ids = Vec::new();
    for number in 0..100 {
        let (_, row) = world.browser();
        let answer = world.post_as(&number.to_string(), "/subscribe", &row).await;
        ids.push((answer.id(), row));
    }
    let list = async || {
        store.take_calls();
        let began = tokio::time::Instant::now();
        let all = SubscriptionFilter::default();
        let list = world.push.subscriptions(&all, None, 100).await.unwrap();
        let reads = store.take_calls();
        let reads = reads.iter().filter(|call| **call == "schedules").count();
        (list.subscriptions, reads, began.elapsed())
    };
    store.delay("schedules", Duration::from_secs(1));
    let (listed, reads, took) = list().await;
    assert_eq!((listed.len(), reads, took), (100, 0, Duration::ZERO));
    let (one, row) = &ids[42];
    store.delay("none", Duration::ZERO);
    let daily = with(row, json!({"notifyTime": {"utcHour": 8}}));
    let answer = world.post_as("42", "/subscribe", &daily).await;
    assert_eq!(answer.status, 200);
    store.delay("schedules", Duration::from_secs(1));
    let (listed, reads, took) = list().await;
    assert_eq!((listed.len(), reads), (100, 100));
    // 32 at a time.
    assert_eq!(took, Duration::from_secs(4));
    for info in listed {
        let expected = usize::from(info.device.id == *one);
        assert_eq!(info.device.schedules.len(), expected);
    }
    store.fail("schedules");
    let all = SubscriptionFilter::default();
    world.push.subscriptions(&all, None, 100).await.unwrap_err();
}

/// The names of the columns are those of the list's members.
#[tokio::test]
async fn an_export_says_of_each_row_what_the_list_says() {
    let world = World::with_api(|s| s.confirmation(false)).await;
    let send = async |answers: &[StatusCode]| {
        for answer in answers {
            world.clock.advance(Duration::from_secs(120));
            let body = "push subscription has unsubscribed or expired";
            let answer = Response::status(*answer).with_body(body);
            world.service.script(When::any().times(1), answer);
            world.notify(&json!({"title": "a"})).await;
            world.settle().await;
        }
    };
    let (_, gone) = world.browser();
    world.post_as("alice", "/subscribe", &gone).await;
    send(&[StatusCode::CREATED, StatusCode::GONE]).await;
    let (_, failing) = world.browser();
    let failing = with(&failing, json!({"expirationTime": 1_900_000_000_000_u64}));
    world.post_as("bob", "/subscribe", &failing).await;
    world.clock.advance(Duration::from_secs(120));
    world.post_as("bob", "/subscribe", &failing).await;
    send(&[StatusCode::CREATED, StatusCode::SERVICE_UNAVAILABLE]).await;

    let list = get(&world, "/subscriptions").await.json();
    let list = list["subscriptions"].as_array().unwrap();
    let export = get(&world, "/subscriptions?format=csv").await;
    let mut lines = export.text().split_terminator("\r\n");
    let names: Vec<_> = lines.next().unwrap().split(',').collect();
    let plain = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let (mut rows, mut values) = (0, BTreeSet::new());
    for line in lines {
        let cells: Vec<_> = line.split(',').collect();
        assert_eq!(cells.len(), names.len());
        let row = list.iter().find(|row| row["id"] == cells[0]).unwrap();
        for (name, cell) in names.iter().zip(cells) {
            let value = match *name {
                "tags" => Value::Null,
                name => match name.strip_prefix("lastFailure") {
                    Some(of) => row["lastFailure"][of.to_lowercase()].clone(),
                    None => row[name].clone(),
                },
            };
            assert_eq!(cell, plain(&value), "{name}");
            if !cell.is_empty() {
                values.insert((*name, cell));
            }
        }
        rows += 1;
    }
    assert_eq!(rows, 2);
    // All members have a value, and the times of the row that fails differ: a column cannot be taken for another.
    let times = values
        .iter()
        .filter(|(name, _)| name.ends_with("At") || *name == "expirationTime");
    let times: BTreeSet<_> = times.map(|(_, time)| time).collect();
    assert_eq!(times.len(), 7, "{values:?}");
    for name in names.iter().filter(|name| **name != "tags") {
        assert!(values.iter().any(|(of, _)| of == name), "{name}");
    }
}
