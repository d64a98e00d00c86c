//! Every limit of a delivery, from both sides: a value at the limit passes, one more does not.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::sleep;
use tower_web_push::engine::SendErrorKind;
use tower_web_push::error::BoxError;
use tower_web_push::schedule::{Compose, DailyTime, Schedule, ScheduleLabel};
use tower_web_push::store::{Failure, RetireReason};
use tower_web_push::vapid::Contact;
use tower_web_push::{Broadcast, BuildErrorKind, RunErrorKind};

use super::world::*;
use crate::support::tampered_store::TamperedStore;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn a_payload_has_3993_octets_at_most_in_every_call() {
    let world = World::at(FCM).await;
    let (browser, record) = world.subscriber().await;
    let push = &world.push;
    let later = world.clock.now() + HOUR;
    let label = || ScheduleLabel::parse("daily").unwrap();
    let nine = DailyTime::new(9, 0).unwrap();
    for (len, fits) in [(3993, true), (3994, false)] {
        let message = || Message::new(vec![b'x'; len]);
        let accepted = [
            push.enqueue(Audience::All, message()).await.is_ok(),
            push.enqueue_broadcast(Broadcast::to(Audience::All, message()).at(later))
                .await
                .is_ok(),
            push.send(Audience::All, message()).await.is_ok(),
            push.deliver(&record.subscription, message()).await.is_ok(),
            push.schedule(label(), nine.clone(), Audience::All, message())
                .await
                .is_ok(),
        ];
        assert_eq!(accepted, [fits; 5], "{len}");
    }
    world.settle().await;
    assert_eq!(browser.messages().len(), 3);
}

#[tokio::test]
async fn a_message_is_accepted_30_days_ahead_at_most() {
    let world = World::at(FCM).await;
    let now = world.clock.now();
    let at = async |at| {
        let broadcast = Broadcast::to(Audience::All, Message::new("x")).at(at);
        let queued = world.push.enqueue_broadcast(broadcast);
        queued.await.err().map(|error| error.kind())
    };
    assert_eq!(at(now + 30 * DAY).await, None);
    let refused = at(now + 30 * DAY + MS).await;
    assert_eq!(refused, Some(SendErrorKind::SendAtTooFarAhead));
}

#[tokio::test]
async fn a_retired_row_is_kept_for_30_days() {
    for (after, kept) in [(30 * DAY, true), (30 * DAY + MS, false)] {
        let world = World::at(FCM).await;
        let (_, record) = world.subscriber().await;
        let gone = Answer::status(StatusCode::GONE);
        world.service.script(When::any(), gone);
        world.enqueue().await;
        world.settle().await;
        let retired = world.record(&record).await.retired.expect("it is gone");
        world.clock.set(retired.at + after);
        world.push.tick().await.unwrap();
        let found = world.store.get(&[SubscriptionRef::Id(record.id)]).await;
        assert_eq!(found.unwrap()[0].is_some(), kept, "{after:?}");
    }
}

#[tokio::test]
async fn the_status_of_a_broadcast_is_kept_for_seven_days() {
    for (after, kept) in [(7 * DAY, true), (7 * DAY + MS, false)] {
        let world = World::at(FCM).await;
        world.subscriber().await;
        let id = world.enqueue().await;
        world.settle().await;
        assert_eq!(world.status(id).await.state, BroadcastState::Done);
        world.clock.advance(after);
        world.push.tick().await.unwrap();
        let status = world.push.status(id).await.unwrap();
        assert_eq!(status.is_some(), kept, "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_is_awaited_for_15_seconds_by_default() {
    for (timeout, limit) in [(None, 15 * SECOND), (Some(4 * SECOND), 4 * SECOND)] {
        for (after, accepted) in [(limit - MS, true), (limit + MS, false)] {
            let world = World::with(FCM, |builder| match timeout {
                Some(timeout) => builder.request_timeout(timeout),
                None => builder,
            });
            let world = world.await;
            world.subscriber().await;
            let answer = Answer::ordinary().after(after);
            world.service.script(When::any(), answer);
            let report = world.push.send(Audience::All, Message::new("x")).await;
            let report = report.unwrap();
            assert_eq!(report.counts.accepted, u64::from(accepted), "{after:?}");
            let reasons = report.failures.iter().map(|failure| failure.error.reason());
            let expected = (!accepted).then_some(Some("timeout"));
            assert_eq!(reasons.collect::<Vec<_>>(), Vec::from_iter(expected));
        }
    }
}

/// A slow callback.
#[derive(Debug)]
struct Thoughtful(Duration);

#[async_trait]
impl Compose for Thoughtful {
    async fn compose(&self, _: &Schedule, message: Message) -> Result<Option<Message>, BoxError> {
        sleep(self.0).await;
        Ok(Some(message))
    }
}

#[tokio::test(start_paused = true)]
async fn a_callback_has_ten_seconds() {
    let limit = 10 * SECOND;
    for (after, expected) in [(limit - MS, (1, 0)), (limit + MS, (0, 1))] {
        let world = World::with(FCM, |builder| builder.compose(Thoughtful(after))).await;
        world.subscriber().await;
        let label = ScheduleLabel::parse("daily").unwrap();
        let nine = DailyTime::new(9, 0).unwrap();
        let push = &world.push;
        push.schedule(label, nine, Audience::All, Message::new("x"))
            .await
            .unwrap();
        world.clock.advance(HOUR);
        let tick = push.tick().await.unwrap();
        assert_eq!((tick.fired, tick.skipped), expected, "{after:?}");
    }
}

#[tokio::test]
async fn an_occurrence_is_sent_24_hours_late_at_most() {
    for (late, expected) in [(DAY, (1, 0)), (DAY + MS, (0, 1))] {
        let world = World::at(FCM).await;
        world.subscriber().await;
        let label = ScheduleLabel::parse("weekly").unwrap();
        let friday = tower_web_push::schedule::Weekdays::parse(["fri"]).unwrap();
        let nine = DailyTime::new(9, 0).unwrap().on(friday);
        let push = &world.push;
        push.schedule(label, nine.clone(), Audience::All, Message::new("x"))
            .await
            .unwrap();
        let due = nine.first_after(world.clock.now()).unwrap();
        world.clock.set(due + late);
        let tick = push.tick().await.unwrap();
        assert_eq!((tick.fired, tick.skipped), expected, "{late:?}");
    }
}

#[tokio::test]
async fn a_clock_may_differ_from_the_servers_by_ten_seconds() {
    let world = World::at(FCM).await;
    let store = Arc::new(TamperedStore::over(&world.store));
    let now = world.clock.now();
    let limit = 10 * SECOND;
    for (server, fits) in [
        (now + limit, true),
        (now + limit + MS, false),
        (now - limit, true),
        (now - limit - MS, false),
    ] {
        store.set_server_time(server);
        let builder = WebPush::builder("mailto:ops@example.com").clock(world.clock.clone());
        let built = builder.store(Arc::clone(&store)).build().await;
        let refused = built.err().map(|error| error.kind());
        assert_eq!(refused, (!fits).then_some(BuildErrorKind::ClockSkew));

        store.set_server_time(now);
        let push = world
            .replica_with(|builder| builder.store(Arc::clone(&store)))
            .await;
        store.set_server_time(server);
        let ended = push.run(std::future::ready(())).await;
        let refused = ended.err().map(|error| error.kind());
        assert_eq!(refused, (!fits).then_some(RunErrorKind::ClockSkew));
    }
}

#[tokio::test]
async fn nothing_is_purged_while_the_clock_differs_from_the_servers() {
    let world = World::at(FCM).await;
    let store = Arc::new(TamperedStore::over(&world.store));
    store.set_server_time(world.clock.now());
    let push = world
        .replica_with(|builder| builder.store(Arc::clone(&store)))
        .await;
    let (_, row) = world.subscriber().await;
    let now = world.clock.now();
    let key = row.subscription.endpoint().key();
    let retire = Change::Retire {
        key,
        reason: RetireReason::Gone,
        observed_at: now,
        failure: Failure::default(),
    };
    world.store.apply(&[retire], now).await.unwrap();
    let is_there = async || {
        let rows = world.store.get(&[SubscriptionRef::Key(key)]).await;
        rows.unwrap()[0].is_some()
    };
    world.clock.advance(40 * DAY);
    push.tick().await.unwrap();
    assert!(is_there().await, "only this machine says that it is old");
    store.set_server_time(world.clock.now());
    let other = world
        .replica_with(|builder| builder.store(Arc::clone(&store)))
        .await;
    other.tick().await.unwrap();
    assert!(!is_there().await);
}

#[tokio::test]
async fn shared_pauses_are_read_again_after_five_seconds() {
    for (after, asks) in [(5 * SECOND - MS, true), (5 * SECOND, false)] {
        let world = World::at(FCM).await;
        world.subscriber().await;
        let send = async || world.push.send(Audience::All, Message::new("x")).await;
        send().await.unwrap();
        let now = world.clock.now();
        let origin = Origin::parse(FCM).unwrap();
        let pause = Pause::new(origin, now + HOUR, PauseReason::RateLimited);
        world.store.pause(&pause, now).await.unwrap();
        world.clock.advance(after);
        let report = send().await.unwrap();
        assert_eq!(report.counts.accepted, u64::from(asks), "{after:?}");
    }
}

#[tokio::test]
async fn a_row_whose_keys_are_younger_than_a_minute_is_not_retired() {
    for (age, retired) in [(MINUTE - MS, false), (MINUTE, true)] {
        let world = World::at(FCM).await;
        let (browser, record) = world.subscribe().await;
        world.clock.advance(age);
        assert!(browser.unsubscribe());
        world.enqueue().await;
        world.push.tick().await.unwrap();
        let row = world.record(&record).await;
        assert_eq!(row.retired.is_some(), retired, "{age:?}");
    }
}

#[tokio::test]
async fn a_report_names_32_failures_at_most_and_counts_all() {
    for (subscribers, named) in [(32, 32), (33, 32)] {
        let world = World::at(FCM).await;
        world.subscribers(subscribers).await;
        let refused = Answer::status(StatusCode::BAD_REQUEST);
        world.service.script(When::any(), refused);
        let report = world.push.send(Audience::All, Message::new("x")).await;
        let report = report.unwrap();
        assert_eq!(report.failures.len(), named);
        assert_eq!(report.counts.bad_request, subscribers as u64);
    }
}

#[tokio::test]
async fn a_message_is_attempted_24_times_by_default() {
    let world = World::at(FCM).await;
    let (_, record) = world.subscriber().await;
    let down = Answer::status(StatusCode::INTERNAL_SERVER_ERROR);
    world.service.script(When::any(), down);
    let month = Message::new("x").with_ttl(Ttl::SAFE_MAX);
    let queued = world.push.enqueue(Audience::All, month).await.unwrap();
    for attempt in 1..=24 {
        world.settle().await;
        assert_eq!(world.asked(), attempt);
        let status = world.status(queued.broadcast).await;
        assert_eq!(status.counts.pending, u64::from(attempt < 24), "{attempt}");
        // The longest delay.
        world.clock.advance(HOUR);
    }
    world.settle().await;
    assert_eq!(world.asked(), 24);
    let status = world.status(queued.broadcast).await;
    assert_eq!(status.counts, counts(|counts| counts.failed = 1));
    assert_eq!(world.record(&record).await.failure_streak, 24);
}

#[test]
fn names_and_contacts_have_their_longest() {
    let label = |len: usize| ScheduleLabel::parse(&"n".repeat(len)).is_ok();
    assert_eq!((label(1), label(64), label(65)), (true, true, false));
    let contact = |len: usize| {
        let around = "mailto:@example.com".len();
        Contact::parse(&format!("mailto:{}@example.com", "a".repeat(len - around))).is_ok()
    };
    assert_eq!((contact(256), contact(257)), (true, false));
    let url = |len: usize| {
        let around = "https://example.com/";
        Contact::parse(&format!("{around}{}", "a".repeat(len - around.len()))).is_ok()
    };
    assert_eq!((url(256), url(257)), (true, false));
}
