//! What becomes of subscriptions that are gone.

use crate::world::*;

#[tokio::test]
async fn gone_retires_softly_and_the_audience_shrinks() {
    let world = World::at(FCM).await;
    let (browser, record) = world.subscriber().await;
    browser.unsubscribe();
    let queued = world
        .push
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    world.settle().await;
    assert_eq!(
        world.status(queued.broadcast).await.counts,
        counts(|counts| counts.gone = 1)
    );
    assert!(world.record(&record).await.retired.is_some());
    let again = world
        .push
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    assert_eq!(again.recipients, 0);
}

#[tokio::test]
async fn a_row_younger_than_a_minute_is_tried_again_before_it_is_retired() {
    let world = World::at(FCM).await;
    let (browser, record) = world.subscribe().await;
    world
        .service
        .script(When::any().times(1), Answer::status(StatusCode::GONE));
    let queued = world
        .push
        .enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    world.settle().await;
    assert_eq!(world.status(queued.broadcast).await.counts.pending, 1);
    assert!(world.record(&record).await.retired.is_none());
    world.clock.advance(MINUTE);
    world.settle().await;
    assert_eq!(world.status(queued.broadcast).await.counts.accepted, 1);
    assert_eq!(browser.messages().len(), 1);
}

/// So many subscribers, of whom these many are gone.
async fn partly_gone(world: &World, number: usize, gone: usize) -> BroadcastStatus {
    let rows = world.subscribers(number).await;
    // Spread over the order in which they are asked.
    let mut rows: Vec<_> = rows
        .iter()
        .map(|(browser, record)| (record.subscription.endpoint().key(), browser))
        .collect();
    rows.sort_by_key(|(key, _)| *key);
    let is_gone = |n: &usize| n * gone / number != (n + 1) * gone / number;
    for n in (0..number).filter(is_gone) {
        rows[n].1.unsubscribe();
    }
    let broadcast = world.enqueue().await;
    world.settle().await;
    world.status(broadcast).await
}

async fn retired(world: &World) -> u64 {
    let filter = CountFilter::new(Audience::All, Liveness::Retired);
    let now = world.clock.now();
    world.store.count(&filter, now).await.unwrap()
}

#[tokio::test]
async fn a_push_service_that_says_gone_of_45_percent_is_not_believed() {
    let world = World::at(FCM).await;
    let status = partly_gone(&world, 1_000, 450).await;
    assert_eq!(status.counts.gone, 450);
    assert_eq!(status.counts.accepted, 550);
    let first = retired(&world).await;
    assert!(first < 50, "{first} were retired before there was a sample");
    // Stored: a new process does not begin to retire either.
    let fresh = world.replica().await;
    fresh
        .enqueue(Audience::All, Message::new("y"))
        .await
        .unwrap();
    while !fresh.tick().await.unwrap().is_idle() {}
    assert_eq!(retired(&world).await, first);
}

#[tokio::test]
async fn one_push_service_that_is_not_believed_does_not_keep_the_others_dead() {
    let world = World::at(FCM).await;
    partly_gone(&world, 100, 60).await;
    let before = retired(&world).await;
    let apple = Origin::parse(APPLE).unwrap();
    let browser = world.service.user_agent_at(&apple);
    let key = world.push.vapid_public_key();
    let new = NewSubscription::new(browser.subscribe(&key).unwrap(), KeyId::of(&key));
    let (limits, now) = (SubscriptionLimits::default(), world.clock.now());
    world.store.upsert(&new, &limits, now).await.unwrap();
    browser.unsubscribe();
    world.clock.advance(2 * MINUTE);
    world.enqueue().await;
    world.settle().await;
    assert_eq!(retired(&world).await, before + 1);
}

#[tokio::test]
async fn a_usual_share_of_gone_is_retired_to_the_last() {
    let world = World::at(FCM).await;
    let status = partly_gone(&world, 200, 50).await;
    assert_eq!(status.counts.gone, 50);
    assert_eq!(retired(&world).await, 50);
}

#[tokio::test]
async fn whoever_knows_better_has_all_of_them_retired() {
    let world = World::with(FCM, |builder| builder.retire_at_most(100)).await;
    partly_gone(&world, 100, 90).await;
    assert_eq!(retired(&world).await, 90);
}

#[tokio::test]
async fn retiring_goes_on_when_the_push_service_has_recovered() {
    let world = World::at(FCM).await;
    world.subscribers(100).await;
    world
        .service
        .script(When::any(), Answer::status(StatusCode::NOT_FOUND));
    world.enqueue().await;
    world.settle().await;
    let lost = retired(&world).await;
    assert!(lost < 50 + 8, "{lost}");
    world.service.clear_script();
    // The others were kept, and are well.
    for _ in 0..25 {
        world.enqueue().await;
        world.settle().await;
    }
    let (browser, record) = world.subscriber().await;
    browser.unsubscribe();
    world.enqueue().await;
    world.settle().await;
    assert!(world.record(&record).await.retired.is_some());
}

#[tokio::test]
async fn what_is_retired_is_purged_after_thirty_days_and_revived_before() {
    let world = World::at(FCM).await;
    let (browser, record) = world.subscriber().await;
    let (_, other) = world.subscriber().await;
    let gone = Answer::status(StatusCode::GONE);
    world.service.script(When::any(), gone);
    world.enqueue().await;
    world.settle().await;
    assert_eq!(retired(&world).await, 2);
    // Its page posts it again.
    let new = NewSubscription::new(browser.subscription().unwrap(), record.vapid_key);
    let (limits, now) = (SubscriptionLimits::default(), world.clock.now());
    world.store.upsert(&new, &limits, now).await.unwrap();
    assert_eq!(world.record(&record).await.id, record.id);
    world.clock.advance(31 * 24 * 60 * MINUTE);
    let fresh = world.replica().await;
    fresh.tick().await.unwrap();
    assert_eq!(retired(&world).await, 0);
    assert!(world.record(&record).await.retired.is_none());
    let found = world.store.get(&[SubscriptionRef::Id(other.id)]).await;
    assert_eq!(found.unwrap(), [None]);
}
