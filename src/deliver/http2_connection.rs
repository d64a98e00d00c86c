//! One HTTP/2 connection: opened, driven, pinged, closed.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong};
use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use hyper_util::client::legacy::connect::Connection as _;
use hyper_util::rt::TokioIo;
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::connection_budget::Usage;
use super::connector::Stream;
use super::dialled::{DialError, Protocol};
use super::http2_permit::Fate;
use super::http2_pool::{Inner, NoStream, Origin};
use super::http2_pooled::{ConnectionId, Look, Use};
use crate::error::BoxError;

/// The time before a ping of a connection while requests are under way on it and there is no response. An idle connection is
/// not pinged: servers end connections with pings and no streams by GOAWAY (`too_many_pings`), and those with many pings and no
/// responses as well, so this doubles with each ping until there is one.
const PING_AFTER: Duration = Duration::from_secs(4);
const PING_AFTER_MOST: Duration = Duration::from_secs(20);
/// The longest time for the response to a ping. With the time before the ping it is shorter than the limit of a request, so
/// that the requests on a dead connection fail with it, as one failure.
const PONG: Duration = Duration::from_secs(4);
/// The longest time for the end of a connection that is closed.
const CLOSE: Duration = Duration::from_secs(10);
/// The time after which a connection without requests is closed.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

type Connection = h2::client::Connection<TokioIo<Stream>, Bytes>;

/// Why this side ended a connection with requests under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A ping had no response.
    Silent,
    /// The task that drives the connection was stopped.
    Stopped,
}

/// The task that opens a connection and drives it. Only one task of an origin is opening.
pub(super) struct Opening {
    pool: Arc<Inner>,
    authority: Authority,
    is_over: bool,
}

impl Opening {
    pub(super) const fn new(pool: Arc<Inner>, authority: Authority) -> Self {
        Self {
            pool,
            authority,
            is_over: false,
        }
    }

    pub(super) async fn run(mut self) {
        let shared = self.pool.shared();
        let (dialled, authority) = (&shared.dialled, &self.authority);
        // If a connection has just ended, its requests come first: one may have a response.
        yield_now().await;
        if let Some(at) = dialled.not_before(authority) {
            sleep_until(at).await;
        }
        let is_spare = self.pool.change(authority, |origin| {
            let is_spare = !origin.has_none();
            origin.has_waiting().then_some(is_spare)
        });
        let Some(is_spare) = is_spare else {
            // Those that waited have given up, or there are streams again.
            return self.ends(None);
        };
        // Until it has a stream the connection is not idle.
        let request = shared.budget.request(authority.clone()).await;
        match self.open(is_spare).await {
            Ok(Some((sender, connection, usage))) => {
                dialled.speaks(authority, Protocol::Http2);
                let driving = Driving::new(&self.pool, authority);
                let (id, fate) = (driving.id, Arc::clone(&driving.fate));
                self.is_over = true;
                self.pool.change(&self.authority, |origin| {
                    origin.opened(Some((id, sender, usage, fate)));
                });
                drop((self, request));
                driving.run(connection).await;
            }
            Ok(None) => {
                dialled.speaks(authority, Protocol::Http1);
                self.ends(Some(NoStream::Http1));
            }
            // No request has seen this one fail, and the next first one is not to wait for it.
            Err(_) if is_spare => {
                self.pool.change(authority, Origin::put_off_further);
                self.ends(None);
            }
            Err(error) => {
                dialled.failed(authority);
                self.ends(Some(NoStream::Dial(DialError::new(error))));
            }
        }
    }

    /// `None` if the server chose HTTP/1.1.
    async fn open(
        &self,
        is_spare: bool,
    ) -> Result<Option<(SendRequest<Bytes>, Connection, Usage)>, BoxError> {
        let uri = Uri::builder()
            .scheme(Scheme::HTTPS)
            .authority(self.authority.clone())
            .path_and_query(PathAndQuery::from_static("/"))
            .build()?;
        let (stream, usage) = self.pool.connector.dial(uri, is_spare).await?;
        if !stream.connected().is_negotiated_h2() {
            return Ok(None);
        }
        let (sender, connection) = builder().handshake(TokioIo::new(stream)).await?;
        Ok(Some((sender, connection, usage)))
    }

    fn ends(mut self, reason: Option<NoStream>) {
        self.is_over = true;
        self.pool.change(&self.authority, |origin| {
            origin.opened(None);
            if let Some(reason) = reason {
                origin.fail(&reason);
            }
        });
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.is_over {
            self.pool.change(&self.authority, |origin| {
                origin.opened(None);
                origin.fail(&NoStream::stopped());
            });
        }
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        // Until the server's SETTINGS are here.
        .initial_max_send_streams(1)
        // Responses are short. Small windows and headers limit what a hostile server can make the client buffer.
        .initial_window_size(16 * 1024)
        .initial_connection_window_size(256 * 1024)
        .max_frame_size(16 * 1024)
        .max_header_list_size(16 * 1024)
        // Requests that time out reset their streams, all of a connection at once. A response to a stream that is not
        // remembered counts as an error of the server; after 1,024 of them h2 closes the connection.
        .max_concurrent_reset_streams(512)
        .reset_stream_duration(Duration::from_secs(60));
    builder
}

/// The task that drives a connection.
struct Driving {
    pool: Weak<Inner>,
    authority: Authority,
    id: ConnectionId,
    fate: Arc<Fate>,
    is_over: bool,
}

impl Driving {
    fn new(pool: &Arc<Inner>, authority: &Authority) -> Self {
        Self {
            pool: Arc::downgrade(pool),
            authority: authority.clone(),
            id: pool.new_id(),
            fate: Arc::default(),
            is_over: false,
        }
    }

    async fn run(self, connection: Connection) {
        let mut connection = connection;
        // Dropped before the connection, so that its requests learn why it ended.
        let mut this = self;
        let mut timers = Timers::new(connection.ping_pong());
        let mut timer = pin!(sleep(IDLE_TIMEOUT));
        poll_fn(|cx| {
            if Pin::new(&mut connection).poll(cx).is_ready() {
                return Poll::Ready(());
            }
            timers.poll(&this, timer.as_mut(), cx)
        })
        .await;
        this.is_over = true;
    }

    fn heard(&self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.change(&self.authority, |origin| origin.heard(self.id));
        }
    }

    fn look(&self, cx: &mut Context<'_>) -> Look {
        let Some(pool) = self.pool.upgrade() else {
            return Look::default();
        };
        pool.change(&self.authority, |origin| {
            let (asks_for_calm, now) = origin.look(self.id, cx);
            if asks_for_calm {
                pool.shared().dialled.failed(&self.authority);
            }
            now
        })
    }

    fn retire_idle(&self) -> bool {
        let pool = self.pool.upgrade();
        pool.is_none_or(|pool| pool.change(&self.authority, |origin| origin.retire_idle(self.id)))
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        if !self.is_over {
            self.fate.ends(End::Stopped);
        }
        if let Some(pool) = self.pool.upgrade() {
            pool.change(&self.authority, |origin| {
                if origin.remove(self.id) {
                    pool.shared().dialled.failed(&self.authority);
                }
            });
        }
    }
}

/// Pings, and the time without requests.
struct Timers {
    pings: Option<PingPong>,
    pinged_at: Option<Instant>,
    ponged_at: Instant,
    /// When the last ping was sent, and how many were since the last response.
    last_ping: Option<Instant>,
    silent: u32,
    closes_at: Option<Instant>,
}

impl Timers {
    fn new(pings: Option<PingPong>) -> Self {
        Self {
            pings,
            pinged_at: None,
            ponged_at: Instant::now(),
            last_ping: None,
            silent: 0,
            closes_at: None,
        }
    }

    /// The time of the next ping of a connection that had its last response, or the first stream after that, at this time.
    fn ping_at(&self, heard_at: Instant) -> Instant {
        let silent = match self.last_ping {
            Some(last) if heard_at <= last => self.silent,
            _ => 0,
        };
        let wait = PING_AFTER.saturating_mul(1 << silent.min(16));
        heard_at.max(self.ponged_at) + wait.min(PING_AFTER_MOST)
    }

    fn ping(&mut self, heard_at: Instant) {
        if let Some(pings) = &mut self.pings {
            let now = Instant::now();
            if self.last_ping.is_none_or(|last| last < heard_at) {
                self.silent = 0;
            }
            self.silent = self.silent.saturating_add(1);
            self.last_ping = Some(now);
            self.pinged_at = Some(now);
            // An error means that the connection is about to end.
            let _ = pings.send_ping(Ping::opaque());
        }
    }

    /// Ready when the connection has to be dropped.
    fn poll(
        &mut self,
        driving: &Driving,
        mut timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if self.pinged_at.is_some()
            && let Some(pings) = &mut self.pings
            && pings.poll_pong(cx).is_ready()
        {
            self.pinged_at = None;
            self.ponged_at = Instant::now();
            driving.heard();
        }
        let mut look = driving.look(cx);
        loop {
            let due = match (self.closes_at, self.pinged_at, look.now) {
                (Some(at), ..) => at + CLOSE,
                (None, Some(at), _) => at + PONG,
                (None, None, Use::IdleSince(at)) => at + IDLE_TIMEOUT,
                (None, None, Use::HeardAt(at)) => self.ping_at(at),
                (None, None, Use::Ended) => return Poll::Pending,
            };
            let again_at = look.again_at.filter(|at| *at < due);
            let due = again_at.unwrap_or(due);
            // One that fires too early is set again: cheaper than at each response.
            if timer.deadline() > due {
                timer.as_mut().reset(due);
            }
            ready!(timer.as_mut().poll(cx));
            if Instant::now() < due {
                timer.as_mut().reset(due);
                continue;
            }
            if again_at.is_some() {
                // To look at it opens another one beside it, if requests wait.
                look = driving.look(cx);
                continue;
            }
            if self.closes_at.is_some() {
                return Poll::Ready(());
            }
            if self.pinged_at.is_some() {
                driving.fate.ends(End::Silent);
                return Poll::Ready(());
            }
            match look.now {
                Use::IdleSince(_) => {
                    cx.waker().wake_by_ref();
                    if !driving.retire_idle() {
                        return Poll::Pending;
                    }
                    self.closes_at = Some(Instant::now());
                }
                Use::HeardAt(at) => self.ping(at),
                Use::Ended => return Poll::Pending,
            }
        }
    }
}
