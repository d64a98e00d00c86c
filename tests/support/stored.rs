//! One of everything that a store keeps, to compare its stored form with that of the last release.
//!
//! If a form changes on purpose after a release, the version of the back end's tables changes too.

use std::num::NonZeroU32;
use std::time::Duration;

use tower_web_push::broadcast::{Audience, BroadcastId, FinalOutcome, Principal, Tag, TraceParent};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::{Message, Padding, Topic, Ttl, Urgency};
use tower_web_push::push_service::PushService;
use tower_web_push::schedule::{
    DailyTime, NotifyType, Plan, Schedule, ScheduleLabel, Weekdays, Zone,
};
use tower_web_push::store::{
    Change, ClaimRequest, Cursor, DayCount, Failure, FailureCause, Idempotency, NewBroadcast,
    NewDelivery, NewSubscription, Pause, PauseReason, RetireReason, ScheduleStore, Settled,
    Settlement, StoredVapidKey, SubscriptionLimits, SubscriptionStore, Tally, VapidKeyStore,
};
use tower_web_push::subscription::{
    AuthSecret, Endpoint, Origin, Subscription, SubscriptionId, UaPublicKey,
};
use tower_web_push::vapid::{KeyId, SealedVapidKey, VapidPublicKey};

const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + secs)
}

fn subscription(number: u8) -> NewSubscription {
    let endpoint = format!("https://fcm.googleapis.com/fcm/send/{number}");
    let subscription = Subscription::new(
        Endpoint::parse(&endpoint).unwrap(),
        UaPublicKey::parse(P256DH).unwrap(),
        AuthSecret::from_bytes(&[number; AuthSecret::LEN]).unwrap(),
    );
    let key = KeyId::from_bytes([0xaa; KeyId::LEN]);
    let mut new = NewSubscription::new(subscription, key);
    new.id = SubscriptionId::from_bytes([number; 16]);
    new
}

/// Writes everything into an empty store.
pub(crate) async fn fill<S>(store: &S)
where
    S: SubscriptionStore + VapidKeyStore + ScheduleStore,
{
    let limits = SubscriptionLimits::default();
    let mut full = subscription(1);
    full.principal = Some(Principal::from("alice"));
    full.tags = Some(["news", "sport"].map(|tag| Tag::parse(tag).unwrap()).into());
    full.subscription = full.subscription.with_expiration_time(Some(at(9_000)));
    let plain = subscription(2);
    let key = full.subscription.endpoint().key();
    store.upsert(&full, &limits, at(0)).await.unwrap();
    store.upsert(&plain, &limits, at(0)).await.unwrap();
    let observed_at = at(1);
    let changes = [
        Change::Accepted(key),
        Change::Failed {
            key,
            failure: Failure::default(),
        },
        Change::Stale {
            key,
            observed_at,
            failure: Failure::default(),
        },
        Change::Retire {
            key,
            reason: RetireReason::HostNotFound,
            observed_at,
            failure: Failure::new(Some(404), Some("no such host")),
        },
    ];
    for (secs, change) in (1..).zip(changes) {
        assert_eq!(store.apply(&[change], at(secs)).await.unwrap(), 1);
    }

    let public_key = VapidPublicKey::parse(P256DH).unwrap();
    let sealed = SealedVapidKey::new("v1.sealed");
    let key = StoredVapidKey::new(public_key.id(), public_key, sealed, at(0), true);
    store.insert(&key).await.unwrap();

    let message = Message::new("hello")
        .with_ttl(Ttl::from_secs(60))
        .with_urgency(Urgency::High)
        .with_topic(Topic::parse("greeting").unwrap())
        .with_padding(Padding::DEFAULT);
    let origin = |number: u8| Origin::parse(&format!("https://push{number}.example")).unwrap();
    let to = Audience::Tag(Tag::parse("news").unwrap());
    let mut new = NewBroadcast::new(to.clone(), message.clone(), at(3_600));
    new.id = BroadcastId::from_bytes([0xbb; 16]);
    new.send_at = Some(at(5));
    new.recipients = 100;
    new.pace = NonZeroU32::new(5);
    new.idempotency = Some(Idempotency::new("once", [0xcc; 32]));
    new.trace_parent = TraceParent::new([0xdd; 16], [0xee; 8], true).ok();
    store.open(&new, at(0)).await.unwrap();
    // Finished rows at the first origin: one with the first outcome, two with the second one, and so on. At each of
    // the next origins a row in another state.
    let ends: Vec<_> = (1..)
        .zip(FinalOutcome::ALL)
        .flat_map(|(rows, outcome)| vec![*outcome; rows])
        .collect();
    let origins = ends.iter().map(|_| 0).chain([1, 2, 3, 4]);
    let rows: Vec<_> = (0..)
        .zip(origins)
        .map(|(number, at_origin)| {
            let key = subscription(number).subscription.endpoint().key();
            NewDelivery::new(key, origin(at_origin))
        })
        .collect();
    let after = Cursor::After(rows[0].key);
    let written = store.enqueue_page(new.id, &Cursor::Start, &rows, &after, at(5));
    written.await.unwrap();
    let mut claims = ClaimRequest::new(1, Duration::from_secs(45));
    claims.per_origin = 0;
    let mut claim = async |number: u8| {
        claims.origins = [(origin(number), 1)].into();
        let mut claimed = store.claim(&claims, at(6)).await.unwrap().rows;
        assert_eq!(claimed.len(), 1, "of origin {number}");
        claimed.remove(0).token
    };
    for outcome in ends {
        let (token, failure) = (claim(0).await, Failure::new(Some(410), Some("not there")));
        let end = match outcome {
            FinalOutcome::Gone => {
                Settlement::Failed(outcome, FailureCause::new(PushService::Fcm, failure))
            }
            outcome => Settlement::Finished(outcome),
        };
        let end = [(token, end)];
        assert_eq!(store.settle(&end, at(7)).await.unwrap(), [Settled::Done]);
    }
    let (retried, deferred) = (claim(1).await, claim(2).await);
    let again = [
        (retried, Settlement::RetryAt(at(30))),
        (deferred, Settlement::Deferred(at(40))),
    ];
    store.settle(&again, at(7)).await.unwrap();
    claim(3).await;

    let mut pause = Pause::new(origin(5), at(500), PauseReason::SenderFault);
    pause.closures = 3;
    pause.contact = Some("mailto:ops@example.com".to_owned());
    store.pause(&pause, at(8)).await.unwrap();
    let tally = (origin(5), Tally::new(5, 2));
    store.tally(&[tally], at(8)).await.unwrap();

    let daily = DailyTime::new(7, 30).unwrap();
    let subscribers = Plan::Subscriber {
        subscription: full.id,
        notify_type: NotifyType::DirectNotification,
        message: Some("good morning".to_owned()),
    };
    let applications = Plan::Application {
        label: ScheduleLabel::parse("digest").unwrap(),
        to,
        message,
    };
    let time = daily
        .clone()
        .in_zone(Zone::parse("Europe/Berlin").unwrap())
        .on(Weekdays::parse(["mon", "sun"]).unwrap());
    for schedule in [
        Schedule::new(subscribers, daily, at(10_000)),
        Schedule::new(applications, time, at(20_000)),
    ] {
        store.put_schedule(&schedule).await.unwrap();
    }
    store.record_run(at(9)).await.unwrap();

    let days = [DayCount::new(1, at(0)), DayCount::new(7, at(86_400))];
    store.record_days(&days).await.unwrap();
    assert_eq!(store.days(at(86_400)).await.unwrap(), days);
}

/// Compares lines with those of a file, and shows the differences.
pub(crate) fn is(found: &[String], expected: &str) {
    let expected: Vec<_> = expected.lines().collect();
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len(), "{}", found.join("\n"));
}
