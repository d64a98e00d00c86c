//! Keys of a body, and its records (RFC 8188 sections 2, 2.2 and 2.3).

use std::fmt;

use aes_gcm::Aes128Gcm;
use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use zeroize::Zeroizing;

use super::{EceError, EceErrorKind, SALT_LEN, TAG_LEN, expand, extract};

/// The longest plaintext of AES-GCM, in octets (NIST SP 800-38D section 5.2.1.1: 2^39 - 256 bits).
const MAX_PLAINTEXT: u64 = (1 << 36) - 32;

/// The octet behind a record's data (RFC 8188 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "RFC 8188 section 2 closes the set")]
pub enum Delimiter {
    /// Another record follows: `0x01`.
    More,
    /// The last record: `0x02`.
    Last,
}

impl Delimiter {
    const fn octet(self) -> u8 {
        match self {
            Self::More => 0x01,
            Self::Last => 0x02,
        }
    }
}

/// The content encryption key and the base nonce of one body.
///
/// Wiped on drop as [`secret`](crate::secret) says, not `Clone`, never printed.
pub struct Keys {
    cipher: Aes128Gcm,
    base_nonce: Zeroizing<[u8; 12]>,
}

impl Keys {
    /// Derives both from the input keying material and the salt in the header.
    ///
    /// # Security
    ///
    /// The same `ikm` and `salt` give the same keys: sealing two bodies with them breaks AES-GCM
    /// (RFC 8188 section 4.3). [`encrypt`](super::encrypt) draws a fresh salt each time.
    #[must_use]
    pub fn derive(ikm: &[u8], salt: &[u8; SALT_LEN]) -> Self {
        let prk = extract(salt, ikm);
        // RFC 8188 section 2.2; the zero octet is part of the info.
        let cek: Zeroizing<[u8; 16]> = expand(&prk, &[b"Content-Encoding: aes128gcm\0"]);
        Self {
            cipher: Aes128Gcm::new((&*cek).into()),
            // RFC 8188 section 2.3.
            base_nonce: expand(&prk, &[b"Content-Encoding: nonce\0"]),
        }
    }

    /// Appends record number `seq` to `body`: `data`, the delimiter and `padding` zeros, encrypted in
    /// place, then the tag; 17 octets more than data and padding.
    ///
    /// The caller cuts the records: every one but the last must fill the header's record size.
    ///
    /// # Errors
    ///
    /// [`RecordTooLong`](EceErrorKind::RecordTooLong) beyond what AES-GCM can encrypt; `body` is then
    /// as before.
    ///
    /// # Security
    ///
    /// A `seq` must not be sealed twice with the same keys.
    pub fn seal(
        &self,
        seq: u64,
        data: &[u8],
        delimiter: Delimiter,
        padding: usize,
        body: &mut Vec<u8>,
    ) -> Result<(), EceError> {
        let len = data.len().checked_add(padding);
        // Before anything is reserved: a length that cannot be sealed may not be available either.
        if len.is_none_or(|len| len as u64 >= MAX_PLAINTEXT) {
            return Err(EceErrorKind::RecordTooLong.into());
        }
        let start = body.len();
        body.extend_from_slice(data);
        body.push(delimiter.octet());
        body.resize(body.len().saturating_add(padding), 0);
        let record = body.get_mut(start..).unwrap_or_default();
        let sealed =
            self.cipher
                .encrypt_inout_detached(&self.nonce(seq).into(), &[], record.into());
        let Ok(tag) = sealed else {
            body.truncate(start);
            return Err(EceErrorKind::RecordTooLong.into());
        };
        body.extend_from_slice(&tag);
        Ok(())
    }

    /// Opens record number `seq`, which must end with `delimiter`, and appends its data to `plaintext`.
    ///
    /// # Errors
    ///
    /// [`NotAuthentic`](EceErrorKind::NotAuthentic), whatever the cause; `plaintext` is then as before.
    pub fn open(
        &self,
        seq: u64,
        record: &[u8],
        delimiter: Delimiter,
        plaintext: &mut Vec<u8>,
    ) -> Result<(), EceError> {
        let start = plaintext.len();
        let opened = self.open_in_place(seq, record, delimiter, plaintext);
        // On failure whatever was appended goes.
        plaintext.truncate(opened.unwrap_or(start));
        opened
            .map(|_| ())
            .ok_or_else(|| EceErrorKind::NotAuthentic.into())
    }

    /// Returns where the data ends in `plaintext`.
    fn open_in_place(
        &self,
        seq: u64,
        record: &[u8],
        delimiter: Delimiter,
        plaintext: &mut Vec<u8>,
    ) -> Option<usize> {
        let start = plaintext.len();
        let (sealed, tag) = record.split_last_chunk::<TAG_LEN>()?;
        plaintext.extend_from_slice(sealed);
        let opened = plaintext.get_mut(start..)?;
        self.cipher
            .decrypt_inout_detached(&self.nonce(seq).into(), &[], opened.into(), tag.into())
            .ok()?;
        // RFC 8188 section 2: the last octet that is not zero is the delimiter; there must be one.
        let opened = plaintext.get(start..)?;
        let end = opened.iter().rposition(|octet| *octet != 0)?;
        if *opened.get(end)? != delimiter.octet() {
            return None;
        }
        start.checked_add(end)
    }

    /// The base nonce XOR the record's number as a 96-bit integer (RFC 8188 section 2.3).
    fn nonce(&self, seq: u64) -> [u8; 12] {
        let mut nonce = *self.base_nonce;
        let low = nonce.iter_mut().skip(4);
        low.zip(seq.to_be_bytes())
            .for_each(|(octet, seq)| *octet ^= seq);
        nonce
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}
