//! base64 as Web Push uses it: unpadded base64url out, both alphabets and optional padding in; and the hex digits that
//! some tools print keys in.
//!
//! Pages that build the subscription with `btoa` send the standard alphabet with padding (Push API
//! JSON uses base64url without). Most of it is secret, so the octets are mapped without a branch, and `base64ct` decodes
//! in constant time.

use base64ct::{Base64UrlUnpadded, Encoding};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};
use zeroize::Zeroizing;

/// Unpadded base64url (RFC 4648 section 5).
pub(crate) fn base64url(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

/// The decoded octets of either alphabet, with full padding or none; `None` for anything else.
pub(crate) fn base64_any(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let unpadded = text.trim_end_matches('=');
    let padding = text.len() - unpadded.len();
    if padding > 0 && (padding > 2 || !text.len().is_multiple_of(4)) {
        return None;
    }
    let mapped: Zeroizing<Vec<u8>> = Zeroizing::new(
        unpadded
            .bytes()
            .map(|byte| in_place_of(b'+', b'-', byte))
            .map(|byte| in_place_of(b'/', b'_', byte))
            .collect(),
    );
    let mapped = std::str::from_utf8(&mapped).ok()?;
    // Not `decode_vec`: that leaves behind what it had decoded before it met a wrong character.
    let mut octets = Zeroizing::new(vec![0; mapped.len()]);
    let len = Base64UrlUnpadded::decode(mapped, &mut octets).ok()?.len();
    octets.truncate(len);
    Some(octets)
}

/// The octets of hex digits, in either case; `None` for anything else.
#[cfg(feature = "vapid")]
pub(crate) fn hex(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut octets = Zeroizing::new(Vec::with_capacity(pairs.len()));
    let mut is_hex = rest.is_empty();
    for [high, low] in pairs {
        let (high, low) = (nibble(*high), nibble(*low));
        is_hex &= high | low < 16;
        octets.push(high << 4 | low & 15);
    }
    is_hex.then_some(octets)
}

/// The value of a hex digit, 255 for any other octet. Without a branch or a table, as the rest of this module.
#[cfg(feature = "vapid")]
fn nibble(digit: u8) -> u8 {
    // All ones where `digit` lies in the range, else zero.
    let within = |first: u8, last: u8| {
        let (digit, first, last) = (i16::from(digit), i16::from(first), i16::from(last));
        // Of these one is negative outside the range, and its sign fills the upper octet.
        !((((digit - first) | (last - digit)) >> 8) as u8)
    };
    let number = within(b'0', b'9') & digit.wrapping_sub(b'0');
    let upper = within(b'A', b'F') & digit.wrapping_sub(b'A' - 10);
    let lower = within(b'a', b'f') & digit.wrapping_sub(b'a' - 10);
    let is_digit = within(b'0', b'9') | within(b'A', b'F') | within(b'a', b'f');
    number | upper | lower | !is_digit
}

/// `new` where the octet is `old`, else the octet.
fn in_place_of(old: u8, new: u8, octet: u8) -> u8 {
    u8::conditional_select(&octet, &new, octet.ct_eq(&old))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_alphabets_with_and_without_padding() {
        for text in ["-_8", "+/8", "-_8=", "+/8="] {
            assert_eq!(
                base64_any(text).as_deref(),
                Some(&vec![0xfb, 0xff]),
                "{text}"
            );
        }
    }

    #[test]
    fn malformed_text_is_refused() {
        for text in ["-_8==", "a", "a=", "====", "=", "a b=", "-_9", "äöü"] {
            assert!(base64_any(text).is_none(), "{text}");
        }
    }

    #[cfg(feature = "vapid")]
    #[test]
    fn hex_digits_of_either_case_and_nothing_else() {
        assert_eq!(hex("00fFa9C3").as_deref(), Some(&vec![0, 255, 0xa9, 0xc3]));
        for text in ["0", "0g", "g0", "0x12", "00 1", "é", "-1", "1\u{0}"] {
            assert!(hex(text).is_none(), "{text}");
        }
        for octet in 0..=u8::MAX {
            let expected = char::from(octet)
                .to_digit(16)
                .map_or(255, |digit| digit as u8);
            assert_eq!(nibble(octet), expected, "{octet}");
        }
    }

    #[test]
    fn nothing_decodes_to_nothing() {
        assert_eq!(base64_any("").as_deref(), Some(&Vec::new()));
    }
}
