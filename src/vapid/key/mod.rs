//! The signing key, in every usual form.

mod der;
mod jwk;
mod pem;
mod raw;

use std::fmt;

use p256::elliptic_curve::Generate as _;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use zeroize::Zeroizing;

use super::{KeyId, VapidError, VapidErrorKind, VapidPublicKey};
use crate::encoding::{base64_any, hex};

/// A VAPID signing key: a private key on P-256 (RFC 8292 section 2).
///
/// Wiped on drop as [`secret`](crate::secret) says, never printed (`Debug` shows the key id), and not `Clone`: share it in an `Arc`. It
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
    public_key: VapidPublicKey,
    id: KeyId,
}

impl VapidKey {
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
    /// - PKCS#8 or SEC1 DER, raw, in base64 or in hex;
    /// - the 32 octets of the private key, raw, in base64 or in hex;
    /// - JSON: a JWK, or `{"publicKey","privateKey"}` with JWKs, or in base64 as the npm package
    ///   `web-push` prints it;
    /// - base64 of a whole PEM or JSON file, for environment files, which take no line breaks.
    ///
    /// base64 may use either alphabet, padded or not; hex may have a colon between octets and `0x` in
    /// front. Whitespace in and around both is ignored. A key of 31 octets has lost a leading zero and
    /// gets it back. More than 16 KiB are refused.
    ///
    /// # Errors
    ///
    /// [`InvalidPrivateKey`](VapidErrorKind::InvalidPrivateKey),
    /// [`NotP256`](VapidErrorKind::NotP256), [`PublicKeyGiven`](VapidErrorKind::PublicKeyGiven),
    /// [`PasswordProtected`](VapidErrorKind::PasswordProtected), and
    /// [`KeyPairMismatch`](VapidErrorKind::KeyPairMismatch) or
    /// [`InvalidPublicKey`](VapidErrorKind::InvalidPublicKey) when a public key stands beside it.
    pub fn parse(key: impl AsRef<[u8]>) -> Result<Self, VapidError> {
        let key = key.as_ref();
        if key.len() > MAX_TEXT {
            return Err(VapidErrorKind::InvalidPrivateKey.into());
        }
        match as_text(key) {
            Some(text) => Self::parse_text(text),
            None if key.len() == Self::SECRET_LEN => Self::from_secret_bytes(key),
            None => Self::from_der(key),
        }
    }

    /// Reads a private key as [`parse`](Self::parse) does, and checks that `public` is its public key: base64 of the
    /// 65 octets, either alphabet, padded or not.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse), [`InvalidPublicKey`](VapidErrorKind::InvalidPublicKey) and
    /// [`KeyPairMismatch`](VapidErrorKind::KeyPairMismatch).
    pub fn parse_pair(private: impl AsRef<[u8]>, public: &str) -> Result<Self, VapidError> {
        Self::parse(private)?.stated(&VapidPublicKey::parse(public.trim_ascii())?)
    }

    fn parse_text(text: &str) -> Result<Self, VapidError> {
        if let Some(key) = Self::parse_file(text) {
            return key;
        }
        let octets = hex_lines(text)
            .or_else(|| base64_lines(text))
            .ok_or(VapidErrorKind::InvalidPrivateKey)?;
        // The shortest DER has 39 octets, and no file is shorter.
        if octets.len() <= Self::SECRET_LEN + 1 {
            return Self::from_secret_bytes(&octets);
        }
        let file = as_text(&octets).and_then(Self::parse_file);
        file.unwrap_or_else(|| Self::from_der(&octets))
    }

    /// Parses the key of a JSON or PEM file. Returns `None` for a text that is neither.
    fn parse_file(text: &str) -> Option<Result<Self, VapidError>> {
        if text.starts_with('{') {
            Some(Self::from_json(text))
        } else if text.contains(pem::BEGIN) {
            Some(Self::from_pem(text))
        } else {
            None
        }
    }

    fn from_secret(secret: p256::SecretKey) -> Result<Self, VapidError> {
        let point = secret.public_key().to_sec1_point(false);
        let public_key = VapidPublicKey::from_bytes(point.as_bytes())?;
        Ok(Self {
            secret,
            id: public_key.id(),
            public_key,
        })
    }

    /// Returns the key if `public_key` is its public key.
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

    /// Returns the id of this key in rows and logs.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// For signing only: see the type.
    pub(super) const fn secret(&self) -> &p256::SecretKey {
        &self.secret
    }
}

impl fmt::Debug for VapidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VapidKey({})", self.id)
    }
}

/// The longest text that is parsed, in octets.
const MAX_TEXT: usize = 16 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The text of a file, without a byte order mark and the whitespace around it.
///
/// DER is never text, because of its version numbers, and 32 random octets hardly ever are.
fn as_text(file: &[u8]) -> Option<&str> {
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    let text = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    let text = text.iter().all(is_text).then_some(text)?;
    std::str::from_utf8(text.trim_ascii()).ok()
}

/// Hex digits, at least for the shortest key, with colons and whitespace anywhere among them.
///
/// As base64 the same digits would be 46 octets or more that begin like no DER (`M`) and no PEM (`L`).
fn hex_lines(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text = text.strip_prefix("0x").unwrap_or(text);
    let mut digits = Zeroizing::new(String::with_capacity(text.len()));
    for piece in text.split(|c: char| c == ':' || c.is_ascii_whitespace()) {
        digits.push_str(piece);
    }
    let shortest = 2 * (VapidKey::SECRET_LEN - 1);
    hex(&digits).filter(|_| digits.len() >= shortest)
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
