//! The request headers of `/notify`: `Prefer` and `Idempotency-Key`.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use crate::api::problem::{Problem, ProblemKind};
use crate::broadcast::Broadcast;

/// The longest wait that a request may ask for, in seconds.
const MOST: u64 = 30;

/// Returns how long the caller prefers to wait (RFC 7240 section 4.3), at most 30 seconds. A malformed preference is
/// ignored.
pub(super) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let mut preferences = headers
        .get_all(&PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        // Parameters of a preference have no meaning for `wait`.
        .filter_map(|preference| preference.split(';').next()?.split_once('='));
    // RFC 7240 section 2: of several the first one counts; a value may be quoted.
    let secs = preferences.find_map(|(name, value)| {
        let is_wait = name.trim().eq_ignore_ascii_case("wait");
        is_wait.then(|| value.trim().trim_matches('"'))
    })?;
    if secs.is_empty() || !secs.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let secs = secs.parse().map_or(MOST, |secs: u64| secs.min(MOST));
    Some(Duration::from_secs(secs))
}

/// Returns the idempotency key, if there is one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut keys = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    match (key.to_str(), keys.next()) {
        (Ok(key), None) if Broadcast::is_idempotency_key(key) => Ok(Some(key)),
        _ => Err(ProblemKind::InvalidIdempotencyKey.into()),
    }
}

static PREFER: HeaderName = HeaderName::from_static("prefer");
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn waits(values: &[&str]) -> Option<u64> {
        wait(&headers("prefer", values)).map(|wait| wait.as_secs())
    }

    #[test]
    fn a_wait_is_found_among_other_preferences() {
        assert_eq!(waits(&["wait=10"]), Some(10));
        assert_eq!(waits(&["respond-async, Wait = \"5\" ;a=b"]), Some(5));
        assert_eq!(waits(&["return=minimal", "wait=7", "wait=9"]), Some(7));
        assert_eq!(waits(&["wait=0"]), Some(0));
        assert_eq!(waits(&["wait=31"]), Some(30));
        assert_eq!(waits(&["wait=99999999999999999999999"]), Some(30));
    }

    #[test]
    fn other_preferences_are_ignored() {
        for value in [
            "", "wait", "wait=", "wait=-1", "wait=+1", "wait=1.5", "waits=1",
        ] {
            assert_eq!(waits(&[value]), None, "{value}");
        }
        assert_eq!(waits(&[]), None);
    }

    #[test]
    fn an_idempotency_key_is_visible_ascii() {
        let keys = |values: &[&str]| headers("idempotency-key", values);
        assert_eq!(idempotency_key(&keys(&[])).unwrap(), None);
        let one = keys(&["a-1_~!"]);
        assert_eq!(idempotency_key(&one).unwrap(), Some("a-1_~!"));
        for values in [&[""][..], &["a b"], &["a", "b"], &[&"k".repeat(256)]] {
            assert!(idempotency_key(&keys(values)).is_err(), "{values:?}");
        }
        let latin = HeaderValue::from_bytes(b"\xe4").unwrap();
        let latin = HeaderMap::from_iter([(IDEMPOTENCY_KEY.clone(), latin)]);
        assert!(idempotency_key(&latin).is_err());
    }
}
