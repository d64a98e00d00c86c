//! VAPID keys at rest: AES-256-GCM under a key-encryption key, or openly in the clear.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64ct::{Base64UrlUnpadded, Encoding as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{KeyId, VapidError, VapidErrorKind, VapidKey, VapidPublicKey};
use crate::encoding::{base64_any, base64url};
use crate::secret::SecretBytes;

/// A key that VAPID keys are encrypted under in the store: 32 octets.
///
/// Wiped on drop; `Debug` shows its id, which is derived from it and stored beside what it encrypts.
#[derive(Clone)]
pub struct KeyEncryptionKey {
    key: SecretBytes<{ Self::LEN }>,
    id: [u8; KEK_ID_LEN],
}

impl KeyEncryptionKey {
    /// Octets of the key.
    pub const LEN: usize = 32;

    /// Takes 32 octets in. They must come from a random source: nothing stretches a password here.
    #[must_use]
    pub fn new(key: [u8; Self::LEN]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"tower-web-push key-encryption key id\0");
        hash.update(key);
        let digest: [u8; 32] = hash.finalize().into();
        let mut id = [0; KEK_ID_LEN];
        for (to, from) in id.iter_mut().zip(digest) {
            *to = from;
        }
        Self {
            key: SecretBytes::new(key),
            id,
        }
    }

    /// Takes base64 of 32 octets in: either alphabet, padded or not.
    ///
    /// # Errors
    ///
    /// [`InvalidEncryptionKey`](VapidErrorKind::InvalidEncryptionKey).
    pub fn parse(text: &str) -> Result<Self, VapidError> {
        let octets = base64_any(text.trim_ascii())
            .and_then(|octets| <[u8; Self::LEN]>::try_from(octets.as_slice()).ok())
            .map(Zeroizing::new)
            .ok_or(VapidErrorKind::InvalidEncryptionKey)?;
        Ok(Self::new(*octets))
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

/// The key-encryption keys of a deployment: the first encrypts, all decrypt, none at all means in the
/// clear.
///
/// To replace one while processes run: start all of them with the new one at the end, then all with the
/// new one in front, which seals the stored keys again, then drop the old one.
#[derive(Clone, Debug, Default)]
pub struct KeyEncryptionKeys(Vec<KeyEncryptionKey>);

impl KeyEncryptionKeys {
    /// No encryption: the store's own protection is all there is.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// The first of `keys` encrypts, all of them decrypt.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = KeyEncryptionKey>) -> Self {
        Self(keys.into_iter().collect())
    }

    /// Takes a comma list of [`KeyEncryptionKey::parse`]; nothing but blanks is the empty list.
    ///
    /// # Errors
    ///
    /// [`InvalidEncryptionKey`](VapidErrorKind::InvalidEncryptionKey) for any of them.
    pub fn parse(list: &str) -> Result<Self, VapidError> {
        if list.trim_ascii().is_empty() {
            return Ok(Self::none());
        }
        let keys: Result<_, _> = list.split(',').map(KeyEncryptionKey::parse).collect();
        keys.map(Self)
    }

    /// Whether keys are stored in the clear.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The stored form of `key`, under the first key-encryption key.
    ///
    /// # Errors
    ///
    /// [`NoRandomness`](VapidErrorKind::NoRandomness).
    pub fn seal(&self, key: &VapidKey) -> Result<SealedVapidKey, VapidError> {
        let Some(kek) = self.0.first() else {
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

    /// The key behind a stored form; `public_key` is what the store says that it belongs to.
    ///
    /// # Errors
    ///
    /// [`UnknownEncryptionKey`](VapidErrorKind::UnknownEncryptionKey) or
    /// [`UnreadableKey`](VapidErrorKind::UnreadableKey).
    pub fn open(
        &self,
        sealed: &SealedVapidKey,
        public_key: &VapidPublicKey,
    ) -> Result<VapidKey, VapidError> {
        let unreadable = || VapidError::from(VapidErrorKind::UnreadableKey);
        let secret = match sealed.parts().ok_or_else(unreadable)? {
            Parts::Clear(secret) => secret,
            Parts::Encrypted {
                kek,
                nonce,
                ciphertext,
            } => {
                let mut keks = self.0.iter().filter(|known| known.id == kek);
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

    /// Whether [`seal`](Self::seal) would choose the same key-encryption key again.
    #[must_use]
    pub fn is_current(&self, sealed: &SealedVapidKey) -> bool {
        match (sealed.parts(), self.0.first()) {
            (Some(Parts::Clear(_)), None) => true,
            (Some(Parts::Encrypted { kek, .. }), Some(first)) => kek == first.id,
            _ => false,
        }
    }
}

/// A VAPID key in the form that stores keep: `v1.KEK.NONCE.CIPHERTEXT`, or `v0.KEY` in the clear, all
/// base64url.
///
/// Wiped on drop, never printed: of the clear form, the text is the key.
#[derive(Clone)]
pub struct SealedVapidKey(Zeroizing<String>);

impl SealedVapidKey {
    /// The text of a store's row, unchecked until it is opened.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text for a store's row.
    #[must_use]
    pub fn secret_str(&self) -> &str {
        &self.0
    }

    /// Whether it is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
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
    /// In constant time: of the clear form, the text is the key.
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

/// Binds a row to its purpose, format, key-encryption key and VAPID key: none can be swapped for
/// another's. All parts after the first have a fixed length.
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
mod tests {
    use super::*;

    fn keys(octets: &[u8]) -> KeyEncryptionKeys {
        KeyEncryptionKeys::new(
            octets
                .iter()
                .map(|octet| KeyEncryptionKey::new([*octet; 32])),
        )
    }

    fn kind(result: Result<VapidKey, VapidError>) -> VapidErrorKind {
        result.unwrap_err().kind()
    }

    #[test]
    fn a_sealed_key_opens_to_the_same_key() {
        let key = VapidKey::generate().unwrap();
        for (keys, encrypted) in [(keys(&[1]), true), (KeyEncryptionKeys::none(), false)] {
            let sealed = keys.seal(&key).unwrap();
            assert_eq!(sealed.is_encrypted(), encrypted);
            assert!(keys.is_current(&sealed));
            let opened = keys.open(&sealed, key.public_key()).unwrap();
            assert_eq!(opened.public_key(), key.public_key());
            assert_eq!(*opened.secret_bytes(), *key.secret_bytes());
        }
    }

    #[test]
    fn the_first_encrypts_and_all_decrypt() {
        let key = VapidKey::generate().unwrap();
        let old = keys(&[1]).seal(&key).unwrap();
        let both = keys(&[2, 1]);
        assert!(both.open(&old, key.public_key()).is_ok());
        assert!(!both.is_current(&old));
        let new = both.seal(&key).unwrap();
        assert!(keys(&[2]).open(&new, key.public_key()).is_ok());
        assert_eq!(
            kind(keys(&[1]).open(&new, key.public_key())),
            VapidErrorKind::UnknownEncryptionKey
        );
    }

    #[test]
    fn a_clear_key_stays_readable_but_is_not_current_once_keys_are_configured() {
        let key = VapidKey::generate().unwrap();
        let clear = KeyEncryptionKeys::none().seal(&key).unwrap();
        assert!(keys(&[1]).open(&clear, key.public_key()).is_ok());
        assert!(!keys(&[1]).is_current(&clear));
        let sealed = keys(&[1]).seal(&key).unwrap();
        assert!(!KeyEncryptionKeys::none().is_current(&sealed));
        assert_eq!(
            kind(KeyEncryptionKeys::none().open(&sealed, key.public_key())),
            VapidErrorKind::UnknownEncryptionKey
        );
    }

    #[test]
    fn nonces_are_fresh() {
        let key = VapidKey::generate().unwrap();
        let [one, two] = [(); 2].map(|()| keys(&[1]).seal(&key).unwrap());
        assert_ne!(one.secret_str(), two.secret_str());
    }

    #[test]
    fn any_change_is_noticed() {
        let key = VapidKey::generate().unwrap();
        let sealed = keys(&[1]).seal(&key).unwrap();
        let text = sealed.secret_str();
        for at in 0..text.len() {
            let (before, after) = text.split_at(at);
            let other = if after.starts_with('A') { "B" } else { "A" };
            let changed = SealedVapidKey::new(format!("{before}{other}{}", &after[1..]));
            assert!(keys(&[1]).open(&changed, key.public_key()).is_err(), "{at}");
            let cut = SealedVapidKey::new(&text[..at]);
            assert!(keys(&[1]).open(&cut, key.public_key()).is_err(), "{at}");
        }
        let longer = SealedVapidKey::new(format!("{text}."));
        assert!(keys(&[1]).open(&longer, key.public_key()).is_err());
    }

    #[test]
    fn a_row_does_not_open_as_another_key() {
        let key = VapidKey::generate().unwrap();
        let other = VapidKey::generate().unwrap();
        for keys in [keys(&[1]), KeyEncryptionKeys::none()] {
            let sealed = keys.seal(&key).unwrap();
            assert_eq!(
                kind(keys.open(&sealed, other.public_key())),
                VapidErrorKind::UnreadableKey
            );
        }
    }

    #[test]
    fn a_key_encryption_key_is_32_octets_of_base64() {
        let one = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
        let list = KeyEncryptionKeys::parse(&format!(" {one} , {one}=\n")).unwrap();
        assert_eq!(list.0.len(), 2);
        assert!(KeyEncryptionKeys::parse(" ").unwrap().is_empty());
        for text in [&one[1..], "password", ",", &format!("{one},")] {
            let error = KeyEncryptionKeys::parse(text).unwrap_err();
            assert_eq!(error.kind(), VapidErrorKind::InvalidEncryptionKey, "{text}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = VapidKey::generate().unwrap();
        let clear = KeyEncryptionKeys::none().seal(&key).unwrap();
        assert_eq!(format!("{clear:?}"), "SealedVapidKey(..)");
        let debug = format!("{:?}", KeyEncryptionKey::new([1; 32]));
        assert!(
            !debug.contains("AQEB") && !debug.contains("1, 1"),
            "{debug}"
        );
    }
}
