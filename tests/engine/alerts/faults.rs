//! The faults, by alert.

use std::future::pending;
use std::sync::Arc;

use axum::body::Body;
use http::Request;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower::ServiceExt as _;
use tower_web_push::api::{AdminCredentials, ApiSettings};
use tower_web_push::push_service::PushService;
use tower_web_push::schedule::{DailyTime, NotifyType, Plan, Schedule};
use tower_web_push::store::{DayCount, ScheduleStore as _, SqliteStore};
use tower_web_push::vapid::VapidKey;
use tower_web_push::{Registration, WebPushBuilder};

use super::{Alert, RULES, Scrape, fires, process, scrape};
use crate::delivery::world::*;
use crate::support::alert_rules::rules;
use crate::support::tampered_store::TamperedStore;

/// A world with 20 subscribers that accepted a message each, and a worker.
pub(super) async fn delivering() -> (World, JoinHandle<()>) {
    let world = World::at(FCM).await;
    world.subscribers(20).await;
    world.prove().await;
    let running = run(&world.push);
    sleep(Duration::from_secs(1)).await;
    (world, running)
}

fn run(push: &WebPush) -> JoinHandle<()> {
    let running = push.run(pending());
    tokio::spawn(async move { running.await.unwrap() })
}

/// The same store, with faults, and a process on it.
pub(super) async fn tampered(world: &World) -> (Arc<TamperedStore>, WebPush) {
    let store = Arc::new(TamperedStore::over(&world.store));
    let push = world
        .replica_with(|builder| builder.store(Arc::clone(&store)))
        .await;
    (store, push)
}

/// Subscribers that have accepted a message, then a fault at two messages within some seconds.
async fn proven_then(alert: &Alert, answer: Answer) {
    let (before, world) = proven_and(alert, answer).await;
    alert.fires(&before, &world.push).await;
}

async fn proven_and(alert: &Alert, answer: Answer) -> (Scrape, World) {
    let world = World::at(FCM).await;
    world.subscribers(20).await;
    world.prove().await;
    let before = alert.quiet(&world.push).await;
    world.service.script(When::any(), answer);
    world.enqueue().await;
    world.settle().await;
    world.clock.advance(Duration::from_secs(4));
    world.enqueue().await;
    world.settle().await;
    (before, world)
}

pub(super) async fn no_server_is_scraped(alert: Alert) {
    let world = World::at(FCM).await;
    let before = alert.quiet(&world.push).await;
    assert!(alert.fires_in(&before, &Scrape::default()));
}

pub(super) async fn the_store_fails(alert: Alert) {
    let world = World::at(FCM).await;
    // The last one is of the table of subscriptions, which may be another store.
    for call in ["stats", "tallies", "page"] {
        let (store, push) = tampered(&world).await;
        let before = alert.quiet(&push).await;
        store.fail(call);
        // What `/ready` was told is good for a second.
        sleep(Duration::from_secs(1)).await;
        alert.fires(&before, &push).await;
        store.fail(None);
        store.hang(call);
        sleep(Duration::from_secs(1)).await;
        alert.fires(&before, &push).await;
    }
    // What reads works, and what the worker writes fails.
    let (store, push) = tampered(&world).await;
    let before = alert.quiet(&push).await;
    store.fail("record_run");
    let running = run(&push);
    sleep(Duration::from_secs(10)).await;
    alert.fires(&before, &push).await;
    running.abort();
}

pub(super) async fn no_worker_runs(alert: Alert) {
    let (world, running) = delivering().await;
    let before = alert.quiet(&world.push).await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    alert.fires(&before, &world.push).await;
}

pub(super) async fn a_claim_hangs(alert: Alert) {
    let world = World::at(FCM).await;
    world.subscribers(1).await;
    let store = Arc::new(TamperedStore::over(&world.store));
    let polling = |builder: WebPushBuilder| builder.store(Arc::clone(&store)).poll_interval(MINUTE);
    let push = world.replica_with(polling).await;
    let running = run(&push);
    sleep(Duration::from_secs(1)).await;
    let before = alert.quiet(&push).await;
    store.hang("claim");
    sleep(5 * MINUTE).await;
    assert!(store.has_hung());
    alert.fires(&before, &push).await;
    running.abort();
}

pub(super) async fn the_clocks_disagree(alert: Alert) {
    let world = World::at(FCM).await;
    let (store, push) = tampered(&world).await;
    let before = alert.quiet(&push).await;
    store.set_server_time(world.clock.now() + 60 * MINUTE);
    push.tick().await.unwrap();
    alert.fires(&before, &push).await;
}

pub(super) async fn broadcasts_cannot_be_listed(alert: Alert) {
    let world = World::at(FCM).await;
    let (store, push) = tampered(&world).await;
    let before = alert.quiet(&push).await;
    store.fail("expandable");
    push.tick().await.unwrap_err();
    alert.fires(&before, &push).await;
}

pub(super) async fn a_message_waits(alert: Alert) {
    let world = World::at(FCM).await;
    world.subscribers(1).await;
    world
        .service
        .script(When::any(), Answer::status(StatusCode::SERVICE_UNAVAILABLE));
    world.enqueue().await;
    world.push.tick().await.unwrap();
    let before = alert.quiet(&world.push).await;
    world.clock.advance(10 * MINUTE);
    alert.fires(&before, &world.push).await;
    // It names the push service.
    let now = scrape(&alert.metrics, &world.push).await;
    let late = |service: PushService| {
        let service = service.as_str();
        let selector = format!("web_push_oldest_due_age_seconds{{push_service=\"{service}\"}}");
        now.sum(&selector) > 300.0
    };
    let services = PushService::ALL.iter().copied();
    assert!(services.filter(|one| late(*one)).eq([PushService::Fcm]));
}

/// No rule that pages an operator fires. No worker runs here.
async fn wakes_no_operator(alert: &Alert, world: &World, before: &Scrape) {
    let now = scrape(&alert.metrics, &world.push).await;
    for rule in rules(RULES) {
        assert!(
            rule.severity != "page"
                || rule.name == "WebPushWorkerMissing"
                || !fires(&rule, &[before], &now),
            "{rule:?}"
        );
    }
}

pub(super) async fn a_message_to_a_strangers_server_waits(alert: Alert) {
    let world = World::at("https://push.stranger.example").await;
    world.subscribers(1).await;
    let down = Answer::status(StatusCode::SERVICE_UNAVAILABLE);
    world.service.script(When::any(), down);
    world.enqueue().await;
    world.push.tick().await.unwrap();
    let before = alert.quiet(&world.push).await;
    world.clock.advance(10 * MINUTE);
    alert.fires(&before, &world.push).await;
    wakes_no_operator(&alert, &world, &before).await;
}

pub(super) async fn messages_are_accepted_late(alert: Alert) {
    let world = World::at(FCM).await;
    world.subscribers(20).await;
    world.prove().await;
    let before = alert.quiet(&world.push).await;
    world.enqueue().await;
    world.clock.advance(2 * MINUTE);
    world.settle().await;
    alert.fires(&before, &world.push).await;
}

pub(super) async fn messages_are_too_large(alert: Alert) {
    let world = World::at(FCM).await;
    world.subscribers(5).await;
    let before = alert.quiet(&world.push).await;
    world
        .service
        .script(When::any(), Answer::status(StatusCode::PAYLOAD_TOO_LARGE));
    world.enqueue().await;
    world.settle().await;
    let few = scrape(&alert.metrics, &world.push).await;
    assert!(!alert.fires_in(&before, &few), "few messages: {few:#?}");
    for _ in 0..4 {
        world.enqueue().await;
        world.settle().await;
    }
    // A large broadcast that was cancelled hides nothing.
    for _ in 0..50 {
        let cancelled = world.enqueue().await;
        world.push.cancel(cancelled).await.unwrap();
    }
    let now = scrape(&alert.metrics, &world.push).await;
    let cancelled = now.sum("web_push_finished_total{outcome=\"cancelled\"}");
    assert!(cancelled >= 250.0, "{now:#?}");
    alert.fires(&before, &world.push).await;
}

/// Any stranger can subscribe with a server of their own: it wakes no operator.
pub(super) async fn messages_to_a_strangers_server_fail(alert: Alert) {
    let world = World::at("https://push.stranger.example").await;
    world.subscribers(25).await;
    let before = alert.quiet(&world.push).await;
    world
        .service
        .script(When::any(), Answer::status(StatusCode::PAYLOAD_TOO_LARGE));
    world.enqueue().await;
    world.settle().await;
    alert.fires(&before, &world.push).await;
    wakes_no_operator(&alert, &world, &before).await;
}

/// No request fails: none is made.
pub(super) async fn messages_expire_behind_a_limit(alert: Alert) {
    let busy = Answer::status(StatusCode::TOO_MANY_REQUESTS).with_retry_after(600);
    for (origin, expected) in [(FCM, true), ("https://push.stranger.example", false)] {
        let world = World::at(origin).await;
        world.subscribers(20).await;
        world.prove().await;
        world.service.script(When::any(), busy.clone());
        world.enqueue().await;
        world.settle().await;
        world.clock.advance(Duration::from_secs(4));
        world.enqueue().await;
        world.settle().await;
        assert_eq!(world.pauses().await.len(), 1);
        let before = alert.quiet(&world.push).await;
        for _ in 0..2 {
            let code = Message::new("123456").with_ttl(Ttl::from_secs(60));
            world.push.enqueue(Audience::All, code).await.unwrap();
            world.settle().await;
            world.clock.advance(2 * MINUTE);
            world.settle().await;
        }
        let now = scrape(&alert.metrics, &world.push).await;
        let expired = "web_push_finished_total{outcome=\"expired\"}";
        assert_eq!(now.sum(expired) - before.sum(expired), 40.0, "{now:#?}");
        assert_eq!(alert.fires_in(&before, &now), expected, "{origin}");
        // No other rule wakes somebody.
        for rule in rules(RULES) {
            assert!(
                rule.severity != "page"
                    || [
                        "WebPushWorkerMissing",
                        "WebPushExpiring",
                        "WebPushMessagesLate"
                    ]
                    .contains(&&*rule.name)
                    || !fires(&rule, &[&before], &now),
                "{rule:?}"
            );
        }
    }
}

pub(super) async fn the_sender_is_refused(alert: Alert) {
    let refusal = Answer::status(StatusCode::FORBIDDEN).with_body("invalid JWT provided");
    let (before, world) = proven_and(&alert, refusal).await;
    alert.fires(&before, &world.push).await;
    // It lasts until a request succeeds: it is one alert.
    world.clock.advance(60 * MINUTE);
    alert.fires(&before, &world.push).await;
}

pub(super) async fn a_push_service_is_down(alert: Alert) {
    proven_then(&alert, Answer::status(StatusCode::SERVICE_UNAVAILABLE)).await;
}

pub(super) async fn a_push_service_limits_all(alert: Alert) {
    let busy = Answer::status(StatusCode::TOO_MANY_REQUESTS).with_retry_after(600);
    let (before, world) = proven_and(&alert, busy).await;
    let closed = scrape(&alert.metrics, &world.push).await;
    // A pause ends, and the next request brings a new one.
    world.clock.advance(11 * MINUTE);
    let open = scrape(&alert.metrics, &world.push).await;
    assert_eq!(open.sum("web_push_gates_closed"), 0.0, "{open:#?}");
    assert!(!fires(&alert.rule, &[&before, &closed], &open), "once");
    let scrapes: Vec<_> = (0..130)
        .map(|number| if number % 20 < 10 { &closed } else { &open })
        .collect();
    assert!(fires(&alert.rule, &scrapes, &open));
}

pub(super) async fn everything_is_gone(alert: Alert) {
    let world = World::at(FCM).await;
    world.subscribers(60).await;
    let before = alert.quiet(&world.push).await;
    world
        .service
        .script(When::any(), Answer::status(StatusCode::GONE));
    world.enqueue().await;
    world.settle().await;
    alert.fires(&before, &world.push).await;
}

/// A subscription that was made with a key that nobody has. No other key fits.
fn with_a_lost_key(world: &World) -> NewSubscription {
    let lost = VapidKey::generate().unwrap();
    let subscription = world.service.user_agent().subscribe(lost.public_key());
    NewSubscription::new(subscription.unwrap(), KeyId::of(lost.public_key()))
}

pub(super) async fn a_key_is_missing(alert: Alert) {
    let world = World::at(FCM).await;
    let before = alert.quiet(&world.push).await;
    let lost = with_a_lost_key(&world);
    let now = world.clock.now() - 2 * MINUTE;
    world
        .store
        .upsert(&lost, &SubscriptionLimits::default(), now)
        .await
        .unwrap();
    world.enqueue().await;
    world.push.tick().await.unwrap();
    alert.fires(&before, &world.push).await;
    let hourly = async || {
        world.clock.advance(60 * MINUTE);
        world.settle().await;
        scrape(&alert.metrics, &world.push).await
    };
    assert!(alert.fires_in(&before, &hourly().await));
    // The key is lost for good.
    let known = KeyId::of(&world.push.vapid_public_key());
    world.push.give_up_key(known).await.unwrap_err();
    assert_eq!(
        world
            .push
            .give_up_key(lost.default_vapid_key)
            .await
            .unwrap(),
        1
    );
    let given_up = scrape(&alert.metrics, &world.push).await;
    assert!(!alert.fires_in(&before, &given_up), "{given_up:#?}");
    let row = world
        .store
        .get(&[SubscriptionRef::Id(lost.id)])
        .await
        .unwrap();
    assert!(row[0].as_ref().unwrap().stale_since.is_some());
    assert_eq!(
        world
            .push
            .give_up_key(lost.default_vapid_key)
            .await
            .unwrap(),
        0
    );

    // The last user of another one unsubscribes.
    let world = World::at(FCM).await;
    let before = alert.quiet(&world.push).await;
    let other = with_a_lost_key(&world);
    let now = world.clock.now() - 2 * MINUTE;
    world
        .store
        .upsert(&other, &SubscriptionLimits::default(), now)
        .await
        .unwrap();
    world.enqueue().await;
    world.push.tick().await.unwrap();
    alert.fires(&before, &world.push).await;
    world.push.unsubscribe(other.id).await.unwrap();
    world.clock.advance(60 * MINUTE);
    world.settle().await;
    let gone = scrape(&alert.metrics, &world.push).await;
    assert!(!alert.fires_in(&before, &gone), "{gone:#?}");
}

/// SQLite reads on a thread of its own, so the recorder is that of the process.
pub(super) async fn a_row_is_damaged(alert: Alert) {
    metrics::set_global_recorder(alert.metrics.clone())
        .ok()
        .unwrap();
    // SQLite answers in real time.
    tokio::time::resume();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("push.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let world = World::at(FCM).await;
    let push = world
        .replica_with(|builder| builder.store(store.clone()))
        .await;
    for _ in 0..2 {
        let subscription = world
            .service
            .user_agent()
            .subscribe(&push.vapid_public_key());
        let new = NewSubscription::new(subscription.unwrap(), KeyId::of(&push.vapid_public_key()));
        let (limits, now) = (SubscriptionLimits::default(), world.clock.now());
        store.upsert(&new, &limits, now).await.unwrap();
    }
    let before = alert.quiet(&push).await;
    let other = rusqlite::Connection::open(&path).unwrap();
    let damage =
        "UPDATE subscription SET auth = x'00' WHERE key = (SELECT min(key) FROM subscription)";
    assert_eq!(other.execute(damage, ()).unwrap(), 1);
    push.enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    push.tick().await.unwrap();
    alert.fires(&before, &push).await;
    // The console reads the numbers of the days every few seconds.
    let days = "web_push_unreadable_total{what=\"days\"}";
    let today = [DayCount::new(2, world.clock.now())];
    store.record_days(&today).await.unwrap();
    // Damaged, still damaged, repaired, damaged anew.
    for (live, counted) in [(-1, 1.0), (-1, 1.0), (2, 1.0), (-1, 2.0)] {
        let change = format!("UPDATE day_count SET live = {live}");
        assert_eq!(other.execute(&change, ()).unwrap(), 1);
        for _ in 0..3 {
            store.days(world.clock.now()).await.unwrap();
        }
        let now = scrape(&alert.metrics, &push).await;
        assert_eq!(now.sum(days), counted, "{live}");
    }
    drop((other, push));
    store.close().await.unwrap();
}

pub(super) async fn a_page_cannot_be_read(alert: Alert) {
    let world = World::at(FCM).await;
    world.subscribers(1).await;
    let (store, push) = tampered(&world).await;
    push.enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    let before = alert.quiet(&push).await;
    store.fail("page");
    push.tick().await.unwrap_err();
    alert.fires(&before, &push).await;
}

pub(super) async fn daily_notifications_are_too_late(alert: Alert) {
    let world = World::at(FCM).await;
    let (_, row) = world.subscribe().await;
    let plan = Plan::Subscriber {
        subscription: row.id,
        notify_type: NotifyType::DailyCheck,
        message: None,
    };
    let time = DailyTime::new(9, 0).unwrap();
    let daily = Schedule::new(plan, time, world.clock.now() + 60 * MINUTE);
    world.store.put_schedule(&daily).await.unwrap();
    let before = alert.quiet(&world.push).await;
    // A downtime, in which no worker runs.
    world.clock.advance(3 * 24 * 60 * MINUTE);
    world.settle().await;
    alert.fires(&before, &world.push).await;
    // A process that has just started was never scraped before.
    let now = scrape(&alert.metrics, &world.push).await;
    assert!(fires(&alert.rule, &[], &now), "{now:#?}");
}

pub(super) async fn calls_fail(alert: Alert) {
    let world = World::at(FCM).await;
    let (store, push) = tampered(&world).await;
    let before = alert.quiet(&push).await;
    store.fail("expandable");
    for _ in 0..11 {
        push.tick().await.unwrap_err();
    }
    alert.fires(&before, &push).await;
}

pub(super) async fn the_store_is_full(alert: Alert) {
    let limits = SubscriptionLimits {
        total: 1,
        ..SubscriptionLimits::default()
    };
    let world = World::with(FCM, |builder| builder.subscription_limits(limits)).await;
    let subscribe = async || {
        let browser = world.service.user_agent();
        let subscription = browser.subscribe(&world.push.vapid_public_key()).unwrap();
        world.push.subscribe(Registration::new(subscription)).await
    };
    subscribe().await.unwrap();
    let before = alert.quiet(&world.push).await;
    subscribe().await.unwrap_err();
    alert.fires(&before, &world.push).await;
}

pub(super) async fn claims_are_slow(alert: Alert) {
    let world = World::at(FCM).await;
    let (store, push) = tampered(&world).await;
    push.tick().await.unwrap();
    let before = alert.quiet(&push).await;
    store.delay("claim", Duration::from_secs(2));
    push.tick().await.unwrap();
    alert.fires(&before, &push).await;
}

pub(super) async fn claimed_rows_are_lost(alert: Alert) {
    let world = World::with(FCM, |builder| builder.in_flight_per_origin_at_least(20)).await;
    for _ in 0..12 {
        let key = world.push.vapid_public_key();
        let subscription = world.service.user_agent().subscribe(&key).unwrap();
        let mut new = NewSubscription::new(subscription, KeyId::of(&key));
        new.principal = Some("alice".into());
        let (limits, now) = (SubscriptionLimits::default(), world.clock.now());
        world.store.upsert(&new, &limits, now).await.unwrap();
    }
    world.clock.advance(2 * MINUTE);
    world.prove().await;
    let before = alert.quiet(&world.push).await;
    world.service.script(
        When::any(),
        Answer::ordinary().after(Duration::from_secs(5)),
    );
    let sending = async {
        world.push.tick().await.unwrap();
    };
    // The process stands still until its leases have ended, and another one sends.
    let other = world
        .replica_with(|builder| builder.in_flight_per_origin_at_least(20))
        .await;
    world.enqueue().await;
    let taking_over = async {
        sleep(Duration::from_secs(1)).await;
        world.clock.advance(2 * MINUTE);
        other.tick().await.unwrap();
    };
    tokio::join!(sending, taking_over);
    // Why they are lost is looked for when an erasure would be over.
    sleep(Duration::from_secs(5)).await;
    world.push.tick().await.unwrap();
    alert.fires(&before, &world.push).await;
    // The rows of a user who is erased meanwhile are lost, too, and no process has them.
    let before = scrape(&alert.metrics, &world.push).await;
    let asked = world.asked();
    world.enqueue().await;
    let erasing = async {
        sleep(Duration::from_secs(1)).await;
        world.push.forget(&"alice".into()).await.unwrap();
    };
    let sending = async {
        world.push.tick().await.unwrap();
    };
    tokio::join!(sending, erasing);
    assert_eq!(world.asked() - asked, 12);
    sleep(Duration::from_secs(5)).await;
    world.push.tick().await.unwrap();
    let now = scrape(&alert.metrics, &world.push).await;
    let lost = |scrape: &Scrape| scrape.sum("web_push_settlements_lost_total");
    assert_eq!(lost(&now), lost(&before), "{now:#?}");
}

pub(super) async fn the_api_fails(alert: Alert) {
    let world = World::at(FCM).await;
    let (store, push) = tampered(&world).await;
    let ping = async || {
        let request = Request::get("/ping").body(Body::empty()).unwrap();
        push.service().oneshot(request).await.unwrap().status()
    };
    let probe = async || {
        let request = Request::get("/live").body(Body::empty()).unwrap();
        let answer = push.service().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    };
    assert_eq!(ping().await, StatusCode::OK);
    probe().await;
    let before = alert.quiet(&push).await;
    store.fail("last_run");
    // What the store said is good for a second.
    sleep(Duration::from_secs(1)).await;
    for _ in 0..20 {
        assert_eq!(ping().await, StatusCode::SERVICE_UNAVAILABLE);
    }
    // Those of an orchestrator, which would outnumber the others.
    for _ in 0..500 {
        probe().await;
    }
    let few = scrape(&alert.metrics, &push).await;
    assert!(!alert.fires_in(&before, &few), "few requests: {few:#?}");
    ping().await;
    alert.fires(&before, &push).await;
}

pub(super) async fn credentials_are_guessed(alert: Alert) {
    let world = World::at(FCM).await;
    let operators = AdminCredentials::new()
        .with_bearer_token("an-admin-token")
        .unwrap();
    let service = world
        .push
        .service()
        .with(ApiSettings::new().authorizer(operators));
    let before = alert.quiet(&world.push).await;
    let refused = async |request: http::request::Builder| {
        let request = request.body(Body::empty()).unwrap();
        let answer = service.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    };
    for _ in 0..51 {
        refused(Request::get("/stats")).await;
    }
    let visited = scrape(&alert.metrics, &world.push).await;
    let selector = "web_push_admin_refused_total{reason=\"no_credentials\"}";
    assert_eq!(visited.sum(selector), 51.0, "{visited:#?}");
    assert!(!alert.fires_in(&before, &visited), "visits: {visited:#?}");
    for guess in 0..51 {
        let authorization = format!("Bearer {guess}");
        refused(Request::get("/stats").header("authorization", authorization)).await;
    }
    alert.fires(&before, &world.push).await;
}

pub(super) async fn files_are_left_open(alert: Alert) {
    let world = World::at(FCM).await;
    process::describe();
    process::show();
    let before = alert.quiet(&world.push).await;
    let (soft, hard) = rlimit::Resource::NOFILE.get().unwrap();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    rlimit::Resource::NOFILE.set(open + 100, hard).unwrap();
    let left_open: Vec<_> = (0..90)
        .map_while(|_| std::fs::File::open("/dev/null").ok())
        .collect();
    process::show();
    drop(left_open);
    rlimit::Resource::NOFILE.set(soft, hard).unwrap();
    alert.fires(&before, &world.push).await;
}

pub(super) async fn an_entry_is_refused(alert: Alert) {
    // SQLite answers in real time.
    tokio::time::resume();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let shop = rusqlite::Connection::open(&path).unwrap();
    shop.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
        .unwrap();
    let store = SqliteStore::open_in(&path, "web_push_").await.unwrap();
    let world = World::at(FCM).await;
    let push = world
        .replica_with(|builder| builder.store(store.clone()))
        .await;
    let before = alert.quiet(&push).await;
    let insert = "INSERT INTO web_push_outbox (audience, message) VALUES (?, '{\"title\":\"x\"}')";
    shop.execute(insert, ["\"all\""]).unwrap();
    push.tick().await.unwrap();
    let opened = scrape(&alert.metrics, &push).await;
    assert_eq!(opened.sum("web_push_outbox_total{what=\"opened\"}"), 1.0);
    assert!(!alert.fires_in(&before, &opened));
    shop.execute(insert, ["null"]).unwrap();
    push.tick().await.unwrap();
    alert.fires(&before, &push).await;
    drop((shop, push));
    store.close().await.unwrap();
}
