//! Mutation tests of the crate: all mutants are in one build, and an environment variable chooses one. `README.md` has the
//! rest.

mod constants;
mod copy;
mod judge;
mod kept;
mod places;
mod process;
mod render;
mod sets;
mod visits;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs, io};

use copy::Copy;
use judge::{Judge, Verdict};
use places::Mutant;
use sets::{SETS, sources};

const HELP: &str = "mutants [SET or FILE]... [OPTION]...

Sets: pure (without a name), flow, rules, values, deliver, engine, stores, postgres, redis, api.

  --list           prints the mutants, and builds nothing
  --again          only the mutants that survived the last run of these files
  --only TEXT      only mutants whose name contains this text
  --tests NAME     another binary with tests: engine, stores, pure
  --skip TEXT      no tests whose names begin with this
  --jobs NUMBER    processes at a time; default: the number of cores
  --seconds NUMBER tests of a mutant at most, by their time without it; default: 40
";

struct Options {
    files: Vec<String>,
    tests: Vec<String>,
    name: String,
    list: bool,
    again: bool,
    only: Option<String>,
    skipped: Vec<String>,
    jobs: usize,
    budget: Duration,
}

fn main() -> ExitCode {
    match options().and_then(|options| options.map_or(Ok(true), |options| go(&options))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package).to_owned()
}

fn options() -> io::Result<Option<Options>> {
    let (mut paths, mut tests, mut names) = (Vec::new(), Vec::new(), Vec::new());
    let mut options = Options {
        files: Vec::new(),
        tests: Vec::new(),
        name: String::new(),
        list: false,
        again: false,
        only: None,
        skipped: Vec::new(),
        jobs: std::thread::available_parallelism().map_or(2, usize::from),
        budget: Duration::from_secs(40),
    };
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .ok_or_else(|| io::Error::other(format!("{word} needs a value")))
        };
        match word.as_str() {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(None);
            }
            "--list" => options.list = true,
            "--again" => options.again = true,
            "--only" => options.only = Some(value()?),
            "--skip" => options.skipped.push(value()?),
            "--tests" => tests.push(value()?),
            "--jobs" => options.jobs = value()?.parse().map_err(io::Error::other)?,
            "--seconds" => {
                options.budget = Duration::from_secs(value()?.parse().map_err(io::Error::other)?);
            }
            path => names.push(path.to_owned()),
        }
    }
    if names.is_empty() {
        names.push("pure".to_owned());
    }
    for name in &names {
        match SETS.iter().find(|set| set.name == name) {
            Some(set) => {
                paths.extend(set.files.iter().map(|file| (*file).to_owned()));
                tests.extend(set.tests.iter().map(|test| (*test).to_owned()));
            }
            None => paths.push(name.clone()),
        }
    }
    tests.sort();
    tests.dedup();
    let paths: Vec<_> = paths.iter().map(String::as_str).collect();
    options.files = sources(&root(), &paths)?;
    options.tests = tests;
    options.name = names.join("+").replace('/', "_").chars().take(60).collect();
    Ok(Some(options))
}

fn go(options: &Options) -> io::Result<bool> {
    let root = root();
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let scratch = target.join("mutants");
    let folder = scratch.join("copy");
    fs::create_dir_all(&folder)?;
    let kept = kept::read(&root.join("tests/mutants/kept.txt"))?;
    let mut copy = Copy::new(&root, &folder, options.files.clone())?;
    if options.list {
        for mutant in &copy.mutants {
            println!(
                "{}:{} {}: {}",
                mutant.file, mutant.line, mutant.function, mutant.text
            );
        }
        println!("{} mutants, if all of them compile", copy.mutants.len());
        return Ok(true);
    }
    // What builds the mutants may be started with a target folder of its own.
    let started = Instant::now();
    let tests: Vec<_> = options.tests.iter().map(String::as_str).collect();
    let binaries = copy.build(&tests)?;
    eprintln!("built in {} s", started.elapsed().as_secs());
    let tests = visits::visits(&binaries, &folder, &scratch, options.jobs, &options.skipped)?;
    eprintln!(
        "{} tests visit places; {} s so far",
        tests.len(),
        started.elapsed().as_secs()
    );

    let results = scratch.join(format!("{}.txt", options.name));
    let last = survivors(&results);
    let chosen: Vec<_> = (0..copy.mutants.len())
        .filter(|place| !copy.dropped.contains(place))
        .filter(|place| !options.again || last.contains(&name(&copy.mutants[*place])))
        .filter(|place| {
            let only = options.only.as_ref();
            only.is_none_or(|only| name(&copy.mutants[*place]).contains(only))
        })
        .collect();
    let judge = Judge {
        binaries: &binaries,
        tests: &tests,
        folder: &folder,
        jobs: options.jobs,
        budget: options.budget,
    };
    let verdicts = judge.all(&copy.mutants, &chosen, |place, verdict| {
        let mutant = &copy.mutants[place];
        if !verdict.is_caught() && !kept.contains_key(&mutant.key()) {
            eprintln!("survives: {}", line(mutant, verdict));
        }
    });
    let judged: Vec<_> = chosen
        .iter()
        .map(|place| &copy.mutants[*place])
        .zip(verdicts)
        .collect();
    let text: String = judged
        .iter()
        .map(|(mutant, verdict)| format!("{verdict:?}\t{}\n", name(mutant)))
        .collect();
    fs::write(&results, text)?;
    let is_good = report(&judged, &kept, &copy, options);
    eprintln!(
        "{} s in all; {}",
        started.elapsed().as_secs(),
        results.display()
    );
    Ok(is_good)
}

fn name(mutant: &Mutant) -> String {
    let (file, text) = mutant.key();
    format!("{file} {text}")
}

fn line(mutant: &Mutant, verdict: &Verdict) -> String {
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

/// The names that survived the run whose results these are.
fn survivors(results: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(results).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    let lines =
        lines.filter(|(verdict, _)| verdict.starts_with("Survived") || *verdict == "Unvisited");
    lines.map(|(_, name)| name.to_owned()).collect()
}

/// Prints a row for each file, and what has to be acted on. Returns whether there is nothing of the kind.
fn report(
    judged: &[(&Mutant, Verdict)],
    kept: &kept::Kept,
    copy: &Copy,
    options: &Options,
) -> bool {
    #[derive(Default)]
    struct Row {
        all: usize,
        caught: usize,
        kept: usize,
        new: usize,
    }
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    let mut new = Vec::new();
    let mut caught = Vec::new();
    for (mutant, verdict) in judged {
        let row = rows.entry(&mutant.file).or_default();
        row.all += 1;
        let is_kept = kept.contains_key(&mutant.key());
        if verdict.is_caught() {
            row.caught += 1;
            if is_kept {
                caught.push(name(mutant));
            }
        } else if is_kept {
            row.kept += 1;
        } else {
            row.new += 1;
            new.push(line(mutant, verdict));
        }
    }
    println!(
        "{:<40} {:>8} {:>8} {:>8} {:>8}",
        "file", "mutants", "caught", "kept", "new"
    );
    let mut sum = Row::default();
    for (file, row) in &rows {
        println!(
            "{file:<40} {:>8} {:>8} {:>8} {:>8}",
            row.all, row.caught, row.kept, row.new
        );
        sum = Row {
            all: sum.all + row.all,
            caught: sum.caught + row.caught,
            kept: sum.kept + row.kept,
            new: sum.new + row.new,
        };
    }
    let share = 100.0 * sum.caught as f64 / sum.all.max(1) as f64;
    println!(
        "{:<40} {:>8} {:>8} {:>8} {:>8}  {share:.1} %",
        "all", sum.all, sum.caught, sum.kept, sum.new
    );
    if !new.is_empty() {
        println!(
            "\nNew survivors. Each needs a test that fails with it, or a line in tests/mutants/kept.txt with the reason:"
        );
        for line in &new {
            println!("  {line}");
        }
    }
    for name in caught {
        println!("in kept.txt, but caught now: {name}");
    }
    // Names of a whole file can be compared only if all of its mutants were built.
    let known: BTreeSet<_> = copy.mutants.iter().map(Mutant::key).collect();
    for key in kept.keys() {
        if options.files.contains(&key.0) && !known.contains(key) {
            println!("in kept.txt, but not in the source: {} {}", key.0, key.1);
        }
    }
    new.is_empty()
}
