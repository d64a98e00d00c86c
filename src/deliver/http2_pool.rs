//! The HTTP/2 connections of each origin, and the requests that wait for a stream.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::uri::Authority;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::connection_budget::Usage;
use super::connector::{Connector, Shared};
use super::dialled::DialError;
use super::http2_connection::Opening;
use super::http2_permit::{Fate, StreamPermit};
use super::local_error::{Lack, LocalError};
use super::unprocessed::asks_for_calm;

/// The HTTP/2 connections of a client. Cheap to clone; clones share them.
///
/// A request takes a [`StreamPermit`] before it is handed to `h2`, so none waits in there, where the pool could not move it to
/// another connection. Requests wait in the order of arrival. A connection carries one stream until the server's SETTINGS
/// are here, and then as many as they allow (RFC 9113 section 5.1.2). If the streams of all connections of an origin are
/// in use, another one is opened, one at a time. The fullest connection with a free stream gets the next request,
/// so that those not needed become idle. One that was idle for long carries one stream until something is heard from the
/// server: the network may have dropped it without a sign.
#[derive(Clone)]
pub(super) struct Http2Pool(Arc<Inner>);

pub(super) struct Inner {
    pub(super) connector: Connector,
    origins: Mutex<HashMap<Authority, Origin>>,
    connections: AtomicU64,
}

#[derive(Default)]
pub(super) struct Origin {
    /// Also those that take no new streams.
    connections: Vec<Connection>,
    waiting: VecDeque<Waiting>,
    is_opening: bool,
    /// When a further connection may be opened, after one that could not be.
    further_at: Option<Instant>,
}

struct Connection {
    id: ConnectionId,
    /// `None` once it takes no new streams.
    sender: Option<SendRequest<Bytes>>,
    usage: Usage,
    /// The streams that are lent.
    streams: usize,
    /// The streams that it may have at once, when last looked at, and when they became more.
    allowed: usize,
    allowed_since: Instant,
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
    fate: Arc<Fate>,
}

/// Tells the connections of a pool apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionId(u64);

/// A request that waits for a stream.
struct Waiting {
    sender: oneshot::Sender<Result<StreamPermit, NoStream>>,
    since: Instant,
    /// A connection that left the request unprocessed.
    avoided: Option<ConnectionId>,
    /// Its runtime drives the connection that is opened for it.
    runtime: Handle,
}

/// Why there is no stream.
#[derive(Clone, Debug)]
pub(super) enum NoStream {
    /// The server chose HTTP/1.1.
    Http1,
    Dial(DialError),
}

impl Http2Pool {
    pub(super) fn new(connector: Connector) -> Self {
        Self(Arc::new(Inner {
            connector,
            origins: Mutex::default(),
            connections: AtomicU64::new(0),
        }))
    }

    /// Waits for a stream of an origin, on another connection than `avoided` if one has room.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue and nothing else.
    pub(super) async fn stream(
        &self,
        authority: &Authority,
        avoided: Option<ConnectionId>,
    ) -> Result<StreamPermit, NoStream> {
        let (sender, permit) = oneshot::channel();
        let waiting = Waiting {
            sender,
            since: Instant::now(),
            avoided,
            runtime: Handle::current(),
        };
        self.0
            .change(authority, |origin| origin.waiting.push_back(waiting));
        // The sender is used before it is dropped.
        permit.await.unwrap_or_else(|_| Err(NoStream::stopped()))
    }
}

impl Inner {
    pub(super) fn shared(&self) -> &Shared {
        self.connector.shared()
    }

    /// Changes an origin, hands out the streams that are free then, and opens a connection if requests still wait.
    pub(super) fn change<T>(
        self: &Arc<Self>,
        authority: &Authority,
        change: impl FnOnce(&mut Origin) -> T,
    ) -> T {
        let mut origins = self.lock();
        let origin = origins.entry(authority.clone()).or_default();
        let result = change(origin);
        origin.lend(self, authority);
        let opens_on = origin.opens_on();
        origin.is_opening |= opens_on.is_some();
        if origin.is_unused() {
            origins.remove(authority);
        }
        drop(origins);
        if let Some(runtime) = opens_on {
            let opening = Opening::new(Arc::clone(self), authority.clone());
            runtime.spawn(opening.run());
        }
        result
    }

    pub(super) fn new_id(&self) -> ConnectionId {
        ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Authority, Origin>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Origin {
    /// The most connections of an origin that take new streams.
    const CONNECTIONS: usize = 6;
    /// The pause after a further connection that could not be opened: the origin may have no more, or the budget.
    const FURTHER_PAUSE: Duration = Duration::from_secs(2);

    fn is_unused(&self) -> bool {
        self.connections.is_empty() && self.waiting.is_empty() && !self.is_opening
    }

    fn open_ones(&self) -> impl Iterator<Item = &Connection> {
        let connections = self.connections.iter();
        connections.filter(|connection| connection.sender.is_some())
    }

    /// Whether the next connection would be the only one that takes new streams.
    pub(super) fn has_none(&self) -> bool {
        self.open_ones().next().is_none()
    }

    /// Whether a request waits that was not dropped.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting.iter().any(|one| !one.sender.is_closed())
    }

    /// Hands out free streams to those that wait, the first first.
    fn lend(&mut self, pool: &Arc<Inner>, authority: &Authority) {
        while let Some(first) = self.waiting.front() {
            if first.sender.is_closed() {
                self.waiting.pop_front();
                continue;
            }
            let with_room = self.connections.iter_mut().filter(|one| one.has_room());
            let avoided = first.avoided;
            // Of equal ones always the same, so that the others become idle.
            let best =
                with_room.max_by_key(|one| (Some(one.id) != avoided, one.streams, Reverse(one.id)));
            let Some(connection) = best else {
                return;
            };
            let Some(sender) = connection.begin() else {
                continue;
            };
            let Some(first) = self.waiting.pop_front() else {
                return;
            };
            // Until then there was no stream to have, whatever the load on the server.
            let delay = match connection.allowed_since > first.since {
                true => first.since.elapsed(),
                false => Duration::ZERO,
            };
            let (id, fate) = (connection.id, Arc::clone(&connection.fate));
            let lender = (Arc::clone(pool), authority.clone());
            let permit = StreamPermit::new(lender, id, fate, sender, delay);
            if let Err(Ok(permit)) = first.sender.send(Ok(permit)) {
                permit.forget();
                connection.end(None);
            }
        }
    }

    /// The runtime to open another connection on, if one is needed now.
    fn opens_on(&self) -> Option<Handle> {
        let first = self.waiting.front()?;
        let open = self.open_ones().count();
        let may_have_more =
            open < Self::CONNECTIONS && self.further_at.is_none_or(|at| at <= Instant::now());
        let is_needed = !self.is_opening && (open == 0 || may_have_more);
        (is_needed && self.open_ones().all(Connection::is_known)).then(|| first.runtime.clone())
    }

    /// A connection was opened, or could not be.
    pub(super) fn opened(
        &mut self,
        opened: Option<(ConnectionId, SendRequest<Bytes>, Usage, Arc<Fate>)>,
    ) {
        self.is_opening = false;
        let now = Instant::now();
        self.connections
            .extend(opened.map(|(id, sender, usage, fate)| Connection {
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
            }));
    }

    /// A further connection could not be opened.
    pub(super) fn put_off_further(&mut self) {
        self.further_at = Some(Instant::now() + Self::FURTHER_PAUSE);
    }

    /// Tells those that wait that there is no stream.
    pub(super) fn fail(&mut self, reason: &NoStream) {
        for waiting in self.waiting.drain(..) {
            // An error means that it does not wait any more.
            let _ = waiting.sender.send(Err(reason.clone()));
        }
    }

    /// Removes a connection that has ended. Returns whether the server ended it before its first response.
    pub(super) fn remove(&mut self, id: ConnectionId) -> bool {
        let place = self.connections.iter().position(|one| one.id == id);
        place.is_some_and(|place| {
            let connection = self.connections.swap_remove(place);
            !connection.is_retired && !connection.fate.has_answered()
        })
    }

    /// Lends no more streams of a connection without any, so that it ends. Returns `false` if another thread has lent one
    /// since it was last looked at.
    pub(super) fn retire_idle(&mut self, id: ConnectionId) -> bool {
        let connection = self.find(id).filter(|one| one.streams == 0);
        connection.map(Connection::retire).is_some()
    }

    /// A connection has responded to a ping.
    pub(super) fn heard(&mut self, id: ConnectionId) {
        if let Some(connection) = self.find(id) {
            connection.heard();
        }
    }

    /// Looks at a connection after a change. Returns whether the server asked for fewer requests, and what its timers need.
    pub(super) fn look(&mut self, id: ConnectionId, cx: &mut Context<'_>) -> (bool, Look) {
        let Some(connection) = self.find(id) else {
            return (false, Look::default());
        };
        let asks_for_calm = connection.look(cx);
        let now = match connection.streams {
            0 => Use::IdleSince(connection.idle_since),
            _ => Use::HeardAt(connection.heard_at),
        };
        let again_at = connection.known_at();
        (asks_for_calm, Look { now, again_at })
    }

    /// Takes a stream back. `is_answered` is `None` if it was not used. Returns whether the connection is replaced and never had
    /// a response.
    pub(super) fn take_back(&mut self, id: ConnectionId, is_answered: Option<bool>) -> bool {
        self.find(id)
            .is_some_and(|connection| connection.end(is_answered))
    }

    fn find(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|one| one.id == id)
    }
}

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

impl Connection {
    /// The most streams on one connection, whatever the server allows: if it breaks, the requests on all of them are lost.
    const STREAMS: usize = 256;
    /// A connection on which this number of requests in a row had no response is replaced.
    const UNANSWERED: u32 = 8;
    /// A connection that was idle for this time may be dead: networks forget connections.
    const LONG_IDLE: Duration = Duration::from_secs(20);
    /// How long requests wait for a connection from which nothing was heard before another one is opened beside it.
    const PATIENCE: Duration = Duration::from_secs(3);

    /// The streams that it may have at once.
    fn allowed(&self) -> usize {
        let allowed = self
            .sender
            .as_ref()
            .map(SendRequest::current_max_send_streams);
        allowed.unwrap_or(0).min(Self::STREAMS)
    }

    fn has_room(&self) -> bool {
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
    fn is_known(&self) -> bool {
        let is_silent = !self.unheard_since.is_some_and(is_recent);
        is_silent || (!self.is_on_trial && (self.fate.has_answered() || self.allowed() > 1))
    }

    /// When it counts as known, if nothing is heard before.
    fn known_at(&self) -> Option<Instant> {
        let since = self.unheard_since?;
        (self.sender.is_some() && !self.is_known()).then_some(since + Self::PATIENCE)
    }

    /// Something was heard from the server.
    fn heard(&mut self) {
        self.unheard_since = None;
        if std::mem::take(&mut self.is_on_trial) {
            self.allowed_since = Instant::now();
        }
    }

    /// Lends a stream, unless the connection has to be closed.
    fn begin(&mut self) -> Option<SendRequest<Bytes>> {
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
    fn end(&mut self, is_answered: Option<bool>) -> bool {
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
    fn look(&mut self, cx: &mut Context<'_>) -> bool {
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

    fn retire(&mut self) {
        self.sender = None;
        self.is_retired = true;
    }
}

fn is_recent(since: Instant) -> bool {
    since.elapsed() < Connection::PATIENCE
}

impl NoStream {
    /// The task that opens the connection did not end by itself.
    pub(super) fn stopped() -> Self {
        Self::Dial(DialError::new(LocalError::from(Lack::Runtime).into()))
    }
}

impl fmt::Debug for Http2Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Pool").finish_non_exhaustive()
    }
}
