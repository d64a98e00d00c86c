//! Writes mutants into a source: each behind the question whether it is the chosen one.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::places::{Edit, Octets};

/// A source with its mutants.
#[derive(Debug, Default)]
pub struct Rendered {
    pub text: String,
    /// Where mutants are written, for errors of the compiler: those of the narrowest range around an error cause it.
    pub written: Vec<(Octets, Vec<usize>)>,
}

/// Edits of one range. Nodes are nested, and never cross.
struct Node<'a> {
    range: Octets,
    edits: Vec<&'a Edit>,
}

/// Writes all mutants but the dropped ones.
pub fn render(source: &str, edits: &[Edit], dropped: &BTreeSet<usize>) -> Rendered {
    let mut sorted: Vec<_> = edits.iter().filter(|edit| is_kept(edit, dropped)).collect();
    // What is put at a position comes before what begins there; then the outer before the inner.
    sorted.sort_by_key(|edit| {
        let range = range(edit);
        (
            range.start,
            !range.is_empty(),
            Reverse(range.end),
            order(edit),
        )
    });
    let mut nodes: Vec<Node<'_>> = Vec::new();
    for edit in sorted {
        match nodes.last_mut() {
            Some(last) if last.range == range(edit) && order(last.edits[0]) == order(edit) => {
                last.edits.push(edit);
            }
            _ => nodes.push(Node {
                range: range(edit),
                edits: vec![edit],
            }),
        }
    }
    let mut renderer = Renderer {
        source,
        nodes: &nodes,
        dropped,
        out: Rendered::default(),
    };
    renderer.piece(0..source.len(), 0, nodes.len());
    renderer.out
}

fn is_kept(edit: &Edit, dropped: &BTreeSet<usize>) -> bool {
    match edit {
        Edit::Instead { mutant, .. } | Edit::Without { mutant, .. } | Edit::At { mutant, .. } => {
            !dropped.contains(mutant)
        }
        Edit::Arms { patterns, .. } => patterns.iter().any(|(_, mutant)| !dropped.contains(mutant)),
        Edit::Unconst { mutants, .. } => {
            let mut mutants = mutants.clone();
            mutants.any(|mutant| !dropped.contains(&mutant))
        }
    }
}

fn range(edit: &Edit) -> Octets {
    match edit {
        Edit::Instead { range, .. } | Edit::Without { range, .. } | Edit::Unconst { range, .. } => {
            range.clone()
        }
        Edit::Arms { patterns, body, .. } => patterns[0].0.start..body.end,
        Edit::At { position, .. } => *position..*position,
    }
}

fn order(edit: &Edit) -> u8 {
    match edit {
        Edit::At { .. } => 0,
        Edit::Unconst { .. } => 1,
        Edit::Without { .. } => 2,
        Edit::Arms { .. } => 3,
        Edit::Instead { .. } => 4,
    }
}

struct Renderer<'a> {
    source: &'a str,
    nodes: &'a [Node<'a>],
    dropped: &'a BTreeSet<usize>,
    out: Rendered,
}

impl<'a> Renderer<'a> {
    fn push(&mut self, text: &str) {
        self.out.text.push_str(text);
    }

    /// A piece of the source with its nodes, which are some of those from `first` to before `end`.
    fn piece(&mut self, range: Octets, first: usize, end: usize) {
        let (nodes, source) = (self.nodes, self.source);
        let mut at = range.start;
        for place in first..end {
            let node = &nodes[place];
            // Inside of one that is written already, or outside of the piece.
            if node.range.start < at || node.range.end > range.end {
                continue;
            }
            self.push(&source[at..node.range.start]);
            let inner = nodes[place + 1..end].iter();
            let inner = inner
                .take_while(|inner| inner.range.start < node.range.end)
                .count();
            self.node(node, place + 1, place + 1 + inner);
            at = node.range.end;
        }
        self.push(&source[at..range.end]);
    }

    fn node(&mut self, node: &'a Node<'a>, first: usize, end: usize) {
        let source = self.source;
        let start = self.out.text.len();
        let mut all = Vec::new();
        match node.edits[0] {
            Edit::At { .. } => {
                for edit in &node.edits {
                    if let Edit::At { mutant, text, .. } = edit {
                        let start = self.out.text.len();
                        self.push(&text.replace('§', &is(*mutant)));
                        self.wrote(start, vec![*mutant]);
                    }
                }
                return;
            }
            Edit::Unconst { .. } => return,
            Edit::Without { mutant, .. } => {
                self.push(&format!("if !{} {{ ", is(*mutant)));
                self.piece(node.range.clone(), first, end);
                self.push(" }");
                all.push(*mutant);
            }
            Edit::Arms {
                patterns,
                guard,
                body,
            } => {
                for (number, (pattern, mutant)) in patterns.iter().enumerate() {
                    let start = self.out.text.len();
                    if number > 0 {
                        self.push(",\n");
                    }
                    self.push(&source[pattern.clone()]);
                    let is = match self.dropped.contains(mutant) {
                        true => "true".to_owned(),
                        false => format!("!{}", is(*mutant)),
                    };
                    self.push(&format!(" if {is}"));
                    if let Some(guard) = guard {
                        self.push(" && (");
                        self.piece(guard.clone(), first, end);
                        self.push(")");
                    }
                    self.push(" => ");
                    self.piece(body.clone(), first, end);
                    self.wrote(start, vec![*mutant]);
                    all.push(*mutant);
                }
            }
            Edit::Instead { .. } => {
                self.push("(");
                for edit in &node.edits {
                    if let Edit::Instead { mutant, text, .. } = edit {
                        self.push(&format!("if {} {{ ", is(*mutant)));
                        let start = self.out.text.len();
                        self.push(text);
                        self.wrote(start, vec![*mutant]);
                        self.push(" } else ");
                        all.push(*mutant);
                    }
                }
                self.push("{ ");
                self.piece(node.range.clone(), first, end);
                self.push(" })");
            }
        }
        self.wrote(start, all);
    }

    fn wrote(&mut self, start: usize, mutants: Vec<usize>) {
        let range = start..self.out.text.len();
        self.out.written.push((range, mutants));
    }
}

fn is(mutant: usize) -> String {
    format!("crate::mutant::is({mutant})")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::render;
    use crate::places::places;

    /// The source with its mutants, on one line.
    fn rendered(source: &str) -> (Vec<String>, String) {
        let found = places("a.rs", source, 0, &BTreeSet::new()).unwrap();
        let text = render(source, &found.edits, &BTreeSet::new()).text;
        assert!(syn::parse_file(&text).is_ok(), "{text}");
        let mutants = found.mutants.iter().map(|mutant| mutant.text.clone());
        let text: Vec<_> = text.split_whitespace().collect();
        let text = text.join(" ").replace("crate::mutant::", "");
        (mutants.collect(), text)
    }

    #[test]
    fn mutants_have_their_numbers_and_the_rest_of_the_source_as_it_was() {
        let (mutants, text) = rendered("fn f(a: i64) -> T<3> { g(a < b) }");
        let expected = [
            "the body is `Default::default()`",
            "`a < b`: < is <=",
            "`a < b`: < is >=",
        ];
        assert_eq!(mutants, expected);
        assert_eq!(
            text,
            "fn f(a: i64) -> T<3> { if is(0) { return Default::default(); } g((if is(1) { a <= b } \
             else if is(2) { a >= b } else { a < b })) }"
        );
    }

    #[test]
    fn a_mutant_within_another_one_is_in_the_branch_without_it() {
        let (_, text) = rendered("fn f() { x = !y; }");
        assert_eq!(
            text,
            "fn f() { if is(0) { return ; } if !is(1) { x = (if is(2) { y } else { !y }); } }"
        );
    }

    #[test]
    fn arms_lose_each_of_their_patterns() {
        let source = "fn f(a: A) -> impl B { match a { C | D if e => g, H => i, _ => k } }";
        let (mutants, text) = rendered(source);
        assert_eq!(
            mutants,
            [
                "`e`: is true",
                "`e`: is false",
                "`C | D`: without C",
                "`C | D`: without D",
                "`H =>`: without this arm",
            ]
        );
        let guard = "(if is(0) { true } else if is(1) { false } else { e })";
        assert_eq!(
            text,
            format!(
                "fn f(a: A) -> impl B {{ match a {{ C if !is(2) && ({guard}) => g, D if !is(3) && ({guard}) => g, \
                 H if !is(4) => i, _ => k }} }}"
            )
        );
    }

    #[test]
    fn conditions_with_bindings_never_hold() {
        let (mutants, text) = rendered(
            "fn f() -> impl B { if let Some(a) = b && c {} let Some(d) = e else { return }; }",
        );
        assert_eq!(
            mutants,
            [
                "`let Some(a) = b && c`: never",
                "`c`: is true",
                "`let Some(d) = e`: else",
            ]
        );
        assert_eq!(
            text,
            "fn f() -> impl B { if !is(0) && let Some(a) = b && (if is(1) { true } else { c }) {} \
             if is(2) { return } let Some(d) = e else { return }; }"
        );
    }

    #[test]
    fn tests_constants_types_and_macros_stay_as_they_are() {
        for source in [
            "#[cfg(test)] mod tests { fn f() -> bool { a < b } }",
            "const A: usize = 1 + 2;",
            "fn f() -> impl B { let a: [u8; 3] = [b; 3]; println!(\"{}\", 1 + 2) }",
            "impl Debug for A { fn fmt(&self) -> bool { true } }",
        ] {
            assert_eq!(rendered(source), (vec![], source.to_owned()));
        }
    }

    #[test]
    fn functions_with_mutants_are_not_const() {
        let (_, text) = rendered("pub const fn f() -> impl B { !a }");
        assert_eq!(
            text,
            "pub fn f() -> impl B { (if is(0) { a } else { !a }) }"
        );
        let kept = BTreeSet::from(["f".to_owned()]);
        let found = places("a.rs", "pub const fn f() -> bool { !a }", 0, &kept).unwrap();
        assert!(found.mutants.is_empty() && found.edits.is_empty());
        // As long as one of them is written.
        let source = "pub const fn f() -> impl B { !a }";
        let found = places("a.rs", source, 7, &BTreeSet::new()).unwrap();
        let text = |dropped: &[usize]| {
            render(source, &found.edits, &dropped.iter().copied().collect()).text
        };
        assert_eq!(text(&[7]), source);
        assert!(!text(&[6]).contains("const"));
    }
}
