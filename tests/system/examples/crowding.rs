//! The connection that is closed for a new one.

// Only the table is used here; its deadlines are tested with the servers.
#[allow(dead_code, reason = "the servers use the rest")]
#[path = "../../../examples/support/connections.rs"]
mod connections;

use std::net::IpAddr;
use std::time::Duration;

use connections::{Connections, Open};
use futures_util::FutureExt as _;
use tokio::time::advance;

/// A table and its open connections, oldest first.
struct Table {
    connections: Connections,
    entered: u64,
}

impl Table {
    fn new(limit: usize, direct: bool) -> Self {
        Self {
            connections: Connections::new(limit, direct),
            entered: 0,
        }
    }

    /// Adds a connection, a second after the last one.
    async fn enter(&mut self, address: &str) -> Option<Open> {
        advance(Duration::from_secs(1)).await;
        self.entered += 1;
        let address: IpAddr = address.parse().unwrap();
        let entering = self.connections.enter(self.entered, address);
        entering.now_or_never()
    }
}

fn is_evicted(open: &Open) -> bool {
    open.connection().evicted().now_or_never().is_some()
}

#[tokio::test(start_paused = true)]
async fn the_connection_that_is_idle_the_longest_is_closed() {
    let mut table = Table::new(3, true);
    let first = table.enter("192.0.2.1").await.unwrap();
    let second = table.enter("192.0.2.1").await.unwrap();
    let third = table.enter("192.0.2.1").await.unwrap();
    advance(Duration::from_secs(1)).await;
    drop(first.connection().request());
    assert!(table.enter("192.0.2.1").await.is_none(), "full");
    assert!(!is_evicted(&first) && is_evicted(&second) && !is_evicted(&third));
    drop(second);
    assert!(table.enter("192.0.2.1").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_address_with_many_connections_loses_one_before_others_do() {
    let mut table = Table::new(4, true);
    let lone = table.enter("192.0.2.1").await.unwrap();
    let mut many = Vec::new();
    for _ in 0..3 {
        many.push(table.enter("198.51.100.1").await.unwrap());
    }
    assert!(table.enter("192.0.2.7").await.is_none());
    assert!(!is_evicted(&lone));
    let evicted: Vec<_> = many.iter().map(is_evicted).collect();
    assert_eq!(evicted, [true, false, false]);
    // An IPv6 network counts as one address.
    let mut table = Table::new(3, true);
    let lone = table.enter("2001:db8:1::1").await.unwrap();
    let one = table.enter("2001:db8:2::1").await.unwrap();
    let _other = table.enter("2001:db8:2::2").await.unwrap();
    assert!(table.enter("2001:db8:3::1").await.is_none());
    assert!(!is_evicted(&lone) && is_evicted(&one));
}

#[tokio::test(start_paused = true)]
async fn a_request_in_flight_is_kept_except_for_the_address_with_most_connections() {
    for (direct, closed) in [(true, true), (false, false)] {
        let mut table = Table::new(3, direct);
        let lone = table.enter("192.0.2.1").await.unwrap();
        let one = table.enter("198.51.100.1").await.unwrap();
        let two = table.enter("198.51.100.1").await.unwrap();
        let requests = [&lone, &one, &two].map(|open| open.connection().request());
        assert!(table.enter("192.0.2.7").await.is_none());
        assert_eq!(
            [is_evicted(&lone), is_evicted(&one), is_evicted(&two)],
            [false, closed, false]
        );
        drop(requests);
    }
    // An idle connection is closed first, of any address.
    let mut table = Table::new(3, true);
    let idle = table.enter("192.0.2.1").await.unwrap();
    let one = table.enter("198.51.100.1").await.unwrap();
    let two = table.enter("198.51.100.1").await.unwrap();
    let _requests = [&one, &two].map(|open| open.connection().request());
    assert!(table.enter("192.0.2.7").await.is_none());
    assert!(is_evicted(&idle) && !is_evicted(&one));
}

#[tokio::test(start_paused = true)]
async fn an_unread_response_blocks_no_other_connection() {
    for direct in [true, false] {
        let mut table = Table::new(3, direct);
        let one = table.enter("192.0.2.1").await.unwrap();
        let two = table.enter("192.0.2.2").await.unwrap();
        let three = table.enter("192.0.2.3").await.unwrap();
        let mut requests = [&one, &two, &three].map(|open| open.connection().request());
        assert!(table.enter("192.0.2.7").await.is_none());
        assert!(![&one, &two, &three].into_iter().any(is_evicted));
        requests[2].answered();
        assert!(table.enter("192.0.2.7").await.is_none());
        assert!(!is_evicted(&one) && !is_evicted(&two) && is_evicted(&three));
        let connections = [&one, &three].map(|open| open.connection());
        let is_over = || connections.iter().map(|c| c.is_over()).collect::<Vec<_>>();
        assert_eq!(is_over(), [false, false], "a drain gives it five seconds");
        advance(Duration::from_secs(4)).await;
        assert_eq!(is_over(), [false, true]);
    }
}

#[tokio::test(start_paused = true)]
async fn if_no_connection_may_close_the_next_waits_for_a_request() {
    let connections = Connections::new(1, false);
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let open = connections.enter(1, address).await;
    let request = open.connection().request();
    let mut entering = Box::pin(connections.enter(2, address));
    assert!(entering.as_mut().now_or_never().is_none());
    assert!(!is_evicted(&open));
    drop(request);
    assert!(entering.as_mut().now_or_never().is_none());
    assert!(is_evicted(&open), "idle now");
    drop(open);
    assert!(entering.now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_first_head_has_ten_seconds_and_each_request_gives_a_minute() {
    let connections = Connections::new(1, true);
    let open = connections.enter(1, "192.0.2.1".parse().unwrap()).await;
    let connection = open.connection();
    let closes = || connection.quiet_too_long().now_or_never().is_some();
    advance(Duration::from_millis(9_999)).await;
    assert!(!closes());
    let request = connection.request();
    advance(Duration::from_millis(59_999)).await;
    assert!(!closes());
    drop(request);
    advance(Duration::from_millis(59_999)).await;
    assert!(!closes());
    advance(Duration::from_millis(1)).await;
    assert!(closes());

    drop(open);
    let open = connections.enter(2, "192.0.2.1".parse().unwrap()).await;
    let connection = open.connection();
    advance(Duration::from_secs(10)).await;
    assert!(connection.quiet_too_long().now_or_never().is_some());
}

/// An export takes a slow client minutes.
#[tokio::test(start_paused = true)]
async fn a_response_of_which_the_client_takes_more_is_not_idle() {
    let mut table = Table::new(1, true);
    let open = table.enter("192.0.2.1").await.unwrap();
    let connection = open.connection();
    let mut request = connection.request();
    request.answered();
    let is_idle = || connection.quiet_too_long().now_or_never().is_some();
    for _ in 0..5 {
        advance(Duration::from_secs(50)).await;
        assert!(!is_idle());
        request.progress();
    }
    advance(Duration::from_secs(61)).await;
    assert!(is_idle());
}
