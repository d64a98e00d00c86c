//! What is known of each mutant of a run, in a file: a run that is interrupted goes on with `--again`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::judge::Verdict;
use crate::places::Mutant;

pub struct Results {
    known: Mutex<Known>,
}

struct Known {
    verdicts: BTreeMap<String, Verdict>,
    file: File,
}

impl Results {
    /// The results in this file, with what is there already if it is to be kept.
    pub fn open(path: &Path, keeps: bool) -> io::Result<Self> {
        let text = match keeps {
            true => fs::read_to_string(path).unwrap_or_default(),
            false => String::new(),
        };
        // A later line says more than an earlier one.
        let verdicts: BTreeMap<_, _> = text.lines().filter_map(parse).collect();
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        for (name, verdict) in &verdicts {
            writeln!(file, "{verdict:?}\t{name}")?;
        }
        Ok(Self {
            known: Mutex::new(Known { verdicts, file }),
        })
    }

    pub fn note(&self, mutant: &Mutant, verdict: &Verdict) {
        let mut known = self.known();
        let name = name(mutant);
        if let Err(error) = writeln!(known.file, "{verdict:?}\t{name}") {
            eprintln!("not written: {error}");
        }
        known.verdicts.insert(name, verdict.clone());
    }

    pub fn of(&self, mutant: &Mutant) -> Option<Verdict> {
        self.known().verdicts.get(&name(mutant)).cloned()
    }

    pub fn is_caught(&self, mutant: &Mutant) -> bool {
        self.of(mutant).is_some_and(|verdict| verdict.is_caught())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub fn name(mutant: &Mutant) -> String {
    let (file, text) = mutant.key();
    format!("{file} {text}")
}

/// A verdict as `Debug` writes it, a tab, and the name.
fn parse(line: &str) -> Option<(String, Verdict)> {
    let (verdict, name) = line.split_once('\t')?;
    let within = |start: &str, end: &str| verdict.strip_prefix(start)?.strip_suffix(end);
    let verdict = match verdict {
        "TimedOut" => Verdict::TimedOut,
        "Unvisited" => Verdict::Unvisited,
        _ => match within("Killed(\"", "\")") {
            Some(test) => Verdict::Killed(test.to_owned()),
            None => Verdict::Survived(within("Survived(", ")")?.parse().ok()?),
        },
    };
    Some((name.to_owned(), verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(text: &str) -> Mutant {
        Mutant {
            file: "a.rs".to_owned(),
            line: 1,
            function: "f".to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_run_that_is_interrupted_goes_on_with_what_it_knew() {
        let path = std::env::temp_dir().join(format!("mutants-results-{}", std::process::id()));
        let verdicts = [
            Verdict::Killed("some::test".to_owned()),
            Verdict::TimedOut,
            Verdict::Survived(12),
            Verdict::Unvisited,
        ];
        let mutants: Vec<_> = ["a", "b", "c", "d"].map(mutant).to_vec();
        let results = Results::open(&path, false).unwrap();
        for (mutant, verdict) in mutants.iter().zip(&verdicts) {
            results.note(mutant, verdict);
        }
        drop(results);

        let results = Results::open(&path, true).unwrap();
        for (mutant, verdict) in mutants.iter().zip(&verdicts) {
            assert_eq!(results.of(mutant).as_ref(), Some(verdict));
            assert_eq!(results.is_caught(mutant), verdict.is_caught());
        }
        assert_eq!(results.of(&mutant("e")), None);
        // Caught by a test that is new.
        results.note(&mutants[2], &verdicts[0]);
        drop(results);
        let results = Results::open(&path, true).unwrap();
        assert!(results.is_caught(&mutants[2]));
        drop(results);

        let results = Results::open(&path, false).unwrap();
        assert_eq!(results.of(&mutants[0]), None);
        fs::remove_file(path).unwrap();
    }
}
