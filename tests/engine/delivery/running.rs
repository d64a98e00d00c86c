//! The driving future: leases, shutdown, broken clients.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response};
use tower::service_fn;
use tower_web_push::push_request::PushBody;

use super::world::*;
use crate::support::tampered_store::TamperedStore;

const TIMEOUT: Duration = Duration::from_millis(300);

fn small(builder: WebPushBuilder) -> WebPushBuilder {
    builder.request_timeout(TIMEOUT).in_flight_per_origin(2)
}

/// A direct send holds one of the two permits, so that of two claimed rows one waits.
async fn one_attempt_waits(world: &World) {
    let requests = async |number| {
        let service = &world.service;
        service.wait_until(|counts| counts.requests == number).await;
    };
    world.service.script(When::any().times(2), Answer::never());
    let (_, direct) = world.subscribe().await;
    let push = world.push.clone();
    tokio::spawn(async move { push.send(Audience::id(direct.id), Message::new("x")).await });
    requests(1).await;
    let queued = [world.subscribe().await.1.id, world.subscribe().await.1.id];
    let queued = Audience::Ids(queued.into());
    world.push.enqueue(queued, Message::new("x")).await.unwrap();
    requests(2).await;
    let stats = world.store.stats(world.clock.now()).await.unwrap();
    assert_eq!(stats.leased, 2, "one waits");
}

#[tokio::test(start_paused = true)]
async fn run_delivers_the_queue_and_stops_on_shutdown() {
    let world = World::at(FCM).await;
    let (browser, _) = world.subscriber().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(world.push.run(async { stopped.await.unwrap_or_default() }));
    tokio::time::sleep(MINUTE).await;
    let broadcast = world.enqueue().await;
    assert_eq!(soon(browser.next()).await.text(), Some("x"));
    drop(stop);
    soon(running).await.unwrap().unwrap();
    assert_eq!(world.status(broadcast).await.state, BroadcastState::Done);
}

#[tokio::test(start_paused = true)]
async fn run_starts_and_delivers_while_the_pauses_cannot_be_read() {
    let world = World::at(FCM).await;
    let store = Arc::new(TamperedStore::over(&world.store));
    let push = world.replica_with(|builder| builder.store(Arc::clone(&store)));
    let push = push.await;
    store.fail("pauses");
    let (browser, _) = world.subscriber().await;
    push.enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut running = tokio::spawn(push.run(async { stopped.await.unwrap_or_default() }));
    tokio::select! {
        message = soon(browser.next()) => assert_eq!(message.text(), Some("x")),
        ended = &mut running => panic!("{ended:?}"),
    }
    drop(stop);
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn without_a_contact_nothing_is_claimed_and_nothing_is_lost() {
    let world = World::at(FCM).await;
    let (browser, _) = world.subscriber().await;
    let broadcast = world.enqueue().await;
    let silent = WebPush::builder_without_contact()
        .store(Arc::clone(&world.store))
        .clock(world.clock.clone())
        .client(world.service.clone())
        .build()
        .await
        .unwrap();
    assert!(silent.tick().await.unwrap().is_idle());
    silent.run(std::future::ready(())).await.unwrap();
    assert_eq!(world.asked(), 0);
    // A direct send is refused by the policy.
    let report = silent.send(Audience::All, Message::new("x")).await.unwrap();
    assert_eq!(report.counts, counts(|counts| counts.refused = 1));
    assert_eq!(world.asked(), 0);

    world.settle().await;
    assert_eq!(browser.next().await.text(), Some("x"));
    assert_eq!(world.status(broadcast).await.counts.accepted, 1);
}

#[tokio::test]
async fn what_a_dropped_run_had_claimed_is_sent_by_the_next() {
    let world = World::at(FCM).await;
    let (browser, _) = world.subscriber().await;
    world.service.script(When::any().times(1), Answer::never());
    let broadcast = world.enqueue().await;
    let running = tokio::spawn(world.push.run(std::future::pending()));
    world
        .service
        .wait_until(|counts| counts.requests == 1)
        .await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    world.settle().await;
    assert!(browser.messages().is_empty(), "its lease has not ended");
    world.clock.advance(MINUTE);
    world.settle().await;
    assert_eq!(world.status(broadcast).await.counts.accepted, 1);
}

#[tokio::test]
async fn a_full_ledger_is_emptied_before_more_is_written_into_it() {
    let store = MemoryStore::with_max_rows(10);
    let world = World::on(store, FCM, |builder| builder).await;
    world.subscribers(10).await;
    let broadcasts = [world.enqueue().await, world.enqueue().await];
    world.settle().await;
    for broadcast in broadcasts {
        assert_eq!(world.status(broadcast).await.counts.accepted, 10);
    }
}

#[tokio::test(start_paused = true)]
async fn outcomes_after_the_shutdown_are_written_before_the_slowest_request() {
    let world = World::at(FCM).await;
    world.subscribers(2).await;
    let soon = Duration::from_millis(50);
    world.service.script(When::any().times(1), Answer::never());
    world
        .service
        .script(When::any(), Answer::ordinary().after(soon));
    let broadcast = world.enqueue().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(world.push.run(async { stopped.await.unwrap_or_default() }));
    world
        .service
        .wait_until(|counts| counts.requests == 2)
        .await;
    drop(stop);
    tokio::time::sleep(4 * soon).await;
    assert!(!running.is_finished());
    assert_eq!(world.status(broadcast).await.counts.accepted, 1);
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_after_the_shutdown() {
    let world = World::with(FCM, small).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(world.push.run(async { stopped.await.unwrap_or_default() }));
    one_attempt_waits(&world).await;
    drop(stop);
    running.await.unwrap().unwrap();
    assert_eq!(world.service.counts().requests, 2);
    // It was released, not left to its lease.
    let now = world.clock.now();
    assert_eq!(world.store.stats(now).await.unwrap().leased, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_does_not_begin_when_its_lease_could_end_before_it() {
    let world = World::with(FCM, small).await;
    let other = world.replica().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let end = async move {
        let _ = stopped.await;
        tokio::time::sleep(2 * TIMEOUT).await;
    };
    let running = tokio::spawn(world.push.run(end));
    one_attempt_waits(&world).await;
    // As if it had waited for so long: another machine claims the rows.
    world.clock.advance(Duration::from_secs(31));
    while !other.tick().await.unwrap().is_idle() {}
    // Its worker is told to stop, and waits for its requests.
    drop(stop);
    running.await.unwrap().unwrap();
    // Two requests began here, and both for rows of the ledger there.
    assert_eq!(world.service.counts().requests, 4);
}

#[tokio::test]
async fn a_client_that_panics_is_counted_every_time() {
    let broken = service_fn(
        async |_: Request<PushBody>| -> Result<Response<PushBody>, Infallible> {
            panic!("a broken client")
        },
    );
    let world = World::with(FCM, |builder| builder.client(broken)).await;
    for _ in 0..600 {
        world.subscribe().await;
    }
    let report = world
        .push
        .send(Audience::All, Message::new("x"))
        .await
        .unwrap();
    assert_eq!(report.counts.failed, 600);
}
