//! Sending without the ledger: one attempt, now.

use tokio::task::JoinSet;

use super::WebPush;
use crate::broadcast::{Audience, Failure, FinalOutcome, Report, SendError, SendErrorKind};
use crate::deliver::DeliveryError;
use crate::message::Message;
use crate::run::{Job, Next, attempt};
use crate::store::{Change, SubscriptionRecord};
use crate::subscription::SubscriptionId;

/// Subscriptions read at once.
const PAGE: usize = 500;
/// Attempts under way at once.
const IN_FLIGHT: usize = 512;

/// What one attempt came to.
#[derive(Debug)]
pub(crate) struct Attempted {
    pub(crate) outcome: FinalOutcome,
    pub(crate) error: Option<DeliveryError>,
    changes: Vec<Change>,
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
    let mut changes = Vec::new();
    let mut after = None;
    loop {
        let now = push.now();
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
                && let Some(Ok(attempted)) = attempts.join_next().await
            {
                note(&mut report, &mut changes, attempted);
            }
            let (push, message) = (push.clone(), message.clone());
            attempts.spawn(async move { once(&push, record, message).await });
        }
        while let Some(Ok(attempted)) = attempts.try_join_next() {
            note(&mut report, &mut changes, attempted);
        }
        if is_last {
            break;
        }
        push.subscriptions().apply(&changes, push.now()).await?;
        changes.clear();
    }
    while let Some(ended) = attempts.join_next().await {
        match ended {
            Ok(attempted) => note(&mut report, &mut changes, attempted),
            Err(_) => report.counts.add(FinalOutcome::Failed, 1),
        }
    }
    push.subscriptions().apply(&changes, push.now()).await?;
    Ok(report)
}

/// One attempt for one stored subscription, its effects on the subscription included.
#[cfg(feature = "api")]
pub(super) async fn send_to(
    push: &WebPush,
    record: SubscriptionRecord,
    message: Message,
) -> Attempted {
    let attempted = once(push, record, message).await;
    // The answer is about the message; the same effect comes of the next attempt.
    let _ = push
        .subscriptions()
        .apply(&attempted.changes, push.now())
        .await;
    attempted
}

async fn once(push: &WebPush, record: SubscriptionRecord, message: Message) -> Attempted {
    let now = push.now();
    let subscription = record.id;
    let job = Job {
        record,
        deadline: now + push.lease(),
        due_at: now,
        attempt: 1,
        leased_until: now + push.lease(),
        message,
    };
    let verdict = attempt(push, job).await;
    let outcome = match verdict.next {
        Next::Finished(outcome) => outcome,
        Next::RetryAt(_) | Next::Release => FinalOutcome::Failed,
    };
    Attempted {
        outcome,
        error: verdict.error,
        changes: verdict.changes,
        subscription,
    }
}

fn note(report: &mut Report, changes: &mut Vec<Change>, attempted: Attempted) {
    report.counts.add(attempted.outcome, 1);
    changes.extend(attempted.changes);
    if let Some(error) = attempted.error
        && report.failures.len() < Report::MAX_FAILURES
    {
        report
            .failures
            .push(Failure::new(attempted.subscription, error));
    }
}
