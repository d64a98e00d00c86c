//! A model of the rules by which processes share the rows of an origin, and a search through all of its states.
//!
//! The sentences of [`DeliveryLedger`](super::DeliveryLedger) say what one call does. What follows from them for processes that
//! crash, stand still and go on cannot be read from a single call. So the rules are written down here once more, as small as
//! they can be: two processes, two rows of one origin, a clock of a few ticks. [Stateright](https://www.stateright.rs) visits
//! every order of events. That the stores do what the sentences say is tested elsewhere (`conformance`,
//! `tests/stores/ledger_model`); here the question is whether the sentences are enough.
//!
//! Each [`Mistake`] breaks one rule. The search has to find what it leads to, so a promise that nothing could break is noticed.
//!
//! Not in the model: turns and bands (L18), the expansion (L3, L4), cancelling, and more than one origin. None of them decides
//! who may send a row.

use stateright::{Checker as _, Expectation, HasDiscoveries, Model, Property};

const PROCESSES: usize = 2;
const ROWS: usize = 2;
/// The longest time that a request takes.
const REQUEST: u8 = 1;
const LEASE: u8 = 3;
/// A process without a sign of life for this long is dead to the others.
const GRACE: u8 = 2;
/// A process whose own last sign of life is older begins nothing.
const TRUSTED: u8 = 1;
const RETRY: u8 = 1;
const PAUSE: u8 = 2;

/// A rule that is not kept.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    /// A request begins up to the end of its lease, and not one request earlier (L5).
    BeginsTooLate,
    /// A row is settled by each worker that had it, and not by the latest token only (L7).
    SettlesWithAnyToken,
    /// A token can be used again after its row was settled (L7).
    TokenIsNotSpent,
    /// Rows that are leased are claimed (L6).
    ClaimsLeasedRows,
    /// A pause whose time has come lets every request through (L5).
    EveryClaimIsAProbe,
    /// The pause stays until the probe says otherwise, which may never happen (L5).
    ProbeHoldsForEver,
    /// A process that was declared dead begins what it had claimed (L19).
    DeadProcessBegins,
    /// A process is declared dead as soon as it misses one sign of life (L19).
    DeclaresTheLivingDead,
    /// The end of a row's lease is not looked at: the rows of a process that died stay with it (L5).
    LeaseNeverEnds,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    rows: [Row; ROWS],
    pause: Option<Pause>,
    processes: [Process; PROCESSES],
    /// Crashes and standstills that may still happen.
    faults_left: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Row {
    due: u8,
    /// The latest one given.
    token: u8,
    lease: Option<Lease>,
    finished: u8,
    /// Requests whose response no worker has seen.
    unanswered: u8,
    /// Those of them whose process crashed, or stood still until others took over.
    excused: u8,
    /// Whether another process took over while the request of a process that runs was on its way.
    overtaken: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Lease {
    until: u8,
    process: usize,
    epoch: u8,
    is_probe: bool,
}

/// Of the kind that is probed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pause {
    until: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Process {
    condition: Condition,
    /// When it last gave a sign of life.
    beat: u8,
    is_marked_dead: bool,
    epoch: u8,
    job: Option<Job>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Condition {
    #[default]
    Runs,
    StandsStill,
    Crashed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Job {
    row: usize,
    token: u8,
    until: u8,
    epoch: u8,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Claimed,
    /// Since when its request is on its way.
    Begun(u8),
    Answered(Response),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Response {
    Accepted,
    /// Or none within the time of a request.
    TryAgain,
    /// The origin refuses this server: it is asked again with a single row.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Tick,
    Claim(usize, usize),
    Begin(usize),
    Respond(usize, Response),
    Settle(usize),
    Release(usize),
    MarkDead(usize),
    Crash(usize),
    StandStill(usize),
    GoOn(usize),
}

/// The rules, of which at most one is not kept.
struct Rules {
    mistake: Option<Mistake>,
    /// What bounds the search, and no rule: the last moment of the clock, the faults, and how often a row is claimed.
    ticks: u8,
    faults: u8,
    claims: u8,
}

impl Rules {
    fn breaks(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// L5, L6.
    fn can_be_claimed(&self, state: &State, row: &Row) -> bool {
        let is_free = match &row.lease {
            None => row.due <= state.now,
            Some(lease) => {
                self.breaks(Mistake::ClaimsLeasedRows)
                    || lease.until <= state.now && !self.breaks(Mistake::LeaseNeverEnds)
            }
        };
        row.finished == 0
            && is_free
            && state
                .pause
                .as_ref()
                .is_none_or(|pause| pause.until <= state.now)
    }

    fn claim(&self, state: &mut State, process: usize, number: usize) {
        let until = state.now + LEASE;
        let is_probe = state.pause.is_some();
        if self.breaks(Mistake::EveryClaimIsAProbe) {
            // The pause stays as it is.
        } else if self.breaks(Mistake::ProbeHoldsForEver) && is_probe {
            state.pause = Some(Pause { until: u8::MAX });
        } else {
            // The next claimant waits for this one row.
            state.pause = is_probe.then_some(Pause { until });
        }
        let previous = state.rows[number].lease.take();
        if let Some(previous) = previous {
            state.lose(number, &previous);
        }
        let epoch = state.processes[process].epoch;
        let row = &mut state.rows[number];
        row.token += 1;
        row.lease = Some(Lease {
            until,
            process,
            epoch,
            is_probe,
        });
        let token = row.token;
        state.processes[process].job = Some(Job {
            row: number,
            token,
            until,
            epoch,
            phase: Phase::Claimed,
        });
    }

    /// L5: no request outlasts its lease. L19: none begins in another epoch, nor without a recent sign of life.
    fn may_begin(&self, state: &State, process: &Process, job: &Job) -> bool {
        let longest = if self.breaks(Mistake::BeginsTooLate) {
            0
        } else {
            REQUEST
        };
        let is_trusted = job.epoch == process.epoch && state.now - process.beat <= TRUSTED;
        state.now + longest < job.until && (is_trusted || self.breaks(Mistake::DeadProcessBegins))
    }

    /// L7, L8: `settle` and `release`.
    fn put(&self, state: &mut State, job: &Job, settlement: Settlement) {
        let now = state.now;
        let row = &mut state.rows[job.row];
        let is_latest = row.token == job.token || self.breaks(Mistake::SettlesWithAnyToken);
        if !is_latest || row.lease.is_none() && !self.breaks(Mistake::TokenIsNotSpent) {
            return;
        }
        let was_probe = row.lease.take().is_some_and(|lease| lease.is_probe);
        match settlement {
            Settlement::Finished => row.finished += 1,
            Settlement::DueAt(moment) => row.due = moment,
        }
        if was_probe
            && let Some(pause) = &mut state.pause
            && !self.breaks(Mistake::ProbeHoldsForEver)
        {
            pause.until = now;
        }
    }

    fn settle(&self, state: &mut State, job: &Job, response: Response) {
        let now = state.now;
        let was_probe = state.rows[job.row]
            .lease
            .as_ref()
            .is_some_and(|lease| lease.is_probe);
        let settlement = match response {
            Response::Accepted => Settlement::Finished,
            Response::TryAgain => Settlement::DueAt(now + RETRY),
            Response::Refused => Settlement::DueAt(now + PAUSE),
        };
        self.put(state, job, settlement);
        // Pauses are written after, so that the probe's end does not shorten the one that it leads to (L5).
        match response {
            Response::Accepted if was_probe => state.pause = None,
            Response::Accepted | Response::TryAgain => {}
            Response::Refused => {
                let before = state.pause.take();
                // `Pause::on_top_of` (L11).
                let until = before
                    .as_ref()
                    .map_or(0, |pause| pause.until)
                    .max(now + PAUSE);
                state.pause = Some(Pause { until });
            }
        }
    }

    /// L19.
    fn mark_dead(&self, state: &mut State, process: usize) {
        state.processes[process].is_marked_dead = true;
        let epoch = state.processes[process].epoch;
        for number in 0..ROWS {
            let is_its = |lease: &mut Lease| lease.process == process && lease.epoch == epoch;
            if let Some(lease) = state.rows[number].lease.take_if(|lease| is_its(lease)) {
                state.lose(number, &lease);
                state.rows[number].due = state.now;
                if lease.is_probe
                    && let Some(pause) = &mut state.pause
                    && !self.breaks(Mistake::ProbeHoldsForEver)
                {
                    pause.until = state.now;
                }
            }
        }
    }

    fn is_silent(&self, state: &State, process: &Process) -> bool {
        let grace = if self.breaks(Mistake::DeclaresTheLivingDead) {
            0
        } else {
            GRACE
        };
        state.now - process.beat >= grace
    }
}

enum Settlement {
    Finished,
    DueAt(u8),
}

impl State {
    /// Another process takes over, or may.
    fn lose(&mut self, row: usize, lease: &Lease) {
        let process = &self.processes[lease.process];
        let is_on_its_way = process.job.as_ref().is_some_and(|job| {
            job.row == row
                && job.token == self.rows[row].token
                && matches!(job.phase, Phase::Begun(_))
        });
        if is_on_its_way {
            if process.beat == self.now {
                self.rows[row].overtaken = true;
            } else {
                self.rows[row].excused += 1;
            }
        }
    }
}

impl Model for Rules {
    type State = State;
    type Action = Event;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            rows: Default::default(),
            pause: None,
            processes: Default::default(),
            faults_left: self.faults,
        }]
    }

    fn actions(&self, state: &State, events: &mut Vec<Event>) {
        // A request of a process that runs ends in time, with an answer or without.
        let ends_now = |process: &Process| {
            process.condition == Condition::Runs
                && matches!(&process.job, Some(Job { phase: Phase::Begun(since), .. }) if since + REQUEST <= state.now)
        };
        if state.now < self.ticks && !state.processes.iter().any(ends_now) {
            events.push(Event::Tick);
        }
        for (number, process) in state.processes.iter().enumerate() {
            let is_its = |lease: &Lease| lease.process == number && lease.epoch == process.epoch;
            let has_leases = state
                .rows
                .iter()
                .any(|row| row.lease.as_ref().is_some_and(is_its));
            if has_leases && !process.is_marked_dead && self.is_silent(state, process) {
                events.push(Event::MarkDead(number));
            }
            match process.condition {
                Condition::Runs => {}
                Condition::StandsStill => {
                    events.push(Event::GoOn(number));
                    continue;
                }
                Condition::Crashed => continue,
            }
            if state.faults_left > 0 && process.job.is_some() {
                events.extend([Event::Crash(number), Event::StandStill(number)]);
            }
            match &process.job {
                None => {
                    // The first in the line.
                    let free = (0..ROWS).filter(|row| {
                        let row = &state.rows[*row];
                        row.token < self.claims && self.can_be_claimed(state, row)
                    });
                    events.extend(
                        free.min_by_key(|row| state.rows[*row].due)
                            .map(|row| Event::Claim(number, row)),
                    );
                }
                Some(job) => match job.phase {
                    Phase::Claimed if self.may_begin(state, process, job) => {
                        events.push(Event::Begin(number))
                    }
                    Phase::Claimed => events.push(Event::Release(number)),
                    Phase::Begun(_) => {
                        use Response::{Accepted, Refused, TryAgain};
                        events.extend(
                            [Accepted, TryAgain, Refused]
                                .map(|response| Event::Respond(number, response)),
                        );
                    }
                    Phase::Answered(_) => events.push(Event::Settle(number)),
                },
            }
        }
    }

    fn next_state(&self, state: &State, event: Event) -> Option<State> {
        let mut state = state.clone();
        let now = state.now;
        match event {
            Event::Tick => {
                state.now += 1;
                let now = state.now;
                for process in state
                    .processes
                    .iter_mut()
                    .filter(|process| process.condition == Condition::Runs)
                {
                    process.beat = now;
                    if std::mem::take(&mut process.is_marked_dead) {
                        process.epoch += 1;
                    }
                }
            }
            Event::Claim(process, row) => self.claim(&mut state, process, row),
            Event::Begin(process) => {
                let job = state.processes[process].job.as_mut()?;
                job.phase = Phase::Begun(now);
                state.rows[job.row].unanswered += 1;
            }
            Event::Respond(process, response) => {
                let job = state.processes[process].job.as_mut()?;
                job.phase = Phase::Answered(response);
                state.rows[job.row].unanswered -= 1;
            }
            Event::Settle(process) => {
                let job = state.processes[process].job.take()?;
                if let Phase::Answered(response) = job.phase {
                    self.settle(&mut state, &job, response);
                }
                if self.breaks(Mistake::TokenIsNotSpent) && state.faults_left > 0 {
                    // It repeats the call, as after a lost connection.
                    state.faults_left -= 1;
                    state.processes[process].job = Some(job);
                }
            }
            Event::Release(process) => {
                let job = state.processes[process].job.take()?;
                self.put(&mut state, &job, Settlement::DueAt(now));
            }
            Event::MarkDead(process) => self.mark_dead(&mut state, process),
            Event::Crash(process) => {
                state.faults_left -= 1;
                state.processes[process].condition = Condition::Crashed;
                let job = state.processes[process].job.take();
                if let Some(job) = job.filter(|job| matches!(job.phase, Phase::Begun(_))) {
                    state.rows[job.row].excused += 1;
                }
            }
            Event::StandStill(process) => {
                state.faults_left -= 1;
                state.processes[process].condition = Condition::StandsStill;
            }
            Event::GoOn(process) => state.processes[process].condition = Condition::Runs,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a recipient is counted once", |_, state: &State| {
                state.rows.iter().all(|row| row.finished <= 1)
            }),
            Property::always(
                "a second request only after a crash or a standstill",
                |_, state: &State| {
                    state
                        .rows
                        .iter()
                        .all(|row| row.unanswered <= 1 + row.excused)
                },
            ),
            Property::always(
                "no request of a running process outlasts its lease",
                |_, state: &State| state.rows.iter().all(|row| !row.overtaken),
            ),
            Property::always("one probe at a time", |_, state: &State| {
                let probes = state.rows.iter().filter_map(|row| row.lease.as_ref());
                probes
                    .filter(|lease| lease.is_probe && lease.until > state.now)
                    .count()
                    <= 1
            }),
            Property::always(
                "no row and no pause waits for ever",
                |rules: &Self, state: &State| {
                    let latest = state.now + LEASE.max(PAUSE);
                    let can_be_taken = |row: &Row| {
                        row.finished > 0
                            || row.lease.as_ref().map_or(row.due, |lease| lease.until) <= latest
                                && !(row
                                    .lease
                                    .as_ref()
                                    .is_some_and(|lease| lease.until <= state.now)
                                    && state.pause.is_none()
                                    && !rules.can_be_claimed(state, row))
                    };
                    state.rows.iter().all(can_be_taken)
                        && state
                            .pause
                            .as_ref()
                            .is_none_or(|pause| pause.until <= latest)
                },
            ),
            // What the promises above are about does happen.
            Property::sometimes("all is delivered", |_, state: &State| {
                state.rows.iter().all(|row| row.finished == 1)
            }),
            Property::sometimes(
                "a process that stood still has lost its row",
                |_, state: &State| {
                    state.processes.iter().any(|process| {
                        let has_lost = |job: &Job| {
                            job.token < state.rows[job.row].token && job.phase == Phase::Claimed
                        };
                        process.condition == Condition::Runs
                            && process.job.as_ref().is_some_and(has_lost)
                    })
                },
            ),
            Property::sometimes(
                "a message is sent twice after a fault",
                |_, state: &State| state.rows.iter().any(|row| row.unanswered == 2),
            ),
            Property::sometimes("a probe is on its way", |_, state: &State| {
                state.rows.iter().any(|row| {
                    row.lease.as_ref().is_some_and(|lease| lease.is_probe) && row.unanswered == 1
                })
            }),
        ]
    }
}

/// The promises that the search finds broken, or if all rules are kept also what should happen and never does.
fn broken(mistake: Option<Mistake>, [ticks, faults, claims]: [u8; 3]) -> Vec<&'static str> {
    let rules = Rules {
        mistake,
        ticks,
        faults,
        claims,
    };
    let properties = rules.properties();
    // The first counterexample is enough.
    let found = rules
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let is_broken = |property: &Property<Rules>| {
        let is_found = found.discovery(property.name).is_some();
        match property.expectation {
            Expectation::Sometimes => mistake.is_none() && !is_found,
            _ => is_found,
        }
    };
    properties
        .iter()
        .filter(|property| is_broken(property))
        .map(|property| property.name)
        .collect()
}

#[test]
fn the_rules_keep_the_promises() {
    // A larger search for a night: `WEB_PUSH_PROTOCOL=6,2,3`, which are ticks, faults and claims.
    let bounds = std::env::var("WEB_PUSH_PROTOCOL").map_or([4, 1, 2], |text| {
        let numbers: Vec<_> = text
            .split(',')
            .map(|number| number.parse().expect("a number"))
            .collect();
        numbers.try_into().expect("three numbers")
    });
    assert_eq!(broken(None, bounds), [""; 0]);
}

#[test]
fn each_mistake_breaks_a_promise() {
    for (mistake, promise) in [
        (
            Mistake::BeginsTooLate,
            "no request of a running process outlasts its lease",
        ),
        (
            Mistake::SettlesWithAnyToken,
            "a second request only after a crash or a standstill",
        ),
        (Mistake::TokenIsNotSpent, "a recipient is counted once"),
        (
            Mistake::ClaimsLeasedRows,
            "no request of a running process outlasts its lease",
        ),
        (Mistake::EveryClaimIsAProbe, "one probe at a time"),
        (
            Mistake::ProbeHoldsForEver,
            "no row and no pause waits for ever",
        ),
        (
            Mistake::DeadProcessBegins,
            "a second request only after a crash or a standstill",
        ),
        (
            Mistake::DeclaresTheLivingDead,
            "no request of a running process outlasts its lease",
        ),
        (
            Mistake::LeaseNeverEnds,
            "no row and no pause waits for ever",
        ),
    ] {
        let found = broken(Some(mistake), [6, 1, 3]);
        assert!(found.contains(&promise), "{mistake:?} breaks {found:?}");
    }
}
