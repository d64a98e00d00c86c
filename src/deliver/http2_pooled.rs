//! One HTTP/2 connection in the pool: how many streams it may have, and what was heard on it.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::time::Instant;

use super::connection_budget::Usage;
use super::http2_permit::Fate;
use super::unprocessed::asks_for_calm;

/// A connection as the pool sees it. [`Opening`](super::http2_connection::Opening) drives it.
pub(super) struct Pooled {
    pub(super) id: ConnectionId,
    /// `None` once it takes no new streams.
    sender: Option<SendRequest<Bytes>>,
    usage: Usage,
    /// The streams that are lent.
    pub(super) streams: usize,
    /// The streams that it may have at once, when last looked at, and when they became more.
    allowed: usize,
    pub(super) allowed_since: Instant,
    /// Whether it takes no new streams because this side decided so.
    is_retired: bool,
    /// Streams that ended without a response, since the last response.
    unanswered: u32,
    /// When it was opened, last had a response, or got the first stream after that.
    heard_at: Instant,
    idle_since: Instant,
    /// When it was opened, or used again after it was idle for long; `None` once something was heard since.
    unheard_since: Option<Instant>,
    /// Whether it carries one stream until then, since it was idle for long.
    is_on_trial: bool,
    pub(super) fate: Arc<Fate>,
}

/// Tells the connections of a pool apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionId(pub(super) u64);

/// What the timers of a connection need to know.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    pub(super) now: Use,
    /// When another connection may be opened beside it, if nothing changes before.
    pub(super) again_at: Option<Instant>,
}

/// The use of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Use {
    /// It has no streams since then.
    IdleSince(Instant),
    /// It has streams. When it last had a response, or the first stream after that.
    HeardAt(Instant),
    /// It is not in the pool.
    #[default]
    Ended,
}

impl Pooled {
    /// The most streams on one connection, whatever the server allows: if it breaks, the requests on all of them are lost.
    const STREAMS: usize = 256;
    /// A connection on which this number of requests in a row had no response is replaced.
    const UNANSWERED: u32 = 8;
    /// A connection that was idle for this time may be dead: networks forget connections.
    const LONG_IDLE: Duration = Duration::from_secs(20);
    /// How long requests wait for a connection from which nothing was heard before another one is opened beside it.
    const PATIENCE: Duration = Duration::from_secs(3);

    pub(super) fn new(
        id: ConnectionId,
        sender: SendRequest<Bytes>,
        usage: Usage,
        fate: Arc<Fate>,
    ) -> Self {
        let now = Instant::now();
        Self {
            id,
            sender: Some(sender),
            usage,
            streams: 0,
            allowed: 1,
            allowed_since: now,
            is_retired: false,
            unanswered: 0,
            heard_at: now,
            idle_since: now,
            unheard_since: Some(now),
            is_on_trial: false,
            fate,
        }
    }

    /// Whether it takes new streams.
    pub(super) const fn is_open(&self) -> bool {
        self.sender.is_some()
    }

    /// Whether the server ended it before its first response.
    pub(super) fn has_failed(&self) -> bool {
        !self.is_retired && !self.fate.has_answered()
    }

    /// What its timers need.
    pub(super) fn state(&self) -> Look {
        let now = match self.streams {
            0 => Use::IdleSince(self.idle_since),
            _ => Use::HeardAt(self.heard_at),
        };
        Look {
            now,
            again_at: self.known_at(),
        }
    }

    /// The streams that it may have at once.
    fn allowed(&self) -> usize {
        let allowed = self
            .sender
            .as_ref()
            .map(SendRequest::current_max_send_streams);
        allowed.unwrap_or(0).min(Self::STREAMS)
    }

    pub(super) fn has_room(&self) -> bool {
        let allowed = self.allowed();
        self.streams
            < if self.is_on_trial {
                allowed.min(1)
            } else {
                allowed
            }
    }

    /// Whether it is known how many streams it will have. Of one without a response it is not: APNs allows one at first. Nor
    /// of one that was idle for long. One that stays silent has no more.
    pub(super) fn is_known(&self) -> bool {
        let is_silent = !self.unheard_since.is_some_and(is_recent);
        is_silent || (!self.is_on_trial && (self.fate.has_answered() || self.allowed() > 1))
    }

    /// When it counts as known, if nothing is heard before.
    fn known_at(&self) -> Option<Instant> {
        let since = self.unheard_since?;
        (self.sender.is_some() && !self.is_known()).then_some(since + Self::PATIENCE)
    }

    /// Something was heard from the server.
    pub(super) fn heard(&mut self) {
        self.unheard_since = None;
        if std::mem::take(&mut self.is_on_trial) {
            self.allowed_since = Instant::now();
        }
    }

    /// Lends a stream, unless the connection has to be closed.
    pub(super) fn begin(&mut self) -> Option<SendRequest<Bytes>> {
        if self.streams == 0 {
            if !self.usage.begin() {
                self.retire();
            }
            let now = Instant::now();
            if !self.is_on_trial && now - self.idle_since >= Self::LONG_IDLE {
                self.is_on_trial = true;
                self.unheard_since = Some(now);
            }
            // Requests that were given up one after the other are one silence.
            if self.unanswered == 0 {
                self.heard_at = now;
            }
        }
        let sender = self.sender.clone()?;
        self.streams += 1;
        Some(sender)
    }

    /// Takes a stream back. `None` if it was not used. Returns whether the connection is replaced and never had a response.
    pub(super) fn end(&mut self, is_answered: Option<bool>) -> bool {
        let was_open = self.sender.is_some();
        match is_answered {
            Some(true) => {
                self.unanswered = 0;
                self.heard_at = Instant::now();
                self.heard();
            }
            Some(false) => {
                self.unanswered += 1;
                if self.unanswered >= Self::UNANSWERED {
                    self.retire();
                }
            }
            None => {}
        }
        self.streams = self.streams.saturating_sub(1);
        if self.streams == 0 {
            self.idle_since = Instant::now();
            self.usage.end();
        }
        was_open && self.sender.is_none() && !self.fate.has_answered()
    }

    /// Takes in the server's latest SETTINGS and GOAWAY. Returns whether it asked for fewer requests.
    pub(super) fn look(&mut self, cx: &mut Context<'_>) -> bool {
        let allowed = self.allowed();
        if allowed > self.allowed {
            self.allowed_since = Instant::now();
        }
        self.allowed = allowed;
        // It does not wait: this sender has sent nothing.
        let ready = self.sender.as_mut().map(|sender| sender.poll_ready(cx));
        let Some(Poll::Ready(Err(error))) = ready else {
            return false;
        };
        self.sender = None;
        asks_for_calm(&error)
    }

    pub(super) fn retire(&mut self) {
        self.sender = None;
        self.is_retired = true;
    }
}

fn is_recent(since: Instant) -> bool {
    since.elapsed() < Pooled::PATIENCE
}
