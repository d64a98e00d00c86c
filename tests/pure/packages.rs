//! The other packages of the repository share a target folder with the crate. What they share of it depends on their manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const PACKAGES: [&str; 2] = ["benches/peers", "examples/packages"];

/// A dependency that is optimized in one and not in the other is compiled twice.
#[test]
fn the_packages_optimize_the_dependencies_that_the_crate_does() {
    let ours = optimized(".");
    assert!(ours.len() >= 30, "{ours:?}");
    for package in PACKAGES {
        let lock = read(package, "Cargo.lock");
        let dependencies: BTreeSet<_> = lock
            .lines()
            .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
            .collect();
        let mut expected = ours.clone();
        expected.retain(|name, _| dependencies.contains(name.as_str()));
        assert_eq!(optimized(package), expected, "{package}/Cargo.toml");
    }
}

/// One dependency in two versions is compiled twice, and so is all that uses it: a newer `bytes` or `cc` means most of them.
#[test]
fn the_packages_lock_the_versions_that_the_crate_does() {
    let ours = locked(".");
    assert!(ours.len() >= 200, "{ours:?}");
    for package in PACKAGES {
        let theirs = locked(package);
        let shared = theirs.keys().filter(|key| ours.contains_key(*key));
        assert!(shared.count() >= 100, "{package}/Cargo.lock");
        for (key, version) in &theirs {
            if let Some(expected) = ours.get(key) {
                let name = &key.0;
                assert_eq!(version, expected, "{name} in {package}/Cargo.lock");
            }
        }
    }
}

/// The version of each dependency, by its name and by what its users may exchange it for.
fn locked(package: &str) -> BTreeMap<(String, String), String> {
    let lock = read(package, "Cargo.lock");
    let mut found = BTreeMap::new();
    let mut lines = lock.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = quoted(line, "name") {
            let version = lines.next().and_then(|line| quoted(line, "version"));
            let version = version.unwrap_or_else(|| panic!("{name} in {package}/Cargo.lock"));
            let key = (name.to_owned(), compatible(version));
            found.insert(key, version.to_owned());
        }
    }
    found
}

fn quoted<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let value = line.strip_prefix(key)?.strip_prefix(" = \"")?;
    value.strip_suffix('"')
}

/// What cargo takes for the same: up to the first number that is not 0.
fn compatible(version: &str) -> String {
    let numbers: Vec<_> = version.split('.').collect();
    let first = numbers.iter().position(|number| *number != "0");
    numbers[..=first.unwrap_or(numbers.len() - 1)].join(".")
}

/// The dependencies with a profile of their own, with that.
fn optimized(package: &str) -> BTreeMap<String, String> {
    let manifest = read(package, "Cargo.toml");
    let (_, section) = manifest
        .split_once("\n[profile.dev.package]\n")
        .unwrap_or_else(|| panic!("{package} optimizes no dependency"));
    let lines = section.lines().take_while(|line| !line.is_empty());
    lines
        .map(|line| line.split_once(" = ").unwrap())
        .map(|(name, profile)| (name.to_owned(), profile.to_owned()))
        .collect()
}

fn read(package: &str, file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join(package).join(file)).unwrap()
}
