//! Which tests visit which places, and how long they take.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::copy::Binary;
use crate::process::{Ended, Run, list, run, side_by_side};

/// Slower tests are left out, and named.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Test {
    /// The number of its binary.
    pub binary: usize,
    pub name: String,
    pub time: Duration,
    /// The places that it visits.
    pub visits: Vec<usize>,
}

/// Runs every test once, alone. Those that fail without a mutant tell nothing of one.
pub fn visits(
    binaries: &[Binary],
    folder: &Path,
    scratch: &Path,
    jobs: usize,
    skipped: &[String],
) -> io::Result<Vec<Test>> {
    let build = build(binaries, skipped)?;
    if let Some(tests) = recall(&scratch.join("visits"), &build) {
        return Ok(tests);
    }
    let mut names = Vec::new();
    for (number, binary) in binaries.iter().enumerate() {
        let listed = list(binary, folder)?.into_iter();
        let listed = listed.filter(|name| !skipped.iter().any(|skip| name.starts_with(skip)));
        names.extend(listed.map(|name| (number, name)));
    }
    let notes_of = |place: usize| scratch.join(format!("visits-{place}"));
    let numbered: Vec<_> = names.iter().enumerate().collect();
    let noted = side_by_side(&numbered, jobs, |(place, (binary, name))| {
        let notes = notes_of(*place);
        let _ = fs::remove_file(&notes);
        let started = Instant::now();
        let ended = run(
            &binaries[*binary],
            &[name],
            &Run {
                folder,
                threads: 1,
                limit: LONGEST,
                mutant: None,
                notes: Some(&notes),
            },
        );
        let time = started.elapsed();
        let text = fs::read_to_string(&notes).unwrap_or_default();
        let _ = fs::remove_file(&notes);
        let mut visits: Vec<usize> = text.lines().filter_map(|line| line.parse().ok()).collect();
        visits.sort_unstable();
        visits.dedup();
        let test = Test {
            binary: *binary,
            name: name.clone(),
            time,
            visits,
        };
        (test, ended)
    });
    let mut tests = Vec::new();
    for (test, ended) in noted {
        match ended {
            Ended::Passed if test.visits.is_empty() => {}
            Ended::Passed => tests.push(test),
            Ended::Failed(why) => {
                eprintln!("left out, fails without a mutant: {} ({why})", test.name)
            }
            Ended::TimedOut => eprintln!("left out, too slow: {}", test.name),
        }
    }
    remember(&scratch.join("visits"), &build, &tests)?;
    Ok(tests)
}

/// What the visits depend on: the binaries, and what is left out.
fn build(binaries: &[Binary], skipped: &[String]) -> io::Result<String> {
    let mut build = skipped.join(" ");
    for binary in binaries {
        let written = fs::metadata(&binary.path)?.modified()?;
        build.push_str(&format!(" {} {written:?}", binary.path.display()));
    }
    Ok(build)
}

/// A line for the build, and one for each test.
fn remember(path: &Path, build: &str, tests: &[Test]) -> io::Result<()> {
    let mut text = format!("{build}\n");
    for test in tests {
        let visits: Vec<_> = test.visits.iter().map(usize::to_string).collect();
        let time = test.time.as_micros();
        let visits = visits.join(" ");
        text.push_str(&format!(
            "{}\t{}\t{time}\t{visits}\n",
            test.binary, test.name
        ));
    }
    fs::write(path, text)
}

fn recall(path: &Path, build: &str) -> Option<Vec<Test>> {
    let text = fs::read_to_string(path).ok()?;
    let mut lines = text.lines();
    if lines.next()? != build {
        return None;
    }
    lines
        .map(|line| {
            let mut parts = line.split('\t');
            Some(Test {
                binary: parts.next()?.parse().ok()?,
                name: parts.next()?.to_owned(),
                time: Duration::from_micros(parts.next()?.parse().ok()?),
                visits: parts
                    .next()?
                    .split(' ')
                    .filter_map(|visit| visit.parse().ok())
                    .collect(),
            })
        })
        .collect()
}
