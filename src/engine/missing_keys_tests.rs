//! Rows and keys that come back while a key is given up.

use std::time::Duration;

use super::super::test_world::{Meanwhile, START, World};
use super::*;
use crate::schedule::{Daily, DailyTime, NotifyType};
use crate::store::{NewSubscription, StoredVapidKey, SubscriptionLimits, SubscriptionStore as _};
use crate::subscription::EndpointKey;
use crate::vapid::{KeyEncryptionKeys, VapidKey};

/// A row that was made with a key that the store does not have.
async fn with_a_lost_key(world: &World) -> (EndpointKey, VapidKey) {
    let lost = VapidKey::generate().unwrap();
    let browser = world.service.user_agent();
    let subscription = browser.subscribe(lost.public_key()).unwrap();
    let key = subscription.endpoint().key();
    let new = NewSubscription::new(subscription, lost.id());
    let earlier = START - Duration::from_secs(3600);
    let limits = SubscriptionLimits::default();
    world.store.upsert(&new, &limits, earlier).await.unwrap();
    (key, lost)
}

#[tokio::test]
async fn a_browser_that_registers_again_meanwhile_is_not_given_up() {
    let world = World::new().await;
    let (key, lost) = with_a_lost_key(&world).await;
    let row = world.record(key).await;
    let active = world.engine.key_ring.active().id();
    let mut again = NewSubscription::new(row.subscription, active);
    again.vapid_key = Some(active);
    let daily = Daily::new(NotifyType::DailyCheck, DailyTime::new(9, 0).unwrap(), None);
    *world.table.meanwhile.lock().unwrap() = Some(Meanwhile {
        subscription: again,
        schedule: daily.unwrap().schedule(row.id, START).unwrap(),
    });
    assert_eq!(world.engine.give_up_key(lost.id()).await.unwrap(), 0);
    assert!(world.table.meanwhile.lock().unwrap().is_none());
    let row = world.record(key).await;
    assert_eq!((row.vapid_key, row.stale_since), (active, None));
}

#[tokio::test]
async fn a_key_that_comes_back_meanwhile_is_not_given_up() {
    let world = World::new().await;
    let (key, lost) = with_a_lost_key(&world).await;
    let sealed = KeyEncryptionKeys::none().seal(&lost).unwrap();
    let stored = StoredVapidKey::new(lost.id(), *lost.public_key(), sealed, START, false);
    *world.table.key_meanwhile.lock().unwrap() = Some(stored);
    let refused = world.engine.give_up_key(lost.id()).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Misconfigured);
    assert_eq!(world.record(key).await.stale_since, None);
}
