//! What the pool keeps of an origin and its connections. Which waits for a stream are a delay of the request, and which are due
//! to the load on the server.

use futures_util::FutureExt as _;
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::advance;

use super::super::EndpointPolicy;
use super::super::connection_budget::{Connection, ConnectionBudget};
use super::super::dialled::Dialled;
use super::super::guarded_resolver::GuardedResolver;
use super::super::resolver::SystemResolver;
use super::*;
use crate::tls;

const SECOND: Duration = Duration::from_secs(1);

/// Gives an origin a connection to the returned stream. No other one is opened for it from here on.
pub(in super::super) async fn connect(
    pool: &Http2Pool,
    authority: &Authority,
) -> (DuplexStream, Connection) {
    let (client, server) = duplex(64 * 1024);
    let mut builder = h2::client::Builder::new();
    builder.initial_max_send_streams(1);
    let (sender, connection) = builder.handshake(client).await.unwrap();
    tokio::spawn(connection);
    let budget = pool.0.shared().budget.clone();
    let entered = budget.enter(authority.clone(), Vec::new());
    let opened = (pool.0.new_id(), sender, entered.usage(), Arc::default());
    pool.0.change(authority, |origin| {
        origin.opened(Some(opened));
        origin.is_opening = true;
    });
    (server, entered)
}

/// An origin whose connections are made by the test.
struct Tested {
    pool: Http2Pool,
    authority: Authority,
    /// The server's side of a connection, and its place in the budget.
    server: Option<(DuplexStream, Connection)>,
}

impl Tested {
    fn new() -> Self {
        let policy = EndpointPolicy::default();
        let shared = Shared {
            resolver: GuardedResolver::new(Arc::new(SystemResolver), policy.clone()),
            policy,
            timeout: SECOND,
            dialled: Dialled::new(),
            budget: ConnectionBudget::new(16),
        };
        let tls = tls::client_config(&[]).unwrap();
        let pool = Http2Pool::new(Connector::http2(tls, Arc::new(shared)));
        let authority = Authority::from_static("push.example.com");
        pool.0.change(&authority, |origin| origin.is_opening = true);
        Self {
            pool,
            authority,
            server: None,
        }
    }

    /// A request that waits for a stream from now on.
    async fn wait(&self) -> JoinHandle<StreamPermit> {
        let (pool, authority) = (self.pool.clone(), self.authority.clone());
        let waiting = tokio::spawn(async move { pool.stream(&authority, None).await.unwrap() });
        yield_now().await;
        waiting
    }

    /// A connection is open, with one stream.
    async fn connect(&mut self) {
        self.server = Some(connect(&self.pool, &self.authority).await);
    }

    /// The server's SETTINGS allow this number of streams.
    async fn allow(&mut self, streams: u8) {
        let frame = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, streams];
        let (server, _) = self.server.as_mut().unwrap();
        server.write_all(&frame).await.unwrap();
        // The connection reads them.
        for _ in 0..10 {
            yield_now().await;
        }
        self.change(|origin, id| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let _ = origin.look(id, &mut cx);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Origin, ConnectionId)) {
        self.pool.0.change(&self.authority, |origin| {
            let id = origin.connections[0].id;
            change(origin, id);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_connection_and_for_more_streams_is_a_delay() {
    let mut origin = Tested::new();
    let first = origin.wait().await;
    advance(SECOND).await;
    origin.connect().await;
    let first = first.await.unwrap();
    assert_eq!(first.delay(), SECOND, "there was no connection");

    let second = origin.wait().await;
    advance(2 * SECOND).await;
    origin.allow(2).await;
    let second = second.await.unwrap();
    assert_eq!(second.delay(), 2 * SECOND, "there was one stream");

    let third = origin.wait().await;
    advance(3 * SECOND).await;
    drop(first);
    let third = third.await.unwrap();
    assert_eq!(third.delay(), Duration::ZERO, "the server was busy");

    origin.allow(1).await;
    drop(second);
    let fourth = origin.wait().await;
    advance(4 * SECOND).await;
    origin.allow(2).await;
    let fourth = fourth.await.unwrap();
    assert_eq!(fourth.delay(), 4 * SECOND, "there was one stream again");
    // Nothing has changed.
    let fifth = origin.wait().await;
    advance(5 * SECOND).await;
    origin.allow(2).await;
    drop(third);
    assert_eq!(fifth.await.unwrap().delay(), Duration::ZERO);
}

/// A connection that was idle for long carries one request until it has responded.
#[tokio::test(start_paused = true)]
async fn the_wait_for_the_end_of_a_trial_is_a_delay() {
    for is_answered in [false, true] {
        let mut origin = Tested::new();
        origin.connect().await;
        origin.allow(2).await;
        advance(20 * SECOND).await;
        let mut first = origin.wait().await.await.unwrap();
        assert_eq!(first.delay(), Duration::ZERO);
        let mut second = origin.wait().await;
        assert!((&mut second).now_or_never().is_none(), "on trial");
        advance(SECOND).await;
        if is_answered {
            first.answered();
            drop(first);
        } else {
            // It has responded to a ping.
            origin.change(Origin::heard);
        }
        assert_eq!(second.await.unwrap().delay(), SECOND, "{is_answered}");
    }
}

/// Endpoints name any number of hosts.
#[tokio::test]
async fn an_origin_without_connections_and_requests_is_forgotten() {
    let origin = Tested::new();
    assert!(origin.pool.0.lock().contains_key(&origin.authority));
    origin
        .pool
        .0
        .change(&origin.authority, |origin| origin.opened(None));
    assert!(origin.pool.0.lock().is_empty());
}

/// The pause after a further connection that could not be opened is for further ones.
#[tokio::test(start_paused = true)]
async fn an_origin_whose_connections_take_no_more_streams_gets_another_one_at_once() {
    let mut origin = Tested::new();
    origin.connect().await;
    let mut used = origin.wait().await.await.unwrap();
    used.answered();
    let (sender, _permit) = oneshot::channel();
    let waiting = Waiting {
        sender,
        since: Instant::now(),
        avoided: None,
        runtime: Handle::current(),
    };
    origin.change(|origin, id| {
        origin.is_opening = false;
        origin.put_off_further();
        origin.waiting.push_back(waiting);
        assert!(origin.opens_on().is_none(), "it has one");
        origin.find(id).unwrap().retire();
        assert!(origin.opens_on().is_some());
        origin.is_opening = true;
    });
}

#[tokio::test]
async fn of_a_connections_responses_the_first_one_alone_ends_the_pause_before_the_next_connection()
{
    let mut origin = Tested::new();
    origin.connect().await;
    let mut permit = origin.wait().await.await.unwrap();
    let dialled = origin.pool.0.shared().dialled.clone();
    dialled.failed(&origin.authority);
    permit.answered();
    assert_eq!(dialled.not_before(&origin.authority), None);
    // Another connection, whose failures say more than what an old one still does.
    dialled.failed(&origin.authority);
    permit.answered();
    assert!(dialled.not_before(&origin.authority).is_some());
}

/// The pool, which is locked when it finds that no one takes a stream, returns it itself.
#[tokio::test]
async fn a_permit_that_is_forgotten_does_not_return_its_stream() {
    let mut origin = Tested::new();
    origin.connect().await;
    origin.wait().await.await.unwrap().forget();
    origin.change(|origin, id| assert_eq!(origin.find(id).unwrap().streams, 1));
}

/// The budget needs its place. A request on it would fail when it ends.
#[tokio::test]
async fn a_connection_that_is_being_closed_gets_no_request() {
    let mut origin = Tested::new();
    origin.connect().await;
    origin.allow(2).await;
    origin.pool.0.shared().budget.close_idle();
    let mut waiting = origin.wait().await;
    assert!((&mut waiting).now_or_never().is_none());
    origin.change(|origin, _| assert!(origin.has_none()));
}
