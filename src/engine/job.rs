//! One attempt for a row of the ledger, or for a message outside of it.

use std::sync::Arc;
use std::time::Duration;

use super::{Attempt, Consequence, Engine, KeyRing};
use crate::broadcast::{BroadcastId, FinalOutcome, TraceParent};
use crate::clock::Timestamp;
use crate::deliver::{Begin, DeliveryError, OriginGate, Stop};
use crate::message::{Message, Topic};
use crate::observe::{self, Span};
use crate::push_service::PushService;
use crate::store::{Settlement, SubscriptionRecord};
use crate::subscription::EndpointKey;

/// The longest wait of a row that met a closed gate, which may open long before its pause was to end. It is not claimed
/// while its origin is paused.
const CLOSED: Duration = Duration::from_secs(60);

/// The input of one attempt.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) record: SubscriptionRecord,
    /// The gate of its origin.
    pub(crate) gate: Arc<OriginGate>,
    /// The broadcast of the row, if there is one.
    pub(crate) broadcast: Option<BroadcastId>,
    /// The span that the broadcast comes from.
    pub(crate) trace_parent: Option<TraceParent>,
    pub(crate) message: Message,
    /// The later of acceptance and `sendAt`: the TTL counts from here.
    pub(crate) due_at: Timestamp,
    pub(crate) deadline: Timestamp,
    /// The number of this attempt, from 1.
    pub(crate) number: u32,
    /// No request begins that could last longer than this.
    pub(crate) leased_until: Timestamp,
    /// Whether its user caused the push, as often as the user likes.
    pub(crate) is_test: bool,
    /// No request begins after this signal.
    pub(crate) stop: Option<Stop>,
    /// The ledger's epoch before the row was claimed: no request begins in another one.
    pub(crate) epoch: Option<u64>,
}

/// Makes one attempt. Returns the consequence, and the error of the last request if it was not accepted.
///
/// # Cancel safety
///
/// If it is dropped while a request is under way, the push service may have accepted the message; the row's lease
/// expires and the message is sent again.
pub(crate) async fn attempt(engine: &Engine, job: Job) -> (Consequence, Option<DeliveryError>) {
    let push_service = PushService::of(job.record.subscription.endpoint());
    let span = Span::attempt(
        job.broadcast,
        push_service,
        job.gate.origin().as_str(),
        job.number,
    );
    span.link(&job.trace_parent);
    let (consequence, error) = span.around(drive(engine, job, &span)).await;
    match (&error, &consequence.settlement) {
        (Some(error), _) => span.failed(error.outcome().as_str()),
        (None, Settlement::Finished(outcome) | Settlement::Failed(outcome, _)) => {
            span.outcome(outcome.as_str());
        }
        (None, Settlement::RetryAt(_)) => span.outcome("retried"),
        (None, Settlement::Deferred(_)) => span.outcome("deferred"),
    }
    (consequence, error)
}

async fn drive(engine: &Engine, mut job: Job, span: &Span) -> (Consequence, Option<DeliveryError>) {
    let now = engine.now();
    let endpoint = job.record.subscription.endpoint();
    if let (Some(broadcast), true) = (job.broadcast, engine.stable_topic) {
        name(&mut job.message, broadcast, endpoint.key());
    }
    let keys = match engine.key_ring.candidates(&job.record.vapid_key, now).await {
        Ok(keys) => keys,
        Err(source) => {
            observe::event!(WARN, error = %observe::causes(&source), "cannot read the VAPID keys");
            let _ = source;
            return (Settlement::Deferred(now + KeyRing::LOOK_AGAIN).into(), None);
        }
    };
    let own = job.record.vapid_key;
    // A row whose key was given up is stale: it waits for no key.
    if job.record.is_live(now) && keys.iter().all(|key| key.id() != own) {
        engine.key_is_missing(own, now).await;
    }
    let latest = job.leased_until - engine.request_timeout;
    let mut begin = Begin::before(latest.min(job.deadline)).unless(job.stop);
    if let Some(epoch) = job.epoch {
        let (ledger, clock) = (Arc::clone(&engine.ledger), Arc::clone(&engine.clock));
        // A jump of the clock may be the sleep of the machine, in which the lease has ended.
        begin = begin.only_if(move || ledger.epoch() == Some(epoch) && clock.fault().is_none());
    }
    let number = job.number;
    let (push_service, due_at) = (PushService::of(endpoint), job.due_at);
    let (mut consequence, error) = Attempt::new(&job.record, job.message, job.due_at, number, now)
        .with_deadline(job.deadline)
        .with_policy(engine.retry)
        .with_keys(keys)
        .with_test(job.is_test)
        .drive(&*engine.clock, |push| {
            let request = engine.request(push, Arc::clone(&job.gate), begin.clone());
            async {
                let answer = request.await;
                let status = match &answer {
                    Ok(accepted) => Some(accepted.status()),
                    Err(error) => error.status(),
                };
                if let Some(status) = status {
                    span.status(status);
                }
                answer
            }
        })
        .await;
    let is_closed = error.as_ref().and_then(DeliveryError::closed).is_some();
    if let (true, Settlement::RetryAt(at) | Settlement::Deferred(at)) =
        (is_closed, &mut consequence.settlement)
    {
        *at = (*at).min(engine.now() + CLOSED);
    }
    if consequence.settlement == Settlement::Finished(FinalOutcome::Accepted) {
        let since_due = engine.now().since(due_at);
        observe::count_delivery(push_service, since_due);
        engine.signals.late.note(push_service, since_due);
    }
    (consequence, error)
}

/// Gives a message without a topic one that is the same at each attempt: if the response to the first attempt was lost,
/// the repeat replaces a message that is not delivered yet (RFC 8030 section 5.4).
fn name(message: &mut Message, broadcast: BroadcastId, key: EndpointKey) {
    if message.topic().is_none() {
        let name = [broadcast.as_bytes().as_slice(), key.as_bytes()].concat();
        *message = message.clone().with_topic(Topic::of(name));
    }
}
