//! The prefix of the store's tables in an application's own file.
//!
//! Statements have the plain names, which are right in a file of the store's own. For an application's file each is
//! rewritten once: see [`Connection::prepare_cached`](super::connection::Connection::prepare_cached).

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, LazyLock};

use super::error::misconfigured;
use super::schema::TABLES;
use crate::store::StoreError;

/// The longest prefix, in octets.
const LONGEST: usize = 32;
/// The words that a table's name follows. A column may have the same name as a table.
const BEFORE_A_TABLE: [&str; 8] = [
    "FROM",
    "IGNORE",
    "INTO",
    "JOIN",
    "ON",
    "REFERENCES",
    "TABLE",
    "UPDATE",
];

/// What the names of the store's tables, indexes and triggers begin with. Empty in a file of the store's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefix(Arc<str>);

impl Prefix {
    /// Checks a prefix: it is part of statements.
    pub(super) fn parse(prefix: &str) -> Result<Self, StoreError> {
        let is_name = !prefix.starts_with(|first: char| first.is_ascii_digit())
            && prefix.chars().all(is_word);
        if !is_name || !(1..=LONGEST).contains(&prefix.len()) {
            return Err(misconfigured(format!(
                "a prefix of tables is 1 to {LONGEST} ASCII letters, digits and underscores, and does not begin with a digit"
            )));
        }
        if prefix.to_ascii_lowercase().starts_with("sqlite_") {
            return Err(misconfigured(
                "a prefix of tables does not begin with `sqlite_`: SQLite keeps such names for itself",
            ));
        }
        // SQLite ignores the case of names. The names of the workers' files have one.
        Ok(Self(prefix.to_ascii_lowercase().into()))
    }

    /// Whether the file is the store's own.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts the prefix before the names of the store's tables, indexes and triggers in statements.
    pub(super) fn rewrite(&self, sql: &str) -> String {
        let mut rewritten = String::with_capacity(2 * sql.len());
        let (mut rest, mut before) = (sql, "");
        while !rest.is_empty() {
            let (token, after) = rest.split_at(token_len(rest));
            if NAMES.is_meant(before, token, after) {
                rewritten.push_str(&self.0);
            }
            rewritten.push_str(token);
            if !token.starts_with(char::is_whitespace) && !token.starts_with("--") {
                before = token;
            }
            rest = after;
        }
        rewritten
    }

    /// Returns the names of the store's tables, indexes and triggers in the file.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        let names = NAMES.tables.iter().chain(&NAMES.others);
        names.map(move |name| format!("{self}{name}"))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The plain names.
#[derive(Default)]
struct Names {
    tables: HashSet<&'static str>,
    /// Of indexes and triggers: no column has one of them.
    others: HashSet<&'static str>,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let mut names = Names::default();
    for line in TABLES.lines() {
        let Some(created) = line.strip_prefix("CREATE ") else {
            continue;
        };
        let created = created.strip_prefix("UNIQUE ").unwrap_or(created);
        let mut words = created.split(|c| !is_word(c));
        match (words.next(), words.next()) {
            (Some("TABLE"), Some(name)) => names.tables.insert(name),
            (Some(_), Some(name)) => names.others.insert(name),
            _ => false,
        };
    }
    names
});

impl Names {
    /// Whether a token between others is the name of a table, an index or a trigger.
    fn is_meant(&self, before: &str, token: &str, after: &str) -> bool {
        let is_table = || after.starts_with('.') || BEFORE_A_TABLE.contains(&before);
        before != "." && (self.others.contains(token) || self.tables.contains(token) && is_table())
    }
}

/// The length of the first token: a word, a literal, a comment, or one other character.
fn token_len(sql: &str) -> usize {
    let length = match sql.chars().next() {
        Some('\'') => sql
            .char_indices()
            .skip(1)
            .find(|(_, c)| *c == '\'')
            .map(|(end, _)| end + 1),
        Some('-') if sql.starts_with("--") => sql.find('\n'),
        Some(first) if is_word(first) => sql.find(|c| !is_word(c)),
        first => first.map(char::len_utf8),
    };
    length.unwrap_or(sql.len())
}

const fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
#[path = "prefix_tests.rs"]
mod tests;
