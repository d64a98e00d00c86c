//! What comes after the damage, and has no more to do with it than any other row: it is stored, listed, sent and finished.

use std::fmt::Debug;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tower_web_push::broadcast::{Audience, BroadcastState, FinalOutcome};
use tower_web_push::message::Message;
use tower_web_push::push_service::PushService;
use tower_web_push::schedule::{DailyTime, Plan, Schedule, ScheduleLabel};
use tower_web_push::store::{
    ClaimRequest, Cursor, Failure, FailureCause, Fired, Firing, NewBroadcast, NewDelivery,
    NewSubscription, PageWrite, Settled, Settlement, StoreError, SubscriptionLimits,
    SubscriptionRef,
};
use tower_web_push::subscription::{AuthSecret, Endpoint, Origin, Subscription, UaPublicKey};
use tower_web_push::vapid::KeyId;

use super::Whole;
use super::calls::{NOW, P256DH};

/// The damage is of single rows.
pub(super) async fn go_on(store: &dyn Whole) -> Result<(), TestCaseError> {
    subscription(store).await?;
    schedule(store).await?;
    message(store).await
}

/// The value, which no damage of another row keeps from being returned.
fn done<T: Debug>(what: &str, result: Result<T, StoreError>) -> Result<T, TestCaseError> {
    result.map_err(|error| TestCaseError::fail(format!("others are held up: {what}: {error:?}")))
}

async fn subscription(store: &dyn Whole) -> Result<(), TestCaseError> {
    let subscription = Subscription::new(
        Endpoint::parse("https://updates.push.services.mozilla.com/other").unwrap(),
        UaPublicKey::parse(P256DH).unwrap(),
        AuthSecret::from_bytes(&[9; AuthSecret::LEN]).unwrap(),
    );
    let new = NewSubscription::new(subscription, KeyId::from_bytes([0xdd; KeyId::LEN]));
    let (key, limits) = (new.key(), SubscriptionLimits::default());
    done("upsert", store.upsert(&new, &limits, NOW).await)?;
    let found = done("get", store.get(&[SubscriptionRef::Key(key)]).await)?;
    prop_assert!(found[0].is_some());
    let page = done("page", store.page(&Audience::All, None, 10, NOW).await)?;
    let mut keys = page.iter().map(|row| row.subscription.endpoint().key());
    prop_assert!(keys.any(|of| of == key), "{:?}", page);
    Ok(())
}

async fn schedule(store: &dyn Whole) -> Result<(), TestCaseError> {
    let plan = Plan::Application {
        label: ScheduleLabel::parse("other").unwrap(),
        to: Audience::All,
        message: Message::new("x"),
    };
    let schedule = Schedule::new(plan, DailyTime::new(9, 0).unwrap(), NOW);
    done("put_schedule", store.put_schedule(&schedule).await)?;
    let due = done("due_schedules", store.due_schedules(10, NOW).await)?;
    prop_assert!(due.contains(&schedule), "{:?}", due);
    let listed = done("schedules", store.schedules(None).await)?;
    prop_assert!(
        listed.iter().any(|one| one.name() == schedule.name()),
        "{:?}",
        listed
    );
    let left_out = store.unreadable_schedules(None).await;
    done("unreadable_schedules", left_out)?;
    let firing = Firing::new(&schedule, NOW + Duration::from_secs(86_400), None);
    let fired = done("fire", store.fire(&[firing], NOW).await)?;
    prop_assert_eq!(fired, [Fired::Fired]);
    let removed = store.remove_unchanged_schedule(&schedule).await;
    prop_assert!(done("remove_unchanged_schedule", removed)?);
    Ok(())
}

/// Its row is claimed and settled with those that are damaged.
async fn message(store: &dyn Whole) -> Result<(), TestCaseError> {
    let deadline = NOW + Duration::from_secs(60);
    let new = NewBroadcast::new(Audience::All, Message::new("x"), deadline);
    done("open", store.open(&new, NOW).await)?;
    let expandable = done("expandable", store.expandable(10, NOW).await)?;
    prop_assert!(expandable.iter().any(|one| one.id == new.id));
    let row = NewDelivery::new(
        Endpoint::parse("https://other.example/1").unwrap().key(),
        Origin::parse("https://other.example").unwrap(),
    );
    let (start, end) = (Cursor::Start, Cursor::End);
    let written = store.enqueue_page(new.id, &start, &[row], &end, NOW).await;
    prop_assert_eq!(done("enqueue_page", written)?, PageWrite::Stored);
    let next = done("next_due", store.next_due(NOW).await)?;
    prop_assert!(next.is_some_and(|at| at <= NOW), "{:?}", next);
    let request = ClaimRequest::new(10, Duration::from_secs(45));
    for _ in 0..20 {
        let claims = done("claim", store.claim(&request, NOW).await)?;
        let failure = Failure::new(Some(410), Some("Gone"));
        let cause = FailureCause::new(PushService::Fcm, failure);
        let end = [
            Settlement::Failed(FinalOutcome::Gone, cause),
            Settlement::RetryAt(NOW + Duration::from_secs(30)),
            Settlement::Deferred(NOW + Duration::from_secs(30)),
            Settlement::Finished(FinalOutcome::Accepted),
        ];
        let ends = claims.rows.iter().zip(end.iter().cycle());
        let ends: Vec<_> = ends
            .map(|(row, end)| match row.token.broadcast == new.id {
                true => (row.token, Settlement::Finished(FinalOutcome::Accepted)),
                false => (row.token, *end),
            })
            .collect();
        let settled = done("settle", store.settle(&ends, NOW).await)?;
        let place = ends.iter().position(|(token, _)| token.broadcast == new.id);
        if let Some(place) = place {
            prop_assert!(claims.messages.contains_key(&new.id));
            prop_assert_eq!(settled[place], Settled::Done);
            let status = done("status", store.status(new.id, NOW).await)?;
            let status = status.map(|status| (status.state, status.counts.accepted));
            prop_assert_eq!(status, Some((BroadcastState::Done, 1)));
            return Ok(());
        }
        prop_assert!(!claims.rows.is_empty() || claims.more, "it is not claimed");
    }
    prop_assert!(false, "rows are claimed again and again");
    Ok(())
}
