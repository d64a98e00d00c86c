//! No request begins that could outlast its lease, also after a wait for the client or a permit.

use std::future::poll_fn;
use std::task::{Context, Poll};

use http::Request;
use tokio::time::{Instant, sleep};
use tower::Service;

use super::world::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A client that takes time before it is ready, and before it sends.
#[derive(Clone)]
struct Slow {
    service: TestPushService,
    clock: ManualClock,
    until_ready: Duration,
    until_sent: Duration,
}

impl<B> Service<Request<B>> for Slow
where
    TestPushService: Service<Request<B>, Future: Send> + Clone,
    B: Send + 'static,
{
    type Response = <TestPushService as Service<Request<B>>>::Response;
    type Error = <TestPushService as Service<Request<B>>>::Error;
    type Future = futures_util::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.clock.advance(std::mem::take(&mut self.until_ready));
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut this = self.clone();
        Box::pin(async move {
            // All others that need a permit request it meanwhile.
            sleep(MS).await;
            this.clock.advance(this.until_sent);
            poll_fn(|cx| this.service.poll_ready(cx)).await?;
            this.service.call(request).await
        })
    }
}

/// Lease and request timeout, and the longest wait of a request before it begins.
const LEASES: [(Option<Duration>, Option<Duration>, Duration); 4] = [
    (None, None, Duration::from_secs(30)),
    (None, Some(Duration::from_secs(7)), Duration::from_secs(30)),
    (Some(Duration::from_secs(20)), None, Duration::from_secs(5)),
    (
        Some(Duration::from_secs(100)),
        Some(Duration::from_secs(40)),
        MINUTE,
    ),
];

type Lease = (Option<Duration>, Option<Duration>);

fn leased((lease, timeout): Lease, mut builder: WebPushBuilder) -> WebPushBuilder {
    if let Some(lease) = lease {
        builder = builder.lease(lease);
    }
    if let Some(timeout) = timeout {
        builder = builder.request_timeout(timeout);
    }
    builder
}

/// A process with a slow client.
async fn slow(world: &World, lease: Lease, until_ready: Duration, until_sent: Duration) -> WebPush {
    let client = Slow {
        service: world.service.clone(),
        clock: world.clock.clone(),
        until_ready,
        until_sent,
    };
    let configure = |builder| {
        leased(lease, builder)
            .client(client)
            .in_flight_per_origin(1)
    };
    world.replica_with(configure).await
}

#[tokio::test(start_paused = true)]
async fn a_request_begins_one_timeout_before_the_end_of_its_lease_at_the_latest() {
    for (lease, timeout, most) in LEASES {
        for (waited, begins) in [(most - MS, true), (most, false)] {
            let world = World::at(FCM).await;
            world.subscriber().await;
            let push = slow(&world, (lease, timeout), waited, Duration::ZERO).await;
            let broadcast = world.enqueue().await;
            push.tick().await.unwrap();
            assert_eq!(world.asked(), u64::from(begins), "{most:?} {waited:?}");
            // Rows without a request have no attempt more, and do not wait for the end of their lease.
            let counts = world.status(broadcast).await.counts;
            assert_eq!(counts.pending, u64::from(!begins));
            world.settle().await;
            assert_eq!(world.asked(), 1);

            let report = push.send(Audience::All, Message::new("x")).await.unwrap();
            assert_eq!(report.counts.accepted, u64::from(begins), "{waited:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_is_looked_at_again_after_the_wait_for_a_permit() {
    for (lease, timeout, most) in LEASES {
        for (waited, begins) in [(most - MS, true), (most, false)] {
            let world = World::at(FCM).await;
            world.subscribers(2).await;
            // One permit: the second request waits until the first one is answered.
            let push = slow(&world, (lease, timeout), Duration::ZERO, waited).await;
            let report = push.send(Audience::All, Message::new("x")).await.unwrap();
            let sent = 1 + u64::from(begins);
            assert_eq!(world.asked(), sent, "{most:?} {waited:?}");
            assert_eq!(report.counts.accepted, sent);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_permit_ends_when_no_request_may_begin_any_more() {
    let (timeout, lease) = (15 * SECOND, 20 * SECOND);
    let configure = |builder| leased((Some(lease), Some(timeout)), builder).in_flight_per_origin(1);
    let world = World::with(FCM, configure).await;
    let subscribed = world.subscribers(2).await;
    world.service.script(When::any(), Answer::never());
    let send = |at: usize| {
        let (push, id) = (world.push.clone(), subscribed[at].1.id);
        async move {
            let began = Instant::now();
            let report = push.send(Audience::id(id), Message::new("x")).await;
            assert_eq!(report.unwrap().counts.failed, 1);
            began.elapsed().as_secs()
        }
    };
    let (first, second) = tokio::join!(send(0), send(1));
    assert_eq!((first, second), (15, 5));
    assert_eq!(world.asked(), 1);
}
