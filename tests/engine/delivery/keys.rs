//! Each subscription gets its messages with the VAPID key that it was made with.

use std::sync::Arc;

use tower_web_push::vapid::VapidKey;

use super::world::*;

#[tokio::test]
async fn after_a_rotation_everyone_is_served_with_the_key_they_subscribed_with() {
    let world = World::at(FCM).await;
    let (old, _) = world.subscriber().await;
    world.push.rotate_vapid_key().await.unwrap();
    let (new, _) = world.subscriber().await;
    world.enqueue().await;
    world.settle().await;
    assert_eq!((old.messages().len(), new.messages().len()), (1, 1));
    assert!(world.service.refusals().is_empty());
}

#[tokio::test]
async fn a_row_that_names_the_wrong_key_is_served_with_another_live_one_and_keeps_it() {
    let world = World::at(FCM).await;
    let (browser, record) = world.subscriber().await;
    let right = record.vapid_key;
    let wrong = world.push.rotate_vapid_key().await.unwrap();
    let change = Change::UseVapidKey {
        key: record.subscription.endpoint().key(),
        vapid_key: wrong,
    };
    world
        .store
        .apply(&[change], world.clock.now())
        .await
        .unwrap();
    world.enqueue().await;
    world.settle().await;
    assert_eq!(browser.messages().len(), 1);
    assert_eq!(world.record(&record).await.vapid_key, right);
}

#[tokio::test]
async fn a_row_that_no_live_key_fits_is_stale_and_purged_after_thirty_days() {
    let world = World::at(FCM).await;
    let stranger = VapidKey::generate().unwrap();
    let browser = world.service.user_agent();
    let subscription = browser.subscribe(stranger.public_key()).unwrap();
    let active = KeyId::of(&world.push.vapid_public_key());
    let new = NewSubscription::new(subscription, active);
    world
        .store
        .upsert(&new, &SubscriptionLimits::default(), world.clock.now())
        .await
        .unwrap();
    world.clock.advance(2 * MINUTE);
    let broadcast = world.enqueue().await;
    world.settle().await;
    assert_eq!(world.status(broadcast).await.counts.key_mismatch, 1);
    let stale = CountFilter::new(Audience::All, Liveness::Stale);
    for (days, left) in [(0, 1), (29, 1), (2, 0)] {
        world.clock.advance(days * 24 * 60 * MINUTE);
        world.replica().await.tick().await.unwrap();
        let count = world.store.count(&stale, world.clock.now()).await;
        assert_eq!(count.unwrap(), left);
    }
}

#[tokio::test]
async fn a_401_of_wns_is_a_sender_fault_once_all_keys_are_refused() {
    let world = World::at(WNS).await;
    let (browser, record) = world.subscriber().await;
    world.push.rotate_vapid_key().await.unwrap();
    let unauthorized = Answer::status(StatusCode::UNAUTHORIZED);
    world.service.script(When::any().times(2), unauthorized);
    let broadcast = world.enqueue().await;
    world.settle().await;
    assert_eq!(world.asked(), 2);
    assert_eq!(world.status(broadcast).await.counts.pending, 1);
    assert!(world.record(&record).await.stale_since.is_none());
    world.clock.advance(MINUTE);
    world.settle().await;
    assert_eq!(browser.messages().len(), 1);
    assert_eq!(world.record(&record).await.vapid_key, record.vapid_key);
}

#[tokio::test]
async fn a_row_whose_key_another_process_has_just_made_is_not_stale() {
    let world = World::at(FCM).await;
    let other = world.replica().await;
    let subscribe = async |names: KeyId| {
        let browser = world.service.user_agent();
        let key = other.vapid_public_key();
        let new = NewSubscription::new(browser.subscribe(&key).unwrap(), names);
        let (limits, now) = (SubscriptionLimits::default(), world.clock.now());
        world.store.upsert(&new, &limits, now).await.unwrap();
        browser
    };
    // The store is read for an unknown key, and right after that there is a new one.
    subscribe(KeyId::from_bytes([7; KeyId::LEN])).await;
    let send = async || world.push.send(Audience::All, Message::new("x")).await;
    assert_eq!(send().await.unwrap().counts.accepted, 1);
    let new = other.rotate_vapid_key().await.unwrap();
    let browser = subscribe(new).await;
    send().await.unwrap();
    world.clock.advance(KeyRing::LOOK_AGAIN);
    send().await.unwrap();
    assert_eq!(browser.messages().len(), 1);
}

/// The public case h03: the keys are lost, the server makes a new one, and the old one comes back.
#[tokio::test]
async fn rows_whose_key_is_missing_are_not_judged_and_live_once_it_is_back() {
    let own = VapidKey::generate().unwrap();
    let again = VapidKey::from_secret_bytes(own.secret_bytes().as_slice()).unwrap();
    let world = World::with(FCM, |builder| builder.vapid_private_key(own)).await;
    let rows = world.subscribers(20).await;
    // Another key table: an empty volume, a container without one.
    let (table, keys) = (Arc::clone(&world.store), Arc::new(MemoryStore::new()));
    let server = |key: Option<VapidKey>| {
        let builder = WebPush::builder("mailto:ops@example.com")
            .store(Arc::clone(&keys))
            .subscriptions(Arc::clone(&table))
            .clock(world.clock.clone())
            .client(world.service.clone())
            .endpoint_policy(EndpointPolicy::public_hosts());
        let builder = match key {
            Some(key) => builder.vapid_private_key(key),
            None => builder,
        };
        async { builder.build().await.unwrap() }
    };
    let before = world.record(&rows[0].1).await;
    let lost = server(None).await;
    lost.enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    while !lost.tick().await.unwrap().is_idle() {}
    assert_eq!(world.service.counts().accepted, 0);
    assert_eq!(world.record(&rows[0].1).await, before, "nothing is written");
    drop(lost);

    let restored = server(Some(again)).await;
    let message = Message::new("y");
    let queued = restored.enqueue(Audience::All, message).await.unwrap();
    assert_eq!(queued.recipients, 20);
    while !restored.tick().await.unwrap().is_idle() {}
    let counts = restored.status(queued.broadcast).await.unwrap().unwrap();
    assert_eq!(counts.counts.accepted, 20);
}

/// A wrong key that the rows name fails at all of them, so few become stale.
#[tokio::test]
async fn not_all_rows_become_stale_at_once() {
    let world = World::at(FCM).await;
    world.subscribers(40).await;
    let mismatch = Answer::status(StatusCode::FORBIDDEN).with_body("MismatchSenderId");
    world.service.script(When::any(), mismatch);
    world.enqueue().await;
    world.settle().await;
    let stale = CountFilter::new(Audience::All, Liveness::Stale);
    let count = world.store.count(&stale, world.clock.now()).await.unwrap();
    assert!(count < 8, "{count}");
    world.service.clear_script();
    let broadcast = world.enqueue().await;
    world.settle().await;
    assert_eq!(world.status(broadcast).await.counts.accepted, 40 - count);
}
