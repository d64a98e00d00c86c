//! What one operation needs of a script. Each call runs the whole text that it names, which creates every function in it: with all
//! functions of a subject this took longer than most operations.

use std::collections::HashSet;

/// A statement that is not indented: a local value or function, or an operation.
struct Statement<'a> {
    /// What it defines.
    names: Vec<&'a str>,
    lines: Vec<&'a str>,
}

/// Returns the statements of a script that an operation needs, in order.
pub(super) fn needed(source: &str, operation: &str) -> String {
    let name = format!("operations.{operation}");
    let mut needed = HashSet::from(["operations", &name]);
    let mut kept = Vec::new();
    // What a statement uses stands before it.
    for statement in statements(source).into_iter().rev() {
        if statement.names.iter().any(|name| needed.contains(name)) {
            let lines = statement.lines.iter();
            let code = lines.filter(|line| !line.trim_start().starts_with("--"));
            needed.extend(code.flat_map(|line| words(line)));
            kept.push(statement.lines.join("\n"));
        }
    }
    kept.reverse();
    kept.join("\n")
}

fn statements(source: &str) -> Vec<Statement<'_>> {
    let mut statements: Vec<Statement<'_>> = Vec::new();
    for line in source.lines() {
        if line.starts_with("local ") || line.starts_with("function ") {
            statements.push(Statement {
                names: names(line),
                lines: vec![line],
            });
        } else if !line.starts_with("--")
            && !line.is_empty()
            && let Some(statement) = statements.last_mut()
        {
            statement.lines.push(line);
        }
    }
    statements
}

/// Returns what a statement defines, by its first line.
fn names(line: &str) -> Vec<&str> {
    let line = line.strip_prefix("local ").unwrap_or(line);
    match line.strip_prefix("function ") {
        Some(function) => function.split('(').take(1).collect(),
        None => {
            let names = line.split('=').next().unwrap_or_default();
            names.split(',').map(str::trim).collect()
        }
    }
}

/// Returns the names in a line, and what stands before the first dot of each.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "_.".contains(character);
    line.split(move |character| !is_part(character))
        .flat_map(|word| [Some(word), word.split('.').next()])
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_has_what_it_uses_and_no_more() {
        let source = "\
-- The first part.
local operations = {}
local A, B = 1, 2
local UNUSED = 3

-- Uses `UNUSED`.
local function inner(x)
  return x.UNUSED + A
end

local function outer(x) return inner(x) end
local function other() return UNUSED end

function operations.one()
  return outer({ UNUSED = B })
end
function operations.two()
  -- other()
  return A
end";
        let two = "\
local operations = {}
local A, B = 1, 2
function operations.two()
  -- other()
  return A
end";
        assert_eq!(needed(source, "two"), two);
        let one = needed(source, "one");
        assert!(one.contains("function inner(") && one.contains("function outer("));
        assert!(!one.contains("function other("));
    }
}
