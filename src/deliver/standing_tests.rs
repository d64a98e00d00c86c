//! The rules of pausing an origin, one by one.

use super::*;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn standing() -> Standing {
    Standing::new(Origin::parse("https://push.example.com").unwrap())
}

fn seen(n: u8, began: i64, outcome: Outcome) -> Observation {
    Observation {
        key: EndpointKey::from_bytes([n; 32]),
        began: at(began),
        outcome,
        has_answered: true,
        broke_off: false,
        retry_after: None,
        scope: PauseScope::Origin,
    }
}

/// Eight rows, all begun and answered at one moment.
fn eight(standing: &mut Standing, outcome: Outcome, secs: i64) {
    for n in 0..8 {
        standing.observe(&seen(n, secs, outcome), at(secs));
    }
}

fn closed(standing: &Standing, secs: i64) -> Option<(i64, PauseReason)> {
    let (until, reason) = standing.closed_at(at(secs))?;
    Some((until.as_millis() / 1000, reason))
}

const FAULT: PauseReason = PauseReason::SenderFault;
const UNREACHABLE: PauseReason = PauseReason::Unreachable;
const LIMIT: PauseReason = PauseReason::RateLimited;

#[test]
fn eight_sender_faults_in_a_row_close_the_gate_for_five_minutes_doubling_to_sixty() {
    let mut origin = standing();
    for n in 0..7 {
        origin.observe(&seen(n, 0, Outcome::SenderFault), at(0));
    }
    assert_eq!(closed(&origin, 0), None);
    origin.observe(&seen(7, 0, Outcome::SenderFault), at(0));
    let mut now = 300;
    assert_eq!(closed(&origin, 0), Some((300, FAULT)));
    for minutes in [10, 20, 40, 60, 60] {
        // One probe: the next one waits for what comes of it.
        origin.admit(at(now)).unwrap();
        assert!(origin.admit(at(now)).is_err());
        origin.observe(&seen(9, now, Outcome::SenderFault), at(now + 1));
        assert_eq!(
            closed(&origin, now + 1),
            Some((now + 1 + 60 * minutes, FAULT))
        );
        now += 1 + 60 * minutes;
    }
    origin.admit(at(now)).unwrap();
    origin.observe(&seen(9, now, Outcome::Accepted), at(now + 1));
    assert_eq!(closed(&origin, now + 1), None);
    assert!(origin.admit(at(now + 1)).is_ok());
    assert!(origin.admit(at(now + 1)).is_ok());
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
    origin.admit(at(300)).unwrap();
    origin.observe(&seen(1, 0, Outcome::Gone), at(300));
    assert!(origin.admit(at(300)).is_err(), "that was not the probe");
    origin.observe(&seen(9, 300, Outcome::KeyMismatch), at(301));
    origin.admit(at(301)).unwrap();
    assert!(origin.admit(at(301)).is_err(), "one at a time");
}

#[test]
fn a_limit_for_no_time_is_one_without_a_time() {
    let mut origin = standing();
    eight(&mut origin, Outcome::SenderFault, 0);
    let mut limit = seen(1, 0, Outcome::RateLimited);
    limit.retry_after = Some(Duration::ZERO);
    origin.observe(&limit, at(1));
    assert_eq!(closed(&origin, 1), Some((300, FAULT)), "it lifts nothing");
    assert_eq!(origin.take_unshared().len(), 1);
    let mut origin = standing();
    origin.observe(&limit, at(1));
    assert_eq!(closed(&origin, 1), Some((6, LIMIT)));
}

#[test]
fn a_probe_whose_answer_stays_out_is_repeated_after_a_minute() {
    let mut origin = standing();
    eight(&mut origin, Outcome::SenderFault, 0);
    origin.admit(at(300)).unwrap();
    assert_eq!(closed(&origin, 359), Some((360, FAULT)));
    origin.admit(at(360)).unwrap();
}

#[test]
fn an_origin_that_does_not_answer_is_closed_for_half_a_minute_doubling_to_ten() {
    let mut origin = standing();
    eight(&mut origin, Outcome::Transient, 0);
    assert_eq!(closed(&origin, 0), Some((30, UNREACHABLE)));
    origin.admit(at(30)).unwrap();
    origin.observe(&seen(1, 30, Outcome::Transient), at(40));
    assert_eq!(closed(&origin, 40), Some((100, UNREACHABLE)));
    // Any answer but an error of its own shows that it is back.
    origin.admit(at(100)).unwrap();
    origin.observe(&seen(1, 100, Outcome::Gone), at(101));
    assert_eq!(closed(&origin, 101), None);
}

#[test]
fn a_connection_that_breaks_with_many_requests_on_it_is_one_failure_where_there_were_answers() {
    let mut broken = seen(0, 10, Outcome::Transient);
    (broken.has_answered, broken.broke_off) = (false, true);
    let mut all_break = |origin: &mut Standing, began, secs| {
        for n in 0..100 {
            broken.key = EndpointKey::from_bytes([n; 32]);
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
        let now = 10 * i64::from(n);
        broken.key = EndpointKey::from_bytes([n; 32]);
        broken.began = at(now - 1);
        origin.observe(&broken, at(now));
        assert_eq!(closed(&origin, now), None);
    }
    broken.key = EndpointKey::from_bytes([8; 32]);
    broken.began = at(80);
    origin.observe(&broken, at(81));
    assert_eq!(closed(&origin, 81), Some((111, UNREACHABLE)));
    // A probe that breaks off is as good as any.
    origin.admit(at(111)).unwrap();
    broken.began = at(111);
    origin.observe(&broken, at(112));
    assert_eq!(closed(&origin, 112), Some((172, UNREACHABLE)));
}

#[test]
fn an_unreachable_origin_waits_as_long_as_it_asks() {
    let mut origin = standing();
    for n in 0..8 {
        let mut seen = seen(n, 0, Outcome::Transient);
        seen.retry_after = Some(Duration::from_secs(120));
        origin.observe(&seen, at(0));
    }
    assert_eq!(closed(&origin, 0), Some((120, UNREACHABLE)));
}

#[test]
fn an_origin_answers_until_it_is_unreachable() {
    let mut origin = standing();
    assert!(!origin.answers());
    let mut silence = seen(1, 0, Outcome::Transient);
    silence.has_answered = false;
    origin.observe(&silence, at(0));
    assert!(!origin.answers());
    origin.observe(&seen(1, 0, Outcome::RateLimited), at(0));
    assert!(origin.answers());
    for n in 0..8 {
        silence.key = EndpointKey::from_bytes([n; 32]);
        origin.observe(&silence, at(0));
    }
    assert!(!origin.answers());
}

#[test]
fn a_limit_of_the_origin_pauses_it_as_long_as_it_asks() {
    let mut origin = standing();
    let mut limit = seen(1, 0, Outcome::RateLimited);
    limit.retry_after = Some(Duration::from_secs(90));
    origin.observe(&limit, at(0));
    assert_eq!(closed(&origin, 89), Some((90, LIMIT)));
    // Everybody goes on then, without a probe; what was under way lifts nothing.
    origin.observe(&seen(2, 0, Outcome::Accepted), at(1));
    assert_eq!(closed(&origin, 89), Some((90, LIMIT)));
    assert!(origin.admit(at(90)).is_ok());
    assert!(origin.admit(at(90)).is_ok());
}

#[test]
fn limits_without_a_time_double_from_five_seconds_until_something_is_accepted() {
    let mut origin = standing();
    let mut now = 0;
    for wait in [5, 10, 20] {
        for n in 0..3 {
            origin.observe(&seen(n, now, Outcome::RateLimited), at(now + 1));
        }
        assert_eq!(closed(&origin, now + 1), Some((now + 1 + wait, LIMIT)));
        now += 1 + wait;
    }
    origin.observe(&seen(1, now, Outcome::Accepted), at(now));
    origin.observe(&seen(2, now, Outcome::RateLimited), at(now));
    assert_eq!(closed(&origin, now), Some((now + 5, LIMIT)));
}

#[test]
fn limits_of_single_subscriptions_pause_the_origin_from_eight_within_a_minute() {
    let mut origin = standing();
    for n in 0..8 {
        let mut limit = seen(n, i64::from(n), Outcome::RateLimited);
        limit.scope = PauseScope::Subscription;
        limit.retry_after = Some(Duration::from_secs(900));
        assert_eq!(closed(&origin, i64::from(n)), None);
        origin.observe(&limit, at(i64::from(n)));
    }
    assert_eq!(closed(&origin, 7), Some((907, LIMIT)));
}

#[test]
fn a_fault_outlives_a_limit_on_top_of_it() {
    let mut origin = standing();
    eight(&mut origin, Outcome::SenderFault, 0);
    let mut limit = seen(1, 0, Outcome::RateLimited);
    limit.retry_after = Some(Duration::from_secs(600));
    origin.observe(&limit, at(1));
    assert_eq!(closed(&origin, 599), Some((601, FAULT)));
    origin.admit(at(601)).unwrap();
    assert!(origin.admit(at(601)).is_err());
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
    origin.admit(at(300)).unwrap();
    origin.observe(&seen(1, 300, Outcome::Accepted), at(301));
    let lifted = origin.take_unshared();
    assert!(lifted.len() == 1 && lifted[0].until <= at(301));
    assert_eq!(closed(&origin, 301), None);
}

#[test]
fn an_acceptance_that_was_under_way_when_it_closed_lifts_no_fault() {
    let mut origin = standing();
    eight(&mut origin, Outcome::SenderFault, 10);
    origin.observe(&seen(9, 9, Outcome::Accepted), at(11));
    assert_eq!(closed(&origin, 11), Some((310, FAULT)));
}

#[test]
fn a_limit_that_shows_that_an_origin_is_back_is_told_after_the_lift() {
    let mut origin = standing();
    eight(&mut origin, Outcome::Transient, 0);
    origin.take_unshared();
    let mut limit = seen(1, 30, Outcome::RateLimited);
    limit.retry_after = Some(Duration::from_secs(600));
    origin.observe(&limit, at(31));
    let news = origin.take_unshared();
    assert_eq!(news.len(), 2);
    assert!(news[0].until <= at(31));
    assert_eq!((news[1].until, news[1].reason), (at(631), LIMIT));
    assert_eq!(closed(&origin, 31), Some((631, LIMIT)));
}
