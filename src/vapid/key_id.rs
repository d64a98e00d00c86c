//! The id of a VAPID key.

use std::fmt;
use std::str::FromStr;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use sha2::{Digest as _, Sha256};

use super::{VapidError, VapidErrorKind, VapidPublicKey};
use crate::encoding::base64url;

/// The id of a VAPID key: the first 16 octets of the SHA-256 of its public key, written as 22 characters of unpadded
/// base64url.
///
/// It is derived, not random: every process computes the same id for the same key, so a row that names its key stays
/// valid in any store that imports the key. It is public, as the key is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; Self::LEN]);

impl KeyId {
    /// Octets of an id.
    pub const LEN: usize = 16;

    /// The id of `key`.
    #[must_use]
    pub fn of(key: &VapidPublicKey) -> Self {
        let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let mut id = [0; Self::LEN];
        for (to, from) in id.iter_mut().zip(digest) {
            *to = from;
        }
        Self(id)
    }

    /// Makes an id of stored octets.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The 16 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = VapidError;

    /// Parses exactly what `Display` writes: one text per id.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut id = [0; Self::LEN];
        let decoded = Base64UrlUnpadded::decode(text, &mut id)
            .map_err(|_| VapidErrorKind::InvalidKeyId)?
            .len();
        if decoded != Self::LEN {
            return Err(VapidErrorKind::InvalidKeyId.into());
        }
        Ok(Self(id))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RFC_8292: &str =
        "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";

    #[test]
    fn an_id_round_trips_through_its_22_characters() {
        let id = VapidPublicKey::parse(RFC_8292).unwrap().id();
        assert_eq!(id.to_string().len(), 22);
        assert_eq!(id.to_string().parse::<KeyId>().unwrap(), id);
    }

    #[test]
    fn the_derivation_never_changes() {
        // Stored rows carry it.
        let id = VapidPublicKey::parse(RFC_8292).unwrap().id();
        assert_eq!(id.to_string(), "VeKk3pT6dvOO_b9oq04hLw");
    }

    #[test]
    fn another_spelling_is_refused() {
        for text in [
            "",
            "AAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAB",
            "AAAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAA==",
            "AAAAAAAAAAAAAAAAAAAAA+",
        ] {
            assert!(text.parse::<KeyId>().is_err(), "{text}");
        }
        assert!("AAAAAAAAAAAAAAAAAAAAAA".parse::<KeyId>().is_ok());
    }
}
