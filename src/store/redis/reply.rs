//! Converting Redis' replies into Rust values.

use std::collections::HashMap;
use std::vec;

use redis::Value;

use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::reason::corrupt;

/// An iterator over the values of a list.
pub(super) struct Reply(vec::IntoIter<Value>);

impl Reply {
    pub(super) fn of(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(values) | Value::Set(values) => Ok(Self(values.into_iter())),
            // If the application's connection speaks RESP3.
            Value::Map(fields) => {
                let values: Vec<_> = fields.into_iter().flat_map(<[_; 2]>::from).collect();
                Ok(Self(values.into_iter()))
            }
            Value::Nil => Ok(Self(Vec::new().into_iter())),
            _ => Err(unexpected()),
        }
    }

    /// Returns the next value.
    pub(super) fn value(&mut self) -> Result<Value, StoreError> {
        self.0.next().ok_or_else(unexpected)
    }

    pub(super) fn list(&mut self) -> Result<Self, StoreError> {
        Self::of(self.value()?)
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        bytes(self.value()?)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        array(&self.bytes()?)
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        text(self.bytes()?)
    }

    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        number(self.value()?)
    }

    pub(super) fn flag(&mut self) -> Result<bool, StoreError> {
        Ok(self.number()? != 0)
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, StoreError> {
        time(&self.bytes()?)
    }

    /// Reads a hash: alternating names and values.
    pub(super) fn fields(&mut self) -> Result<Fields, StoreError> {
        Fields::of(self.value()?)
    }
}

impl Iterator for Reply {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        self.0.next()
    }
}

/// The fields of a hash.
pub(super) struct Fields(HashMap<Vec<u8>, Vec<u8>>);

impl Fields {
    pub(super) fn of(value: Value) -> Result<Self, StoreError> {
        let mut values = Reply::of(value)?;
        let mut fields = HashMap::new();
        while let Some(name) = values.next() {
            fields.insert(bytes(name)?, values.bytes()?);
        }
        Ok(Self(fields))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Vec<u8>> {
        self.0.remove(name.as_bytes())
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, StoreError> {
        self.take(name).map(text).transpose()
    }

    pub(super) fn time(&mut self, name: &str) -> Result<Option<Timestamp>, StoreError> {
        self.take(name).map(|value| time(&value)).transpose()
    }

    /// Takes a number, or 0 if it was never written.
    pub(super) fn count(&mut self, name: &str) -> Result<u64, StoreError> {
        self.take(name).map_or(Ok(0), |value| parse(&value))
    }
}

impl IntoIterator for Fields {
    type Item = (Vec<u8>, Vec<u8>);
    type IntoIter = std::collections::hash_map::IntoIter<Vec<u8>, Vec<u8>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

pub(super) fn bytes(value: Value) -> Result<Vec<u8>, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Ok(text.into_bytes()),
        Value::Int(number) => Ok(number.to_string().into_bytes()),
        _ => Err(unexpected()),
    }
}

pub(super) fn bytes_or_nil(value: Value) -> Result<Option<Vec<u8>>, StoreError> {
    match value {
        Value::Nil => Ok(None),
        value => bytes(value).map(Some),
    }
}

pub(super) fn number(value: Value) -> Result<u64, StoreError> {
    match value {
        Value::Int(number) => u64::try_from(number).map_err(|_| unexpected()),
        value => parse(&bytes(value)?),
    }
}

pub(super) fn text(bytes: Vec<u8>) -> Result<String, StoreError> {
    String::from_utf8(bytes).map_err(|_| corrupt("a text"))
}

pub(super) fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| corrupt("a name"))
}

pub(super) fn time(bytes: &[u8]) -> Result<Timestamp, StoreError> {
    // A score returned by a script may have an exponent: a time that is never reached.
    let text = str::from_utf8(bytes).map_err(|_| unexpected())?;
    if let Ok(millis) = text.parse() {
        return Ok(Timestamp::from_millis(millis));
    }
    let millis: f64 = text.parse().map_err(|_| unexpected())?;
    #[expect(clippy::cast_possible_truncation, reason = "saturates, as it should")]
    Ok(Timestamp::from_millis(millis as i64))
}

pub(super) fn parse<T: std::str::FromStr>(bytes: &[u8]) -> Result<T, StoreError> {
    str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(unexpected)
}

pub(super) fn unexpected() -> StoreError {
    corrupt("an answer")
}
