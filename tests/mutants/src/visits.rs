//! Which tests visit which places, and how long they take.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::copy::Binary;
use crate::process::{Ended, Run, list, run, side_by_side};

/// Slower tests are left out, and named.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// The number of its binary.
    pub binary: usize,
    pub name: String,
    pub time: Duration,
    /// The places that it visits.
    pub visits: Vec<usize>,
}

/// Runs every test once, alone. Those that fail without a mutant tell nothing of one.
///
/// What each test visits is written at once: a run that is interrupted goes on where it was.
pub fn visits(
    binaries: &[Binary],
    folder: &Path,
    scratch: &Path,
    jobs: usize,
    skipped: &[String],
) -> io::Result<Vec<Test>> {
    let (path, build) = (scratch.join("visits"), build(binaries)?);
    let known = recall(&path, &build);
    let mut names = Vec::new();
    for (number, binary) in binaries.iter().enumerate() {
        let listed = list(binary, folder)?.into_iter();
        let listed = listed.filter(|name| !skipped.iter().any(|skip| name.starts_with(skip)));
        names.extend(listed.map(|name| (number, name)));
    }
    let mut file = File::create(&path)?;
    writeln!(file, "{build}")?;
    for noted in known.values() {
        file.write_all(line(noted).as_bytes())?;
    }
    let file = Mutex::new(file);
    let numbered: Vec<_> = names.into_iter().enumerate().collect();
    let noted = side_by_side(&numbered, jobs, |(place, name)| {
        if let Some(known) = known.get(name) {
            return known.clone();
        }
        let notes = scratch.join(format!("visits-{place}"));
        let noted = visit(&binaries[name.0], name, folder, &notes);
        let line = line(&noted);
        if let Ok(mut file) = file.lock()
            && let Err(error) = file.write_all(line.as_bytes())
        {
            eprintln!("not written: {error}");
        }
        noted
    });
    let mut tests = Vec::new();
    for (test, why) in noted {
        match why.as_str() {
            "" if test.visits.is_empty() => {}
            "" => tests.push(test),
            why => eprintln!("left out, {why}: {}", test.name),
        }
    }
    Ok(tests)
}

/// A test, and why it cannot judge mutants if it cannot.
type Noted = (Test, String);

fn visit(binary: &Binary, name: &(usize, String), folder: &Path, notes: &Path) -> Noted {
    let _ = fs::remove_file(notes);
    let started = Instant::now();
    let ended = run(
        binary,
        &[&name.1],
        &Run {
            folder,
            threads: 1,
            limit: LONGEST,
            mutant: None,
            notes: Some(notes),
        },
    );
    let time = started.elapsed();
    let text = fs::read_to_string(notes).unwrap_or_default();
    let _ = fs::remove_file(notes);
    let mut visits: Vec<usize> = text.lines().filter_map(|line| line.parse().ok()).collect();
    visits.sort_unstable();
    visits.dedup();
    let test = Test {
        binary: name.0,
        name: name.1.clone(),
        time,
        visits,
    };
    let why = match ended {
        Ended::Passed => String::new(),
        Ended::Failed(_) => "fails without a mutant".to_owned(),
        Ended::TimedOut => "too slow".to_owned(),
    };
    (test, why)
}

/// What the visits depend on: the binaries.
fn build(binaries: &[Binary]) -> io::Result<String> {
    let mut build = String::new();
    for binary in binaries {
        let written = fs::metadata(&binary.path)?.modified()?;
        build.push_str(&format!(" {} {written:?}", binary.path.display()));
    }
    Ok(build)
}

fn line((test, why): &Noted) -> String {
    let visits: Vec<_> = test.visits.iter().map(usize::to_string).collect();
    let (time, visits) = (test.time.as_micros(), visits.join(" "));
    format!("{}\t{}\t{time}\t{why}\t{visits}\n", test.binary, test.name)
}

fn parse(line: &str) -> Option<Noted> {
    let mut parts = line.split('\t');
    let (binary, name, time, why) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let visits = parts.next()?.split(' ');
    let test = Test {
        binary: binary.parse().ok()?,
        name: name.to_owned(),
        time: Duration::from_micros(time.parse().ok()?),
        visits: visits.filter_map(|visit| visit.parse().ok()).collect(),
    };
    Some((test, why.to_owned()))
}

/// What is known of the tests of this build. A line that was cut off is left out.
fn recall(path: &Path, build: &str) -> HashMap<(usize, String), Noted> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let Some((first, rest)) = text.split_once('\n') else {
        return HashMap::new();
    };
    if first != build {
        return HashMap::new();
    }
    let whole = rest.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let noted = whole.lines().filter_map(parse);
    noted
        .map(|noted| ((noted.0.binary, noted.0.name.clone()), noted))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_build_is_read_up_to_the_line_that_was_cut_off() {
        let path = std::env::temp_dir().join(format!("mutants-visits-{}", std::process::id()));
        let test = |name: &str, visits: &[usize]| Test {
            binary: 1,
            name: name.to_owned(),
            time: Duration::from_micros(1500),
            visits: visits.to_vec(),
        };
        let first = (test("a::b", &[3, 17]), String::new());
        let second = (test("a::c", &[]), "too slow".to_owned());
        let cut = line(&(test("a::d", &[1, 234]), String::new()));
        let text = format!(
            "build\n{}{}{}",
            line(&first),
            line(&second),
            &cut[..cut.len() - 2]
        );
        fs::write(&path, text).unwrap();
        let known = recall(&path, "build");
        assert_eq!(known.len(), 2);
        assert_eq!(known[&(1, "a::b".to_owned())], first);
        assert_eq!(known[&(1, "a::c".to_owned())], second);
        assert!(recall(&path, "another build").is_empty());
        fs::remove_file(path).unwrap();
    }
}
