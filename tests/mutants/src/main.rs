//! Mutation tests of the crate: all mutants are in one build, and an environment variable chooses one. `README.md` has the
//! rest.

mod constants;
mod copy;
mod judge;
mod kept;
mod places;
mod process;
mod render;
mod report;
mod results;
mod sample;
mod sets;
mod visits;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs, io};

use copy::Copy;
use judge::Judge;
use report::Part;
use results::{Results, name};
use sample::Sample;
use sets::{Group, SETS, sources};

const HELP: &str = "mutants [SET or FILE]... [OPTION]...

Sets: pure (without a name), flow, rules, values, deliver, engine, stores, postgres, redis, api.

  --list           prints the mutants, and builds nothing
  --sample NUMBER  judges only NUMBER mutants of each set, chosen at random, and prints the 95 % confidence interval;
                   SET=NUMBER instead of SET for this one only
  --seed NUMBER    chooses other ones; default: 1
  --again          only the mutants that the last run of these files did not catch, or did not come to
  --only TEXT      only mutants whose name contains this text
  --tests NAME     another binary with tests: engine, stores, pure
  --skip TEXT      no tests whose names begin with this
  --jobs NUMBER    processes at a time; default: the number of cores
  --seconds NUMBER tests of a mutant at most, by their time without it; default: 40
";

struct Options {
    groups: Vec<Group>,
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
    let (mut tests, mut names) = (Vec::new(), Vec::new());
    let (mut size, mut seed) = (None, sample::SEED);
    let mut options = Options {
        groups: Vec::new(),
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
            "--sample" => size = Some(value()?.parse().map_err(io::Error::other)?),
            "--seed" => seed = value()?.parse().map_err(io::Error::other)?,
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
    let mut paths = Vec::new();
    let sample_of = |size: Option<usize>| size.map(|size| Sample { size, seed });
    for word in &names {
        let (name, own) = word.split_once('=').unzip();
        let name = name.unwrap_or(word);
        let own = own.map(str::parse).transpose().map_err(io::Error::other)?;
        match SETS.iter().find(|set| set.name == name) {
            Some(set) => {
                options.groups.push(Group {
                    name: name.to_owned(),
                    files: sources(&root(), set.files)?,
                    sample: sample_of(own.or(size)),
                });
                tests.extend(set.tests.iter().map(|test| (*test).to_owned()));
            }
            None => paths.push(word.as_str()),
        }
    }
    if !paths.is_empty() {
        options.groups.push(Group {
            name: "files".to_owned(),
            files: sources(&root(), &paths)?,
            sample: sample_of(size),
        });
    }
    tests.sort();
    tests.dedup();
    options.tests = tests;
    options.name = names
        .join("+")
        .replace('/', "_")
        .chars()
        .take(100)
        .collect();
    // What a whole run has found out stays.
    if let Some(size) = size {
        options.name.push_str(&format!("-sample-{size}"));
    }
    if seed != sample::SEED {
        options.name.push_str(&format!("-seed-{seed}"));
    }
    Ok(Some(options))
}

fn go(options: &Options) -> io::Result<bool> {
    let root = root();
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let scratch = target.join("mutants");
    let folder = scratch.join("copy");
    fs::create_dir_all(&folder)?;
    let kept = kept::read(&root.join("tests/mutants/kept.txt"))?;
    let mut copy = Copy::new(&root, &folder, &options.groups)?;
    if options.list {
        let compile = copy.compiling();
        for place in &compile {
            let mutant = &copy.mutants[*place];
            println!(
                "{}:{} {}: {}",
                mutant.file, mutant.line, mutant.function, mutant.text
            );
        }
        println!("{} mutants, if all of them compile", compile.len());
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

    let compile = copy.compiling();
    let parts: Vec<_> = options
        .groups
        .iter()
        .map(|group| Part {
            group,
            places: group.judged(&copy.mutants, &compile),
        })
        .collect();
    // In the order of the sets; a file may be in two of them.
    let mut seen = BTreeSet::new();
    let wanted = parts.iter().flat_map(|part| &part.places).copied();
    let mut wanted: Vec<_> = wanted.filter(|place| seen.insert(*place)).collect();
    if let Some(only) = &options.only {
        wanted.retain(|place| name(&copy.mutants[*place]).contains(only));
    }
    let path = scratch.join(format!("{}.txt", options.name));
    let results = Results::open(&path, options.again || options.only.is_some())?;
    let mut chosen = wanted.clone();
    if options.again {
        chosen.retain(|place| !results.is_caught(&copy.mutants[*place]));
    }
    eprintln!("{} mutants to judge", chosen.len());
    let judge = Judge {
        binaries: &binaries,
        tests: &tests,
        folder: &folder,
        jobs: options.jobs,
        budget: options.budget,
    };
    judge.all(&copy.mutants, &chosen, |place, verdict| {
        let mutant = &copy.mutants[place];
        results.note(mutant, verdict);
        if !verdict.is_caught() && !kept.contains_key(&mutant.key()) {
            eprintln!("survives: {}", report::line(mutant, verdict));
        }
    });
    let verdicts = wanted
        .iter()
        .filter_map(|place| Some((*place, results.of(&copy.mutants[*place])?)))
        .collect();
    let is_good = report::report(&copy.mutants, &verdicts, &kept, &parts);
    eprintln!(
        "{} s in all; {}",
        started.elapsed().as_secs(),
        path.display()
    );
    Ok(is_good)
}
