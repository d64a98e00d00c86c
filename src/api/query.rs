//! The parameters of a request's query.

use super::problem::{Problem, ProblemKind};
use crate::clock::Timestamp;
use crate::moment::rfc3339;

/// The parameters of a query, as forms and `URLSearchParams` write them.
pub(super) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Parses a query that may have these parameters, each once at most. An unknown one is refused: without it the answer
    /// would not be the one that was asked for.
    pub(super) fn parse(query: Option<&str>, known: &[&'static str]) -> Result<Self, Problem> {
        let mut parameters: Vec<(&'static str, String)> = Vec::new();
        let pairs = query.unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = known.iter().find(|known| **known == name);
            let name = *name.ok_or_else(|| {
                let known = known.join(", ");
                let detail = format!("The query has a parameter that is none of {known}.");
                Problem::from(ProblemKind::InvalidQuery).with_detail(detail)
            })?;
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(wrong(name, "there more than once"));
            }
            let value = decoded(value).ok_or_else(|| wrong(name, "not percent-encoded UTF-8"))?;
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// A parameter. An empty one counts as absent, as forms send it.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// A parameter that is parsed. `expected` completes "the parameter is not".
    pub(super) fn parsed<T>(
        &self,
        name: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        self.text(name)
            .map(|text| parse(text).ok_or_else(|| wrong(name, &format!("not {expected}"))))
            .transpose()
    }

    /// A date and time. The plus sign of an offset may have been sent as it is, which means a space.
    pub(super) fn time(&self, name: &'static str) -> Result<Option<Timestamp>, Problem> {
        self.parsed(name, "an RFC 3339 date and time with an offset", |text| {
            rfc3339(&text.replace(' ', "+"))
        })
    }

    /// The number of entries of a page: 1 to 100, 50 if it is absent.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        let limit = self.parsed("limit", "a whole number from 1 to 100", |text| {
            let limit = text.parse().ok();
            limit.filter(|limit| (1..=100).contains(limit))
        })?;
        Ok(limit.unwrap_or(50))
    }
}

fn wrong(name: &'static str, what: &str) -> Problem {
    Problem::from(ProblemKind::InvalidQuery)
        .with_member(name)
        .with_detail(format!("The parameter {name} is {what}."))
}

/// Decodes `application/x-www-form-urlencoded`.
fn decoded(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            octet => octet,
        });
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["limit", "user", "at"];

    fn query(text: &str) -> Query {
        Query::parse(Some(text), KNOWN).unwrap_or_else(|_| panic!("{text}"))
    }

    #[test]
    fn values_are_decoded_once() {
        for (text, user) in [
            ("user=alice", Some("alice")),
            ("user=a%20b+c", Some("a b c")),
            ("user=%C3%A9%2B%26%3d%2520", Some("é+&=%20")),
            ("&&user==a=&", Some("=a=")),
            ("user=", None),
            ("user", None),
            ("", None),
        ] {
            assert_eq!(query(text).text("user"), user, "{text}");
        }
        assert_eq!(
            query("at=1970-01-01T00:00:01%2B00:00").time("at").unwrap(),
            Some(Timestamp::from_secs(1))
        );
        assert_eq!(
            query("at=1970-01-01T00:00:01+00:00").time("at").unwrap(),
            Some(Timestamp::from_secs(1))
        );
        assert_eq!(query("").limit().unwrap(), 50);
        assert_eq!(query("limit=100").limit().unwrap(), 100);
    }

    #[test]
    fn what_is_unknown_repeated_or_malformed_is_refused() {
        let refused = |problem: Problem| {
            assert_eq!(problem.kind(), ProblemKind::InvalidQuery);
            format!("{problem:?}")
        };
        for text in [
            "users=a",
            "user=a&user=a",
            "user=%",
            "user=%2",
            "user=%zz",
            "user=%FF",
        ] {
            let problem = Query::parse(Some(text), KNOWN).err().expect(text);
            assert!(!refused(problem).contains("users"), "not repeated");
        }
        for text in ["limit=0", "limit=101", "limit=-1", "limit=x", "limit=1e1"] {
            refused(query(text).limit().unwrap_err());
        }
        refused(query("at=yesterday").time("at").unwrap_err());
    }
}
