//! The dependencies between the modules of `src`: there is no cycle, and the graph in `ARCHITECTURE.md` is that of
//! the `use` lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Each top-level module of `src`, a folder or a file, with the modules that it uses and the first place of each use.
type Uses = BTreeMap<String, BTreeMap<String, String>>;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
const ARCHITECTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ARCHITECTURE.md");

/// `lib` only re-exports; `testing` and `fuzzing` are for tests, and may use every module.
const LEFT_OUT: [&str; 3] = ["fuzzing", "lib", "testing"];

#[test]
fn no_modules_use_each_other() {
    let uses = uses();
    assert!(uses.len() >= 15, "src was not found: {uses:?}");
    if let Some(cycle) = cycle(&uses) {
        panic!("these use each other:\n{}", cycle.join("\n"));
    }
}

#[test]
fn the_drawn_graph_matches_the_use_lines() {
    let text = fs::read_to_string(ARCHITECTURE).unwrap();
    let drawing = text
        .split_once("```mermaid\n")
        .and_then(|(_, rest)| rest.split_once("```"))
        .unwrap()
        .0;
    let drawn: BTreeSet<_> = drawing
        .lines()
        .filter_map(|line| line.trim().split_once(" --> "))
        .map(|(from, to)| (from.to_owned(), to.to_owned()))
        .collect();
    let uses = uses();
    assert_eq!(cycle(&uses), None);
    let real = reduced(&uses);
    let lines: String = real
        .iter()
        .map(|(from, to)| format!("    {from} --> {to}\n"))
        .collect();
    assert_eq!(drawn, real, "the graph of the sources is:\n{lines}");
}

#[test]
fn the_reader_of_use_lines_sees_every_form() {
    let seen = |source: &str| -> Vec<String> {
        let mut modules: Vec<_> = used(source).into_iter().map(|(_, name)| name).collect();
        modules.dedup();
        modules
    };
    assert_eq!(
        seen("use crate::a::B;\nfn f() { crate::b::c() }"),
        ["a", "b"]
    );
    assert_eq!(seen("use crate::{a, b::{C, D}, e::F};"), ["a", "b", "e"]);
    assert_eq!(
        seen("// crate::a\n/// crate::b\nlet x = 1; // crate::c"),
        [""; 0]
    );
    assert_eq!(
        seen("#[cfg(test)]\nmod tests {\n    use crate::a;\n}\n"),
        [""; 0]
    );
    // A module in another file ends nothing, nor does one of tests in the middle.
    assert_eq!(seen("#[cfg(test)]\nmod tests;\nuse crate::a;\n"), ["a"]);
    assert_eq!(
        seen("#[cfg(test)]\n#[cfg(unix)]\nmod tests {\n    use crate::a;\n}\n\nuse crate::b;\n"),
        ["b"]
    );
    let of = |list: &[(&str, &str)]| -> Uses {
        let mut uses = Uses::new();
        for (from, to) in list {
            let module = uses.entry((*from).to_owned()).or_default();
            module.insert((*to).to_owned(), format!("{from} uses {to}"));
        }
        uses
    };
    assert_eq!(cycle(&of(&[("a", "b"), ("a", "c"), ("b", "c")])), None);
    let found = cycle(&of(&[("a", "b"), ("b", "c"), ("c", "a")])).unwrap();
    assert_eq!(found.len(), 3, "{found:?}");
    let direct = reduced(&of(&[("a", "b"), ("a", "c"), ("b", "c")]));
    assert_eq!(direct.len(), 2, "{direct:?}");
}

fn uses() -> Uses {
    let root = Path::new(SOURCES);
    let exported = exported(&fs::read_to_string(root.join("lib.rs")).unwrap());
    let mut files = Vec::new();
    collect(root, &mut files);
    let mut uses = Uses::new();
    for file in files {
        let relative = file.strip_prefix(root).unwrap().to_str().unwrap();
        let module = relative.split('/').next().unwrap().trim_end_matches(".rs");
        if LEFT_OUT.contains(&module) {
            continue;
        }
        let here = uses.entry(module.to_owned()).or_default();
        for (line, name) in used(&fs::read_to_string(&file).unwrap()) {
            let Some(other) = exported
                .get(&name)
                .cloned()
                .or_else(|| is_module(&name).then_some(name))
            else {
                continue;
            };
            if other != module && !LEFT_OUT.contains(&&*other) {
                here.entry(other.clone())
                    .or_insert_with(|| format!("{relative}:{line} uses {other}"));
            }
        }
    }
    uses
}

fn is_module(name: &str) -> bool {
    let path = Path::new(SOURCES).join(name);
    path.is_dir() || path.with_extension("rs").is_file()
}

/// Every source file except tests.
fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if name == "tests" || name.ends_with("_tests") {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The module of each name that `lib.rs` exports at the root.
fn exported(lib: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for statement in lib.split("\npub use ").skip(1) {
        let statement = statement.split(';').next().unwrap();
        let (module, rest) = statement.split_once("::").unwrap();
        for name in rest.trim_matches(['{', '}']).split(',') {
            names.insert(name.trim().to_owned(), module.to_owned());
        }
    }
    names
}

/// The first name of each path from the crate's root, with its line: `use` lines and paths in the code.
fn used(source: &str) -> Vec<(usize, String)> {
    let mut code: String = source
        .lines()
        .map(|line| line.split("//").next().unwrap().to_owned() + "\n")
        .collect();
    for (from, to) in test_modules(&code).into_iter().rev() {
        let lines = code[from..to].matches('\n').count();
        code.replace_range(from..to, &"\n".repeat(lines));
    }
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let is_whole = !code[..at]
            .ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$');
        if !is_whole {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        found.extend(first_names(rest).into_iter().map(|name| (line, name)));
    }
    found
}

/// The places of modules of tests that stand in the file. What a line such as `mod tests;` names is in a file of its own.
fn test_modules(code: &str) -> Vec<(usize, usize)> {
    let mut modules = Vec::new();
    for (from, _) in code.match_indices("#[cfg(test)]\n") {
        let rest = &code[from..];
        let attributes = rest.lines().take_while(|line| line.starts_with("#["));
        let at: usize = attributes.map(|line| line.len() + 1).sum();
        let item = rest[at..].lines().next().unwrap_or_default();
        let is_outer = from == 0 || code[..from].ends_with('\n');
        if is_outer && item.contains("mod ") && item.ends_with('{') {
            let to = rest
                .find("\n}\n")
                .map_or(rest.len(), |end| end + "\n}\n".len());
            modules.push((from, from + to));
        }
    }
    modules
}

/// The names at the first level of `name::...` or `{a, b::{c}}`.
fn first_names(path: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(list) = path.strip_prefix('{') else {
        return vec![word(path)];
    };
    let mut names = Vec::new();
    let (mut depth, mut item) = (0, String::new());
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(word(&std::mem::take(&mut item))),
            _ if depth == 0 => item.push(c),
            _ => {}
        }
    }
    names.push(word(&item));
    names.retain(|name| !name.is_empty());
    names
}

/// The uses that make a cycle. Returns `None` if there is none.
fn cycle(uses: &Uses) -> Option<Vec<String>> {
    for start in uses.keys() {
        let mut path = vec![start.clone()];
        let mut seen = BTreeSet::new();
        if way_back(uses, start, &mut path, &mut seen) {
            path.push(start.clone());
            return Some(
                path.windows(2)
                    .map(|pair| uses[&pair[0]][&pair[1]].clone())
                    .collect(),
            );
        }
    }
    None
}

/// Extends the path until its last module uses the first one. Returns whether it does.
fn way_back(uses: &Uses, start: &str, path: &mut Vec<String>, seen: &mut BTreeSet<String>) -> bool {
    let Some(next) = uses.get(path.last().unwrap()) else {
        return false;
    };
    if next.contains_key(start) {
        return true;
    }
    for module in next.keys() {
        if seen.insert(module.clone()) {
            path.push(module.clone());
            if way_back(uses, start, path, seen) {
                return true;
            }
            path.pop();
        }
    }
    false
}

/// The transitive reduction: the uses that no path through other modules implies.
fn reduced(uses: &Uses) -> BTreeSet<(String, String)> {
    let mut edges = BTreeSet::new();
    for (from, others) in uses {
        for to in others.keys() {
            let is_implied = others
                .keys()
                .any(|other| other != to && reaches(uses, other, to));
            if !is_implied {
                edges.insert((from.clone(), to.clone()));
            }
        }
    }
    edges
}

fn reaches(uses: &Uses, from: &str, to: &str) -> bool {
    uses.get(from).is_some_and(|others| {
        others
            .keys()
            .any(|other| other == to || reaches(uses, other, to))
    })
}
