//! Runs each mutant's tests until one fails.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use crate::copy::Binary;
use crate::places::Mutant;
use crate::process::{Ended, Run, run, side_by_side};
use crate::visits::Test;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// By this test.
    Killed(String),
    /// A test never ended, or took much longer than without the mutant.
    TimedOut,
    /// After so many tests.
    Survived(usize),
    /// No test comes by.
    Unvisited,
}

impl Verdict {
    pub fn is_caught(&self) -> bool {
        matches!(self, Self::Killed(_) | Self::TimedOut)
    }
}

pub struct Judge<'a> {
    pub binaries: &'a [Binary],
    pub tests: &'a [Test],
    pub folder: &'a Path,
    pub jobs: usize,
    /// Tests of a mutant are run for this long in all, by their time without it.
    pub budget: Duration,
}

impl Judge<'_> {
    /// The verdict on each of these mutants.
    pub fn all(
        &self,
        mutants: &[Mutant],
        chosen: &[usize],
        told: impl Fn(usize, &Verdict) + Sync,
    ) -> Vec<Verdict> {
        let mut visitors: HashMap<usize, Vec<usize>> = HashMap::new();
        for (number, test) in self.tests.iter().enumerate() {
            for place in &test.visits {
                visitors.entry(*place).or_default().push(number);
            }
        }
        // What killed a mutant of a function is likely to kill the next one.
        let kills: Mutex<HashMap<(String, String), Vec<usize>>> = Mutex::default();
        side_by_side(chosen, self.jobs, |place| {
            let Some(tests) = visitors.get(place) else {
                told(*place, &Verdict::Unvisited);
                return Verdict::Unvisited;
            };
            let mutant = &mutants[*place];
            let function = (mutant.file.clone(), mutant.function.clone());
            let first = kills
                .lock()
                .map(|kills| kills.get(&function).cloned().unwrap_or_default());
            let ordered = self.ordered(tests, &first.unwrap_or_default());
            let verdict = self.one(*place, &ordered);
            if let Verdict::Killed(name) = &verdict
                && let Some(test) = tests.iter().find(|test| self.tests[**test].name == *name)
                && let Ok(mut kills) = kills.lock()
            {
                let of = kills.entry(function).or_default();
                of.retain(|other| other != test);
                of.insert(0, *test);
                of.truncate(4);
            }
            told(*place, &verdict);
            verdict
        })
    }

    /// Quick tests first, and among them those that visit little else.
    fn ordered(&self, tests: &[usize], first: &[usize]) -> Vec<usize> {
        let mut ordered = tests.to_vec();
        ordered.sort_by_key(|number| {
            let test = &self.tests[*number];
            let place = first.iter().position(|other| other == number);
            let breadth = 1 + test.visits.len() as u128 / 100;
            (place.unwrap_or(usize::MAX), test.time.as_micros() * breadth)
        });
        ordered
    }

    fn one(&self, place: usize, ordered: &[usize]) -> Verdict {
        let mut left = self.budget;
        let mut done = 0;
        let mut size = 3;
        let mut rest = ordered;
        while !rest.is_empty() && (done == 0 || left > Duration::ZERO) {
            let mut taken = 0;
            let mut time = Duration::ZERO;
            // Some tests at a time: a process costs more than a quick test, and slow ones are not to delay the others.
            while taken < rest.len()
                && taken < size
                && (taken == 0 || time < Duration::from_secs(4))
            {
                time += self.tests[rest[taken]].time;
                taken += 1;
            }
            let (batch, others) = rest.split_at(taken);
            if let Some(verdict) = self.batch(place, batch) {
                return verdict;
            }
            left = left.saturating_sub(time);
            done += taken;
            rest = others;
            size = (size * 4).min(64);
        }
        Verdict::Survived(done)
    }

    fn batch(&self, place: usize, batch: &[usize]) -> Option<Verdict> {
        for (number, binary) in self.binaries.iter().enumerate() {
            let tests: Vec<_> = batch.iter().map(|test| &self.tests[*test]).collect();
            let tests: Vec<_> = tests
                .into_iter()
                .filter(|test| test.binary == number)
                .collect();
            if tests.is_empty() {
                continue;
            }
            let names: Vec<_> = tests.iter().map(|test| test.name.as_str()).collect();
            let time: Duration = tests.iter().map(|test| test.time).sum();
            let ended = run(
                binary,
                &names,
                &Run {
                    folder: self.folder,
                    threads: 2,
                    limit: Duration::from_secs(8) + time * 4,
                    mutant: Some(place),
                    notes: None,
                },
            );
            match ended {
                Ended::Passed => {}
                Ended::Failed(name) => return Some(Verdict::Killed(name)),
                Ended::TimedOut => return Some(Verdict::TimedOut),
            }
        }
        None
    }
}
