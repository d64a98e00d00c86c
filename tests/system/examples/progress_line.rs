//! Which broadcast the line of progress shows.

use tower_web_push::store::MemoryStore;
use tower_web_push::subscription::Origin;
use tower_web_push::testing::TestPushService;
use tower_web_push::{Audience, Message, Registration, WebPush};

use super::progress::Still;

#[tokio::test]
async fn one_that_stands_still_hides_no_other() {
    let origin = Origin::parse("https://fcm.googleapis.com").unwrap();
    let service = TestPushService::builder().origin(origin).build();
    let push = WebPush::builder("mailto:ops@example.com")
        .store(MemoryStore::new())
        .client(service.clone())
        .build()
        .await
        .unwrap();
    for _ in 0..110 {
        let browser = service.user_agent();
        let subscription = browser.subscribe(&push.vapid_public_key()).unwrap();
        push.subscribe(Registration::new(subscription))
            .await
            .unwrap();
    }
    let mut broadcasts = Vec::new();
    for _ in 0..2 {
        let queued = push
            .enqueue(Audience::All, Message::new("x"))
            .await
            .unwrap();
        broadcasts.push(queued.broadcast);
    }
    let mut still = Still::default();
    let underway = push.underway(10).await.unwrap();
    let first = still.largest(&underway).unwrap();
    // It was shown until it stood still.
    still.stands(first);
    let second = still.largest(&underway).unwrap();
    assert_ne!(first.id, second.id);
    still.stands(second);
    assert!(still.largest(&underway).is_none());
    // It makes progress again.
    let mut moving = underway.clone();
    let moved = moving
        .iter_mut()
        .find(|status| status.id == first.id)
        .unwrap();
    moved.counts.accepted += 1;
    assert_eq!(still.largest(&moving).unwrap().id, first.id);

    // A paused one is not shown at all.
    push.pause(broadcasts[0]).await.unwrap();
    let underway = push.underway(10).await.unwrap();
    assert_eq!(underway.len(), 2);
    let shown = Still::default().largest(&underway).unwrap().id;
    assert_eq!(shown, broadcasts[1]);
}
