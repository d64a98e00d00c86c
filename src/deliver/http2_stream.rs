//! One request and its response on a stream of an HTTP/2 connection.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::{Request, Response, Version};
use http_body::{Body, Frame};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::http2_connection::End;
use super::http2_permit::StreamPermit;
use super::http2_pooled::ConnectionId;
use super::local_error::{Lack, LocalError};
use super::unprocessed::{asks_for_calm, is_unprocessed};
use crate::error::BoxError;
use crate::push_request::PushBody;

/// A request without a response.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) error: BoxError,
    pub(super) connection: ConnectionId,
    /// Whether the server certainly has not processed it.
    pub(super) is_unprocessed: bool,
    /// Whether the server asked for fewer requests.
    pub(super) asks_for_calm: bool,
}

/// An extension of a response: the time before the request was sent, without the wait for one of the streams that there
/// were. It says nothing about the load on the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delayed(pub(super) Duration);

/// Sends a request. The head of the response has the body on the stream.
///
/// # Cancel safety
///
/// Dropping the future resets the stream, and then returns the permit.
pub(super) async fn send(
    mut permit: StreamPermit,
    request: Request<PushBody>,
) -> Result<Response<ResponseBody>, Unanswered> {
    let (mut head, body) = request.into_parts();
    head.version = Version::HTTP_2;
    let body = body.into_bytes();
    let request = Request::from_parts(head, ());
    let Some(mut sender) = permit.sender() else {
        unreachable!("a permit is for one request");
    };
    let sent = sender.send_request(request, body.is_empty());
    // Until it is dropped the connection stays open.
    drop(sender);
    let (response, mut stream) = match sent {
        Ok(sent) => sent,
        Err(error) => {
            // It was not even a stream. Any other error is one of the request itself, on every connection.
            let is_unprocessed = error.is_io() || error.is_go_away();
            return Err(unanswered(&permit, error, is_unprocessed));
        }
    };
    if !body.is_empty() {
        // If the stream was reset meanwhile, the response says so. At most 4 KiB: waiting for the window is not worth it.
        let _ = stream.send_data(body, true);
    }
    match response.await {
        Ok(response) => {
            permit.answered();
            Ok(response.map(|body| ResponseBody(Some(Rest::new(body, permit)))))
        }
        Err(error) => {
            let is_unprocessed = is_unprocessed(&error);
            Err(unanswered(&permit, error, is_unprocessed))
        }
    }
}

fn unanswered(permit: &StreamPermit, error: h2::Error, is_unprocessed: bool) -> Unanswered {
    Unanswered {
        connection: permit.connection(),
        is_unprocessed,
        asks_for_calm: asks_for_calm(&error),
        error: match permit.fate().end() {
            Some(End::Stopped) => LocalError::new(Lack::Runtime, error).into(),
            Some(End::Silent) => NoPong.into(),
            None => error.into(),
        },
    }
}

/// The body of a response. When it is dropped, the rest of a short one is read.
///
/// Most responses are dropped before the end of their stream is here. A stream that is reset then may get a frame that was on
/// its way; after many of those h2 closes the connection, with the requests on it.
pub(super) struct ResponseBody(Option<Rest>);

/// The rest of a body.
struct Rest {
    // Dropped in this order: the stream is reset before another one begins.
    body: RecvStream,
    _permit: StreamPermit,
    /// The octets still to read of a body that was dropped. A frame counts as one at least.
    left: usize,
}

impl Rest {
    /// The limits on reading the rest of a body that was dropped.
    const OCTETS: usize = 16 * 1024;
    const TIME: Duration = Duration::from_secs(1);

    fn new(body: RecvStream, permit: StreamPermit) -> Self {
        Self {
            body,
            _permit: permit,
            left: Self::OCTETS,
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let body = &mut self.body;
        if let Some(data) = ready!(body.poll_data(cx)) {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let trailers = ready!(body.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    /// Ready at the end of the body, and when it is too long.
    fn poll_to_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.left > 0 {
            let Some(Ok(frame)) = ready!(self.poll_frame(cx)) else {
                break;
            };
            let octets = frame.data_ref().map_or(0, Bytes::len);
            self.left = self.left.saturating_sub(octets.max(1));
        }
        Poll::Ready(())
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let Some(mut rest) = self.0.take() else {
            return;
        };
        if rest.body.is_end_stream() {
            return;
        }
        let here = rest.poll_to_end(&mut Context::from_waker(Waker::noop()));
        if here.is_pending()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                // At its end, or when the time is up, the rest is dropped.
                let _ = timeout(Rest::TIME, poll_fn(|cx| rest.poll_to_end(cx))).await;
            });
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let rest = self.0.as_mut();
        rest.map_or(Poll::Ready(None), |rest| rest.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        let rest = self.0.as_ref();
        rest.is_none_or(|rest| rest.body.is_end_stream())
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

/// A ping had no response.
#[derive(Debug)]
struct NoPong;

impl fmt::Display for NoPong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection did not respond to a ping")
    }
}

impl std::error::Error for NoPong {}
