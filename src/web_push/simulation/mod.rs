//! Deterministic simulation: three replicas of the program, and everything around them, driven from one seed.
//!
//! Each replica is a [`WebPush`](crate::WebPush) in a runtime of its own with simulated time ([`host`]). They share a
//! database ([`store`]) and send to push services ([`push_services`]). A [`plan`], drawn from the seed, says what happens:
//! messages of all kinds, and faults of processes, machines, clocks, the network, the database and the push services.
//! [`world`] knows what is true, and whether the promises of the crate are kept ([`ledger`], [`push_services`],
//! [`promises`]). `README.md` beside this file says which, and which bugs it was shown to find.
//!
//! A seed gives the same trace each time. A failure prints its seed, the events without which it does not happen, and the
//! trace of the run with only these.

mod beats;
mod clock;
mod duties;
mod host;
mod ledger;
mod plan;
mod promises;
mod push_services;
mod rng;
mod run;
mod store;
mod world;

use std::env;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use self::plan::Plan;
use self::run::{Ended, simulate};

/// The number of seeds, and the first one.
const SEEDS: &str = "WEB_PUSH_SIMULATION_SEEDS";
const FIRST: &str = "WEB_PUSH_SIMULATION_FIRST";
const USUAL_SEEDS: u64 = 1_000;
/// The number of seeds that are run twice.
const TWICE: &str = "WEB_PUSH_SIMULATION_TWICE";
const USUALLY_TWICE: u64 = 40;
/// The lines of a trace that are printed.
const SHOWN: usize = 400;

fn number(name: &str, usual: u64) -> u64 {
    env::var(name).map_or(usual, |number| number.parse().unwrap())
}

/// Leaves out what a failure does not need: as long as a plan without one of its events or strangers fails too.
fn shrink(mut plan: Plan, fails: impl Fn(&Plan) -> bool) -> Plan {
    loop {
        let smaller = (0..plan.events.len()).rev().map(|place| {
            let mut smaller = plan.clone();
            smaller.events.remove(place);
            smaller
        });
        // Strangers come last.
        let stranger = plan.recipients.last().filter(|last| last.1.is_some());
        let fewer = stranger.map(|_| {
            let mut fewer = plan.clone();
            fewer.recipients.pop();
            fewer
        });
        let found = smaller.chain(fewer).find(|smaller| fails(smaller));
        match found {
            Some(smaller) => plan = smaller,
            None => return plan,
        }
    }
}

/// Describes a failure by its shortest trace.
fn explain(seed: u64, ended: &Ended) -> String {
    let plan = shrink(Plan::of(seed), |plan| simulate(plan).broken.is_some());
    let shortest = simulate(&plan);
    let mut text = format!(
        "seed {seed}: {}\n{FIRST}={seed} {SEEDS}=1 repeats it.\nwith fewer events: {}\n",
        ended.broken.as_deref().unwrap_or_default(),
        shortest.broken.as_deref().unwrap_or_default(),
    );
    for event in &plan.events {
        let _ = writeln!(text, "  {event:?}");
    }
    for (number, mail) in plan.mails.iter().enumerate() {
        let _ = writeln!(text, "  m{number:03} is {mail:?}");
    }
    let _ = writeln!(text, "  recipients: {:?}", plan.recipients);
    let hidden = shortest.trace.len().saturating_sub(SHOWN);
    for line in shortest.trace.iter().skip(hidden) {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// What all seeds together did.
#[derive(Debug, Default)]
struct Sum {
    seeds: u64,
    requests: u64,
    faults: u64,
    lasted: Duration,
    /// The sum of the [prints](Ended::print), whatever their order: the same in each process.
    prints: u64,
    failures: Vec<String>,
}

/// Calls a function for seeds, on all cores, until it breaks off.
fn on_all_cores(first: u64, seeds: u64, one: impl Fn(u64) -> ControlFlow<()> + Sync) {
    let next = AtomicU64::new(first);
    let is_over = AtomicBool::new(false);
    let run = || {
        while !is_over.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds || one(seed).is_break() {
                is_over.store(true, Ordering::Relaxed);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(run);
        }
    });
}

/// Runs seeds until one fails.
fn run_seeds(first: u64, seeds: u64) -> Sum {
    let sum = Mutex::new(Sum::default());
    on_all_cores(first, seeds, |seed| {
        let ended = simulate(&Plan::of(seed));
        let failure = ended.broken.as_ref().map(|broken| {
            // Reducing it takes a while.
            println!("seed {seed}: {broken}");
            explain(seed, &ended)
        });
        let mut sum = sum.lock().unwrap();
        sum.seeds += 1;
        if sum.seeds.is_multiple_of(10_000) {
            println!("{} seeds, the last one was {seed}", sum.seeds);
        }
        sum.requests += ended.requests;
        sum.faults += ended.faults;
        sum.lasted += ended.lasted;
        sum.prints = sum.prints.wrapping_add(ended.print());
        let has_failed = failure.is_some();
        sum.failures.extend(failure);
        match has_failed {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    sum.into_inner().unwrap()
}

/// How many seeds: `WEB_PUSH_SIMULATION_SEEDS`, from `WEB_PUSH_SIMULATION_FIRST` on.
#[test]
fn every_promise_is_kept_under_every_seed() {
    let began = Instant::now();
    let sum = run_seeds(number(FIRST, 0), number(SEEDS, USUAL_SEEDS));
    println!(
        "{} seeds in {:.0} s: {} faults, {} requests, {} h of simulated time, traces {:016x}",
        sum.seeds,
        began.elapsed().as_secs_f64(),
        sum.faults,
        sum.requests,
        sum.lasted.as_secs() / 3600,
        sum.prints,
    );
    assert!(sum.failures.is_empty(), "{}", sum.failures.join("\n"));
    assert!(sum.requests > 0);
}

/// How many seeds: `WEB_PUSH_SIMULATION_TWICE`, from `WEB_PUSH_SIMULATION_FIRST` on.
#[test]
fn the_same_seed_gives_the_same_trace() {
    let differing = Mutex::new(Vec::new());
    on_all_cores(number(FIRST, 0), number(TWICE, USUALLY_TWICE), |seed| {
        let plan = Plan::of(seed);
        let (first, second) = (simulate(&plan), simulate(&plan));
        if first != second {
            let mut lines = first.trace.iter().zip(&second.trace).enumerate();
            let differs = lines.find(|(_, (a, b))| a != b);
            let same = (
                first.trace.len(),
                second.trace.len(),
                first.drawn,
                second.drawn,
            );
            let text = format!("seed {seed}: {differs:?}, {same:?}");
            println!("{text}");
            differing.lock().unwrap().push(text);
        }
        ControlFlow::Continue(())
    });
    let differing = differing.into_inner().unwrap();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    assert_ne!(simulate(&Plan::of(0)), simulate(&Plan::of(1)));
}

#[test]
fn a_failure_is_reduced_to_the_events_that_it_needs() {
    let plan = (0..)
        .map(Plan::of)
        .find(|plan| plan.events.len() > 9)
        .unwrap();
    let needed = [plan.events[2].at, plan.events[7].at];
    let fails = |plan: &Plan| {
        let has = |at: &Duration| plan.events.iter().any(|event| event.at == *at);
        needed.iter().all(has)
    };
    let small = shrink(plan, fails);
    let left: Vec<_> = small.events.iter().map(|event| event.at).collect();
    assert_eq!(left, needed);
    assert!(
        small
            .recipients
            .iter()
            .all(|(_, stranger)| stranger.is_none())
    );
}
