//! Promises of the documents: each one names a test, and the test exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Documents whose promises each name a test, and the least number of names.
const WITH_PROOFS: [(&str, usize); 3] = [
    ("SECURITY.md", 30),
    ("src/guide/in_front_of_strangers.md", 30),
    ("src/guide/threat_model.md", 40),
];

/// Documents with tables whose last column proves each row, its heading, and the least number of rows.
const WITH_TABLES: [(&str, &str, usize); 3] = [
    ("src/guide/in_front_of_strangers.md", "test", 40),
    ("src/guide/threat_model.md", "test", 40),
    ("ARCHITECTURE.md", "proved by", 20),
];

/// The traits of stores, the letters of their numbered sentences, and the least number of these.
const CONTRACTS: [(&str, char, usize); 5] = [
    ("src/store/subscriptions.rs", 'S', 18),
    ("src/store/vapid_keys.rs", 'K', 6),
    ("src/store/ledger.rs", 'L', 23),
    ("src/store/schedules.rs", 'D', 8),
    ("src/store/portable.rs", 'C', 3),
];

/// The list from which an application makes tests of the cases below `CONFORMANCE`.
const CASES: &str = "src/store/conformance/macros.rs";
const CONFORMANCE: &str = "src/store/conformance/";
/// The list of the cases that run against both example servers.
const BOTH_SERVERS: &str = "tests/system/examples/mod.rs";

/// Words that make persons of rows, processes and requests. They stand in no prose, comment or log line.
const FORBIDDEN: [&str; 5] = ["anybody", "everybody", "nobody", "somebody", "whoever"];
/// Where they are looked for, and the least number of files there. Tests are left out.
const WITHOUT_FORBIDDEN: [(&str, usize); 8] = [
    ("ARCHITECTURE.md", 1),
    ("CHANGELOG.md", 1),
    ("CONTRIBUTING.md", 1),
    ("README.md", 1),
    ("SECURITY.md", 1),
    ("deploy", 4),
    ("examples", 110),
    ("src", 300),
];

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join(path));
    text.unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What a document has in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Names of tests in a document: `path/to/file.rs::name_of_the_test`, in backquotes.
fn proofs(text: &str) -> Vec<(&str, &str)> {
    let is_source = |file: &str| {
        let end = Path::new(file).extension();
        end.is_some_and(|end| end == "rs" || end == "mjs")
    };
    quoted(text)
        .filter_map(|quoted| quoted.split_once("::"))
        .filter(|(file, _)| is_source(file))
        .collect()
}

/// Whether a file has a test of this name: a function with an attribute, or a case in one of the lists that make tests. One that
/// is ignored does not run, and proves nothing.
fn has_test(file: &str, name: &str) -> bool {
    let source = read(file);
    if source.contains(&format!("test(\"{name}\"")) {
        return true;
    }
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let defined = [format!("fn {name}("), format!("fn {name}<")];
    let starts: Vec<_> = (0..lines.len())
        .filter(|at| defined.iter().any(|start| lines[*at].contains(start)))
        .collect();
    let is_attribute = |line: &&&str| line.starts_with("#[") || line.starts_with("//");
    let has_attribute = starts.iter().any(|start| {
        let above = lines[..*start].iter().rev().take_while(is_attribute);
        let above: Vec<_> = above.collect();
        let has = |attribute: &str| above.iter().any(|line| line.starts_with(attribute));
        (has("#[test]") || has("#[tokio::test")) && !has("#[ignore")
    });
    let listed = |list: &str, case: &str| read(list).lines().any(|line| line.trim() == case);
    let module = Path::new(file).file_stem().unwrap().to_str().unwrap();
    let is_listed = (file.starts_with(CONFORMANCE) && listed(CASES, name))
        || (file.starts_with("tests/system/examples/")
            && listed(BOTH_SERVERS, &format!("{module}::{name}")));
    has_attribute || (is_listed && !starts.is_empty())
}

/// Whether a file, or one in a folder, has a test.
fn has_tests(path: &Path) -> bool {
    if path.is_dir() {
        let mut entries = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        return entries.any(|entry| has_tests(&entry));
    }
    let Ok(source) = fs::read_to_string(path) else {
        return false;
    };
    let is_case =
        path.to_str().unwrap().contains(CONFORMANCE) && source.contains("\npub async fn ");
    is_case || source.contains("#[test]") || source.contains("#[tokio::test")
}

/// The last cell of each row of the tables with this heading of their last column.
fn last_cells<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let mut cells = Vec::new();
    let mut is_wanted = false;
    for line in text.lines() {
        let Some(row) = line.trim().strip_prefix('|') else {
            is_wanted = false;
            continue;
        };
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        if last == heading {
            is_wanted = true;
        } else if is_wanted && !last.starts_with("---") {
            cells.push(last);
        }
    }
    cells
}

/// Adds the texts of a folder or file: sources without tests, documents, and what is deployed.
fn texts(path: &Path, found: &mut Vec<(String, String)>) {
    let name = path.file_name().unwrap().to_str().unwrap();
    if path.is_dir() {
        let is_left_out = ["tests", "target", "node_modules"].contains(&name);
        for entry in fs::read_dir(path).unwrap().filter(|_| !is_left_out) {
            texts(&entry.unwrap().path(), found);
        }
        return;
    }
    let end = path.extension().and_then(|end| end.to_str());
    let is_text = end.is_some_and(|end| {
        [
            "rs", "md", "json", "sql", "lua", "toml", "yml", "yaml", "proto", "js", "html",
        ]
        .contains(&end)
    });
    if is_text && !name.ends_with("tests.rs") {
        let text = fs::read_to_string(path).unwrap();
        found.push((path.display().to_string(), text));
    }
}

/// The forbidden words of a text, at the beginning of a sentence too. Names in backquotes are not prose.
fn forbidden(text: &str) -> Vec<&str> {
    let prose = text.lines().flat_map(|line| line.split('`').step_by(2));
    let words = prose.flat_map(|part| part.split(|c: char| !c.is_alphanumeric() && c != '_'));
    let is_forbidden = |word: &&str| {
        let rest = word.get(1..).unwrap_or_default();
        FORBIDDEN
            .iter()
            .any(|forbidden| word.eq_ignore_ascii_case(forbidden) && *rest == forbidden[1..])
    };
    words.filter(is_forbidden).collect()
}

#[test]
fn rows_and_processes_are_not_persons() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (place, at_least) in WITHOUT_FORBIDDEN {
        let mut found = Vec::new();
        texts(&root.join(place), &mut found);
        assert!(found.len() >= at_least, "{place}: {} files", found.len());
        for (file, text) in found {
            // What was released keeps its words.
            let end = text.match_indices("\n## ").nth(1);
            let end = end.filter(|_| place == "CHANGELOG.md");
            let text = &text[..end.map_or(text.len(), |(at, _)| at)];
            // What a browser shows may be in backquotes, too.
            let is_shown = file.ends_with(".js") || file.ends_with(".html");
            let text = match is_shown {
                true => text.replace('`', " "),
                false => text.to_owned(),
            };
            assert_eq!(forbidden(&text), [""; 0], "{file}");
        }
    }
}

#[test]
fn forbidden_words_are_found_in_prose_only() {
    assert_eq!(
        forbidden("It delays nobody. Whoever asks"),
        ["nobody", "Whoever"]
    );
    assert_eq!(
        forbidden("`whoever_is_signed_in`, AnyBody, bodies"),
        [""; 0]
    );
}

/// In the files themselves the links to items of the crate lead nowhere.
#[test]
fn links_to_the_guide_lead_to_its_rendered_pages() {
    const GUIDE: &str = "https://docs.rs/tower-web-push/latest/tower_web_push/guide/";
    let pages = read("src/guide/mod.rs");
    for (document, at_least) in [("README.md", 5), ("SECURITY.md", 2)] {
        let text = read(document);
        assert!(!text.contains("(src/guide/"), "{document}");
        let links: Vec<_> = text.split(GUIDE).skip(1).collect();
        assert!(links.len() >= at_least, "{document}: {}", links.len());
        for link in links {
            let page = link.split('/').next().unwrap();
            let is_page = pages.contains(&format!("pub mod {page} {{"));
            assert!(is_page, "{document}: {page}");
        }
    }
}

#[test]
fn every_promise_names_a_test_that_exists() {
    for (document, at_least) in WITH_PROOFS {
        let text = read(document);
        let proofs = proofs(&text);
        assert!(
            proofs.len() >= at_least,
            "{document} names {} tests",
            proofs.len()
        );
        for (file, test) in proofs {
            assert!(
                has_test(file, test),
                "{document} names {test}, which is no test of {file}"
            );
        }
    }
}

#[test]
fn only_tests_count_as_tests() {
    let this = "tests/pure/documents.rs";
    assert!(has_test(this, "only_tests_count_as_tests"));
    assert!(!has_test(this, "last_cells"), "a function of a test");
    assert!(!has_test(this, "there_is_none"));
    let ignored = ("tests/engine/client/budgets.rs", "with_few_files");
    assert!(!has_test(ignored.0, ignored.1), "it is ignored");
    assert!(has_test(
        "tests/js/clicking.test.mjs",
        "a click opens the address, and closes the notification"
    ));
    let case = "s7_a_full_table_refuses_inserts";
    assert!(has_test("src/store/conformance/subscriptions.rs", case));
    assert!(!has_test("src/store/conformance/schedules.rs", case));
    let example = "tests/system/examples/closed.rs";
    assert!(has_test(example, "local_endpoints_need_a_local_host"));
}

/// A row is proved by a test, by files that have tests, or by a step of `./test`.
#[test]
fn every_row_of_the_tables_is_proved() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut steps = String::new();
    for file in fs::read_dir(root.join("tests/steps")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|end| end == "sh") {
            steps += &fs::read_to_string(path).unwrap();
        }
    }
    for (document, heading, at_least) in WITH_TABLES {
        let text = read(document);
        let cells = last_cells(&text, heading);
        assert!(cells.len() >= at_least, "{document}: {} rows", cells.len());
        for cell in cells {
            let mut is_proved = false;
            for name in quoted(cell) {
                if let Some(step) = name.strip_prefix("./test ") {
                    assert!(
                        steps.contains(&format!("step_{step}()")),
                        "{document}: {name}"
                    );
                    is_proved = true;
                } else if name.contains("::") {
                    // That it exists is another test's.
                    is_proved = true;
                } else if name.contains('/') {
                    let path = root.join(name);
                    assert!(path.exists(), "{document} names {name}");
                    is_proved |= has_tests(&path);
                }
            }
            assert!(is_proved, "{document}: no test is named by: {cell}");
        }
    }
}

/// Each numbered sentence has a case, and each case a sentence.
#[test]
fn every_sentence_of_the_contracts_has_a_case() {
    let mut sentences = BTreeSet::new();
    for (file, letter, at_least) in CONTRACTS {
        let source = read(file);
        let begin = format!("/// - **{letter}");
        let numbers = source.lines().filter_map(|line| line.strip_prefix(&begin));
        let numbers = numbers.map(|rest| rest.split("**").next().unwrap());
        let of_file: BTreeSet<_> = numbers
            .map(|number| format!("{}{number}", letter.to_ascii_lowercase()))
            .collect();
        assert!(of_file.len() >= at_least, "{file}: {of_file:?}");
        sentences.extend(of_file);
    }
    let list = read(CASES);
    let is_sentence = |name: &&str| {
        let mut letters = name.chars();
        letters
            .next()
            .is_some_and(|letter| "sldkc".contains(letter))
            && letters.next().is_some_and(|digit| digit.is_ascii_digit())
    };
    let cases = list.lines().map(str::trim).filter(is_sentence);
    let cases = cases.filter_map(|line| line.split_once('_'));
    let cased: BTreeSet<_> = cases.map(|(number, _)| number.to_owned()).collect();
    assert_eq!(sentences, cased);
}

#[test]
fn unsafe_code_is_forbidden() {
    let manifest = read("Cargo.toml");
    assert!(manifest.contains("\nunsafe_code = \"forbid\"\n"));
}

#[test]
fn every_promise_of_security_md_names_a_test() {
    let text = read("SECURITY.md");
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

/// The functions of the walks of `ARCHITECTURE.md` are in the files that it names.
#[test]
fn tables_begin_with_the_version_that_their_store_expects() {
    for (store, constant) in [
        ("sqlite", "const VERSION: i64 = "),
        ("postgres", "const KNOWN: i64 = "),
    ] {
        let source = read(&format!("src/store/{store}/schema.rs"));
        let (_, version) = source.split_once(constant).unwrap();
        let (version, _) = version.split_once(';').unwrap();
        let tables = read(&format!("src/store/{store}/tables.sql"));
        let first = format!("-- Version {version}.");
        assert!(tables.starts_with(&first), "{store}: {first}");
    }
}

#[test]
fn every_step_of_the_walks_is_in_its_file() {
    let text = read("ARCHITECTURE.md");
    let walks = text.split("\n| | function | file |\n").skip(1);
    let mut steps = 0;
    for row in walks.flat_map(|walk| walk.lines().take_while(|line| line.starts_with('|'))) {
        let mut cells = row.split('|').skip(2);
        let (function, file) = (cells.next().unwrap(), cells.next().unwrap());
        let Some(file) = quoted(file).next() else {
            continue;
        };
        // The text after the colon, and the type in brackets, name what is elsewhere.
        let name = quoted(function)
            .next()
            .unwrap()
            .rsplit("::")
            .next()
            .unwrap();
        let source = read(&format!("src/{file}"));
        let is_there = [format!("fn {name}("), format!("fn {name}<")]
            .iter()
            .any(|start| source.contains(start));
        assert!(is_there, "{file} has no function {name}: {row}");
        steps += 1;
    }
    assert!(steps >= 34, "{steps} steps");
}
