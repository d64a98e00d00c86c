//! The budget of outbound connections: how many may be open, and which one is closed for another.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Duration;

use http::uri::Authority;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::closing::Closing;
use super::connection_place::{Place, ShareInUse};
use super::local_error::{Lack, LocalError};
use super::open_files;
use super::shares::{Held, Pool, Shares};
use crate::error::BoxError;

/// The connections of a client. Cheap to clone; clones share the budget.
///
/// Half of the budget is for hosts that the endpoint policy names, so that others cannot use it up. Of the other half no
/// registrable domain and no block of addresses has more than an eighth. A connection is idle while it has no stream
/// ([`Usage`], HTTP/2) and its origin no request under way ([`request`](Self::request), HTTP/1.1, where the pool does not
/// tell the connection). If a connection is needed and none is free, the connection that has been idle for the longest
/// time is closed, in the same half, domain or block.
#[derive(Clone, Debug)]
pub(super) struct ConnectionBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    named: Arc<Pool>,
    others: Arc<Pool>,
    domains: Shares<Box<str>>,
    blocks: Shares<IpAddr>,
    origins: Mutex<HashMap<Authority, Origin>>,
    closed: Notify,
}

/// The connections and requests of one origin.
#[derive(Debug)]
struct Origin {
    requests: usize,
    idle_since: Instant,
    sockets: Vec<Socket>,
}

#[derive(Debug)]
struct Socket {
    pools: Vec<Arc<Pool>>,
    closing: Arc<Closing>,
    is_used: bool,
    idle_since: Instant,
}

impl ConnectionBudget {
    /// The share of the open files that the budget takes. The rest is for the application, its own connections and
    /// database; a dial may use two sockets, one for each address family.
    const SHARE_OF_FILES: usize = 4;
    /// The limits of the derived budget. At least some connections for a process with few files; at most 4,096, since each
    /// may buffer 64 KiB.
    const RANGE: (usize, usize) = (16, 4096);
    /// The limit on the time that a request waits for a connection to become free.
    const WAIT: Duration = Duration::from_secs(5);

    /// The budget for this process: a quarter of its open files, from 16 to 4,096.
    pub(super) fn derived_limit() -> usize {
        let (least, most) = Self::RANGE;
        (open_files::soft_limit() / Self::SHARE_OF_FILES).clamp(least, most)
    }

    /// A budget of `limit` connections, at least 2.
    pub(super) fn new(limit: usize) -> Self {
        let named = (limit / 2).max(1);
        let others = limit.saturating_sub(named).max(1);
        let share = (others / 8).max(2).min(others);
        Self(Arc::new(Budget {
            named: Pool::new(named),
            others: Pool::new(others),
            domains: Shares::new(share),
            blocks: Shares::new(share),
            origins: Mutex::default(),
            closed: Notify::new(),
        }))
    }

    /// Counts a request to an origin until the guard is dropped.
    ///
    /// Waits if a connection of the origin is being closed, so that the request is not sent on it.
    pub(super) async fn request(&self, authority: Authority) -> Request {
        loop {
            // Created before the check, so that no change in between is missed.
            let closed = self.0.closed.notified();
            {
                let mut origins = self.lock();
                let origin = origins.entry(authority.clone()).or_insert_with(Origin::new);
                if !origin
                    .sockets
                    .iter()
                    .any(|socket| socket.closing.has_begun())
                {
                    origin.requests = origin.requests.saturating_add(1);
                    return Request {
                        budget: self.clone(),
                        authority,
                    };
                }
            }
            closed.await;
        }
    }

    /// Takes a place for a connection, if one is free: for an origin that has a connection already, no other is closed.
    /// `domain` is `None` for a host that the policy names.
    pub(super) fn spare_place(&self, domain: Option<Box<str>>) -> Option<Place> {
        let held = match domain {
            None => vec![self.0.named.try_take()?],
            Some(domain) => {
                let share = self.0.domains.of(domain).try_take()?;
                vec![share, self.0.others.try_take()?]
            }
        };
        Some(Place::new(self.clone(), held, true))
    }

    /// Takes a place for a connection. `domain` is `None` for a host that the policy names.
    ///
    /// # Errors
    ///
    /// [`LocalError`] if no connection becomes free in time, [`ShareInUse`] if those of the domain are in use.
    pub(super) async fn place(&self, domain: Option<Box<str>>) -> Result<Place, BoxError> {
        let held = match domain {
            None => vec![self.take_within(&self.0.named).await?],
            Some(domain) => {
                let share = self.0.domains.of(domain);
                let share = timeout(Self::WAIT, self.take(&share))
                    .await
                    .map_err(|_| ShareInUse)?;
                vec![share, self.take_within(&self.0.others).await?]
            }
        };
        Ok(Place::new(self.clone(), held, false))
    }

    async fn take_within(&self, pool: &Arc<Pool>) -> Result<Held, LocalError> {
        timeout(Self::WAIT, self.take(pool))
            .await
            .map_err(|_| Lack::Connections.into())
    }

    /// Whether a place is one of a host that the policy names.
    pub(super) fn is_named(&self, held: &[Held]) -> bool {
        held.iter()
            .any(|held| Arc::ptr_eq(held.pool(), &self.0.named))
    }

    /// The share of a block of addresses.
    pub(super) fn share_of(&self, block: IpAddr) -> Arc<Pool> {
        self.0.blocks.of(block)
    }

    /// Takes a place in a pool, as soon as there is one.
    pub(super) async fn take(&self, pool: &Arc<Pool>) -> Held {
        pool.take(|| self.close_idle_in(pool)).await
    }

    /// Enters a connection that was opened, with the places that it takes.
    pub(super) fn enter(self, authority: Authority, held: Vec<Held>) -> Connection {
        let closing = Arc::new(Closing::default());
        let socket = Socket {
            pools: held.iter().map(|held| Arc::clone(held.pool())).collect(),
            closing: Arc::clone(&closing),
            is_used: false,
            idle_since: Instant::now(),
        };
        let mut origins = self.lock();
        let origin = origins.entry(authority.clone()).or_insert_with(Origin::new);
        origin.sockets.push(socket);
        drop(origins);
        // The request that needed it may have been cancelled.
        self.give_way(&authority);
        Connection {
            budget: self,
            authority,
            closing,
            _held: held,
        }
    }

    /// Closes an idle connection in a pool, if more tasks wait for one than are being closed.
    fn close_idle_in(&self, pool: &Arc<Pool>) {
        let origins = self.lock();
        let sockets = || {
            let all = origins.values().flat_map(|origin| &origin.sockets);
            all.filter(|socket| socket.is_in(pool))
        };
        let closing = sockets()
            .filter(|socket| socket.closing.has_begun())
            .count();
        if pool.waiting() > closing {
            close_longest_idle(&origins, |socket| socket.is_in(pool));
        }
    }

    /// Closes an idle connection, for a process that has no open files left: of the hosts that the policy does not name if
    /// there is one.
    pub(super) fn close_idle(&self) {
        let origins = self.lock();
        if !close_longest_idle(&origins, |socket| socket.is_in(&self.0.others)) {
            close_longest_idle(&origins, |_| true);
        }
    }

    /// Closes connections of an origin that tasks wait for, once it is idle.
    fn give_way(&self, authority: &Authority) {
        let wanted: Vec<_> = {
            let origins = self.lock();
            let sockets = origins
                .get(authority)
                .filter(|origin| origin.requests == 0)
                .map(|origin| &*origin.sockets)
                .unwrap_or_default();
            let idle = sockets.iter().filter(|socket| !socket.is_used);
            let pools = idle.flat_map(|socket| &socket.pools);
            pools.filter(|pool| pool.waiting() > 0).cloned().collect()
        };
        for pool in wanted {
            self.close_idle_in(&pool);
        }
    }

    /// Changes an origin, and forgets it if it has neither requests nor connections.
    fn change(&self, authority: &Authority, change: impl FnOnce(&mut Origin)) {
        let mut origins = self.lock();
        if let Some(origin) = origins.get_mut(authority) {
            change(origin);
            if origin.requests == 0 && origin.sockets.is_empty() {
                origins.remove(authority);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Authority, Origin>> {
        self.0
            .origins
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn close_longest_idle(
    origins: &HashMap<Authority, Origin>,
    is_eligible: impl Fn(&Socket) -> bool,
) -> bool {
    let idle = origins.values().filter(|origin| origin.requests == 0);
    let sockets = idle.flat_map(|origin| {
        let sockets = origin.sockets.iter();
        sockets.map(|socket| (origin.idle_since.max(socket.idle_since), socket))
    });
    let longest = sockets
        .filter(|(_, socket)| !socket.is_used && !socket.closing.has_begun() && is_eligible(socket))
        .min_by_key(|(since, _)| *since);
    longest
        .inspect(|(_, socket)| socket.closing.begin())
        .is_some()
}

impl Origin {
    fn new() -> Self {
        Self {
            requests: 0,
            idle_since: Instant::now(),
            sockets: Vec::new(),
        }
    }
}

impl Socket {
    fn is_in(&self, pool: &Arc<Pool>) -> bool {
        self.pools.iter().any(|other| Arc::ptr_eq(other, pool))
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Request {
    budget: ConnectionBudget,
    authority: Authority,
}

impl Drop for Request {
    fn drop(&mut self) {
        self.budget.change(&self.authority, |origin| {
            origin.requests = origin.requests.saturating_sub(1);
            origin.idle_since = Instant::now();
        });
        self.budget.give_way(&self.authority);
    }
}

/// An open connection. It counts until this is dropped, which must be after its socket.
#[derive(Debug)]
pub(super) struct Connection {
    budget: ConnectionBudget,
    authority: Authority,
    closing: Arc<Closing>,
    /// Returned after the connection has left the table.
    _held: Vec<Held>,
}

impl Connection {
    /// For the pool that uses the connection.
    pub(super) fn usage(&self) -> Usage {
        Usage {
            budget: self.budget.clone(),
            authority: self.authority.clone(),
            closing: Arc::clone(&self.closing),
        }
    }

    /// Returns whether the connection has to be closed; if not, the task is woken when it has to be.
    pub(super) fn poll_closing(&self, cx: &Context<'_>) -> bool {
        self.closing.poll(cx)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.has_begun()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.budget.change(&self.authority, |origin| {
            let is_other = |socket: &Socket| !Arc::ptr_eq(&socket.closing, &self.closing);
            origin.sockets.retain(is_other);
        });
        self.budget.0.closed.notify_waiters();
    }
}

/// Whether an HTTP/2 connection has streams.
#[derive(Debug)]
pub(super) struct Usage {
    budget: ConnectionBudget,
    authority: Authority,
    closing: Arc<Closing>,
}

impl Usage {
    /// The connection gets a stream. Returns `false` if it has to be closed.
    #[must_use]
    pub(super) fn begin(&self) -> bool {
        let mut begins = false;
        self.change(|socket| {
            begins = !socket.closing.has_begun();
            socket.is_used = begins;
        });
        begins
    }

    /// The connection has no streams any more.
    pub(super) fn end(&self) {
        self.change(|socket| {
            socket.is_used = false;
            socket.idle_since = Instant::now();
        });
        self.budget.give_way(&self.authority);
    }

    fn change(&self, change: impl FnOnce(&mut Socket)) {
        self.budget.change(&self.authority, |origin| {
            let mut sockets = origin.sockets.iter_mut();
            let socket = sockets.find(|socket| Arc::ptr_eq(&socket.closing, &self.closing));
            socket.map(change);
        });
    }
}

#[cfg(test)]
#[path = "connection_budget_tests.rs"]
mod tests;
