//! Prints what came of a run: a row for each file and each set, and what has to be acted on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

use crate::judge::Verdict;
use crate::kept::Kept;
use crate::places::Mutant;
use crate::results::name;
use crate::sample::interval;
use crate::sets::Group;

/// A set, and those of its mutants that the run is about.
#[derive(Debug)]
pub struct Part<'a> {
    pub group: &'a Group,
    pub places: Vec<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Row {
    judged: usize,
    caught: usize,
    kept: usize,
    new: usize,
}

impl AddAssign for Row {
    fn add_assign(&mut self, other: Self) {
        self.judged += other.judged;
        self.caught += other.caught;
        self.kept += other.kept;
        self.new += other.new;
    }
}

impl Row {
    fn of(mutant: &Mutant, verdict: &Verdict, kept: &Kept) -> Self {
        let is_kept = !verdict.is_caught() && kept.contains_key(&mutant.key());
        Self {
            judged: 1,
            caught: usize::from(verdict.is_caught()),
            kept: usize::from(is_kept),
            new: usize::from(!verdict.is_caught() && !is_kept),
        }
    }

    fn print(self, name: &str, after: &str) {
        println!(
            "{name:<40} {:>8} {:>8} {:>8} {:>8}{after}",
            self.judged, self.caught, self.kept, self.new
        );
    }

    /// The share that is caught, and how far that of the set may be from it if this is a sample.
    fn share(self, is_sample: bool) -> String {
        let share = 100.0 * self.caught as f64 / self.judged.max(1) as f64;
        if !is_sample {
            return format!("  {share:.1} %");
        }
        let (low, high) = interval(self.caught, self.judged);
        format!("  {share:.1} % ({:.1} to {:.1})", 100.0 * low, 100.0 * high)
    }
}

/// Returns whether there is nothing that has to be acted on.
pub fn report(
    mutants: &[Mutant],
    verdicts: &BTreeMap<usize, Verdict>,
    kept: &Kept,
    parts: &[Part<'_>],
) -> bool {
    let rows: BTreeMap<_, _> = verdicts
        .iter()
        .map(|(place, verdict)| (*place, Row::of(&mutants[*place], verdict, kept)))
        .collect();
    println!(
        "{:<40} {:>8} {:>8} {:>8} {:>8}",
        "", "judged", "caught", "kept", "new"
    );
    let mut files: BTreeMap<&str, Row> = BTreeMap::new();
    let mut all = Row::default();
    for (place, row) in &rows {
        *files.entry(&mutants[*place].file).or_default() += *row;
        all += *row;
    }
    for (file, row) in files {
        row.print(file, "");
    }
    for part in parts {
        let mut sum = Row::default();
        for row in part.places.iter().filter_map(|place| rows.get(place)) {
            sum += *row;
        }
        let found = mutants.iter().filter(|mutant| part.group.has(&mutant.file));
        let after = format!(
            "{} of {} places",
            sum.share(part.group.sample.is_some()),
            found.count()
        );
        sum.print(&part.group.name, &after);
    }
    if parts.len() > 1 {
        // Without a share: what samples add to it has another weight than whole sets.
        all.print("all", "");
    }
    let new = rows.iter().filter(|(_, row)| row.new > 0);
    let new: Vec<_> = new
        .map(|(place, _)| line(&mutants[*place], &verdicts[place]))
        .collect();
    if !new.is_empty() {
        println!(
            "\nNew survivors. Each needs a test that fails with it, or a line in tests/mutants/kept.txt with the reason:"
        );
    }
    for line in &new {
        println!("  {line}");
    }
    let caught = verdicts.iter().filter(|(_, verdict)| verdict.is_caught());
    for (place, _) in caught {
        if kept.contains_key(&mutants[*place].key()) {
            println!("in kept.txt, but caught now: {}", name(&mutants[*place]));
        }
    }
    for (file, text) in stale(mutants, kept, parts) {
        println!("in kept.txt, but not in the source: {file} {text}");
    }
    new.is_empty()
}

/// What the list has of these files that the source does not: whether a mutant was drawn, or compiles, does not matter.
fn stale<'a>(mutants: &[Mutant], kept: &'a Kept, parts: &[Part<'_>]) -> Vec<&'a (String, String)> {
    let known: BTreeSet<_> = mutants.iter().map(Mutant::key).collect();
    let of_run = |file: &str| parts.iter().any(|part| part.group.has(file));
    let listed = kept.keys().filter(|key| of_run(&key.0));
    listed.filter(|key| !known.contains(key)).collect()
}

pub fn line(mutant: &Mutant, verdict: &Verdict) -> String {
    let why = match verdict {
        Verdict::Survived(tests) => format!("{tests} tests pass"),
        Verdict::Unvisited => "no test comes by".to_owned(),
        Verdict::Killed(name) => format!("killed by {name}"),
        Verdict::TimedOut => "timed out".to_owned(),
    };
    format!(
        "{}:{}: {}: {} [{why}]",
        mutant.file, mutant.line, mutant.function, mutant.text
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    fn mutant(text: &str) -> Mutant {
        Mutant {
            file: "a.rs".to_owned(),
            line: 1,
            function: "f".to_owned(),
            text: text.to_owned(),
        }
    }

    fn kept(texts: &[&str]) -> Kept {
        let of = |text: &&str| (mutant(text).key(), "Because.".to_owned());
        texts.iter().map(of).collect()
    }

    #[test]
    fn a_survivor_is_kept_or_new_and_neither_if_it_is_caught() {
        let row = |text: &str, verdict| Row::of(&mutant(text), &verdict, &kept(&["x"]));
        let numbers = |row: Row| (row.judged, row.caught, row.kept, row.new);
        let killed = || Verdict::Killed("t".to_owned());
        assert_eq!(numbers(row("x", Verdict::Survived(3))), (1, 0, 1, 0));
        assert_eq!(numbers(row("y", Verdict::Unvisited)), (1, 0, 0, 1));
        assert_eq!(numbers(row("x", killed())), (1, 1, 0, 0));
        assert_eq!(numbers(row("y", Verdict::TimedOut)), (1, 1, 0, 0));
    }

    #[test]
    fn a_sample_says_nothing_of_entries_that_it_has_not_drawn() {
        let group = Group {
            name: "g".to_owned(),
            files: vec!["a.rs".to_owned()],
            sample: Some(Sample { size: 1, seed: 1 }),
        };
        let mutants = ["x", "y", "z"].map(mutant);
        // Only `y` is drawn.
        let parts = [Part {
            group: &group,
            places: vec![1],
        }];
        let list = kept(&["x", "gone"]);
        let stale = stale(&mutants, &list, &parts);
        assert_eq!(stale, [&mutant("gone").key()]);
        let verdicts = |verdict| BTreeMap::from([(1, verdict)]);
        let caught = verdicts(Verdict::TimedOut);
        assert!(report(&mutants, &caught, &list, &parts));
        let survived = verdicts(Verdict::Survived(1));
        assert!(!report(&mutants, &survived, &list, &parts));
        assert!(report(&mutants, &survived, &kept(&["y"]), &parts));
    }

    #[test]
    fn a_sample_has_an_interval_and_a_whole_run_none() {
        let row = Row {
            judged: 100,
            caught: 90,
            ..Row::default()
        };
        assert_eq!(row.share(false), "  90.0 %");
        assert_eq!(row.share(true), "  90.0 % (82.6 to 94.5)");
    }
}
