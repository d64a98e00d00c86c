//! VAPID keys at rest: encrypted with AES-256-GCM under a key-encryption key, or in the clear.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64ct::{Base64UrlUnpadded, Encoding as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{KeyId, VapidError, VapidErrorKind, VapidKey, VapidPublicKey};
use crate::encoding::{base64_any, base64url, hex};
use crate::secret::SecretBytes;

/// A key that VAPID keys are encrypted under in the store: 32 octets.
///
/// Wiped on drop; `Debug` shows its id, which is derived from it and stored beside what it encrypts.
#[derive(Clone)]
struct KeyEncryptionKey {
    key: SecretBytes<{ Self::LEN }>,
    id: [u8; KEK_ID_LEN],
}

impl KeyEncryptionKey {
    /// Octets of the key.
    const LEN: usize = 32;

    fn new(key: &[u8; Self::LEN]) -> Result<Self, VapidError> {
        if is_pattern(key) {
            return Err(VapidErrorKind::WeakEncryptionKey.into());
        }
        let mut hash = Sha256::new();
        hash.update(b"tower-web-push key-encryption key id\0");
        hash.update(key);
        let digest: [u8; 32] = hash.finalize().into();
        let mut id = [0; KEK_ID_LEN];
        for (to, from) in id.iter_mut().zip(digest) {
            *to = from;
        }
        Ok(Self {
            key: SecretBytes::new(*key),
            id,
        })
    }

    fn parse(text: &str) -> Result<Self, VapidError> {
        let text = text.trim_ascii();
        // No text is valid as both: 64 hex digits are 48 octets in base64.
        let octets = [hex(text), base64_any(text)]
            .into_iter()
            .flatten()
            .find(|octets| octets.len() == Self::LEN)
            .ok_or(VapidErrorKind::InvalidEncryptionKey)?;
        let mut key = Zeroizing::new([0; Self::LEN]);
        key.copy_from_slice(&octets);
        Self::new(&key)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(self.key.secret_bytes().into())
    }
}

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyEncryptionKey({})", base64url(&self.id))
    }
}

/// The key-encryption keys of a deployment: the first encrypts, all of them decrypt. Without any, keys are stored in
/// the clear.
///
/// To replace one while processes run: start all of them with the new one at the end, then all with the
/// new one in front, which seals the stored keys again, then drop the old one.
///
/// # Switching encryption on
///
/// With at least one key here, a stored key in the clear is refused, at a start and while processes run:
/// anyone who can write to the store could have put it there, and messages would be signed with a key that
/// the writer knows. A store that was used without encryption is converted by one start with
/// [`seal_clear_keys`](Self::seal_clear_keys). Stop the processes that have no key-encryption keys first:
/// what they store later is refused again.
#[derive(Clone, Debug, Default)]
pub struct KeyEncryptionKeys {
    keys: Vec<KeyEncryptionKey>,
    seals_clear_keys: bool,
}

impl KeyEncryptionKeys {
    /// Makes an empty list: no encryption.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            keys: Vec::new(),
            seals_clear_keys: false,
        }
    }

    /// The first of `keys` encrypts, all of them decrypt.
    fn new(keys: impl IntoIterator<Item = KeyEncryptionKey>) -> Self {
        Self {
            keys: keys.into_iter().collect(),
            ..Self::none()
        }
    }

    /// Parses a comma-separated list of keys: 32 octets each, in base64, either alphabet, padded or not, or in hex. Blanks
    /// alone are the empty list. Keys must come from a random source: there is no key derivation from a password.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidEncryptionKey`](VapidErrorKind::InvalidEncryptionKey) for anything else, and
    /// [`WeakEncryptionKey`](VapidErrorKind::WeakEncryptionKey) for octets that no random source gives: fewer than 8
    /// different ones, two equal halves, or the same distance between all neighbours. The chance that a random key is
    /// refused is less than 1 in 10^30.
    pub fn parse(list: &str) -> Result<Self, VapidError> {
        if list.trim_ascii().is_empty() {
            return Ok(Self::none());
        }
        let keys: Result<Vec<_>, _> = list.split(',').map(KeyEncryptionKey::parse).collect();
        keys.map(Self::new)
    }

    /// Whether a start encrypts stored keys that are in the clear, instead of refusing them. Default:
    /// `false`.
    ///
    /// For the one start that converts a store which was used without encryption. It trusts every key that
    /// is in the store at that moment; while the process runs, keys in the clear are refused all the same. A
    /// start with it logs a warning each time, so that it is switched off again.
    #[must_use]
    pub const fn seal_clear_keys(mut self, seal: bool) -> Self {
        self.seals_clear_keys = seal;
        self
    }

    pub(crate) const fn seals_clear_keys(&self) -> bool {
        self.seals_clear_keys
    }

    /// Whether a start converts a store: it was requested, and there are keys to encrypt with.
    pub(crate) const fn converts(&self) -> bool {
        self.seals_clear_keys && !self.keys.is_empty()
    }

    /// Whether keys are stored in the clear.
    pub(crate) const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the stored form of `key`, under the first key-encryption key.
    ///
    /// # Errors
    ///
    /// [`NoRandomness`](VapidErrorKind::NoRandomness).
    pub(crate) fn seal(&self, key: &VapidKey) -> Result<SealedVapidKey, VapidError> {
        let Some(kek) = self.keys.first() else {
            let mut text = Zeroizing::new(String::with_capacity(64));
            text.push_str("v0.");
            text.push_str(&key.secret_to_raw_base64url());
            return Ok(SealedVapidKey(text));
        };
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce)
            .map_err(|source| VapidError::with_source(VapidErrorKind::NoRandomness, source))?;
        let secret = key.secret_bytes();
        let payload = Payload {
            msg: secret.as_slice(),
            aad: &associated_data(kek, key.public_key()),
        };
        let ciphertext = kek
            .cipher()
            .encrypt(&Nonce::from(nonce), payload)
            .map_err(|source| VapidError::with_source(VapidErrorKind::UnreadableKey, source))?;
        let [id, nonce, ciphertext] = [&kek.id, &nonce[..], &ciphertext].map(base64url);
        Ok(SealedVapidKey::new(format!("v1.{id}.{nonce}.{ciphertext}")))
    }

    /// Returns the key of a stored form. `public_key` is the one stored beside it.
    ///
    /// # Errors
    ///
    /// [`ClearKey`](VapidErrorKind::ClearKey) for a key in the clear, unless there are no key-encryption
    /// keys or [`seal_clear_keys`](Self::seal_clear_keys) is set,
    /// [`UnknownEncryptionKey`](VapidErrorKind::UnknownEncryptionKey) or
    /// [`UnreadableKey`](VapidErrorKind::UnreadableKey).
    pub(crate) fn open(
        &self,
        sealed: &SealedVapidKey,
        public_key: &VapidPublicKey,
    ) -> Result<VapidKey, VapidError> {
        let unreadable = || VapidError::from(VapidErrorKind::UnreadableKey);
        let secret = match sealed.parts().ok_or_else(unreadable)? {
            Parts::Clear(_) if !self.keys.is_empty() && !self.seals_clear_keys => {
                return Err(VapidErrorKind::ClearKey.into());
            }
            Parts::Clear(secret) => secret,
            Parts::Encrypted {
                kek,
                nonce,
                ciphertext,
            } => {
                let mut keks = self.keys.iter().filter(|known| known.id == kek);
                let kek = keks.next().ok_or(VapidErrorKind::UnknownEncryptionKey)?;
                let payload = Payload {
                    msg: &ciphertext,
                    aad: &associated_data(kek, public_key),
                };
                let opened = kek.cipher().decrypt(&Nonce::from(nonce), payload);
                Zeroizing::new(opened.map_err(|_| unreadable())?)
            }
        };
        VapidKey::from_secret_bytes(&secret)
            .and_then(|key| key.stated(public_key))
            .map_err(|source| VapidError::with_source(VapidErrorKind::UnreadableKey, source))
    }

    /// Whether [`seal`](Self::seal) would use the same key-encryption key again.
    pub(crate) fn is_current(&self, sealed: &SealedVapidKey) -> bool {
        match (sealed.parts(), self.keys.first()) {
            (Some(Parts::Clear(_)), None) => true,
            (Some(Parts::Encrypted { kek, .. }), Some(first)) => kek == first.id,
            _ => false,
        }
    }
}

/// A VAPID key in its stored form: `v1.KEK.NONCE.CIPHERTEXT`, or `v0.KEY` in the clear, all base64url.
///
/// Wiped on drop and never printed: the text of the clear form is the key.
#[derive(Clone)]
pub struct SealedVapidKey(Zeroizing<String>);

impl SealedVapidKey {
    /// Makes a value of a stored text, which is not checked until it is opened.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Returns the text to store.
    #[must_use]
    pub fn secret_str(&self) -> &str {
        &self.0
    }

    /// Whether it is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.0.starts_with("v1.")
    }

    fn parts(&self) -> Option<Parts> {
        let mut parts = self.0.split('.');
        let version = parts.next()?;
        let mut next = || Base64UrlUnpadded::decode_vec(parts.next()?).ok();
        let read = match version {
            "v0" => Parts::Clear(Zeroizing::new(next()?)),
            "v1" => Parts::Encrypted {
                kek: next()?.try_into().ok()?,
                nonce: next()?.try_into().ok()?,
                ciphertext: next()?,
            },
            _ => return None,
        };
        parts.next().is_none().then_some(read)
    }
}

impl PartialEq for SealedVapidKey {
    /// In constant time: the text of the clear form is the key.
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for SealedVapidKey {}

impl fmt::Debug for SealedVapidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedVapidKey(..)")
    }
}

enum Parts {
    Clear(Zeroizing<Vec<u8>>),
    Encrypted {
        kek: [u8; KEK_ID_LEN],
        nonce: [u8; NONCE_LEN],
        ciphertext: Vec<u8>,
    },
}

/// Whether a key is a pattern: few different octets (all alike, short patterns), two equal halves, or octets at one
/// distance, as in 1, 2, 3.
fn is_pattern(key: &[u8; KeyEncryptionKey::LEN]) -> bool {
    let mut different = Zeroizing::new(*key);
    different.sort_unstable();
    let different = different.chunk_by(|one, next| one == next).count();
    let steps = || key.iter().zip(key.iter().skip(1));
    let step = |(one, next): (&u8, &u8)| next.wrapping_sub(*one);
    let first = steps().next().map(step);
    let (half, other) = key.split_at(KeyEncryptionKey::LEN / 2);
    different < FEWEST_OCTETS || half == other || steps().map(step).all(|step| Some(step) == first)
}

/// The chance that 32 random octets have fewer than 8 different ones is about 1 in 10^36. For 32 random decimal
/// digits, which are weak but not a pattern, it is 1 in 1000.
const FEWEST_OCTETS: usize = 8;

/// Binds a row to its purpose, format, key-encryption key and VAPID key, so that none can be swapped. All parts after
/// the first have a fixed length.
fn associated_data(kek: &KeyEncryptionKey, public_key: &VapidPublicKey) -> Vec<u8> {
    [
        b"tower-web-push vapid private key\0v1\0".as_slice(),
        &kek.id,
        KeyId::of(public_key).as_bytes(),
        public_key.as_bytes(),
    ]
    .concat()
}

const KEK_ID_LEN: usize = 6;
const NONCE_LEN: usize = 12;

#[cfg(test)]
#[path = "sealed_tests.rs"]
mod tests;
