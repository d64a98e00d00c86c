//! The HTTP/2 connections of each origin, and the requests that wait for a stream.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
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
use super::http2_pooled::{ConnectionId, Look, Pooled};
use super::local_error::{Lack, LocalError};

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
    connections: Vec<Pooled>,
    waiting: VecDeque<Waiting>,
    is_opening: bool,
    /// When a further connection may be opened, after one that could not be.
    further_at: Option<Instant>,
}

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

    fn open_ones(&self) -> impl Iterator<Item = &Pooled> {
        let connections = self.connections.iter();
        connections.filter(|connection| connection.is_open())
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
        (is_needed && self.open_ones().all(Pooled::is_known)).then(|| first.runtime.clone())
    }

    /// A connection was opened, or could not be.
    pub(super) fn opened(
        &mut self,
        opened: Option<(ConnectionId, SendRequest<Bytes>, Usage, Arc<Fate>)>,
    ) {
        self.is_opening = false;
        let opened = opened.map(|(id, sender, usage, fate)| Pooled::new(id, sender, usage, fate));
        self.connections.extend(opened);
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
            connection.has_failed()
        })
    }

    /// Lends no more streams of a connection without any, so that it ends. Returns `false` if another thread has lent one
    /// since it was last looked at.
    pub(super) fn retire_idle(&mut self, id: ConnectionId) -> bool {
        let connection = self.find(id).filter(|one| one.streams == 0);
        connection.map(Pooled::retire).is_some()
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
        (connection.look(cx), connection.state())
    }

    /// Takes a stream back. `is_answered` is `None` if it was not used. Returns whether the connection is replaced and never had
    /// a response.
    pub(super) fn take_back(&mut self, id: ConnectionId, is_answered: Option<bool>) -> bool {
        self.find(id)
            .is_some_and(|connection| connection.end(is_answered))
    }

    fn find(&mut self, id: ConnectionId) -> Option<&mut Pooled> {
        self.connections.iter_mut().find(|one| one.id == id)
    }
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

#[cfg(test)]
#[path = "http2_pool_tests.rs"]
pub(super) mod tests;
