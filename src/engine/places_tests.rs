//! The places of attempts, in all and at each origin.

use std::time::Duration;

use super::super::test_world::{START, World, drive};
use super::super::worker::Worker;
use super::*;
use crate::deliver::OriginGates;
use crate::store::PauseReason;

const SECOND: Duration = Duration::from_secs(1);

impl Places {
    /// The number of attempts under way.
    pub(in crate::engine) fn taken(&self) -> usize {
        self.under_way.lock().values().sum()
    }
}

fn take(places: &Places, gate: &Arc<OriginGate>, number: usize) -> Vec<Place> {
    let taken = (0..number).map(|_| places.take(Arc::clone(gate)));
    taken.collect()
}

#[tokio::test]
async fn attempts_in_flight_are_limited() {
    let world = World::new().await;
    let key = world.subscriber().await;
    let gate = world.gate(key).await;
    world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    // At another origin, so that this origin's limit does not apply, and a known one, so that strangers' does not.
    let elsewhere = Origin::parse("https://fcm.googleapis.com").unwrap();
    let other = world.engine.gates.gate(&elsewhere);
    let mut taken = take(&worker.places, &other, IN_FLIGHT - FREE_AT_LEAST + 1);
    assert_eq!(worker.step().await.claimed, 0);
    taken.pop();
    assert_eq!(worker.step().await.claimed, 1);
    assert_eq!(gate.closed_at(START), None);
}

/// Whether they have never answered, or have once and then never again.
#[tokio::test]
async fn hosts_of_strangers_that_hang_leave_places_for_named_ones_and_for_those_that_answer() {
    let world = World::new().await;
    let gates = &world.engine.gates;
    let origin = |host: &str| Origin::parse(&format!("https://{host}")).unwrap();
    let (fcm, stranger) = (origin("fcm.googleapis.com"), origin("a.example.com"));
    let answering = gates.gate(&origin("b.example.com"));
    answering.answers();
    let places = Places::new(world.engine.clone());
    let limits = || {
        let request = places.request(START, true).unwrap();
        let unknown = request.most_of(&origin("unknown.example.com"));
        let others = [&fcm, &stranger, answering.origin()];
        (unknown, others.map(|origin| request.most_of(origin)))
    };
    let mut taken = Vec::new();
    let last = IN_FLIGHT / 16 - 1;
    // From then on they have too few left for a claim.
    let full = (IN_FLIGHT / 2 - FREE_AT_LEAST) / 8;
    for number in 0..=last {
        let gate = gates.gate(&origin(&format!("hangs-{number}.example.com")));
        if number == full {
            assert_eq!(limits().0, 8);
        }
        taken.extend(take(&places, &gate, 8));
    }
    let _ = gates.gate(&stranger);
    let limit = answering.limit();
    assert_eq!(limits(), (0, [8, 0, limit]));
    // One that the process has sent to, and has no answer of yet.
    let _ = gates.gate(&fcm);
    assert_eq!(limits(), (0, [8, 0, limit]));
    for number in 0..IN_FLIGHT / 64 {
        let gate = gates.gate(&origin(&format!("hung-{number}.example.com")));
        gate.answers();
        if number == 0 {
            assert_eq!(limits(), (0, [8, 0, limit]));
        }
        taken.extend(take(&places, &gate, 8));
    }
    assert_eq!(limits(), (0, [8, 0, 0]));
    // A claim that began before fits, and another one.
    const { assert!(IN_FLIGHT / 8 * STRANGERS.1 + CLAIM + FREE_AT_LEAST < IN_FLIGHT) };
}

#[tokio::test]
async fn an_origin_gets_the_free_places_of_its_gate() {
    let world = World::new().await;
    let key = world.subscriber().await;
    let gate = world.gate(key).await;
    let places = Places::new(world.engine.clone());
    let free = |places: &Places, is_calm| {
        let request = places.request(START, is_calm).unwrap();
        request.origins[gate.origin()]
    };
    assert_eq!(free(&places, true), OriginGates::UNPROVEN);
    let mut taken = take(&places, &gate, 3);
    assert_eq!(free(&places, true), OriginGates::UNPROVEN - 3);
    taken.extend(take(&places, &gate, 30));
    assert_eq!(free(&places, true), 0);
    // Each is free again when its attempt has ended, in whatever way.
    taken.truncate(3);
    assert_eq!(free(&places, true), OriginGates::UNPROVEN - 3);
    taken.clear();
    assert_eq!(free(&places, true), OriginGates::UNPROVEN);
    assert_eq!(places.taken(), 0);

    // The limit grows by one with each acceptance. Less than an eighth of it is claimed only if no attempt has ended.
    world.broadcast().await;
    let mut worker = Worker::new(world.engine.clone());
    worker.step().await;
    drive(&mut worker).await;
    assert_eq!(free(&places, false), gate.limit());
    taken = take(&places, &gate, gate.limit() - 1);
    assert_eq!((free(&places, true), free(&places, false)), (1, 1));
    taken.extend(take(&places, &gate, 1));
    assert_eq!((free(&places, true), free(&places, false)), (0, 0));
    gate.pause(START + SECOND, PauseReason::RateLimited);
    assert_eq!(free(&places, true), 0);
}

/// All rows of a claim may be at hosts of strangers, which it does not know yet.
#[tokio::test]
async fn a_claim_is_no_larger_than_the_places_that_strangers_may_still_have() {
    let world = World::new().await;
    let gates = &world.engine.gates;
    let gate = |host: &str| gates.gate(&Origin::parse(&format!("https://{host}")).unwrap());
    let places = Places::new(world.engine.clone());
    let limit = || places.request(START, true).unwrap().limit;
    let (silent, all) = (IN_FLIGHT / 8 * STRANGERS.0, IN_FLIGHT / 8 * STRANGERS.1);
    assert_eq!(limit(), CLAIM, "nothing is under way");
    let mut hangs = take(&places, &gate("hangs.example.com"), silent - FREE_AT_LEAST);
    assert_eq!(limit(), FREE_AT_LEAST, "of those that do not answer");
    // With fewer they would hold up the others until they time out.
    hangs.extend(take(&places, &gate("hangs.example.com"), 1));
    assert_eq!(limit(), CLAIM);
    drop(hangs);
    let answering = gate("b.example.com");
    answering.answers();
    let mut taken = take(&places, &answering, all - FREE_AT_LEAST);
    assert_eq!(limit(), FREE_AT_LEAST, "of all");
    taken.extend(take(&places, &answering, 1));
    assert_eq!(limit(), CLAIM);
    assert_eq!(
        places
            .request(START, true)
            .unwrap()
            .most_of(answering.origin()),
        0
    );
    drop(taken);
    let fcm = gate("fcm.googleapis.com");
    let _taken = take(&places, &fcm, IN_FLIGHT - CLAIM + 1);
    assert_eq!(limit(), CLAIM - 1, "of the free ones");
}
