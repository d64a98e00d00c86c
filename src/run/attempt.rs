//! One attempt to deliver to one stored subscription, and what follows from it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::broadcast::{BroadcastId, FinalOutcome};
use crate::clock::Timestamp;
use crate::deliver::{Begin, DeliveryError, Jitter, Outcome, PushService, RetryPolicy};
use crate::message::{Message, Topic};
use crate::observe;
use crate::push_request::Push;
use crate::store::{Change, RetireReason, SubscriptionRecord};
use crate::subscription::EndpointKey;
use crate::vapid::{KeyRing, VapidKey};
use crate::web_push::WebPush;

/// What one attempt is about.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) record: SubscriptionRecord,
    /// The broadcast that the row belongs to, where there is one.
    pub(crate) broadcast: Option<BroadcastId>,
    pub(crate) message: Message,
    /// The later of acceptance and `sendAt`: the TTL counts from here.
    pub(crate) due_at: Timestamp,
    pub(crate) deadline: Timestamp,
    /// The number of this attempt, from 1.
    pub(crate) attempt: u32,
    /// No request begins that could outlast this.
    pub(crate) leased_until: Timestamp,
    /// No request begins once this is true.
    pub(crate) stop: Option<watch::Receiver<bool>>,
}

/// What follows from an attempt.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) next: Next,
    /// To be applied before the row is settled, so that a crash between the two repeats them.
    pub(crate) changes: Vec<Change>,
    /// The subscription is gone: retires it, unless its push service says so of too many.
    pub(crate) retire: Option<(EndpointKey, Change)>,
    pub(crate) error: Option<DeliveryError>,
}

/// Where the row goes from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Finished(FinalOutcome),
    RetryAt(Timestamp),
    /// Nothing was asked of the push service: the attempt does not count.
    Release,
}

impl Verdict {
    pub(crate) const fn new(next: Next) -> Self {
        Self {
            next,
            changes: Vec::new(),
            retire: None,
            error: None,
        }
    }

    const fn finished(outcome: FinalOutcome) -> Self {
        Self::new(Next::Finished(outcome))
    }

    fn with_change(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }
}

/// Makes one attempt.
///
/// # Cancel safety
///
/// Dropped while a request is under way, the push service may have taken the message; the row's lease
/// runs out and the message is sent again.
pub(crate) async fn attempt(push: &WebPush, mut job: Job) -> Verdict {
    let now = push.now();
    if let Some(verdict) = before_sending(push, &job, now) {
        return verdict;
    }
    let key = job.record.subscription.endpoint().key();
    if let (Some(broadcast), true) = (job.broadcast, push.stable_topic()) {
        name(&mut job.message, broadcast, key);
    }
    let own = match push.key_ring().find(&job.record.vapid_key, now).await {
        Ok(own) => own,
        Err(source) => {
            observe::event!(WARN, error = %observe::causes(&source), "cannot read the VAPID keys");
            let _ = source;
            // Put back at once, it would be claimed at once, as long as the keys cannot be read.
            tokio::time::sleep(KeyRing::LOOK_AGAIN).await;
            return Verdict::new(Next::Release);
        }
    };
    let own_id = job.record.vapid_key;
    let others = push.key_ring().live();
    let others = others.iter().filter(|other| other.id() != own_id);
    // The row's own key first; the others only after a push service said that it is another's.
    let mut unasked = Next::Release;
    let mut left = own.iter().chain(others.clone()).count();
    for vapid_key in own.iter().chain(others) {
        left = left.saturating_sub(1);
        match send(push, &job, vapid_key, left > 0).await {
            None => return Verdict::new(unasked),
            Some(Ok(())) => return accepted(&job, key, vapid_key, push.now()),
            Some(Err(error)) if error.outcome() == Outcome::KeyMismatch => {
                unasked = Next::RetryAt(push.now());
            }
            Some(Err(error)) => return failed(push.retry_policy(), &job, key, error, push.now()),
        }
    }
    // Another process may have made the key that the row names a moment ago.
    let is_young_until = job.record.last_seen_at + YOUNG;
    if own.is_none() && now < is_young_until {
        return Verdict::new(Next::RetryAt(is_young_until));
    }
    observe::event!(INFO, endpoint = ?job.record.subscription.endpoint(), "no live VAPID key fits");
    Verdict::finished(FinalOutcome::KeyMismatch).with_change(Change::Stale {
        key,
        observed_at: now,
    })
}

/// Gives a message without a topic one of its own, the same at each attempt: should the push service have taken it
/// when we did not hear of it, the repeat replaces what is not delivered yet (RFC 8030 section 5.4).
fn name(message: &mut Message, broadcast: BroadcastId, key: EndpointKey) {
    if message.topic().is_none() {
        let name = [broadcast.as_bytes().as_slice(), key.as_bytes()].concat();
        *message = message.clone().with_topic(Topic::of(name));
    }
}

/// What needs no request.
fn before_sending(push: &WebPush, job: &Job, now: Timestamp) -> Option<Verdict> {
    if now >= job.deadline {
        return Some(Verdict::finished(FinalOutcome::Expired));
    }
    // A row that takes its worker down each time is not tried for ever: claiming counts the attempt.
    if job.attempt > push.retry_policy().max_attempts() {
        return Some(Verdict::finished(FinalOutcome::Failed));
    }
    if job.record.retired.is_none() && job.record.stale {
        return Some(Verdict::finished(FinalOutcome::KeyMismatch));
    }
    if !job.record.is_live(now) {
        return Some(Verdict::finished(FinalOutcome::Gone));
    }
    let gate = push
        .gates()
        .gate(job.record.subscription.endpoint().origin());
    gate.closed_at(now).map(|_| Verdict::new(Next::Release))
}

/// Answers `None` where no request could begin while the row was ours.
async fn send(
    push: &WebPush,
    job: &Job,
    vapid_key: &Arc<VapidKey>,
    has_other_keys: bool,
) -> Option<Result<(), DeliveryError>> {
    let ttl = job.message.ttl().left(job.due_at, push.now());
    let request = Push::new(
        job.record.subscription.clone(),
        job.message.clone(),
        Arc::clone(vapid_key),
    )
    .with_ttl(ttl)
    .with_other_keys(has_other_keys);
    let push_service = PushService::of(job.record.subscription.endpoint());
    let latest = job.leased_until - push.request_timeout();
    let begin = Begin::by(latest.min(job.deadline)).unless(job.stop.clone());
    let result = push.deliver_push(request, begin).await?;
    let outcome = result
        .as_ref()
        .map_or_else(DeliveryError::outcome, |_| Outcome::Accepted);
    observe::count_attempt(push_service, outcome.as_str());
    Some(result.map(drop))
}

fn accepted(job: &Job, key: EndpointKey, vapid_key: &VapidKey, now: Timestamp) -> Verdict {
    let mut verdict = Verdict::finished(FinalOutcome::Accepted);
    if vapid_key.id() != job.record.vapid_key {
        verdict = verdict.with_change(Change::UseVapidKey {
            key,
            vapid_key: vapid_key.id(),
        });
    }
    // One write an hour says as much as one per message.
    const WORTH_WRITING: std::time::Duration = std::time::Duration::from_secs(3600);
    let is_news = job.record.failure_streak > 0
        || job
            .record
            .last_success_at
            .is_none_or(|last| now.since(last) >= WORTH_WRITING);
    if is_news {
        verdict = verdict.with_change(Change::Accepted(key));
    }
    verdict
}

/// What follows from a refusal: design.md calls these the delivery rules.
fn failed(
    policy: &RetryPolicy,
    job: &Job,
    key: EndpointKey,
    error: DeliveryError,
    now: Timestamp,
) -> Verdict {
    let outcome = error.outcome();
    let retry_after = error.retry_after();
    // A row whose browser has just subscribed gets 410 from FCM now and then, and 201 a moment later.
    let young_until = job.record.keys_changed_at + YOUNG;
    let next = |outcome, given_up| {
        policy
            .next_attempt(
                outcome,
                job.attempt,
                retry_after,
                job.deadline,
                now,
                Jitter::random(),
            )
            .map_or_else(
                || Verdict::finished(given_up),
                |at| Verdict::new(Next::RetryAt(at)),
            )
    };
    let mut verdict = match outcome {
        // Nothing was asked of anybody.
        _ if error.closed().is_some() => Verdict::new(Next::Release),
        Outcome::Gone if now < young_until => Verdict::new(Next::RetryAt(young_until)),
        Outcome::Gone => {
            let retire = Change::Retire {
                key,
                reason: RetireReason::Gone,
                observed_at: now,
            };
            let mut verdict = Verdict::finished(FinalOutcome::Gone);
            verdict.retire = Some((key, retire));
            verdict
        }
        Outcome::RateLimited => next(outcome, given_up(policy, job)),
        Outcome::Transient => next(outcome, given_up(policy, job)).with_change(Change::Failed(key)),
        // Ours to mend, not the row's: it backs off like a push service that is down.
        Outcome::SenderFault => {
            next(Outcome::Transient, FinalOutcome::SenderFault).with_change(Change::Failed(key))
        }
        Outcome::TooLarge => Verdict::finished(FinalOutcome::TooLarge),
        Outcome::BadRequest => Verdict::finished(FinalOutcome::BadRequest),
        Outcome::Refused => Verdict::finished(FinalOutcome::Refused),
        _ => Verdict::finished(FinalOutcome::Failed),
    };
    observe::event!(
        DEBUG,
        endpoint = ?job.record.subscription.endpoint(),
        outcome = outcome.as_str(),
        attempt = job.attempt,
        error = %error,
        "not delivered",
    );
    verdict.error = Some(error);
    verdict
}

/// Out of attempts is a failure, out of time is an expiry.
fn given_up(policy: &RetryPolicy, job: &Job) -> FinalOutcome {
    if job.attempt >= policy.max_attempts() {
        FinalOutcome::Failed
    } else {
        FinalOutcome::Expired
    }
}

/// So long after its keys changed a row is not retired, and after it was written a key is not unknown.
const YOUNG: std::time::Duration = std::time::Duration::from_secs(60);
