//! How many streams and connections the client uses, and what becomes of the requests when a connection ends.

use std::collections::HashMap;
use std::error::Error as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use http::StatusCode;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::ServiceExt as _;
use tower_web_push::clock::{Clock, Timestamp};
use tower_web_push::deliver::{
    Deliver, EndpointPolicy, HttpError, Outcome, ResolveError, ResolveErrorKind, Resolver,
};
use tower_web_push::store::PauseReason;
use tower_web_push::subscription::Origin;
use tower_web_push::vapid::Contact;

use super::pings::pass;
use super::raw::{Event, Peer, Server, settle};
use super::world::push;

const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

type Requests = JoinSet<Result<StatusCode, HttpError>>;

/// Sends messages with these numbers at once.
fn post(requests: &mut Requests, server: &Server, numbers: std::ops::Range<usize>) {
    for number in numbers {
        requests.spawn(server.post(number));
    }
}

/// The bodies of requests, sorted.
fn numbers(requests: &[(u32, String)]) -> Vec<usize> {
    let mut numbers: Vec<_> = requests
        .iter()
        .map(|(_, body)| body.parse().unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// A connection that has answered one request.
async fn used(server: &mut Server, streams: Option<u32>) -> Peer {
    let first = tokio::spawn(server.post("first"));
    let mut peer = server.accept(streams).await;
    let (stream, _) = peer.request().await;
    peer.answer(stream).await;
    assert_eq!(first.await.unwrap().unwrap(), StatusCode::OK);
    peer
}

/// As APNs, which allows one stream until a token was accepted.
#[tokio::test]
async fn a_new_connection_has_one_stream_until_the_server_allows_more() {
    let mut server = Server::start().await;
    let mut requests = Requests::new();
    post(&mut requests, &server, 0..20);
    let mut peer = server.accept(Some(1)).await;
    let _ = peer.request().await;
    settle().await;
    assert_eq!((peer.most(), server.opened()), ((1, 1), 1));
    peer.settings(Some(10)).await;
    let _ = peer.requests(9).await;
    let mut second = server.accept(Some(1)).await;
    let _ = second.request().await;
    settle().await;
    assert_eq!((peer.most(), second.most()), ((10, 10), (1, 1)));
    second.settings(Some(10)).await;
    let _ = second.requests(9).await;
    settle().await;
    assert_eq!((peer.most(), second.most()), ((10, 10), (10, 10)));
    assert_eq!(server.opened(), 2);
}

#[tokio::test]
async fn without_a_limit_of_the_server_a_connection_has_256_streams() {
    let mut server = Server::start().await;
    let mut requests = Requests::new();
    post(&mut requests, &server, 0..300);
    let mut peer = server.accept(None).await;
    peer.requests(256).await;
    let mut second = server.accept(None).await;
    assert_eq!(
        numbers(&second.requests(44).await),
        (256..300).collect::<Vec<_>>()
    );
    settle().await;
    assert_eq!((peer.most(), second.most()), ((256, 256), (44, 44)));
    assert_eq!(server.opened(), 2);
}

#[tokio::test]
async fn a_hundred_requests_share_a_connection_and_one_more_opens_another() {
    let mut server = Server::start().await;
    let mut requests = Requests::new();
    post(&mut requests, &server, 0..100);
    let mut peer = server.accept(Some(100)).await;
    peer.requests(100).await;
    settle().await;
    assert_eq!(server.opened(), 1);
    post(&mut requests, &server, 100..101);
    let mut second = server.accept(Some(100)).await;
    assert_eq!(second.request().await.1, "100");
    // The fullest with a free stream is next.
    peer.answer(1).await;
    settle().await;
    post(&mut requests, &server, 101..102);
    assert_eq!(peer.request().await.1, "101");
    assert_eq!(server.opened(), 2);
}

/// So that the one that is not needed any more becomes idle, whichever was opened first.
#[tokio::test]
async fn the_fullest_connection_is_next_though_it_is_the_younger_one() {
    let mut server = Server::start().await;
    let mut peer = used(&mut server, Some(2)).await;
    let mut requests = Requests::new();
    post(&mut requests, &server, 0..3);
    let first = peer.requests(2).await;
    let mut second = server.accept(Some(2)).await;
    let _ = second.request().await;
    for (stream, _) in first {
        peer.answer(stream).await;
    }
    settle().await;
    post(&mut requests, &server, 3..4);
    assert_eq!(second.request().await.1, "3");
    settle().await;
    assert_eq!((peer.rest(), server.opened()), (Vec::new(), 2));
}

/// Their messages may have expired meanwhile.
#[tokio::test]
async fn no_connection_is_opened_for_requests_that_were_given_up() {
    let resolver = Arc::new(FoundOnce::default());
    let lookups = Arc::clone(&resolver);
    let server = Server::start_with(|client| client.resolver(resolver)).await;
    for number in 0..3 {
        let mut request = Box::pin(server.post(number));
        assert!((&mut request).now_or_never().is_none());
    }
    settle().await;
    assert_eq!((lookups.0.load(SeqCst), server.opened()), (0, 0));
}

#[tokio::test]
async fn six_connections_are_enough_and_the_rest_waits_in_order() {
    let mut server = Server::start().await;
    let mut requests = Requests::new();
    let mut peers = vec![used(&mut server, Some(1)).await];
    for number in 0..12 {
        post(&mut requests, &server, number..number + 1);
        settle().await;
    }
    peers[0].request().await;
    for number in 1..6 {
        let mut peer = server.accept(Some(1)).await;
        let (stream, body) = peer.request().await;
        assert_eq!((stream, body), (1, (number * 2 - 1).to_string()));
        settle().await;
        assert_eq!(server.opened(), number + 1);
        if number < 5 {
            // One with a single stream is known to be full after its first response.
            peer.answer(1).await;
            assert_eq!(peer.request().await, (3, (number * 2).to_string()));
        }
        peers.push(peer);
    }
    settle().await;
    assert_eq!(server.opened(), 6);
    peers[0].answer(3).await;
    assert_eq!(peers[0].request().await, (5, "10".into()));
    peers[5].answer(1).await;
    assert_eq!(peers[5].request().await, (3, "11".into()));
    for peer in &peers {
        assert_eq!(peer.most().0, 1);
    }
}

/// A request that waited inside h2 would be sent all the same when it is dropped, and reset.
#[tokio::test]
async fn a_lower_limit_holds_at_once_and_requests_that_wait_never_reach_the_wire() {
    let mut server = Server::start().await;
    let mut peers = Vec::new();
    let mut requests = Requests::new();
    peers.push(used(&mut server, Some(10)).await);
    post(&mut requests, &server, 0..60);
    while peers.len() < 6 {
        peers.push(server.accept(Some(10)).await);
    }
    let mut open = Vec::new();
    for peer in &mut peers {
        open.push(peer.requests(10).await);
        peer.settings(Some(3)).await;
    }
    settle().await;
    let mut waiting = Requests::new();
    post(&mut waiting, &server, 60..80);
    settle().await;
    for (peer, open) in peers.iter_mut().zip(&mut open) {
        let _ = peer.most();
        for (stream, _) in open.drain(..7) {
            peer.answer(stream).await;
        }
        settle().await;
        assert_eq!(peer.rest(), [], "3 are left");
    }
    let (stream, _) = open[2].pop().unwrap();
    peers[2].answer(stream).await;
    assert_eq!(peers[2].request().await.1, "60");
    peers[2].settings(Some(0)).await;
    settle().await;
    for (stream, _) in open[2].drain(..) {
        peers[2].answer(stream).await;
    }
    settle().await;
    assert_eq!(peers[2].rest(), []);
    // Nothing of those that wait is ever sent.
    waiting.abort_all();
    while waiting.join_next().await.is_some() {}
    settle().await;
    for (peer, open) in peers.iter_mut().zip(&mut open) {
        for (stream, _) in open.drain(..) {
            peer.answer(stream).await;
        }
    }
    peers[2].settings(Some(10)).await;
    settle().await;
    let resets: Vec<_> = peers.iter_mut().flat_map(Peer::rest).collect();
    // 60 was sent, and dropped.
    assert!(
        matches!(resets[..], [Event::Reset(_, CANCEL)]),
        "{resets:?}"
    );
    assert_eq!(server.opened(), 6);
}

#[tokio::test]
async fn a_request_that_is_dropped_resets_its_stream_and_returns_it() {
    let mut server = Server::start().await;
    let mut peer = used(&mut server, Some(2)).await;
    let mut requests = Requests::new();
    let dropped = requests.spawn(server.post(0));
    let _ = peer.request().await;
    let _kept = requests.spawn(server.post(1));
    let _ = peer.request().await;
    dropped.abort();
    assert_eq!(peer.next().await, Event::Reset(3, CANCEL));
    post(&mut requests, &server, 2..3);
    assert_eq!(peer.request().await, (7, "2".into()));
    assert_eq!((peer.most().0, server.opened()), (2, 1));
}

/// Every message is processed once, over as many connections as it takes.
#[tokio::test]
async fn a_server_that_ends_each_connection_after_some_requests_gets_each_message_once() {
    const MESSAGES: usize = 200;
    const EACH: usize = 20;
    for reason in [0, 2, 11] {
        let mut server = Server::start().await;
        let mut requests = Requests::new();
        post(&mut requests, &server, 0..MESSAGES);
        let mut processed = HashMap::<String, usize>::new();
        let (mut connections, mut peers) = (0, Vec::new());
        while processed.len() < MESSAGES {
            let mut peer = server.accept(Some(100)).await;
            connections += 1;
            let taken = peer.requests(EACH.min(MESSAGES - processed.len())).await;
            // Those that were sent later are above the last stream.
            let last = taken.iter().map(|(stream, _)| *stream).max().unwrap();
            peer.go_away(last, reason).await;
            for (stream, body) in taken {
                *processed.entry(body).or_default() += 1;
                peer.answer(stream).await;
            }
            peers.push(peer);
        }
        let results = requests.join_all().await;
        assert!(results.iter().all(Result::is_ok), "{reason}: {results:?}");
        assert!(processed.values().all(|times| *times == 1), "{processed:?}");
        // Each one costs the next one, and nothing else.
        assert_eq!(connections, MESSAGES / EACH, "{reason}");
        settle().await;
        let others: Vec<_> = peers.iter_mut().flat_map(Peer::rest).collect();
        let errors = others
            .iter()
            .filter(|event| matches!(event, Event::GoAway(code) if *code != 0));
        assert_eq!(errors.count(), 0, "{others:?}");
    }
}

/// RFC 9113 section 6.8: first a warning, then the last stream.
#[tokio::test]
async fn a_connection_that_is_ended_in_two_steps_gets_no_new_streams() {
    const ALL: u32 = u32::MAX >> 1;
    let mut server = Server::start().await;
    let mut peer = used(&mut server, Some(100)).await;
    let mut requests = Requests::new();
    post(&mut requests, &server, 0..3);
    let open = peer.requests(3).await;
    peer.go_away(ALL, 0).await;
    settle().await;
    post(&mut requests, &server, 3..4);
    let mut second = server.accept(Some(100)).await;
    assert_eq!(second.request().await.1, "3");
    // Of the three the last one is not processed.
    peer.go_away(open[1].0, 0).await;
    assert_eq!(second.request().await.1, open[2].1);
    for (stream, _) in &open[..2] {
        peer.answer(*stream).await;
    }
    for stream in [1, 3] {
        second.answer(stream).await;
    }
    let results = requests.join_all().await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(peer.next().await, Event::GoAway(0));
    assert_eq!(peer.next().await, Event::Closed);
    assert_eq!(server.opened(), 2);
}

/// RFC 9113 section 7. Only of REFUSED_STREAM it is certain that nothing was processed (section 8.7).
#[tokio::test]
async fn of_all_reasons_for_a_reset_only_refused_stream_is_followed_by_a_repeat() {
    let mut server = Server::start().await;
    let mut peer = used(&mut server, Some(100)).await;
    for reason in 0..=13 {
        let sent = tokio::spawn(server.post(reason));
        let (stream, body) = peer.request().await;
        assert_eq!(body, reason.to_string());
        peer.reset(stream, reason).await;
        if reason == REFUSED_STREAM {
            let (stream, body) = peer.request().await;
            assert_eq!(body, reason.to_string());
            peer.answer(stream).await;
            assert_eq!(sent.await.unwrap().unwrap(), StatusCode::OK);
        } else {
            assert!(sent.await.unwrap().is_err(), "{reason}");
            settle().await;
            assert_eq!(peer.rest(), [], "{reason}");
        }
        // A response now and then keeps the connection.
        let sent = tokio::spawn(server.post("answered"));
        let (stream, _) = peer.request().await;
        peer.answer(stream).await;
        assert!(sent.await.unwrap().is_ok());
    }
    assert_eq!(server.opened(), 1);
}

#[tokio::test]
async fn a_refused_request_goes_to_another_connection_that_has_room() {
    let mut server = Server::start().await;
    let mut peer = used(&mut server, Some(2)).await;
    let mut requests = Requests::new();
    post(&mut requests, &server, 0..3);
    let open = peer.requests(2).await;
    let mut second = server.accept(Some(2)).await;
    let _ = second.request().await;
    peer.reset(open[1].0, REFUSED_STREAM).await;
    assert_eq!(second.request().await.1, open[1].1);
    settle().await;
    assert_eq!(peer.rest(), []);
}

#[tokio::test]
async fn requests_on_a_connection_that_breaks_fail_and_those_that_wait_go_on() {
    let mut server = Server::start().await;
    let mut peer = used(&mut server, Some(2)).await;
    let mut sent = Requests::new();
    post(&mut sent, &server, 0..2);
    let _ = peer.requests(2).await;
    let mut waiting = Requests::new();
    post(&mut waiting, &server, 2..5);
    peer.close().await;
    for result in sent.join_all().await {
        assert!(result.is_err(), "it may have been processed");
    }
    let mut second = server.accept(Some(100)).await;
    let taken = second.requests(3).await;
    assert_eq!(numbers(&taken), [2, 3, 4]);
    for (stream, _) in taken {
        second.answer(stream).await;
    }
    assert!(waiting.join_all().await.iter().all(Result::is_ok));
}

/// A response to a stream that the client has forgotten counts as an error of the server, and many of them end the connection.
#[tokio::test]
async fn late_responses_to_two_thousand_requests_are_no_error() {
    let mut server = Server::start().await;
    let mut late: Vec<(Peer, Vec<u32>)> = Vec::new();
    for round in 0..10 {
        let mut requests = Requests::new();
        post(&mut requests, &server, round * 202..(round + 1) * 202);
        let mut taken = 0;
        while taken < 200 {
            let mut peer = server.accept(Some(100)).await;
            let mut streams = peer.requests(100).await;
            // It is a server that works.
            peer.answer(streams.remove(0).0).await;
            streams.push(peer.request().await);
            taken += streams.len();
            late.push((
                peer,
                streams.into_iter().map(|(stream, _)| stream).collect(),
            ));
        }
        // The time is up.
        requests.abort_all();
        while requests.join_next().await.is_some() {}
        for (peer, streams) in &mut late {
            for stream in streams.drain(..) {
                peer.answer(stream).await;
            }
        }
    }
    settle().await;
    let events: Vec<_> = late.iter_mut().flat_map(|(peer, _)| peer.rest()).collect();
    let resets = events
        .iter()
        .filter(|event| matches!(event, Event::Reset(_, CANCEL)));
    assert_eq!(resets.count(), 2000);
    let errors = events
        .iter()
        .filter(|event| matches!(event, Event::GoAway(code) if *code != 0));
    assert_eq!(errors.count(), 0);
    assert!(server.post_is_answered().await);
}

#[tokio::test]
async fn a_connection_whose_requests_all_time_out_is_replaced() {
    let mut server = Server::start().await;
    let mut peer = used(&mut server, Some(100)).await;
    for number in 0..8 {
        let request = tokio::spawn(server.post(number));
        let (stream, _) = peer.request().await;
        request.abort();
        assert_eq!(peer.next().await, Event::Reset(stream, CANCEL));
    }
    assert_eq!(peer.next().await, Event::GoAway(0));
    assert!(server.post_is_answered().await);
    assert_eq!(server.opened(), 2);
}

/// Only many in a row are a sign of a dead connection.
#[tokio::test]
async fn a_connection_that_answers_between_requests_that_time_out_is_kept() {
    let mut server = Server::start().await;
    let mut peer = used(&mut server, Some(100)).await;
    for number in 0..14 {
        if number == 7 {
            let answered = tokio::spawn(server.post("answered"));
            let (stream, _) = peer.request().await;
            peer.answer(stream).await;
            assert_eq!(answered.await.unwrap().unwrap(), StatusCode::OK);
        }
        let request = tokio::spawn(server.post(number));
        let (stream, _) = peer.request().await;
        request.abort();
        assert_eq!(peer.next().await, Event::Reset(stream, CANCEL));
    }
    settle().await;
    assert_eq!((peer.rest(), server.opened()), (Vec::new(), 1));
}

#[tokio::test]
async fn a_connection_that_is_not_needed_any_more_is_closed_after_ninety_seconds() {
    let mut server = Server::start().await;
    let mut peer = used(&mut server, Some(2)).await;
    let mut requests = Requests::new();
    post(&mut requests, &server, 0..3);
    let open = peer.requests(2).await;
    let mut second = server.accept(Some(2)).await;
    let (stream, _) = second.request().await;
    second.answer(stream).await;
    for (stream, _) in open {
        peer.answer(stream).await;
    }
    assert!(requests.join_all().await.iter().all(Result::is_ok));
    for round in 0..4 {
        pass(Duration::from_secs(60)).await;
        // The first connection with a free stream is used, one is enough.
        let sent = tokio::spawn(server.post(round));
        let (stream, _) = peer.request().await;
        peer.answer(stream).await;
        assert!(sent.await.unwrap().is_ok());
    }
    assert_eq!(second.rest(), [Event::GoAway(0), Event::Closed]);
    assert_eq!(server.opened(), 2);
}

/// The server does not respond to pings.
#[tokio::test]
async fn a_connection_that_does_not_respond_to_a_ping_is_given_up() {
    let mut server = Server::start().await;
    let mut peer = used(&mut server, Some(100)).await;
    let waiting = tokio::spawn(server.post(0));
    let _ = peer.request().await;
    pass(Duration::from_secs(7)).await;
    assert_eq!(peer.rest(), []);
    pass(Duration::from_secs(2)).await;
    let error = waiting.await.unwrap().unwrap_err();
    let text = error.source().unwrap().to_string();
    assert!(text.contains("ping"), "{text}");
    assert!(server.post_is_answered().await);
}

/// A network may have forgotten it meanwhile.
#[tokio::test]
async fn a_connection_that_was_idle_for_long_has_one_stream_until_it_responds() {
    let mut server = Server::start().await;
    let mut peer = used(&mut server, Some(100)).await;
    let mut requests = Requests::new();
    pass(Duration::from_secs(20)).await;
    post(&mut requests, &server, 0..8);
    let (stream, _) = peer.request().await;
    settle().await;
    assert_eq!((peer.most(), server.opened()), ((1, 2), 1));
    peer.answer(stream).await;
    for (stream, _) in peer.requests(7).await {
        peer.answer(stream).await;
    }
    assert!(requests.join_all().await.iter().all(Result::is_ok));
    // A shorter time is no reason.
    let mut requests = Requests::new();
    pass(Duration::from_secs(18)).await;
    post(&mut requests, &server, 0..8);
    for (stream, _) in peer.requests(8).await {
        peer.answer(stream).await;
    }
    assert!(requests.join_all().await.iter().all(Result::is_ok));
    assert_eq!(server.opened(), 1);
}

/// Its SETTINGS do not come, or allow no stream.
#[tokio::test]
async fn a_new_connection_that_stays_silent_blocks_its_origin_for_three_seconds() {
    for streams in [None, Some(0)] {
        let mut server = Server::start().await;
        let mut requests = Requests::new();
        post(&mut requests, &server, 0..1);
        let mut silent = server.accept_silently().await;
        // It has been sent before the SETTINGS could be here.
        let _ = silent.request().await;
        if let Some(streams) = streams {
            silent.settings(Some(streams)).await;
        }
        let mut requests = Requests::new();
        post(&mut requests, &server, 1..3);
        pass(Duration::from_secs(2)).await;
        assert_eq!((silent.most().0, server.opened()), (1, 1));
        pass(Duration::from_secs(2)).await;
        let mut second = server.accept(Some(100)).await;
        for (stream, _) in second.requests(2).await {
            second.answer(stream).await;
        }
        assert!(requests.join_all().await.iter().all(Result::is_ok));
        assert_eq!(server.opened(), 2);
    }
}

#[tokio::test]
async fn a_connection_that_died_while_it_was_idle_takes_one_request_along() {
    let mut server = Server::start().await;
    let mut peer = used(&mut server, Some(100)).await;
    pass(Duration::from_secs(61)).await;
    let lost = tokio::spawn(server.post(0));
    let _ = peer.request().await;
    let mut requests = Requests::new();
    post(&mut requests, &server, 1..8);
    pass(Duration::from_secs(2)).await;
    assert_eq!((peer.most().0, server.opened()), (1, 1));
    pass(Duration::from_secs(2)).await;
    let mut second = server.accept(Some(100)).await;
    for (stream, _) in second.requests(7).await {
        second.answer(stream).await;
    }
    assert!(requests.join_all().await.iter().all(Result::is_ok));
    pass(Duration::from_secs(5)).await;
    let error = lost.await.unwrap().unwrap_err();
    let text = error.source().unwrap().to_string();
    assert!(text.contains("ping"), "{text}");
    assert_eq!(server.opened(), 2);
}

/// Wall time that advances with tokio's.
#[derive(Debug)]
struct Simulated(Instant);

impl Clock for Simulated {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_800_000_000) + self.0.elapsed()
    }
}

/// All on it fail together, which is one failure.
#[tokio::test]
async fn a_connection_that_dies_under_eight_messages_closes_no_gate() {
    let mut server = Server::start().await;
    let contact = Contact::parse("mailto:push@example.com").unwrap();
    let clock: Arc<dyn Clock> = Arc::new(Simulated(Instant::now()));
    let deliver = Deliver::new(server.client.clone(), contact)
        .with_policy(EndpointPolicy::insecure_allow_local())
        .with_clock(Arc::clone(&clock));
    let origin = format!("https://localhost:{}", server.port);
    let endpoint = format!("{origin}/p");
    let send = || {
        let push = push(&endpoint);
        let accepted_with = push.key().id();
        let push = push.with_history(Some(accepted_with), None);
        tokio::spawn(deliver.clone().oneshot(push))
    };
    let first = send();
    let mut peer = server.accept(Some(100)).await;
    let (stream, _) = peer.request().await;
    peer.answer(stream).await;
    let accepted = first.await.unwrap();
    assert!(accepted.is_ok(), "{accepted:?}");
    pass(Duration::from_secs(15)).await;
    let lost: Vec<_> = (0..8).map(|_| send()).collect();
    peer.requests(8).await;
    pass(Duration::from_secs(9)).await;
    for lost in lost {
        let error = lost.await.unwrap().unwrap_err();
        assert_eq!(error.outcome(), Outcome::Transient);
    }
    let gate = deliver.gates().gate(&Origin::parse(&origin).unwrap());
    assert_eq!(gate.closed_at(clock.now()), None);
    let again: Vec<_> = (0..8).map(|_| send()).collect();
    let mut second = server.accept(Some(100)).await;
    for (stream, _) in second.requests(8).await {
        second.answer(stream).await;
    }
    for again in again {
        assert!(again.await.unwrap().is_ok());
    }
}

/// Each stream that this side resets may get a frame that was on its way. If there are many, h2 ends the connection, and the
/// requests on it may have been processed.
#[tokio::test]
async fn responses_with_bodies_that_come_later_leave_the_connection_as_it_is() {
    let mut server = Server::start().await;
    let mut peer = used(&mut server, Some(100)).await;
    for round in 0..40 {
        let mut requests = Requests::new();
        post(&mut requests, &server, round * 50..(round + 1) * 50);
        let mut streams = Vec::new();
        while streams.len() < 50 {
            match peer.next().await {
                Event::Request(stream, _) => streams.push(stream),
                Event::Reset(..) => {}
                end => panic!("{end:?} in round {round}"),
            }
        }
        for stream in &streams {
            peer.head(*stream).await;
        }
        assert!(requests.join_all().await.iter().all(Result::is_ok));
        for stream in &streams {
            peer.body(*stream, b"{}").await;
        }
    }
    settle().await;
    assert_eq!(peer.rest(), []);
    assert_eq!(server.opened(), 1);
}

/// The limit on the time of a request may be shorter than the time before a ping.
#[tokio::test]
async fn requests_that_are_given_up_one_after_the_other_do_not_put_off_the_ping() {
    let mut server = Server::start().await;
    let mut peer = used(&mut server, Some(100)).await;
    for number in 0..3 {
        let given_up = tokio::spawn(server.post(number));
        if number > 0 {
            assert!(matches!(peer.next().await, Event::Reset(_, CANCEL)));
        }
        let _ = peer.request().await;
        pass(Duration::from_secs(3)).await;
        given_up.abort();
        let _ = given_up.await;
    }
    // As time passes in whole seconds, the ping may be a second late, and so may the end of the connection.
    pass(Duration::from_secs(1)).await;
    // Nothing arrived for 10 s. A busy machine takes its time for the handshake.
    let next = tokio::spawn(server.post(3));
    let second = tokio::time::timeout(Duration::from_secs(10), server.accept_silently());
    assert!(second.await.is_ok(), "{:?}", peer.rest());
    assert_eq!(server.opened(), 2);
    next.abort();
}

/// Without the pause a server that refuses everything would cost a handshake for each few requests.
#[tokio::test]
async fn after_a_connection_that_refused_all_requests_the_next_one_waits() {
    let mut server = Server::start().await;
    let mut requests = Requests::new();
    post(&mut requests, &server, 0..8);
    let mut peer = server.accept(Some(100)).await;
    let mut refused = peer.requests(8).await;
    tokio::time::pause();
    while !refused.is_empty() {
        for (stream, _) in refused.drain(..) {
            peer.reset(stream, REFUSED_STREAM).await;
        }
        settle().await;
        // Some are sent again on the same connection before it is given up.
        refused.extend(peer.rest().into_iter().filter_map(|event| match event {
            Event::Request(stream, body) => Some((stream, body)),
            _ => None,
        }));
    }
    assert_eq!(server.opened(), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    settle().await;
    tokio::time::resume();
    let mut second = server.accept(Some(100)).await;
    for (stream, _) in second.requests(8).await {
        second.answer(stream).await;
    }
    assert!(requests.join_all().await.iter().all(Result::is_ok));
}

/// A connection that the budget has no place for says nothing about the push service.
#[tokio::test]
async fn a_second_connection_without_a_place_does_not_delay_the_next_first_one() {
    // Half of the two is for named hosts.
    let mut server = Server::start_with(|client| client.max_connections(2)).await;
    let mut peer = used(&mut server, Some(1)).await;
    let mut requests = Requests::new();
    post(&mut requests, &server, 0..2);
    let (stream, _) = peer.request().await;
    // The server does not respond to pings, so it has less than 8 s.
    pass(Duration::from_secs(7)).await;
    assert_eq!(server.opened(), 1);
    tokio::time::pause();
    peer.go_away(stream, 0).await;
    peer.answer(stream).await;
    settle().await;
    assert_eq!(server.opened(), 2);
    tokio::time::resume();
    let mut second = server.accept(Some(1)).await;
    let (stream, _) = second.request().await;
    second.answer(stream).await;
    assert!(requests.join_all().await.iter().all(Result::is_ok));
}

/// Finds the server once. Counts the lookups.
#[derive(Debug, Default)]
struct FoundOnce(AtomicUsize);

#[async_trait]
impl Resolver for FoundOnce {
    async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, ResolveError> {
        match self.0.fetch_add(1, SeqCst) {
            0 => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
            _ => Err(ResolveErrorKind::NotFound.into()),
        }
    }
}

/// Otherwise each request would cost a lookup, or a handshake, as long as all streams are in use.
#[tokio::test]
async fn a_further_connection_that_cannot_be_opened_is_tried_again_after_two_seconds() {
    let resolver = Arc::new(FoundOnce::default());
    let lookups = Arc::clone(&resolver);
    let mut server = Server::start_with(|client| client.resolver(resolver)).await;
    let _peer = used(&mut server, Some(1)).await;
    let mut requests = Requests::new();
    tokio::time::pause();
    post(&mut requests, &server, 0..2);
    settle().await;
    assert_eq!(lookups.0.load(SeqCst), 2, "of the first one, and a further");
    for (millis, expected) in [(1_999, 2), (1, 3), (1_999, 3), (1, 4)] {
        tokio::time::advance(Duration::from_millis(millis)).await;
        post(&mut requests, &server, 2..4);
        settle().await;
        assert_eq!(lookups.0.load(SeqCst), expected);
    }
    assert_eq!(server.opened(), 1);
}

/// The time until the server left them unprocessed is none of the response: otherwise it would seem to be slow, and the limit
/// would not grow.
#[tokio::test]
async fn requests_that_are_repeated_do_not_keep_the_limit_from_growing() {
    let mut server = Server::start().await;
    let contact = Contact::parse("mailto:push@example.com").unwrap();
    let deliver = Deliver::new(server.client.clone(), contact)
        .with_policy(EndpointPolicy::insecure_allow_local());
    let origin = format!("https://localhost:{}", server.port);
    let endpoint = format!("{origin}/p");
    let send = || tokio::spawn(deliver.clone().oneshot(push(&endpoint)));
    let first = send();
    let mut peer = server.accept(Some(100)).await;
    let (stream, _) = peer.request().await;
    pass(Duration::from_secs(1)).await;
    peer.answer(stream).await;
    assert!(first.await.unwrap().is_ok());
    let gate = deliver.gates().gate(&Origin::parse(&origin).unwrap());
    assert_eq!(gate.limit(), 8);

    // With one more the connection would be replaced.
    let repeated: Vec<_> = (0..7).map(|_| send()).collect();
    let refused = peer.requests(7).await;
    pass(Duration::from_secs(3)).await;
    for (stream, _) in refused {
        peer.reset(stream, REFUSED_STREAM).await;
    }
    let again = peer.requests(7).await;
    pass(Duration::from_secs(1)).await;
    for (stream, _) in again {
        peer.answer(stream).await;
    }
    for sent in repeated {
        assert!(sent.await.unwrap().is_ok());
    }
    assert!(gate.limit() > 8, "{}", gate.limit());
    assert_eq!(server.opened(), 1);
}

/// A hostile server could make the client keep megabytes for each response.
#[tokio::test]
async fn the_headers_of_a_response_have_a_bound() {
    for (headers, is_taken) in [(3, true), (16, false)] {
        let mut server = Server::start().await;
        let request = tokio::spawn(server.post("x"));
        let mut peer = server.accept(Some(1)).await;
        let (stream, _) = peer.request().await;
        peer.answer_at_length(stream, headers).await;
        let answered = request.await.unwrap();
        assert_eq!(answered.is_ok(), is_taken, "{headers}: {answered:?}");
    }
}

/// Each one would keep a stream, until the origin has none left.
#[tokio::test]
async fn a_response_whose_body_does_not_end_gives_its_stream_back_after_a_second() {
    let mut server = Server::start().await;
    let mut peer = used(&mut server, Some(100)).await;
    let sent = tokio::spawn(server.post(0));
    let (stream, _) = peer.request().await;
    peer.head(stream).await;
    assert_eq!(sent.await.unwrap().unwrap(), StatusCode::OK);
    settle().await;
    assert_eq!(peer.rest(), []);
    pass(Duration::from_secs(2)).await;
    let reset = tokio::time::timeout(Duration::from_secs(10), peer.next()).await;
    assert_eq!(reset.unwrap(), Event::Reset(stream, CANCEL));
}

/// RFC 9113 section 7. Such a request may have been processed, so it is not sent again.
#[tokio::test]
async fn a_stream_that_is_reset_with_enhance_your_calm_lowers_the_limit() {
    let mut server = Server::start().await;
    let contact = Contact::parse("mailto:push@example.com").unwrap();
    let deliver = Deliver::new(server.client.clone(), contact)
        .with_policy(EndpointPolicy::insecure_allow_local());
    let origin = format!("https://localhost:{}", server.port);
    let send = || tokio::spawn(deliver.clone().oneshot(push(&format!("{origin}/p"))));
    let first = send();
    let mut peer = server.accept(Some(100)).await;
    let (stream, _) = peer.request().await;
    peer.answer(stream).await;
    assert!(first.await.unwrap().is_ok());
    let gate = deliver.gates().gate(&Origin::parse(&origin).unwrap());
    for (reason, limit) in [(CANCEL, 8), (ENHANCE_YOUR_CALM, 4)] {
        let reset = send();
        let (stream, _) = peer.request().await;
        peer.reset(stream, reason).await;
        let error = reset.await.unwrap().unwrap_err();
        assert_eq!(error.outcome(), Outcome::Transient);
        assert_eq!(gate.limit(), limit, "{reason}");
    }
}

/// All requests that wait fail with the same dial, and are evidence: nothing else happens while the origin is down.
#[tokio::test]
async fn an_origin_that_cannot_be_dialled_any_more_closes_its_gate_after_two_dials() {
    let mut server = Server::start().await;
    let contact = Contact::parse("mailto:push@example.com").unwrap();
    let clock: Arc<dyn Clock> = Arc::new(Simulated(Instant::now()));
    let deliver = Deliver::new(server.client.clone(), contact)
        .with_policy(EndpointPolicy::insecure_allow_local())
        .with_clock(Arc::clone(&clock));
    let origin = format!("https://localhost:{}", server.port);
    let send = |number: usize| {
        let push = push(&format!("{origin}/{number}"));
        let accepted_with = push.key().id();
        let push = push.with_history(Some(accepted_with), None);
        tokio::spawn(deliver.clone().oneshot(push))
    };
    let first = send(0);
    let mut peer = server.accept(Some(100)).await;
    let (stream, _) = peer.request().await;
    peer.answer(stream).await;
    assert!(first.await.unwrap().is_ok());
    let gate = deliver.gates().gate(&Origin::parse(&origin).unwrap());
    drop((peer, server));
    pass(Duration::from_secs(3)).await;
    for _ in 0..2 {
        assert_eq!(gate.closed_at(clock.now()), None);
        let failed: Vec<_> = (1..=8).map(send).collect();
        for failed in failed {
            let error = failed.await.unwrap().unwrap_err();
            assert_eq!(
                (error.outcome(), error.reason()),
                (Outcome::Transient, None)
            );
        }
        pass(Duration::from_secs(3)).await;
    }
    let closed = gate.closed_at(clock.now()).unwrap();
    assert_eq!(closed.reason, PauseReason::Unreachable);
}

/// A runtime that ends takes along the connections that were opened on it.
fn another_runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

/// It says nothing about the push service.
#[tokio::test]
async fn the_end_of_the_runtime_that_drives_a_connection_is_local() {
    let mut server = Server::start().await;
    let other = another_runtime();
    let first = other.spawn(server.post("first"));
    let mut peer = server.accept(Some(100)).await;
    let (stream, _) = peer.request().await;
    peer.answer(stream).await;
    assert!(first.await.unwrap().is_ok());
    let contact = Contact::parse("mailto:push@example.com").unwrap();
    let deliver = Deliver::new(server.client.clone(), contact)
        .with_policy(EndpointPolicy::insecure_allow_local());
    let endpoint = format!("https://localhost:{}/p", server.port);
    let sent = tokio::spawn(deliver.oneshot(push(&endpoint)));
    let _ = peer.request().await;
    other.shutdown_background();
    let error = sent.await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some("local"), "{:?}", error.source());
    assert_eq!(server.opened(), 1);
}
