//! The signing key, in every form that keys are handed around in.

mod der;
mod jwk;
mod pem;
mod raw;

use std::fmt;

use jwt_simple::algorithms::ES256KeyPair;
use p256::elliptic_curve::Generate as _;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use zeroize::Zeroizing;

use super::{KeyId, VapidError, VapidErrorKind, VapidPublicKey};
use crate::encoding::base64_any;

/// A VAPID signing key: a private key on P-256 (RFC 8292 section 2).
///
/// Wiped on drop, never printed (`Debug` shows the key id), and not `Clone`: share it in an `Arc`. It
/// must not serve any other purpose, ECDH least of all (RFC 8292 section 3.2).
///
/// # Examples
///
/// ```
/// use tower_web_push::vapid::VapidKey;
///
/// let key = VapidKey::generate()?;
/// let again = VapidKey::parse(key.secret_to_pkcs8_pem().as_bytes())?;
/// assert_eq!(again.public_key(), key.public_key());
/// # Ok::<(), tower_web_push::vapid::VapidError>(())
/// ```
pub struct VapidKey {
    secret: p256::SecretKey,
    signing: ES256KeyPair,
    public_key: VapidPublicKey,
    id: KeyId,
}

impl VapidKey {
    /// The longest text that [`parse`](Self::parse) takes, in octets.
    pub const MAX_TEXT: usize = 16 * 1024;

    /// A new key from the operating system's randomness.
    ///
    /// # Errors
    ///
    /// [`NoRandomness`](VapidErrorKind::NoRandomness).
    pub fn generate() -> Result<Self, VapidError> {
        let secret = p256::SecretKey::try_generate()
            .map_err(|source| VapidError::with_source(VapidErrorKind::NoRandomness, source))?;
        Self::from_secret(secret)
    }

    /// Reads a private key in any form:
    ///
    /// - PEM: PKCS#8 (`PRIVATE KEY`) or SEC1 (`EC PRIVATE KEY`), with other blocks around it, its line
    ///   breaks intact, lost, or written `\n` as environment variables tend to;
    /// - PKCS#8 or SEC1 DER, as it is or in base64;
    /// - the 32 octets of the private key, as they are or in base64;
    /// - JSON: a JWK, or `{"publicKey","privateKey"}` in base64 as the npm package `web-push` prints it.
    ///
    /// base64 may use either alphabet, padded or not; blanks around the text are ignored. A key of 31
    /// octets has lost a leading zero and gets it back.
    ///
    /// # Errors
    ///
    /// [`InvalidPrivateKey`](VapidErrorKind::InvalidPrivateKey),
    /// [`PasswordProtected`](VapidErrorKind::PasswordProtected), and
    /// [`KeyPairMismatch`](VapidErrorKind::KeyPairMismatch) or
    /// [`InvalidPublicKey`](VapidErrorKind::InvalidPublicKey) when a public key stands beside it.
    pub fn parse(key: impl AsRef<[u8]>) -> Result<Self, VapidError> {
        let key = key.as_ref();
        if key.len() > Self::MAX_TEXT {
            return Err(VapidErrorKind::InvalidPrivateKey.into());
        }
        let text = key.strip_prefix(BYTE_ORDER_MARK).unwrap_or(key);
        match std::str::from_utf8(text) {
            // DER never is, for the version numbers in it, and 32 random octets hardly ever are.
            Ok(text) if text.bytes().all(is_text) => Self::parse_text(text.trim_ascii()),
            _ if key.len() == Self::SECRET_LEN => Self::from_secret_bytes(key),
            _ => Self::from_der(key),
        }
    }

    /// Reads a private key as [`parse`](Self::parse) does, and checks that `public` is its public key:
    /// base64 of the 65 octets, either alphabet, padded or not.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse), [`InvalidPublicKey`](VapidErrorKind::InvalidPublicKey) and
    /// [`KeyPairMismatch`](VapidErrorKind::KeyPairMismatch).
    pub fn parse_pair(private: impl AsRef<[u8]>, public: &str) -> Result<Self, VapidError> {
        Self::parse(private)?.stated(&VapidPublicKey::parse(public.trim_ascii())?)
    }

    fn parse_text(text: &str) -> Result<Self, VapidError> {
        if text.starts_with('{') {
            return Self::from_json(text);
        }
        if text.contains("-----BEGIN ") {
            return Self::from_pem(text);
        }
        let bytes = base64_lines(text).ok_or(VapidErrorKind::InvalidPrivateKey)?;
        // The shortest DER has 39 octets.
        if bytes.len() <= Self::SECRET_LEN + 1 {
            Self::from_secret_bytes(&bytes)
        } else {
            Self::from_der(&bytes)
        }
    }

    fn from_secret(secret: p256::SecretKey) -> Result<Self, VapidError> {
        let invalid = |_| VapidError::from(VapidErrorKind::InvalidPrivateKey);
        let octets = Zeroizing::new(<[u8; Self::SECRET_LEN]>::from(secret.to_bytes()));
        let signing = ES256KeyPair::from_bytes(octets.as_slice()).map_err(invalid)?;
        let point = secret.public_key().to_sec1_point(false);
        let public_key = VapidPublicKey::from_bytes(point.as_bytes())?;
        Ok(Self {
            secret,
            signing,
            id: public_key.id(),
            public_key,
        })
    }

    /// The key itself, when `public_key` is indeed its public key.
    pub(in crate::vapid) fn stated(self, public_key: &VapidPublicKey) -> Result<Self, VapidError> {
        if self.public_key == *public_key {
            Ok(self)
        } else {
            Err(VapidErrorKind::KeyPairMismatch.into())
        }
    }

    /// The public key: `k` in the header, `applicationServerKey` in the browser.
    #[must_use]
    pub const fn public_key(&self) -> &VapidPublicKey {
        &self.public_key
    }

    /// The id that rows and logs know this key by.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    pub(super) const fn signing(&self) -> &ES256KeyPair {
        &self.signing
    }
}

impl fmt::Debug for VapidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VapidKey({})", self.id)
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const fn is_text(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte.is_ascii_whitespace()
}

/// base64 of either alphabet with whitespace, or `\n` and `\r` spelled out, anywhere in it.
fn base64_lines(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut joined = Zeroizing::new(String::with_capacity(text.len()));
    for piece in text.split_ascii_whitespace() {
        for piece in piece.split("\\n").flat_map(|piece| piece.split("\\r")) {
            joined.push_str(piece);
        }
    }
    base64_any(&joined)
}

#[cfg(test)]
mod tests;
