//! Jumps of the wall clock, with and without a store's clock.

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
