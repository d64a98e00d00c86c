//! Each subscription gets its messages with the VAPID key that it was made with.

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
    let stranger = tower_web_push::vapid::VapidKey::generate().unwrap();
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
