//! What is written when a message is accepted.

use std::ops::Range;

use super::super::expand::expand;
use super::super::test_world::{START, World};
use super::super::worker::Worker;
use super::*;
use crate::broadcast::{Audience, BroadcastState, Principal};
use crate::clock::Timestamp;
use crate::message::Message;
use crate::store::{
    Change, ClaimRequest, Cursor, DeliveryLedger as _, NewSubscription, SubscriptionLimits,
    SubscriptionRef, SubscriptionStore as _,
};
use crate::subscription::{EndpointKey, Subscription, SubscriptionId};

async fn id_of(world: &World, key: EndpointKey) -> SubscriptionId {
    world.record(key).await.id
}

/// The number of rows that a claim finds without any expansion.
async fn claimable(world: &World) -> usize {
    let request = ClaimRequest::new(999, Duration::from_secs(1));
    let claims = world.store.claim(&request, START).await.unwrap();
    let tokens: Vec<_> = claims.rows.iter().map(|row| row.token).collect();
    world.store.release(&tokens, START).await.unwrap();
    tokens.len()
}

/// Subscribes browsers of one user at another origin.
async fn subscribe(world: &World, user: &str, numbers: Range<usize>) -> Vec<SubscriptionId> {
    let first = world.subscriber().await;
    let record = world.record(first).await;
    let limits = SubscriptionLimits {
        per_principal: 999,
        ..SubscriptionLimits::default()
    };
    let mut ids = Vec::new();
    for number in numbers {
        let endpoint = format!("https://push.example.net/{number}");
        let subscription = Subscription::new(
            endpoint.parse().unwrap(),
            *record.subscription.ua_public(),
            record.subscription.auth().clone(),
        );
        let mut new = NewSubscription::new(subscription, record.vapid_key);
        new.principal = Some(Principal::from(user));
        world.store.upsert(&new, &limits, START).await.unwrap();
        ids.push(new.id);
    }
    ids
}

#[tokio::test]
async fn a_small_audience_is_written_with_its_broadcast() {
    let world = World::new().await;
    let ids = subscribe(&world, "alice", 0..3).await;
    let unknown = SubscriptionId::from_bytes([7; 16]);
    let audiences = [
        (Audience::user("alice"), 3),
        (Audience::user("bob"), 0),
        (Audience::Ids(vec![ids[0], ids[0], unknown]), 1),
        (Audience::Ids(vec![ids[0], ids[1]]), 2),
    ];
    let mut rows = 0;
    for (audience, recipients) in audiences {
        let broadcast = Broadcast::to(audience, Message::new("x"));
        let queued = world.engine.enqueue(broadcast).await.unwrap();
        assert_eq!(queued.recipients, recipients);
        rows += usize::try_from(recipients).unwrap();
        assert_eq!(claimable(&world).await, rows);
        let status = world.engine.status(queued.broadcast).await.unwrap();
        let status = status.unwrap();
        assert_eq!(status.recipients, recipients);
        let state = match recipients {
            0 => BroadcastState::Done,
            _ => BroadcastState::Sending,
        };
        assert_eq!(status.state, state);
    }
    assert_eq!(world.store.expandable(9, START).await.unwrap(), []);
}

#[tokio::test]
async fn an_audience_that_may_be_large_or_is_resolved_later_is_expanded() {
    let world = World::new().await;
    let ids = subscribe(&world, "alice", 0..2).await;
    let many = ids.iter().copied().cycle().take(100).collect();
    let later = Broadcast::to(Audience::user("alice"), Message::new("x"));
    let later = later.at(START + Duration::from_secs(9));
    for broadcast in [
        Broadcast::to(Audience::All, Message::new("x")),
        Broadcast::to(Audience::Ids(many), Message::new("x")),
        later,
    ] {
        world.engine.enqueue(broadcast).await.unwrap();
        assert_eq!(claimable(&world).await, 0);
    }
    let due = START + Duration::from_secs(9);
    assert_eq!(world.store.expandable(9, due).await.unwrap().len(), 3);
}

/// Its first page is written at once, and the others by the worker.
#[tokio::test]
async fn a_user_with_very_many_subscriptions_is_expanded_behind_the_first_page() {
    let world = World::new().await;
    subscribe(&world, "alice", 0..130).await;
    let broadcast = Broadcast::to(Audience::user("alice"), Message::new("x"));
    let queued = world.engine.enqueue(broadcast).await.unwrap();
    assert_eq!(queued.recipients, 130);
    assert_eq!(claimable(&world).await, 100);
    let left = world.store.expandable(9, START).await.unwrap();
    assert!(matches!(left[0].cursor, Cursor::After(_)));
    let expanded = expand(&world.engine, START).await;
    assert_eq!(expanded.unwrap(), 30);
    assert_eq!(claimable(&world).await, 130);
}

/// It is in no row of a message that was accepted before it came, and its row ends as gone if it went.
#[tokio::test]
async fn a_subscription_that_comes_or_goes_behind_the_first_page_is_as_one_behind_any_page() {
    let world = World::new().await;
    let ids = subscribe(&world, "alice", 0..1).await;
    let broadcast = Broadcast::to(Audience::user("alice"), Message::new("x"));
    let queued = world.engine.enqueue(broadcast).await.unwrap();
    let record = world
        .store
        .get(&[SubscriptionRef::Id(ids[0])])
        .await
        .unwrap();
    let key = record[0].as_ref().unwrap().subscription.endpoint().key();
    let gone = Change::Delete {
        key,
        principal: Some(Principal::from("alice")),
        observed_at: Timestamp::MAX,
    };
    assert_eq!(world.store.apply(&[gone], START).await.unwrap(), 1);
    subscribe(&world, "alice", 1..2).await;
    let mut worker = Worker::new(world.engine.clone());
    assert_eq!(worker.step().await.claimed, 1);
    worker.settle().await.unwrap();
    let counts = world.counts(queued.broadcast).await;
    assert_eq!((counts.gone, counts.pending), (1, 0));
    assert_eq!(world.service.counts().requests, 0);
}

/// The store cannot read a recipient: the message is accepted, and its broadcast is parked until it can be read.
#[tokio::test]
async fn a_recipient_that_cannot_be_read_does_not_keep_a_message_from_being_accepted() {
    let world = World::new().await;
    let key = world.subscriber().await;
    let id = id_of(&world, key).await;
    world.table.unreadable.lock().unwrap().insert(key);
    let broadcast = Broadcast::to(Audience::Ids(vec![id]), Message::new("x"));
    let queued = world.engine.enqueue(broadcast).await.unwrap();
    assert_eq!((queued.recipients, claimable(&world).await), (1, 0));
    world.table.unreadable.lock().unwrap().clear();
    let expanded = expand(&world.engine, START).await;
    assert_eq!(expanded.unwrap(), 1);
}

/// While it is not known whether a jump of the clock is right, a message lives until the later of the two deadlines.
#[tokio::test]
async fn a_deadline_counts_from_the_later_clock_while_clocks_disagree() {
    let day = Duration::from_secs(86_400);
    let second = Duration::from_secs(1);
    for (jumped, later) in [(START + day, START + day), (START - day, START + second)] {
        let world = World::new().await;
        world.clock.tick(second);
        assert_eq!(world.engine.now(), START + second);
        world.clock.set(jumped);
        assert!(world.engine.clock.fault().is_some());
        let message = Message::new("x");
        let ttl = message.ttl();
        let broadcast = Broadcast::to(Audience::All, message);
        let queued = world.engine.enqueue(broadcast).await.unwrap();
        let status = world.store.status(queued.broadcast, START).await;
        assert_eq!(status.unwrap().unwrap().deadline, ttl.deadline(later));
    }
}

/// The end of a broadcast is told by what was cancelled, also if its state before is not known.
#[tokio::test]
async fn recipients_are_counted_as_cancelled_by_the_first_call() {
    let world = World::new().await;
    subscribe(&world, "alice", 0..3).await;
    let broadcast = Broadcast::to(Audience::user("alice"), Message::new("x"));
    let id = world.engine.enqueue(broadcast).await.unwrap().broadcast;
    let before = world.engine.status(id).await.unwrap();
    let after = world.engine.cancel(id).await.unwrap();
    for (before, cancelled) in [(&before, 3 + 2), (&None, 3 + 2), (&after, 0)] {
        let counted = count_cancelled(before.as_ref(), after.as_ref(), 2);
        assert_eq!(counted, cancelled, "{before:?}");
    }
}
