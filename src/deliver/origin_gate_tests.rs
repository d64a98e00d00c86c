//! Permits, pauses, and room for new gates.

use std::time::Duration;

use futures_util::FutureExt as _;

use super::*;

fn origin(n: usize) -> Origin {
    Origin::parse(&format!("https://push{n}.example.com")).unwrap()
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn limited(until: i64) -> Closed {
    Closed::new(at(until), PauseReason::RateLimited)
}

fn shared(n: usize, until: i64) -> Pause {
    Pause::new(origin(n), at(until), PauseReason::RateLimited)
}

#[test]
fn there_is_little_room_until_an_origin_has_answered_and_none_while_it_is_closed() {
    let gates = OriginGates::with_in_flight_between(20, 20);
    let gate = gates.gate(&origin(1));
    drop(gates.gate(&origin(2)));
    gates.pause(&origin(3), at(100), PauseReason::RateLimited);
    let seen = Observation {
        row: Row {
            key: crate::subscription::EndpointKey::from_bytes([1; 32]),
            is_proven: true,
            has_same_key: true,
            failing_since: None,
            is_test: false,
        },
        began: at(0),
        outcome: crate::deliver::Outcome::Accepted,
        has_answered: true,
        broke_off: false,
        retry_after: None,
    };
    gate.observe(&seen, at(0));
    let rooms = gates.rooms(at(0));
    let expected = [(origin(1), 20), (origin(2), 8), (origin(3), 0)];
    assert_eq!(rooms, HashMap::from(expected));
    assert_eq!(gates.rooms(at(100))[&origin(3)], 8);
}

#[test]
fn an_unknown_origin_gets_few_requests_within_the_bounds() {
    for (gates, unknown, most) in [
        (OriginGates::new(), 8, 600),
        (OriginGates::with_in_flight(4), 4, 4),
        (OriginGates::with_in_flight_between(20, 30), 20, 30),
    ] {
        assert_eq!((gates.room_for_unknown(), gates.most()), (unknown, most));
    }
}

#[test]
fn pauses_of_others_close_gates_that_are_not_known_yet() {
    let gates = OriginGates::new();
    gates.load([shared(5, 100)], at(0));
    assert_eq!(gates.closed(at(0)), [(origin(5), limited(100))]);
}

#[cfg(any(feature = "api", feature = "metrics"))]
#[test]
fn gates_are_listed_with_the_busiest_first() {
    let gates = OriginGates::new();
    let mut held = Vec::new();
    for n in [1, 2, 2, 3, 2, 3] {
        let mut permit = gates.gate(&origin(n)).try_acquire().unwrap();
        permit.begin();
        held.push(permit);
    }
    let all = gates.all();
    let all = all
        .iter()
        .map(|gate| (gate.origin().clone(), gate.in_flight()));
    let all: Vec<_> = all.collect();
    assert_eq!(all, [(origin(2), 3), (origin(3), 2), (origin(1), 1)]);
}

#[test]
fn a_gate_knows_what_it_has_recalled_and_what_it_could_not_share() {
    let gate = OriginGates::new().gate(&origin(1));
    assert!(!gate.is_recalled() && !gate.has_accepted());
    gate.recall(false);
    assert!(gate.is_recalled() && !gate.has_accepted());
    gate.recall(true);
    assert!(gate.is_recalled() && gate.has_accepted());
    // Refusals of rows that were never accepted say nothing from here on.
    for n in 0..20 {
        let row = Row {
            key: crate::subscription::EndpointKey::from_bytes([n; 32]),
            is_proven: false,
            has_same_key: false,
            ..accepted()
        };
        let refused = Observation {
            row,
            began: at(0),
            outcome: crate::deliver::Outcome::SenderFault,
            has_answered: true,
            broke_off: false,
            retry_after: None,
        };
        gate.observe(&refused, at(10));
    }
    assert_eq!(gate.closed_at(at(10)), None);

    gate.keep_unshared(shared(1, 100), false);
    assert_eq!(gate.take_unshared(), [shared(1, 100)]);
}

#[test]
fn a_probe_that_was_withdrawn_leaves_its_place_to_the_next() {
    let gate = OriginGates::new().gate(&origin(1));
    gate.pause(at(10), PauseReason::SenderFault);
    gate.admit(&accepted(), at(10)).unwrap();
    assert!(gate.admit(&accepted(), at(10)).is_err());
    gate.withdraw(&accepted(), at(10));
    gate.admit(&accepted(), at(10)).unwrap();
}

#[test]
fn permits_are_counted_per_origin() {
    let gates = OriginGates::with_in_flight(2);
    let gate = gates.gate(&origin(1));
    let first = gate.try_acquire().unwrap();
    let _second = gates.gate(&origin(1)).try_acquire().unwrap();
    assert!(gate.try_acquire().is_none());
    assert!(gates.gate(&origin(2)).try_acquire().is_some());
    drop(first);
    assert_eq!(gate.available(), 1);
}

#[tokio::test]
async fn a_waiter_gets_the_permit_that_comes_back() {
    let gate = OriginGates::with_in_flight(1).gate(&origin(1));
    let held = gate.acquire().await;
    let mut waiting = Box::pin(gate.acquire());
    assert!(
        (&mut waiting).now_or_never().is_none(),
        "the only permit is out"
    );
    drop(held);
    let _permit = waiting.await;
    assert_eq!(gate.available(), 0);
}

fn accepted() -> Row {
    Row {
        key: crate::subscription::EndpointKey::from_bytes([1; 32]),
        is_proven: true,
        has_same_key: true,
        failing_since: None,
        is_test: false,
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_grows_and_shrinks_with_what_the_requests_learn() {
    let gate = OriginGates::with_in_flight_between(2, 100).gate(&origin(1));
    let began = |gate: &Arc<OriginGate>| {
        let mut permit = gate.try_acquire().unwrap();
        permit.begin();
        permit
    };
    let mut held: Vec<_> = (0..8).map(|_| began(&gate)).collect();
    assert!(gate.try_acquire().is_none());
    assert_eq!(
        (gate.limit(), gate.in_flight(), gate.available()),
        (8, 8, 0)
    );
    let mut waiting = Box::pin(gate.acquire());
    assert!((&mut waiting).now_or_never().is_none());
    held[7].learn(&accepted(), Load::Accepted, at(0));
    drop(waiting.now_or_never().expect("the limit is 9"));

    // All in flight are lost together, and half of the permits are kept back when they are returned.
    tokio::time::advance(Duration::from_millis(1)).await;
    for permit in &held {
        permit.learn(&accepted(), Load::Excessive, at(0));
    }
    assert_eq!(
        (gate.limit(), gate.in_flight(), gate.available()),
        (4, 8, 0)
    );
    held.truncate(4);
    assert_eq!((gate.in_flight(), gate.available()), (4, 0));
    held.truncate(1);
    assert_eq!((gate.in_flight(), gate.available()), (1, 3));
    for _ in 0..10 {
        tokio::time::advance(Duration::from_millis(1)).await;
        began(&gate).learn(&accepted(), Load::Excessive, at(0));
    }
    assert_eq!((gate.limit(), gate.available()), (2, 1));
    drop(held);
    assert_eq!(gate.available(), 2);
}

#[tokio::test(start_paused = true)]
async fn requests_are_spread_over_the_time_after_a_rate_limit() {
    let gate = OriginGates::with_in_flight_between(100, 100).gate(&origin(1));
    let begin = |mut permit: Permit| {
        permit.begin();
        permit
    };
    let row = |number| Row {
        key: crate::subscription::EndpointKey::from_bytes([number; 32]),
        ..accepted()
    };
    for _ in 0..100 {
        tokio::time::advance(Duration::from_millis(50)).await;
        begin(gate.try_acquire().unwrap()).learn(&row(9), Load::Accepted, at(0));
    }
    for number in 0..4 {
        tokio::time::advance(Duration::from_millis(10)).await;
        let permit = begin(gate.try_acquire().unwrap());
        tokio::time::advance(Duration::from_millis(10)).await;
        permit.learn(&row(number), Load::Limited, at(0));
    }
    let rate = gate.per_second().unwrap();
    assert!((1..100).contains(&rate), "{rate}");
    // In order of arrival.
    let began = Instant::now();
    for _ in 0..rate {
        drop(gate.acquire().await);
    }
    let took = began.elapsed().as_secs_f64();
    assert!((0.8..1.5).contains(&took), "{took}");
    assert!(gate.try_acquire().is_none());
    assert_eq!(gate.available(), 100, "nothing is lost");
}

#[test]
fn a_gate_is_closed_until_its_pause_ends() {
    let gates = OriginGates::new();
    gates.pause(&origin(1), at(100), PauseReason::RateLimited);
    let gate = gates.gate(&origin(1));
    assert_eq!(gate.closed_at(at(99)), Some(limited(100)));
    assert_eq!(gate.closed_at(at(100)), None);
    assert_eq!(gates.gate(&origin(2)).closed_at(at(99)), None);
}

#[test]
fn the_longer_pause_wins() {
    let gate = OriginGates::new().gate(&origin(1));
    gate.pause(at(300), PauseReason::SenderFault);
    gate.pause(at(100), PauseReason::RateLimited);
    let fault = Closed::new(at(300), PauseReason::SenderFault);
    assert_eq!(gate.closed_at(at(0)), Some(fault));
    gate.pause(at(400), PauseReason::RateLimited);
    let fault = Closed::new(at(400), PauseReason::SenderFault);
    assert_eq!(gate.closed_at(at(0)), Some(fault));
}

#[test]
fn resuming_opens_whoever_closed_it() {
    let gates = OriginGates::new();
    gates.pause(&origin(1), at(100), PauseReason::RateLimited);
    gates.load([shared(1, 200)], at(0));
    gates.resume(&origin(1));
    assert_eq!(gates.gate(&origin(1)).closed_at(at(0)), None);
    gates.resume(&origin(2));
}

#[test]
fn loaded_pauses_replace_those_loaded_before_but_no_others() {
    let gates = OriginGates::new();
    gates.pause(&origin(1), at(50), PauseReason::RateLimited);
    gates.load([shared(2, 100), shared(3, 100)], at(0));
    gates.load([shared(3, 80)], at(0));
    let mut closed = gates.closed(at(0));
    closed.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(closed, [(origin(1), limited(50)), (origin(3), limited(80))]);
    assert_eq!(gates.closed(at(60)), [(origin(3), limited(80))]);
}

#[test]
fn the_map_is_bounded() {
    let gates = OriginGates::new();
    for n in 0..OriginGates::CAPACITY + 100 {
        drop(gates.gate(&origin(n)));
    }
    assert_eq!(gates.lock().len(), OriginGates::CAPACITY);
}

#[test]
fn a_gate_in_use_keeps_its_permits_whatever_comes_after() {
    let gates = OriginGates::with_in_flight(1);
    let permit = gates.gate(&origin(0)).try_acquire().unwrap();
    let handle = gates.gate(&origin(1));
    for n in 2..2 * OriginGates::CAPACITY {
        drop(gates.gate(&origin(n)));
    }
    assert!(gates.gate(&origin(0)).try_acquire().is_none());
    let _taken = handle.try_acquire().unwrap();
    assert!(gates.gate(&origin(1)).try_acquire().is_none());
    drop(permit);
    assert!(gates.gate(&origin(0)).try_acquire().is_some());
}

#[test]
fn gates_all_in_use_are_kept_beyond_the_bound_and_go_afterwards() {
    let gates = OriginGates::new();
    let held: Vec<_> = (0..OriginGates::CAPACITY + 10)
        .map(|n| gates.gate(&origin(n)))
        .collect();
    assert_eq!(gates.lock().len(), OriginGates::CAPACITY + 10);
    drop(held);
    for n in 0..10 {
        drop(gates.gate(&origin(OriginGates::CAPACITY + 100 + n)));
    }
    assert!(gates.lock().len() <= OriginGates::CAPACITY);
}
