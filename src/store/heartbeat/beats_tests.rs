//! Judging other workers.

use super::*;

const BEAT: i64 = 250;

fn after(start: Moment, monotonic: i64, wall: i64) -> Moment {
    let millis = |millis: i64| Duration::from_millis(millis.unsigned_abs());
    let wall = match wall < 0 {
        true => start.wall - millis(wall),
        false => start.wall + millis(wall),
    };
    Moment {
        monotonic: start.monotonic + millis(monotonic),
        wall,
    }
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + millis)
}

/// The own beats, at these times of this machine and of the server.
fn beats(times: impl IntoIterator<Item = (i64, i64)>) -> Beats {
    let start = Moment::now();
    let mut beats = Beats::default();
    for (own, server) in times {
        beats.push(Beat {
            sent: after(start, own, own),
            at: at(server),
        });
    }
    beats
}

/// One each quarter of a second.
fn regular(from: i64, to: i64) -> impl Iterator<Item = (i64, i64)> {
    (from / BEAT..=to / BEAT).map(|number| (number * BEAT, number * BEAT))
}

fn other(beat_at: i64) -> Other {
    Other {
        id: 7,
        beat_at: at(beat_at),
        is_dead: false,
    }
}

#[test]
fn a_worker_that_was_silent_for_longer_than_the_grace_is_dead() {
    let own = beats(regular(0, 5_000));
    assert_eq!(own.horizon(), Some(at(2_000)));
    for (last, expected) in [
        (1_999, true),
        (2_000, false),
        (4_900, false),
        (9_000, false),
    ] {
        assert_eq!(own.dead_of(&[other(last)]).is_empty(), !expected, "{last}");
    }
}

#[test]
fn one_late_beat_of_a_live_worker_is_not_its_death() {
    let own = beats(regular(0, 5_000));
    let late = other(5_000 - 2_900);
    assert_eq!(own.dead_of(&[late]), [0; 0]);
}

#[test]
fn nobody_is_judged_before_the_own_beats_came_through_for_the_grace() {
    assert_eq!(Beats::default().horizon(), None);
    assert_eq!(beats(regular(0, 2_750)).horizon(), None);
    assert_eq!(beats(regular(0, 3_000)).horizon(), Some(at(0)));
}

/// The server was restarted, or stood still, or this process was stopped: all beats have a gap.
#[test]
fn nobody_is_judged_until_the_grace_has_passed_after_a_gap() {
    let silent = other(0);
    for gap in [1_250, 10_000] {
        let resumed = 10_000 + gap;
        for (now, trusts) in [(0, false), (1_500, false), (2_750, false), (3_000, true)] {
            let after = regular(resumed, resumed + now);
            let own = beats(regular(0, 10_000).chain(after));
            assert_eq!(own.horizon().is_some(), trusts, "{gap} {now}");
            assert_eq!(own.dead_of(&[silent]).is_empty(), !trusts);
        }
    }
    // Beats that are a little late are no gap.
    let own = beats((0..8).map(|number| (number * 1_000, number * 1_000)));
    assert_eq!(own.horizon(), Some(at(4_000)));
}

/// A gap by one clock is a gap: the server slept, its clock was set, or this machine's monotonic clock stood still.
#[test]
fn a_gap_by_any_clock_counts() {
    let jumps = |own: i64, server: i64| {
        let before = regular(0, 5_000);
        let after = regular(5_250, 7_000).map(move |(one, other)| (one + own, other + server));
        beats(before.chain(after)).horizon()
    };
    assert_eq!(jumps(0, 0), Some(at(4_000)));
    assert_eq!(jumps(0, 5_000), None);
    assert_eq!(jumps(0, -5_000), None);
    assert_eq!(jumps(5_000, 0), None);
}

/// What is judged is the time before the last own beat: if the server stands still from then on, nobody has died.
#[test]
fn time_that_has_passed_since_the_last_own_beat_is_nobodys_silence() {
    let own = beats(regular(0, 5_000));
    // It was alive at the last look, whenever this is asked.
    let alive = other(4_900);
    assert_eq!(own.dead_of(&[alive]), [0; 0]);
    assert_eq!(own.horizon(), Some(at(2_000)));
}

#[test]
fn a_worker_that_is_marked_is_dead_whoever_judges() {
    let marked = Other {
        is_dead: true,
        ..other(9_000)
    };
    assert_eq!(Beats::default().dead_of(&[marked, other(0)]), [7]);
}

#[test]
fn only_the_last_beats_are_kept() {
    let own = beats(regular(0, 1_000_000));
    assert_eq!(own.0.len(), KEPT);
    assert_eq!(own.horizon(), Some(at(997_000)));
}

#[test]
fn the_time_between_two_moments_is_the_longer_one_of_both_clocks() {
    let start = Moment::now();
    for (monotonic, wall, expected) in [
        (500, 500, 500),
        // The machine slept.
        (500, 60_000, 60_000),
        // The wall clock was set back.
        (500, -60_000, 500),
    ] {
        let since = after(start, monotonic, wall).since(start);
        assert_eq!(since, Duration::from_millis(expected));
    }
}
