//! The epoch of a worker.

use super::*;
use crate::clock::Timestamp;

const OWN: WorkerId = 3;

struct World {
    start: Moment,
    standing: Standing,
}

impl World {
    fn new() -> Self {
        Self {
            start: Moment::now(),
            standing: Standing::default(),
        }
    }

    fn at(&self, millis: u64) -> Moment {
        let passed = Duration::from_millis(millis);
        Moment {
            monotonic: self.start.monotonic + passed,
            wall: self.start.wall + passed,
        }
    }

    fn beats(&mut self, id: WorkerId, millis: u64) {
        let sent = self.at(millis);
        let at = Timestamp::from_millis(millis.try_into().unwrap());
        self.standing.beaten(id, Beat { sent, at });
    }

    /// The epoch and the number at a moment.
    fn sees(&mut self, millis: u64) -> (Option<u64>, Option<WorkerId>) {
        let now = self.at(millis);
        (self.standing.epoch(now), self.standing.worker(now))
    }
}

#[test]
fn there_is_an_epoch_before_the_first_claim_and_through_it() {
    let mut world = World::new();
    assert_eq!(world.sees(0), (Some(0), None));
    assert_eq!(world.sees(60_000), (Some(0), None));
    world.beats(OWN, 60_000);
    assert_eq!(world.sees(60_001), (Some(0), Some(OWN)));
}

#[test]
fn nothing_begins_once_half_of_the_grace_has_passed_without_a_beat() {
    let mut world = World::new();
    world.beats(OWN, 0);
    assert_eq!(world.sees(1_499), (Some(0), Some(OWN)));
    assert_eq!(world.sees(1_500), (None, None));
    assert_eq!(world.sees(2_999), (None, None));
    // It was not declared dead: what it had claimed is still its own.
    world.beats(OWN, 2_900);
    assert_eq!(world.sees(3_000), (Some(0), Some(OWN)));
}

/// A worker whose beats cannot be restored goes on without a sign of life.
#[test]
fn after_the_grace_another_epoch_begins_in_which_claims_name_nobody() {
    let mut world = World::new();
    world.beats(OWN, 0);
    assert_eq!(world.sees(3_000), (Some(1), None));
    assert_eq!(world.sees(60_000), (Some(1), None));
    world.beats(OWN, 60_000);
    assert_eq!(world.sees(60_000), (Some(1), Some(OWN)));
    // The next silence is another one.
    assert_eq!(world.sees(63_000), (Some(2), None));
}

/// A machine that sleeps stops its monotonic clock.
#[test]
fn the_longer_silence_of_both_clocks_counts() {
    let mut world = World::new();
    world.beats(OWN, 0);
    let mut now = world.at(100);
    now.wall += Duration::from_secs(8 * 3600);
    assert_eq!(world.standing.epoch(now), Some(1));
    let mut world = World::new();
    world.beats(OWN, 0);
    let mut now = world.at(2_000);
    now.wall = world.start.wall;
    assert_eq!(world.standing.epoch(now), None);
}

#[test]
fn a_worker_that_was_declared_dead_has_another_epoch_and_number() {
    let mut world = World::new();
    world.beats(OWN, 0);
    world.standing.struck();
    assert_eq!(world.sees(100), (Some(1), None));
    world.beats(OWN + 1, 200);
    assert_eq!(world.sees(200), (Some(1), Some(OWN + 1)));
    // The clean time begins again.
    world.standing.looked(&[Other {
        id: 9,
        beat_at: Timestamp::from_millis(-60_000),
        is_dead: false,
    }]);
    assert!(world.standing.take_silent().is_none());
    assert_eq!(world.standing.others(), [9]);
}

#[test]
fn dead_workers_are_handed_out_once_for_each_look() {
    let mut world = World::new();
    let dead = [Other {
        id: 9,
        beat_at: Timestamp::from_millis(0),
        is_dead: true,
    }];
    world.standing.looked(&dead);
    let silent = world.standing.take_silent().unwrap();
    assert_eq!(silent.workers, [9]);
    assert!(world.standing.take_silent().is_none());
    world.standing.put_back(silent);
    assert!(world.standing.take_silent().is_some());
    world.standing.looked(&dead);
    assert!(world.standing.take_silent().is_some());
    world.standing.looked(&[]);
    assert!(world.standing.take_silent().is_none());
}
