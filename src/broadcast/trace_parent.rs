//! The trace context of W3C: the value of the header `traceparent`.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;
use std::str::FromStr;

use crate::error::unit_error;

/// The span that a broadcast comes from, as the header `traceparent` of W3C's
/// [Trace Context](https://www.w3.org/TR/trace-context/#traceparent-header) names it.
///
/// Stored with the broadcast, so that the spans of its pages, claims and attempts link to it: in another process, hours
/// later. It prints as version 00, with the flag `sampled` and no other.
///
/// # Examples
///
/// ```
/// use tower_web_push::broadcast::TraceParent;
///
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let parent = TraceParent::parse(text)?;
/// assert!(parent.is_sampled());
/// assert_eq!(parent.to_string(), text);
/// # Ok::<(), tower_web_push::broadcast::TraceParentError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    is_sampled: bool,
}

impl TraceParent {
    /// Makes a trace parent of its parts.
    ///
    /// # Errors
    ///
    /// Returns an error if one of the ids is all zeros.
    pub fn new(
        trace_id: [u8; 16],
        parent_id: [u8; 8],
        is_sampled: bool,
    ) -> Result<Self, TraceParentError> {
        if trace_id == [0; 16] || parent_id == [0; 8] {
            return Err(TraceParentError(()));
        }
        Ok(Self {
            trace_id,
            parent_id,
            is_sampled,
        })
    }

    /// Parses the value of the header. Of a later version than 00 what is known is read, as
    /// [its rules](https://www.w3.org/TR/trace-context/#versioning-of-traceparent) say; other flags than `sampled` are ignored.
    ///
    /// # Errors
    ///
    /// Returns an error for anything else. W3C says to go on without a trace then: such a header refuses no message.
    pub fn parse(text: &str) -> Result<Self, TraceParentError> {
        Self::read(text.as_bytes()).ok_or(TraceParentError(()))
    }

    fn read(text: &[u8]) -> Option<Self> {
        let (known, rest) = text.split_first_chunk::<{ Self::LEN }>()?;
        let mut parts = known.split(|octet| *octet == b'-');
        let [version] = hex(parts.next()?)?;
        let (trace_id, parent_id) = (hex(parts.next()?)?, hex(parts.next()?)?);
        let [flags] = hex(parts.next()?)?;
        match (version, rest) {
            (0xff, _) => return None,
            (_, []) => {}
            (1.., [b'-', ..]) => {}
            _ => return None,
        }
        Self::new(trace_id, parent_id, flags & Self::SAMPLED != 0).ok()
    }

    /// The id of the trace.
    #[must_use]
    pub const fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The id of the span.
    #[must_use]
    pub const fn parent_id(&self) -> [u8; 8] {
        self.parent_id
    }

    /// Whether the span was recorded.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.is_sampled
    }

    /// The length of version 00, in characters.
    const LEN: usize = 55;
    /// The flag `sampled`.
    const SAMPLED: u8 = 1;
}

impl FromStr for TraceParent {
    type Err = TraceParentError;

    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        Self::parse(text)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace_id = u128::from_be_bytes(self.trace_id);
        let parent_id = u64::from_be_bytes(self.parent_id);
        let flags = u8::from(self.is_sampled);
        write!(f, "00-{trace_id:032x}-{parent_id:016x}-{flags:02x}")
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceParent({self})")
    }
}

unit_error! {
    /// The error for a text that is no `traceparent`, or an id that is all zeros.
    TraceParentError, "not a traceparent of W3C Trace Context"
}

/// Reads two lower-case digits for each octet.
fn hex<const OCTETS: usize>(text: &[u8]) -> Option<[u8; OCTETS]> {
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != OCTETS || !rest.is_empty() {
        return None;
    }
    let mut octets = [0; OCTETS];
    for (octet, [high, low]) in octets.iter_mut().zip(pairs) {
        *octet = (digit(*high)? << 4) | digit(*low)?;
    }
    Some(octets)
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => character.checked_sub(b'0'),
        b'a'..=b'f' => character.checked_sub(b'a' - 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn version_00_is_read() {
        for (flags, is_sampled) in [("00", false), ("01", true), ("02", false), ("ff", true)] {
            let parent = TraceParent::parse(&format!("00-{TRACE}-{SPAN}-{flags}")).unwrap();
            assert_eq!(parent.trace_id()[..3], [0x4b, 0xf9, 0x2f]);
            assert_eq!(parent.parent_id()[..3], [0x00, 0xf0, 0x67]);
            assert_eq!(parent.is_sampled(), is_sampled, "{flags}");
            let expected = format!("00-{TRACE}-{SPAN}-0{}", u8::from(is_sampled));
            assert_eq!(parent.to_string(), expected);
        }
    }

    #[test]
    fn what_is_known_of_a_later_version_is_read() {
        for version in ["01", "cc", "fe"] {
            for more in ["", "-", "-what-the-future-will-be-like", "-\u{fffd}"] {
                let text = format!("{version}-{TRACE}-{SPAN}-01{more}");
                let parent = TraceParent::parse(&text).unwrap();
                assert_eq!(
                    parent.to_string(),
                    format!("00-{TRACE}-{SPAN}-01"),
                    "{text}"
                );
            }
            for more in ["0", ".", " ", "x-"] {
                let text = format!("{version}-{TRACE}-{SPAN}-01{more}");
                assert!(TraceParent::parse(&text).is_err(), "{text}");
            }
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let zeros = "0".repeat(32);
        let upper = TRACE.to_uppercase();
        for text in [
            String::new(),
            "-".repeat(55),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-what"),
            format!("00-{TRACE}-{SPAN}-010"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("00-{TRACE}-{SPAN}--1"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0F-{TRACE}-{SPAN}-01"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-{SPAN}-{TRACE}-01"),
            format!("00_{TRACE}-{SPAN}-01"),
            format!(" 00-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01 "),
            format!("00-{}\u{e9}-{SPAN}-01", &TRACE[..30]),
        ] {
            assert!(TraceParent::parse(&text).is_err(), "{text}");
        }
        assert!(TraceParent::new([0; 16], [1; 8], true).is_err());
        assert!(TraceParent::new([1; 16], [0; 8], true).is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(
            trace_id: [u8; 16],
            parent_id: [u8; 8],
            is_sampled: bool,
        ) {
            if let Ok(parent) = TraceParent::new(trace_id, parent_id, is_sampled) {
                prop_assert_eq!(parent.to_string().parse(), Ok(parent));
            }
        }

        #[test]
        fn what_is_read_begins_as_it_prints(
            version in "[0-9a-f]{2}",
            ids in "[0-9a-f]{32}-[0-9a-f]{16}",
            flags in "[0-9a-f]{2}",
            more in ".{0,9}",
        ) {
            let text = format!("{version}-{ids}-{flags}{more}");
            let is_whole = more.is_empty();
            let is_known = version == "00" && is_whole
                || version != "00" && version != "ff" && (is_whole || more.starts_with('-'));
            let read = TraceParent::parse(&text);
            prop_assert_eq!(read.is_ok(), is_known, "{}", text);
            if let Ok(parent) = read {
                let begin = format!("00-{ids}-0");
                prop_assert!(parent.to_string().starts_with(&begin));
            }
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = TraceParent::parse(&text);
        }

        /// One character of a valid text is another one: it is read only where it may differ.
        #[test]
        fn another_character_is_refused(at in 0_usize..55, other: char) {
            let valid = format!("00-{TRACE}-{SPAN}-01");
            let mut text: Vec<_> = valid.chars().collect();
            *text.get_mut(at).unwrap() = other;
            let text = String::from_iter(text);
            let is_hex = |character: char| matches!(character, '0'..='9' | 'a'..='f');
            if [2, 35, 52].contains(&at) {
                prop_assert_eq!(TraceParent::parse(&text).is_ok(), other == '-');
            } else {
                prop_assert_eq!(TraceParent::parse(&text).is_ok(), is_hex(other) && !text.starts_with("ff"));
            }
        }
    }
}
