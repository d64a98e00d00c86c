//! The worker's steps.

use std::sync::atomic::Ordering::Relaxed;

use futures_util::FutureExt as _;
use http::StatusCode;
use tokio::task;
use tokio::time::Instant;

use super::super::KeyRing;
use super::super::chores::EXPIRED_AT_ONCE;
use super::super::daily::fire_due;
use super::super::expand::expand;
use super::super::test_world::{START, TIMEOUT, World, drive};
use super::super::unreadable::UNREADABLE_PAUSE;
use super::*;
use crate::broadcast::{Audience, BroadcastId};
use crate::encoding::base64url;
use crate::message::{Message, Urgency};
use crate::schedule::{DailyTime, NotifyType, Plan, Schedule, Zone};
use crate::store::{
    Change, DeliveryLedger as _, Failure, NewBroadcast, Pause, PauseReason, RetireReason,
    ScheduleStore as _, StoreErrorKind, StoredVapidKey, SubscriptionRef, SubscriptionStore as _,
    VapidKeyStore as _,
};
use crate::subscription::EndpointKey;
use crate::vapid::{KeyEncryptionKeys, VapidKey};

const SECOND: Duration = Duration::from_secs(1);

/// Waits for the chores. Returns how many rows expired.
async fn chores(worker: &mut Worker) -> u64 {
    worker.start_chores(false);
    let mut expired = 0;
    while let Some(chore) = worker.chores.ended().await {
        expired += chore.expired;
    }
    expired
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
    assert_eq!(worker.places.taken(), 0);
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
    assert_eq!(worker.unsettled(), 0);
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
    assert_eq!(worker.places.taken(), 0);
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

/// Neither one that has not waited yet, nor one whose permit comes back at this moment.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_could_begin_does_not_once_the_worker_stops() {
    for waits in [false, true] {
        let world = World::with(1, TIMEOUT).await;
        let key = world.subscriber().await;
        let id = world.broadcast().await;
        let gate = world.gate(key).await;
        let permit = waits.then(|| gate.try_acquire().unwrap());
        let mut worker = Worker::new(world.engine.clone());
        assert_eq!(worker.step().await.claimed, 1);
        if waits {
            task::yield_now().await;
            assert!(worker.attempt_ended().now_or_never().is_none());
        }
        worker.stop();
        drop(permit);
        drive(&mut worker).await;
        worker.settle().await.unwrap();
        assert_eq!(world.service.counts().requests, 0, "{waits}");
        assert_eq!(world.counts(id).await.pending, 1, "{waits}");
        assert_eq!(gate.available(), 1, "{waits}");
    }
}

/// A jump may be the sleep of the machine, in which the lease has ended. After the smaller one there is still time enough before
/// the end of the lease.
#[tokio::test(start_paused = true)]
async fn no_request_begins_while_the_clocks_disagree() {
    for jumped in [START + 20 * SECOND, START - 86_400 * SECOND] {
        let world = World::with(1, TIMEOUT).await;
        let key = world.subscriber().await;
        let id = world.broadcast().await;
        let permit = world.gate(key).await.try_acquire().unwrap();
        let mut worker = Worker::new(world.engine.clone());
        world.clock.tick(SECOND);
        assert_eq!(worker.step().await.claimed, 1);
        task::yield_now().await;
        assert!(worker.attempt_ended().now_or_never().is_none());
        world.clock.set(jumped);
        drop(permit);
        drive(&mut worker).await;
        worker.settle().await.unwrap();
        assert_eq!(world.service.counts().requests, 0, "{jumped:?}");

        world.clock.set(START + SECOND);
        world.clock.tick(20 * SECOND);
        assert_eq!(worker.step().await.claimed, 1, "{jumped:?}");
        drive(&mut worker).await;
        worker.settle().await.unwrap();
        assert_eq!(world.counts(id).await.accepted, 1);
        assert_eq!(world.service.counts().requests, 1);
    }
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

/// It may have no other reason for a step until the next poll, while others find out that a push service is down.
#[tokio::test]
async fn a_worker_whose_attempts_wait_steps_when_pauses_are_due_to_be_read() {
    let world = World::new().await;
    world.subscriber().await;
    world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    let poll = Duration::from_secs(60);
    let pause = |worker: &Worker, secs| {
        let now = START + Duration::from_secs(secs);
        worker.longest_pause(poll, now).as_secs()
    };
    assert_eq!(pause(&worker, 0), 60, "nothing is in flight");
    assert_eq!(worker.step().await.claimed, 1);
    assert_eq!([0, 2, 9].map(|secs| pause(&worker, secs)), [5, 3, 1]);
    drive(&mut worker).await;
    assert_eq!(pause(&worker, 2), 60);
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

/// A purge does a part at a time. The next part is due a second later, and what comes after the subscriptions is done then, not
/// an hour later.
#[tokio::test(start_paused = true)]
async fn a_long_purge_goes_on_after_a_second_and_comes_to_its_end() {
    const AT_ONCE: usize = 8;
    let world = World::new().await;
    world.subscriber().await;
    world.table.full_purges.store(AT_ONCE + 1, Relaxed);
    let mut worker = Worker::new(world.engine.clone());
    let purges = || world.table.writes.load(Relaxed);
    let days = async || world.store.days(START).await.unwrap().len();
    chores(&mut worker).await;
    assert_eq!((purges(), days().await), (AT_ONCE, 0));
    tokio::time::advance(SECOND - Duration::from_millis(1)).await;
    chores(&mut worker).await;
    assert_eq!(purges(), AT_ONCE, "others write in between");
    tokio::time::advance(Duration::from_millis(1)).await;
    chores(&mut worker).await;
    assert_eq!((purges(), days().await), (AT_ONCE + 2, 1));
    tokio::time::advance(SECOND).await;
    chores(&mut worker).await;
    assert_eq!(purges(), AT_ONCE + 2, "nothing is left");
}

/// A call of the application has found the store unavailable.
#[cfg(feature = "api")]
#[tokio::test(start_paused = true)]
async fn a_store_that_is_suspected_is_written_to_at_once_and_once() {
    let world = World::new().await;
    let mut worker = Worker::new(world.engine.clone());
    let run = async |worker: &mut Worker| {
        worker.start_chores(false);
        let mut chores = 0;
        while worker.chores.ended().await.is_some() {
            chores += 1;
        }
        chores
    };
    run(&mut worker).await;
    assert_eq!(run(&mut worker).await, 0);
    world.engine.suspect_store();
    assert!(!world.engine.signals.health.is_store_usable(None));
    assert_eq!(run(&mut worker).await, 1);
    assert!(world.engine.signals.health.is_store_usable(None));
    assert_eq!(run(&mut worker).await, 0);
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

/// The wall clock may be set back, and the monotonic clock may stand still while a machine sleeps.
#[tokio::test(start_paused = true)]
async fn a_chore_is_due_as_soon_as_either_clock_says_so() {
    let world = World::new().await;
    let mut worker = Worker::new(world.engine.clone());
    let run = async |worker: &mut Worker| {
        worker.start_chores(false);
        let mut chores = 0;
        while worker.chores.ended().await.is_some() {
            chores += 1;
        }
        chores
    };
    let all = run(&mut worker).await;
    assert!(all > 1);
    assert_eq!(run(&mut worker).await, 0);
    world.clock.advance(60 * SECOND);
    assert_eq!(run(&mut worker).await, all);
    world.clock.set(START - 3600 * SECOND);
    assert_eq!(run(&mut worker).await, 0);
    tokio::time::advance(60 * SECOND).await;
    assert_eq!(run(&mut worker).await, all);
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
    // The second one, which cannot be read, is due first.
    for due in [START, START - SECOND, START] {
        let key = world.subscriber().await;
        let row = world.store.get(&[SubscriptionRef::Key(key)]).await.unwrap();
        let subscription = row[0].as_ref().unwrap().id;
        let plan = Plan::Subscriber {
            subscription,
            notify_type: NotifyType::DailyCheck,
            message: None,
        };
        let schedule = Schedule::new(plan, DailyTime::new(8, 0).unwrap(), due);
        world.store.put_schedule(&schedule).await.unwrap();
        ids.push((key, subscription));
    }
    let next = async |id| world.store.schedules(Some(id)).await.unwrap()[0].next_fire_at;
    let (damaged, theirs) = ids[1];
    world.table.unreadable.lock().unwrap().insert(damaged);
    let fired = fire_due(world.engine.clone()).await.unwrap();
    assert_eq!((fired.fired, fired.skipped), (2, 0));
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

/// More than one look lists: those behind them are looked for at once.
#[tokio::test]
async fn broadcasts_that_reach_no_subscription_are_progress() {
    let world = World::new().await;
    let now = world.engine.now();
    let key = world.subscriber().await;
    let open = async |audience| {
        let new = NewBroadcast::new(audience, Message::new("x"), START + 3600 * SECOND);
        world.store.open(&new, START).await.unwrap();
        new.id
    };
    for _ in 0..70 {
        open(Audience::Tag("unknown".parse().unwrap())).await;
    }
    let id = open(Audience::id(world.record(key).await.id)).await;
    while expand(&world.engine, now).await.unwrap() > 0 {}
    assert_eq!(world.counts(id).await.pending, 1);
}

/// As many as one look lists.
#[tokio::test]
async fn broadcasts_that_cannot_be_expanded_hold_up_none_behind_them() {
    for panics in [false, true] {
        let world = World::new().await;
        world.table.panics_at_unreadable.store(panics, Relaxed);
        let [damaged, other] = [world.subscriber().await, world.subscriber().await];
        world.table.unreadable.lock().unwrap().insert(damaged);
        let open = async |to: EndpointKey| {
            let audience = Audience::id(world.record(to).await.id);
            let deadline = START + 3600 * SECOND;
            let new = NewBroadcast::new(audience, Message::new("x"), deadline);
            world.store.open(&new, START).await.unwrap();
            new.id
        };
        let first = open(damaged).await;
        for _ in 1..100 {
            open(damaged).await;
        }
        let id = open(other).await;
        // The step has not failed: they show as parked.
        for _ in 0..3 {
            expand(&world.engine, START).await.unwrap();
        }
        assert_eq!(world.counts(id).await.pending, 1, "{panics}");
        let parked = &world.engine.signals.parked;
        assert_eq!(parked.len(START), 100, "{panics}");
        // A panic is no evidence that it cannot be read.
        assert_eq!(parked.times(&first), u32::from(!panics));
    }
}

/// A newer version has written it, or it is damaged. The row waits for another process, or its deadline.
#[tokio::test]
async fn a_row_whose_message_cannot_be_read_waits_and_keeps_its_attempt() {
    let world = World::new().await;
    world.subscriber().await;
    let id = world.broadcast().await;
    assert_eq!(expand(&world.engine, START).await.unwrap(), 1);
    let mut worker = Worker::new(world.engine.clone());
    let request = ClaimRequest::new(9, world.engine.lease);
    let mut taken = take(&world.engine, &request, 0, START).await.unwrap();
    taken.claims.messages.clear();
    worker.start(taken, START).unwrap();
    worker.settle().await.unwrap();
    assert_eq!(world.counts(id).await.pending, 1);
    assert!(world.engine.signals.parked.is_parked(&id, START));
    let later = START + 10 * SECOND;
    let early = later - Duration::from_millis(1);
    let claims = world.store.claim(&request, early).await.unwrap();
    assert!(claims.rows.is_empty());
    let claims = world.store.claim(&request, later).await.unwrap();
    assert_eq!(claims.rows[0].attempt, 1);
    let tokens = [claims.rows[0].token];
    world.store.release(&tokens, later).await.unwrap();
    world.clock.set(later);
    assert_eq!(worker.step().await.claimed, 1);
    drive(&mut worker).await;
    worker.settle().await.unwrap();
    assert_eq!(world.counts(id).await.accepted, 1);
}

/// It would be fired again and again, with a transaction and a line of the log each time.
#[tokio::test]
async fn a_schedule_in_an_unknown_zone_waits_for_an_hour() {
    let world = World::new().await;
    let key = world.subscriber().await;
    let plan = Plan::Subscriber {
        subscription: world.record(key).await.id,
        notify_type: NotifyType::DailyCheck,
        message: None,
    };
    let time = DailyTime::new(8, 0).unwrap();
    let time = time.in_zone(Zone::stored("Europe/Atlantis"));
    let schedule = Schedule::new(plan, time, START);
    world.store.put_schedule(&schedule).await.unwrap();
    let daily = fire_due(world.engine.clone()).await.unwrap();
    assert!(daily.is_empty());
    let stored = world.store.schedules(None).await.unwrap();
    let of = Some(world.record(key).await.id);
    let stored = [stored, world.store.schedules(of).await.unwrap()].concat();
    assert_eq!(stored[0].next_fire_at, START + 3600 * SECOND);
}

/// What has been sent would be sent again.
#[tokio::test]
async fn outcomes_are_written_while_the_clocks_disagree() {
    let world = World::new().await;
    world.subscriber().await;
    let id = world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    world.clock.tick(SECOND);
    assert_eq!(worker.step().await.claimed, 1);
    drive(&mut worker).await;
    world.clock.advance(3 * 86_400 * SECOND);
    let (progress, settled) = worker.step_beside(true).await;
    settled.unwrap();
    assert_eq!((progress, worker.unsettled()), (Progress::default(), 0));
    assert_eq!(world.counts(id).await.accepted, 1);
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
