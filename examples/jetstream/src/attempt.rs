//! One attempt for one recipient, and what follows from it: the rules of the crate's own worker, on its public API.

use std::sync::Arc;
use std::time::Duration;

use tower::ServiceExt as _;
use tower::limit::ConcurrencyLimit;
use tower_web_push::broadcast::FinalOutcome;
use tower_web_push::clock::{Clock as _, SystemClock, Timestamp};
use tower_web_push::deliver::{Deliver, DeliveryError, HttpClient, Jitter, Outcome, RetryPolicy};
use tower_web_push::message::{Message, Topic};
use tower_web_push::push_request::Push;
use tower_web_push::store::{Change, RetireReason, SubscriptionRecord};
use tower_web_push::vapid::{KeyRing, VapidKey};

use crate::job::Job;

/// So long after its keys changed a row is not retired, and after it was written a key is not unknown.
const YOUNG: Duration = Duration::from_secs(60);
/// One write an hour says as much as one per message.
const WORTH_WRITING: Duration = Duration::from_secs(3600);

/// Sends. All jobs of a process share it: its gates, tokens and connections are worth having once.
#[derive(Debug)]
pub(crate) struct Post {
    /// The limit goes around `Deliver`; whatever would go inside it sees one attempt, encrypted.
    pub(crate) deliver: ConcurrencyLimit<Deliver<HttpClient>>,
    pub(crate) keys: KeyRing,
    pub(crate) retry: RetryPolicy,
    pub(crate) clock: SystemClock,
}

/// What follows from an attempt.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) next: Next,
    /// Of the subscription. [`Change::Retire`] is for [`Effects`](crate::effects::Effects) to judge.
    pub(crate) changes: Vec<Change>,
}

/// Where the delivery goes from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Finished(FinalOutcome),
    /// Once more, not before `at`, with so many attempts made by then.
    Again {
        at: Timestamp,
        attempts: u32,
    },
}

impl Verdict {
    const fn new(next: Next) -> Self {
        let changes = Vec::new();
        Self { next, changes }
    }

    const fn finished(outcome: FinalOutcome) -> Self {
        Self::new(Next::Finished(outcome))
    }

    fn with(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }
}

impl Post {
    /// Tries to deliver to one subscription, as it is stored now; `None` is one that has unsubscribed.
    pub(crate) async fn attempt(&self, job: &Job, record: Option<&SubscriptionRecord>) -> Verdict {
        let began = self.clock.now();
        let Some(record) = record else {
            return Verdict::finished(FinalOutcome::Gone);
        };
        if began >= job.deadline() {
            return Verdict::finished(FinalOutcome::Expired);
        }
        // Its job was written a while ago.
        if !record.is_live(began) {
            return Verdict::finished(if record.stale {
                FinalOutcome::KeyMismatch
            } else {
                FinalOutcome::Gone
            });
        }
        let Ok(own) = self.keys.find(&record.vapid_key, began).await else {
            // The store does not answer, which is nobody's attempt.
            return self.again(job, began + KeyRing::LOOK_AGAIN, job.attempts);
        };
        // The row's own key first; the others only after the push service said that it is another's.
        let live = self.keys.live();
        let others = live.iter().filter(|key| key.id() != record.vapid_key);
        let keys: Vec<&Arc<VapidKey>> = own.iter().chain(others).collect();
        let message = self.named(job, record);
        for (number, key) in keys.iter().enumerate() {
            let subscription = record.subscription.clone();
            let push = Push::new(subscription, message.clone(), Arc::clone(key))
                // The push service counts from the request, not from when the message was due.
                .with_ttl(message.ttl().left(job.due_at, self.clock.now()))
                .with_other_keys(number + 1 < keys.len());
            match self.deliver.clone().oneshot(push).await {
                Ok(_) => return self.accepted(record, key),
                Err(error) if error.outcome() == Outcome::KeyMismatch => {}
                Err(error) => return self.refused(job, record, &error, began),
            }
        }
        self.no_key_fits(job, record, own.is_some(), began)
    }

    /// The same topic at each attempt at each recipient: where a push service took a message and we did not hear of
    /// it, the repeat replaces what is not delivered yet (RFC 8030 section 5.4).
    fn named(&self, job: &Job, record: &SubscriptionRecord) -> Message {
        let message = job.message.clone();
        if message.topic().is_some() {
            return message;
        }
        let name = [&job.broadcast.as_bytes()[..], record.id.as_bytes()].concat();
        message.with_topic(Topic::of(name))
    }

    fn accepted(&self, record: &SubscriptionRecord, key: &VapidKey) -> Verdict {
        let row = record.subscription.endpoint().key();
        let mut verdict = Verdict::finished(FinalOutcome::Accepted);
        if key.id() != record.vapid_key {
            let vapid_key = key.id();
            verdict = verdict.with(Change::UseVapidKey {
                key: row,
                vapid_key,
            });
        }
        let is_old = |last| self.clock.now().since(last) >= WORTH_WRITING;
        if record.failure_streak > 0 || record.last_success_at.is_none_or(is_old) {
            verdict = verdict.with(Change::Accepted(row));
        }
        verdict
    }

    fn refused(
        &self,
        job: &Job,
        record: &SubscriptionRecord,
        error: &DeliveryError,
        began: Timestamp,
    ) -> Verdict {
        if let Some(closed) = error.closed() {
            // Nothing was sent: this was no attempt.
            return self.again(job, closed.until, job.attempts);
        }
        let row = record.subscription.endpoint().key();
        let attempts = job.attempts + 1;
        match error.outcome() {
            // A browser that has just subscribed is said to be gone now and then.
            Outcome::Gone if began < record.keys_changed_at + YOUNG => {
                self.again(job, record.keys_changed_at + YOUNG, attempts)
            }
            Outcome::Gone => Verdict::finished(FinalOutcome::Gone).with(Change::Retire {
                key: row,
                reason: RetireReason::Gone,
                observed_at: began,
            }),
            Outcome::RateLimited => self.later(job, error, FinalOutcome::Failed),
            Outcome::Transient => self
                .later(job, error, FinalOutcome::Failed)
                .with(Change::Failed(row)),
            // Ours to mend: tried again like a push service that is down.
            Outcome::SenderFault => self
                .later(job, error, FinalOutcome::SenderFault)
                .with(Change::Failed(row)),
            Outcome::TooLarge => Verdict::finished(FinalOutcome::TooLarge),
            Outcome::BadRequest => Verdict::finished(FinalOutcome::BadRequest),
            Outcome::Refused => Verdict::finished(FinalOutcome::Refused),
            _ => Verdict::finished(FinalOutcome::Failed),
        }
    }

    /// Once more after a pause, as long as there are attempts and time left.
    fn later(&self, job: &Job, error: &DeliveryError, given_up: FinalOutcome) -> Verdict {
        let attempts = job.attempts + 1;
        let at = self.retry.next_attempt(
            Outcome::Transient,
            attempts,
            error.retry_after(),
            job.deadline(),
            self.clock.now(),
            Jitter::random(),
        );
        match at {
            Some(at) => Verdict::new(Next::Again { at, attempts }),
            None if attempts < self.retry.max_attempts() => {
                Verdict::finished(FinalOutcome::Expired)
            }
            None => Verdict::finished(given_up),
        }
    }

    fn again(&self, job: &Job, at: Timestamp, attempts: u32) -> Verdict {
        if at < job.deadline() {
            Verdict::new(Next::Again { at, attempts })
        } else {
            Verdict::finished(FinalOutcome::Expired)
        }
    }

    fn no_key_fits(
        &self,
        job: &Job,
        record: &SubscriptionRecord,
        has_own: bool,
        began: Timestamp,
    ) -> Verdict {
        // Another process may have made the key that the row names a moment ago.
        let young_until = record.last_seen_at + YOUNG;
        if !has_own && began < young_until {
            return self.again(job, young_until, job.attempts);
        }
        Verdict::finished(FinalOutcome::KeyMismatch).with(Change::Stale {
            key: record.subscription.endpoint().key(),
            observed_at: began,
        })
    }
}
