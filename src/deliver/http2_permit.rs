//! The right to one stream of an HTTP/2 connection.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::uri::Authority;

use super::http2_connection::End;
use super::http2_pool::Inner;
use super::http2_pooled::ConnectionId;

/// What became of a connection, for the requests on it.
#[derive(Debug, Default)]
pub(super) struct Fate {
    has_answered: AtomicBool,
    end: OnceLock<End>,
}

impl Fate {
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered.load(Ordering::SeqCst)
    }

    /// Why this side ended the connection, if it did so with requests under way.
    pub(super) fn end(&self) -> Option<End> {
        self.end.get().copied()
    }

    /// This side ends the connection. The first reason counts.
    pub(super) fn ends(&self, end: End) {
        self.end.get_or_init(|| end);
    }
}

/// The right to one stream. Returned on drop.
pub(super) struct StreamPermit {
    pool: Arc<Inner>,
    authority: Authority,
    connection: ConnectionId,
    sender: Option<SendRequest<Bytes>>,
    delay: Duration,
    fate: Arc<Fate>,
    /// `None` until it is used.
    is_answered: Option<bool>,
    is_lent: bool,
}

impl StreamPermit {
    /// A stream that `lender` has lent, of an origin of its.
    pub(super) fn new(
        lender: (Arc<Inner>, Authority),
        connection: ConnectionId,
        fate: Arc<Fate>,
        sender: SendRequest<Bytes>,
        delay: Duration,
    ) -> Self {
        let (pool, authority) = lender;
        Self {
            pool,
            authority,
            connection,
            sender: Some(sender),
            delay,
            fate,
            is_answered: None,
            is_lent: true,
        }
    }

    /// The connection to send on. Returned once.
    pub(super) fn sender(&mut self) -> Option<SendRequest<Bytes>> {
        self.is_answered = Some(false);
        self.sender.take()
    }

    pub(super) const fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// How long the request waited for a connection to be opened.
    pub(super) const fn delay(&self) -> Duration {
        self.delay
    }

    pub(super) fn fate(&self) -> &Fate {
        &self.fate
    }

    /// There was a response.
    pub(super) fn answered(&mut self) {
        self.is_answered = Some(true);
        if !self.fate.has_answered.swap(true, Ordering::SeqCst) {
            self.pool.shared().dialled.answered(&self.authority);
        }
    }

    /// Drops it without returning the stream.
    pub(super) fn forget(mut self) {
        self.is_lent = false;
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        if !self.is_lent {
            return;
        }
        self.pool.change(&self.authority, |origin| {
            if origin.take_back(self.connection, self.is_answered) {
                self.pool.shared().dialled.failed(&self.authority);
            }
        });
    }
}

impl fmt::Debug for StreamPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamPermit")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}
