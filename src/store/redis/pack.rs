//! Packing a list of octet strings as a MessagePack array, which Lua reads with `cmsgpack`.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::store::StoreError;
use crate::store::reason::corrupt;

/// Packs a list of at most 65,535 values.
pub(super) fn pack<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let values: Vec<_> = values.into_iter().collect();
    // Always an array with a 16-bit length.
    let mut packed = vec![0xdc];
    packed.extend(
        u16::try_from(values.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes(),
    );
    for value in values {
        match u8::try_from(value.len()) {
            Ok(len @ ..32) => packed.push(0xa0 | len),
            Ok(len) => packed.extend([0xd9, len]),
            Err(_) => match u16::try_from(value.len()) {
                Ok(len) => {
                    packed.push(0xda);
                    packed.extend(len.to_be_bytes());
                }
                Err(_) => {
                    packed.push(0xdb);
                    let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
                    packed.extend(len.to_be_bytes());
                }
            },
        }
        packed.extend(value);
    }
    packed
}

/// A reader of values packed here or by a script.
pub(super) struct Unpacked<'a>(&'a [u8]);

impl<'a> Unpacked<'a> {
    pub(super) fn of(packed: &'a [u8]) -> Result<Self, StoreError> {
        let mut rest = Self(packed);
        match rest.byte()? {
            0x90..=0x9f => {}
            0xdc => drop(rest.take(2)?),
            0xdd => drop(rest.take(4)?),
            _ => return Err(corrupt("a row")),
        }
        Ok(rest)
    }

    /// Reads the next value.
    pub(super) fn next(&mut self) -> Result<&'a [u8], StoreError> {
        let len = match self.byte()? {
            byte @ 0xa0..=0xbf => usize::from(byte & 0x1f),
            0xc4 | 0xd9 => self.len(1)?,
            0xc5 | 0xda => self.len(2)?,
            0xc6 | 0xdb => self.len(4)?,
            _ => return Err(corrupt("a row")),
        };
        self.take(len)
    }

    fn len(&mut self, octets: usize) -> Result<usize, StoreError> {
        let octets = self.take(octets)?;
        Ok(octets
            .iter()
            .fold(0, |len, octet| len << 8 | usize::from(*octet)))
    }

    fn byte(&mut self) -> Result<u8, StoreError> {
        let (byte, rest) = self.0.split_first().ok_or_else(|| corrupt("a row"))?;
        self.0 = rest;
        Ok(*byte)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or_else(|| corrupt("a row"))?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_out(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..20)) {
            let packed = pack(values.iter().map(Vec::as_slice));
            let mut unpacked = Unpacked::of(&packed).unwrap();
            for value in &values {
                prop_assert_eq!(unpacked.next().unwrap(), value.as_slice());
            }
            prop_assert!(unpacked.next().is_err());
        }

        #[test]
        fn other_octets_are_an_error_at_most(packed in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(mut unpacked) = Unpacked::of(&packed) {
                while unpacked.next().is_ok() {}
            }
        }
    }

    #[test]
    fn long_values_keep_their_length() {
        for len in [31, 32, 255, 256, 65_535, 65_536] {
            let value = vec![7; len];
            let packed = pack([value.as_slice()]);
            assert_eq!(Unpacked::of(&packed).unwrap().next().unwrap(), value);
        }
    }
}
