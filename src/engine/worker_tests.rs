//! The worker's steps and settlements.

use std::future::pending;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::FutureExt as _;
use http::StatusCode;

use super::super::KeyRing;
use super::super::chores::EXPIRED_AT_ONCE;
use super::super::expand::expand;
use super::super::test_world::{START, TIMEOUT, World};
use super::super::unreadable::UNREADABLE_PAUSE;
use super::*;
use crate::broadcast::{Audience, BroadcastId};
use crate::deliver::OriginGates;
use crate::encoding::base64url;
use crate::message::{Message, Urgency};
use crate::schedule::{DailyTime, NotifyType, Plan, Schedule};
use crate::store::{
    Change, DeliveryLedger as _, Failure, NewBroadcast, Pause, PauseReason, RetireReason,
    ScheduleStore as _, StoredVapidKey, SubscriptionRef, SubscriptionStore as _,
    VapidKeyStore as _,
};
use crate::subscription::EndpointKey;
use crate::vapid::{KeyEncryptionKeys, VapidKey};

const SECOND: Duration = Duration::from_secs(1);

async fn drive(worker: &mut Worker) {
    while worker.attempt_ended().await.is_some() {}
}

/// Waits for the chores. Returns how many rows expired.
async fn chores(worker: &mut Worker) -> u64 {
    worker.start_chores(false);
    let mut expired = 0;
    while let Some(chore) = worker.chores.ended().await {
        expired += chore.expired;
    }
    expired
}

/// Adds an attempt that does not end.
fn hang(worker: &mut Worker, gate: &Arc<OriginGate>) {
    let handle = worker.attempts.spawn(pending());
    worker.gates.insert(handle.id(), Arc::clone(gate));
}

fn token(n: u8) -> ClaimToken {
    let key = EndpointKey::from_bytes([n; 32]);
    ClaimToken::new(BroadcastId::random(), key, 1)
}

#[tokio::test]
async fn a_step_expands_claims_and_attempts_and_settling_ends_the_rows() {
    let world = World::new().await;
    let mut worker = Worker::new(world.engine.clone());
    assert_eq!(worker.step().await, Progress::default());
    for _ in 0..3 {
        world.subscriber().await;
    }
    let id = world.broadcast().await;
    let progress = worker.step().await;
    assert_eq!((progress.expanded, progress.claimed), (3, 3));
    assert!(progress.more);
    assert_eq!((worker.in_flight(), worker.unsettled()), (3, 0));
    drive(&mut worker).await;
    assert_eq!((worker.in_flight(), worker.unsettled()), (0, 3));
    assert_eq!(worker.ended_lately(), 3);
    assert!(worker.gates.is_empty());
    assert_eq!(world.counts(id).await.accepted, 0, "not settled yet");

    let mut settled = std::pin::pin!(world.engine.signals.settled.notified());
    settled.as_mut().enable();
    worker.settle().await.unwrap();
    assert!(settled.now_or_never().is_some(), "followers are notified");
    assert_eq!(world.counts(id).await.accepted, 3);
    assert_eq!(worker.unsettled(), 0);
    assert!(!worker.step().await.more);
    assert_eq!(worker.ended_lately(), 0);
}

#[tokio::test]
async fn rows_are_released_if_their_subscriptions_cannot_be_read() {
    let world = World::new().await;
    world.subscriber().await;
    let id = world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    world.table.fails.store(true, Relaxed);
    worker.step().await;
    assert!(worker.take_error().is_some());
    assert_eq!(worker.unsettled(), 1);
    worker.settle().await.unwrap();
    world.table.fails.store(false, Relaxed);
    assert_eq!(worker.step().await.claimed, 1);
    drive(&mut worker).await;
    worker.finish().await.unwrap();
    assert_eq!(world.counts(id).await.accepted, 1);
}

#[tokio::test]
async fn the_row_of_a_subscription_that_was_deleted_is_gone() {
    let world = World::new().await;
    world.subscriber().await;
    let id = world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    world.table.is_empty.store(true, Relaxed);
    assert_eq!(worker.step().await.claimed, 1);
    assert_eq!((worker.in_flight(), worker.unsettled()), (0, 1));
    worker.settle().await.unwrap();
    assert_eq!(world.counts(id).await.gone, 1);
    assert_eq!(world.service.counts().requests, 0);
}

#[tokio::test]
async fn effects_on_subscriptions_are_written_before_outcomes() {
    let world = World::new().await;
    let key = world.subscriber().await;
    let id = world.broadcast().await;
    world.answer(StatusCode::GONE);
    let mut worker = Worker::new(world.engine.clone());
    worker.step().await;
    drive(&mut worker).await;
    world.table.fails.store(true, Relaxed);
    worker.settle().await.unwrap_err();
    assert_eq!(world.counts(id).await.pending, 1);
    assert_eq!(worker.unsettled(), 1);
    world.table.fails.store(false, Relaxed);
    worker.settle().await.unwrap();
    assert_eq!(world.counts(id).await.gone, 1);
    assert!(world.record(key).await.retired.is_some());
    // The tally is written at the end.
    worker.finish().await.unwrap();
}

#[tokio::test]
async fn one_store_writes_effects_and_outcomes_in_one_call() {
    let world = World::of_one_store().await;
    let key = world.subscriber().await;
    let id = world.broadcast().await;
    world.answer(StatusCode::GONE);
    let mut worker = Worker::new(world.engine.clone());
    worker.step().await;
    drive(&mut worker).await;
    // No other call writes the effects.
    world.table.fails.store(true, Relaxed);
    worker.settle().await.unwrap();
    assert_eq!(worker.unsettled(), 0);
    assert!(worker.effects.changes().is_empty());
    assert_eq!(world.counts(id).await.gone, 1);
    assert!(world.record(key).await.retired.is_some());
    world.table.fails.store(false, Relaxed);
    worker.finish().await.unwrap();
}

#[tokio::test]
async fn the_last_settlement_writes_the_tally() {
    let world = World::new().await;
    let key = world.subscriber().await;
    world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    worker.step().await;
    drive(&mut worker).await;
    let gate = world.gate(key).await;
    let tally = async || {
        let nothing = [(gate.origin().clone(), Default::default())];
        world.store.tally(&nothing, START).await.unwrap()[0].accepted
    };
    worker.settle().await.unwrap();
    assert_eq!(tally().await, 1, "the first acceptance is written at once");
    world.broadcast().await;
    worker.step().await;
    drive(&mut worker).await;
    worker.settle().await.unwrap();
    assert_eq!(tally().await, 1);
    worker.finish().await.unwrap();
    assert_eq!(tally().await, 2);
}

#[tokio::test]
async fn a_row_is_retried_at_the_time_its_attempt_gives() {
    let world = World::new().await;
    world.subscriber().await;
    let id = world.broadcast().await;
    world.answer(StatusCode::SERVICE_UNAVAILABLE);
    let mut worker = Worker::new(world.engine.clone());
    worker.step().await;
    drive(&mut worker).await;
    worker.settle().await.unwrap();
    let counts = world.counts(id).await;
    assert_eq!((counts.pending, counts.failed), (1, 0));
    assert_eq!(worker.step().await.claimed, 0, "not before");
    world.clock.advance(600 * SECOND);
    assert_eq!(worker.step().await.claimed, 1);
}

/// Nothing was sent: the row waits until the keys are read again, and keeps its attempt.
#[tokio::test]
async fn a_row_whose_vapid_key_cannot_be_read_is_deferred_until_the_keys_are_read_again() {
    let world = World::new().await;
    let subscriber = world.subscriber().await;
    let key = VapidKey::generate().unwrap();
    let elsewhere = base64url(VapidKey::generate().unwrap().secret_bytes().as_slice());
    let elsewhere = KeyEncryptionKeys::parse(&elsewhere).unwrap();
    let sealed = elsewhere.seal(&key).unwrap();
    let stored = StoredVapidKey::new(key.id(), *key.public_key(), sealed, START, false);
    world.store.insert(&stored).await.unwrap();
    let change = Change::UseVapidKey {
        key: subscriber,
        vapid_key: key.id(),
    };
    world.store.apply(&[change], START).await.unwrap();
    world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    assert_eq!(worker.step().await.claimed, 1);
    drive(&mut worker).await;
    worker.settle().await.unwrap();
    let request = ClaimRequest::new(1, SECOND);
    let later = START + KeyRing::LOOK_AGAIN;
    let early = later - Duration::from_millis(1);
    let claims = world.store.claim(&request, early).await.unwrap();
    assert!(claims.rows.is_empty());
    let claims = world.store.claim(&request, later).await.unwrap();
    assert_eq!(claims.rows[0].attempt, 1);
    assert_eq!(world.service.counts().requests, 0);
}

/// The place of an attempt that panicked is free again; its row is claimed again when its lease ends.
#[tokio::test]
async fn a_panic_in_an_attempt_affects_only_its_row() {
    let world = World::new().await;
    world.subscriber().await;
    let id = world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    world.panics.store(true, Relaxed);
    worker.step().await;
    drive(&mut worker).await;
    assert_eq!((worker.in_flight(), worker.unsettled()), (0, 0));
    assert!(worker.gates.is_empty());
    assert_eq!(worker.ended_lately(), 1);
    worker.settle().await.unwrap();
    assert_eq!(world.counts(id).await.pending, 1);
    world.panics.store(false, Relaxed);
    assert_eq!(worker.step().await.claimed, 0);
    world.clock.advance(world.engine.lease);
    assert_eq!(worker.step().await.claimed, 1);
    drive(&mut worker).await;
    worker.settle().await.unwrap();
    assert_eq!(world.counts(id).await.accepted, 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_waits_for_a_permit_ends_without_a_request_when_the_worker_stops() {
    let world = World::with(1, TIMEOUT).await;
    let key = world.subscriber().await;
    let id = world.broadcast().await;
    let gate = world.gate(key).await;
    let permit = gate.try_acquire().unwrap();
    let mut worker = Worker::new(world.engine.clone());
    assert_eq!(worker.step().await.claimed, 1);
    task::yield_now().await;
    assert!(worker.attempt_ended().now_or_never().is_none());
    worker.stop();
    let at_once = timeout(SECOND, worker.attempt_ended()).await;
    at_once.unwrap().unwrap();
    worker.settle().await.unwrap();
    assert_eq!(world.service.counts().requests, 0);

    drop(permit);
    // Another worker claims it at once, as its first attempt.
    let mut other = Worker::new(world.engine.clone());
    let request = ClaimRequest::new(1, SECOND);
    let claims = world.store.claim(&request, START).await.unwrap();
    assert_eq!(claims.rows[0].attempt, 1);
    let tokens = [claims.rows[0].token];
    world.store.release(&tokens, START).await.unwrap();
    other.step().await;
    drive(&mut other).await;
    other.settle().await.unwrap();
    assert_eq!(world.counts(id).await.accepted, 1);
}

/// L19: another process may have claimed the rows.
#[tokio::test(start_paused = true)]
async fn a_row_that_was_claimed_in_another_epoch_is_put_back_and_claimed_again() {
    for meanwhile in [None, Some(1)] {
        let world = World::with(1, TIMEOUT).await;
        let key = world.subscriber().await;
        let id = world.broadcast().await;
        let gate = world.gate(key).await;
        let permit = gate.try_acquire().unwrap();
        let mut worker = Worker::new(world.engine.clone());
        assert_eq!(worker.step().await.claimed, 1);
        task::yield_now().await;
        *world.store.epoch.lock().unwrap() = meanwhile;
        drop(permit);
        drive(&mut worker).await;
        worker.settle().await.unwrap();
        assert_eq!(world.service.counts().requests, 0);

        let claimed = usize::from(meanwhile.is_some());
        assert_eq!(worker.step().await.claimed, claimed, "nothing without one");
        drive(&mut worker).await;
        *world.store.epoch.lock().unwrap() = Some(2);
        assert_eq!(worker.step().await.claimed, 1 - claimed);
        drive(&mut worker).await;
        worker.settle().await.unwrap();
        assert_eq!(world.counts(id).await.accepted, 1);
        assert_eq!(world.service.counts().requests, 1);
    }
}

/// No request begins that could outlast its lease.
#[tokio::test(start_paused = true)]
async fn a_request_begins_one_timeout_before_the_end_of_its_lease_at_the_latest() {
    for (waited, requests) in [
        (45 * SECOND - TIMEOUT - Duration::from_millis(1), 1),
        (45 * SECOND - TIMEOUT, 0),
    ] {
        let world = World::with(1, TIMEOUT).await;
        let key = world.subscriber().await;
        world.broadcast().await;
        let permit = world.gate(key).await.try_acquire().unwrap();
        let mut worker = Worker::new(world.engine.clone());
        worker.step().await;
        task::yield_now().await;
        assert!(worker.attempt_ended().now_or_never().is_none());
        world.clock.advance(waited);
        drop(permit);
        worker.attempt_ended().await.unwrap();
        assert_eq!(world.service.counts().requests, requests, "{waited:?}");
    }
}

#[tokio::test]
async fn nothing_is_claimed_while_too_many_rows_cannot_be_settled() {
    let world = World::new().await;
    world.subscriber().await;
    world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    worker.released = vec![token(1); UNSETTLED / 2];
    let gone = Settlement::Finished(FinalOutcome::Gone);
    worker.settlements = vec![(token(2), gone); UNSETTLED / 2];
    assert_eq!(worker.step().await.claimed, 0);
    worker.released.pop();
    assert_eq!(worker.step().await.claimed, 1);
}

#[tokio::test]
async fn attempts_in_flight_are_limited() {
    let world = World::new().await;
    let key = world.subscriber().await;
    let gate = world.gate(key).await;
    world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    // At another origin, so that this origin's limit does not apply, and a known one, so that strangers' does not.
    let elsewhere = Origin::parse("https://fcm.googleapis.com").unwrap();
    let other = world.engine.gates.gate(&elsewhere);
    for _ in 0..=IN_FLIGHT - FREE_AT_LEAST {
        hang(&mut worker, &other);
    }
    assert_eq!(worker.step().await.claimed, 0);
    worker.attempts.abort_all();
    drive(&mut worker).await;
    for _ in 0..IN_FLIGHT - FREE_AT_LEAST {
        hang(&mut worker, &other);
    }
    assert_eq!(worker.step().await.claimed, 1);
    assert_eq!(gate.closed_at(START), None);
}

/// Whether they have never answered, or have once and then never again.
#[tokio::test]
async fn hosts_of_strangers_that_hang_leave_places_for_named_ones_and_for_those_that_answer() {
    let world = World::new().await;
    let gates = &world.engine.gates;
    let origin = |host: &str| Origin::parse(&format!("https://{host}")).unwrap();
    let (fcm, stranger) = (origin("fcm.googleapis.com"), origin("a.example.com"));
    let answering = gates.gate(&origin("b.example.com"));
    answering.answers();
    let mut worker = Worker::new(world.engine.clone());
    let rooms = |worker: &Worker| {
        let (request, _) = worker.request(START, true).unwrap();
        let unknown = request.room_for(&origin("unknown.example.com"));
        let others = [&fcm, &stranger, answering.origin()];
        (unknown, others.map(|origin| request.room_for(origin)))
    };
    let last = IN_FLIGHT / 16 - 1;
    for number in 0..=last {
        let gate = gates.gate(&origin(&format!("hangs-{number}.example.com")));
        if number == last {
            assert_eq!(rooms(&worker).0, 8);
        }
        for _ in 0..8 {
            hang(&mut worker, &gate);
        }
    }
    let _ = gates.gate(&stranger);
    let limit = answering.limit();
    assert_eq!(rooms(&worker), (0, [8, 0, limit]));
    // One that the process has sent to, and has no answer of yet.
    let _ = gates.gate(&fcm);
    assert_eq!(rooms(&worker), (0, [8, 0, limit]));
    for number in 0..IN_FLIGHT / 64 {
        let gate = gates.gate(&origin(&format!("hung-{number}.example.com")));
        gate.answers();
        if number == 0 {
            assert_eq!(rooms(&worker), (0, [8, 0, limit]));
        }
        for _ in 0..8 {
            hang(&mut worker, &gate);
        }
    }
    assert_eq!(rooms(&worker), (0, [8, 0, 0]));
    // A claim that began before fits, and another one.
    const { assert!(IN_FLIGHT / 8 * STRANGERS.1 + CLAIM + FREE_AT_LEAST < IN_FLIGHT) };
}

#[tokio::test]
async fn an_origin_gets_the_free_places_of_its_gate() {
    let world = World::new().await;
    let key = world.subscriber().await;
    let gate = world.gate(key).await;
    let mut worker = Worker::new(world.engine.clone());
    let room = |worker: &Worker, is_calm| worker.rooms(START, is_calm)[gate.origin()];
    assert_eq!(room(&worker, true), OriginGates::UNPROVEN);
    for _ in 0..3 {
        hang(&mut worker, &gate);
    }
    assert_eq!(room(&worker, true), OriginGates::UNPROVEN - 3);
    for _ in 0..30 {
        hang(&mut worker, &gate);
    }
    assert_eq!(room(&worker, true), 0);

    // The limit grows by one with each acceptance. Less than an eighth of it is claimed only if no attempt has ended.
    let mut worker = Worker::new(world.engine.clone());
    world.broadcast().await;
    let mut first = Worker::new(world.engine.clone());
    first.step().await;
    drive(&mut first).await;
    assert_eq!(room(&worker, false), gate.limit());
    for _ in 0..gate.limit() - 1 {
        hang(&mut worker, &gate);
    }
    assert_eq!((room(&worker, true), room(&worker, false)), (1, 1));
    hang(&mut worker, &gate);
    assert_eq!((room(&worker, true), room(&worker, false)), (0, 0));
    gate.pause(START + SECOND, PauseReason::RateLimited);
    assert_eq!(room(&worker, true), 0);
}

#[tokio::test]
async fn shared_pauses_are_read_every_five_seconds() {
    let world = World::new().await;
    let key = world.subscriber().await;
    let gate = world.gate(key).await;
    let mut worker = Worker::new(world.engine.clone());
    worker.step().await;
    let until = START + 600 * SECOND;
    let pause = Pause::new(gate.origin().clone(), until, PauseReason::RateLimited);
    world.store.pause(&pause, START).await.unwrap();
    world
        .clock
        .advance(Engine::PAUSES_KEPT - Duration::from_millis(1));
    worker.step().await;
    assert_eq!(gate.closed_at(world.engine.now()), None);
    world.clock.advance(Duration::from_millis(1));
    worker.step().await;
    assert!(gate.closed_at(world.engine.now()).is_some());
}

/// A clock that was ahead has left a pause that no correct clock writes.
#[tokio::test]
async fn a_pause_longer_than_any_legal_one_ends_at_once() {
    let world = World::new().await;
    let key = world.subscriber().await;
    let origin = world.gate(key).await.origin().clone();
    let id = world.broadcast().await;
    for (reason, hours) in [
        (PauseReason::RateLimited, 26),
        (PauseReason::Unreachable, 3),
        (PauseReason::SenderFault, 3),
    ] {
        let until = START + 3600 * hours * SECOND;
        let pause = Pause::new(origin.clone(), until, reason);
        world.store.pause(&pause, START).await.unwrap();
        world.engine.load_pauses(START).await.unwrap();
        assert!(
            world.store.pauses(START).await.unwrap().is_empty(),
            "{reason:?}"
        );
    }
    let until = START + 24 * 3600 * SECOND;
    let legal = Pause::new(origin, until, PauseReason::RateLimited);
    world.store.pause(&legal, START).await.unwrap();
    let mut worker = Worker::new(world.engine.clone());
    assert_eq!(worker.step().await.claimed, 0);
    assert_eq!(world.counts(id).await.pending, 1);
}

#[tokio::test]
async fn rows_past_their_deadline_expire_in_batches() {
    let world = World::new().await;
    let key = world.subscriber().await;
    for _ in 0..EXPIRED_AT_ONCE {
        world.subscriber().await;
    }
    // Nothing is claimed in between.
    let gate = world.gate(key).await;
    gate.pause(Timestamp::MAX, PauseReason::RateLimited);
    let id = world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    // Write all rows; none is sent before its deadline.
    for rows in [500, 500, 1, 0] {
        assert_eq!(expand(&world.engine, START).await.unwrap(), rows);
    }
    world.clock.advance(86_400 * SECOND);
    for expired in [EXPIRED_AT_ONCE as u64, 1, 0] {
        worker.step().await;
        assert_eq!(chores(&mut worker).await, expired);
    }
    assert_eq!(world.counts(id).await.expired, EXPIRED_AT_ONCE as u64 + 1);
}

#[tokio::test(start_paused = true)]
async fn everything_old_is_purged_every_hour() {
    let world = World::new().await;
    let key = world.subscriber().await;
    let id = world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    worker.step().await;
    chores(&mut worker).await;
    drive(&mut worker).await;
    worker.settle().await.unwrap();
    let retire = Change::Retire {
        key,
        reason: RetireReason::Gone,
        observed_at: START,
        failure: Failure::default(),
    };
    world.store.apply(&[retire], START).await.unwrap();

    let is_there = async || {
        let rows = world.store.get(&[SubscriptionRef::Key(key)]).await.unwrap();
        let status = world.store.status(id, world.engine.now()).await;
        (rows[0].is_some(), status.unwrap().is_some())
    };
    let hour = 3600 * SECOND;
    let milli = Duration::from_millis(1);
    let kept = |days: u32| SECOND * (days * 86_400);
    for (passed, now, expected, why) in [
        (hour, kept(7), (true, true), "within their retention"),
        (hour - milli, kept(7) + milli, (true, true), "no hour later"),
        (60 * SECOND, kept(7) + milli, (true, false), "an hour later"),
        (
            hour,
            kept(30) + SECOND,
            (false, false),
            "past both retentions",
        ),
    ] {
        tokio::time::advance(passed).await;
        world.clock.set(START + now);
        worker.step().await;
        chores(&mut worker).await;
        assert_eq!(is_there().await, expected, "{why}");
    }
}

/// Every message but that of the unreadable subscription is sent, and that one is tried again.
#[tokio::test]
async fn a_subscription_that_cannot_be_read_defers_only_its_own_message() {
    let world = World::new().await;
    let mut keys = Vec::new();
    for _ in 0..7 {
        keys.push(world.subscriber().await);
    }
    let id = world.broadcast().await;
    assert_eq!(expand(&world.engine, START).await.unwrap(), 7);
    world.table.unreadable.lock().unwrap().insert(keys[3]);
    let mut worker = Worker::new(world.engine.clone());
    assert_eq!(worker.step().await.claimed, 7);
    drive(&mut worker).await;
    worker.settle().await.unwrap();
    assert!(worker.take_error().is_none());
    let counts = world.counts(id).await;
    assert_eq!((counts.accepted, counts.pending), (6, 1));
    assert_eq!(world.engine.signals.unreadable.len(START), 1);

    world.table.unreadable.lock().unwrap().clear();
    world.clock.advance(UNREADABLE_PAUSE - SECOND);
    assert_eq!(worker.step().await.claimed, 0);
    world.clock.advance(SECOND);
    assert_eq!(worker.step().await.claimed, 1);
    drive(&mut worker).await;
    worker.settle().await.unwrap();
    assert_eq!(world.counts(id).await.accepted, 7);
}

#[tokio::test]
async fn a_page_that_cannot_be_read_parks_only_its_broadcast() {
    let world = World::new().await;
    let (damaged, healthy) = (world.subscriber().await, world.subscriber().await);
    world.table.unreadable.lock().unwrap().insert(damaged);
    let to_all = world.broadcast().await;
    let record = world.record(healthy).await;
    let deadline = START + 86_400 * SECOND;
    let to_one = NewBroadcast::new(
        Audience::Ids(vec![record.id]),
        Message::new("hello"),
        deadline,
    );
    world.store.open(&to_one, START).await.unwrap();
    let mut worker = Worker::new(world.engine.clone());
    let parked = &world.engine.signals.parked;
    for _ in 0..3 {
        worker.step().await;
        drive(&mut worker).await;
        worker.settle().await.unwrap();
        assert_eq!(world.counts(to_one.id).await.accepted, 1);
        assert!(parked.is_parked(&to_all, START) && parked.len(START) == 1);
    }
    assert!(worker.take_error().is_none(), "the step itself succeeded");

    world.table.unreadable.lock().unwrap().clear();
    world.clock.advance(10 * SECOND);
    assert_eq!(worker.step().await.expanded, 2);
    assert_eq!(parked.len(START), 0);
}

#[tokio::test]
async fn nothing_is_done_while_the_clocks_disagree() {
    let world = World::new().await;
    world.subscriber().await;
    let id = world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    let jump = 3 * 86_400 * SECOND;
    world.clock.tick(SECOND);
    assert_eq!(worker.engine.now(), START + SECOND);
    world.clock.advance(jump);
    assert_eq!(worker.step().await, Progress::default());
    assert_eq!(chores(&mut worker).await, 0);
    assert!(worker.pauses_read.is_none());
    assert!(world.engine.clock.fault().is_some());
    assert_eq!(world.engine.now(), START + SECOND);

    world.clock.set(START + SECOND);
    assert_eq!(worker.step().await.claimed, 1);
    drive(&mut worker).await;
    worker.settle().await.unwrap();
    assert_eq!(world.counts(id).await.accepted, 1);
}

#[test]
fn an_interval_is_over_at_first_after_its_time_and_if_the_clock_was_set_back() {
    for (last, is_due_now) in [
        (None, true),
        (Some(START), false),
        (Some(START - SECOND + Duration::from_millis(1)), false),
        (Some(START - SECOND), true),
        (Some(START + SECOND), true),
    ] {
        assert_eq!(is_due(last, SECOND, START), is_due_now, "{last:?}");
    }
}

/// The schedule is kept: only a subscription that is certainly deleted takes its schedules along.
#[tokio::test]
async fn a_subscription_that_cannot_be_read_defers_only_its_own_schedule() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let key = world.subscriber().await;
        let row = world.store.get(&[SubscriptionRef::Key(key)]).await.unwrap();
        let subscription = row[0].as_ref().unwrap().id;
        let plan = Plan::Subscriber {
            subscription,
            notify_type: NotifyType::DailyCheck,
            message: None,
        };
        let schedule = Schedule::new(plan, DailyTime::new(8, 0).unwrap(), START);
        world.store.put_schedule(&schedule).await.unwrap();
        ids.push((key, subscription));
    }
    let next = async |id| world.store.schedules(Some(id)).await.unwrap()[0].next_fire_at;
    let (damaged, theirs) = ids[1];
    world.table.unreadable.lock().unwrap().insert(damaged);
    let mut worker = Worker::new(world.engine.clone());
    chores(&mut worker).await;
    assert!(worker.take_error().is_none());
    for (_, id) in [ids[0], ids[2]] {
        assert!(next(id).await > START + 100 * SECOND * 60);
    }
    assert_eq!(next(theirs).await, START + UNREADABLE_PAUSE);

    world.table.unreadable.lock().unwrap().clear();
    world.clock.advance(UNREADABLE_PAUSE);
    chores(&mut Worker::new(world.engine.clone())).await;
    assert!(next(theirs).await > START + 2 * UNREADABLE_PAUSE);
}

/// More recipients than one page has.
async fn many_subscribers(world: &World) {
    let first = world.subscriber().await;
    let record = world.record(first).await;
    for number in 0..500 {
        let endpoint = format!("https://push.example.net/{number}");
        let subscription = crate::subscription::Subscription::new(
            endpoint.parse().unwrap(),
            *record.subscription.ua_public(),
            record.subscription.auth().clone(),
        );
        let new = crate::store::NewSubscription::new(subscription, record.vapid_key);
        let limits = crate::store::SubscriptionLimits::default();
        world.store.upsert(&new, &limits, START).await.unwrap();
    }
}

/// Opens broadcasts to all of them.
async fn open_many(world: &World, urgency: Urgency, number: usize) -> Vec<BroadcastId> {
    let mut ids = Vec::new();
    for _ in 0..number {
        let message = Message::new("x").with_urgency(urgency);
        let new = NewBroadcast::new(Audience::All, message, START + 86_400 * SECOND);
        world.store.open(&new, START).await.unwrap();
        ids.push(new.id);
    }
    ids
}

/// The recipients that are written of broadcasts.
async fn written(world: &World, ids: &[BroadcastId]) -> Vec<u64> {
    let mut written = Vec::new();
    for id in ids {
        let status = world.store.status(*id, START).await.unwrap().unwrap();
        written.push(status.recipients);
    }
    written
}

/// A step writes four full pages, and one of the broadcasts that are not urgent.
#[tokio::test]
async fn urgent_broadcasts_leave_a_page_to_the_others() {
    let world = World::new().await;
    many_subscribers(&world).await;
    let bulk = open_many(&world, Urgency::Normal, 1).await;
    let urgent = open_many(&world, Urgency::High, 6).await;
    let mut worker = Worker::new(world.engine.clone());
    assert_eq!(worker.step().await.expanded, 5 * 500);
    let all = [bulk, urgent].concat();
    assert_eq!(written(&world, &all).await, [500, 500, 500, 500, 500, 0, 0]);
}

/// The page goes to the one that has waited longest, not to the last one that is listed.
#[tokio::test]
async fn others_take_turns_behind_urgent_broadcasts() {
    let world = World::new().await;
    many_subscribers(&world).await;
    let bulks = open_many(&world, Urgency::Normal, 3).await;
    open_many(&world, Urgency::High, 20).await;
    // One that is parked takes no page from the others.
    let error = StoreErrorKind::Corrupt.into();
    let parked = open_many(&world, Urgency::Low, 1).await;
    world.engine.signals.parked.park(parked[0], &error, START);
    for expected in [[500, 0, 0], [500, 500, 0], [500, 500, 500]] {
        world.clock.advance(SECOND);
        let now = world.engine.now();
        assert_eq!(expand(&world.engine, now).await.unwrap(), 5 * 500);
        assert_eq!(written(&world, &bulks).await, expected);
    }
}

/// Of small ones as many as fit into a page.
#[tokio::test]
async fn small_broadcasts_share_the_page_that_urgent_ones_leave() {
    let world = World::new().await;
    many_subscribers(&world).await;
    open_many(&world, Urgency::High, 6).await;
    let one = world.subscriber().await;
    let record = world.record(one).await;
    for _ in 0..30 {
        let audience = Audience::Ids(vec![record.id]);
        let new = NewBroadcast::new(audience, Message::new("x"), START + 86_400 * SECOND);
        world.store.open(&new, START).await.unwrap();
    }
    let expanded = expand(&world.engine, START).await.unwrap();
    assert_eq!(expanded, 4 * 500 + 30);
}

#[tokio::test(start_paused = true)]
async fn a_claimed_row_does_not_wait_for_outcomes_that_cannot_be_written() {
    const LONG: Duration = Duration::from_secs(3600);
    let world = World::new().await;
    world.subscriber().await;
    let mut worker = Worker::new(world.engine.clone());
    let mut ids = vec![world.broadcast().await];
    assert_eq!(worker.step().await.claimed, 1);
    drive(&mut worker).await;
    assert_eq!(worker.unsettled(), 1);

    world.table.hangs_writes.store(true, Relaxed);
    for _ in 0..2 {
        ids.push(world.broadcast().await);
    }
    let now = world.engine.now();
    assert_eq!(expand(&world.engine, now).await.unwrap(), 2);
    let (progress, settled) = timeout(LONG, worker.step_beside(true)).await.unwrap();
    assert!(settled.is_err());
    assert_eq!((progress.claimed, worker.in_flight()), (2, 2));
    // Outcomes that nobody can write are not made many.
    ids.push(world.broadcast().await);
    expand(&world.engine, now).await.unwrap();
    let step = timeout(LONG, worker.step_beside(true)).await;
    assert!(step.is_err(), "it waits for the outcomes");
    assert_eq!(worker.in_flight(), 2);

    world.table.hangs_writes.store(false, Relaxed);
    let (_, settled) = worker.step_beside(true).await;
    settled.unwrap();
    assert_eq!(worker.step().await.claimed, 1);
    drive(&mut worker).await;
    worker.finish().await.unwrap();
    for id in ids {
        assert_eq!(world.counts(id).await.accepted, 1);
    }
}

/// A panic counts as a failure of the chore in which it was, and of no other.
#[tokio::test(start_paused = true)]
async fn a_chore_that_panics_is_put_off_and_multiplies_no_other() {
    let world = World::new().await;
    let key = world.subscriber().await;
    let plan = Plan::Subscriber {
        subscription: world.record(key).await.id,
        notify_type: NotifyType::DailyCheck,
        message: None,
    };
    let schedule = Schedule::new(plan, DailyTime::new(8, 0).unwrap(), START);
    world.store.put_schedule(&schedule).await.unwrap();
    world.table.panics_at_writes.store(true, Relaxed);
    world.table.hangs.store(true, Relaxed);
    let mut worker = Worker::new(world.engine.clone());
    let end = Instant::now() + 10 * SECOND;
    let mut rounds = 0;
    while Instant::now() < end && rounds < 100 {
        rounds += 1;
        worker.start_chores(false);
        let pause = worker.chores.pause(SECOND, START);
        let _ = timeout(pause, worker.chores.ended()).await;
    }
    assert!(rounds < 100, "it spins");
    let purges = world.table.writes.load(Relaxed);
    assert!((2..=5).contains(&purges), "{purges}");
    assert_eq!(world.table.gets.load(Relaxed), 1, "of the schedule's row");
    assert!(worker.take_error().is_some());

    world.table.panics_at_writes.store(false, Relaxed);
    world.table.hangs.store(false, Relaxed);
    tokio::time::advance(60 * SECOND).await;
    worker.start_chores(false);
    while let Ok(Some(_)) = timeout(SECOND, worker.chores.ended()).await {}
    assert_eq!(world.table.writes.load(Relaxed), purges + 1);
}

/// The pause may end long before its time.
#[tokio::test(start_paused = true)]
async fn a_row_that_meets_a_closed_gate_is_due_again_a_minute_later() {
    let hour = 3600 * SECOND;
    for (pause, deferred) in [(hour, 60 * SECOND), (20 * SECOND, 20 * SECOND)] {
        let world = World::with(1, TIMEOUT).await;
        let key = world.subscriber().await;
        let id = world.broadcast().await;
        let gate = world.gate(key).await;
        let permit = gate.try_acquire().unwrap();
        let mut worker = Worker::new(world.engine.clone());
        assert_eq!(worker.step().await.claimed, 1);
        task::yield_now().await;
        gate.pause(START + pause, PauseReason::Unreachable);
        drop(permit);
        drive(&mut worker).await;
        worker.settle().await.unwrap();
        assert_eq!(world.service.counts().requests, 0);
        let stored = world.store.pauses(START).await.unwrap();
        assert_eq!(stored[0].until, START + pause);

        world.engine.open_gate(gate.origin()).await.unwrap();
        world.clock.advance(deferred - Duration::from_millis(1));
        assert_eq!(worker.step().await.claimed, 0);
        world.clock.advance(Duration::from_millis(1));
        assert_eq!(worker.step().await.claimed, 1);
        drive(&mut worker).await;
        worker.settle().await.unwrap();
        assert_eq!(world.counts(id).await.accepted, 1);
    }
}
