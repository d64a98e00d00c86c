//! The private key as a number of 32 octets: the form of the npm and Python libraries.

use zeroize::Zeroizing;

use super::{VapidKey, base64_lines};
use crate::encoding::base64url;
use crate::vapid::{VapidError, VapidErrorKind};

impl VapidKey {
    /// Octets of a private key.
    pub const SECRET_LEN: usize = 32;

    /// Takes the private key in as a big-endian number of 32 octets.
    ///
    /// One octet less means that a leading zero was dropped, as one key in 256 has one: it is put back in
    /// front, never at the end. Anything shorter is more likely cut off. One zero too many in front, as
    /// signed big integers print it, is fine.
    ///
    /// # Errors
    ///
    /// [`InvalidPrivateKey`](VapidErrorKind::InvalidPrivateKey) for another length, zero, and numbers
    /// not below the order of P-256.
    pub fn from_secret_bytes(bytes: &[u8]) -> Result<Self, VapidError> {
        let number = match bytes {
            [0, number @ ..] if number.len() == Self::SECRET_LEN => number,
            number if number.len() + 1 >= Self::SECRET_LEN => number,
            _ => return Err(VapidErrorKind::InvalidPrivateKey.into()),
        };
        // Refuses more than 32 octets, and puts the zero in front of fewer.
        let secret = p256::SecretKey::from_slice(number)
            .map_err(|source| VapidError::with_source(VapidErrorKind::InvalidPrivateKey, source))?;
        Self::from_secret(secret)
    }

    /// Takes base64 of the private key in: either alphabet, padded or not.
    ///
    /// # Errors
    ///
    /// As [`from_secret_bytes`](Self::from_secret_bytes).
    pub(super) fn from_raw_base64(text: &str) -> Result<Self, VapidError> {
        let bytes = base64_lines(text).ok_or(VapidErrorKind::InvalidPrivateKey)?;
        Self::from_secret_bytes(&bytes)
    }

    /// The private key as a big-endian number.
    #[must_use]
    pub fn secret_bytes(&self) -> Zeroizing<[u8; Self::SECRET_LEN]> {
        Zeroizing::new(self.secret.to_bytes().into())
    }

    /// The private key in unpadded base64url, 43 characters.
    #[must_use]
    pub fn secret_to_raw_base64url(&self) -> Zeroizing<String> {
        Zeroizing::new(base64url(self.secret_bytes().as_slice()))
    }
}
