//! The open connections, and which of them is closed at the limit.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tower_web_push::api::PeerAddr;

/// Time limit of the first request head. A head is one packet or two.
pub(super) const FIRST_HEAD: Duration = Duration::from_secs(10);
/// How long a connection may be idle: no request began or ended. Longer than the longest response time, which is
/// `Prefer: wait=30`.
pub(super) const QUIET: Duration = Duration::from_secs(60);
/// How long sending a response may take in a drain.
pub(super) const UNREAD: Duration = Duration::from_secs(5);

/// The open connections. Cheap to clone; clones are the same.
#[derive(Clone)]
pub(super) struct Connections {
    open: Arc<Mutex<HashMap<u64, Arc<Connection>>>>,
    /// Notified when a connection has closed, or all its requests are answered.
    changed: Arc<Notify>,
    limit: usize,
    /// Whether the address of a connection is its client's: behind a proxy all have the same one.
    direct: bool,
}

/// One open connection.
pub(super) struct Connection {
    peer: PeerAddr,
    activity: Mutex<Activity>,
    evicted: Notify,
    changed: Arc<Notify>,
}

struct Activity {
    requests: usize,
    /// Those of them without a response yet. How long sending a response takes is up to the client: an HTTP/2 window of
    /// 0 stops it for ever.
    unanswered: usize,
    /// When the connection was accepted, or a request last began, was answered or ended.
    since: Instant,
    /// When the connection is closed if nothing begins or ends.
    deadline: Instant,
}

/// Removes a connection from the table when it is dropped.
pub(super) struct Open {
    id: u64,
    connections: Connections,
    connection: Arc<Connection>,
}

/// A request that has begun and not ended.
pub(super) struct Request {
    connection: Arc<Connection>,
    is_answered: bool,
}

impl Connections {
    /// Creates a table of at most `limit` connections.
    pub(super) fn new(limit: usize, direct: bool) -> Self {
        Self {
            open: Arc::default(),
            changed: Arc::default(),
            limit: limit.max(1),
            direct,
        }
    }

    /// Adds an accepted connection. If the table is full, another one is closed first: see [`evict`](Self::evict). If
    /// none may be closed, this waits until one closes or all its requests are answered.
    ///
    /// # Cancel safety
    ///
    /// If dropped, no connection is added.
    pub(super) async fn enter(&self, id: u64, address: IpAddr) -> Open {
        loop {
            // Registered before the check, so that no change in between is missed.
            let changed = self.changed.notified();
            if let Some(open) = self.try_enter(id, address) {
                return open;
            }
            self.evict();
            changed.await;
        }
    }

    fn try_enter(&self, id: u64, address: IpAddr) -> Option<Open> {
        let mut open = self.lock();
        if open.len() >= self.limit {
            return None;
        }
        let now = Instant::now();
        let connection = Arc::new(Connection {
            peer: PeerAddr::new(address),
            activity: Mutex::new(Activity {
                requests: 0,
                unanswered: 0,
                since: now,
                deadline: now + FIRST_HEAD,
            }),
            evicted: Notify::new(),
            changed: Arc::clone(&self.changed),
        });
        open.insert(id, Arc::clone(&connection));
        Some(Open {
            id,
            connections: self.clone(),
            connection,
        })
    }

    /// Closes one connection for a new one, if it may: of those without an unanswered request, the one that has been idle
    /// the longest at the address with the most connections. So an address with many connections loses one before others
    /// do. A response that is being sent does not protect a connection, since clients that read nothing would keep
    /// others out.
    ///
    /// If every connection has an unanswered request, an address with more than half of all connections loses its oldest
    /// one, unless the address is a proxy's.
    pub(super) fn evict(&self) {
        let open = self.lock();
        let mut held: HashMap<PeerAddr, usize> = HashMap::new();
        for connection in open.values() {
            *held.entry(connection.peer).or_default() += 1;
        }
        let share = |connection: &Connection| held.get(&connection.peer).copied().unwrap_or(0);
        let victim = open
            .iter()
            .map(|(id, connection)| {
                let activity = connection.lock();
                (connection, activity.unanswered, activity.since, id)
            })
            .filter(|(connection, unanswered, ..)| {
                *unanswered == 0 || (self.direct && share(connection) > open.len() / 2)
            })
            // Of equals the one that was accepted first.
            .min_by_key(|(connection, unanswered, since, id)| {
                (
                    *unanswered > 0,
                    usize::MAX - share(connection),
                    *since,
                    **id,
                )
            });
        if let Some((connection, ..)) = victim {
            connection.evicted.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Counts a request whose head is complete.
    pub(super) fn request(self: &Arc<Self>) -> Request {
        self.lock().changed(1, 1);
        Request {
            connection: Arc::clone(self),
            is_answered: false,
        }
    }

    /// Whether a drain need not wait for it: it has no request, or its client does not read the response.
    pub(super) fn is_over(&self) -> bool {
        let activity = self.lock();
        let is_unread = activity.unanswered == 0 && activity.since.elapsed() >= UNREAD;
        activity.requests == 0 || is_unread
    }

    /// Waits until the connection has been idle for too long. The deadline never moves closer.
    pub(super) async fn quiet_too_long(&self) {
        loop {
            let deadline = self.lock().deadline;
            if deadline <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }

    /// Waits until the connection has to be closed for a new one.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Activity {
    fn changed(&mut self, requests: isize, unanswered: isize) {
        self.requests = self.requests.saturating_add_signed(requests);
        self.unanswered = self.unanswered.saturating_add_signed(unanswered);
        self.since = Instant::now();
        self.deadline = self.deadline.max(self.since + QUIET);
    }
}

impl Open {
    pub(super) fn connection(&self) -> Arc<Connection> {
        Arc::clone(&self.connection)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.id);
        self.connections.changed.notify_waiters();
    }
}

impl Request {
    /// Records that the client takes more of the response: a long one is not idle.
    pub(super) fn progress(&self) {
        self.connection.lock().changed(0, 0);
    }

    /// Records that the response is ready to be sent.
    pub(super) fn answered(&mut self) {
        if !std::mem::replace(&mut self.is_answered, true) {
            self.connection.lock().changed(0, -1);
            self.connection.changed.notify_waiters();
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.answered();
        self.connection.lock().changed(-1, 0);
    }
}
