//! Request ids: from a proxy, or new.

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken over from a request.
const LONGEST: usize = 64;

/// Returns the id that a proxy gave, if it is one of letters, digits, `.`, `_` and `-` that a log line can hold; else a random
/// one.
pub(super) fn of(headers: &HeaderMap) -> HeaderValue {
    let mut given = headers.get_all(&X_REQUEST_ID).iter();
    match (given.next(), given.next()) {
        (Some(id), None) if is_plain(id.as_bytes()) => id.clone(),
        _ => random(),
    }
}

fn random() -> HeaderValue {
    let id = Uuid::new_v4().simple().to_string();
    HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

fn is_plain(id: &[u8]) -> bool {
    let plain = |octet: &u8| octet.is_ascii_alphanumeric() || b"._-".contains(octet);
    (1..=LONGEST).contains(&id.len()) && id.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_plain_id_is_taken_over_and_any_other_is_replaced() {
        let id = |given: &[&str]| {
            let mut headers = HeaderMap::new();
            for id in given {
                headers.append(&X_REQUEST_ID, HeaderValue::from_str(id).unwrap());
            }
            of(&headers)
        };
        let longest = "a".repeat(LONGEST);
        for plain in ["a", "7d1f-4c_9.B", &longest] {
            assert_eq!(id(&[plain]), plain);
        }
        let longer = "a".repeat(LONGEST + 1);
        for other in ["", "a b", "a\"", "a=1", "ä", &longer] {
            let replaced = id(&[other]);
            assert_eq!(replaced.len(), 32, "{other}");
        }
        assert_ne!(id(&["a", "b"]), "a");
        assert_ne!(id(&[]), id(&[]));
    }
}
