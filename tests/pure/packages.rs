//! The other packages of the repository share a target folder with the crate. What they share of it depends on their manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const PACKAGES: [&str; 4] = [
    "benches/peers",
    "examples/grpc",
    "examples/jetstream",
    "examples/outbox",
];

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
