//! The pace alone.

use super::*;

const RTT: Duration = Duration::from_millis(50);

/// A second of acceptances at this rate, as far as the pace lets them begin. Returns how many began.
fn second(pace: &mut Pace, now: &mut Instant, per_second: u32) -> u32 {
    let step = Duration::from_secs(1) / per_second;
    let mut began = 0;
    for _ in 0..per_second {
        *now += step;
        if pace.take(*now).is_ok() {
            began += 1;
            pace.accepted(*now - RTT, *now);
        }
    }
    began
}

#[test]
fn there_is_none_before_a_refusal_and_none_long_after() {
    let (mut pace, mut now) = (Pace::default(), Instant::now());
    assert_eq!(second(&mut pace, &mut now, 1000), 1000);
    assert_eq!(pace.per_second(), None);
    pace.refused(now, now);
    assert!(pace.per_second().is_some());
    now += Pace::KEPT;
    second(&mut pace, &mut now, 1);
    assert_eq!(pace.per_second(), None);
}

#[test]
fn a_refusal_sets_it_below_what_was_accepted_and_it_comes_back() {
    let (mut pace, mut now) = (Pace::default(), Instant::now());
    for _ in 0..3 {
        second(&mut pace, &mut now, 1000);
    }
    pace.refused(now, now);
    let target = pace.target().unwrap();
    assert!((960.0..=975.0).contains(&target), "{target}");
    assert!(pace.per_second().unwrap() < 500.0);
    // Those of the same burst change nothing.
    pace.refused(now - RTT, now + RTT);
    assert_eq!(pace.target(), Some(target));
    let began = second(&mut pace, &mut now, 2000);
    assert!((800..1000).contains(&began), "{began}");
}

#[test]
fn it_becomes_slower_and_slower_while_nothing_is_accepted() {
    let (mut pace, mut now) = (Pace::default(), Instant::now());
    second(&mut pace, &mut now, 1000);
    for _ in 0..8 {
        now += RTT;
        pace.refused(now, now);
    }
    assert_eq!(pace.per_second(), Some(Pace::SLOWEST));
    // The first acceptances bring it back, since the target is known.
    let began = second(&mut pace, &mut now, 2000);
    assert!(began < 900, "{began}");
    let began = second(&mut pace, &mut now, 2000);
    assert!(began > 600, "{began}");
}

#[test]
fn it_does_not_grow_while_it_holds_nothing_back() {
    let (mut pace, mut now) = (Pace::default(), Instant::now());
    for _ in 0..3 {
        second(&mut pace, &mut now, 1000);
    }
    pace.refused(now, now);
    for _ in 0..2 {
        second(&mut pace, &mut now, 2000);
    }
    let before = pace.target().unwrap();
    for _ in 0..20 {
        second(&mut pace, &mut now, 100);
    }
    let after = pace.target().unwrap();
    assert!(after < before * 1.02, "{before} {after}");
    for _ in 0..20 {
        second(&mut pace, &mut now, 4000);
    }
    assert!(pace.target().unwrap() > after * 1.2);
}

#[test]
fn a_quota_of_a_minute_is_seen_behind_a_faster_start() {
    let (mut pace, mut now) = (Pace::default(), Instant::now());
    for _ in 0..30 {
        second(&mut pace, &mut now, 2000);
    }
    now += Duration::from_secs(30);
    // The next minute is used up as well, and its second half passes without an acceptance.
    for _ in 0..30 {
        second(&mut pace, &mut now, 2000);
    }
    pace.refused(now, now);
    let target = pace.target().unwrap();
    assert!((900.0..1100.0).contains(&target), "{target}");
}

#[test]
fn a_quota_that_was_used_up_early_is_spread_over_its_time() {
    let (mut pace, mut now) = (Pace::default(), Instant::now());
    for _ in 0..5 {
        second(&mut pace, &mut now, 12_000);
    }
    pace.refused(now, now);
    let end = now + Duration::from_secs(55);
    while now < end {
        now += Duration::from_secs(1);
        pace.refused(now, now);
    }
    assert!(
        pace.target().unwrap() > 10_000.0,
        "so many were accepted in a second"
    );
    now += RTT * 2;
    pace.accepted(now - RTT, now);
    let target = pace.target().unwrap();
    assert!((900.0..1000.0).contains(&target), "{target}");
}

#[test]
fn what_is_remembered_has_a_bound_however_much_is_accepted() {
    let (mut accepted, start) = (Accepted::default(), Instant::now());
    for milli in 0..100_000 {
        accepted.count(start + Duration::from_millis(milli));
    }
    assert!(accepted.buckets.len() <= 520, "{}", accepted.buckets.len());
}

#[test]
fn the_rate_is_that_of_the_last_second() {
    let (mut accepted, start) = (Accepted::default(), Instant::now());
    let at = |milli| start + Duration::from_millis(milli);
    for number in 0..400 {
        accepted.count(at(number * 10));
    }
    // Nothing for half of a second, as between two batches.
    let (rate, is_guess) = accepted.per_second(at(4_500));
    assert!(!is_guess && (45.0..65.0).contains(&rate), "{rate}");
}
