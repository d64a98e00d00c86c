//! The rules of pausing an origin, one by one.

use super::*;
use crate::subscription::EndpointKey;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn standing() -> Standing {
    Standing::new(Origin::parse("https://push.example.com").unwrap())
}

/// The response to a row that worked until now.
fn seen(n: u8, began: i64, outcome: Outcome) -> Observation {
    Observation {
        row: row(n),
        began: at(began),
        outcome,
        has_answered: true,
        broke_off: false,
        retry_after: None,
    }
}

fn row(n: u8) -> Row {
    Row {
        key: EndpointKey::from_bytes([n; 32]),
        is_proven: true,
        has_same_key: true,
        failing_since: None,
        is_test: false,
    }
}

/// A row that was never accepted.
fn stranger(n: u8) -> Row {
    Row {
        is_proven: false,
        has_same_key: false,
        ..row(n)
    }
}

/// Eight rows within two seconds, of which the last is answered at this moment.
fn eight(standing: &mut Standing, outcome: Outcome, secs: i64) {
    standing.admit(&row(0), at(secs - 3)).unwrap();
    for n in 0..7 {
        standing.observe(&seen(n, secs - 3, outcome), at(secs - 2));
    }
    standing.observe(&seen(7, secs - 1, outcome), at(secs));
}

fn closed(standing: &Standing, secs: i64) -> Option<(i64, PauseReason)> {
    let (until, reason) = standing.closed_at(at(secs))?;
    Some((until.as_millis() / 1000, reason))
}

const FAULT: PauseReason = PauseReason::SenderFault;
const UNREACHABLE: PauseReason = PauseReason::Unreachable;
const LIMIT: PauseReason = PauseReason::RateLimited;

#[test]
fn eight_sender_faults_close_the_gate_for_five_minutes_doubling_to_sixty() {
    let mut origin = standing();
    eight(&mut origin, Outcome::SenderFault, 0);
    let mut now = 300;
    assert_eq!(closed(&origin, 0), Some((300, FAULT)));
    for minutes in [10, 20, 40, 60, 60] {
        // One probe: the next one waits for what comes of it.
        origin.admit(&row(9), at(now)).unwrap();
        assert!(origin.admit(&row(9), at(now)).is_err());
        origin.observe(&seen(9, now, Outcome::SenderFault), at(now + 1));
        assert_eq!(
            closed(&origin, now + 1),
            Some((now + 1 + 60 * minutes, FAULT))
        );
        now += 1 + 60 * minutes;
    }
    origin.admit(&row(9), at(now)).unwrap();
    origin.observe(&seen(9, now, Outcome::Accepted), at(now + 1));
    assert_eq!(closed(&origin, now + 1), None);
    assert!(origin.admit(&row(9), at(now + 1)).is_ok());
    assert!(origin.admit(&row(9), at(now + 1)).is_ok());
}

#[test]
fn faults_that_were_under_way_when_it_closed_do_not_count_again() {
    let mut origin = standing();
    eight(&mut origin, Outcome::SenderFault, 10);
    for n in 10..110 {
        origin.observe(&seen(n, 9, Outcome::SenderFault), at(11));
    }
    assert_eq!(closed(&origin, 11), Some((310, FAULT)));
}

#[test]
fn what_began_in_the_moment_when_it_closed_was_under_way() {
    for (outcome, secs, reason) in [
        (Outcome::SenderFault, 300, FAULT),
        (Outcome::Transient, 30, UNREACHABLE),
        (Outcome::RateLimited, 5, LIMIT),
    ] {
        let mut origin = standing();
        eight(&mut origin, outcome, 10);
        for n in 10..110 {
            origin.observe(&seen(n, 10, outcome), at(10));
        }
        assert_eq!(closed(&origin, 10), Some((10 + secs, reason)));
    }
}

#[test]
fn a_probe_whose_answer_says_nothing_makes_room_for_the_next() {
    let mut origin = standing();
    eight(&mut origin, Outcome::SenderFault, 0);
    origin.admit(&row(9), at(300)).unwrap();
    origin.observe(&seen(1, 0, Outcome::Gone), at(300));
    assert!(
        origin.admit(&row(9), at(300)).is_err(),
        "that was not the probe"
    );
    origin.observe(&seen(9, 300, Outcome::KeyMismatch), at(301));
    origin.admit(&row(9), at(301)).unwrap();
    assert!(origin.admit(&row(9), at(301)).is_err(), "one at a time");
}

#[test]
fn a_limit_for_no_time_is_one_without_a_time() {
    let mut origin = standing();
    origin.admit(&row(0), at(0)).unwrap();
    for n in 0..8 {
        let mut limit = seen(n, 0, Outcome::RateLimited);
        limit.retry_after = Some(Duration::ZERO);
        origin.observe(&limit, at(i64::from(n)));
    }
    assert_eq!(closed(&origin, 7), Some((12, LIMIT)));
}

#[test]
fn a_probe_whose_answer_stays_out_is_repeated_after_a_minute() {
    let mut origin = standing();
    eight(&mut origin, Outcome::SenderFault, 0);
    origin.admit(&row(9), at(300)).unwrap();
    assert_eq!(closed(&origin, 359), Some((360, FAULT)));
    origin.admit(&row(9), at(360)).unwrap();
}

#[test]
fn an_origin_that_does_not_answer_is_closed_for_half_a_minute_doubling_to_ten() {
    let mut origin = standing();
    eight(&mut origin, Outcome::Transient, 0);
    assert_eq!(closed(&origin, 0), Some((30, UNREACHABLE)));
    origin.admit(&row(9), at(30)).unwrap();
    origin.observe(&seen(1, 30, Outcome::Transient), at(40));
    assert_eq!(closed(&origin, 40), Some((100, UNREACHABLE)));
    // Any answer but an error of its own shows that it is back.
    origin.admit(&row(9), at(100)).unwrap();
    origin.observe(&seen(1, 100, Outcome::Gone), at(101));
    assert_eq!(closed(&origin, 101), None);
}

#[test]
fn a_connection_that_breaks_with_many_requests_on_it_is_one_failure_where_there_were_answers() {
    let mut broken = seen(0, 10, Outcome::Transient);
    (broken.has_answered, broken.broke_off) = (false, true);
    let mut all_break = |origin: &mut Standing, began, secs| {
        for n in 0..100 {
            broken.row = row(n);
            broken.began = at(began);
            origin.observe(&broken, at(secs));
        }
    };
    let mut origin = standing();
    origin.observe(&seen(1, 0, Outcome::Accepted), at(1));
    all_break(&mut origin, 10, 10);
    all_break(&mut origin, 9, 11);
    assert_eq!(closed(&origin, 11), None);
    // Connections that break one after the other, and no answer between.
    let mut origin = standing();
    origin.observe(&seen(1, 0, Outcome::Accepted), at(1));
    for n in 1..8_u8 {
        let now = 4 * i64::from(n);
        broken.row = row(n);
        broken.began = at(now - 1);
        origin.observe(&broken, at(now));
        assert_eq!(closed(&origin, now), None);
    }
    broken.row = row(8);
    broken.began = at(32);
    origin.observe(&broken, at(33));
    assert_eq!(closed(&origin, 33), Some((63, UNREACHABLE)));
    // A probe that breaks off is as good as any.
    origin.admit(&row(9), at(63)).unwrap();
    broken.began = at(63);
    origin.observe(&broken, at(64));
    assert_eq!(closed(&origin, 64), Some((124, UNREACHABLE)));
}

#[test]
fn an_unreachable_origin_waits_as_long_as_it_asks() {
    let mut origin = standing();
    origin.admit(&row(0), at(0)).unwrap();
    for n in 0..8 {
        let mut seen = seen(n, 0, Outcome::Transient);
        seen.retry_after = Some(Duration::from_secs(120));
        origin.observe(&seen, at(i64::from(n)));
    }
    assert_eq!(closed(&origin, 7), Some((127, UNREACHABLE)));
}

#[test]
fn an_origin_answers_until_it_is_unreachable() {
    let mut origin = standing();
    assert!(!origin.answers());
    let mut silence = seen(1, 0, Outcome::Transient);
    silence.has_answered = false;
    origin.admit(&row(1), at(0)).unwrap();
    origin.observe(&silence, at(0));
    assert!(!origin.answers());
    origin.observe(&seen(1, 0, Outcome::RateLimited), at(0));
    assert!(origin.answers());
    for n in 0..8 {
        silence.row = row(n);
        origin.observe(&silence, at(i64::from(n)));
    }
    assert!(!origin.answers());
}

#[test]
fn one_limited_row_pauses_nothing_however_long_it_is_asked_to_wait() {
    let mut origin = standing();
    origin.admit(&row(1), at(0)).unwrap();
    for secs in 0..100 {
        let mut limit = seen(1, secs, Outcome::RateLimited);
        limit.retry_after = Some(Duration::from_secs(3600));
        origin.observe(&limit, at(secs));
        assert_eq!(closed(&origin, secs), None);
    }
}

#[test]
fn limits_without_a_time_double_from_five_seconds_until_something_is_accepted() {
    let mut origin = standing();
    let mut now = 0;
    for wait in [5, 10, 20] {
        eight(&mut origin, Outcome::RateLimited, now);
        assert_eq!(closed(&origin, now), Some((now + wait, LIMIT)));
        // What was under way when it closed does not make it longer.
        for n in 10..60 {
            origin.observe(&seen(n, now - 1, Outcome::RateLimited), at(now + 1));
        }
        assert_eq!(closed(&origin, now), Some((now + wait, LIMIT)));
        // Then all go on, without a probe.
        now += wait + 3;
        assert!(origin.admit(&row(9), at(now)).is_ok());
        assert!(origin.admit(&row(9), at(now)).is_ok());
    }
    origin.observe(&seen(1, now, Outcome::Accepted), at(now));
    eight(&mut origin, Outcome::RateLimited, now + 60);
    assert_eq!(closed(&origin, now + 60), Some((now + 65, LIMIT)));
}

#[test]
fn limits_pause_the_origin_as_long_as_all_the_rows_have_to_wait() {
    let mut origin = standing();
    origin.admit(&row(1), at(0)).unwrap();
    for n in 0..8 {
        let mut limit = seen(n, i64::from(n), Outcome::RateLimited);
        limit.retry_after = Some(Duration::from_secs(900 + u64::from(n)));
        assert_eq!(closed(&origin, i64::from(n)), None);
        origin.observe(&limit, at(i64::from(n)));
    }
    assert_eq!(closed(&origin, 7), Some((907, LIMIT)));
}

#[test]
fn an_acceptance_that_comes_after_a_conclusion_contradicts_it() {
    for (outcome, reason) in [
        (Outcome::SenderFault, FAULT),
        (Outcome::Transient, UNREACHABLE),
        (Outcome::RateLimited, LIMIT),
    ] {
        let mut origin = standing();
        eight(&mut origin, outcome, 10);
        assert_eq!(closed(&origin, 10).unwrap().1, reason);
        origin.take_unshared();
        // It was under way: slow, but accepted.
        origin.observe(&seen(9, 9, Outcome::Accepted), at(11));
        assert_eq!(closed(&origin, 11), None, "{reason:?}");
        assert_eq!(origin.take_unshared().len(), 1, "all replicas hear of it");
    }
    // A limit that the application set stays.
    let mut origin = standing();
    let pause = Pause::new(origin.origin.clone(), at(60), LIMIT);
    origin.pause(&pause, at(0));
    origin.observe(&seen(9, 0, Outcome::Accepted), at(1));
    assert_eq!(closed(&origin, 1), Some((60, LIMIT)));
}

#[test]
fn only_a_row_that_is_evidence_is_the_probe_in_the_first_minute() {
    let mut origin = standing();
    origin.observe(&seen(1, -600, Outcome::Accepted), at(-600));
    eight(&mut origin, Outcome::SenderFault, 0);
    // Rows that were always refused wait, and keep no other row away.
    let failing = Row {
        failing_since: Some(at(-590)),
        ..row(20)
    };
    for other in [stranger(21), failing] {
        let refused = origin.admit(&other, at(310)).unwrap_err();
        assert_eq!(refused, (at(360), FAULT));
    }
    origin.admit(&row(9), at(311)).unwrap();
    // Requests that began before the pause, or are of another row, are not the probe.
    for (other, began) in [(row(9), at(-1)), (row(8), at(311))] {
        origin.withdraw(&other, began);
        assert!(origin.admit(&row(9), at(311)).is_err());
    }
    origin.withdraw(&row(9), at(311));
    // If no other row comes, they may ask; being refused once more says nothing.
    origin.admit(&failing, at(360)).unwrap();
    let mut refused = seen(20, 360, Outcome::SenderFault);
    refused.row = failing;
    origin.observe(&refused, at(361));
    assert_eq!(closed(&origin, 361), None, "the pause is not longer");
    assert!(
        origin.admit(&stranger(21), at(362)).is_err(),
        "one a minute"
    );
    origin.admit(&row(9), at(363)).unwrap();
    origin.observe(&seen(9, 363, Outcome::Accepted), at(364));
    assert!(origin.admit(&stranger(21), at(364)).is_ok());
}

/// Claims and settlements of probes move the end that is stored.
#[test]
fn any_row_is_the_probe_a_minute_after_the_pause_whatever_probes_there_were() {
    let proven = || {
        let mut origin = standing();
        origin.observe(&seen(1, -600, Outcome::Accepted), at(-600));
        origin
    };
    let mut origin = proven();
    let pause = |until| Pause::new(standing().origin, at(until), UNREACHABLE);
    origin.load(Some(pause(300)), at(10));
    let refused = origin.admit(&stranger(21), at(300)).unwrap_err();
    assert_eq!(refused, (at(360), UNREACHABLE));
    for (until, now) in [(345, 301), (302, 306), (322, 325)] {
        origin.load(Some(pause(until)), at(now));
    }
    let refused = origin.admit(&stranger(22), at(325)).unwrap_err();
    assert_eq!(refused, (at(360), UNREACHABLE));
    origin.load(Some(pause(342)), at(345));
    origin.admit(&stranger(21), at(360)).unwrap();
    // Once a minute, and not beside a probe under lease.
    origin.load(Some(pause(361)), at(365));
    let refused = origin.admit(&stranger(22), at(365)).unwrap_err();
    assert_eq!(refused, (at(420), UNREACHABLE));
    origin.load(Some(pause(430)), at(410));
    assert_eq!(closed(&origin, 429), Some((430, UNREACHABLE)));
    origin.admit(&stranger(22), at(430)).unwrap();
    // After a further pause rows that are evidence come first again.
    let mut further = pause(900);
    further.closures = 2;
    origin.load(Some(further), at(435));
    assert_eq!(closed(&origin, 899), Some((900, UNREACHABLE)));
    let refused = origin.admit(&stranger(21), at(900)).unwrap_err();
    assert_eq!(refused, (at(960), UNREACHABLE));
    // So it is after one that begins when this one has ended.
    origin.load(None, at(905));
    origin.load(Some(pause(1300)), at(1000));
    let refused = origin.admit(&stranger(21), at(1300)).unwrap_err();
    assert_eq!(refused, (at(1360), UNREACHABLE));

    // A process that starts meanwhile does not know the end of the pause.
    let mut late = proven();
    for (until, now) in [(345, 301), (348, 306), (311, 312), (331, 370)] {
        late.load(Some(pause(until)), at(now));
    }
    assert!(late.admit(&stranger(21), at(370)).is_err());
    late.load(Some(pause(370)), at(371));
    late.admit(&stranger(21), at(371)).unwrap();
}

#[test]
fn an_origin_that_has_never_accepted_anything_is_paused_for_short_times() {
    for outcome in [Outcome::SenderFault, Outcome::Transient] {
        let mut origin = standing();
        let observe = |origin: &mut Standing, n: u8, began, secs| {
            let mut seen = seen(n, began, outcome);
            seen.row = stranger(n);
            seen.retry_after = Some(Duration::from_secs(3600));
            origin.observe(&seen, at(secs));
        };
        origin.admit(&stranger(0), at(0)).unwrap();
        for n in 0..8 {
            observe(&mut origin, n, 0, i64::from(n));
        }
        let mut now = 7;
        for wait in [30, 60, 120, 240, 300, 300] {
            let (until, _) = closed(&origin, now).unwrap();
            assert_eq!(until, now + wait);
            origin.admit(&stranger(9), at(until)).unwrap();
            now = until + 1;
            observe(&mut origin, 9, until, now);
        }
    }
}

#[test]
fn a_fault_outlives_a_limit_on_top_of_it() {
    let mut origin = standing();
    eight(&mut origin, Outcome::SenderFault, 0);
    let mut limit = seen(1, 0, Outcome::RateLimited);
    limit.retry_after = Some(Duration::from_secs(600));
    origin.observe(&limit, at(1));
    assert_eq!(closed(&origin, 299), Some((300, FAULT)));
    let limit = Pause::new(origin.origin.clone(), at(601), LIMIT);
    origin.pause(&limit, at(1));
    assert_eq!(closed(&origin, 599), Some((601, FAULT)));
    origin.admit(&row(9), at(601)).unwrap();
    assert!(origin.admit(&row(9), at(601)).is_err());
}

#[test]
fn each_conclusion_is_news_once_and_others_may_lift_what_is_shared() {
    let mut origin = standing();
    assert_eq!(origin.take_unshared(), []);
    eight(&mut origin, Outcome::SenderFault, 0);
    let pause = origin.take_unshared().pop().unwrap();
    assert_eq!(
        (pause.until, pause.reason, pause.closures),
        (at(300), FAULT, 1)
    );
    assert_eq!(origin.take_unshared(), []);
    // Not shared yet: what the others know does not matter.
    origin.load(None, at(1));
    assert_eq!(closed(&origin, 1), Some((300, FAULT)));
    origin.shared(at(1));
    assert_eq!(closed(&origin, 1), Some((300, FAULT)));
    origin.load(None, at(2));
    assert_eq!(closed(&origin, 2), None);
}

#[test]
fn an_acceptance_lifts_what_another_replica_closed_too() {
    let mut origin = standing();
    let mut shared = Pause::new(origin.origin.clone(), at(300), FAULT);
    shared.closures = 3;
    origin.load(Some(shared), at(10));
    origin.observe(&seen(1, 9, Outcome::SenderFault), at(11));
    assert_eq!(origin.take_unshared(), [], "it was under way");
    origin.admit(&row(9), at(300)).unwrap();
    origin.observe(&seen(1, 300, Outcome::Accepted), at(301));
    let lifted = origin.take_unshared();
    assert!(lifted.len() == 1 && lifted[0].until <= at(301));
    assert_eq!(closed(&origin, 301), None);
}

#[test]
fn a_limit_shows_that_an_origin_is_back() {
    let mut origin = standing();
    eight(&mut origin, Outcome::Transient, 0);
    origin.take_unshared();
    origin.observe(&seen(1, 30, Outcome::RateLimited), at(31));
    let unshared = origin.take_unshared();
    assert!(unshared.len() == 1 && unshared[0].until <= at(31));
    assert_eq!(closed(&origin, 31), None);
}

#[test]
fn pauses_double_up_to_their_longest() {
    let waits = |reason, is_proven| -> Vec<u64> {
        let wait = |number| rung(ladder(reason, is_proven), number).as_secs();
        (1..=9).chain([u32::MAX]).map(wait).collect()
    };
    let limits: [u64; 10] = [5, 10, 20, 40, 80, 160, 320, 600, 600, 600];
    assert_eq!(waits(LIMIT, true), limits);
    assert_eq!(waits(LIMIT, false), limits);
    let silences: [u64; 10] = [30, 60, 120, 240, 480, 600, 600, 600, 600, 600];
    assert_eq!(waits(UNREACHABLE, true), silences);
    let faults: [u64; 10] = [300, 600, 1200, 2400, 3600, 3600, 3600, 3600, 3600, 3600];
    assert_eq!(waits(FAULT, true), faults);
    let strangers: [u64; 10] = [30, 60, 120, 240, 300, 300, 300, 300, 300, 300];
    assert_eq!(waits(UNREACHABLE, false), strangers);
    assert_eq!(waits(FAULT, false), strangers);
}

#[test]
fn connections_that_break_one_after_the_other_are_one_failure_per_time_on_the_way() {
    let broken = |n: u8, began| {
        let mut broken = seen(n, began, Outcome::Transient);
        (broken.has_answered, broken.broke_off) = (false, true);
        broken
    };
    let mut origin = standing();
    origin.observe(&seen(1, 0, Outcome::Accepted), at(1));
    for n in 0..100 {
        origin.observe(&broken(n, 10), at(20));
    }
    // What began by the time of the last break was on a connection that broke then.
    for n in 0..10 {
        let secs = 20 + i64::from(n);
        origin.observe(&broken(100 + n, secs - 1), at(secs));
    }
    for n in 0..10 {
        origin.observe(&broken(110 + n, 20), at(30));
    }
    assert_eq!(closed(&origin, 30), None);
    // Where nothing was ever answered, every row that fails is evidence.
    let mut origin = standing();
    for n in 0..8 {
        origin.observe(&broken(n, 10), at(20));
    }
    assert_eq!(closed(&origin, 20), Some((50, UNREACHABLE)));
}

#[test]
fn an_origin_that_may_be_overloaded_is_trusted_again_after_two_seconds() {
    let mut origin = standing();
    assert!(!origin.is_trusted(at(0)));
    origin.observe(&seen(1, 0, Outcome::Accepted), at(0));
    assert!(origin.is_trusted(at(0)));
    for n in 0..8 {
        origin.observe(&seen(n, 10, Outcome::Transient), at(11));
    }
    assert_eq!(closed(&origin, 11), None);
    assert!(!origin.is_trusted(at(11)) && !origin.is_trusted(at(12)));
    assert!(origin.is_trusted(at(13)));
}

#[test]
fn what_strangers_caused_does_not_count_once_the_origin_is_proven() {
    let mut origin = standing();
    let fault = |n: u8, secs| {
        let mut fault = seen(n, secs, Outcome::SenderFault);
        fault.row = stranger(n);
        fault
    };
    for n in 0..7 {
        origin.observe(&fault(n, 0), at(0));
    }
    origin.prove();
    origin.observe(&fault(7, 3), at(4));
    for n in 10..17 {
        origin.observe(&seen(n, 3, Outcome::SenderFault), at(4));
    }
    assert_eq!(closed(&origin, 4), None);
}

#[test]
fn the_end_of_a_pause_is_shared_before_the_next_one_and_only_the_latest_pause() {
    let mut origin = standing();
    let pause = |until, reason| Pause::new(standing().origin, at(until), reason);
    origin.pause(&pause(30, UNREACHABLE), at(0));
    origin.pause(&pause(60, UNREACHABLE), at(0));
    assert_eq!(origin.take_unshared(), [pause(60, UNREACHABLE)]);
    // An answer ends it; two further pauses follow before that is written.
    origin.observe(&seen(1, 60, Outcome::Gone), at(61));
    origin.pause(&pause(90, LIMIT), at(61));
    origin.pause(&pause(120, LIMIT), at(61));
    let both = [pause(61, UNREACHABLE), pause(120, LIMIT)];
    assert_eq!(origin.take_unshared(), both);
    // Once it is taken, no pause is the end of another one.
    origin.pause(&pause(150, LIMIT), at(121));
    origin.pause(&pause(180, LIMIT), at(121));
    assert_eq!(origin.take_unshared(), [pause(180, LIMIT)]);
    // What could not be written comes first, and an end stays one.
    origin.pause(&pause(210, LIMIT), at(181));
    origin.keep_unshared(pause(61, UNREACHABLE), true);
    let both = [pause(61, UNREACHABLE), pause(210, LIMIT)];
    assert_eq!(origin.unshared, both);
    origin.pause(&pause(240, LIMIT), at(181));
    let both = [pause(61, UNREACHABLE), pause(240, LIMIT)];
    assert_eq!(origin.take_unshared(), both);
    origin.keep_unshared(pause(240, LIMIT), false);
    origin.pause(&pause(270, LIMIT), at(181));
    assert_eq!(origin.take_unshared(), [pause(270, LIMIT)]);
}

#[test]
fn what_is_not_written_yet_is_not_taken_for_shared() {
    let mut origin = standing();
    eight(&mut origin, Outcome::SenderFault, 0);
    origin.shared(at(0));
    origin.load(None, at(1));
    assert_eq!(closed(&origin, 1), Some((300, FAULT)));
}

#[test]
fn the_end_of_a_limit_that_is_over_is_not_shared() {
    let mut origin = standing();
    eight(&mut origin, Outcome::RateLimited, 0);
    origin.take_unshared();
    origin.observe(&seen(9, 5, Outcome::Accepted), at(5));
    assert_eq!(origin.take_unshared(), []);
}

#[test]
fn an_operator_who_opens_it_makes_everything_begin_anew() {
    let mut origin = standing();
    origin.observe(&seen(1, -600, Outcome::Accepted), at(-600));
    eight(&mut origin, Outcome::RateLimited, 0);
    eight(&mut origin, Outcome::RateLimited, 20);
    assert_eq!(closed(&origin, 20), Some((30, LIMIT)));
    let mut fault = Pause::new(origin.origin.clone(), at(300), FAULT);
    origin.pause(&fault, at(21));
    for n in 0..7 {
        origin.observe(&seen(n, 30, Outcome::RateLimited), at(31));
    }
    origin.resume();
    assert_eq!(closed(&origin, 31), None);
    assert_eq!(origin.take_unshared(), [], "none is shared later");
    origin.observe(&seen(8, 33, Outcome::RateLimited), at(34));
    assert_eq!(closed(&origin, 34), None, "seven rows are forgotten");
    eight(&mut origin, Outcome::RateLimited, 100);
    assert_eq!(closed(&origin, 100), Some((105, LIMIT)));
    // Nor is the end of the pause that was ended that of the next one.
    fault.until = at(1000);
    origin.load(Some(fault), at(200));
    let refused = origin.admit(&stranger(21), at(1000)).unwrap_err();
    assert_eq!(refused, (at(1060), FAULT));
}

#[test]
fn the_end_that_its_own_process_decided_is_that_of_the_first_minute() {
    let mut origin = standing();
    origin.observe(&seen(1, -600, Outcome::Accepted), at(-600));
    eight(&mut origin, Outcome::Transient, 0);
    let mut pause = origin.take_unshared().remove(0);
    origin.shared(at(0));
    // The lease of a probe of another process.
    pause.until = at(90);
    origin.load(Some(pause.clone()), at(40));
    assert!(origin.admit(&stranger(21), at(90)).is_ok());
    // After an answer the next pause has an end of its own.
    origin.withdraw(&stranger(21), at(90));
    origin.observe(&seen(1, 90, Outcome::Gone), at(91));
    pause.until = at(600);
    origin.load(Some(pause), at(95));
    let refused = origin.admit(&stranger(21), at(600)).unwrap_err();
    assert_eq!(refused, (at(660), UNREACHABLE));
}

#[test]
fn a_limit_beside_a_pause_that_is_probed_moves_its_minute() {
    let mut origin = standing();
    origin.observe(&seen(1, -600, Outcome::Accepted), at(-600));
    let pause = |until, reason| Pause::new(standing().origin, at(until), reason);
    origin.load(Some(pause(30, UNREACHABLE)), at(0));
    origin.pause(&pause(100, LIMIT), at(0));
    let refused = origin.admit(&stranger(21), at(120)).unwrap_err();
    assert_eq!(refused, (at(160), LIMIT));
}

#[test]
fn a_pause_of_others_begins_when_it_is_read_first() {
    let pause = Pause::new(standing().origin, at(20), FAULT);
    // A request of the moment before shows nothing, and one of this moment may be the probe.
    for (before, until) in [(1, 80), (0, 620)] {
        let mut origin = standing();
        origin.load(Some(pause.clone()), at(20));
        origin.admit(&row(9), at(20)).unwrap();
        let mut probe = seen(9, 20, Outcome::SenderFault);
        probe.began = at(20) - Duration::from_millis(before);
        origin.observe(&probe, at(20));
        assert_eq!(closed(&origin, 20), Some((until, FAULT)), "{before}");
    }
    // Reading it again changes nothing, and nor does reading that there is none.
    let mut origin = standing();
    origin.load(Some(pause.clone()), at(20));
    origin.admit(&row(9), at(21)).unwrap();
    origin.load(Some(pause), at(25));
    origin.observe(&seen(9, 21, Outcome::SenderFault), at(26));
    assert_eq!(closed(&origin, 26), Some((626, FAULT)));
    let mut origin = standing();
    origin.load(None, at(5));
    eight(&mut origin, Outcome::SenderFault, 5);
    assert_eq!(closed(&origin, 5), Some((305, FAULT)));
}

#[test]
fn a_probe_that_is_asked_to_wait_waits() {
    let mut origin = standing();
    eight(&mut origin, Outcome::Transient, 0);
    origin.admit(&row(9), at(30)).unwrap();
    let mut busy = seen(9, 30, Outcome::Transient);
    busy.retry_after = Some(Duration::from_secs(120));
    origin.observe(&busy, at(31));
    assert_eq!(closed(&origin, 31), Some((151, UNREACHABLE)));
}

#[test]
fn strangers_cannot_ask_for_a_long_limit() {
    let mut origin = standing();
    for n in 0..8 {
        let mut limit = seen(n, 0, Outcome::RateLimited);
        limit.row = stranger(n);
        limit.retry_after = Some(Duration::from_secs(3600));
        origin.observe(&limit, at(i64::from(n)));
    }
    assert_eq!(closed(&origin, 7), Some((12, LIMIT)));
}

#[test]
fn a_limit_meanwhile_does_not_excuse_the_probe() {
    let mut origin = standing();
    eight(&mut origin, Outcome::SenderFault, 0);
    origin.admit(&row(9), at(300)).unwrap();
    for n in 10..18 {
        origin.observe(&seen(n, 290, Outcome::RateLimited), at(301));
    }
    assert_eq!(closed(&origin, 301).unwrap().1, FAULT);
    origin.observe(&seen(9, 300, Outcome::SenderFault), at(302));
    assert_eq!(closed(&origin, 302), Some((902, FAULT)));
}

#[test]
fn the_next_pause_counts_on_from_that_of_all_processes() {
    let mut origin = standing();
    eight(&mut origin, Outcome::SenderFault, 0);
    let mut shared = Pause::new(origin.origin.clone(), at(300), FAULT);
    shared.closures = 3;
    origin.load(Some(shared), at(10));
    origin.admit(&row(9), at(300)).unwrap();
    origin.observe(&seen(9, 300, Outcome::SenderFault), at(301));
    assert_eq!(closed(&origin, 301), Some((301 + 2400, FAULT)));
}

#[test]
fn after_an_answer_nothing_is_left_of_what_all_processes_shared() {
    let mut origin = standing();
    let shared = Pause::new(origin.origin.clone(), at(300), FAULT);
    origin.load(Some(shared), at(10));
    origin.admit(&row(9), at(300)).unwrap();
    origin.observe(&seen(9, 300, Outcome::Accepted), at(301));
    for n in [10, 11] {
        assert!(origin.admit(&row(n), at(301)).is_ok(), "there is no probe");
    }
}
