//! The gates that there are, what is loaded into them, and room for new ones.

use super::super::evidence::Row;
use super::super::standing::Observation;
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
fn the_limit_is_low_until_an_origin_has_answered_and_0_while_it_is_closed() {
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
    let limits = gates.limits(at(0));
    let expected = [(origin(1), 20), (origin(2), 8), (origin(3), 0)];
    assert_eq!(limits, HashMap::from(expected));
    assert_eq!(gates.limits(at(100))[&origin(3)], 8);
}

#[test]
fn an_unknown_origin_gets_few_requests_within_the_bounds() {
    for (gates, unknown, most) in [
        (OriginGates::new(), 8, 600),
        (OriginGates::with_in_flight(4), 4, 4),
        (OriginGates::with_in_flight_between(20, 30), 20, 30),
    ] {
        assert_eq!((gates.limit_of_unknown(), gates.most()), (unknown, most));
    }
}

#[test]
fn pauses_of_others_close_gates_that_are_not_known_yet() {
    let gates = OriginGates::new();
    gates.load([shared(5, 100)], at(0));
    assert_eq!(gates.closed(at(0)), [(origin(5), limited(100))]);
}

#[test]
fn the_gates_of_several_origins_are_those_that_each_of_them_has() {
    let gates = OriginGates::new();
    let known = gates.gate(&origin(2));
    let origins = [1, 2, 1, 3, 2].map(origin);
    let found = gates.of_each(origins.iter());
    assert_eq!(found.len(), origins.len());
    for (gate, origin) in found.iter().zip(&origins) {
        assert_eq!(gate.origin(), origin);
        assert!(Arc::ptr_eq(gate, &gates.gate(origin)));
    }
    assert!(Arc::ptr_eq(&found[1], &known));
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

#[test]
fn resuming_opens_whatever_closed_it() {
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
