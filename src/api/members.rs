//! The members of a request's JSON object, by name and type.

use serde_json::{Map, Value};

use super::problem::{Problem, ProblemKind};

/// A JSON object from outside. Null is the same as absent; unknown members are nobody's business.
#[derive(Clone, Copy)]
pub(super) struct Members<'a>(&'a Map<String, Value>);

impl<'a> Members<'a> {
    pub(super) const fn of(object: &'a Map<String, Value>) -> Self {
        Self(object)
    }

    /// A member, whatever its type; `None` when absent or null.
    pub(super) fn value(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Whether a member is there, null included.
    pub(super) fn has(self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A string.
    pub(super) fn text(self, name: &'static str) -> Result<Option<&'a str>, Problem> {
        self.value(name)
            .map(|value| {
                value
                    .as_str()
                    .ok_or_else(|| Problem::member(name, "a string"))
            })
            .transpose()
    }

    /// An object.
    pub(super) fn object(self, name: &'static str) -> Result<Option<Self>, Problem> {
        self.value(name)
            .map(|value| {
                let object = value.as_object().map(Self);
                object.ok_or_else(|| Problem::member(name, "an object"))
            })
            .transpose()
    }

    /// The object itself.
    pub(super) const fn map(self) -> &'a Map<String, Value> {
        self.0
    }
}

/// Parses a body that must be a JSON object. Of members that are there twice the last one counts.
pub(super) fn parse_object(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    serde_json::from_slice(body).map_err(|_| ProblemKind::InvalidJson.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_is_an_object() {
        for body in [
            "",
            "{",
            "[]",
            "\"a\"",
            "1",
            "null",
            "{}{}",
            "{\"a\":1,}",
            "\u{feff}{}",
        ] {
            let refused = parse_object(body.as_bytes()).unwrap_err();
            assert_eq!(refused.kind(), ProblemKind::InvalidJson, "{body}");
        }
        assert!(parse_object(b"{\"a\":\"\xff\"}").is_err());
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        assert!(parse_object(deep.as_bytes()).is_err());
    }

    #[test]
    fn the_last_of_two_members_counts() {
        let object = parse_object(br#"{"a":1,"a":"two"}"#).unwrap();
        assert_eq!(Members::of(&object).text("a").unwrap(), Some("two"));
    }

    #[test]
    fn null_is_absent_but_there() {
        let object = parse_object(br#"{"a":null,"b":7}"#).unwrap();
        let members = Members::of(&object);
        assert!(members.has("a") && members.value("a").is_none());
        assert_eq!(members.text("a").unwrap(), None);
        assert!(members.text("b").is_err() && members.object("b").is_err());
    }
}
