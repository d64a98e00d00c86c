//! Jumps of the wall clock, with and without a store's clock.

use futures_util::FutureExt as _;

use super::super::test_world::{START, TestClock};
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

fn guarded() -> (TestClock, GuardedClock) {
    let clock = TestClock::new();
    clock.tick(SECOND);
    let guarded = GuardedClock::new(Arc::new(clock.clone()));
    assert_eq!(guarded.now(), START + SECOND);
    (clock, guarded)
}

#[test]
fn a_small_step_is_followed() {
    let (clock, guarded) = guarded();
    for by in [FOLLOWED, SECOND] {
        clock.advance(by);
        assert_eq!(guarded.now(), clock.now());
    }
    clock.set(clock.now() - FOLLOWED);
    assert_eq!(guarded.now(), clock.now());
    assert_eq!(guarded.fault(), None);
}

#[test]
fn a_jump_is_not_followed_and_its_end_ends_the_fault() {
    for jumped in [START + 3 * DAY, START - DAY] {
        let (clock, guarded) = guarded();
        let right = clock.now();
        clock.set(jumped);
        assert_eq!(guarded.now(), right);
        assert!(guarded.fault().is_some(), "{jumped:?}");
        clock.tick(8 * SECOND);
        assert_eq!(guarded.now(), right + 8 * SECOND);
        clock.set(right + 8 * SECOND);
        assert_eq!(guarded.now(), clock.now());
        assert_eq!(guarded.fault(), None);
    }
}

#[test]
fn without_another_source_a_jump_is_accepted_when_it_has_lasted() {
    let (clock, guarded) = guarded();
    clock.advance(DAY);
    assert!(guarded.fault().is_some());
    clock.tick(ACCEPTED_AFTER - SECOND);
    assert!(guarded.fault().is_some());
    // Another jump begins anew.
    clock.advance(DAY);
    assert!(guarded.fault().is_some());
    clock.tick(ACCEPTED_AFTER - SECOND);
    assert!(guarded.fault().is_some());
    clock.tick(SECOND);
    assert_eq!(guarded.now(), clock.now());
    assert_eq!(guarded.fault(), None);
}

#[test]
fn a_clock_without_a_monotonic_one_is_followed() {
    let clock = TestClock::new();
    let guarded = GuardedClock::new(Arc::new(clock.clone()));
    guarded.now();
    clock.advance(DAY);
    assert_eq!(guarded.now(), clock.now());
    assert_eq!(guarded.fault(), None);
}

#[test]
fn a_deadline_is_counted_from_the_later_time() {
    for jumped in [START + DAY, START - DAY] {
        let (clock, guarded) = guarded();
        let right = clock.now();
        clock.set(jumped);
        assert_eq!(guarded.latest(), right.max(jumped));
    }
}

#[test]
fn the_stores_clock_decides() {
    let (clock, guarded) = guarded();
    // After a suspension the store confirms the new time at once.
    clock.advance(DAY);
    assert!(guarded.fault().is_some());
    guarded.judge(clock.now(), Some(clock.now()));
    assert_eq!(guarded.fault(), None);
    assert_eq!(guarded.now(), clock.now());

    // A jump that the store does not confirm is never accepted.
    let right = clock.now();
    clock.advance(DAY);
    guarded.judge(clock.now(), Some(right));
    clock.tick(2 * ACCEPTED_AFTER);
    assert!(matches!(guarded.fault(), Some(ClockFault::Skewed(_))));
    assert_eq!(guarded.now(), right + 2 * ACCEPTED_AFTER);
    clock.set(right + 2 * ACCEPTED_AFTER);
    assert!(
        guarded.fault().is_some(),
        "the store is not asked again yet"
    );
    guarded.judge(clock.now(), Some(clock.now()));
    assert_eq!(guarded.fault(), None);

    // The store's clock jumps.
    guarded.judge(clock.now(), Some(clock.now() + DAY));
    assert!(guarded.fault().is_some());
    guarded.judge(clock.now(), Some(clock.now() + FOLLOWED));
    assert_eq!(guarded.fault(), None);
}

#[test]
fn a_jump_between_question_and_answer_is_not_confirmed() {
    let (clock, guarded) = guarded();
    let asked = clock.now();
    clock.advance(DAY);
    // The store answered before the jump, or after it.
    for server in [asked, asked + SECOND] {
        guarded.judge(asked, Some(server));
        assert!(matches!(guarded.fault(), Some(ClockFault::Jumped(_))));
        assert_eq!(guarded.now(), asked);
    }
    // The next answer is a quick one.
    guarded.judge(clock.now(), Some(asked + SECOND));
    assert!(matches!(guarded.fault(), Some(ClockFault::Skewed(_))));
    assert_eq!(guarded.now(), asked);
}

/// A worker that waits takes a step then. With a step for each reading it would not wait at all.
#[test]
fn a_jump_is_told_once() {
    let (clock, guarded) = guarded();
    let is_told = || guarded.jumped().now_or_never().is_some();
    assert!(!is_told());
    for _ in 0..2 {
        clock.advance(DAY);
        guarded.now();
        assert!(is_told());
        guarded.now();
        clock.tick(SECOND);
        guarded.now();
        assert!(!is_told());
    }
}

#[cfg(all(feature = "tracing", any(feature = "api", feature = "sqlite")))]
#[test]
fn each_disagreement_and_each_end_is_logged_once() {
    let (clock, guarded) = guarded();
    let right = clock.now();
    for _ in 0..2 {
        for (now, line) in [
            (right + DAY, "clocks disagree"),
            (right, "clocks agree again"),
        ] {
            clock.set(now);
            let log = observe::logged(|| {
                guarded.judge(now, None);
                guarded.judge(now, None);
            });
            assert_eq!(log.matches(line).count(), 1, "{log}");
            assert_eq!(log.lines().count(), 1, "{log}");
        }
    }
}
