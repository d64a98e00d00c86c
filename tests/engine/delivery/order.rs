//! The order of the worker's writes, and the release of claims after an error.

use std::sync::Arc;

use super::world::*;
use crate::support::tampered_store::TamperedStore;
use tower_web_push::store::StoreErrorKind;

/// The same world, with a store that records its calls and fails on demand.
pub(crate) async fn tampered(world: &World) -> (Arc<TamperedStore>, WebPush) {
    tampered_with(world, |builder| builder).await
}

pub(crate) async fn tampered_with(
    world: &World,
    configure: impl FnOnce(WebPushBuilder) -> WebPushBuilder,
) -> (Arc<TamperedStore>, WebPush) {
    let store = Arc::new(TamperedStore::over(&world.store));
    let push = world
        .replica_with(|builder| configure(builder.store(Arc::clone(&store))))
        .await;
    store.take_calls();
    (store, push)
}

pub(crate) fn position(calls: &[&str], call: &str) -> usize {
    let found = calls.iter().position(|name| *name == call);
    found.unwrap_or_else(|| panic!("{call} is not among {calls:?}"))
}

#[tokio::test]
async fn effects_on_subscriptions_are_written_before_their_rows_end() {
    // Accepted: the row's success. Gone: the row's retirement, after the tally that may forbid it.
    for (answer, before) in [
        (Answer::status(StatusCode::CREATED), &["apply"][..]),
        (Answer::status(StatusCode::GONE), &["tally", "apply"]),
    ] {
        let world = World::at(FCM).await;
        world.subscriber().await;
        world.service.script(When::any(), answer);
        let (store, push) = tampered(&world).await;
        push.enqueue(Audience::All, Message::new("x"))
            .await
            .unwrap();
        push.tick().await.unwrap();
        let calls = store.take_calls();
        let settle = position(&calls, "settle");
        for call in before {
            assert!(position(&calls, call) < settle, "{call}: {calls:?}");
        }
    }
}

/// A store that keeps both has one transaction for them.
#[tokio::test]
async fn effects_and_outcomes_are_written_together_where_one_store_has_both() {
    let world = World::at(FCM).await;
    let (_, record) = world.subscriber().await;
    let (store, push) = tampered(&world).await;
    store.join_writes();
    let send = async || {
        push.enqueue(Audience::All, Message::new("x"))
            .await
            .unwrap()
            .broadcast
    };
    let id = send().await;
    push.tick().await.unwrap();
    let calls = store.take_calls();
    // What comes after it is housekeeping.
    let until = &calls[..position(&calls, "settle_with")];
    assert!(!until.contains(&"apply"), "{calls:?}");
    assert!(!calls.contains(&"settle"), "{calls:?}");
    assert_eq!(world.status(id).await.counts.accepted, 1);
    let accepted_at = world.record(&record).await.last_success_at;
    assert_eq!(accepted_at, Some(world.clock.now()));
    // A day later there is another effect. Nothing is settled without it.
    world.clock.advance(25 * 60 * MINUTE);
    store.fail("settle_with");
    let id = send().await;
    push.tick().await.unwrap_err();
    let calls = store.take_calls();
    assert!(!calls.contains(&"settle"), "{calls:?}");
    assert_eq!(world.status(id).await.counts.pending, 1);
}

/// With a row that cannot be read, or a change that is refused, the calls are made one by one, so that the others are written.
#[tokio::test]
async fn an_error_of_one_row_separates_effects_from_outcomes() {
    for kind in [
        StoreErrorKind::Corrupt,
        StoreErrorKind::Full,
        StoreErrorKind::Misconfigured,
    ] {
        let world = World::at(FCM).await;
        world.subscribers(1).await;
        let (store, push) = tampered(&world).await;
        store.join_writes();
        store.fail_as(kind, "settle_with");
        let id = push
            .enqueue(Audience::All, Message::new("x"))
            .await
            .unwrap()
            .broadcast;
        push.tick().await.unwrap();
        let calls = store.take_calls();
        let places = ["settle_with", "apply", "settle"].map(|call| position(&calls, call));
        assert!(places.is_sorted(), "{kind:?}: {calls:?}");
        assert_eq!(world.status(id).await.counts.accepted, 1);
    }
}

/// A push service has asked to wait. Returns the calls of the tick after which its origin is paused.
async fn paused(prepare: impl Fn(&TamperedStore)) -> (World, Vec<&'static str>) {
    let world = World::at(FCM).await;
    world.subscribers(20).await;
    world.prove().await;
    let answer = Answer::status(StatusCode::TOO_MANY_REQUESTS).with_retry_after(600);
    world.service.script(When::any(), answer);
    let (store, push) = tampered(&world).await;
    prepare(&store);
    for _ in 0..2 {
        store.take_calls();
        push.enqueue(Audience::All, Message::new("x"))
            .await
            .unwrap();
        push.tick().await.unwrap();
        world.clock.advance(Duration::from_secs(3));
    }
    let calls = store.take_calls();
    (world, calls)
}

#[tokio::test]
async fn a_pause_is_shared_before_the_row_that_showed_it_is_given_back() {
    let (world, calls) = paused(|_| {}).await;
    assert!(
        position(&calls, "pause") < position(&calls, "settle"),
        "{calls:?}"
    );
    assert_eq!(world.pauses().await.len(), 1, "other replicas read it");
}

#[tokio::test]
async fn a_row_does_not_end_while_the_effects_on_its_subscription_cannot_be_written() {
    let world = World::at(FCM).await;
    let (_, record) = world.subscriber().await;
    let gone = Answer::status(StatusCode::GONE);
    world.service.script(When::any(), gone);
    let (store, push) = tampered(&world).await;
    let id = push
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap()
        .broadcast;
    for call in ["tally", "apply"] {
        store.fail(call);
        push.tick().await.unwrap_err();
        assert_eq!(world.status(id).await.counts.pending, 1, "{call}");
        assert!(world.record(&record).await.retired.is_none(), "{call}");
        store.fail(None);
        world.clock.advance(MINUTE);
    }
    push.tick().await.unwrap();
    assert_eq!(
        world.status(id).await.counts,
        counts(|counts| counts.gone = 1)
    );
    assert!(world.record(&record).await.retired.is_some());
}

const REFUSALS: [StoreErrorKind; 3] = [
    StoreErrorKind::Corrupt,
    StoreErrorKind::Full,
    StoreErrorKind::Misconfigured,
];

/// One row of the application's table that is damaged does not stop the outcomes of all.
#[tokio::test]
async fn an_effect_that_the_store_refuses_keeps_no_outcome_from_being_written() {
    for (kind, call) in REFUSALS
        .into_iter()
        .flat_map(|kind| [(kind, "apply"), (kind, "tally")])
    {
        let world = World::at(FCM).await;
        let (_, record) = world.subscriber().await;
        let gone = Answer::status(StatusCode::GONE);
        world.service.script(When::any(), gone);
        let (store, push) = tampered(&world).await;
        store.fail_as(kind, call);
        let id = push
            .enqueue(Audience::All, Message::new("x"))
            .await
            .unwrap()
            .broadcast;
        // Housekeeping writes changes too, and its error is that of the tick.
        let ticked = push.tick().await;
        assert!(ticked.is_ok() || call == "apply", "{ticked:?}");
        let calls = store.take_calls();
        let places = [call, "settle"].map(|call| position(&calls, call));
        assert!(places.is_sorted(), "{kind:?}: {calls:?}");
        assert_eq!(world.status(id).await.counts.gone, 1, "{kind:?}: {call}");
        // Uncounted, it may be one of many that are gone together.
        assert!(world.record(&record).await.retired.is_none(), "{call}");
    }
}

#[tokio::test]
async fn a_pause_that_the_store_refuses_keeps_no_outcome_from_being_written() {
    for kind in REFUSALS {
        let (world, calls) = paused(|store| store.fail_as(kind, "pause")).await;
        let places = ["pause", "settle"].map(|call| position(&calls, call));
        assert!(places.is_sorted(), "{kind:?}: {calls:?}");
        assert_eq!(world.pauses().await, []);
    }
}

#[tokio::test]
async fn claims_are_given_back_at_once_when_the_subscriptions_cannot_be_read() {
    let world = World::at(FCM).await;
    let (browser, _) = world.subscriber().await;
    let (store, push) = tampered(&world).await;
    push.enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    store.fail("get");
    push.tick().await.unwrap_err();
    let calls = store.take_calls();
    assert!(
        position(&calls, "claim") < position(&calls, "release"),
        "{calls:?}"
    );
    store.fail(None);
    // At the same time: it does not wait for the end of a lease.
    assert_eq!(push.tick().await.unwrap().attempted, 1);
    assert_eq!(browser.messages().len(), 1);
}

#[tokio::test]
async fn a_row_that_is_refused_keeps_no_other_from_being_given_back() {
    for kind in [StoreErrorKind::Corrupt, StoreErrorKind::Misconfigured] {
        let world = World::at(FCM).await;
        let (_, record) = world.subscriber().await;
        world.subscribers(4).await;
        let (store, push) = tampered(&world).await;
        store.refuse("release", [record.subscription.endpoint().key()], kind);
        push.enqueue(Audience::All, Message::new("x"))
            .await
            .unwrap();
        store.fail("get");
        push.tick().await.unwrap_err();
        store.fail(None);
        // At the same time the others are due again. It waits for the end of its lease.
        assert_eq!(push.tick().await.unwrap().attempted, 4, "{kind:?}");
        world.clock.advance(MINUTE);
        assert_eq!(push.tick().await.unwrap().attempted, 1, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deferred_row_costs_no_attempt() {
    let world = World::at(FCM).await;
    let once = RetryPolicy::new(Duration::from_secs(2), Duration::from_secs(3600), 1);
    let (store, push) = tampered_with(&world, |builder| builder.retry_policy(once)).await;
    // A key of another process, which this one has not read yet, and a row that was made with it.
    let newer = world.replica().await;
    newer.rotate_vapid_key().await.unwrap();
    let key = newer.vapid_public_key();
    let browser = world.service.user_agent();
    let subscription = browser.subscribe(&key).unwrap();
    let new = NewSubscription::new(subscription, KeyId::of(&key));
    let (limits, now) = (SubscriptionLimits::default(), world.clock.now());
    world.store.upsert(&new, &limits, now).await.unwrap();

    store.fail("keys");
    push.enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!(push.tick().await.unwrap().attempted, 1);
        assert_eq!(world.asked(), 0, "nothing is sent without the key");
        world.clock.advance(Duration::from_secs(2));
    }
    store.fail(None);
    push.tick().await.unwrap();
    assert_eq!(
        browser.messages().len(),
        1,
        "its only attempt was still to come"
    );
}
