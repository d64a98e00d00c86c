//! Encrypted content-encoding for HTTP, `aes128gcm` (RFC 8188).
//!
//! The coding by itself, without Web Push: [`encrypt`] and [`decrypt`] take the input keying material
//! that both sides have, a [`Header`] goes in front, and [`Keys`] seal and open single records. What
//! Web Push adds is in [`encryption`](crate::encryption).
//!
//! # Examples
//!
//! ```
//! use tower_web_push::ece;
//!
//! let body = ece::encrypt(b"sixteen octets..", b"key 7", 4096, b"I am the walrus")?;
//! let (header, _records) = ece::Header::decode(&body)?;
//! assert_eq!(header.keyid(), b"key 7");
//! assert_eq!(ece::decrypt(b"sixteen octets..", &body)?, b"I am the walrus");
//! # Ok::<(), ece::EceError>(())
//! ```
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod header;
mod kdf;
mod record;

pub use header::Header;
pub(crate) use kdf::{expand, extract};
pub use record::{Delimiter, Keys};

use std::fmt;

use crate::error::error_struct;

/// Octets of the salt (RFC 8188 section 2.1).
pub const SALT_LEN: usize = 16;

/// Octets by which a record is longer than its padded data: the AES-GCM tag.
pub(crate) const TAG_LEN: usize = 16;

/// The smallest record size: a tag, a delimiter and one octet (RFC 8188 section 2.1).
pub const MIN_RECORD_SIZE: u32 = 18;

/// Encrypts `plaintext` under a fresh random salt, in as many records of `record_size` octets as it
/// takes, without padding.
///
/// `ikm` is the input keying material and should have the entropy of a 128-bit key; `keyid` tells the
/// receiver which one it is and may be empty. An empty plaintext becomes one record.
///
/// # Errors
///
/// [`InvalidRecordSize`](EceErrorKind::InvalidRecordSize) below [`MIN_RECORD_SIZE`],
/// [`KeyIdTooLong`](EceErrorKind::KeyIdTooLong) above 255 octets,
/// [`NoRandomness`](EceErrorKind::NoRandomness) when the operating system has none.
pub fn encrypt(
    ikm: &[u8],
    keyid: &[u8],
    record_size: u32,
    plaintext: &[u8],
) -> Result<Vec<u8>, EceError> {
    let salt = random_salt()?;
    let header = Header::new(salt, record_size, keyid)?;
    let keys = Keys::derive(ikm, &salt);

    // RFC 8188 section 2: a record holds its size less the tag and the delimiter.
    let room = header.record_size_usize().saturating_sub(TAG_LEN + 1);
    let records = plaintext.len().div_ceil(room.max(1)).max(1);
    let overhead = records.saturating_mul(TAG_LEN + 1);
    let total = header.encoded_len().saturating_add(plaintext.len());
    let mut body = Vec::with_capacity(total.saturating_add(overhead));
    header.encode(&mut body);

    let mut rest = plaintext;
    for seq in 0_u64.. {
        let (data, tail) = rest.split_at_checked(room).unwrap_or((rest, &[]));
        rest = tail;
        let delimiter = match rest {
            [] => Delimiter::Last,
            _ => Delimiter::More,
        };
        keys.seal(seq, data, delimiter, 0, &mut body)?;
        if rest.is_empty() {
            break;
        }
    }
    Ok(body)
}

/// Decrypts a whole body, of any number of records.
///
/// The buffer never grows beyond what came in, whatever the header claims. A header without a record
/// is refused, although the grammar of RFC 8188 does not exclude it: it would pass for an empty
/// message that was not authenticated.
///
/// # Errors
///
/// [`MalformedHeader`](EceErrorKind::MalformedHeader) and
/// [`InvalidRecordSize`](EceErrorKind::InvalidRecordSize) for what can be seen without the key;
/// [`NotAuthentic`](EceErrorKind::NotAuthentic) for everything else, without detail.
pub fn decrypt(ikm: &[u8], body: &[u8]) -> Result<Vec<u8>, EceError> {
    let (header, records) = Header::decode(body)?;
    let keys = Keys::derive(ikm, header.salt());
    let mut chunks = records.chunks(header.record_size_usize()).peekable();
    if chunks.peek().is_none() {
        return Err(EceErrorKind::NotAuthentic.into());
    }
    let mut plaintext = Vec::with_capacity(records.len());
    let mut seq = 0_u64;
    while let Some(record) = chunks.next() {
        // RFC 8188 section 4.2: a body cut at a record's end shows by the missing last delimiter.
        let delimiter = match chunks.peek() {
            Some(_) => Delimiter::More,
            None => Delimiter::Last,
        };
        keys.open(seq, record, delimiter, &mut plaintext)?;
        seq = seq.saturating_add(1);
    }
    Ok(plaintext)
}

/// A salt that was never used before (RFC 8188 section 4.3).
pub(crate) fn random_salt() -> Result<[u8; SALT_LEN], EceError> {
    let mut salt = [0; SALT_LEN];
    getrandom::fill(&mut salt)
        .map_err(|error| EceError::with_source(EceErrorKind::NoRandomness, error))?;
    Ok(salt)
}

error_struct! {
    /// Why a body could not be encrypted or decrypted.
    EceError, EceErrorKind
}

/// What went wrong in the content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EceErrorKind {
    /// The body ends within its header.
    MalformedHeader,
    /// The record size is below [`MIN_RECORD_SIZE`].
    InvalidRecordSize,
    /// The keyid to be written is longer than 255 octets.
    KeyIdTooLong,
    /// A record to be written is longer than AES-GCM allows, 2^36 - 32 octets.
    RecordTooLong,
    /// The operating system gave no randomness for a salt.
    NoRandomness,
    /// A record did not open: another key, a changed, missing or foreign record, a wrong delimiter.
    /// There is no detail on purpose.
    NotAuthentic,
}

impl fmt::Display for EceErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MalformedHeader => "the body ends within its aes128gcm header",
            Self::InvalidRecordSize => "the record size is below 18",
            Self::KeyIdTooLong => "the keyid is longer than 255 octets",
            Self::RecordTooLong => "the record is longer than AES-GCM allows",
            Self::NoRandomness => "the operating system has no random numbers",
            Self::NotAuthentic => "the body cannot be decrypted",
        })
    }
}

#[cfg(test)]
mod tests;
