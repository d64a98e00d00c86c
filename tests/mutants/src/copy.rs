//! The copy of the crate in which the mutants are, and its build.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::places::{Edit, Mutant, Octets, places};
use crate::render::{Rendered, render};
use crate::sets::Group;

/// The part of a manifest about lints: what mutants look like is nobody's concern.
const LINTS: &str = "[lints.rust]\nwarnings = \"allow\"\n\n";

/// How often the compiler may find mutants that do not compile: types first, then borrows.
const ROUNDS: usize = 30;

#[derive(Debug)]
pub struct Copy {
    root: PathBuf,
    pub folder: PathBuf,
    files: Vec<String>,
    groups: Vec<Group>,
    pub mutants: Vec<Mutant>,
    /// Mutants that are written: all, or those that a sample may need.
    written: BTreeSet<usize>,
    /// Sources as they were read, and their mutants.
    edits: BTreeMap<String, (String, Vec<Edit>)>,
    rendered: BTreeMap<String, Rendered>,
    /// Functions that are called where only `const` ones can be.
    constant: BTreeSet<String>,
    /// Mutants that do not compile.
    dropped: BTreeSet<usize>,
}

/// A binary with tests.
#[derive(Clone, Debug)]
pub struct Binary {
    pub path: PathBuf,
}

impl Copy {
    /// A copy of the crate at `root` in `folder`, with mutants in the files of `groups`: all, or those that a sample may need.
    pub fn new(root: &Path, folder: &Path, groups: &[Group]) -> io::Result<Self> {
        let files: BTreeSet<_> = groups.iter().flat_map(|group| &group.files).collect();
        let mut copy = Self {
            root: root.to_owned(),
            folder: folder.to_owned(),
            files: files.into_iter().cloned().collect(),
            groups: groups.to_vec(),
            mutants: Vec::new(),
            written: BTreeSet::new(),
            edits: BTreeMap::new(),
            rendered: BTreeMap::new(),
            constant: BTreeSet::new(),
            dropped: BTreeSet::new(),
        };
        copy.recall()?;
        Ok(copy)
    }

    /// The mutants that are written and, as far as is known, compile.
    pub fn compiling(&self) -> BTreeSet<usize> {
        self.written.difference(&self.dropped).copied().collect()
    }

    /// Finds all mutants. Which ones compile is unknown until [`build`](Self::build).
    fn find(&mut self) -> io::Result<()> {
        self.mutants.clear();
        self.edits.clear();
        for file in &self.files {
            let source = fs::read_to_string(self.root.join(file))?;
            let found = places(file, &source, self.mutants.len(), &self.constant)
                .map_err(|error| io::Error::other(format!("{file}: {error}")))?;
            self.mutants.extend(found.mutants);
            self.edits.insert(file.clone(), (source, found.edits));
        }
        let groups = self.groups.iter();
        self.written = groups
            .flat_map(|group| group.built(&self.mutants))
            .collect();
        Ok(())
    }

    /// Writes the copy. What has not changed keeps its time, so that cargo builds only what has.
    fn write(&mut self) -> io::Result<()> {
        let listed = Command::new("git")
            .args([
                "ls-files",
                "--cached",
                "--others",
                "--exclude-standard",
                "-z",
            ])
            .current_dir(&self.root)
            .output()?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let compiling = self.compiling();
        let left_out = (0..self.mutants.len()).filter(|place| !compiling.contains(place));
        let left_out = left_out.collect();
        for file in listed.split('\0').filter(|file| is_copied(file)) {
            let from = self.root.join(file);
            if !from.is_file() {
                continue;
            }
            let mut content = fs::read(&from)?;
            if let Some((source, edits)) = self.edits.get(file) {
                let rendered = render(source, edits, &left_out);
                content = rendered.text.clone().into_bytes();
                self.rendered.insert(file.to_owned(), rendered);
            }
            match file {
                "src/lib.rs" => content.extend(b"\npub(crate) mod mutant;\n"),
                "Cargo.toml" => content = own_version(&without_lints(&content)),
                "Cargo.lock" => content = own_version(&content),
                _ => {}
            }
            write(&self.folder.join(file), &content)?;
        }
        let switch =
            include_str!("switch.rs").replace("NUMBER", &self.mutants.len().max(1).to_string());
        write(&self.folder.join("src/mutant.rs"), switch.as_bytes())
    }

    /// Builds the binaries with tests, and drops the mutants that do not compile.
    pub fn build(&mut self, tests: &[&str]) -> io::Result<Vec<Binary>> {
        // The library alone is checked in less time, and has nearly all errors.
        let mut is_checked = false;
        for round in 1..=ROUNDS {
            self.write()?;
            let (binaries, errors) = self.compile(tests, is_checked)?;
            if errors.is_empty() {
                if is_checked {
                    return Ok(binaries);
                }
                is_checked = true;
                continue;
            }
            let before = (self.dropped.len(), self.constant.len());
            for error in &errors {
                self.blame(error);
            }
            eprintln!(
                "build {round}: {} errors; {} of {} mutants do not compile",
                errors.len(),
                self.written.len() - self.compiling().len(),
                self.written.len(),
            );
            if self.constant.len() > before.1 {
                // Numbers move: what was dropped is found again by its name.
                let dropped: BTreeSet<_> = self
                    .dropped
                    .iter()
                    .map(|mutant| self.mutants[*mutant].key())
                    .collect();
                self.find()?;
                let places = self.mutants.iter().enumerate();
                let places = places.filter(|(_, mutant)| dropped.contains(&mutant.key()));
                self.dropped = places.map(|(place, _)| place).collect();
            }
            self.remember()?;
            if (self.dropped.len(), self.constant.len()) == before {
                for error in errors.iter().take(3) {
                    eprintln!("{}", error["rendered"].as_str().unwrap_or_default());
                }
                return Err(io::Error::other(
                    "the copy does not compile, and no mutant is the cause",
                ));
            }
        }
        Err(io::Error::other("the copy does not compile"))
    }

    fn compile(&self, tests: &[&str], builds: bool) -> io::Result<(Vec<Binary>, Vec<Value>)> {
        let mut cargo = Command::new("cargo");
        match builds {
            true => cargo.args(["test", "--no-run"]),
            false => cargo.args(["check", "--profile", "test"]),
        };
        cargo.args([
            "--locked",
            "--all-features",
            "--lib",
            "--message-format=json",
        ]);
        for test in tests.iter().filter(|_| builds) {
            cargo.args(["--test", test]);
        }
        let mut child = cargo
            .current_dir(&self.folder)
            .env("CARGO_TERM_COLOR", "never")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (mut binaries, mut errors) = (Vec::new(), Vec::new());
        let out = child
            .stdout
            .take()
            .ok_or_else(|| io::Error::other("no output of cargo"))?;
        for line in BufReader::new(out).lines() {
            let Ok(told) = serde_json::from_str::<Value>(&line?) else {
                continue;
            };
            let message = &told["message"];
            if told["reason"] == "compiler-message" && message["level"] == "error" {
                errors.push(message.clone());
            }
            if told["reason"] == "compiler-artifact"
                && told["profile"]["test"] == true
                && let Some(path) = told["executable"].as_str()
            {
                binaries.push(Binary { path: path.into() });
            }
        }
        if !child.wait()?.success() && errors.is_empty() {
            return Err(io::Error::other(
                "cargo fails without an error of the compiler",
            ));
        }
        // What sums up the others has no place.
        errors.retain(|error| {
            error["spans"]
                .as_array()
                .is_some_and(|spans| !spans.is_empty())
        });
        Ok((binaries, errors))
    }

    /// Drops the mutants that an error is about.
    fn blame(&mut self, error: &Value) {
        let spans = spans(error);
        if error["code"]["code"] == "E0015" {
            // A call of what has lost its `const`: `cannot call non-const method `A::<B>::name` in constants`.
            let text = error["message"].as_str().unwrap_or_default();
            let called = text.split('`').nth(1).unwrap_or_default();
            let name = called.rsplit("::").find(|part| !part.starts_with('<'));
            self.constant.insert(name.unwrap_or(called).to_owned());
            return;
        }
        for is_primary in [true, false] {
            let mut found = false;
            for (primary, span) in &spans {
                if *primary == is_primary {
                    found |= self.drop_at(span);
                }
            }
            if found {
                return;
            }
        }
        // Such as a pattern that is missing: one of the function's is the cause.
        for (_, span) in spans {
            self.drop_function(span);
        }
    }

    fn drop_at(&mut self, span: &Value) -> bool {
        let Some(place) = Place::of(span) else {
            return false;
        };
        let Some(rendered) = self.rendered.get(place.file) else {
            return false;
        };
        let holds =
            |range: &Octets| range.start <= place.range.start && place.range.end <= range.end;
        let around = rendered.written.iter().filter(|(range, _)| holds(range));
        match around.min_by_key(|(range, _)| range.len()) {
            Some((_, mutants)) => {
                self.dropped.extend(mutants);
                true
            }
            None => false,
        }
    }

    /// Drops all mutants of a function: of the last one that has a mutant before the place.
    fn drop_function(&mut self, span: &Value) {
        let Some(place) = Place::of(span) else { return };
        let Some(rendered) = self.rendered.get(place.file) else {
            return;
        };
        let before = rendered
            .written
            .iter()
            .filter(|(range, _)| range.start <= place.range.start);
        let Some((_, last)) = before.max_by_key(|(range, _)| range.start) else {
            return;
        };
        let function = last.iter().map(|mutant| &self.mutants[*mutant]).next();
        let Some(function) = function.map(|mutant| (mutant.file.clone(), mutant.function.clone()))
        else {
            return;
        };
        // What a sample leaves out is not known to be wrong.
        for number in &self.written {
            let mutant = &self.mutants[*number];
            if mutant.file == function.0 && mutant.function == function.1 {
                self.dropped.insert(*number);
            }
        }
    }

    /// What earlier builds found out about files that are the same still.
    fn recall(&mut self) -> io::Result<()> {
        let text = fs::read_to_string(self.memory()).unwrap_or_default();
        let mut known = BTreeSet::new();
        for line in text.lines() {
            match line.split('\t').collect::<Vec<_>>().as_slice() {
                ["const", name] => {
                    self.constant.insert((*name).to_owned());
                }
                [hash, file, name] => {
                    known.insert(((*hash).to_owned(), (*file).to_owned(), (*name).to_owned()));
                }
                _ => {}
            }
        }
        self.find()?;
        let mut hashes = BTreeMap::new();
        for file in &self.files {
            hashes.insert(file.clone(), self.hash(file));
        }
        for (number, mutant) in self.mutants.iter().enumerate() {
            let (file, name) = mutant.key();
            if known.contains(&(hashes[&file].clone(), file, name)) {
                self.dropped.insert(number);
            }
        }
        Ok(())
    }

    fn remember(&self) -> io::Result<()> {
        let mut text = String::new();
        for name in &self.constant {
            text.push_str(&format!("const\t{name}\n"));
        }
        for mutant in &self.dropped {
            let (file, name) = self.mutants[*mutant].key();
            text.push_str(&format!("{}\t{file}\t{name}\n", self.hash(&file)));
        }
        // What is known of other files stays.
        let earlier = fs::read_to_string(self.memory()).unwrap_or_default();
        for line in earlier.lines() {
            if let [_, file, _] = line.split('\t').collect::<Vec<_>>().as_slice()
                && !self.edits.contains_key(*file)
            {
                text.push_str(&format!("{line}\n"));
            }
        }
        fs::write(self.memory(), text)
    }

    fn memory(&self) -> PathBuf {
        self.folder.with_file_name("does-not-compile")
    }

    fn hash(&self, file: &str) -> String {
        let mut hasher = DefaultHasher::new();
        self.edits[file].0.as_bytes().hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

#[derive(Debug)]
struct Place<'a> {
    file: &'a str,
    range: Octets,
}

impl<'a> Place<'a> {
    fn of(span: &'a Value) -> Option<Self> {
        let number = |name: &str| usize::try_from(span[name].as_u64()?).ok();
        Some(Self {
            file: span["file_name"].as_str()?,
            range: number("byte_start")?..number("byte_end")?,
        })
    }
}

/// The spans of an error, and whether each is where the error is: its own, those of the macros around it, those in its notes.
fn spans(error: &Value) -> Vec<(bool, &Value)> {
    let mut found = Vec::new();
    for span in error["spans"].as_array().into_iter().flatten() {
        found.push((span["is_primary"] == true, span));
        let mut around = &span["expansion"]["span"];
        while around.is_object() {
            found.push((false, around));
            around = &around["expansion"]["span"];
        }
    }
    for note in error["children"].as_array().into_iter().flatten() {
        found.extend(
            note["spans"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|span| (false, span)),
        );
    }
    found
}

/// What the tests need of the repository: not its other packages.
fn is_copied(file: &str) -> bool {
    const OTHERS: [&str; 7] = [
        "benches/peers/",
        "examples/grpc/",
        "examples/jetstream/",
        "examples/outbox/",
        "examples/packages/",
        "fuzz/",
        "tests/mutants/",
    ];
    !file.is_empty() && !OTHERS.iter().any(|other| file.starts_with(other))
}

/// The version is part of the names of what is built: with the same one, a build of the crate in the same target folder would
/// take the place of the copy's, and the copy's that of the crate.
fn own_version(manifest: &[u8]) -> Vec<u8> {
    let manifest = String::from_utf8_lossy(manifest);
    let mut is_own = false;
    let mut changed = String::new();
    for line in manifest.lines() {
        if line.starts_with("name = ") {
            is_own = line == "name = \"tower-web-push\"";
        }
        match line.strip_prefix("version = \"").filter(|_| is_own) {
            Some(version) => {
                changed.push_str(&format!(
                    "version = \"{}+mutants\"",
                    version.trim_end_matches('"')
                ));
                is_own = false;
            }
            None => changed.push_str(line),
        }
        changed.push('\n');
    }
    changed.into_bytes()
}

fn without_lints(manifest: &[u8]) -> Vec<u8> {
    let manifest = String::from_utf8_lossy(manifest);
    let mut kept = String::new();
    let mut is_lint = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_lint = line.starts_with("[lints");
        }
        if !is_lint {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept.push('\n');
    kept.push_str(LINTS);
    kept.into_bytes()
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_has_a_version_of_its_own_and_its_dependencies_keep_theirs() {
        let lock = "[[package]]\nname = \"tower-web\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"tower-web-push\"\n\
                    version = \"0.1.0\"\ndependencies = [\n \"tower-web\",\n]\n\n[[package]]\nname = \"z\"\nversion = \"0.1.0\"\n";
        let changed = String::from_utf8(own_version(lock.as_bytes())).unwrap();
        let own = "name = \"tower-web-push\"\nversion = \"0.1.0";
        assert_eq!(changed, lock.replace(own, &format!("{own}+mutants")));
    }
}
