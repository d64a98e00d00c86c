//! Messages that wait while another user takes over the browser.

use tower_web_push::broadcast::Principal;

use super::world::*;

/// The browser's page posts its subscription for a user who has signed in.
async fn sign_in(world: &World, record: &SubscriptionRecord, user: &str) {
    let mut new = NewSubscription::new(record.subscription.clone(), record.vapid_key);
    new.principal = Some(Principal::from(user));
    let (limits, now) = (SubscriptionLimits::default(), world.clock.now());
    world.store.upsert(&new, &limits, now).await.unwrap();
}

async fn enqueue(world: &World, audience: Audience) -> BroadcastId {
    let queued = world.push.enqueue(audience, Message::new("for alice"));
    queued.await.unwrap().broadcast
}

#[tokio::test]
async fn a_message_that_waited_is_not_sent_to_the_next_user_of_a_browser() {
    let world = World::at(FCM).await;
    let (shared, record) = world.subscriber().await;
    let (own, other) = world.subscriber().await;
    for record in [&record, &other] {
        sign_in(&world, record, "alice").await;
    }
    let id = enqueue(&world, Audience::user("alice")).await;
    world.push.pause(id).await.unwrap();
    sign_in(&world, &record, "bob").await;
    world.push.resume(id).await.unwrap();
    world.settle().await;
    assert_eq!((shared.messages().len(), own.messages().len()), (0, 1));
    assert_eq!(world.asked(), 1);
    let end = world.status(id).await;
    assert_eq!(end.state, BroadcastState::Done);
    assert_eq!((end.counts.gone, end.counts.accepted), (1, 1));
    // It is still in the other audiences.
    enqueue(&world, Audience::user("bob")).await;
    enqueue(&world, Audience::id(record.id)).await;
    world.settle().await;
    assert_eq!((shared.messages().len(), world.asked()), (2, 3));
}

#[tokio::test]
async fn a_message_is_not_sent_again_to_the_next_user_of_a_browser() {
    let world = World::at(FCM).await;
    let (browser, record) = world.subscriber().await;
    sign_in(&world, &record, "alice").await;
    let endpoint = When::endpoint(record.subscription.endpoint());
    let failure = Answer::status(StatusCode::SERVICE_UNAVAILABLE);
    world.service.script(endpoint.times(1), failure);
    let id = enqueue(&world, Audience::user("alice")).await;
    world.settle().await;
    assert_eq!(world.status(id).await.counts.pending, 1);
    sign_in(&world, &record, "bob").await;
    world.clock.advance(60 * MINUTE);
    world.settle().await;
    assert_eq!((world.asked(), browser.messages().len()), (1, 0));
    assert_eq!(world.status(id).await.counts.gone, 1);
}
