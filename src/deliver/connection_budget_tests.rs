use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use futures_util::FutureExt as _;

use super::*;
use crate::deliver::error::find_source;

/// Of 64 connections 32 are for hosts that are not named, 4 for each domain and block.
const LIMIT: usize = 64;
const OTHERS: usize = 32;
const SHARE: usize = 4;

fn authority(number: usize) -> Authority {
    format!("h{number}.example.com").parse().unwrap()
}

fn domain(number: usize) -> Option<Box<str>> {
    Some(format!("d{number}.example").into())
}

/// An address in a block of its own.
fn addr(number: usize) -> IpAddr {
    let number = u8::try_from(number).unwrap();
    IpAddr::from([8, 8, number, 1])
}

/// Opens a connection to a host in a domain and a block of its own.
async fn open(budget: &ConnectionBudget, number: usize) -> Connection {
    let mut place = budget.place(domain(number)).await.unwrap();
    assert_eq!(place.at(vec![addr(number)]).await, [addr(number)]);
    place.open(authority(number), Some(addr(number)))
}

async fn open_all(budget: &ConnectionBudget) -> Vec<Connection> {
    let mut open_ones = Vec::new();
    for number in 0..OTHERS {
        open_ones.push(open(budget, number).await);
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    open_ones
}

fn closing(connections: &[Connection]) -> Vec<usize> {
    let numbered = connections.iter().enumerate();
    let closing = numbered.filter(|(_, connection)| connection.is_closing());
    closing.map(|(number, _)| number).collect()
}

fn is_local(error: &BoxError) -> bool {
    find_source::<LocalError>(error.as_ref()).is_some_and(|error| error.lack() == Lack::Connections)
}

#[tokio::test(start_paused = true)]
async fn the_longest_idle_connection_gives_way_and_only_one() {
    let budget = ConnectionBudget::new(LIMIT);
    let mut open_ones = open_all(&budget).await;
    // The first one was used since.
    drop(budget.request(authority(0)).await);
    let mut waiting = pin!(budget.place(domain(OTHERS)));
    assert!((&mut waiting).now_or_never().is_none());
    assert_eq!(closing(&open_ones), [1]);
    drop(open_ones.remove(1));
    assert!(waiting.now_or_never().is_some());
    assert!(closing(&open_ones).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_a_request_is_kept_until_the_request_ends() {
    let budget = ConnectionBudget::new(LIMIT);
    let open_ones = open_all(&budget).await;
    let mut requests = Vec::new();
    for number in 0..OTHERS {
        requests.push(budget.request(authority(number)).await);
    }
    let mut waiting = pin!(budget.place(domain(OTHERS)));
    assert!((&mut waiting).now_or_never().is_none());
    assert!(closing(&open_ones).is_empty());
    drop(requests.remove(7));
    drop(requests.remove(8));
    assert_eq!(closing(&open_ones), [7], "one waits, one gives way");
    drop(open_ones);
    assert!(waiting.now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn others_use_up_their_half_and_named_hosts_have_theirs() {
    let budget = ConnectionBudget::new(LIMIT);
    let open_ones = open_all(&budget).await;
    let mut requests = Vec::new();
    for number in 0..OTHERS {
        requests.push(budget.request(authority(number)).await);
    }
    let mut named = Vec::new();
    for _ in 0..LIMIT - OTHERS {
        named.push(budget.place(None).await.unwrap());
    }
    for refused in [domain(OTHERS), None] {
        let begun = Instant::now();
        let error = budget.place(refused).await.unwrap_err();
        assert!(is_local(&error), "{error:?}");
        assert_eq!(begun.elapsed(), ConnectionBudget::WAIT);
    }
    assert!(closing(&open_ones).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_domain_has_a_share_and_closes_its_own_idle_connections() {
    let budget = ConnectionBudget::new(LIMIT);
    let other = open(&budget, 100).await;
    let mut of_domain = Vec::new();
    for number in 0..SHARE {
        let place = budget.place(domain(0)).await.unwrap();
        of_domain.push(place.open(authority(number), None));
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    let request = budget.request(authority(0)).await;
    let mut waiting = Box::pin(budget.place(domain(0)));
    assert!((&mut waiting).now_or_never().is_none());
    assert_eq!(closing(&of_domain), [1]);
    assert!(!other.is_closing());
    assert!(budget.place(domain(1)).await.is_ok());
    // Dropped, it waits no more.
    drop(waiting);
    drop((request, of_domain));
    let mut all_busy = Vec::new();
    for _ in 0..SHARE {
        all_busy.push(budget.place(domain(0)).await.unwrap());
    }
    let error = budget.place(domain(0)).await.unwrap_err();
    assert!(error.is::<ShareInUse>() && !is_local(&error), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_block_of_addresses_has_a_share_whatever_the_domains() {
    let budget = ConnectionBudget::new(LIMIT);
    let mut of_block = Vec::new();
    for number in 0..SHARE {
        let mut place = budget.place(domain(number)).await.unwrap();
        // The connection is to the second one, so the first block is free again.
        let addrs = vec![addr(1), addr(2)];
        assert_eq!(place.at(addrs.clone()).await, addrs);
        of_block.push(place.open(authority(number), Some(addr(2))));
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    let mut place = budget.place(domain(SHARE)).await.unwrap();
    assert_eq!(place.at(vec![addr(2), addr(1)]).await, [addr(1)]);
    let mut place = budget.place(domain(SHARE)).await.unwrap();
    {
        let mut waiting = pin!(place.at(vec![addr(2)]));
        assert!((&mut waiting).now_or_never().is_none());
        assert_eq!(closing(&of_block), [0]);
        of_block.remove(0);
        assert_eq!(waiting.now_or_never(), Some(vec![addr(2)]));
    }
    let mut named = budget.place(None).await.unwrap();
    assert_eq!(named.at(vec![addr(2)]).await, [addr(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_while_a_connection_of_its_origin_is_being_closed() {
    let budget = ConnectionBudget::new(LIMIT);
    let connection = open(&budget, 0).await;
    budget.close_idle();
    assert!(connection.is_closing());
    let mut request = pin!(budget.request(authority(0)));
    assert!((&mut request).now_or_never().is_none());
    let other = budget.request(authority(1)).now_or_never();
    assert!(other.is_some(), "another origin's does not");
    drop(connection);
    assert!(request.now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn without_open_files_a_named_host_is_closed_last() {
    let budget = ConnectionBudget::new(LIMIT);
    let named = budget.place(None).await.unwrap();
    let named = named.open(authority(1), None);
    tokio::time::advance(Duration::from_secs(1)).await;
    let other = open(&budget, 0).await;
    budget.close_idle();
    assert!(other.is_closing() && !named.is_closing());
    budget.close_idle();
    assert!(named.is_closing());
}

#[tokio::test]
async fn nothing_is_remembered_of_an_origin_without_requests_and_connections() {
    let budget = ConnectionBudget::new(LIMIT);
    let connection = open(&budget, 0).await;
    let request = budget.request(authority(0)).await;
    drop(connection);
    assert_eq!(budget.lock().len(), 1);
    drop(request);
    assert_eq!(budget.lock().len(), 0);
}

#[tokio::test]
async fn the_task_that_drives_a_connection_is_woken_to_close_it() {
    #[derive(Default)]
    struct Woken(AtomicUsize);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let budget = ConnectionBudget::new(LIMIT);
    let connection = open(&budget, 0).await;
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    let cx = Context::from_waker(&waker);
    assert!(!connection.poll_closing(&cx));
    budget.close_idle();
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    assert!(connection.poll_closing(&cx));
}

#[test]
fn a_budget_has_at_least_one_connection_of_each_half() {
    for limit in [0, 1, 2, 3] {
        let budget = ConnectionBudget::new(limit);
        assert!(budget.0.named.try_take().is_some());
        assert!(budget.0.others.try_take().is_some());
        assert!(budget.0.domains.of("a".into()).try_take().is_some());
    }
    let derived = ConnectionBudget::derived_limit();
    assert!((16..=4096).contains(&derived), "{derived}");
}

#[tokio::test(start_paused = true)]
async fn a_spare_place_closes_no_connection() {
    let budget = ConnectionBudget::new(LIMIT);
    let place = budget.spare_place(domain(OTHERS)).unwrap();
    drop(place);
    let open_ones = open_all(&budget).await;
    assert!(budget.spare_place(domain(OTHERS)).is_none());
    assert!(closing(&open_ones).is_empty(), "they are idle");
    // Nor does it wait for a block of addresses.
    drop(open_ones);
    let mut held = Vec::new();
    for number in 0..SHARE {
        let mut place = budget.place(domain(number)).await.unwrap();
        assert_eq!(place.at(vec![addr(1)]).await, [addr(1)]);
        held.push(place);
    }
    let mut place = budget.spare_place(domain(SHARE)).unwrap();
    assert_eq!(place.at(vec![addr(1)]).now_or_never(), Some(vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_a_stream_is_kept_and_its_idle_neighbour_is_not() {
    let budget = ConnectionBudget::new(LIMIT);
    let mut open_ones = Vec::new();
    for number in 0..2 {
        let mut place = budget.place(domain(number)).await.unwrap();
        place.at(vec![addr(number)]).await;
        // Of the same origin.
        open_ones.push(place.open(authority(0), Some(addr(number))));
    }
    let usage = open_ones[0].usage();
    assert!(usage.begin());
    budget.close_idle();
    budget.close_idle();
    assert_eq!(closing(&open_ones), [1]);
    assert!(!open_ones[1].usage().begin(), "it gets no stream any more");
    usage.end();
    budget.close_idle();
    assert_eq!(closing(&open_ones), [0, 1]);
}
