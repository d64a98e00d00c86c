//! Permits and pauses of a gate.

use std::time::Duration;

use futures_util::FutureExt as _;

use super::super::OriginGates;
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
fn a_gate_knows_what_it_has_recalled_and_what_it_could_not_share() {
    let gate = OriginGates::new().gate(&origin(1));
    assert!(!gate.is_recalled() && !gate.has_accepted());
    gate.recall(false);
    assert!(gate.is_recalled() && !gate.has_accepted());
    gate.recall(true);
    assert!(gate.is_recalled() && gate.has_accepted());
    // The ledger counts an acceptance later than the row of the subscription has it.
    gate.recall(false);
    assert!(gate.has_accepted());
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
    assert_eq!(gate.in_flight(), 8, "that one did not begin");

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

/// A gate that has a pace, since its origin limits the requests.
async fn paced() -> Arc<OriginGate> {
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
    gate
}

/// A permit is free, and it is time, but for the request that has waited longest.
#[tokio::test(start_paused = true)]
async fn a_request_that_comes_later_does_not_pass_one_that_waits_for_its_time() {
    let gate = paced().await;
    while gate.try_acquire().is_some() {}
    let mut waiting = Box::pin(gate.acquire());
    assert!((&mut waiting).now_or_never().is_none());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(gate.try_acquire().is_none());
    let permit = (&mut waiting).now_or_never();
    drop(permit.expect("it was its turn"));
    drop(waiting);
    tokio::time::advance(Duration::from_secs(1)).await;
    drop(gate.try_acquire().expect("no other waits"));
    assert_eq!(gate.available(), 100, "nothing is lost");
}

#[tokio::test(start_paused = true)]
async fn requests_are_spread_over_the_time_after_a_rate_limit() {
    let gate = paced().await;
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
