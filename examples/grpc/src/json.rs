//! Messages as JSON instead of Protocol Buffers.

use std::marker::PhantomData;

use bytes::{Buf as _, BufMut as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// A codec that encodes `T` and decodes `U`.
#[derive(Debug)]
pub(crate) struct JsonCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for JsonCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for JsonCodec<T, U>
where
    T: Serialize + Send + 'static,
    U: DeserializeOwned + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Json<T>;
    type Decoder = Json<U>;

    fn encoder(&mut self) -> Json<T> {
        Json(PhantomData)
    }

    fn decoder(&mut self) -> Json<U> {
        Json(PhantomData)
    }
}

/// One direction of the codec.
#[derive(Debug)]
pub(crate) struct Json<T>(PhantomData<T>);

impl<T: Serialize> Encoder for Json<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        serde_json::to_writer(buf.writer(), &item)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl<T: DeserializeOwned> Decoder for Json<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        if !buf.has_remaining() {
            return Ok(None);
        }
        let item = serde_json::from_reader(buf.reader());
        // Without the parser's text, which may quote a subscription's secrets.
        item.map(Some)
            .map_err(|_| Status::invalid_argument("malformed message"))
    }
}
