//! Message encryption for Web Push (RFC 8291), on top of [`ece`].
//!
//! # Examples
//!
//! ```
//! use tower_web_push::encryption::{decrypt, encrypt};
//! use tower_web_push::message::Padding;
//! use tower_web_push::p256::{self, UaSecretKey};
//! use tower_web_push::subscription::{AuthSecret, Subscription};
//!
//! // The browser's side makes the keys ...
//! let secret = UaSecretKey::random()?;
//! let auth = AuthSecret::from_bytes(b"sixteen octets..")?;
//! let endpoint = "https://push.example.net/p/1".parse()?;
//! let subscription = Subscription::new(endpoint, *secret.public(), auth.clone());
//!
//! // ... the application server encrypts for them.
//! let body = encrypt(p256::fastest(), &subscription, b"hello", Padding::default())?;
//! assert_eq!(decrypt(p256::fastest(), &secret, &auth, &body)?, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::fmt;

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::ece::{self, Delimiter, Header, Keys, SALT_LEN, TAG_LEN};
use crate::error::error_struct;
use crate::message::{Message, Padding};
use crate::p256::{Agreement, P256, SharedSecret, UaSecretKey};
use crate::subscription::{AuthSecret, Subscription, UaPublicKey};

/// The record size in every header, in octets.
///
/// RFC 8291 section 4 wants it greater than the one record; that is at most 4010 octets, whatever
/// the payload. Above 2^31 Firefox would refuse it.
pub const RECORD_SIZE: u32 = 4096;

/// Octets by which a body is longer than its padded payload: header (86), delimiter (1), tag (16).
pub const OVERHEAD: usize = HEADER_LEN + 1 + TAG_LEN;

/// The largest body that every push service takes, in octets (RFC 8030 section 7.2).
pub const MAX_BODY: usize = Message::MAX_PAYLOAD + OVERHEAD;

/// The keyid is the sender's public key (RFC 8291 section 4).
const HEADER_LEN: usize = Header::FIXED_LEN + 65;

const _: () = assert!(MAX_BODY == 4096);

/// Encrypts a payload for one subscription, under a fresh key pair and a fresh salt.
///
/// The body is `Content-Encoding: aes128gcm` with one record, in one allocation of the exact size.
/// An empty payload is encrypted too: the page gets data of length 0, not null.
///
/// # Errors
///
/// [`TooLarge`](EncryptErrorKind::TooLarge) above [`Message::MAX_PAYLOAD`] octets,
/// [`Backend`](EncryptErrorKind::Backend) when the operating system gives no randomness or the
/// backend fails.
pub fn encrypt(
    p256: &dyn P256,
    subscription: &Subscription,
    plaintext: &[u8],
    padding: Padding,
) -> Result<Bytes, EncryptError> {
    if plaintext.len() > Message::MAX_PAYLOAD {
        return Err(EncryptErrorKind::TooLarge.into());
    }
    let failed = |error| EncryptError::with_source(EncryptErrorKind::Backend, error);
    let salt = ece::random_salt().map_err(failed)?;
    let agreement = p256
        .agree(subscription.ua_public())
        .map_err(|error| EncryptError::with_source(EncryptErrorKind::Backend, error))?;
    seal(&agreement, &salt, subscription, plaintext, padding).map_err(failed)
}

/// Everything after the random choices. No public function lets a caller fix the salt.
fn seal(
    agreement: &Agreement,
    salt: &[u8; SALT_LEN],
    subscription: &Subscription,
    plaintext: &[u8],
    padding: Padding,
) -> Result<Bytes, ece::EceError> {
    let ikm = derive_ikm(
        subscription.auth(),
        agreement.shared_secret(),
        subscription.ua_public(),
        agreement.as_public(),
    );
    let header = Header::new(*salt, RECORD_SIZE, agreement.as_public())?;
    let padding = padding.octets_for(plaintext.len());
    let len = OVERHEAD
        .saturating_add(plaintext.len())
        .saturating_add(padding);
    let mut body = Vec::with_capacity(len);
    header.encode(&mut body);
    Keys::derive(&*ikm, salt).seal(0, plaintext, Delimiter::Last, padding, &mut body)?;
    Ok(body.into())
}

/// Decrypts a body as the user agent does.
///
/// Like browsers it takes any record size that holds the one record, also the exact one that
/// RFC 8291 section 4 forbids to senders, and any amount of padding.
///
/// # Errors
///
/// [`Malformed`](DecryptErrorKind::Malformed) for what can be seen without keys,
/// [`NotAuthentic`](DecryptErrorKind::NotAuthentic) for everything else, without detail.
pub fn decrypt(
    p256: &dyn P256,
    secret: &UaSecretKey,
    auth: &AuthSecret,
    body: &[u8],
) -> Result<Vec<u8>, DecryptError> {
    let malformed = DecryptErrorKind::Malformed;
    let (header, record) = Header::decode(body)
        .map_err(|error| DecryptError::with_source(DecryptErrorKind::Malformed, error))?;
    // RFC 8291 section 4: exactly one record, and the keyid is the sender's key.
    if record.is_empty() || record.len() > header.record_size_usize() {
        return Err(malformed.into());
    }
    let as_public: &[u8; 65] = header.keyid().try_into().map_err(|_| malformed)?;
    let shared = p256
        .agree_with(secret, as_public)
        .map_err(|error| DecryptError::with_source(DecryptErrorKind::Malformed, error))?;
    let ikm = derive_ikm(auth, &shared, secret.public(), as_public);
    let mut plaintext = Vec::with_capacity(record.len());
    Keys::derive(&*ikm, header.salt())
        .open(0, record, Delimiter::Last, &mut plaintext)
        .map_err(|_| DecryptErrorKind::NotAuthentic)?;
    Ok(plaintext)
}

/// Combines the agreed secret with the authentication secret (RFC 8291 section 3.3): the receiver's
/// key comes first on both sides.
fn derive_ikm(
    auth: &AuthSecret,
    shared: &SharedSecret,
    ua_public: &UaPublicKey,
    as_public: &[u8; 65],
) -> Zeroizing<[u8; 32]> {
    let prk = ece::extract(auth.secret_bytes(), shared.secret_bytes());
    ece::expand(&prk, &[b"WebPush: info\0", ua_public.as_bytes(), as_public])
}

error_struct! {
    /// Why a payload could not be encrypted.
    EncryptError, EncryptErrorKind
}

/// What stood in the way of encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EncryptErrorKind {
    /// The payload is longer than [`Message::MAX_PAYLOAD`]: send less.
    TooLarge,
    /// The operating system gave no randomness, or the P-256 backend failed: try again later.
    Backend,
}

impl fmt::Display for EncryptErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the payload is longer than 3993 octets",
            Self::Backend => "the cryptographic backend failed",
        })
    }
}

error_struct! {
    /// Why a body could not be decrypted.
    DecryptError, DecryptErrorKind
}

/// What was wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DecryptErrorKind {
    /// The header is cut short, its record size does not hold exactly one record, or its keyid is not
    /// an uncompressed point on P-256. The header is public, so this tells nothing.
    Malformed,
    /// It was encrypted for other keys, or changed, or ends with a wrong delimiter. There is no detail
    /// on purpose.
    NotAuthentic,
}

impl fmt::Display for DecryptErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the body is not one aes128gcm record with a P-256 key",
            Self::NotAuthentic => "the body cannot be decrypted",
        })
    }
}

#[cfg(test)]
mod tests;
