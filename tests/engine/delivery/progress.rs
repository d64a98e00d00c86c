//! The status of a broadcast as a stream.

use futures_util::StreamExt as _;

use tower_web_push::Broadcast;
use tower_web_push::clock::{Clock as _, SystemClock};

use super::world::*;
use crate::support::tampered_store::TamperedStore;

#[tokio::test(start_paused = true)]
async fn progress_tells_each_change_and_ends_with_the_broadcast() {
    let world = World::at(FCM).await;
    world.subscribers(300).await;
    world.service.script(
        When::any(),
        Answer::ordinary().after(Duration::from_millis(400)),
    );
    let broadcast = world.enqueue().await;
    let (_stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let _running = tokio::spawn(world.push.run(async { stopped.await.unwrap_or_default() }));
    let began = tokio::time::Instant::now();
    let progress = world.push.progress(broadcast);
    let seen: Vec<_> = progress.map(Result::unwrap).collect().await;
    let elapsed = began.elapsed();
    assert_eq!(seen[0].counts.finished(), 0);
    let last = seen.last().unwrap();
    assert_eq!(
        (last.state, last.counts.accepted),
        (BroadcastState::Done, 300)
    );
    assert!(seen.windows(2).all(|two| two[0] != two[1]));
    assert!(
        seen.windows(2)
            .all(|two| two[0].counts.finished() <= two[1].counts.finished())
    );
    let at_most = 2 + elapsed.as_millis() / 250;
    assert!(
        seen.len() > 2 && seen.len() as u128 <= at_most,
        "{elapsed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn progress_of_a_cancelled_or_unknown_broadcast_ends() {
    let world = World::at(FCM).await;
    world.subscriber().await;
    let mut none = world.push.progress(BroadcastId::random());
    assert!(none.next().await.is_none());
    let broadcast = world.enqueue().await;
    let mut progress = world.push.progress(broadcast);
    let first = progress.next().await.unwrap().unwrap();
    assert!(!first.is_over());
    // A call that is dropped loses nothing.
    let waiting = tokio::time::timeout(Duration::from_secs(9), progress.next());
    waiting.await.unwrap_err();
    world.push.cancel(broadcast).await.unwrap();
    let last = progress.next().await.unwrap().unwrap();
    assert_eq!(last.state, BroadcastState::Cancelled);
    assert!(progress.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_error_is_an_item_and_the_status_before_it_is_not_repeated() {
    let store = std::sync::Arc::new(TamperedStore::default());
    let push = WebPush::builder("mailto:ops@example.com")
        .store(std::sync::Arc::clone(&store))
        .build()
        .await
        .unwrap();
    let at = SystemClock::new().now() + 60 * MINUTE;
    let later = Broadcast::to(Audience::All, Message::new("x")).at(at);
    let broadcast = push.enqueue_broadcast(later).await.unwrap().broadcast;
    let mut progress = push.progress(broadcast);
    let first = progress.next().await.unwrap().unwrap();
    store.fail("status");
    for _ in 0..2 {
        progress.next().await.unwrap().unwrap_err();
    }
    store.fail(None);
    let waiting = tokio::time::timeout(Duration::from_secs(9), progress.next());
    waiting.await.unwrap_err();
    push.cancel(broadcast).await.unwrap();
    let last = progress.next().await.unwrap().unwrap();
    assert_ne!(last, first);
    assert!(progress.next().await.is_none());
}

#[tokio::test]
async fn broadcasts_underway_are_listed_until_they_are_over() {
    let world = World::at(FCM).await;
    world.subscriber().await;
    let broadcast = world.enqueue().await;
    let underway = world.push.underway(9).await.unwrap();
    assert_eq!(underway, [world.status(broadcast).await]);
    world.settle().await;
    assert_eq!(world.push.underway(9).await.unwrap(), []);
}
