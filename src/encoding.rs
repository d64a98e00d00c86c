//! base64 as Web Push uses it: unpadded base64url out, both alphabets and optional padding in.
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
    Base64UrlUnpadded::decode_vec(mapped)
        .ok()
        .map(Zeroizing::new)
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

    #[test]
    fn nothing_decodes_to_nothing() {
        assert_eq!(base64_any("").as_deref(), Some(&Vec::new()));
    }
}
