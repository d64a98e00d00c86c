//! Sending without the ledger: one attempt, now.

use tokio::task::{JoinError, JoinSet};

use super::WebPush;
use crate::broadcast::{Audience, Failure, FinalOutcome, Report, SendError, SendErrorKind};
use crate::clock::Timestamp;
use crate::deliver::{Consequence, DeliveryError, Next};
use crate::message::Message;
use crate::run::{Effects, Job, attempt};
use crate::store::SubscriptionRecord;
use crate::subscription::{Origin, SubscriptionId};

/// Subscriptions read at once.
const PAGE: usize = 500;
/// Attempts under way at once.
const IN_FLIGHT: usize = 512;

/// What one attempt came to.
#[derive(Debug)]
pub(crate) struct Attempted {
    pub(crate) outcome: FinalOutcome,
    pub(crate) error: Option<DeliveryError>,
    origin: Origin,
    subscription: SubscriptionId,
}

pub(super) async fn send(
    push: &WebPush,
    to: &Audience,
    message: Message,
) -> Result<Report, SendError> {
    if message.is_too_large() {
        return Err(SendErrorKind::PayloadTooLarge.into());
    }
    let mut report = Report::default();
    let mut attempts = JoinSet::new();
    let mut effects = Effects::default();
    let mut after = None;
    let due_at = push.now();
    loop {
        let now = push.now();
        push.refresh_pauses(now).await?;
        let page = push
            .subscriptions()
            .page(to, after.as_ref(), PAGE, now)
            .await?;
        after = page
            .last()
            .map(|record| record.subscription.endpoint().key());
        let is_last = page.len() < PAGE;
        for record in page {
            if attempts.len() >= IN_FLIGHT
                && let Some(ended) = attempts.join_next().await
            {
                note(push, &mut report, &mut effects, ended);
            }
            let (push, message) = (push.clone(), message.clone());
            attempts.spawn(async move { once(&push, record, message, due_at).await });
        }
        while let Some(ended) = attempts.try_join_next() {
            note(push, &mut report, &mut effects, ended);
        }
        if is_last {
            break;
        }
        effects.write(push, push.now()).await?;
    }
    while let Some(ended) = attempts.join_next().await {
        note(push, &mut report, &mut effects, ended);
    }
    effects.finish(push, push.now()).await?;
    Ok(report)
}

/// One attempt for one stored subscription, its effects on the subscription included.
#[cfg(feature = "api")]
pub(super) async fn send_to(
    push: &WebPush,
    record: SubscriptionRecord,
    message: Message,
) -> Attempted {
    // Where they cannot be read, those that are known hold.
    let _ = push.refresh_pauses(push.now()).await;
    let (attempted, consequence) = once(push, record, message, push.now()).await;
    let mut effects = Effects::default();
    effects.note(push, &attempted.origin, consequence);
    // The answer is about the message; the same effect comes of the next attempt.
    let _ = effects.write(push, push.now()).await;
    attempted
}

/// Tells the other replicas what an attempt showed of a push service, as far as the store answers.
pub(super) async fn share_news(push: &WebPush, origin: &Origin) {
    let mut effects = Effects::default();
    effects.note_origin(push, origin);
    let _ = effects.write(push, push.now()).await;
}

async fn once(
    push: &WebPush,
    record: SubscriptionRecord,
    message: Message,
    due_at: Timestamp,
) -> (Attempted, Consequence) {
    let now = push.now();
    let subscription = record.id;
    let origin = record.subscription.endpoint().origin().clone();
    let job = Job {
        record,
        broadcast: None,
        deadline: message.ttl().deadline(due_at),
        due_at,
        number: 1,
        leased_until: now + push.lease(),
        stop: None,
        message,
    };
    let (consequence, error) = attempt(push, job).await;
    let outcome = match consequence.next {
        Next::Finished(outcome) => outcome,
        Next::RetryAt(_) | Next::Deferred(_) => FinalOutcome::Failed,
    };
    let attempted = Attempted {
        outcome,
        error,
        origin,
        subscription,
    };
    (attempted, consequence)
}

fn note(
    push: &WebPush,
    report: &mut Report,
    effects: &mut Effects,
    ended: Result<(Attempted, Consequence), JoinError>,
) {
    let Ok((attempted, consequence)) = ended else {
        // A panic in somebody's client.
        report.counts.add(FinalOutcome::Failed, 1);
        return;
    };
    report.counts.add(attempted.outcome, 1);
    effects.note(push, &attempted.origin, consequence);
    if let Some(error) = attempted.error
        && report.failures.len() < Report::MAX_FAILURES
    {
        report
            .failures
            .push(Failure::new(attempted.subscription, error));
    }
}
