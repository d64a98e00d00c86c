//! The members of a request's JSON object by name and type.

use serde_json::error::Category;
use serde_json::{Map, Value};

use super::problem::{Problem, ProblemKind};

/// A JSON object of a request. Null counts as absent. Unknown members are ignored.
#[derive(Clone, Copy)]
pub(super) struct Members<'a>(&'a Map<String, Value>);

impl<'a> Members<'a> {
    pub(super) const fn of(object: &'a Map<String, Value>) -> Self {
        Self(object)
    }

    /// Returns a member of any type, or `None` if it is absent or null.
    pub(super) fn value(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Whether a member is present, null included.
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

/// Parses a body that must be a JSON object. An absent body has no members, so that its refusal names what is
/// missing. Of repeated members the last one counts.
pub(super) fn parse_object(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(body).map_err(|error| malformed(&error))
}

/// Returns the refusal of a body that is not a JSON object: reason, line and column, counted in octets.
///
/// serde_json words its syntax errors without the body's content. Its other errors can quote it, so the refusal only
/// says that the value is not an object.
pub(super) fn malformed(error: &serde_json::Error) -> Problem {
    let detail = match error.classify() {
        Category::Syntax | Category::Eof => format!("The body is not valid JSON: {error}."),
        Category::Data | Category::Io => "The body is JSON, but not an object.".to_owned(),
    };
    Problem::from(ProblemKind::InvalidJson).with_detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &[u8]) -> String {
        let refused = parse_object(body).unwrap_err();
        assert_eq!(refused.kind(), ProblemKind::InvalidJson);
        format!("{refused:?}")
    }

    #[test]
    fn an_absent_body_has_no_members() {
        assert!(parse_object(b"").unwrap().is_empty());
    }

    #[test]
    fn malformed_json_is_told_by_reason_line_and_column() {
        for (body, reason) in [
            (" ", "EOF while parsing a value at line 1 column 1"),
            ("{", "EOF while parsing an object at line 1 column 1"),
            ("{}{}", "trailing characters at line 1 column 3"),
            ("{\"a\":1,}", "trailing comma at line 1 column 8"),
            (
                "{\n\"a\": 1\n\"b\": 2}",
                "expected `,` or `}` at line 3 column 1",
            ),
            ("{'a': 1}", "key must be a string at line 1 column 2"),
            ("{\"a\": nul}", "expected ident at line 1 column 10"),
            ("{\"a\": 1e999}", "number out of range at line 1 column 11"),
            ("\u{feff}{}", "expected value at line 1 column 1"),
        ] {
            let text = refused(body.as_bytes());
            let expected = format!("The body is not valid JSON: {reason}.");
            assert!(text.contains(&expected), "{body}: {text}");
        }
        let text = refused(b"{\"a\":\"\xff\"}");
        assert!(text.contains("invalid unicode code point"), "{text}");
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        let text = refused(deep.as_bytes());
        assert!(text.contains("recursion limit exceeded"), "{text}");
    }

    #[test]
    fn json_that_is_no_object_is_said_to_be_none() {
        for body in ["[]", "[{}]", "\"a\"", "1", "1.5", "null", "true"] {
            let text = refused(body.as_bytes());
            let expected = "The body is JSON, but not an object.";
            assert!(text.contains(expected), "{body}: {text}");
        }
    }

    #[test]
    fn a_refusal_repeats_nothing_of_the_body() {
        for body in [
            "\"s3cret\"",
            "[\"s3cret\"]",
            "{\"s3cret\"",
            "{\"s3cret\":",
            "{\"s3cret\" \"s3cret\"}",
            "{\"a\":\"s3cret",
            "{\"a\":\"\\s3cret\"}",
            "{\"a\":s3cret}",
            "{s3cret}",
            "s3cret",
            "{}s3cret",
            // serde_json has a member of its own, and reads its value as JSON.
            "{\"a\":{\"$serde_json::private::RawValue\":\"s3cret\"}}",
            "{\"a\":{\"$serde_json::private::RawValue\":[\"s3cret\"]}}",
        ] {
            let text = refused(body.as_bytes());
            assert!(!text.contains("s3cret"), "{body}: {text}");
        }
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
