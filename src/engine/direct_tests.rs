//! Direct sends that wait for their origin.

use std::time::Duration;

use futures_util::FutureExt as _;
use http::StatusCode;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use super::super::test_world::{START, TIMEOUT, World};
use super::*;
use crate::message::Ttl;
use crate::store::{
    DeliveryLedger as _, NewSubscription, SubscriptionLimits, SubscriptionStore as _, Tally,
};
use crate::subscription::Subscription;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
/// No request of a direct send begins later than this after its start.
const LEASE: Duration = Duration::from_secs(45 - TIMEOUT.as_secs());
const SHORT: Duration = Duration::from_secs(20);

fn message(ttl: Option<Duration>) -> Message {
    let message = Message::new("x");
    match ttl {
        Some(ttl) => message.with_ttl(Ttl::from_secs(ttl.as_secs())),
        None => message,
    }
}

/// As for a row of the ledger: a request that begins has its whole timeout within the lease, and begins before the
/// deadline of the message.
#[tokio::test(start_paused = true)]
async fn a_request_of_a_send_begins_before_the_lease_and_the_deadline_at_the_latest() {
    for (ttl, waited, requests) in [
        (None, LEASE - MS, 1),
        (None, LEASE, 0),
        (Some(SHORT), SHORT - MS, 1),
        (Some(SHORT), SHORT, 0),
    ] {
        let world = World::with(1, TIMEOUT).await;
        let key = world.subscriber().await;
        let permit = world.gate(key).await.try_acquire().unwrap();
        let send = world.engine.send(&Audience::All, message(ttl));
        let mut send = std::pin::pin!(send);
        for _ in 0..10 {
            assert!((&mut send).now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        world.clock.advance(waited);
        drop(permit);
        let report = send.await.unwrap();
        assert_eq!(report.counts.accepted, requests, "{ttl:?} {waited:?}");
        assert_eq!(world.service.counts().requests, requests);
    }
}

/// A full origin does not keep the caller for ever.
#[tokio::test(start_paused = true)]
async fn a_send_to_a_full_origin_ends_by_itself() {
    for (ttl, takes) in [(None, LEASE), (Some(SHORT), SHORT)] {
        let world = World::with(1, TIMEOUT).await;
        let key = world.subscriber().await;
        let _permit = world.gate(key).await.try_acquire().unwrap();
        let began = Instant::now();
        let send = world.engine.send(&Audience::All, message(ttl));
        let report = timeout(3600 * SECOND, send).await.unwrap().unwrap();
        assert_eq!(began.elapsed().as_secs(), takes.as_secs());
        assert_eq!(report.counts.failed, 1);
        assert_eq!(world.service.counts().requests, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_without_a_row_begins_before_its_deadline() {
    for (waited, requests) in [(SHORT - MS, 1), (SHORT, 0)] {
        let world = World::with(1, TIMEOUT).await;
        let key = world.subscriber().await;
        let row = world.record(key).await;
        let permit = world.gate(key).await.try_acquire().unwrap();
        let to = &row.subscription;
        let mut deliver = std::pin::pin!(world.engine.deliver(to, message(Some(SHORT))));
        for _ in 0..10 {
            assert!((&mut deliver).now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        world.clock.advance(waited);
        drop(permit);
        assert_eq!(deliver.await.is_ok(), requests == 1, "{waited:?}");
        assert_eq!(world.service.counts().requests, requests);
    }
}

/// The first responses of a new process may be those of strangers: only the store knows that the origin works.
#[tokio::test]
async fn refusals_of_strangers_close_no_gate_of_an_origin_that_has_accepted_messages() {
    for accepted in [0, 1] {
        let world = World::new().await;
        let gate = world.gate(world.subscriber().await).await;
        for _ in 1..10 {
            world.subscriber().await;
        }
        let before = [(gate.origin().clone(), Tally::new(accepted, 0))];
        world.store.tally(&before, START).await.unwrap();
        world.answer(StatusCode::FORBIDDEN);
        for seconds in [0, 2] {
            world.clock.set(START + seconds * SECOND);
            let send = world.engine.send(&Audience::All, message(None));
            assert_eq!(send.await.unwrap().counts.accepted, 0);
        }
        let is_closed = gate.closed_at(world.engine.now()).is_some();
        assert_eq!(is_closed, accepted == 0);
    }
}

/// Each has a task with its message.
#[tokio::test(start_paused = true)]
async fn a_send_to_many_has_a_bounded_number_of_attempts() {
    let world = World::with(1, TIMEOUT).await;
    let first = world.subscriber().await;
    let row = world.record(first).await;
    for number in 0..IN_FLIGHT {
        let subscription = Subscription::new(
            format!("{}/{number}", row.subscription.endpoint().origin())
                .parse()
                .unwrap(),
            *row.subscription.ua_public(),
            row.subscription.auth().clone(),
        );
        let new = NewSubscription::new(subscription, row.vapid_key);
        let limits = SubscriptionLimits::default();
        world.store.upsert(&new, &limits, START).await.unwrap();
    }
    let _permit = world.gate(first).await.try_acquire().unwrap();
    let mut send = std::pin::pin!(world.engine.send(&Audience::All, message(None)));
    for _ in 0..10 {
        assert!((&mut send).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    let tasks = Handle::current().metrics().num_alive_tasks();
    assert_eq!(tasks, IN_FLIGHT);
}
