//! Effects of an attempt are written before its row is settled: each one, through a store that fails in between.

use std::sync::Arc;

use tower_web_push::broadcast::FinalOutcome;
use tower_web_push::deliver::OriginGates;
use tower_web_push::engine::{Consequence, Effects, PruneBreaker};
use tower_web_push::store::Tally;
use tower_web_push::vapid::Contact;

use super::order::{position, tampered};
use super::world::*;
use crate::support::tampered_store::TamperedStore;

const GONE: StatusCode = StatusCode::GONE;
const DOWN: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// The effects of an attempt on a subscription.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Effect {
    Accepted,
    Failing,
    RefusedOnce,
    Retired,
    Stale,
    OtherKey,
}

const EFFECTS: [Effect; 6] = [
    Effect::Accepted,
    Effect::Failing,
    Effect::RefusedOnce,
    Effect::Retired,
    Effect::Stale,
    Effect::OtherKey,
];

impl Effect {
    /// A subscriber whose next attempt has this effect.
    async fn prepared(self, world: &World) -> SubscriptionRecord {
        let (_, mut record) = world.subscriber().await;
        let answer = match self {
            Self::Accepted => None,
            Self::Failing => Some(DOWN),
            Self::RefusedOnce => Some(StatusCode::BAD_REQUEST),
            Self::Retired => Some(GONE),
            Self::Stale => {
                let stranger = tower_web_push::vapid::VapidKey::generate().unwrap();
                let browser = world.service.user_agent();
                let subscription = browser.subscribe(stranger.public_key()).unwrap();
                let delete = Change::delete(&record);
                let new = NewSubscription::new(subscription, record.vapid_key);
                let (limits, now) = (SubscriptionLimits::default(), world.clock.now());
                world.store.apply(&[delete], now).await.unwrap();
                let stored = world.store.upsert(&new, &limits, now).await.unwrap();
                let Upserted::Stored { record: row, .. } = stored else {
                    panic!("a new endpoint has no conflict")
                };
                record = *row;
                world.clock.advance(2 * MINUTE);
                None
            }
            Self::OtherKey => {
                let vapid_key = world.push.rotate_vapid_key().await.unwrap();
                let key = record.subscription.endpoint().key();
                let change = Change::UseVapidKey { key, vapid_key };
                let now = world.clock.now();
                world.store.apply(&[change], now).await.unwrap();
                None
            }
        };
        if let Some(status) = answer {
            world.service.script(When::any(), Answer::status(status));
        }
        world.record(&record).await
    }

    /// Whether the row has this effect.
    fn shows(self, before: &SubscriptionRecord, row: &SubscriptionRecord) -> bool {
        match self {
            Self::Accepted => row.last_success_at.is_some(),
            Self::Failing | Self::RefusedOnce => row.failing_since.is_some(),
            Self::Retired => row.retired.is_some(),
            Self::Stale => row.stale_since.is_some(),
            Self::OtherKey => row.vapid_key != before.vapid_key,
        }
    }

    /// The counts of its delivery afterwards.
    fn counts(self) -> Counts {
        counts(|counts| match self {
            Self::Accepted | Self::OtherKey => counts.accepted = 1,
            Self::Failing => counts.pending = 1,
            Self::RefusedOnce => counts.bad_request = 1,
            Self::Retired => counts.gone = 1,
            Self::Stale => counts.key_mismatch = 1,
        })
    }
}

#[tokio::test]
async fn every_effect_on_a_subscription_is_written_before_its_row_ends() {
    for effect in EFFECTS {
        let world = World::at(FCM).await;
        let before = effect.prepared(&world).await;
        let (store, push) = tampered(&world).await;
        let id = world.enqueue().await;
        let pending = counts(|counts| counts.pending = 1);

        store.fail("apply");
        push.tick().await.unwrap_err();
        let calls = store.take_calls();
        assert!(!calls.contains(&"settle"), "{effect:?}: {calls:?}");
        let row = world.record(&before).await;
        assert!(!effect.shows(&before, &row), "{effect:?}");
        assert_eq!(world.status(id).await.counts, pending, "{effect:?}");

        world.clock.advance(MINUTE);
        store.fail("settle");
        push.tick().await.unwrap_err();
        let row = world.record(&before).await;
        assert!(effect.shows(&before, &row), "{effect:?}: {row:?}");
        assert_eq!(world.status(id).await.counts, pending, "{effect:?}");
        if matches!(effect, Effect::Retired | Effect::Stale) {
            // Its audience is empty then, and it is done.
            assert!(!row.is_live(world.clock.now()));
        }

        world.clock.advance(MINUTE);
        store.fail(None);
        push.tick().await.unwrap();
        assert_eq!(world.status(id).await.counts, effect.counts(), "{effect:?}");
    }
}

#[tokio::test]
async fn every_effect_of_a_direct_send_is_written_before_it_reports() {
    for effect in EFFECTS {
        let world = World::at(FCM).await;
        let before = effect.prepared(&world).await;
        let (store, push) = tampered(&world).await;
        store.fail("apply");
        push.send(Audience::All, Message::new("x"))
            .await
            .expect_err("its effects are not written");
        store.fail(None);
        push.send(Audience::All, Message::new("x")).await.unwrap();
        let row = world.record(&before).await;
        assert!(effect.shows(&before, &row), "{effect:?}: {row:?}");
    }
}

/// What closes the gate of an origin.
fn pauses() -> [(PauseReason, Answer); 3] {
    let limited = Answer::status(StatusCode::TOO_MANY_REQUESTS).with_retry_after(600);
    let fault = Answer::status(StatusCode::FORBIDDEN).with_body("invalid JWT provided");
    [
        (PauseReason::RateLimited, limited),
        (PauseReason::SenderFault, fault),
        (
            PauseReason::Unreachable,
            Answer::status(StatusCode::SERVICE_UNAVAILABLE),
        ),
    ]
}

/// Twenty subscribers that were accepted before.
async fn proven() -> World {
    let world = World::at(FCM).await;
    world.subscribers(20).await;
    world.prove().await;
    world
}

/// A worker whose next tick pauses the push service.
async fn about_to_pause(answer: Answer) -> (World, Arc<TamperedStore>, WebPush) {
    let world = proven().await;
    world.service.script(When::any(), answer);
    let (store, push) = tampered(&world).await;
    world.enqueue().await;
    push.tick().await.unwrap();
    world.clock.advance(Duration::from_secs(3));
    world.enqueue().await;
    store.take_calls();
    (world, store, push)
}

#[tokio::test]
async fn every_pause_and_its_end_is_shared_before_the_rows_that_showed_it_are_given_back() {
    for (reason, answer) in pauses() {
        let (_, store, push) = about_to_pause(answer.clone()).await;
        store.fail("pause");
        push.tick().await.unwrap_err();
        let calls = store.take_calls();
        // Nothing is written before it is shared: neither rows nor subscriptions. The only change is a purge, of housekeeping.
        let since = &calls[position(&calls, "get")..];
        assert!(
            since.starts_with(&["get", "pause"]),
            "{reason:?}: {calls:?}"
        );
        for call in ["settle", "settle_with", "release", "tally"] {
            assert!(!since.contains(&call), "{reason:?}: {calls:?}");
        }
        let changes = since.iter().filter(|call| **call == "apply");
        assert_eq!(changes.count(), 1, "{reason:?}: {calls:?}");

        let (world, store, push) = about_to_pause(answer).await;
        push.tick().await.unwrap();
        let calls = store.take_calls();
        assert!(position(&calls, "pause") < position(&calls, "settle"));
        let shared = world.pauses().await;
        assert_eq!(shared.len(), 1, "{reason:?}");
        assert_eq!(shared[0].reason, reason);
        let key = KeyId::of(&push.vapid_public_key());
        let is_ours = shared[0].contact == Some(format!("mailto:ops@example.com {key}"));
        assert_eq!(is_ours, reason == PauseReason::SenderFault);

        // A probed pause is lifted by the response to the probe.
        if reason.is_probed() {
            world.service.clear_script();
            world.clock.set(shared[0].until);
            push.tick().await.unwrap();
            let calls = store.take_calls();
            let (end, settled) = (position(&calls, "pause"), position(&calls, "settle"));
            assert!(end < settled, "{reason:?}: {calls:?}");
            assert!(world.pauses().await.is_empty(), "{reason:?}");
        }
    }
}

#[tokio::test]
async fn a_direct_send_shares_the_pause_that_it_came_to() {
    for (reason, answer) in pauses() {
        let world = proven().await;
        world.service.script(When::any(), answer);
        for _ in 0..2 {
            let sent = world.push.send(Audience::All, Message::new("x"));
            assert_eq!(sent.await.unwrap().counts.failed, 20);
            world.clock.advance(Duration::from_secs(3));
        }
        let shared = world.pauses().await;
        assert_eq!(shared.first().map(|pause| pause.reason), Some(reason));
    }
}

#[tokio::test]
async fn outcomes_of_attempts_are_written_although_the_same_step_failed() {
    // Reads of the store that fail half way must not delay the effects that are known already.
    for call in ["claim", "get"] {
        let world = World::at(FCM).await;
        let (_, before) = world.subscriber().await;
        world
            .service
            .script(When::any().times(1), Answer::ordinary());
        let (store, push) = tampered(&world).await;
        let id = world.enqueue().await;
        store.fail(call);
        push.tick().await.unwrap_err();
        store.fail(None);
        push.tick().await.unwrap();
        assert_eq!(world.status(id).await.counts.accepted, 1, "{call}");
        assert!(world.record(&before).await.last_success_at.is_some());
    }
}

#[tokio::test]
async fn a_step_looks_at_what_is_shared_before_it_claims_and_reads_before_it_sends() {
    let world = World::at(FCM).await;
    world.subscriber().await;
    let (store, push) = tampered(&world).await;
    world.enqueue().await;
    push.tick().await.unwrap();
    let calls = store.take_calls();
    let order = [
        "pauses",
        "expandable",
        "page",
        "enqueue_page",
        "claim",
        "get",
        // What the origin has accepted before.
        "tally",
        "apply",
        "settle",
    ];
    let positions: Vec<_> = order.iter().map(|call| position(&calls, call)).collect();
    assert!(positions.is_sorted(), "{calls:?}");
    // Housekeeping comes after the deliveries.
    for call in ["record_run", "next_fire_at", "expire", "keys", "prune"] {
        assert!(
            position(&calls, call) > position(&calls, "settle"),
            "{calls:?}"
        );
    }
    // The first acceptance is counted before the row is settled.
    let tallies = calls.iter().filter(|call| **call == "tally");
    assert_eq!(tallies.count(), 2, "{calls:?}");
}

#[tokio::test]
async fn a_new_key_is_stored_before_pauses_are_lifted_and_both_before_anything_is_sent() {
    let world = World::at(FCM).await;
    world.subscribers(8).await;
    let fault = Answer::status(StatusCode::FORBIDDEN).with_body("invalid JWT provided");
    world.service.script(When::any(), fault);
    world.enqueue().await;
    world.outlast().await;
    let asked = world.asked();
    let (store, push) = tampered(&world).await;
    let before = push.vapid_public_key();
    store.fail("insert");
    push.rotate_vapid_key().await.unwrap_err();
    assert_eq!(
        push.vapid_public_key(),
        before,
        "a key that is not stored signs nothing"
    );
    assert_eq!(
        world.pauses().await.len(),
        1,
        "the old key is refused still"
    );
    store.fail(None);
    store.take_calls();
    push.rotate_vapid_key().await.unwrap();
    let calls = store.take_calls();
    assert!(
        position(&calls, "insert") < position(&calls, "pause"),
        "{calls:?}"
    );
    assert!(world.pauses().await.is_empty());
    assert_eq!(world.asked(), asked);
}

#[tokio::test]
async fn a_pause_that_was_not_written_is_shared_with_the_next_effects_of_its_origin() {
    let rows = MemoryStore::new();
    let store = Arc::new(TamperedStore::over(&rows));
    let contact = Contact::parse("mailto:ops@example.com").unwrap();
    let now = Timestamp::from_secs(1_800_000_000);
    let (gates, origin) = (OriginGates::new(), Origin::parse(FCM).unwrap());
    let effects = || {
        let (ledger, table) = (Arc::clone(&store), Arc::clone(&store));
        Effects::new(table, ledger, PruneBreaker::default(), &contact)
    };
    let accepted = || Consequence::finished(FinalOutcome::Accepted);
    gates.pause(&origin, now + MINUTE, PauseReason::RateLimited);
    store.fail("pause");
    let mut failed = effects();
    failed.note(&gates.gate(&origin), accepted(), now);
    failed.write(now).await.unwrap_err();
    // A call that makes one attempt ends here.
    drop(failed);
    store.fail(None);

    let mut next = effects();
    next.note(&gates.gate(&origin), accepted(), now);
    next.write(now).await.unwrap();
    assert_eq!(rows.pauses(now).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_pause_that_is_over_when_it_is_written_ends_no_other() {
    let rows = MemoryStore::new();
    let store = Arc::new(TamperedStore::over(&rows));
    let contact = Contact::parse("mailto:ops@example.com").unwrap();
    let now = Timestamp::from_secs(1_800_000_000);
    let (gates, origin) = (OriginGates::new(), Origin::parse(FCM).unwrap());
    let (ledger, table) = (Arc::clone(&store), Arc::clone(&store));
    let mut effects = Effects::new(table, ledger, PruneBreaker::default(), &contact);
    gates.pause(&origin, now + MINUTE, PauseReason::RateLimited);
    let accepted = Consequence::finished(FinalOutcome::Accepted);
    effects.note(&gates.gate(&origin), accepted, now);
    // Another replica has a longer one, and this one writes late.
    let later = now + 2 * MINUTE;
    let longer = Pause::new(origin, now + 10 * MINUTE, PauseReason::RateLimited);
    rows.pause(&longer, now).await.unwrap();
    effects.write(later).await.unwrap();
    assert_eq!(rows.pauses(later).await.unwrap(), [longer]);
}

#[tokio::test]
async fn what_a_failing_ledger_did_not_take_is_written_by_the_next_call() {
    let rows = MemoryStore::new();
    let store = Arc::new(TamperedStore::over(&rows));
    let contact = Contact::parse("mailto:ops@example.com").unwrap();
    let now = Timestamp::from_secs(1_800_000_000);
    let gates = OriginGates::new();
    let (ledger, table) = (Arc::clone(&store), Arc::clone(&store));
    let mut effects = Effects::new(table, ledger, PruneBreaker::default(), &contact);
    let origins = [FCM, APPLE].map(|origin| Origin::parse(origin).unwrap());
    for origin in &origins {
        let gate = gates.gate(origin);
        gates.pause(origin, now + MINUTE, PauseReason::RateLimited);
        let accepted = Consequence::finished(FinalOutcome::Accepted);
        effects.note(&gate, accepted, now);
    }
    for call in ["pause", "tally"] {
        store.fail(call);
        effects.finish(now).await.expect_err(call);
    }
    store.fail(None);
    effects.finish(now).await.unwrap();
    let paused = rows.pauses(now).await.unwrap();
    assert_eq!(paused.len(), origins.len(), "each origin's pause");
    let nothing = origins.map(|origin| (origin, Tally::default()));
    let tallies = rows.tally(&nothing, now).await.unwrap();
    assert_eq!(tallies, [Tally::new(1, 0); 2], "each answer once");
}
