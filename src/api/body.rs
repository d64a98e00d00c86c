//! The body of every response.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::error::BoxError;

/// The body of a response: complete and of known length, except for exports, which are made part by part.
///
/// Only an export can fail, if the store does: the server then closes the connection, so that the client does not take a part
/// for the whole.
#[derive(Default)]
pub struct ApiBody(Content);

enum Content {
    Whole(Bytes),
    Parts(Box<dyn Parts>),
}

impl Default for Content {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

/// Content that is made when it is asked for, so that no more than a part of it is in memory.
pub(super) trait Parts: Send {
    /// Polls for the next part. `None` after the last one, and after an error.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>>;
}

impl ApiBody {
    pub(super) fn new(bytes: impl Into<Bytes>) -> Self {
        Self(Content::Whole(bytes.into()))
    }

    pub(super) fn in_parts(parts: impl Parts + 'static) -> Self {
        Self(Content::Parts(Box::new(parts)))
    }

    /// The number of octets, if it is known.
    pub(super) const fn len(&self) -> Option<usize> {
        match &self.0 {
            Content::Whole(bytes) => Some(bytes.len()),
            Content::Parts(_) => None,
        }
    }
}

impl Body for ApiBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Content::Whole(bytes) => {
                let data = std::mem::take(bytes);
                Poll::Ready((!data.is_empty()).then(|| Ok(Frame::data(data))))
            }
            Content::Parts(parts) => parts
                .poll_part(cx)
                .map(|part| part.map(|part| part.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.len() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        // A usize is at most 64 bits wide on every target of the crate.
        let length = self.len().map(|len| u64::try_from(len).unwrap_or(u64::MAX));
        length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for ApiBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiBody").field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn it_gives_its_bytes_once_and_knows_their_number() {
        let mut body = ApiBody::new("four");
        assert_eq!(body.size_hint().exact(), Some(4));
        assert!(!body.is_end_stream());
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "four");
        assert!(body.is_end_stream() && body.frame().await.is_none());
    }

    #[tokio::test]
    async fn an_empty_one_has_no_frame() {
        let mut body = ApiBody::default();
        assert!(body.is_end_stream() && body.frame().await.is_none());
    }

    struct Countdown(u8);

    impl Parts for Countdown {
        fn poll_part(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
            self.0 -= 1;
            Poll::Ready(match self.0 {
                0 => None,
                1 => Some(Err("the store is gone".into())),
                number => Some(Ok(vec![number].into())),
            })
        }
    }

    #[tokio::test]
    async fn parts_have_no_length_and_may_fail() {
        let mut body = ApiBody::in_parts(Countdown(4));
        assert_eq!((body.len(), body.size_hint().exact()), (None, None));
        for part in [3, 2] {
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), [part].as_slice());
            assert!(!body.is_end_stream());
        }
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());
    }
}
