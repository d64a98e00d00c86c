//! Promises of the documents: each one names a test, and the test exists.

use std::fs;
use std::path::Path;

/// Documents whose promises each name a test, and the least number of names.
const WITH_PROOFS: [(&str, usize); 3] = [
    ("SECURITY.md", 30),
    ("src/guide/in_front_of_strangers.md", 30),
    ("src/guide/threat_model.md", 40),
];

/// Names of tests in a document: `path/to/file.rs::name_of_the_test`, in backquotes.
fn proofs(text: &str) -> Vec<(&str, &str)> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|quoted| quoted.split_once("::"))
        .filter(|(file, _)| {
            Path::new(file)
                .extension()
                .is_some_and(|end| end == "rs" || end == "mjs")
        })
        .collect()
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (document, at_least) in WITH_PROOFS {
        let text = fs::read_to_string(root.join(document)).unwrap();
        let proofs = proofs(&text);
        assert!(
            proofs.len() >= at_least,
            "{document} names {} tests",
            proofs.len()
        );
        for (file, test) in proofs {
            let source = fs::read_to_string(root.join(file));
            let source = source.unwrap_or_else(|error| panic!("{document} names {file}: {error}"));
            let is_there = [
                format!("fn {test}("),
                format!("fn {test}<"),
                format!("\"{test}\""),
            ]
            .iter()
            .any(|definition| source.contains(definition));
            assert!(is_there, "{document} names {test}, which {file} has not");
        }
    }
}

#[test]
fn unsafe_code_is_forbidden() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap();
    assert!(manifest.contains("\nunsafe_code = \"forbid\"\n"));
}

#[test]
fn every_promise_of_security_md_names_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let (_, promises) = text.split_once("## What the crate promises").unwrap();
    let (promises, _) = promises.split_once("\n## ").unwrap();
    let promises: Vec<_> = promises.split("\n- ").skip(1).collect();
    assert!(promises.len() >= 10, "{} promises", promises.len());
    for promise in promises {
        assert!(
            !proofs(promise).is_empty(),
            "no test is named for: {promise}"
        );
    }
}
