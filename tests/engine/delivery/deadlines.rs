//! No request begins at the deadline or later, after any wait.

use std::task::{Context, Poll};

use http::Request;
use tower::Service;

use super::world::*;

/// TTL, the start of its first request, and the TTL of that request; `None` if no request is made.
const CASES: [(u64, u64, Option<u64>); 12] = [
    (30, 0, Some(30)),
    (30, 29_900, Some(1)),
    (30, 30_000, None),
    (30, 30_100, None),
    (15, 14_900, Some(1)),
    (15, 15_100, None),
    (14, 14_900, Some(0)),
    (14, 15_100, None),
    (1, 14_900, Some(0)),
    (1, 15_100, None),
    (0, 14_900, Some(0)),
    (0, 15_000, None),
];

fn ring(ttl: u64) -> Message {
    Message::new("ring").with_ttl(Ttl::from_secs(ttl))
}

#[tokio::test]
async fn no_queued_message_is_sent_from_its_deadline_on() {
    for (ttl, waited, sent) in CASES {
        let world = World::at(FCM).await;
        let (browser, _) = world.subscriber().await;
        let queued = world.push.enqueue(Audience::All, ring(ttl)).await.unwrap();
        world.clock.advance(Duration::from_millis(waited));
        world.settle().await;
        let messages = browser.messages();
        let ttls = messages.iter().map(|message| message.ttl());
        let expected = sent.map(Ttl::from_secs);
        assert_eq!(
            ttls.collect::<Vec<_>>(),
            Vec::from_iter(expected),
            "{ttl} {waited}"
        );
        if sent.is_none() {
            assert_eq!(world.asked(), 0, "{ttl} {waited}");
            // A broadcast that was not expanded in time has no recipients to count.
            let status = world.status(queued.broadcast).await;
            assert_eq!(
                (status.state, status.counts.pending),
                (BroadcastState::Done, 0)
            );
        }
    }
}

#[tokio::test]
async fn no_retry_begins_from_the_deadline_on() {
    for (ttl, waited, sent) in CASES.into_iter().filter(|(_, waited, _)| *waited > 0) {
        let world = World::at(FCM).await;
        let (browser, _) = world.subscriber().await;
        let down = Answer::status(StatusCode::SERVICE_UNAVAILABLE);
        world.service.script(When::any().times(1), down);
        let queued = world.push.enqueue(Audience::All, ring(ttl)).await.unwrap();
        world.settle().await;
        world.clock.advance(Duration::from_millis(waited));
        world.settle().await;
        assert_eq!(
            browser.messages().len(),
            usize::from(sent.is_some()),
            "{ttl} {waited}"
        );
        let counts = world.status(queued.broadcast).await.counts;
        let expired = u64::from(sent.is_none());
        assert_eq!(
            (counts.accepted, counts.expired),
            (1 - expired, expired),
            "{ttl} {waited}"
        );
    }
}

/// A client that is ready after a delay, as if all connections were in use.
#[derive(Clone)]
struct Busy {
    service: TestPushService,
    clock: ManualClock,
    wait: Duration,
}

impl<B> Service<Request<B>> for Busy
where
    TestPushService: Service<Request<B>>,
{
    type Response = <TestPushService as Service<Request<B>>>::Response;
    type Error = <TestPushService as Service<Request<B>>>::Error;
    type Future = <TestPushService as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.clock.advance(std::mem::take(&mut self.wait));
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.service.call(request)
    }
}

#[tokio::test]
async fn no_direct_request_begins_from_the_deadline_on() {
    for (ttl, waited, sent) in CASES {
        let world = World::at(FCM).await;
        let (browser, record) = world.subscriber().await;
        let busy = Busy {
            service: world.service.clone(),
            clock: world.clock.clone(),
            wait: Duration::from_millis(waited),
        };
        let push = world.replica_with(|builder| builder.client(busy)).await;
        let ttls = || -> Vec<_> { browser.messages().iter().map(|push| push.ttl()).collect() };
        let expected = sent.map(Ttl::from_secs);

        let report = push.send(Audience::All, ring(ttl)).await.unwrap();
        assert_eq!(ttls(), Vec::from_iter(expected), "{ttl} {waited}");
        assert_eq!(report.counts.expired, u64::from(sent.is_none()));

        let delivered = push.deliver(&record.subscription, ring(ttl)).await;
        assert_eq!(
            ttls(),
            [expected, expected]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
        );
        let error = delivered.err();
        let reason = error.as_ref().and_then(|error| error.reason());
        assert_eq!(reason, sent.is_none().then_some("deadline"));
    }
}

#[tokio::test]
async fn the_ttl_of_a_message_for_later_counts_from_its_time() {
    let world = World::at(FCM).await;
    let (browser, _) = world.subscriber().await;
    let (later, minute) = (world.clock.now() + 60 * MINUTE, Ttl::from_secs(60));
    let message = Message::new("x").with_ttl(minute);
    let broadcast = tower_web_push::Broadcast::to(Audience::All, message).at(later);
    let queued = world.push.enqueue_broadcast(broadcast).await.unwrap();
    assert_eq!(
        world.status(queued.broadcast).await.deadline,
        later + MINUTE
    );
    world.clock.set(later);
    world.settle().await;
    assert_eq!(browser.messages().len(), 1);
}
