//! Every call of a store.

use std::error::Error;
use std::fmt::Debug;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tower_web_push::broadcast::{Audience, BroadcastId, FinalOutcome, Principal, Tag};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::push_service::PushService;
use tower_web_push::schedule::{ScheduleLabel, ScheduleName};
use tower_web_push::store::{
    BroadcastFilter, Change, ClaimRequest, CountFilter, Cursor, DayCount, Failure, FailureCause,
    Firing, Liveness, NewBroadcast, NewSubscription, Pause, PauseReason, RetireReason, Settlement,
    StoreError, StoreErrorKind, SubscriptionFilter, SubscriptionLimits, SubscriptionRef, Tally,
};
use tower_web_push::subscription::{
    AuthSecret, Endpoint, Origin, Subscription, SubscriptionId, UaPublicKey,
};
use tower_web_push::vapid::KeyId;

use super::{Part, Whole};

pub(super) const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
/// What `stored::fill` stores and no error shows.
const SECRETS: [&str; 6] = [
    "googleapis.com/fcm/send/",
    P256DH,
    "v1.sealed",
    "good morning",
    "hello",
    "AQEBAQEBAQEBAQEBAQEBAQ",
];
/// When `stored::fill` is over, and everything it stored is still there.
pub(super) const NOW: Timestamp = Timestamp::from_secs(1_800_000_100);
const BROADCAST: BroadcastId = BroadcastId::from_bytes([0xbb; 16]);

/// What the calls return that change nothing, for each part.
pub(super) struct Reads {
    pub(super) parts: Vec<(Part, Vec<String>)>,
}

impl Reads {
    pub(super) fn of(&self, part: Part) -> &Vec<String> {
        let found = self.parts.iter().find(|(of, _)| *of == part);
        &found.expect("each part is read").1
    }
}

/// Returns the value, or `None` if there is an error. It shows no secret, with all its causes.
pub(super) fn silent<T>(result: Result<T, StoreError>) -> Result<Option<T>, TestCaseError> {
    let error = match result {
        Ok(value) => return Ok(Some(value)),
        Err(error) => error,
    };
    let mut said = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(cause) = source {
        said += &format!(": {cause}");
        source = cause.source();
    }
    for secret in SECRETS {
        prop_assert!(!said.contains(secret), "{} in {}", secret, said);
    }
    Ok(None)
}

/// Reads, for a list of what is read.
fn read<T: Debug>(
    into: &mut Vec<String>,
    result: Result<T, StoreError>,
) -> Result<Option<T>, TestCaseError> {
    if let Err(error) = &result {
        prop_assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{:?}", error);
    }
    let value = silent(result)?;
    into.push(format!("{value:?}"));
    Ok(value)
}

fn subscriptions() -> [NewSubscription; 2] {
    [1, 2].map(|number| {
        let endpoint = format!("https://fcm.googleapis.com/fcm/send/{number}");
        let subscription = Subscription::new(
            Endpoint::parse(&endpoint).unwrap(),
            UaPublicKey::parse(P256DH).unwrap(),
            AuthSecret::from_bytes(&[number; AuthSecret::LEN]).unwrap(),
        );
        let mut new = NewSubscription::new(subscription, KeyId::from_bytes([0xaa; KeyId::LEN]));
        new.id = SubscriptionId::from_bytes([number; 16]);
        new
    })
}

fn origin() -> Origin {
    Origin::parse("https://push5.example").unwrap()
}

pub(super) async fn reads(store: &dyn Whole) -> Result<Reads, TestCaseError> {
    let alice = Principal::from("alice");
    let news = Audience::Tag(Tag::parse("news").unwrap());
    let mut of = Vec::new();
    for new in subscriptions() {
        for which in [SubscriptionRef::Id(new.id), SubscriptionRef::Key(new.key())] {
            read(&mut of, store.get(&[which]).await)?;
        }
    }
    let ids = subscriptions().map(|new| new.id).to_vec();
    for audience in [
        Audience::All,
        Audience::user("alice"),
        news,
        Audience::Ids(ids),
    ] {
        read(&mut of, store.page(&audience, None, 10, NOW).await)?;
        for liveness in [
            Liveness::Any,
            Liveness::Live,
            Liveness::Stale,
            Liveness::Retired,
        ] {
            let filter = CountFilter::new(audience.clone(), liveness);
            read(&mut of, store.count(&filter, NOW).await)?;
        }
    }
    read(&mut of, store.owned_by(&alice, None, 10).await)?;
    let every = SubscriptionFilter::default();
    let listed = store.list_subscriptions(&every, None, 10, NOW).await;
    read(&mut of, listed)?;
    let keys = [KeyId::from_bytes([0xaa; KeyId::LEN])];
    read(&mut of, store.count_live(&keys, NOW).await)?;
    let mut parts = vec![(Part::Subscriptions, of)];

    let mut of = Vec::new();
    read(&mut of, store.keys().await)?;
    parts.push((Part::Keys, of));

    let mut of = Vec::new();
    for owner in [None, Some(SubscriptionId::from_bytes([1; 16]))] {
        read(&mut of, store.schedules(owner).await)?;
    }
    read(&mut of, store.due_schedules(10, Timestamp::MAX).await)?;
    read(&mut of, store.next_fire_at().await)?;
    read(&mut of, store.last_run().await)?;
    read(&mut of, store.days(NOW).await)?;
    parts.push((Part::Schedules, of));

    let mut of = Vec::new();
    read(&mut of, store.status(BROADCAST, NOW).await)?;
    read(&mut of, store.failure_samples(BROADCAST).await)?;
    let every = BroadcastFilter::default();
    read(&mut of, store.list_broadcasts(&every, None, 10, NOW).await)?;
    read(&mut of, store.underway(10, NOW).await)?;
    read(&mut of, store.expandable(10, NOW).await)?;
    read(&mut of, store.pauses(NOW).await)?;
    read(&mut of, store.tallies().await)?;
    read(&mut of, store.stats(NOW).await)?;
    read(&mut of, store.outbox(10).await)?;
    read(&mut of, store.refused_outbox(10).await)?;
    parts.push((Part::Ledger, of));
    Ok(Reads { parts })
}

pub(super) async fn changes(store: &dyn Whole) -> Result<(), TestCaseError> {
    worker(store).await?;
    schedules(store).await?;
    subscribers(store).await?;
    silent(store.failure_samples(BROADCAST).await)?;
    let operator = Principal::from("alice");
    let rows = silent(store.owned_by(&operator, None, 10).await)?;
    let rows = rows.unwrap_or_default();
    silent(store.erase(&operator, &rows, NOW).await)?;
    for is_held in [true, false] {
        silent(store.hold(BROADCAST, is_held, NOW).await)?;
    }
    silent(store.cancel(BROADCAST, NOW).await)?;
    let after_all = NOW + Duration::from_secs(100_000);
    silent(store.expire(1_000, after_all).await)?;
    silent(store.prune(after_all).await)?;
    silent(store.stats(after_all).await)?;
    Ok(())
}

/// A worker expands, claims and settles until nothing is left to claim.
async fn worker(store: &dyn Whole) -> Result<(), TestCaseError> {
    let to = Audience::user("alice");
    let new = NewBroadcast::new(to, Message::new("hello"), NOW + Duration::from_secs(60));
    silent(store.open(&new, NOW).await)?;
    for expansion in silent(store.expandable(10, NOW).await)?.unwrap_or_default() {
        let rows = [];
        let (cursor, end) = (expansion.cursor, Cursor::End);
        let written = store
            .enqueue_page(expansion.id, &cursor, &rows, &end, NOW)
            .await;
        silent(written)?;
    }
    let request = ClaimRequest::new(10, Duration::from_secs(45));
    for round in 0..20_u32 {
        let Some(claims) = silent(store.claim(&request, NOW).await)? else {
            break;
        };
        if claims.rows.is_empty() && !claims.more {
            break;
        }
        let failure = Failure::new(Some(410), Some("Gone"));
        let cause = FailureCause::new(PushService::Fcm, failure);
        let end = [
            Settlement::Finished(FinalOutcome::Accepted),
            Settlement::Failed(FinalOutcome::Gone, cause),
            Settlement::RetryAt(NOW + Duration::from_secs(30)),
            Settlement::Deferred(NOW + Duration::from_secs(30)),
        ];
        let ends = claims.rows.iter().zip(end.iter().cycle());
        let ends: Vec<_> = ends.map(|(row, end)| (row.token, *end)).collect();
        silent(store.settle(&ends, NOW).await)?;
        prop_assert!(round < 19, "rows are claimed again and again");
    }
    silent(store.expire(1_000, NOW).await)?;
    silent(store.next_due(NOW).await)?;
    let pause = Pause::new(
        origin(),
        NOW + Duration::from_secs(60),
        PauseReason::RateLimited,
    );
    silent(store.pause(&pause, NOW).await)?;
    silent(store.tally(&[(origin(), Tally::new(1, 1))], NOW).await)?;
    silent(store.pauses(NOW).await)?;
    Ok(())
}

async fn schedules(store: &dyn Whole) -> Result<(), TestCaseError> {
    let due = silent(store.due_schedules(10, Timestamp::MAX).await)?;
    let due = due.unwrap_or_default();
    let next = NOW + Duration::from_secs(86_400);
    let firings: Vec<_> = due
        .iter()
        .map(|schedule| Firing::new(schedule, next, None))
        .collect();
    silent(store.fire(&firings, NOW).await)?;
    for schedule in &due {
        silent(store.put_schedule(schedule).await)?;
        silent(store.remove_schedule(&schedule.name()).await)?;
    }
    let [one, other] = subscriptions().map(|new| new.id);
    silent(store.move_schedules(one, other).await)?;
    silent(store.remove_schedules(other).await)?;
    let label = ScheduleLabel::parse("digest").unwrap();
    let name = ScheduleName::Application(label);
    silent(store.remove_schedule(&name).await)?;
    silent(store.record_run(NOW).await)?;
    silent(store.record_days(&[DayCount::new(5, NOW)]).await)?;
    Ok(())
}

async fn subscribers(store: &dyn Whole) -> Result<(), TestCaseError> {
    let limits = SubscriptionLimits::default();
    let [one, other] = subscriptions();
    for new in [&one, &other] {
        silent(store.upsert(new, &limits, NOW).await)?;
    }
    let mut moved = other.clone();
    moved.subscription = Subscription::new(
        Endpoint::parse("https://fcm.googleapis.com/fcm/send/3").unwrap(),
        *other.subscription.ua_public(),
        other.subscription.auth().clone(),
    );
    moved.replaces = Some(other.key());
    silent(store.upsert(&moved, &limits, NOW).await)?;
    let (key, observed_at) = (one.key(), NOW);
    let reason = RetireReason::Gone;
    let failure = Failure::new(Some(410), Some("Gone"));
    let every = SubscriptionFilter::default();
    silent(store.list_subscriptions(&every, None, 10, NOW).await)?;
    let every = BroadcastFilter::default();
    silent(store.list_broadcasts(&every, None, 10, NOW).await)?;
    for change in [
        Change::Failed { key, failure },
        Change::Accepted(key),
        Change::Stale {
            key,
            observed_at,
            failure,
        },
        Change::Retire {
            key,
            reason,
            observed_at,
            failure,
        },
        Change::Purge {
            before: NOW,
            expired_before: NOW,
        },
    ] {
        silent(store.apply(&[change], NOW).await)?;
    }
    for new in [&one, &moved] {
        let observed_at = Timestamp::MAX;
        for principal in [None, Some(Principal::from("alice"))] {
            let key = new.key();
            let gone = Change::Delete {
                key,
                principal,
                observed_at,
            };
            silent(store.apply(&[gone], NOW).await)?;
        }
    }
    let keys = silent(store.keys().await)?;
    for key in keys.unwrap_or_default() {
        silent(store.reseal(&key.id, &key.sealed, &key.sealed).await)?;
        silent(store.remove(&key.id).await)?;
    }
    Ok(())
}
