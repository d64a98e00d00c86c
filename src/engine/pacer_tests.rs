//! The pauses between steps, and the batches of settlements.

use super::*;
use crate::store::StoreErrorKind;

const NOW: Timestamp = Timestamp::from_secs(1_000);
const LONGEST: Duration = Duration::from_secs(60);
const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// The time of a step on a store that does not wait for a disk.
const FAST: Duration = Duration::from_micros(500);

type Due = Result<Option<Timestamp>, StoreError>;

fn down() -> Due {
    Err(StoreError::new(StoreErrorKind::Unavailable, "down"))
}

fn at(after: Duration) -> Due {
    Ok(Some(NOW + after))
}

#[test]
fn a_pause_lasts_until_something_is_due_and_never_spins() {
    let due_now = || Ok(Some(NOW));
    let never = || Ok(None);
    // More to do, nothing in flight, next due; the pause.
    let rows: [(bool, bool, Due, Duration); 13] = [
        (false, true, never(), LONGEST),
        (true, true, never(), LONGEST),
        (true, true, due_now(), Duration::ZERO),
        (true, false, due_now(), Duration::ZERO),
        (true, true, Ok(Some(NOW - SECOND)), Duration::ZERO),
        // Due, but its gate is busy or closed.
        (false, false, due_now(), SHORTEST_PAUSE),
        (false, true, due_now(), SECOND),
        (false, true, Ok(Some(NOW - SECOND)), SECOND),
        // Due later.
        (true, true, at(MILLI), SHORTEST_PAUSE),
        (false, true, at(MILLI), SHORTEST_PAUSE),
        (false, false, at(7 * SECOND), 7 * SECOND),
        (false, true, at(60 * LONGEST), LONGEST),
        // The store is down.
        (true, true, down(), SECOND),
    ];
    for (more, is_idle, next_due, pause) in rows {
        let outlook = Outlook {
            more,
            is_idle,
            next_due,
        };
        assert_eq!(outlook.pause(LONGEST, NOW), pause, "{outlook:?}");
    }
}

#[test]
fn a_poll_interval_below_the_shortest_pause_counts_for_what_is_not_due() {
    let outlook = |next_due| Outlook {
        more: false,
        is_idle: true,
        next_due,
    };
    assert_eq!(outlook(Ok(None)).pause(MILLI, NOW), MILLI);
    assert_eq!(outlook(at(SECOND)).pause(MILLI, NOW), SHORTEST_PAUSE);
}

#[test]
fn a_step_is_due_when_nothing_is_in_flight_or_many_attempts_ended_or_it_is_time() {
    let start = Instant::now();
    let mut pacer = Pacer::new(start);
    assert!(pacer.is_step_due(1, 0, start), "the first one");
    pacer.stepped(LONGEST, FAST, start);
    for (in_flight, ended, after, is_due) in [
        (0, 0, Duration::ZERO, true),
        (1, 0, Duration::ZERO, false),
        (1, WORTH_A_STEP - 1, SHORTEST_STEP - MILLI, false),
        (1, WORTH_A_STEP, Duration::ZERO, true),
        (1, 0, SHORTEST_STEP, true),
    ] {
        let now = start + after;
        assert_eq!(
            pacer.is_step_due(in_flight, ended, now),
            is_due,
            "{after:?}"
        );
    }
}

#[test]
fn events_bring_the_next_step_forward() {
    let start = Instant::now();
    let mut pacer = Pacer::new(start);
    assert_eq!(pacer.next(), start);
    pacer.stepped(LONGEST, FAST, start);
    assert_eq!(pacer.next(), start + LONGEST);
    pacer.step_soon();
    assert_eq!(pacer.next(), start + SHORTEST_STEP);
    pacer.step_now(start + MILLI);
    assert!(pacer.is_step_due(1, 0, start + MILLI));

    pacer.stepped(LONGEST, FAST, start);
    pacer.step_within(7 * SECOND, start + SECOND);
    assert_eq!(pacer.next(), start + 8 * SECOND);
    pacer.step_within(LONGEST, start + SECOND);
    assert_eq!(pacer.next(), start + 8 * SECOND);

    // A pause of nothing still leaves the shortest time between two steps.
    pacer.stepped(Duration::ZERO, FAST, start);
    assert_eq!(pacer.next(), start + SHORTEST_STEP);
    // What is due soon anyway is not put off.
    pacer.stepped(MILLI, FAST, start);
    pacer.step_soon();
    assert_eq!(pacer.next(), start + SHORTEST_STEP);
}

#[test]
fn rows_are_settled_in_batches() {
    let start = Instant::now();
    let mut pacer = Pacer::new(start);
    pacer.stepped(LONGEST, FAST, start);
    pacer.settle_soon(0, start);
    assert_eq!(pacer.next(), start + LONGEST, "there is nothing to settle");
    assert!(!pacer.is_settlement_due(0, 0, start));

    pacer.settle_soon(1, start);
    // Later ones do not put it off.
    pacer.settle_soon(2, start + MILLI);
    assert_eq!(pacer.next(), start + SETTLE_WITHIN);
    assert!(!pacer.is_settlement_due(2, 1, start + SETTLE_WITHIN - MILLI));
    assert!(pacer.is_settlement_due(2, 1, start + SETTLE_WITHIN));
    assert_eq!(pacer.next(), start + LONGEST, "it was settled");

    pacer.settle_soon(1, start);
    assert!(!pacer.is_settlement_due(SETTLE_AT - 1, 1, start));
    assert!(pacer.is_settlement_due(SETTLE_AT, 1, start));
    pacer.settle_soon(1, start);
    assert!(
        pacer.is_settlement_due(1, 0, start),
        "nothing else will end"
    );
}

#[test]
fn a_failed_settlement_puts_off_the_next_step_by_a_second() {
    let start = Instant::now();
    let mut pacer = Pacer::new(start);
    pacer.stepped(MILLI, FAST, start);
    pacer.settlement_failed(start);
    pacer.settle_soon(5, start);
    assert_eq!(pacer.next(), start + STORE_PAUSE);
    assert!(!pacer.is_step_due(1, 0, start + STORE_PAUSE - MILLI));
    for (unsettled, in_flight) in [(5, 1), (5, 0), (SETTLE_AT, 900)] {
        let early = start + STORE_PAUSE - MILLI;
        assert!(!pacer.is_settlement_due(unsettled, in_flight, early));
    }
    assert!(pacer.is_step_due(1, 0, start + STORE_PAUSE));
    assert!(pacer.is_settlement_due(5, 1, start + STORE_PAUSE));
}

/// Outcomes are written meanwhile: it has not failed to take these.
#[test]
fn a_failed_claim_puts_off_every_step_by_a_second() {
    let start = Instant::now();
    let mut pacer = Pacer::new(start);
    pacer.stepped(LONGEST, 5 * MILLI, start);
    pacer.claim_failed(start);
    pacer.step_now(start);
    pacer.step_for_new();
    assert_eq!(pacer.next(), start + STORE_PAUSE);
    let early = start + STORE_PAUSE - MILLI;
    for (in_flight, ended) in [(0, 0), (900, WORTH_A_STEP)] {
        assert!(!pacer.is_step_due(in_flight, ended, early));
        assert_eq!(pacer.due(SETTLE_AT, in_flight, ended, early), (true, false));
        assert!(pacer.is_step_due(in_flight, ended, start + STORE_PAUSE));
    }
}

#[test]
fn a_store_that_takes_long_for_a_step_has_a_rest() {
    let start = Instant::now();
    let mut pacer = Pacer::new(start);
    for (took, rest) in [
        (Duration::ZERO, Duration::ZERO),
        (MILLI, 4 * MILLI),
        (2 * MILLI, 8 * MILLI),
        (5 * MILLI, SETTLE_WITHIN),
        (SECOND, SETTLE_WITHIN),
    ] {
        pacer.stepped(Duration::ZERO, took, start);
        let many = 10 * WORTH_A_STEP;
        let is_due = |after| pacer.is_step_due(many, WORTH_A_STEP, start + after);
        assert!(is_due(rest), "{took:?}");
        assert!(
            rest.is_zero() || !is_due(rest - MILLI / 2),
            "{took:?}: the first {WORTH_A_STEP} of many that ended"
        );
        let half = pacer.is_step_due(WORTH_A_STEP, WORTH_A_STEP, start);
        assert!(half, "{took:?}: as many have ended as are in flight");
        assert_eq!(pacer.next(), start + rest.max(SHORTEST_STEP), "{took:?}");
    }
    pacer.step_for_new();
    assert_eq!(pacer.next(), start + SHORTEST_STEP);
    assert!(pacer.is_step_due(1, 0, start + SHORTEST_STEP));
    pacer.settlement_failed(start);
    pacer.step_for_new();
    assert!(!pacer.is_step_due(1, 0, start + STORE_PAUSE - MILLI));
}

#[test]
fn a_few_attempts_that_ended_do_not_wait_for_the_rest() {
    let start = Instant::now();
    let mut pacer = Pacer::new(start);
    for (ended, is_due) in [(0, false), (3, false), (4, true), (8, true)] {
        pacer.stepped(LONGEST, 5 * MILLI, start);
        let in_flight = 8 - ended;
        let before = pacer.due(ended, in_flight.max(1), ended, start + MILLI);
        assert_eq!(before, (false, false), "{ended}");
        pacer.step_soon();
        let next = if is_due { SHORTEST_STEP } else { SETTLE_WITHIN };
        assert_eq!(pacer.next(), start + next, "{ended}");
        let (_, steps) = pacer.due(ended, in_flight.max(1), ended, start + SHORTEST_STEP);
        assert_eq!(steps, is_due, "{ended}");
    }
    // The store is in trouble.
    pacer.settlement_failed(start);
    let (_, steps) = pacer.due(8, 8, 8, start + SHORTEST_STEP);
    assert!(!steps);
}

#[test]
fn a_step_and_a_settlement_share_a_transaction_that_takes_long() {
    let start = Instant::now();
    let mut pacer = Pacer::new(start);
    for (took, together) in [(FAST, false), (5 * MILLI, true)] {
        pacer.stepped(LONGEST, took, start);
        pacer.settle_soon(1, start);
        let within = |pacer: &mut Pacer, after| pacer.due(1, 9, 0, start + after);
        assert_eq!(within(&mut pacer, MILLI), (false, false));
        let next = SETTLE_WITHIN.min(pacer.next_step - start);
        assert_eq!(within(&mut pacer, next), (together, true), "{took:?}");
        let is_written = pacer.settle_by.is_none();
        assert_eq!(is_written, together, "{took:?}");
        pacer.stepped(LONGEST, took, start);
        pacer.settle_soon(SETTLE_AT, start);
        let due = pacer.due(SETTLE_AT, 900, 0, start);
        assert_eq!(due, (true, together), "{took:?}: a full batch");
        assert_eq!(pacer.due(0, 9, 0, start), (false, false));
    }
    // The pause of a store in trouble is kept, whatever its last step took.
    pacer.settlement_failed(start);
    assert_eq!(pacer.due(SETTLE_AT, 900, 0, start), (false, false));
    // A step in between, as for new work, takes no settlement with it.
    pacer.stepped(LONGEST, 5 * MILLI, start + 100 * MILLI);
    let due = pacer.due(SETTLE_AT, 900, 0, start + 130 * MILLI);
    assert_eq!(due, (false, true));
    assert_eq!(pacer.next(), start + STORE_PAUSE);
    let after = start + STORE_PAUSE;
    assert!(pacer.due(SETTLE_AT, 900, 0, after).0, "and no longer");
}
