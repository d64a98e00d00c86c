//! The public half of a VAPID key, `k` in the header and `applicationServerKey` in the browser.

use std::fmt;
use std::str::FromStr;

use super::{KeyId, VapidError, VapidErrorKind};
use crate::encoding::{base64_any, base64url};
use crate::subscription::UaPublicKey;

/// A VAPID public key: a point on P-256, uncompressed, 65 octets (RFC 8292 section 3.2).
///
/// Every constructor checks that the point is on the curve. `Display` writes the 87 characters that browsers take as
/// `applicationServerKey`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VapidPublicKey([u8; Self::LEN]);

impl VapidPublicKey {
    /// Octets of an uncompressed point: the tag `0x04` and two coordinates.
    pub const LEN: usize = 65;

    /// Takes an uncompressed point in.
    ///
    /// # Errors
    ///
    /// [`InvalidPublicKey`](VapidErrorKind::InvalidPublicKey) for another length, a compressed or
    /// hybrid form, the identity, and a point that is not on the curve.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, VapidError> {
        // RFC 8292 section 3.2 knows the same form as RFC 8291 section 3.1.
        let point = UaPublicKey::from_bytes(bytes).map_err(|_| VapidErrorKind::InvalidPublicKey)?;
        Ok(Self(*point.as_bytes()))
    }

    /// Takes base64 of either alphabet in, padded or not.
    ///
    /// # Errors
    ///
    /// [`InvalidPublicKey`](VapidErrorKind::InvalidPublicKey), as [`from_bytes`](Self::from_bytes).
    pub fn parse(text: &str) -> Result<Self, VapidError> {
        let bytes = base64_any(text).ok_or(VapidErrorKind::InvalidPublicKey)?;
        Self::from_bytes(&bytes)
    }

    /// The uncompressed point.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The point in unpadded base64url, 87 characters.
    #[must_use]
    pub fn to_base64url(&self) -> String {
        base64url(&self.0)
    }

    /// The key's id. Hashes on every call.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId::of(self)
    }
}

impl FromStr for VapidPublicKey {
    type Err = VapidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for VapidPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_base64url())
    }
}

impl fmt::Debug for VapidPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VapidPublicKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RFC_8292: &str =
        "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";

    #[test]
    fn both_alphabets_and_padding_are_understood() {
        let key = VapidPublicKey::parse(RFC_8292).unwrap();
        let standard = format!("{}=", RFC_8292.replace('-', "+").replace('_', "/"));
        assert_eq!(VapidPublicKey::parse(&standard).unwrap(), key);
        assert_eq!(key.to_string(), RFC_8292);
        assert_eq!(key.to_base64url().len(), 87);
    }

    #[test]
    fn the_shared_cases_agree() {
        let file = include_str!("../../tests/vectors/p256_public_keys.json");
        let file: serde_json::Value = serde_json::from_str(file).unwrap();
        let cases = file["cases"].as_array().unwrap();
        assert!(cases.len() >= 19);
        for case in cases {
            let text = case["key"].as_str().unwrap();
            let valid = case["valid"].as_bool().unwrap();
            assert_eq!(
                VapidPublicKey::parse(text).is_ok(),
                valid,
                "{}",
                case["name"]
            );
        }
    }
}
