//! Subscriptions that are gone.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use async_trait::async_trait;
use http::Request;
use tower::{ServiceExt as _, service_fn};
use tower_web_push::deliver::{Outcome, ResolveError, ResolveErrorKind, Resolver};
use tower_web_push::engine::DeviceState;
use tower_web_push::error::BoxError;
use tower_web_push::push_request::PushBody;
use tower_web_push::store::{RetireReason, Retired};

use super::world::*;

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

/// This number of subscriptions, some of which are gone.
async fn partly_gone(world: &World, number: usize, gone: usize) -> BroadcastStatus {
    let rows = world.subscribers(number).await;
    // Spread over the order of the requests.
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
async fn pruning_is_suspended_at_45_percent_gone() {
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
async fn pruning_suspended_for_one_push_service_goes_on_for_others() {
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
async fn with_a_limit_of_100_percent_all_are_retired() {
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
    // The others were kept.
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

#[tokio::test]
async fn what_expired_is_purged_a_day_later() {
    let world = World::at(FCM).await;
    let (_, record) = world.subscriber().await;
    let now = world.clock.now();
    let mut new = NewSubscription::new(record.subscription.clone(), record.vapid_key);
    new.subscription = new.subscription.with_expiration_time(Some(now + HOUR));
    new.principal = Some("alice".into());
    let limits = SubscriptionLimits::default();
    world.store.upsert(&new, &limits, now).await.unwrap();
    for (hours, is_left) in [(24, true), (2, false)] {
        world.clock.advance(hours * HOUR);
        world.replica().await.tick().await.unwrap();
        let found = world.store.get(&[SubscriptionRef::Id(record.id)]).await;
        assert_eq!(found.unwrap()[0].is_some(), is_left);
    }
}

#[tokio::test]
async fn what_nobody_owns_is_purged_within_a_minute_of_its_expiration() {
    let world = World::at(FCM).await;
    let (_, record) = world.subscriber().await;
    let (_, owned) = world.subscriber().await;
    let now = world.clock.now();
    let limits = SubscriptionLimits::default();
    for (row, principal) in [(&record, None), (&owned, Some("alice".into()))] {
        let mut new = NewSubscription::new(row.subscription.clone(), row.vapid_key);
        new.subscription = new.subscription.with_expiration_time(Some(now + HOUR));
        new.principal = principal;
        world.store.upsert(&new, &limits, now).await.unwrap();
    }
    let push = world.replica().await;
    push.tick().await.unwrap();
    world.clock.advance(HOUR);
    push.tick().await.unwrap();
    let ids = [&record, &owned].map(|row| SubscriptionRef::Id(row.id));
    let found = world.store.get(&ids).await.unwrap();
    assert_eq!(found[0], None);
    assert_eq!(reason(&world, &owned).await, Some(RetireReason::Expired));
    let devices = push.devices(&"alice".into()).await.unwrap();
    assert_eq!(devices[0].state, DeviceState::Expired);
}

const HOUR: Duration = Duration::from_secs(3600);

/// A replica whose client resolves no host below `example.com`.
async fn blind(world: &World) -> WebPush {
    let service = world.service.clone();
    let client = service_fn(move |request: Request<PushBody>| {
        let service = service.clone();
        async move {
            if request.uri().host().unwrap().ends_with(".example.com") {
                return Err(ResolveError::from(ResolveErrorKind::NotFound).into());
            }
            service.oneshot(request).await.map_err(BoxError::from)
        }
    });
    world.replica_with(|builder| builder.client(client)).await
}

async fn subscriber_at(world: &World, origin: &str) -> SubscriptionRecord {
    let browser = world.service.user_agent_at(&Origin::parse(origin).unwrap());
    let key = world.push.vapid_public_key();
    let new = NewSubscription::new(browser.subscribe(&key).unwrap(), KeyId::of(&key));
    let (limits, now) = (SubscriptionLimits::default(), world.clock.now());
    match world.store.upsert(&new, &limits, now).await.unwrap() {
        Upserted::Stored { record, .. } => *record,
        Upserted::Conflict => panic!("a new endpoint has no conflict"),
    }
}

async fn reason(world: &World, record: &SubscriptionRecord) -> Option<RetireReason> {
    let retired = world.record(record).await.retired;
    retired.map(|Retired { reason, .. }| reason)
}

/// A message to everyone each day, with all its attempts.
async fn daily(world: &World, push: &WebPush, days: u32) {
    for _ in 0..days {
        push.enqueue(Audience::All, Message::new("x"))
            .await
            .unwrap();
        for _ in 0..24 {
            while !push.tick().await.unwrap().is_idle() {}
            world.clock.advance(HOUR);
        }
    }
}

#[tokio::test]
async fn a_row_whose_host_does_not_exist_is_retired_after_a_day_and_no_other() {
    let world = World::at(FCM).await;
    let push = blind(&world).await;
    let invented = subscriber_at(&world, "https://x.example.com").await;
    let accepted_before = subscriber_at(&world, "https://y.example.com").await;
    let (_, real) = world.subscriber().await;
    let accepted = Change::Accepted(accepted_before.subscription.endpoint().key());
    let now = world.clock.now();
    world.store.apply(&[accepted], now).await.unwrap();
    daily(&world, &push, 1).await;
    assert_eq!(reason(&world, &invented).await, None);
    let attempts = world.record(&invented).await.failure_streak;
    assert!((3..=6).contains(&attempts), "{attempts} attempts in a day");
    daily(&world, &push, 1).await;
    assert_eq!(
        reason(&world, &invented).await,
        Some(RetireReason::HostNotFound)
    );
    // That name has been reached: it takes weeks.
    daily(&world, &push, 18).await;
    assert_eq!(reason(&world, &accepted_before).await, None);
    daily(&world, &push, 2).await;
    assert_eq!(
        reason(&world, &accepted_before).await,
        Some(RetireReason::HostNotFound)
    );
    assert_eq!(reason(&world, &real).await, None);
}

/// The row was registered long ago, by its page or in the list of another server, but its failures are minutes old.
#[tokio::test]
async fn many_messages_in_a_minute_do_not_retire_a_row_whose_host_does_not_exist() {
    let world = World::at(FCM).await;
    let blind = blind(&world).await;
    let record = subscriber_at(&world, "https://x.example.com").await;
    world.clock.advance(48 * HOUR);
    for _ in 0..20 {
        let message = Message::new("x").with_ttl(Ttl::from_secs(60));
        blind.enqueue(Audience::All, message).await.unwrap();
        while !blind.tick().await.unwrap().is_idle() {}
        world.clock.advance(Duration::from_secs(3));
    }
    assert_eq!(world.record(&record).await.failure_streak, 20);
    assert_eq!(reason(&world, &record).await, None);
}

#[tokio::test]
async fn a_name_that_exists_again_is_sent_to() {
    let world = World::at(FCM).await;
    let blind = blind(&world).await;
    let record = subscriber_at(&world, "https://x.example.com").await;
    daily(&world, &blind, 1).await;
    daily(&world, &world.push, 1).await;
    let record = world.record(&record).await;
    assert_eq!((record.retired, record.failure_streak), (None, 0));
}

/// The remaining rows after the push service has refused every message for a month.
async fn refused_for_weeks(world: &World, status: StatusCode) {
    world.service.script(When::any(), Answer::status(status));
    daily(world, &world.push, 30).await;
}

#[tokio::test]
async fn an_endpoint_that_answers_400_or_405_to_every_message_for_weeks_is_retired() {
    for status in [StatusCode::BAD_REQUEST, StatusCode::METHOD_NOT_ALLOWED] {
        let world = World::at(FCM).await;
        let (_, record) = world.subscriber().await;
        world.service.script(When::any(), Answer::status(status));
        daily(&world, &world.push, 20).await;
        assert_eq!(reason(&world, &record).await, None, "{status}");
        daily(&world, &world.push, 3).await;
        let retired = reason(&world, &record).await;
        assert_eq!(retired, Some(RetireReason::BadRequest), "{status}");
    }
}

/// Weeks without a message prove nothing.
#[tokio::test]
async fn an_hour_of_400_after_quiet_weeks_retires_none() {
    let world = World::at(FCM).await;
    let (_, record) = world.subscriber().await;
    daily(&world, &world.push, 1).await;
    world.clock.advance(30 * 24 * HOUR);
    let bad = Answer::status(StatusCode::BAD_REQUEST);
    world.service.script(When::any(), bad);
    for _ in 0..20 {
        world.enqueue().await;
        world.settle().await;
        world.clock.advance(MINUTE);
    }
    assert_eq!(world.record(&record).await.failure_streak, 20);
    assert_eq!(reason(&world, &record).await, None);
}

#[tokio::test]
async fn an_endpoint_that_answers_anything_else_for_weeks_is_kept() {
    for status in [
        StatusCode::FOUND,
        StatusCode::PAYMENT_REQUIRED,
        StatusCode::BAD_GATEWAY,
    ] {
        let world = World::at(FCM).await;
        let (_, record) = world.subscriber().await;
        refused_for_weeks(&world, status).await;
        assert_eq!(reason(&world, &record).await, None, "{status}");
    }
}

#[tokio::test]
async fn one_acceptance_in_weeks_keeps_an_endpoint_that_answers_400() {
    let world = World::at(FCM).await;
    let (_, record) = world.subscriber().await;
    let bad = Answer::status(StatusCode::BAD_REQUEST);
    world.service.script(When::any(), bad.clone());
    daily(&world, &world.push, 15).await;
    world.service.clear_script();
    daily(&world, &world.push, 1).await;
    world.service.script(When::any(), bad);
    daily(&world, &world.push, 15).await;
    assert_eq!(reason(&world, &record).await, None);
}

#[tokio::test]
async fn a_push_service_that_answers_400_to_all_retires_none() {
    let world = World::at(FCM).await;
    world.subscribers(12).await;
    refused_for_weeks(&world, StatusCode::BAD_REQUEST).await;
    assert_eq!(retired(&world).await, 0);
}

/// A resolver with one address, where nothing listens, and one error for all other names. It counts the lookups.
#[derive(Clone, Debug)]
struct Says {
    kind: ResolveErrorKind,
    asked: Arc<AtomicUsize>,
}

#[async_trait]
impl Resolver for Says {
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if host == "found.push.apple.com" {
            return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
        }
        self.asked.fetch_add(1, Relaxed);
        Err(self.kind.into())
    }
}

/// Lookups in the two minutes after a message to this number of rows, each at a name of its own.
async fn lookups_in_two_minutes(rows: usize, kind: ResolveErrorKind) -> usize {
    let world = World::at(FCM).await;
    let resolver = Says {
        kind,
        asked: Arc::default(),
    };
    let push = WebPush::builder("mailto:ops@example.com")
        .store(Arc::clone(&world.store))
        .clock(world.clock.clone())
        .resolver(resolver.clone())
        .endpoint_policy(EndpointPolicy::insecure_allow_local())
        .build()
        .await
        .unwrap();
    let found = subscriber_at(&world, "https://found.push.apple.com").await;
    let failed = push.deliver(&found.subscription, Message::new("x")).await;
    assert_eq!(failed.unwrap_err().outcome(), Outcome::Transient);
    for number in 0..rows {
        subscriber_at(&world, &format!("https://x{number}.push.apple.com")).await;
    }
    push.enqueue(Audience::All, Message::new("x"))
        .await
        .unwrap();
    for _ in 0..120 {
        while !push.tick().await.unwrap().is_idle() {}
        world.clock.advance(Duration::from_secs(1));
    }
    resolver.asked.load(Relaxed)
}

/// Paused: after a failed dial the next one waits.
#[tokio::test(start_paused = true)]
async fn invented_names_are_looked_up_once_in_two_minutes() {
    let rows = 300;
    let lookups = lookups_in_two_minutes(rows, ResolveErrorKind::NotFound).await;
    assert_eq!(lookups, rows);
    // Temporary failures are retried as often as before.
    let lookups = lookups_in_two_minutes(rows, ResolveErrorKind::Temporary).await;
    assert!(lookups > 4 * rows, "{lookups} lookups");
    eprintln!("{lookups} lookups for {rows} rows while nothing is known of them");
}
