//! What is evidence against an origin, and how much of it is enough.

use super::PauseReason::{RateLimited, SenderFault, Unreachable};
use super::*;

const ALL: [PauseReason; 3] = [RateLimited, SenderFault, Unreachable];

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_000_000 + secs)
}

/// A row that worked until now.
fn row(n: u8) -> Row {
    Row {
        key: EndpointKey::from_bytes([n; 32]),
        is_proven: true,
        has_same_key: true,
        failing_since: None,
        is_test: false,
    }
}

fn stranger(n: u8) -> Row {
    Row {
        is_proven: false,
        has_same_key: false,
        ..row(n)
    }
}

fn failing(n: u8, since: i64) -> Row {
    Row {
        failing_since: Some(at(since)),
        ..row(n)
    }
}

/// An origin that accepted a push a while ago.
fn proven() -> Evidence {
    let mut evidence = Evidence::default();
    evidence.begins(&row(200), at(-600));
    evidence.accepted(&row(200), at(-600));
    evidence
}

/// These rows fail, one each 100 ms; whether the origin is at fault in the end.
fn fail(
    evidence: &mut Evidence,
    rows: impl IntoIterator<Item = Row>,
    reason: PauseReason,
    secs: i64,
) -> bool {
    let mut concluded = false;
    for (n, row) in rows.into_iter().enumerate() {
        let now = at(secs) + Duration::from_millis(100) * u32::try_from(n).unwrap();
        evidence.begins(&row, now);
        concluded |= evidence.failed(&row, reason, None, (now, now)).is_some();
    }
    concluded
}

#[test]
fn eight_distinct_rows_that_worked_are_enough_once_it_lasts_two_seconds() {
    for reason in ALL {
        let mut origin = proven();
        assert!(!fail(&mut origin, (0..7).map(row), reason, 0));
        assert!(!fail(&mut origin, (0..7).map(row), reason, 3), "the same");
        assert!(fail(&mut origin, [row(7)], reason, 4), "{reason:?}");
        assert!(!fail(&mut origin, [row(8)], reason, 4), "it starts anew");

        let mut burst = proven();
        assert!(!fail(&mut burst, (0..20).map(row), reason, 0), "a burst");
        assert!(fail(&mut burst, [row(0)], reason, 2), "that lasts");
    }
}

#[test]
fn a_burst_makes_an_origin_suspect_until_something_is_accepted() {
    let mut origin = proven();
    assert!(!fail(&mut origin, (0..7).map(row), Unreachable, 0));
    assert!(!origin.is_suspect(at(0)));
    assert!(!fail(&mut origin, [row(7)], Unreachable, 1));
    assert!(origin.is_suspect(at(2)) && !origin.is_suspect(at(3)));
    origin.accepted(&row(8), at(1));
    assert!(!origin.is_suspect(at(1)));
}

#[test]
fn requests_without_a_response_have_lasted() {
    let mut origin = proven();
    for n in 0..7 {
        let when = (at(0), at(15));
        assert_eq!(origin.failed(&row(n), Unreachable, None, when), None);
    }
    let when = (at(0), at(15));
    assert!(origin.failed(&row(7), Unreachable, None, when).is_some());
}

#[test]
fn a_minute_later_a_failure_does_not_count() {
    let mut origin = proven();
    assert!(!fail(&mut origin, (0..7).map(row), Unreachable, 0));
    assert!(!fail(&mut origin, (7..14).map(row), Unreachable, 66));
    assert!(fail(&mut origin, [row(14)], Unreachable, 70));
}

#[test]
fn reasons_are_weighed_apart_and_other_failures_are_no_contradiction() {
    let mut origin = proven();
    assert!(!fail(&mut origin, (0..7).map(row), Unreachable, 0));
    assert!(!fail(&mut origin, (7..14).map(row), RateLimited, 1));
    assert!(fail(&mut origin, [row(14)], Unreachable, 4));
}

#[test]
fn strangers_rows_and_tests_are_no_evidence_where_something_was_accepted() {
    for reason in ALL {
        let mut origin = proven();
        assert!(!fail(&mut origin, (0..100).map(stranger), reason, 0));
        assert!(!fail(&mut origin, (0..100).map(stranger), reason, 30));
        let test = |n| Row {
            is_test: true,
            ..row(n)
        };
        assert!(!fail(&mut origin, (0..100).map(test), reason, 40));
        // After a restart, a proven row shows it.
        let mut restarted = Evidence::default();
        assert!(!fail(&mut restarted, (0..7).map(stranger), reason, 0));
        restarted.begins(&row(200), at(3));
        assert!(!fail(&mut restarted, (7..20).map(stranger), reason, 4));
    }
}

#[test]
fn rows_decide_together_where_nothing_was_ever_accepted() {
    for reason in ALL {
        let mut origin = Evidence::default();
        assert!(!fail(&mut origin, (0..7).map(stranger), reason, 0));
        assert!(fail(&mut origin, [stranger(7)], reason, 2));
        let test = |n| Row {
            is_test: true,
            ..stranger(n)
        };
        assert!(!fail(&mut origin, (0..100).map(test), reason, 10), "a test");
    }
}

#[test]
fn repeats_of_rows_that_failed_while_others_were_accepted_are_no_evidence() {
    for reason in ALL {
        let mut origin = proven();
        // They fail within 30 s of an acceptance, and again for hours.
        origin.accepted(&row(200), at(0));
        assert!(!fail(&mut origin, (0..10).map(row), reason, 1));
        for minute in 2..200 {
            let again = (0..10).map(|n| failing(n, 2));
            assert!(!fail(&mut origin, again, reason, 60 * minute), "{minute}");
        }
        // Those that fail later count.
        let later = (0..10).map(|n| failing(n, 31));
        assert!(!fail(&mut origin, later.clone(), reason, 20_000));
        assert!(fail(&mut origin, later, reason, 20_002), "{reason:?}");
    }
}

#[test]
fn rows_that_failed_before_a_restart_are_no_evidence_after_it() {
    let mut origin = Evidence::default();
    for secs in [0, 30] {
        let old = (0..20).map(|n| failing(n, -1));
        assert!(!fail(&mut origin, old, SenderFault, secs));
    }
    // And those that began to fail since are.
    for (secs, concludes) in [(40, false), (42, true)] {
        let new = (30..40).map(|n| failing(n, 1));
        assert_eq!(fail(&mut origin, new, SenderFault, secs), concludes);
    }
}

#[test]
fn an_acceptance_contradicts_refusals_and_limits_for_half_a_minute() {
    for reason in [SenderFault, RateLimited] {
        let mut origin = proven();
        // A stranger's acceptance is one too: the token was accepted, the sender is not limited.
        origin.accepted(&stranger(1), at(0));
        assert!(!fail(&mut origin, (0..100).map(row), reason, 1));
        assert!(!fail(&mut origin, [row(100)], reason, 29));
        assert!(fail(&mut origin, [row(101)], reason, 30), "{reason:?}");
    }
}

#[test]
fn an_origin_that_serves_one_row_in_six_is_not_unreachable() {
    for (good, concludes) in [(0, true), (3, true), (4, false), (20, false)] {
        let mut origin = proven();
        assert!(!fail(&mut origin, (0..20).map(row), Unreachable, 0));
        for n in 0..good {
            origin.answered(&row(100 + n), at(5));
        }
        for n in 0..50 {
            origin.answered(&stranger(100 + n), at(5));
        }
        assert_eq!(
            fail(&mut origin, [row(20)], Unreachable, 5),
            concludes,
            "{good}"
        );
    }
}

#[test]
fn another_key_than_the_rows_own_is_no_evidence_against_the_sender() {
    let other_key = |n| Row {
        has_same_key: false,
        ..row(n)
    };
    for (reason, concludes) in [(SenderFault, false), (Unreachable, true)] {
        let mut origin = proven();
        assert!(!fail(&mut origin, (0..20).map(other_key), reason, 0));
        assert_eq!(fail(&mut origin, [other_key(20)], reason, 3), concludes);
    }
}

#[test]
fn together_they_wait_as_long_as_all_of_them_were_asked_to() {
    for (waits, expected) in [([60, 900], 60), ([0, 900], 0)] {
        let mut origin = proven();
        let mut conclusion = None;
        for n in 0..8_u8 {
            let wait = Some(waits[usize::from(n % 2)]).filter(|wait| *wait > 0);
            let wait = wait.map(Duration::from_secs);
            let now = at(i64::from(n));
            conclusion = origin.failed(&row(n), RateLimited, wait, (now, now));
        }
        assert_eq!(conclusion.unwrap().wait, Duration::from_secs(expected));
    }
}

#[test]
fn a_clock_that_was_set_back_excuses_nothing() {
    let mut origin = proven();
    origin.accepted(&row(200), at(86_400));
    assert!(!fail(&mut origin, (0..7).map(row), SenderFault, 0));
    assert!(fail(&mut origin, [row(7)], SenderFault, 3));
}

#[test]
fn its_memory_is_bounded() {
    let mut origin = proven();
    for n in 0..100_000_u32 {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        let row = Row {
            key: EndpointKey::from_bytes(key),
            ..row(0)
        };
        origin.answered(&row, at(0));
        let now = at(i64::from(n / 100));
        origin.failed(&row, Unreachable, None, (now, now));
        assert!(origin.buckets.len() <= 10);
        assert!(
            origin
                .buckets
                .iter()
                .all(|bucket| bucket.rows.len() <= KEYS)
        );
    }
}

#[test]
fn losses_of_a_test_or_of_a_row_that_fails_for_more_than_ten_minutes_may_be_its_own() {
    assert!(!row(1).is_suspect(at(0)));
    let row_that_fails = failing(1, 0);
    assert!(!row_that_fails.is_suspect(at(600)));
    assert!(row_that_fails.is_suspect(at(600) + Duration::from_millis(1)));
    let test = Row {
        is_test: true,
        ..row(1)
    };
    assert!(test.is_suspect(at(0)));
}

#[test]
fn a_row_fails_alone_that_failed_before_the_first_request_or_soon_after_an_acceptance() {
    let mut origin = Evidence::default();
    origin.prove();
    assert!(!origin.is_witness(&failing(1, 0)), "nothing is known");
    origin.begins(&row(1), at(0));
    assert!(!origin.is_witness(&failing(1, -1)));
    assert!(origin.is_witness(&failing(1, 0)));
    origin.accepted(&row(1), at(10));
    for (since, is_witness) in [(0, false), (40, false), (41, true)] {
        assert_eq!(origin.is_witness(&failing(1, since)), is_witness, "{since}");
    }
}

#[test]
fn acceptances_of_rows_that_worked_speak_for_an_origin_that_seems_unreachable() {
    for (good, concludes) in [(3, true), (4, false)] {
        let mut origin = proven();
        assert!(!fail(&mut origin, (0..20).map(row), Unreachable, 0));
        for n in 0..good {
            origin.accepted(&row(100 + n), at(5));
        }
        for n in 0..50 {
            origin.accepted(&stranger(100 + n), at(5));
        }
        let concluded = fail(&mut origin, [row(20)], Unreachable, 5);
        assert_eq!(concluded, concludes, "{good}");
    }
}

#[test]
fn failures_are_enough_from_85_percent_on() {
    for (bad, good, concludes) in [(17, 3, true), (16, 3, false)] {
        let mut origin = proven();
        assert!(!fail(&mut origin, (1..bad).map(row), Unreachable, 0));
        for n in 0..good {
            origin.answered(&row(100 + n), at(2));
        }
        let concluded = fail(&mut origin, [row(0)], Unreachable, 4);
        assert_eq!(concluded, concludes, "{bad}");
    }
}

#[test]
fn a_row_that_fails_for_two_reasons_counts_for_both() {
    let mut origin = proven();
    assert!(!fail(&mut origin, (0..8).map(row), RateLimited, 0));
    assert!(!fail(&mut origin, (0..8).map(row), Unreachable, 1));
    assert!(fail(&mut origin, [row(0)], Unreachable, 4));
}

#[test]
fn nothing_is_left_of_what_is_cleared() {
    let mut origin = proven();
    assert!(!fail(&mut origin, (0..8).map(row), Unreachable, 0));
    assert!(origin.is_suspect(at(1)));
    origin.clear();
    assert!(!origin.is_suspect(at(1)));
    assert!(!fail(&mut origin, [row(8)], Unreachable, 3));
}

#[test]
fn a_failure_counts_for_ten_buckets_of_six_seconds() {
    // The first moment of a bucket.
    let start = 2;
    for (secs, concludes) in [(59, true), (60, false)] {
        let mut origin = proven();
        assert!(!fail(&mut origin, (0..7).map(row), Unreachable, start));
        let concluded = fail(&mut origin, [row(7)], Unreachable, start + secs);
        assert_eq!(concluded, concludes, "{secs}");
    }
    // Later ones do not end with it.
    let mut origin = proven();
    assert!(!fail(&mut origin, [row(0)], Unreachable, start));
    assert!(!fail(&mut origin, (1..7).map(row), Unreachable, start + 54));
    assert!(!fail(&mut origin, [row(7)], Unreachable, start + 60));
    assert!(fail(&mut origin, [row(8)], Unreachable, start + 60));
}

#[test]
fn an_acceptance_of_this_very_moment_contradicts() {
    let mut origin = proven();
    origin.accepted(&row(200), at(100));
    assert!(!fail(&mut origin, (0..20).map(row), SenderFault, 100));
    assert!(!fail(&mut origin, [row(20)], SenderFault, 103));
}

#[test]
fn rows_that_fail_after_a_clock_was_set_back_are_evidence() {
    let mut origin = Evidence::default();
    origin.begins(&row(200), at(86_400));
    origin.begins(&row(200), at(0));
    assert!(origin.is_witness(&failing(1, 1)));
}
