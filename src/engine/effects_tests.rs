//! What is written for which consequence, and when.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::super::test_world::{START, World};
use super::*;
use crate::store::{Failure, Settlement, SubscriptionRecord};

const LATER: Timestamp = Timestamp::from_millis(START.as_millis() + 60_000);

struct Noted {
    world: World,
    effects: Effects,
    gate: Arc<OriginGate>,
    key: EndpointKey,
}

impl Noted {
    async fn new() -> Self {
        let world = World::new().await;
        let key = world.subscriber().await;
        Self {
            effects: world.engine.effects(),
            gate: world.gate(key).await,
            world,
            key,
        }
    }

    fn accepted(&mut self, times: u64) {
        for _ in 0..times {
            let accepted = Consequence::finished(FinalOutcome::Accepted);
            self.effects.note(&self.gate, accepted, START);
        }
    }

    /// Retired for this reason, for days or not.
    fn gone(&mut self, reason: RetireReason, is_gone_for_days: bool) {
        let retire = Change::Retire {
            key: self.key,
            reason,
            observed_at: START,
            failure: Failure::default(),
        };
        let gone = Consequence {
            changes: vec![retire],
            is_gone_for_days,
            ..Consequence::finished(FinalOutcome::Gone)
        };
        self.effects.note(&self.gate, gone, START);
    }

    /// What was counted before.
    async fn counted(&self, accepted: u64, gone: u64) {
        let counts = [(self.gate.origin().clone(), Tally::new(accepted, gone))];
        self.world.store.tally(&counts, START).await.unwrap();
    }

    async fn tally(&self) -> Tally {
        let nothing = [(self.gate.origin().clone(), Tally::default())];
        self.world.store.tally(&nothing, LATER).await.unwrap()[0]
    }

    async fn record(&self) -> SubscriptionRecord {
        self.world.record(self.key).await
    }
}

#[tokio::test]
async fn acceptances_are_counted_first_and_from_500_on_or_with_a_gone_or_at_the_end() {
    let mut noted = Noted::new().await;
    noted.accepted(1);
    noted.effects.write(LATER).await.unwrap();
    assert_eq!(noted.tally().await, Tally::new(1, 0));
    noted.accepted(TALLY_AT - 1);
    noted.effects.write(LATER).await.unwrap();
    assert_eq!(noted.tally().await, Tally::new(1, 0));
    noted.accepted(1);
    noted.effects.write(LATER).await.unwrap();
    assert_eq!(noted.tally().await, Tally::new(TALLY_AT + 1, 0));
    noted.accepted(2);
    noted.gone(RetireReason::Gone, false);
    noted.effects.write(LATER).await.unwrap();
    assert_eq!(noted.tally().await, Tally::new(TALLY_AT + 3, 1));
    noted.accepted(1);
    noted.effects.finish(LATER).await.unwrap();
    assert_eq!(noted.tally().await, Tally::new(TALLY_AT + 4, 1));
    // Each once.
    noted.effects.finish(LATER).await.unwrap();
    assert_eq!(noted.tally().await, Tally::new(TALLY_AT + 4, 1));
}

#[tokio::test]
async fn only_acceptances_and_retirements_are_counted() {
    let mut noted = Noted::new().await;
    for next in [
        Settlement::Finished(FinalOutcome::Failed),
        Settlement::Finished(FinalOutcome::Gone),
        Settlement::RetryAt(LATER),
        Settlement::Deferred(LATER),
    ] {
        noted.effects.note(&noted.gate, next.into(), START);
    }
    noted.effects.finish(LATER).await.unwrap();
    assert_eq!(noted.tally().await, Tally::default());
}

#[tokio::test]
async fn other_changes_are_written_as_they_are() {
    let mut noted = Noted::new().await;
    let mut failed = Consequence::from(Settlement::RetryAt(LATER));
    failed.changes = vec![Change::Failed {
        key: noted.key,
        failure: Failure::default(),
    }];
    noted.effects.note(&noted.gate, failed, START);
    noted.effects.write(LATER).await.unwrap();
    assert_eq!(noted.record().await.failure_streak, 1);
    noted.effects.write(LATER).await.unwrap();
    assert_eq!(noted.record().await.failure_streak, 1, "each once");
}

#[tokio::test]
async fn the_breaker_judges_by_the_counts_of_all_processes() {
    // Counted before, the reason, whether it is gone for days; whether it is retired.
    for (accepted, gone, reason, for_days, is_retired) in [
        (0, 0, RetireReason::Gone, false, true),
        (0, 48, RetireReason::Gone, false, true),
        (0, 49, RetireReason::Gone, false, false),
        (200, 49, RetireReason::Gone, false, true),
        (1, 60, RetireReason::Gone, true, true),
        (1, 60, RetireReason::Gone, false, false),
        // None is accepted: its push service is ill as a whole.
        (0, 60, RetireReason::Gone, true, false),
        (0, 6, RetireReason::BadRequest, false, true),
        (0, 7, RetireReason::BadRequest, false, false),
        (0, 49, RetireReason::HostNotFound, false, false),
    ] {
        let mut noted = Noted::new().await;
        noted.counted(accepted, gone).await;
        noted.gone(reason, for_days);
        noted.effects.write(LATER).await.unwrap();
        let record = noted.record().await;
        let case = (accepted, gone, reason, for_days);
        assert_eq!(record.retired.is_some(), is_retired, "{case:?}");
        // Kept, it counts as failed.
        assert_eq!(record.failure_streak, u32::from(!is_retired), "{case:?}");
    }
}

#[tokio::test]
async fn the_breaker_counts_its_own_answers_too() {
    let mut noted = Noted::new().await;
    noted.counted(100, 49).await;
    // 49 + 1 of 150 is above 30 percent, of 167 it is not.
    noted.accepted(17);
    noted.gone(RetireReason::Gone, false);
    noted.effects.write(LATER).await.unwrap();
    assert!(noted.record().await.retired.is_some());
}

/// The suspension is logged once for an origin, until it is over.
#[tokio::test]
async fn pruning_is_suspended_until_the_share_is_usual_again() {
    let mut noted = Noted::new().await;
    noted.counted(0, 60).await;
    noted.gone(RetireReason::Gone, false);
    noted.effects.write(LATER).await.unwrap();
    assert!(noted.effects.suspended.contains(noted.gate.origin()));
    noted.accepted(139);
    noted.effects.finish(LATER).await.unwrap();
    assert!(noted.effects.suspended.contains(noted.gate.origin()));
    noted.accepted(10);
    noted.effects.finish(LATER).await.unwrap();
    assert!(noted.effects.suspended.is_empty());
}

#[tokio::test]
async fn pauses_are_written_first_and_once_with_contact_and_key_of_a_refused_sender() {
    for (reason, contact) in [
        (PauseReason::RateLimited, None),
        (PauseReason::SenderFault, Some("mailto:ops@example.com")),
    ] {
        let mut noted = Noted::new().await;
        let key = noted.world.engine.key_ring.active().id();
        let contact = contact.map(|contact| format!("{contact} {key}"));
        let until = LATER + Duration::from_secs(600);
        noted.gate.pause(until, reason);
        noted.accepted(1);
        assert_eq!(noted.effects.pauses(), 1);
        noted.gone(RetireReason::Gone, false);
        noted.world.table.fails.store(true, Relaxed);
        noted.effects.write(LATER).await.unwrap_err();
        assert_eq!(noted.effects.pauses(), 0);
        let pauses = noted.world.store.pauses(LATER).await.unwrap();
        let [pause] = &*pauses else {
            panic!("{pauses:?}");
        };
        assert_eq!((pause.until, pause.reason), (until, reason));
        assert_eq!(pause.contact, contact);
        assert!(noted.record().await.retired.is_none());

        // Another process lifts it: shared, it is not this one's own any more.
        noted.world.engine.gates.load([], LATER);
        assert_eq!(noted.gate.closed_at(LATER), None);
        // What was not written is written by the next call, and what was is not.
        noted.world.table.fails.store(false, Relaxed);
        noted.effects.write(LATER).await.unwrap();
        assert!(noted.record().await.retired.is_some());
        assert_eq!(noted.tally().await, Tally::new(1, 1));
    }
}

#[tokio::test]
async fn what_fails_at_the_end_is_still_there() {
    let mut noted = Noted::new().await;
    noted.gone(RetireReason::Gone, false);
    noted.world.table.fails.store(true, Relaxed);
    noted.effects.finish(LATER).await.unwrap_err();
    noted.world.table.fails.store(false, Relaxed);
    noted.effects.finish(LATER).await.unwrap();
    assert!(noted.record().await.retired.is_some());
}

/// One change that is refused is left out, the others are written, and the number of calls grows with those refused only.
#[tokio::test]
async fn a_change_that_is_refused_keeps_no_other_from_being_written() {
    const ROWS: usize = 100;
    let mut noted = Noted::new().await;
    let mut keys = vec![noted.key];
    for _ in 1..ROWS {
        keys.push(noted.world.subscriber().await);
    }
    let refused = [keys[37], keys[99]];
    *noted.world.table.refused.lock().unwrap() = refused.into();
    for key in &keys {
        let mut failed = Consequence::from(Settlement::RetryAt(LATER));
        failed.changes = vec![Change::Failed {
            key: *key,
            failure: Failure::default(),
        }];
        noted.effects.note(&noted.gate, failed, START);
    }
    noted.effects.write(LATER).await.unwrap();
    let calls = noted.world.table.writes.load(Relaxed);
    assert!(calls <= 30, "{calls}");
    noted.effects.write(LATER).await.unwrap();
    assert_eq!(noted.world.table.writes.load(Relaxed), calls);
    for key in keys {
        let streak = noted.world.record(key).await.failure_streak;
        assert_eq!(streak, u32::from(!refused.contains(&key)));
    }
}

/// Those in front may be older than all others.
#[tokio::test]
async fn changes_that_are_refused_in_front_keep_none_behind_them_from_being_written() {
    let mut noted = Noted::new().await;
    let mut keys = vec![noted.key];
    for _ in 1..20 {
        keys.push(noted.world.subscriber().await);
    }
    let (last, refused) = keys.split_last().unwrap();
    *noted.world.table.refused.lock().unwrap() = refused.iter().copied().collect();
    let note = |noted: &mut Noted, key| {
        let mut failed = Consequence::from(Settlement::RetryAt(LATER));
        failed.changes = vec![Change::Failed {
            key,
            failure: Failure::default(),
        }];
        noted.effects.note(&noted.gate, failed, START);
    };
    for key in &keys {
        note(&mut noted, *key);
    }
    noted.effects.write(LATER).await.unwrap();
    assert_eq!(noted.world.record(*last).await.failure_streak, 1);
    // Each that is taken shows of some others that the store is not at fault.
    for streak in 2..20 {
        note(&mut noted, *last);
        noted.effects.write(LATER).await.unwrap();
        assert_eq!(noted.world.record(*last).await.failure_streak, streak);
    }
    assert!(noted.effects.changes().is_empty());
}

/// One pass leaves some of them.
#[tokio::test]
async fn the_last_write_comes_to_all_changes_among_many_that_are_refused() {
    let mut noted = Noted::new().await;
    let mut keys = Vec::new();
    for _ in 0..90 {
        keys.push(noted.world.subscriber().await);
    }
    *noted.world.table.refused.lock().unwrap() = keys.iter().copied().step_by(3).collect();
    for key in &keys {
        let mut failed = Consequence::from(Settlement::RetryAt(LATER));
        failed.changes = vec![Change::Failed {
            key: *key,
            failure: Failure::default(),
        }];
        noted.effects.note(&noted.gate, failed, START);
    }
    noted.effects.write(LATER).await.unwrap();
    assert!(!noted.effects.changes().is_empty());
    noted.effects.finish(LATER).await.unwrap();
    for (place, key) in keys.iter().enumerate() {
        let streak = noted.world.record(*key).await.failure_streak;
        assert_eq!(streak == 1, place % 3 > 0, "{place}");
    }
}

/// A table without a right, say: what it refuses meanwhile is written once that is mended, and no outcome waits for it.
#[tokio::test]
async fn changes_wait_while_the_store_refuses_all() {
    let mut noted = Noted::new().await;
    let mut keys = vec![noted.key];
    for _ in 1..10 {
        keys.push(noted.world.subscriber().await);
    }
    *noted.world.table.refused.lock().unwrap() = keys.iter().copied().collect();
    for key in &keys {
        let mut failed = Consequence::from(Settlement::RetryAt(LATER));
        failed.changes = vec![Change::Failed {
            key: *key,
            failure: Failure::default(),
        }];
        noted.effects.note(&noted.gate, failed, START);
    }
    for _ in 0..5 {
        noted.effects.write(LATER).await.unwrap();
        assert_eq!(noted.effects.changes().len(), keys.len());
    }
    let calls = noted.world.table.writes.load(Relaxed);
    assert!(calls <= 9 + 4 * 3, "{calls}");
    noted.world.table.refused.lock().unwrap().clear();
    noted.effects.write(LATER).await.unwrap();
    assert!(noted.effects.changes().is_empty());
    for key in keys {
        assert_eq!(noted.world.record(key).await.failure_streak, 1);
    }
}

/// Nor is a pause written that was ended before it could be.
#[tokio::test]
async fn a_pause_of_a_gate_that_was_opened_is_not_written() {
    let mut noted = Noted::new().await;
    let until = LATER + Duration::from_secs(600);
    let pause = Pause::new(noted.gate.origin().clone(), until, PauseReason::Unreachable);
    noted.gate.keep_unshared(pause, false);
    noted.effects.note_gate(&noted.gate, LATER);
    assert_eq!(noted.gate.closed_at(LATER), None);
    noted.effects.write(LATER).await.unwrap();
    assert_eq!(noted.world.store.pauses(LATER).await.unwrap(), []);
}

/// Nor is one that is over: it would end a later one of another process.
#[tokio::test]
async fn a_pause_that_is_over_is_not_written() {
    let mut noted = Noted::new().await;
    let origin = noted.gate.origin().clone();
    let pause = Pause::new(origin.clone(), LATER, PauseReason::RateLimited);
    noted.gate.keep_unshared(pause, false);
    noted.effects.note_gate(&noted.gate, START);
    let until = LATER + Duration::from_secs(600);
    let theirs = Pause::new(origin, until, PauseReason::RateLimited);
    let store = &noted.world.store;
    store.pause(&theirs, START).await.unwrap();
    noted.world.engine.load_pauses(START).await.unwrap();
    noted.effects.write(LATER).await.unwrap();
    assert_eq!(store.pauses(LATER).await.unwrap(), [theirs]);
    assert_eq!(noted.effects.pauses(), 0);
}

#[tokio::test]
async fn what_was_not_written_keeps_its_order() {
    let mut noted = Noted::new().await;
    let origin = noted.gate.origin().clone();
    let until = LATER + Duration::from_secs(600);
    let begins = Pause::new(origin.clone(), until, PauseReason::Unreachable);
    let ends = Pause::new(origin, LATER, PauseReason::Unreachable);
    for (pause, is_lift) in [(begins, false), (ends, true)] {
        noted.gate.keep_unshared(pause, is_lift);
        noted.effects.note_gate(&noted.gate, LATER);
    }
    assert_eq!(noted.effects.pauses(), 2);
    noted.effects = noted.world.engine.effects();
    noted.effects.note_gate(&noted.gate, LATER);
    assert_eq!(noted.effects.pauses(), 2);
    noted.effects.write(LATER).await.unwrap();
    assert_eq!(noted.world.store.pauses(LATER).await.unwrap(), []);
}
