//! Sending without the ledger: one attempt, now.

use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::effects::Effects;
use super::job::{Job, attempt};
use super::responses::count;
use super::{Consequence, Engine, FailedSend, Report, SendError, SendErrorKind};
use crate::broadcast::{Audience, FinalOutcome};
use crate::clock::Timestamp;
use crate::deliver::{Accepted, Begin, DeliveryError, OriginGate};
use crate::message::Message;
use crate::observe::Span;
use crate::push_request::Push;
use crate::push_service::PushService;
use crate::store::{Settlement, SubscriptionRecord};
use crate::subscription::{Subscription, SubscriptionId};

/// The number of subscriptions read at once.
const PAGE: usize = 500;
/// The most attempts in flight.
const IN_FLIGHT: usize = 512;

/// The result of one attempt.
#[derive(Debug)]
pub(crate) struct Attempted {
    pub(crate) outcome: FinalOutcome,
    pub(crate) error: Option<DeliveryError>,
    gate: Arc<OriginGate>,
    subscription: SubscriptionId,
}

impl Engine {
    /// Makes one attempt for each live subscription of an audience.
    pub(crate) async fn send(&self, to: &Audience, message: Message) -> Result<Report, SendError> {
        if message.is_too_large() {
            return Err(SendErrorKind::PayloadTooLarge.into());
        }
        let mut report = Report::default();
        let mut attempts = JoinSet::new();
        let mut effects = self.effects();
        let mut after = None;
        let due_at = self.now();
        loop {
            let now = self.now();
            self.refresh_pauses(now).await?;
            let page = self
                .subscriptions
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
                    note(self, &mut report, &mut effects, ended);
                }
                let (engine, message) = (self.clone(), message.clone());
                let span = Span::current();
                attempts.spawn(async move {
                    let attempt = once(&engine, record, message, due_at, false);
                    span.around(attempt).await
                });
            }
            while let Some(ended) = attempts.try_join_next() {
                note(self, &mut report, &mut effects, ended);
            }
            if is_last {
                break;
            }
            effects.write(self.now()).await?;
        }
        while let Some(ended) = attempts.join_next().await {
            note(self, &mut report, &mut effects, ended);
        }
        effects.finish(self.now()).await?;
        Ok(report)
    }

    /// Makes one attempt for one stored subscription, with its own VAPID key, and writes its effects on the
    /// subscription.
    pub(crate) async fn send_to(&self, record: SubscriptionRecord, message: Message) -> Attempted {
        // If they cannot be read, the known pauses hold.
        let _ = self.refresh_pauses(self.now()).await;
        let (attempted, consequence) = once(self, record, message, self.now(), true).await;
        let mut effects = self.effects();
        effects.note(&attempted.gate, consequence, self.now());
        // The result is about the message. The next attempt has the same effect.
        let _ = effects.write(self.now()).await;
        attempted
    }

    /// Makes one attempt for a subscription that need not be stored, with the active VAPID key.
    pub(crate) async fn deliver(
        &self,
        to: &Subscription,
        message: Message,
    ) -> Result<Accepted, DeliveryError> {
        // The pauses of other replicas spare a request. Without them this process gets the same response itself.
        let _ = self.refresh_pauses(self.now()).await;
        let now = self.now();
        let deadline = message.ttl().deadline(now);
        let push = Push::new(to.clone(), message, self.key_ring.active())
            .with_ttl_since(now)
            .with_deadline(deadline);
        let gate = self.gates.gate(to.endpoint().origin());
        let begin = Begin::before(deadline);
        let began = Instant::now();
        let result = self.request(push, Arc::clone(&gate), begin).await;
        count(PushService::of(to.endpoint()), &result, began.elapsed());
        // Stored for other replicas, if the store is available.
        let mut effects = self.effects();
        effects.note_gate(&gate, self.now());
        let _ = effects.write(self.now()).await;
        result
    }
}

async fn once(
    engine: &Engine,
    record: SubscriptionRecord,
    message: Message,
    due_at: Timestamp,
    is_test: bool,
) -> (Attempted, Consequence) {
    let now = engine.now();
    let subscription = record.id;
    let gate = engine.gates.gate(record.subscription.endpoint().origin());
    if !gate.is_recalled() {
        engine.recall([Arc::clone(&gate)]).await;
    }
    let job = Job {
        record,
        gate: Arc::clone(&gate),
        broadcast: None,
        trace_parent: None,
        deadline: message.ttl().deadline(due_at),
        due_at,
        number: 1,
        is_test,
        leased_until: now + engine.lease,
        stop: None,
        epoch: None,
        message,
    };
    let (consequence, error) = attempt(engine, job).await;
    let outcome = match consequence.settlement {
        Settlement::Finished(outcome) | Settlement::Failed(outcome, _) => outcome,
        Settlement::RetryAt(_) | Settlement::Deferred(_) => FinalOutcome::Failed,
    };
    let attempted = Attempted {
        outcome,
        error,
        gate,
        subscription,
    };
    (attempted, consequence)
}

fn note(
    engine: &Engine,
    report: &mut Report,
    effects: &mut Effects,
    ended: Result<(Attempted, Consequence), JoinError>,
) {
    let Ok((attempted, consequence)) = ended else {
        // The application's client panicked.
        report.counts.add(FinalOutcome::Failed, 1);
        return;
    };
    report.counts.add(attempted.outcome, 1);
    effects.note(&attempted.gate, consequence, engine.now());
    if let Some(error) = attempted.error
        && report.failures.len() < Report::MAX_FAILURES
    {
        report
            .failures
            .push(FailedSend::new(attempted.subscription, error));
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
#[path = "direct_tests.rs"]
mod tests;
