//! Paused broadcasts.

use tokio::sync::oneshot;

use super::world::*;

#[tokio::test]
async fn a_paused_broadcast_waits_for_every_replica_and_others_do_not() {
    let world = World::at(FCM).await;
    let browsers = world.subscribers(30).await;
    let replica = world.replica().await;
    let paused = world.enqueue().await;
    let status = replica.pause(paused).await.unwrap().unwrap();
    assert_eq!(status.state, BroadcastState::Paused);
    let other = world.enqueue().await;
    for push in [&world.push, &replica] {
        while !push.tick().await.unwrap().is_idle() {}
    }
    assert_eq!(world.status(other).await.state, BroadcastState::Done);
    assert_eq!(world.status(paused).await.counts.pending, 30);
    world.clock.advance(60 * MINUTE);
    world.settle().await;
    assert_eq!(world.asked(), 30);
    let status = world.push.resume(paused).await.unwrap().unwrap();
    assert_eq!(status.state, BroadcastState::Expanding);
    while !replica.tick().await.unwrap().is_idle() {}
    assert_eq!(world.status(paused).await.state, BroadcastState::Done);
    assert!(
        browsers
            .iter()
            .all(|(browser, _)| browser.messages().len() == 2)
    );
}

#[tokio::test]
async fn what_is_retried_waits_for_the_end_of_a_pause() {
    let world = World::at(FCM).await;
    let (browser, record) = world.subscriber().await;
    let endpoint = When::endpoint(record.subscription.endpoint());
    let failure = Answer::status(StatusCode::SERVICE_UNAVAILABLE);
    world.service.script(endpoint.times(1), failure);
    let id = world.enqueue().await;
    world.settle().await;
    assert_eq!(world.status(id).await.counts.pending, 1);
    world.push.pause(id).await.unwrap();
    world.clock.advance(60 * MINUTE);
    world.settle().await;
    assert_eq!(world.asked(), 1);
    world.push.resume(id).await.unwrap();
    world.settle().await;
    assert_eq!((world.asked(), browser.messages().len()), (2, 1));
}

#[tokio::test]
async fn a_pause_does_not_outlast_the_deadline() {
    let world = World::at(FCM).await;
    world.subscribers(3).await;
    let message = Message::new("x").with_ttl(Ttl::from_secs(60));
    let queued = world.push.enqueue(Audience::All, message).await.unwrap();
    world.push.pause(queued.broadcast).await.unwrap();
    world.clock.advance(MINUTE);
    world.settle().await;
    let end = world.status(queued.broadcast).await;
    assert_eq!((end.state, end.counts.expired), (BroadcastState::Done, 3));
    assert_eq!(world.asked(), 0);
}

/// A worker that runs sleeps while all that is pending is paused, and is woken when it goes on.
#[tokio::test(start_paused = true)]
async fn run_goes_on_with_what_is_resumed() {
    let world = World::at(FCM).await;
    let (browser, _) = world.subscriber().await;
    let first = world.enqueue().await;
    world.push.pause(first).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(world.push.run(async { stopped.await.unwrap_or_default() }));
    let second = world.push.enqueue(Audience::All, Message::new("second"));
    second.await.unwrap();
    assert_eq!(soon(browser.next()).await.text(), Some("second"));
    tokio::time::sleep(MINUTE).await;
    world.push.resume(first).await.unwrap();
    assert_eq!(soon(browser.next()).await.text(), Some("x"));
    drop(stop);
    running.await.unwrap().unwrap();
}
