//! The random tag of a notification without one.
//!
//! Delivery is at least once: after a crash a message can arrive twice. A browser shows one notification per tag, so
//! a random tag hides the second copy, and replaces no other notification.

use serde::Deserialize;

use crate::encoding::base64url;

/// The start of a random tag, which distinguishes it from a tag of the application.
const PREFIX: &str = "auto:";
/// 72 bits: no two notifications on one device share a tag. They become 12 characters of the payload.
const OCTETS: usize = 9;
/// base64url has 4 characters for 3 octets.
const CHARS: usize = OCTETS / 3 * 4;

/// A new tag; `None` if the system has no randomness, since a notification without a tag is better than none.
pub(super) fn draw() -> Option<String> {
    let mut octets = [0; OCTETS];
    getrandom::fill(&mut octets).ok()?;
    Some(format!("{PREFIX}{}", base64url(&octets)))
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
    tag.strip_prefix(PREFIX)
        .is_some_and(|drawn| drawn.len() == CHARS)
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
        let flat = r#"{"title":"Hi","tag":"auto:AAAAAAAAAAAA"}"#;
        let other = again(flat).unwrap();
        assert_ne!(other, flat);
        assert_eq!(other.len(), flat.len());
        let declared = r#"{"title":"Hi","notification":{"tag":"auto:AAAAAAAAAAAA"}}"#;
        assert_ne!(again(declared).unwrap(), declared);
        for payload in [
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
