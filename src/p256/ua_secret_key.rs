//! The secret key of a user agent: what decrypts.

use std::fmt;

use p256::elliptic_curve::Generate as _;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use zeroize::Zeroizing;

use super::CryptoError;
use crate::secret::SecretBytes;
use crate::subscription::UaPublicKey;

/// A user agent's P-256 key pair (RFC 8291 section 3.1).
///
/// An application server never has one; user agents in tests and tools that decrypt do. Wiped on
/// drop, not `Clone`, never printed.
pub struct UaSecretKey {
    scalar: SecretBytes<{ Self::LEN }>,
    public: UaPublicKey,
}

impl UaSecretKey {
    /// Octets of the secret scalar.
    pub const LEN: usize = 32;

    /// A new key pair from the operating system's randomness.
    ///
    /// # Errors
    ///
    /// [`CryptoError`] when the operating system has none.
    pub fn random() -> Result<Self, CryptoError> {
        let key = p256::SecretKey::try_generate().map_err(|_| CryptoError)?;
        Self::from_key(&key)
    }

    /// Takes a secret scalar in, 32 octets, big-endian.
    ///
    /// # Errors
    ///
    /// [`CryptoError`] for another length, for zero, and for a number not below the curve's order.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CryptoError> {
        // `p256` would pad shorter scalars.
        if bytes.len() != Self::LEN {
            return Err(CryptoError);
        }
        let key = p256::SecretKey::from_slice(bytes).map_err(|_| CryptoError)?;
        Self::from_key(&key)
    }

    fn from_key(key: &p256::SecretKey) -> Result<Self, CryptoError> {
        let scalar = Zeroizing::new(<[u8; Self::LEN]>::from(key.to_bytes()));
        let point = key.public_key().to_sec1_point(false);
        Ok(Self {
            scalar: SecretBytes::new(*scalar),
            public: UaPublicKey::from_bytes(point.as_bytes()).map_err(|_| CryptoError)?,
        })
    }

    /// The public key that belongs to it.
    #[must_use]
    pub const fn public(&self) -> &UaPublicKey {
        &self.public
    }

    /// The secret scalar, big-endian: keep it out of logs, errors and longer-lived buffers.
    #[must_use]
    pub const fn secret_bytes(&self) -> &[u8; Self::LEN] {
        self.scalar.secret_bytes()
    }
}

impl fmt::Debug for UaSecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UaSecretKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::base64_any;

    /// The order of the curve, FIPS 186-5.
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63,
        0x25, 0x51,
    ];

    #[test]
    fn the_rfc_8291_pair_belongs_together() {
        let secret = base64_any("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94").unwrap();
        assert_eq!(
            UaSecretKey::from_bytes(&secret)
                .unwrap()
                .public()
                .to_base64url(),
            "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
        );
    }

    #[test]
    fn zero_the_order_and_other_lengths_are_refused() {
        let mut below = ORDER;
        below[31] -= 1;
        assert!(UaSecretKey::from_bytes(&below).is_ok());
        for bad in [&[0; 32][..], &ORDER, &[0xff; 32], &[], &[1; 31], &[1; 33]] {
            assert!(UaSecretKey::from_bytes(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn random_keys_differ_and_survive_their_octets() {
        let key = UaSecretKey::random().unwrap();
        assert_ne!(key.public(), UaSecretKey::random().unwrap().public());
        let again = UaSecretKey::from_bytes(key.secret_bytes()).unwrap();
        assert_eq!(again.public(), key.public());
    }
}
