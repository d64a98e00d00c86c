use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tower_web_push::WebPush;
use tower_web_push::clock::Clock as _;
use tower_web_push::store::{
    Change, DeliveryLedger as _, Failure, Pause, PauseReason, RetireReason, ScheduleStore as _,
    StoreErrorKind, SubscriptionStore as _, Tally,
};
use tower_web_push::subscription::{Endpoint, Origin};
use tower_web_push::testing::{Answer, When};

use super::{FCM, World, full, with};
use crate::support::tampered_store::TamperedStore;

/// How long what `/ready` and `/ping` found in the store is good for.
const KNOWN_FOR: Duration = Duration::from_secs(1);

#[tokio::test]
async fn the_public_key_has_both_of_its_names() {
    let world = World::new().await;
    let key = world.push.vapid_public_key();
    for path in ["/vapid", "/subscribe"] {
        let answer = world.get(path).await;
        let text = key.to_base64url();
        assert_eq!(
            answer.json(),
            json!({"vapidKey": text, "public_key": text, "keyId": key.id().to_string()})
        );
        assert_eq!(text.len(), 87);
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert_eq!(answer.headers["content-type"], "application/json");
    }
}

#[tokio::test(start_paused = true)]
async fn ping_tells_version_and_last_run() {
    let world = World::with_api(|s| s.server_version("7.8.9")).await;
    let before = world.get("/ping").await;
    let prefix = "pong ... version 7.8.9 ... with latest subscription run at ";
    assert_eq!(before.text(), format!("{prefix}None"));
    assert_eq!(before.headers["content-type"], "text/plain; charset=utf-8");
    world.store.record_run(world.clock.now()).await.unwrap();
    sleep(KNOWN_FOR).await;
    assert_eq!(
        world.get("/ping").await.text(),
        format!("{prefix}2027-01-15T08:00:00Z")
    );
    let plain = World::new().await.get("/ping").await;
    assert!(plain.text().contains(env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn ready_while_everything_works() {
    let world = World::with(|b| b.remote_workers(false)).await;
    let answer = world.get("/ready").await;
    assert_eq!(answer.status, 503);
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(
        answer.json(),
        json!({"ready": false, "store": true, "scheduler": false, "worker": false, "clock": true, "contact": true})
    );

    let world = World::new().await;
    world.store.record_run(world.clock.now()).await.unwrap();
    let answer = world.get("/ready").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({"ready": true, "store": true, "scheduler": true, "worker": true, "clock": true, "contact": true})
    );
    world.clock.advance(Duration::from_secs(3600));
    let stuck = world.get("/ready").await;
    assert_eq!(
        (stuck.status, &stuck.json()["scheduler"]),
        (503, &json!(false))
    );
}

#[tokio::test]
async fn without_a_contact_it_is_not_ready_and_accepts_nothing() {
    let mut world = World::new().await;
    world.store.record_run(world.clock.now()).await.unwrap();
    let (_, subscription) = world.browser();
    world.push = WebPush::builder_without_contact()
        .store(Arc::clone(&world.store))
        .client(world.service.clone())
        .clock(world.clock.clone())
        .build()
        .await
        .unwrap();
    world.layer = world.push.layer();
    let ready = world.get("/ready").await;
    assert_eq!(
        (ready.status, ready.json()),
        (
            503,
            json!({"ready": false, "store": true, "scheduler": true, "worker": false, "clock": true, "contact": false})
        )
    );
    for endpoint in [
        "https://fcm.googleapis.com/fcm/send/x",
        "http://127.0.0.1:22/x",
    ] {
        let mut subscription = subscription.clone();
        subscription["endpoint"] = json!(endpoint);
        let refused = world.post("/subscribe", &subscription).await;
        assert_eq!(refused.json()["code"], "endpoint_not_allowed", "{endpoint}");
    }
    assert_eq!(world.service.counts().requests, 0);
}

#[tokio::test(start_paused = true)]
async fn not_ready_while_the_store_fails_or_does_not_answer() {
    let store = Arc::new(TamperedStore::default());
    let world = World::with(|builder| builder.store(Arc::clone(&store))).await;
    store.record_run(world.clock.now()).await.unwrap();
    assert_eq!(world.get("/ready").await.status, 200);
    for call in ["last_run", "page", "pauses"] {
        sleep(KNOWN_FOR).await;
        store.fail(call);
        let failing = world.get("/ready").await;
        assert_eq!(world.get("/live").await.text(), "live");
        store.fail(None);
        sleep(KNOWN_FOR).await;
        store.hang(call);
        let began = Instant::now();
        let silent = world.get("/ready").await;
        assert_eq!(world.get("/live").await.status, 200);
        store.hang(None);
        assert!(began.elapsed() < Duration::from_secs(5), "{call}");
        for answer in [failing, silent] {
            let store = &answer.json()["store"];
            assert_eq!((answer.status, store), (503, &json!(false)), "{call}");
        }
        assert_eq!(world.get("/ready").await.status, 200, "{call}");
    }
}

/// Everybody may call these two, and what they ask the store takes its connections from the worker.
#[tokio::test(start_paused = true)]
async fn many_probes_at_once_read_the_store_once_and_not_again_for_a_second() {
    let store = Arc::new(TamperedStore::default());
    let world = World::with(|builder| builder.store(Arc::clone(&store))).await;
    store.record_run(world.clock.now()).await.unwrap();
    for (path, reads) in [("/ready", 3), ("/ping", 1)] {
        store.take_calls();
        let answers = join_all((0..1000).map(|_| world.get(path))).await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{path}");
        sleep(KNOWN_FOR / 2).await;
        assert_eq!(world.get(path).await.status, 200);
        assert_eq!(store.take_calls().len(), reads, "{path}");
        store.fail("last_run");
        sleep(KNOWN_FOR / 2).await;
        assert_eq!(world.get(path).await.status, 503, "{path}");
        store.fail(None);
        sleep(KNOWN_FOR).await;
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn probes_that_go_away_hold_up_no_other() {
    let store = Arc::new(TamperedStore::default());
    let world = World::with(|builder| builder.store(Arc::clone(&store))).await;
    store.record_run(world.clock.now()).await.unwrap();
    store.delay("pauses", Duration::from_millis(100));
    store.take_calls();
    let (gone, answer) = tokio::join!(
        timeout(Duration::from_millis(50), world.get("/ready")),
        world.get("/ready")
    );
    assert!(gone.is_err());
    assert_eq!(answer.status, 200);
    assert_eq!(store.take_calls().len(), 3, "the second went on with it");

    sleep(KNOWN_FOR).await;
    for _ in 0..50 {
        let gone = timeout(Duration::from_millis(10), world.get("/ready")).await;
        assert!(gone.is_err());
    }
    assert_eq!(store.take_calls().len(), 3, "the first one's");
    let began = Instant::now();
    assert_eq!(world.get("/ready").await.status, 200);
    assert!(began.elapsed() < KNOWN_FOR);

    // One that waits for a store that hangs has its own three seconds, and leaves nothing behind.
    store.hang("pauses");
    sleep(KNOWN_FOR).await;
    let patient = async {
        sleep(Duration::from_secs(1)).await;
        let began = Instant::now();
        assert_eq!(world.get("/ready").await.status, 503);
        assert!(began.elapsed() <= Duration::from_secs(3));
    };
    let (gone, ()) = tokio::join!(
        timeout(Duration::from_secs(2), world.get("/ready")),
        patient
    );
    assert!(gone.is_err());
    store.hang(None);
    assert_eq!(world.get("/ready").await.status, 200);
}

/// Waits until `/ready` answers with a status. Returns its answer.
async fn until_ready_is(world: &World, status: u16) -> Value {
    loop {
        let answer = world.get("/ready").await;
        if answer.status == status {
            return answer.json();
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn ready_is_not_while_the_worker_cannot_claim_settle_or_write() {
    for call in ["claim", "settle", "record_run"] {
        let store = Arc::new(TamperedStore::default());
        let world = World::with(|builder| {
            let builder = builder.store(Arc::clone(&store));
            builder.poll_interval(Duration::from_secs(10))
        })
        .await;
        world.subscriber().await;
        let run = tokio::spawn(world.push.run(std::future::pending()));
        until_ready_is(&world, 200).await;
        store.fail(call);
        let began = Instant::now();
        world.notify(&json!({"title": "a"})).await;
        let red = until_ready_is(&world, 503).await;
        assert!(began.elapsed() <= Duration::from_secs(11), "{call}");
        assert_eq!(
            (&red["store"], &red["worker"]),
            (&json!(false), &json!(true))
        );
        let stats = world
            .admin(Method::GET, "/stats", &Value::Null)
            .await
            .json();
        let step = if call == "record_run" { "record" } else { call };
        assert_eq!(stats["worker"]["failing"][0]["step"], step, "{stats}");
        store.fail(None);
        let began = Instant::now();
        until_ready_is(&world, 200).await;
        assert!(began.elapsed() <= Duration::from_secs(3), "{call}");
        run.abort();
    }
}

/// An idle worker records a run once in each poll interval, a little late.
#[tokio::test(start_paused = true)]
async fn a_run_may_be_three_poll_intervals_old_and_at_least_a_minute() {
    for (interval, longest) in [(60, 180), (10, 60), (600, 1800)] {
        let interval = Duration::from_secs(interval);
        let world = World::with(|builder| builder.poll_interval(interval)).await;
        world.store.record_run(world.clock.now()).await.unwrap();
        let is_recent = async || {
            sleep(KNOWN_FOR).await;
            world.get("/ready").await.json()["scheduler"] == true
        };
        world.clock.advance(Duration::from_secs(longest));
        assert!(is_recent().await, "{interval:?}");
        world.clock.advance(Duration::from_secs(1));
        assert!(!is_recent().await, "{interval:?}");
    }
}

/// Another replica's runs are no sign of this one's worker.
#[tokio::test(start_paused = true)]
async fn a_process_whose_own_worker_claims_nothing_is_not_ready() {
    let store = Arc::new(TamperedStore::default());
    let world = World::with(|builder| builder.store(Arc::clone(&store))).await;
    world.subscriber().await;
    let run = tokio::spawn(world.push.run(std::future::pending()));
    until_ready_is(&world, 200).await;
    store.hang("claim");
    world.notify(&json!({"title": "a"})).await;
    for _ in 0..20 {
        sleep(Duration::from_secs(10)).await;
        let now = world.clock.now();
        store.memory.record_run(now).await.unwrap();
    }
    assert!(store.has_hung());
    let ready = world.get("/ready").await;
    assert_eq!(
        (ready.status, &ready.json()["scheduler"]),
        (503, &json!(false))
    );
    run.abort();
    // A process without a worker relies on the others.
    let other = World::with(|builder| builder.store(Arc::clone(&store))).await;
    let ready = other.get("/ready").await;
    assert_eq!(
        (ready.status, &ready.json()["scheduler"]),
        (200, &json!(true))
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_of_a_caller_shows_at_once_until_the_worker_has_written() {
    let store = Arc::new(TamperedStore::default());
    let world = World::with(|builder| builder.store(Arc::clone(&store))).await;
    let run = tokio::spawn(world.push.run(std::future::pending()));
    until_ready_is(&world, 200).await;
    store.fail("upsert");
    let (_, json) = world.browser();
    assert_eq!(world.post("/subscribe", &json).await.status, 503);
    assert_eq!(world.get("/ready").await.json()["store"], false);
    // Not after the poll interval of 60 s.
    let began = Instant::now();
    until_ready_is(&world, 200).await;
    assert!(began.elapsed() < Duration::from_secs(1));

    // Without a worker in this process nothing shows the end of it.
    run.abort();
    let _ = run.await;
    assert_eq!(world.post("/subscribe", &json).await.status, 503);
    assert_eq!(world.get("/ready").await.json()["store"], false);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.get("/ready").await.json()["store"], true);
}

#[tokio::test]
async fn stats_count_subscriptions_queue_and_closed_gates() {
    let world = World::new().await;
    world.subscriber().await;
    world.subscriber().await;
    world.notify(&json!({"title": "a"})).await;
    let busy = Answer::status(StatusCode::SERVICE_UNAVAILABLE);
    world.service.script(When::any().times(1), busy);
    world.settle().await;
    world.clock.advance(Duration::from_secs(600));
    let (origin, until) = (
        Origin::parse(FCM).unwrap(),
        world.clock.now() + Duration::from_secs(60),
    );
    let pause = Pause::new(origin, until, PauseReason::RateLimited);
    world.store.pause(&pause, world.clock.now()).await.unwrap();

    let answer = world.admin(Method::GET, "/stats", &Value::Null).await;
    assert_eq!(answer.status, 200);
    let stats = answer.json();
    let key = world.push.vapid_public_key().id().to_string();
    assert_eq!(stats["subscriptions"]["total"], 2);
    assert_eq!(stats["subscriptions"]["live"], 2);
    assert_eq!(stats["subscriptions"]["byPushService"]["fcm"], 2);
    assert_eq!(stats["subscriptions"]["byPushService"]["apple"], 0);
    assert_eq!(stats["subscriptions"]["byVapidKey"][&key], 2);
    assert_eq!(stats["ledger"]["depth"], 1);
    assert!(
        stats["ledger"]["oldestDue"]
            .as_str()
            .unwrap()
            .starts_with("2027-01-15T")
    );
    assert_eq!(
        stats["gates"],
        json!([{"origin": FCM, "until": "2027-01-15T08:11:00Z", "reason": "rate_limited", "closures": 1}])
    );
    assert_eq!(stats["retiringStopped"], json!([]));
    assert_eq!(
        stats["origins"],
        json!([{"origin": FCM, "inFlight": 0, "limit": 8}])
    );
    assert_eq!(
        stats["worker"],
        json!({"failing": [], "parked": 0, "parkedBroadcasts": [], "unreadable": 0})
    );
    assert_eq!(stats["missingKeys"], json!([]));
}

#[tokio::test]
async fn stats_do_without_a_history_that_is_damaged() {
    let store = Arc::new(TamperedStore::default());
    let world = World::with(|builder| builder.store(Arc::clone(&store))).await;
    store.fail_as(StoreErrorKind::Corrupt, "days");
    let answer = world.admin(Method::GET, "/stats", &Value::Null).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["days"], json!([]));
    // One that cannot be read is not shown as empty.
    store.fail("days");
    let answer = world.admin(Method::GET, "/stats", &Value::Null).await;
    assert_eq!(answer.status, 503);
}

/// The history of `GET /stats`. Each day is written once, by whichever worker comes first.
#[tokio::test(start_paused = true)]
async fn the_number_of_live_subscriptions_is_kept_for_each_day() {
    let world = World::new().await;
    let days = async || {
        world.settle().await;
        let stats = world.admin(Method::GET, "/stats", &Value::Null).await;
        stats.json()["days"].clone()
    };
    let day = |day: &str, live: u64| json!({"day": day, "live": live});
    world.subscriber().await;
    assert_eq!(days().await, json!([day("2027-01-15", 1)]));
    world.subscriber().await;
    world.clock.advance(Duration::from_secs(3 * 3600));
    assert_eq!(days().await, json!([day("2027-01-15", 1)]));
    world.clock.advance(Duration::from_secs(2 * 86_400));
    let known = [day("2027-01-15", 1), day("2027-01-17", 2)];
    assert_eq!(days().await, json!(known));
}

/// A day without a number would be missing for ever. What is retired is not counted.
#[tokio::test(start_paused = true)]
async fn a_number_that_could_not_be_written_is_written_later_that_day() {
    let store = Arc::new(TamperedStore::default());
    let world = World::with(|builder| builder.store(Arc::clone(&store))).await;
    world.subscriber().await;
    let (_, gone, _) = world.subscriber().await;
    let gone: Endpoint = gone["endpoint"].as_str().unwrap().parse().unwrap();
    let retired = Change::Retire {
        key: gone.key(),
        reason: RetireReason::Gone,
        observed_at: world.clock.now(),
        failure: Failure::default(),
    };
    let changed = store.apply(&[retired], world.clock.now()).await;
    assert_eq!(changed.unwrap(), 1);
    let days = async || {
        let stats = world.admin(Method::GET, "/stats", &Value::Null).await;
        stats.json()["days"].clone()
    };
    store.fail("record_days");
    world.settle().await;
    assert_eq!(days().await, json!([]));
    store.fail(None);
    world.clock.advance(Duration::from_secs(3 * 3600));
    world.settle().await;
    assert_eq!(days().await, json!([{"day": "2027-01-15", "live": 1}]));
}

#[tokio::test(start_paused = true)]
async fn a_refused_sender_shows_in_stats_and_not_to_strangers() {
    let world = World::new().await;
    for _ in 0..8 {
        world.subscriber().await;
    }
    let refused = Answer::status(StatusCode::FORBIDDEN).with_body("invalid JWT provided");
    let before = world.get("/ready").await.json();
    world.service.script(When::any(), refused);
    world.notify(&json!({"title": "a"})).await;
    world.settle().await;
    world.clock.advance(Duration::from_secs(4));
    world.settle().await;
    sleep(KNOWN_FOR).await;
    let ready = world.get("/ready").await;
    assert_eq!(ready.status, 200, "the other push services go on");
    assert_eq!(
        ready.json().as_object().unwrap().len(),
        before.as_object().unwrap().len()
    );
    assert!(!ready.text().contains("ault") && !ready.text().contains("fcm"));
    let stats = world.admin(Method::GET, "/stats", &Value::Null).await;
    let gate = &stats.json()["gates"][0];
    assert_eq!(
        (&gate["origin"], &gate["reason"], &gate["closures"]),
        (&json!(FCM), &json!("sender_fault"), &json!(1))
    );
    assert_eq!(stats.json()["subscriptions"]["live"], 8);
    // A new key by the operator lifts the pause.
    world
        .admin(Method::POST, "/regenerate-vapid", &Value::Null)
        .await;
    let stats = world.admin(Method::GET, "/stats", &Value::Null).await;
    assert_eq!(stats.json()["gates"], json!([]));
}

/// Strangers cause as many confirmations as they like.
#[tokio::test(start_paused = true)]
async fn confirmations_that_are_refused_are_no_sign_of_a_refused_sender() {
    let world = World::new().await;
    let refused = Answer::status(StatusCode::FORBIDDEN).with_body("invalid JWT provided");
    world.service.script(When::any(), refused);
    for _ in 0..8 {
        let (_, json) = world.browser();
        let daily = with(&json, json!({"notifyTime": {"utcHour": 8, "minute": 0}}));
        assert_eq!(world.post("/subscribe", &daily).await.status, 200);
    }
    let gates = async || {
        for _ in 0..2 {
            world.settle().await;
            world.clock.advance(Duration::from_secs(4));
        }
        let stats = world.admin(Method::GET, "/stats", &Value::Null).await;
        stats.json()["gates"].as_array().unwrap().len()
    };
    assert_eq!(gates().await, 0);
    world.notify(&json!({"title": "a"})).await;
    assert_eq!(gates().await, 1, "messages of the application are");
}

#[tokio::test]
async fn suspended_pruning_shows_in_stats() {
    let world = World::new().await;
    let origin = Origin::parse(FCM).unwrap();
    let counts = [(origin, Tally::new(55, 45))];
    let now = world.clock.now();
    world.store.tally(&counts, now).await.unwrap();
    let stats = world.admin(Method::GET, "/stats", &Value::Null).await;
    assert_eq!(
        stats.json()["retiringStopped"],
        json!([{"origin": FCM, "gone": 45, "accepted": 55}])
    );
}

#[tokio::test]
async fn files_have_an_entity_tag_and_are_revalidated() {
    let world = World::new().await;
    for (path, content_type) in [
        ("/openapi.json", "application/json"),
        ("/client.js", "text/javascript; charset=utf-8"),
        ("/service-worker.js", "text/javascript; charset=utf-8"),
    ] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["content-type"], content_type);
        assert_eq!(answer.headers["cache-control"], "no-cache");
        let etag = answer.headers["etag"].clone();
        for method in [Method::GET, Method::HEAD] {
            let request = Request::builder().method(method).uri(path);
            let request = request.header("if-none-match", &etag);
            let again = world.call(request.body(full("")).unwrap()).await;
            assert_eq!(again.status, 304);
            assert!(again.body.is_empty() && again.headers["etag"] == etag);
        }
    }
    assert_eq!(world.get("/openapi.json").await.json()["openapi"], "3.1.0");
}
