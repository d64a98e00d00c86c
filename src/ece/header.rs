//! The header in front of the records (RFC 8188 section 2.1).

use std::fmt;

use super::{EceError, EceErrorKind, MIN_RECORD_SIZE, SALT_LEN};

/// `salt(16) ‖ rs(4) ‖ idlen(1) ‖ keyid(idlen)`.
///
/// Nothing in it is authenticated by itself (RFC 8188 section 4.6); salt and keyid change the keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    salt: [u8; SALT_LEN],
    record_size: u32,
    idlen: u8,
    keyid: &'a [u8],
}

impl<'a> Header<'a> {
    /// Octets of a header without a keyid.
    pub(crate) const FIXED_LEN: usize = SALT_LEN + 4 + 1;

    /// A header to be written.
    ///
    /// # Errors
    ///
    /// [`InvalidRecordSize`](EceErrorKind::InvalidRecordSize) below [`MIN_RECORD_SIZE`],
    /// [`KeyIdTooLong`](EceErrorKind::KeyIdTooLong) above 255 octets.
    pub fn new(salt: [u8; SALT_LEN], record_size: u32, keyid: &'a [u8]) -> Result<Self, EceError> {
        if record_size < MIN_RECORD_SIZE {
            return Err(EceErrorKind::InvalidRecordSize.into());
        }
        let idlen = u8::try_from(keyid.len()).map_err(|_| EceErrorKind::KeyIdTooLong)?;
        Ok(Self {
            salt,
            record_size,
            idlen,
            keyid,
        })
    }

    /// Reads the header at the start of a body and returns it with the records behind it.
    ///
    /// # Errors
    ///
    /// [`MalformedHeader`](EceErrorKind::MalformedHeader) for a body that ends within it,
    /// [`InvalidRecordSize`](EceErrorKind::InvalidRecordSize) below [`MIN_RECORD_SIZE`].
    pub fn decode(body: &'a [u8]) -> Result<(Self, &'a [u8]), EceError> {
        let malformed = EceErrorKind::MalformedHeader;
        let (salt, rest) = body.split_first_chunk().ok_or(malformed)?;
        let (record_size, rest) = rest.split_first_chunk().ok_or(malformed)?;
        let (idlen, rest) = rest.split_first().ok_or(malformed)?;
        let (keyid, records) = rest
            .split_at_checked(usize::from(*idlen))
            .ok_or(malformed)?;
        let header = Self::new(*salt, u32::from_be_bytes(*record_size), keyid)?;
        Ok((header, records))
    }

    /// Appends the header to a body.
    pub fn encode(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(&self.salt);
        body.extend_from_slice(&self.record_size.to_be_bytes());
        body.push(self.idlen);
        body.extend_from_slice(self.keyid);
    }

    /// Octets that [`encode`](Self::encode) appends.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        Self::FIXED_LEN.saturating_add(self.keyid.len())
    }

    /// The salt.
    #[must_use]
    pub const fn salt(&self) -> &[u8; SALT_LEN] {
        &self.salt
    }

    /// `rs`, the size of every record but the last, with its tag, in octets; at least
    /// [`MIN_RECORD_SIZE`].
    #[must_use]
    pub const fn record_size(&self) -> u32 {
        self.record_size
    }

    /// The name of the key, at most 255 octets; in Web Push the sender's public key.
    #[must_use]
    pub const fn keyid(&self) -> &'a [u8] {
        self.keyid
    }

    /// The record size for cutting slices, never 0.
    pub(crate) fn record_size_usize(&self) -> usize {
        usize::try_from(self.record_size).unwrap_or(usize::MAX)
    }
}

impl fmt::Debug for Header<'_> {
    /// Shows sizes only: a keyid may be the name of a person.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("record_size", &self.record_size)
            .field("keyid_octets", &self.keyid.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_reads_back() {
        for keyid in [&b""[..], b"a1", &[7; 65], &[0; 255]] {
            let header = Header::new([9; 16], 18, keyid).unwrap();
            let mut body = Vec::new();
            header.encode(&mut body);
            assert_eq!(body.len(), header.encoded_len());
            body.extend_from_slice(b"records");
            let (read, records) = Header::decode(&body).unwrap();
            assert_eq!(read, header);
            assert_eq!(records, b"records");
        }
    }

    #[test]
    fn every_cut_is_malformed() {
        let mut body = Vec::new();
        Header::new([9; 16], 4096, b"key")
            .unwrap()
            .encode(&mut body);
        for len in 0..body.len() {
            assert_eq!(
                Header::decode(&body[..len]).unwrap_err().kind(),
                EceErrorKind::MalformedHeader,
                "{len}"
            );
        }
        assert!(Header::decode(&body).is_ok());
    }

    #[test]
    fn the_limits_hold_on_both_ways() {
        assert_eq!(
            Header::new([0; 16], 17, b"").unwrap_err().kind(),
            EceErrorKind::InvalidRecordSize
        );
        assert_eq!(
            Header::new([0; 16], 18, &[0; 256]).unwrap_err().kind(),
            EceErrorKind::KeyIdTooLong
        );
        let mut body = vec![0; 21];
        for (record_size, valid) in [(0, false), (17, false), (18, true), (u32::MAX, true)] {
            body[16..20].copy_from_slice(&u32::to_be_bytes(record_size));
            assert_eq!(Header::decode(&body).is_ok(), valid, "{record_size}");
        }
    }
}
