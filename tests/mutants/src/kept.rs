//! The list of mutants that survive, with the reason of each.
//!
//! A line that is not indented is a file, a line indented by four spaces a mutant, and a line indented by eight the reason
//! of the mutants above it.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

/// Reasons, by file and mutant.
pub type Kept = BTreeMap<(String, String), String>;

pub fn read(path: &Path) -> io::Result<Kept> {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Kept::new()),
        Err(error) => Err(error),
    }
}

fn parse(text: &str) -> Result<Kept, String> {
    let mut kept = Kept::new();
    let mut file = String::new();
    let mut open: Vec<String> = Vec::new();
    let mut is_reason = false;
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(reason) = line.strip_prefix("        ") {
            for mutant in &open {
                let so_far: &mut String = kept.entry((file.clone(), mutant.clone())).or_default();
                if !so_far.is_empty() {
                    so_far.push(' ');
                }
                so_far.push_str(reason);
            }
            is_reason = true;
            continue;
        }
        if is_reason {
            open.clear();
            is_reason = false;
        }
        if let Some(mutant) = line.strip_prefix("    ") {
            open.push(mutant.to_owned());
        } else if open.is_empty() {
            file = line.to_owned();
        } else {
            return Err(format!("line {}: a mutant above has no reason", number + 1));
        }
    }
    match open.is_empty() || is_reason {
        true => Ok(kept),
        false => Err("the last mutant has no reason".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_share_the_reason_below_them() {
        let kept = parse(
            "# List\na.rs\n    f: x\n    f: y\n        Because\n        of z.\n    g: x\n        No.\n",
        );
        let kept = kept.unwrap();
        let of = |mutant: &str| kept[&("a.rs".to_owned(), mutant.to_owned())].as_str();
        assert_eq!(of("f: x"), "Because of z.");
        assert_eq!(of("f: y"), "Because of z.");
        assert_eq!(of("g: x"), "No.");
        assert!(parse("a.rs\n    f: x\n").is_err());
        assert!(parse("a.rs\n    f: x\nb.rs\n").is_err());
    }
}
