//! The random tag of a notification without one.
//!
//! Delivery is at least once: after a crash a message can arrive twice. A browser shows one notification per tag, so
//! a random tag hides the second copy, and replaces no other notification.

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::encoding::base64url;

/// The start of a random tag.
const PREFIX: &str = "auto:";
/// 48 bits: no two notifications on one device share a tag.
const RANDOM: usize = 6;
/// With the check, 12 characters of the payload: base64url has 4 for 3 octets.
const OCTETS: usize = RANDOM + CHECK;
/// A tag of an application that begins alike is taken for a drawn one by chance only, one in 16 million.
const CHECK: usize = 3;

/// A new tag; `None` if the system has no randomness, since a notification without a tag is better than none.
pub(super) fn draw() -> Option<String> {
    let mut random = [0; RANDOM];
    getrandom::fill(&mut random).ok()?;
    Some(with_check(&random))
}

fn with_check(random: &[u8; RANDOM]) -> String {
    let digest = Sha256::new()
        .chain_update("tower-web-push drawn tag\0")
        .chain_update(random)
        .finalize();
    let mut octets = [0; OCTETS];
    for (to, from) in octets.iter_mut().zip(random.iter().chain(&digest)) {
        *to = *from;
    }
    format!("{PREFIX}{}", base64url(&octets))
}

/// The same payload with another random tag; `None` if it has no random one.
pub(in crate::message) fn redraw(payload: &[u8]) -> Option<String> {
    replace(payload, draw)
}

/// The same payload with an empty tag; `None` if it has no random one.
#[cfg(feature = "_engine")]
pub(in crate::message) fn erase(payload: &[u8]) -> Option<String> {
    replace(payload, || Some(String::new()))
}

fn replace(payload: &[u8], with: impl FnOnce() -> Option<String>) -> Option<String> {
    let text = std::str::from_utf8(payload).ok()?;
    let Tagged { tag, notification } = serde_json::from_str(text).ok()?;
    let inside = notification.and_then(|declared| declared.tag);
    let tag = inside.or(tag).filter(|tag| is_drawn(tag))?;
    // Only the member itself has this text: it was made after everything else was in place.
    Some(text.replace(&tag, &with()?))
}

fn is_drawn(tag: &str) -> bool {
    let mut octets = [0; OCTETS];
    let drawn = tag.strip_prefix(PREFIX);
    drawn.is_some_and(|drawn| {
        Base64UrlUnpadded::decode(drawn, &mut octets).is_ok_and(|octets| octets.len() == OCTETS)
    }) && octets
        .first_chunk()
        .is_some_and(|random| with_check(random) == tag)
}

/// The position of the tag in a notification's payload: in the declarative document, or at the top.
#[derive(Deserialize)]
struct Tagged {
    tag: Option<String>,
    notification: Option<Box<Self>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_tag_is_short_and_no_two_are_alike() {
        let drawn = [draw().unwrap(), draw().unwrap()];
        assert_ne!(drawn[0], drawn[1]);
        assert!(drawn.iter().all(|tag| is_drawn(tag) && tag.len() == 17));
    }

    #[test]
    fn only_a_drawn_tag_is_drawn_again() {
        let again = |payload: &str| redraw(payload.as_bytes());
        let drawn = draw().unwrap();
        let flat = format!(r#"{{"title":"Hi","tag":"{drawn}"}}"#);
        let other = again(&flat).unwrap();
        assert_ne!(other, flat);
        assert_eq!(other.len(), flat.len());
        let declared = format!(r#"{{"title":"Hi","notification":{{"tag":"{drawn}"}}}}"#);
        assert_ne!(again(&declared).unwrap(), declared);
        for payload in [
            r#"{"title":"Hi","tag":"auto:AAAAAAAAAAAA"}"#,
            r#"{"title":"Hi","tag":"auto:subscription"}"#,
            r#"{"title":"Hi","tag":"auto:202611290001"}"#,
            r#"{"title":"Hi","tag":"order-7"}"#,
            r#"{"title":"Hi","tag":"auto:7"}"#,
            r#"{"title":"Hi","tag":7}"#,
            r#"{"title":"Hi"}"#,
            r#""auto:AAAAAAAAAAAA""#,
            "auto:AAAAAAAAAAAA",
            "",
        ] {
            assert_eq!(again(payload), None, "{payload}");
        }
        assert_eq!(redraw(&[0xff]), None);
    }
}
