//! `WebPush::check`: what is wrong, in words.

use std::sync::Arc;

use tower_web_push::check::{Finding, FindingKind, check_store};
use tower_web_push::store::{Failure, RetireReason, VapidKeyStore as _};
use tower_web_push::subscription::SubscriptionId;

use super::world::*;
use crate::support::tampered_store::TamperedStore;

/// The texts of those that are wrong. Each has a hint.
fn wrong(findings: Vec<Finding>) -> Vec<String> {
    let wrong = findings
        .into_iter()
        .filter(|finding| finding.kind == FindingKind::Wrong);
    wrong
        .inspect(|finding| assert!(!finding.hint.is_empty(), "{finding:?}"))
        .map(|finding| finding.text)
        .collect()
}

fn texts(findings: &[Finding]) -> Vec<&str> {
    let texts = findings.iter().map(|finding| finding.text.as_str());
    texts.collect()
}

async fn tampered(world: &World) -> (Arc<TamperedStore>, WebPush) {
    let store = Arc::new(TamperedStore::over(&world.store));
    store.set_server_time(world.clock.now());
    let of_it = Arc::clone(&store);
    (
        store,
        world.replica_with(|builder| builder.store(of_it)).await,
    )
}

#[tokio::test]
async fn nothing_is_wrong_with_a_server_that_works() {
    let world = World::at(FCM).await;
    world.subscriber().await;
    world.settle().await;
    let findings = world.push.check().await;
    assert_eq!(
        texts(&findings),
        [
            "clock: the store has none of its own",
            "worker: none runs in this process: unless another one runs `WebPush::run`, nothing is sent",
            "store: it can be written",
            "queue: 0 messages are pending",
        ]
    );
    assert_eq!(wrong(findings), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_said_of_failures_of_a_subscription_that_had_none() {
    let world = World::at(FCM).await;
    let (_, row) = world.subscriber().await;
    let said = world.push.check_subscription(row.id).await;
    assert!(
        said.iter().all(|one| !one.text.contains("failed")),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_wrong_clock_is_found() {
    let world = World::at(FCM).await;
    let (store, push) = tampered(&world).await;
    assert_eq!(wrong(push.check().await), Vec::<String>::new());
    let now = world.clock.now();
    for (server, words) in [
        (
            now - MINUTE,
            "clock: this machine's clock is 60 s ahead of the database server's",
        ),
        (
            now + MINUTE,
            "clock: this machine's clock is 60 s behind the database server's",
        ),
    ] {
        store.set_server_time(server);
        assert_eq!(wrong(push.check().await), [words]);
        // Without a `WebPush`, too.
        let found = check_store(&store, &[], &world.clock).await;
        assert_eq!(wrong(found), [words]);
    }
}

/// The engine's own clock goes on with the time that it trusts.
#[tokio::test]
async fn a_clock_that_was_set_is_found_while_the_trusted_time_is_right() {
    let world = World::at(FCM).await;
    let (store, push) = tampered(&world).await;
    world.clock.set(world.clock.now() + 24 * 60 * MINUTE);
    // It asks the store, and claims nothing.
    let _ = push.tick().await;
    let found = wrong(push.check().await);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("clock: "), "{found:?}");
    drop(store);
}

#[tokio::test]
async fn a_store_that_fails_is_found_part_by_part() {
    let world = World::at(FCM).await;
    let (store, push) = tampered(&world).await;
    store.open_outbox();
    let unavailable = "the store is unavailable";
    for (call, part) in [
        ("outbox_stats", "outbox"),
        ("keys", "store"),
        ("reseal", "store: it cannot be written"),
        ("stats", "queue"),
        ("expandable", "queue"),
        ("pauses", "push services"),
        ("count", "keys"),
    ] {
        store.fail(call);
        assert_eq!(
            wrong(push.check().await),
            [format!("{part}: {unavailable}")],
            "{call}"
        );
    }
}

/// It changes nothing: neither a first key nor another encryption of it.
#[tokio::test]
async fn a_check_makes_no_key() {
    let store = MemoryStore::new();
    let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
    let findings = check_store(&store, &[], &clock).await;
    let empty = findings
        .iter()
        .find(|finding| finding.text.starts_with("store: it is empty"));
    assert_eq!(empty.map(|finding| finding.kind), Some(FindingKind::Note));
    assert!(store.keys().await.unwrap().is_empty());
    assert_eq!(wrong(findings), Vec::<String>::new());
}

#[tokio::test]
async fn a_late_queue_and_a_step_that_fails_are_found() {
    let world = World::at(FCM).await;
    let (_, row) = world.subscriber().await;
    let (store, push) = tampered(&world).await;
    let to = Audience::Ids([row.id].into());
    world.push.enqueue(to, Message::new("x")).await.unwrap();
    world.clock.advance(5 * MINUTE);
    assert_eq!(wrong(world.push.check().await), Vec::<String>::new());
    world.clock.advance(MINUTE);
    let late = "queue: 1 messages are pending, and the oldest has been due for 6 minutes";
    assert_eq!(wrong(world.push.check().await), [late]);
    store.set_server_time(world.clock.now());
    store.fail("claim");
    push.tick().await.unwrap_err();
    assert_eq!(
        wrong(push.check().await),
        [
            "worker: cannot claim due rows: the store is unavailable",
            late
        ]
    );
}

/// Its recipients are no rows yet.
#[tokio::test]
async fn a_broadcast_that_no_worker_begins_is_found() {
    let world = World::at(FCM).await;
    world.subscriber().await;
    world.enqueue().await;
    world.clock.advance(4 * MINUTE);
    assert_eq!(wrong(world.push.check().await), Vec::<String>::new());
    world.clock.advance(2 * MINUTE);
    let waits =
        "queue: a broadcast has been due for more than 5 minutes, and no worker has begun it";
    assert_eq!(wrong(world.push.check().await), [waits]);
    world.settle().await;
    assert_eq!(wrong(world.push.check().await), Vec::<String>::new());
}

#[tokio::test]
async fn a_broadcast_whose_recipients_cannot_be_read_is_found() {
    let world = World::at(FCM).await;
    world.subscriber().await;
    let (store, push) = tampered(&world).await;
    store.fail("page");
    let queued = push.enqueue(Audience::All, Message::new("x")).await;
    queued.unwrap();
    let _ = push.tick().await;
    let parked = "worker: 1 broadcasts cannot be read or expanded";
    assert!(wrong(push.check().await).contains(&parked.to_owned()));
    store.fail(None);
    world.clock.advance(MINUTE);
    store.set_server_time(world.clock.now());
    push.tick().await.unwrap();
    assert_eq!(wrong(push.check().await), Vec::<String>::new());
}

#[tokio::test]
async fn without_a_contact_nothing_is_sent() {
    let push = WebPush::builder_without_contact().store(MemoryStore::new());
    let push = push.build().await.unwrap();
    let wrong = wrong(push.check().await);
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].starts_with("contact: there is none"), "{wrong:?}");
}

#[tokio::test]
async fn subscriptions_whose_key_is_missing_are_found() {
    let world = World::at(FCM).await;
    let (_, row) = world.subscriber().await;
    let (_, mut lost) = world.subscriber().await;
    let key = lost.subscription.endpoint().key();
    lost.vapid_key = KeyId::from_bytes([7; KeyId::LEN]);
    let mut again = NewSubscription::new(lost.subscription.clone(), lost.vapid_key);
    again.id = lost.id;
    again.vapid_key = Some(lost.vapid_key);
    let limits = SubscriptionLimits::default();
    world
        .store
        .upsert(&again, &limits, world.clock.now())
        .await
        .unwrap();
    let found = "keys: 1 of 2 subscriptions were made with a VAPID key that the store does not have, and get nothing";
    assert_eq!(wrong(world.push.check().await), [found]);
    let found = check_store(&world.store, &[lost.vapid_key], &world.clock).await;
    assert_eq!(wrong(found), Vec::<String>::new(), "it is configured");
    let found = wrong(
        world
            .push
            .check_subscription(SubscriptionRef::Key(key))
            .await,
    );
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("it was made with the VAPID key"),
        "{found:?}"
    );
    assert_eq!(
        wrong(world.push.check_subscription(row.id).await),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn what_keeps_a_subscription_from_messages_is_said() {
    let world = World::at(FCM).await;
    let rows = world.subscribers(3).await;
    let now = world.clock.now();
    let failure = Failure::new(Some(410), Some("Gone"));
    let [(_, gone), (_, stale), (_, expires)] = rows.try_into().unwrap();
    let key = |row: &SubscriptionRecord| row.subscription.endpoint().key();
    let changes = [
        Change::Retire {
            key: key(&gone),
            reason: RetireReason::Gone,
            observed_at: now,
            failure,
        },
        Change::Stale {
            key: key(&stale),
            observed_at: now,
            failure: Failure::default(),
        },
    ];
    world.store.apply(&changes, now).await.unwrap();
    let subscription = expires.subscription.clone();
    let subscription = subscription.with_expiration_time(Some(now + MINUTE));
    let mut again = NewSubscription::new(subscription, expires.vapid_key);
    again.id = expires.id;
    let limits = SubscriptionLimits::default();
    world.store.upsert(&again, &limits, now).await.unwrap();
    let pause = Pause::new(
        Origin::parse(FCM).unwrap(),
        now + 180 * MINUTE,
        PauseReason::Unreachable,
    );
    world.store.pause(&pause, now).await.unwrap();
    world.clock.advance(120 * MINUTE);
    for (row, words) in [
        (
            gone,
            "retired 2 hours ago: the push service said that it does not exist any more",
        ),
        (
            stale,
            "stale since 2 hours ago: it was made with a VAPID key that this store does not have",
        ),
        (expires, "its expiration time is past"),
    ] {
        let findings = world.push.check_subscription(row.id).await;
        let said: Vec<_> = findings
            .iter()
            .map(|finding| finding.text.clone())
            .collect();
        let paused = format!(
            "{FCM}: no message is sent there for 60 minutes: it does not answer, or only with errors"
        );
        assert!(said.contains(&paused), "{said:?}");
        let failed = format!(
            "subscription {}: a message last failed 2 hours ago with status 410: Gone",
            row.id
        );
        assert_eq!(
            said.contains(&failed),
            words.starts_with("retired"),
            "{said:?}"
        );
        assert_eq!(
            wrong(findings),
            [format!("subscription {}: {words}", row.id)]
        );
    }
    let unknown = world
        .push
        .check_subscription(SubscriptionId::random())
        .await;
    assert_eq!(wrong(unknown), ["subscription: the store does not have it"]);
}
