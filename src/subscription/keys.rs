//! The two keys of a subscription: `p256dh` and `auth`.

use std::fmt;

use super::{SubscriptionError, SubscriptionErrorKind};
use crate::encoding::{base64_any, base64url};
use crate::secret::SecretBytes;

/// A user agent's public key: a point on P-256, uncompressed, 65 octets (RFC 8291 section 3.1).
///
/// Every constructor checks that the point is on the curve (RFC 8291 section 7), so that no message is encrypted for
/// a point that would leak the sender's key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UaPublicKey([u8; Self::LEN]);

impl UaPublicKey {
    /// Octets of an uncompressed point: the tag `0x04` and two coordinates.
    pub const LEN: usize = 65;

    /// Makes a key of an uncompressed point.
    ///
    /// # Errors
    ///
    /// [`InvalidP256dh`](SubscriptionErrorKind::InvalidP256dh) for another length, a compressed or
    /// hybrid form, the identity, and a point that is not on the curve.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SubscriptionError> {
        let invalid = || SubscriptionError::from(SubscriptionErrorKind::InvalidP256dh);
        let bytes: [u8; Self::LEN] = bytes.try_into().map_err(|_| invalid())?;
        // `p256` accepts compressed points as well; RFC 8291 section 3.1 allows the uncompressed form only.
        if bytes.first() != Some(&0x04) {
            return Err(invalid());
        }
        p256::PublicKey::from_sec1_bytes(&bytes).map_err(|_| invalid())?;
        Ok(Self(bytes))
    }

    /// Parses base64 of either alphabet, padded or not.
    ///
    /// # Errors
    ///
    /// [`InvalidP256dh`](SubscriptionErrorKind::InvalidP256dh), as [`from_bytes`](Self::from_bytes).
    pub fn parse(text: &str) -> Result<Self, SubscriptionError> {
        let bytes = base64_any(text).ok_or(SubscriptionErrorKind::InvalidP256dh)?;
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
}

impl fmt::Debug for UaPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UaPublicKey(..)")
    }
}

/// A subscription's authentication secret, 16 octets (RFC 8291 section 3.2).
///
/// Wiped on drop, compared in constant time, never printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthSecret(SecretBytes<{ Self::LEN }>);

impl AuthSecret {
    /// Octets of the secret.
    pub const LEN: usize = 16;

    /// Makes a secret of 16 octets.
    ///
    /// # Errors
    ///
    /// [`InvalidAuth`](SubscriptionErrorKind::InvalidAuth) for another length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SubscriptionError> {
        SecretBytes::from_slice(bytes)
            .map(Self)
            .ok_or_else(|| SubscriptionErrorKind::InvalidAuth.into())
    }

    /// Parses base64 of either alphabet, padded or not.
    ///
    /// # Errors
    ///
    /// [`InvalidAuth`](SubscriptionErrorKind::InvalidAuth) for any other length.
    pub fn parse(text: &str) -> Result<Self, SubscriptionError> {
        let bytes = base64_any(text).ok_or(SubscriptionErrorKind::InvalidAuth)?;
        Self::from_bytes(&bytes)
    }

    /// The 16 octets.
    #[must_use]
    pub const fn secret_bytes(&self) -> &[u8; Self::LEN] {
        self.0.secret_bytes()
    }

    /// The secret in unpadded base64url, 22 characters.
    #[must_use]
    pub fn secret_to_base64url(&self) -> String {
        base64url(self.secret_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UA_PUBLIC: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";

    #[test]
    fn the_rfc_8291_key_round_trips() {
        assert_eq!(
            UaPublicKey::parse(UA_PUBLIC).unwrap().to_base64url(),
            UA_PUBLIC
        );
    }

    #[test]
    fn a_compressed_point_is_refused() {
        let bytes = *UaPublicKey::parse(UA_PUBLIC).unwrap().as_bytes();
        let mut compressed = bytes[..33].to_vec();
        compressed[0] = 2 + (bytes[64] & 1);
        assert!(
            p256::PublicKey::from_sec1_bytes(&compressed).is_ok(),
            "p256 itself takes it"
        );
        assert!(UaPublicKey::from_bytes(&compressed).is_err());
    }

    #[test]
    fn a_point_off_the_curve_is_refused() {
        let mut bytes = *UaPublicKey::parse(UA_PUBLIC).unwrap().as_bytes();
        bytes[64] ^= 1;
        assert!(UaPublicKey::from_bytes(&bytes).is_err());
    }

    #[test]
    fn an_auth_secret_has_sixteen_octets() {
        assert!(AuthSecret::parse("BTBZMqHH6r4Tts7J_aSIgg").is_ok());
        assert!(AuthSecret::parse("BTBZMqHH6r4Tts7J_aSI").is_err());
        assert!(AuthSecret::from_bytes(&[0; 17]).is_err());
    }

    #[test]
    fn debug_shows_neither() {
        let auth = AuthSecret::parse("BTBZMqHH6r4Tts7J_aSIgg").unwrap();
        assert_eq!(format!("{auth:?}"), "AuthSecret(SecretBytes<16>(..))");
        assert_eq!(
            format!("{:?}", UaPublicKey::parse(UA_PUBLIC).unwrap()),
            "UaPublicKey(..)"
        );
    }
}
