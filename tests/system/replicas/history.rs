//! The life of every row of the ledger, as the database saw it, compared with the states that the guide draws.
//!
//! A trigger records each change of a row. Each change has to be a step from one state to another that the diagram in "What
//! happens to a message" has; whatever the processes and their kills did, there is no other.

use std::collections::BTreeMap;

use tokio_postgres::{Client, NoTls};

use super::world::World;

/// A row of `web_push.delivery`.
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

#[derive(Clone, Debug)]
struct Event {
    moment: i64,
    owner_is_dead: bool,
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
        (Some(old), None) => old.is_leased.then_some(Step::Finished),
        (Some(old), Some(new)) => {
            let is_claimed = old.is_ready
                && new.is_leased
                && !new.is_ready
                && new.fence > old.fence
                && new.attempt == old.attempt + 1
                && new.worker.is_some();
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
                Some(Step::Postponed)
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

/// Records from now on.
pub(super) async fn record(world: &World) {
    let client = connect(world).await;
    client
        .batch_execute(include_str!("history.sql"))
        .await
        .unwrap();
}

/// Checks the lives of this number of rows, all of which are over. Prints how often each step was taken.
pub(super) async fn check(world: &World, rows: usize) {
    let client = connect(world).await;
    let sql = "SELECT broadcast, key, moment, owner_is_dead, before IS DISTINCT FROM NULL, (before).leased, \
         (before).turn IS NOT NULL, (before).at, (before).fence, (before).attempt, (before).worker, \
         after IS DISTINCT FROM NULL, (after).leased, (after).turn IS NOT NULL, (after).at, (after).fence, \
         (after).attempt, (after).worker FROM public.history ORDER BY broadcast, key, seq";
    let mut lives: BTreeMap<(i64, Vec<u8>), Vec<Step>> = BTreeMap::new();
    let mut steps: BTreeMap<Step, usize> = BTreeMap::new();
    let mut fences = std::collections::HashSet::new();
    for recorded in client.query(sql, &[]).await.unwrap() {
        let row = |first: usize| {
            recorded.get::<_, bool>(first).then(|| Row {
                is_leased: recorded.get(first + 1),
                is_ready: recorded.get(first + 2),
                at: recorded.get(first + 3),
                fence: recorded.get(first + 4),
                attempt: recorded.get(first + 5),
                worker: recorded.get(first + 6),
            })
        };
        let event = Event {
            moment: recorded.get(2),
            owner_is_dead: recorded.get(3),
            before: row(4),
            after: row(11),
        };
        let step = step(&event).unwrap_or_else(|| panic!("no process may do this: {event:?}"));
        if step == Step::Claimed {
            let fence = event.after.as_ref().unwrap().fence;
            assert!(fences.insert(fence), "two claims have one token: {event:?}");
        }
        *steps.entry(step).or_default() += 1;
        let of = (recorded.get(0), recorded.get(1));
        lives.entry(of).or_default().push(step);
    }
    println!("{rows} rows: {steps:?}");
    assert_eq!(lives.len(), rows);
    for (of, life) in lives {
        assert!(is_legal(&life), "{of:?}: {life:?}");
    }
}

async fn connect(world: &World) -> Client {
    let url = world.database.url();
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
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
