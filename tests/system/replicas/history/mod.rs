//! The life of every row of the ledger, as the database saw it, compared with the states that the guide draws.
//!
//! Each change of a row has to be a step from one state to another that the diagram in "What happens to a message" has; whatever
//! the processes and their kills did, there is no other. On PostgreSQL a trigger records the changes. Redis shows each
//! command that its scripts call.

mod postgres;
mod redis;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use tower_web_push::clock::Timestamp;

use super::world::World;
use crate::support::servers::Kind;

/// What records the changes of one database.
pub(super) enum Recorder {
    Postgres,
    Redis(redis::Monitor),
}

impl Recorder {
    /// Records from now on.
    pub(super) async fn start(kind: Kind, world: &World) -> Self {
        match kind {
            Kind::Postgres => {
                postgres::record(world).await;
                Self::Postgres
            }
            Kind::Redis => Self::Redis(redis::Monitor::start(world).await),
            _ => panic!("no history of {kind:?}"),
        }
    }

    /// Checks the lives of this number of rows, all of which are over. Prints how often each step was taken. `starts` are the
    /// times at which servers were started since.
    pub(super) async fn check(self, world: &World, rows: usize, starts: &[Timestamp]) {
        match self {
            Self::Postgres => postgres::lives(world).await.are_legal(rows, starts),
            Self::Redis(monitor) => monitor.lives(world).await.are_legal(rows, starts),
        }
    }
}

/// A row of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    is_leased: bool,
    /// It has a turn.
    is_ready: bool,
    /// The end of its lease, or when it is due.
    at: i64,
    fence: i64,
    attempt: i64,
    worker: Option<i32>,
}

/// A change of a row by one transaction or script.
#[derive(Clone, Debug)]
struct Event {
    moment: i64,
    owner_is_dead: bool,
    /// By a settlement with the token of the row, as far as the database shows tokens.
    is_by_token: bool,
    before: Option<Row>,
    after: Option<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Written,
    BecameReady,
    Claimed,
    /// Its owner is dead: the lease ends early.
    TakenFromTheDead,
    /// To be tried again, deferred or released.
    Postponed,
    Finished,
}

/// `None`: no process may do that.
fn step(event: &Event) -> Option<Step> {
    match (&event.before, &event.after) {
        (None, Some(new)) => {
            let is_new = Row {
                at: new.at,
                is_ready: new.is_ready,
                ..Row::default()
            };
            (*new == is_new).then_some(Step::Written)
        }
        // What is finished was settled by its token.
        (Some(old), None) => (old.is_leased && event.is_by_token).then_some(Step::Finished),
        (Some(old), Some(new)) => {
            let is_claimed = old.is_ready
                && new.is_leased
                && !new.is_ready
                && new.fence > old.fence
                && new.attempt == old.attempt + 1;
            let is_kept = new.fence == old.fence && new.attempt == old.attempt;
            let is_woken =
                !old.is_ready && new.is_ready && is_kept && old.is_leased == new.is_leased;
            let is_taken = old.is_leased
                && new.is_leased
                && !new.is_ready
                && is_kept
                && old.worker.is_some()
                && new.worker.is_none();
            let is_postponed = old.is_leased
                && !new.is_leased
                && !new.is_ready
                && new.fence == old.fence
                && [old.attempt, old.attempt - 1].contains(&new.attempt)
                && new.worker.is_none();
            if is_claimed {
                Some(Step::Claimed)
            } else if is_woken {
                // The row of a process that lives stays with it until its lease ends.
                (old.at <= event.moment).then_some(Step::BecameReady)
            } else if is_taken {
                event.owner_is_dead.then_some(Step::TakenFromTheDead)
            } else if is_postponed {
                event.is_by_token.then_some(Step::Postponed)
            } else {
                None
            }
        }
        (None, None) => None,
    }
}

/// A life begins once and ends once, and what is finished was claimed.
fn is_legal(life: &[Step]) -> bool {
    let [Step::Written, middle @ .., Step::Finished] = life else {
        return false;
    };
    let is_inner = |step: &Step| !matches!(step, Step::Written | Step::Finished);
    middle.iter().all(is_inner) && middle.contains(&Step::Claimed)
}

/// When a worker enlisted, and when it gave a sign of life for the first time since. In milliseconds.
#[derive(Clone, Copy, Debug)]
struct Signs {
    enlisted: i64,
    first_beat: Option<i64>,
}

/// Whether a claim may name no worker: between the start of a server and the first sign of life of the worker that enlisted
/// next. A claim that was under way when it enlisted names none.
fn may_be_nameless<'a>(
    moment: i64,
    starts: &[Timestamp],
    workers: impl Iterator<Item = &'a Signs> + Clone,
) -> bool {
    starts.iter().any(|start| {
        let start = start.as_millis();
        let since = workers.clone().filter(|signs| signs.enlisted >= start);
        let next = since.min_by_key(|signs| signs.enlisted);
        let first_beat = next.and_then(|signs| signs.first_beat);
        start <= moment && first_beat.is_none_or(|beat| moment <= beat)
    })
}

/// What has happened to each row so far.
struct Lives<Of> {
    of: BTreeMap<Of, Vec<Step>>,
    steps: BTreeMap<Step, usize>,
    /// The claim that gave each token.
    fences: HashMap<i64, u64>,
    workers: BTreeMap<i64, Signs>,
    /// The claims that named no worker.
    nameless: Vec<Event>,
}

impl<Of> Default for Lives<Of> {
    fn default() -> Self {
        Self {
            of: BTreeMap::new(),
            steps: BTreeMap::new(),
            fences: HashMap::new(),
            workers: BTreeMap::new(),
            nameless: Vec::new(),
        }
    }
}

impl<Of: Clone + Debug + Ord> Lives<Of> {
    /// Notes an event of a row. `claim` identifies the call that has claimed it: rows of one claim may have one token.
    fn note(&mut self, of: &Of, event: &Event, claim: u64) -> Result<(), String> {
        let step = step(event).ok_or_else(|| format!("no process may do this: {event:?}"))?;
        if let (Step::Claimed, Some(row)) = (step, &event.after) {
            if *self.fences.entry(row.fence).or_insert(claim) != claim {
                return Err(format!("two claims have one token: {event:?}"));
            }
            if row.worker.is_none() {
                self.nameless.push(event.clone());
            }
        }
        *self.steps.entry(step).or_default() += 1;
        self.of.entry(of.clone()).or_default().push(step);
        Ok(())
    }

    /// Notes that a worker has enlisted, or gives a sign of life.
    fn note_sign(&mut self, worker: i64, is_new: bool, moment: i64) {
        let signs = self.workers.entry(worker).or_insert(Signs {
            // One that is not new enlisted before the recording.
            enlisted: if is_new { moment } else { i64::MIN },
            first_beat: None,
        });
        if !is_new {
            signs.first_beat.get_or_insert(moment);
        }
    }

    fn are_legal(&self, rows: usize, starts: &[Timestamp]) {
        println!("{rows} rows: {:?}", self.steps);
        for event in &self.nameless {
            let is_legal = may_be_nameless(event.moment, starts, self.workers.values());
            let workers = &self.workers;
            assert!(is_legal, "{event:?} after {starts:?}, with {workers:?}");
        }
        assert_eq!(self.of.len(), rows);
        for (of, life) in &self.of {
            assert!(is_legal(life), "{of:?}: {life:?}");
        }
    }
}

#[test]
fn steps_that_no_process_may_take_are_seen() {
    let leased = Row {
        is_leased: true,
        at: 500,
        fence: 7,
        attempt: 1,
        worker: Some(3),
        ..Row::default()
    };
    let event = |before: &Row, after: Option<Row>| Event {
        moment: 400,
        owner_is_dead: false,
        is_by_token: true,
        before: Some(before.clone()),
        after,
    };
    let ready = Row {
        is_ready: true,
        ..leased.clone()
    };
    let unleased = Row {
        is_leased: false,
        worker: None,
        ..leased.clone()
    };
    // Claimed although another process has it.
    let claimed = Row {
        fence: 8,
        attempt: 2,
        worker: Some(4),
        ..leased.clone()
    };
    assert_eq!(step(&event(&leased, Some(claimed.clone()))), None);
    assert_eq!(
        step(&event(&ready, Some(claimed.clone()))),
        Some(Step::Claimed)
    );
    // With a token that was given before, or without counting the attempt.
    assert_eq!(
        step(&event(
            &ready,
            Some(Row {
                fence: 7,
                ..claimed.clone()
            })
        )),
        None
    );
    assert_eq!(
        step(&event(
            &ready,
            Some(Row {
                attempt: 1,
                ..claimed
            })
        )),
        None
    );
    // Ready before its lease ends, and taken from a process that lives.
    assert_eq!(step(&event(&leased, Some(ready.clone()))), None);
    let woken = Event {
        moment: 500,
        ..event(&leased, Some(ready))
    };
    assert_eq!(step(&woken), Some(Step::BecameReady));
    let taken = event(
        &leased,
        Some(Row {
            at: 400,
            worker: None,
            ..leased.clone()
        }),
    );
    assert_eq!(step(&taken), None);
    let from_the_dead = Event {
        owner_is_dead: true,
        ..taken
    };
    assert_eq!(step(&from_the_dead), Some(Step::TakenFromTheDead));
    // Finished without a token, and postponed with two attempts less.
    assert_eq!(step(&event(&unleased, None)), None);
    assert_eq!(step(&event(&leased, None)), Some(Step::Finished));
    let by_another_token = |event: Event| Event {
        is_by_token: false,
        ..event
    };
    assert_eq!(step(&by_another_token(event(&leased, None))), None);
    let postponed = Row {
        at: 900,
        attempt: 0,
        ..unleased.clone()
    };
    assert_eq!(
        step(&event(&leased, Some(postponed.clone()))),
        Some(Step::Postponed)
    );
    assert_eq!(
        step(&by_another_token(event(&leased, Some(postponed.clone())))),
        None
    );
    assert_eq!(
        step(&event(
            &leased,
            Some(Row {
                attempt: -1,
                ..postponed
            })
        )),
        None
    );
    for life in [
        &[Step::Written, Step::Claimed][..],
        &[Step::Written, Step::BecameReady, Step::Finished],
        &[Step::Written, Step::Claimed, Step::Finished, Step::Finished],
        &[Step::Written, Step::Claimed, Step::Written, Step::Finished],
        &[Step::Claimed, Step::Finished],
    ] {
        assert!(!is_legal(life), "{life:?}");
    }
}

#[test]
fn two_claims_have_two_tokens() {
    let ready = Row {
        is_ready: true,
        ..Row::default()
    };
    let claimed = Row {
        is_leased: true,
        fence: 8,
        attempt: 1,
        worker: Some(3),
        ..Row::default()
    };
    let event = Event {
        moment: 400,
        owner_is_dead: false,
        is_by_token: false,
        before: Some(ready),
        after: Some(claimed),
    };
    let mut lives = Lives::default();
    assert_eq!(lives.note(&1, &event, 1), Ok(()));
    assert_eq!(lives.note(&2, &event, 1), Ok(()));
    assert!(lives.note(&3, &event, 2).is_err());
}

/// A server claims while it enlists, which may take longer than its first claim waits for.
#[test]
fn a_claim_names_its_worker_from_the_first_sign_of_life_on() {
    let at = Timestamp::from_millis;
    let mut lives = Lives::<u8>::default();
    // One that was there before, and one that enlists long after its start.
    for (worker, moment) in [(1, 2_100), (1, 2_350), (2, 5_000), (2, 5_250), (2, 5_500)] {
        lives.note_sign(worker, moment == 5_000, moment);
    }
    let may = |moment, starts: &[_]| may_be_nameless(moment, starts, lives.workers.values());
    let allowed =
        |starts: &[_]| [1_999, 2_000, 5_250, 5_251, 9_000].map(|moment| may(moment, starts));
    assert_eq!(allowed(&[at(2_000)]), [false, true, true, false, false]);
    assert_eq!(allowed(&[]), [false; 5]);
    // The next one has not enlisted yet.
    assert_eq!(
        allowed(&[at(2_000), at(8_000)]),
        [false, true, true, false, true]
    );
}

#[test]
fn a_claim_without_a_worker_is_refused_later() {
    let event = Event {
        moment: 400,
        owner_is_dead: false,
        is_by_token: false,
        before: Some(Row {
            is_ready: true,
            ..Row::default()
        }),
        after: Some(Row {
            is_leased: true,
            fence: 8,
            attempt: 1,
            ..Row::default()
        }),
    };
    let is_refused = |first_beat| {
        let mut lives = Lives::default();
        lives.note(&1, &event, 1).unwrap();
        lives
            .of
            .insert(1, vec![Step::Written, Step::Claimed, Step::Finished]);
        lives.note_sign(3, true, 300);
        lives.note_sign(3, false, first_beat);
        let judged = || lives.are_legal(1, &[Timestamp::from_millis(200)]);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(judged)).is_err()
    };
    assert!(!is_refused(550) && is_refused(399));
}
