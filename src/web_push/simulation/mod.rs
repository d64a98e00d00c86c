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
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use self::plan::Plan;
use self::run::{Ended, simulate};

/// The number of seeds, and the first one.
const SEEDS: &str = "WEB_PUSH_SIMULATION_SEEDS";
const FIRST: &str = "WEB_PUSH_SIMULATION_FIRST";
const USUAL_SEEDS: u64 = 1_000;
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
    failures: Vec<String>,
}

/// Runs seeds on all cores, until one fails.
fn run_seeds(first: u64, seeds: u64) -> Sum {
    let next = AtomicU64::new(first);
    let sum = Mutex::new(Sum::default());
    let one = || {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= first + seeds || !sum.lock().unwrap().failures.is_empty() {
            return ControlFlow::Break(());
        }
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
        sum.failures.extend(failure);
        ControlFlow::Continue(())
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| while one().is_continue() {});
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
        "{} seeds in {:.0} s: {} faults, {} requests, {} h of simulated time",
        sum.seeds,
        began.elapsed().as_secs_f64(),
        sum.faults,
        sum.requests,
        sum.lasted.as_secs() / 3600,
    );
    assert!(sum.failures.is_empty(), "{}", sum.failures.join("\n"));
    assert!(sum.requests > 0);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        let plan = Plan::of(seed);
        let (first, second) = (simulate(&plan), simulate(&plan));
        let differing = first.trace.iter().zip(&second.trace).find(|(a, b)| a != b);
        assert_eq!(differing, None, "seed {seed}");
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
    }
    assert_ne!(simulate(&Plan::of(0)).trace, simulate(&Plan::of(1)).trace);
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
