//! The parts of Protocol Buffers that a handful of messages need.

/// A message under construction.
pub(crate) struct Message(Vec<u8>);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const DELIMITED: u64 = 2;

impl Message {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn number(mut self, field: u64, number: u64) -> Self {
        varint(&mut self.0, field << 3 | VARINT);
        varint(&mut self.0, number);
        self
    }

    pub(crate) fn fixed64(mut self, field: u64, number: u64) -> Self {
        varint(&mut self.0, field << 3 | FIXED64);
        self.0.extend(number.to_le_bytes());
        self
    }

    pub(crate) fn octets(mut self, field: u64, octets: &[u8]) -> Self {
        varint(&mut self.0, field << 3 | DELIMITED);
        varint(&mut self.0, octets.len() as u64);
        self.0.extend(octets);
        self
    }

    pub(crate) fn text(self, field: u64, text: &str) -> Self {
        self.octets(field, text.as_bytes())
    }

    pub(crate) fn message(self, field: u64, message: Self) -> Self {
        self.octets(field, &message.0)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Writes seven bits at a time, the lowest first.
pub(crate) fn varint(octets: &mut Vec<u8>, mut number: u64) {
    while number > 0x7F {
        octets.push((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    octets.push(number as u8);
}

/// The fields of a received message, only those with octets.
pub(crate) struct Fields(Vec<(u64, Vec<u8>)>);

impl Fields {
    pub(crate) fn read(mut octets: &[u8]) -> Self {
        let mut fields = Vec::new();
        while !octets.is_empty() {
            let key = take_varint(&mut octets);
            match key & 7 {
                VARINT => drop(take_varint(&mut octets)),
                FIXED64 => drop(take(&mut octets, 8)),
                DELIMITED => {
                    let length = take_varint(&mut octets) as usize;
                    fields.push((key >> 3, take(&mut octets, length).to_vec()));
                }
                other => panic!("wire type {other}"),
            }
        }
        Self(fields)
    }

    /// Returns a field that must be present.
    pub(crate) fn text(&self, field: u64) -> &str {
        let found = self.0.iter().find(|(number, _)| *number == field);
        let (_, octets) = found.unwrap_or_else(|| panic!("no field {field}"));
        str::from_utf8(octets).unwrap()
    }
}

fn take_varint(octets: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let octet = take(octets, 1)[0];
        number |= u64::from(octet & 0x7F) << shift;
        shift += 7;
        if octet & 0x80 == 0 {
            return number;
        }
    }
}

fn take<'a>(octets: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = octets.split_at(count);
    *octets = rest;
    taken
}
