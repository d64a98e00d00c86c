//! One attempt at one subscription: what to ask, and what follows from the answers.

use std::sync::Arc;
use std::time::Duration;
use std::vec;

use http::StatusCode;

use crate::broadcast::FinalOutcome;
use crate::clock::{Clock, Timestamp};
use crate::deliver::{Accepted, DeliveryError, Jitter, Outcome, PushService, RetryPolicy};
use crate::message::Message;
use crate::observe;
use crate::push_request::Push;
use crate::store::{Change, RetireReason, SubscriptionRecord};
use crate::subscription::EndpointKey;
use crate::vapid::{KeyId, VapidKey};

/// One attempt to deliver a message to a stored subscription: the requests that it takes, and what follows from their
/// answers.
///
/// It is one request, unless the push service says that the subscription was made with another VAPID key: then one
/// with each key there is, until one fits. What follows is a [`Consequence`], for [`Effects`](super::Effects) and for the
/// queue. [`WebPush::run`](crate::WebPush::run) makes the attempts of the ledger; the guide's page [driving it
/// yourself](crate::guide::driving_it_yourself) shows them on another queue.
///
/// # Examples
///
/// ```
/// use tower::{Service, ServiceExt as _};
/// use tower_web_push::Message;
/// use tower_web_push::clock::{Clock, Timestamp};
/// use tower_web_push::deliver::{Accepted, DeliveryError};
/// use tower_web_push::engine::{Attempt, Consequence, KeyRing};
/// use tower_web_push::push_request::Push;
/// use tower_web_push::store::SubscriptionRecord;
/// use tower_web_push::vapid::VapidError;
///
/// /// `due_at` is when the message was accepted, `number` counts the attempts from 1.
/// async fn attempt<S>(
///     deliver: S,
///     keys: &KeyRing,
///     clock: &dyn Clock,
///     record: &SubscriptionRecord,
///     (message, due_at, number): (Message, Timestamp, u32),
/// ) -> Result<Consequence, VapidError>
/// where
///     S: Service<Push, Response = Accepted, Error = DeliveryError> + Clone,
/// {
///     let now = clock.now();
///     let keys = keys.candidates(&record.vapid_key, now).await?;
///     let attempt = Attempt::new(record, message, due_at, number, now).with_keys(keys);
///     let (consequence, _error) = attempt.drive(clock, |push| deliver.clone().oneshot(push)).await;
///     Ok(consequence)
/// }
/// ```
#[derive(Debug)]
pub struct Attempt<'a> {
    record: &'a SubscriptionRecord,
    message: Message,
    due_at: Timestamp,
    deadline: Timestamp,
    number: u32,
    began: Timestamp,
    policy: RetryPolicy,
    /// Those that no request was signed with yet.
    keys: vec::IntoIter<Arc<VapidKey>>,
    is_own_key_known: bool,
    /// What the last request was signed with.
    asked_with: Option<KeyId>,
    /// Whether an answer has come.
    is_answered: bool,
    end: Option<Consequence>,
}

/// What follows from an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Consequence {
    /// Where the delivery goes from here.
    pub next: Next,
    /// What was learned of the subscription, for [`SubscriptionStore::apply`](crate::store::SubscriptionStore::apply):
    /// to be written before the delivery is settled, so that a crash between the two repeats the attempt.
    ///
    /// A [`Change::Retire`] is for the [`PruneBreaker`](super::PruneBreaker) to judge: if it
    /// [suspends](super::PruneBreaker::suspends) retiring for that reason, [`Change::Failed`] takes its place.
    pub changes: Vec<Change>,
    /// The row is said to be gone again, after attempts that failed for days. It is retired also while the breaker is
    /// open, if its push service accepts messages for others: else rows that never existed would stay for ever.
    pub is_gone_for_days: bool,
}

/// Where a delivery goes from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "it is over, or tried again, or was not tried yet"
)]
pub enum Next {
    /// It is at its end.
    Finished(FinalOutcome),
    /// Another attempt, not before this moment.
    RetryAt(Timestamp),
    /// The same attempt, not before this moment: nothing was asked of the push service, so this one does not count.
    Deferred(Timestamp),
}

impl<'a> Attempt<'a> {
    /// So long after its keys changed a row is not retired, and after it was written a key is not unknown.
    const YOUNG: Duration = Duration::from_secs(60);
    /// One write an hour says as much as one per message.
    const WORTH_WRITING: Duration = Duration::from_secs(3600);
    /// A row that was never accepted is retired when its host name does not exist, if all attempts have failed for this
    /// time, and at least this number of them: a mistake in a DNS zone is mended sooner.
    const NEVER_ACCEPTED: (Duration, u32) = (Duration::from_secs(24 * 3600), 3);
    /// Any row is retired when its host name does not exist or its push service answers 400 or 405, if all attempts have
    /// failed for this time, and at least this number of them.
    const SILENT: (Duration, u32) = (Duration::from_secs(21 * 24 * 3600), 8);
    /// A row that is said to be gone is retired also while the prune breaker is open, if all attempts have failed for the
    /// first time, or for the second if it was never accepted, and at least this number of them. In an outage of its
    /// push service a row has this number of failures only if messages are frequent; then it was accepted before.
    const GONE_FOR_DAYS: (Duration, Duration, u32) = (
        Duration::from_secs(21 * 24 * 3600),
        Duration::from_secs(3 * 24 * 3600),
        24,
    );
    /// The shortest pause after the first attempt at a host name that does not exist, and the longest; it doubles.
    const HOST_NOT_FOUND: (Duration, Duration) =
        (Duration::from_secs(3600), Duration::from_secs(8 * 3600));

    /// The attempt of this number, from 1, to deliver a message that was due at a moment.
    ///
    /// `now` is when the record was read: what was learned of it is not held against a subscription that its page
    /// has posted since. The deadline is the one of the message's TTL, the policy the default one, and there are no
    /// keys: without [`with_keys`](Self::with_keys) nothing is asked.
    #[must_use]
    pub fn new(
        record: &'a SubscriptionRecord,
        message: Message,
        due_at: Timestamp,
        number: u32,
        now: Timestamp,
    ) -> Self {
        Self {
            record,
            deadline: message.ttl().deadline(due_at),
            message,
            due_at,
            number,
            began: now,
            policy: RetryPolicy::default(),
            keys: Vec::new().into_iter(),
            is_own_key_known: false,
            asked_with: None,
            is_answered: false,
            end: None,
        }
    }

    /// The keys to ask with, in this order: those of [`KeyRing::candidates`](crate::engine::KeyRing::candidates).
    #[must_use]
    pub fn with_keys(mut self, keys: Vec<Arc<VapidKey>>) -> Self {
        self.is_own_key_known = keys.iter().any(|key| key.id() == self.record.vapid_key);
        self.keys = keys.into_iter();
        self
    }

    /// Gives up at another moment than the message's TTL says.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Timestamp) -> Self {
        self.deadline = deadline;
        self
    }

    /// Tries again as often and as slowly as this policy says.
    #[must_use]
    pub fn with_policy(mut self, policy: RetryPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Makes the attempt: sends with `send`, as [`Deliver`](crate::deliver::Deliver) does, until there is nothing more to ask.
    ///
    /// Returns what follows, and the error of the last request if it was not accepted. An attempt of which no request
    /// could begin is [`Deferred`](Next::Deferred).
    ///
    /// # Cancel safety
    ///
    /// If it is dropped while a request is under way, the push service may have taken the message.
    pub async fn drive<F, A>(
        mut self,
        clock: &dyn Clock,
        mut send: F,
    ) -> (Consequence, Option<DeliveryError>)
    where
        F: FnMut(Push) -> A,
        A: Future<Output = Result<Accepted, DeliveryError>>,
    {
        let mut error = None;
        while let Some(push) = self.next_push(clock.now()) {
            let answer = send(push).await;
            self.answered(&answer, clock.now(), Jitter::random());
            error = answer.err();
        }
        let consequence = self.end(clock.now());
        (consequence, error)
    }

    /// The next request to make; `None` if there is none to make (any more). From the deadline on there is none.
    ///
    /// Its TTL is what is left at `now`, and shrinks by the wait for a permit; the push knows the deadline as well, so
    /// that no request begins after such a wait.
    fn next_push(&mut self, now: Timestamp) -> Option<Push> {
        if self.end.is_none() && now >= self.deadline {
            self.end = Some(Consequence::finished(FinalOutcome::Expired));
        }
        if self.asked_with.is_none() && self.end.is_none() {
            self.end = self.foregone().map(Consequence::finished);
        }
        if self.end.is_some() {
            return None;
        }
        let Some(key) = self.keys.next() else {
            self.end = self.is_answered.then(|| self.no_key_fits());
            return None;
        };
        self.asked_with = Some(key.id());
        let has_other_keys = self.keys.len() > 0;
        // The push service counts from the request, not from when the message was due (RFC 8030 section 5.2).
        let ttl = self.message.ttl().left(self.due_at, now);
        let push = Push::new(self.record.subscription.clone(), self.message.clone(), key)
            .with_ttl(ttl)
            .with_ttl_since(now)
            .with_deadline(self.deadline);
        Some(push.with_other_keys(has_other_keys))
    }

    /// Takes in what came of the last request.
    fn answered(
        &mut self,
        answer: &Result<Accepted, DeliveryError>,
        now: Timestamp,
        jitter: Jitter,
    ) {
        let endpoint = self.record.subscription.endpoint();
        let outcome = answer
            .as_ref()
            .map_or_else(DeliveryError::outcome, |_| Outcome::Accepted);
        if let Err(error) = answer {
            observe::event!(
                DEBUG,
                endpoint = ?endpoint,
                outcome = outcome.as_str(),
                attempt = self.number,
                error = %error,
                "not delivered",
            );
            let _ = error;
        }
        if !answer.as_ref().is_err_and(DeliveryError::is_unasked) {
            observe::count_attempt(PushService::of(endpoint), outcome.as_str());
            self.is_answered = true;
        }
        self.end = match answer {
            Ok(_) => Some(self.accepted(now)),
            Err(error) if error.outcome() == Outcome::KeyMismatch => None,
            Err(error) => Some(self.refused(error, now, jitter)),
        };
    }

    /// What follows. Without a key there was nothing to ask with: nothing is known.
    fn end(self, now: Timestamp) -> Consequence {
        self.end.unwrap_or_else(|| Next::Deferred(now).into())
    }

    /// What is certain without a request.
    fn foregone(&self) -> Option<FinalOutcome> {
        if self.number > self.policy.max_attempts().max(1) {
            // What takes its worker down each time is not tried for ever, where the number is counted before.
            Some(FinalOutcome::Failed)
        } else if self.record.retired.is_none() && self.record.stale_since.is_some() {
            Some(FinalOutcome::KeyMismatch)
        } else if !self.record.is_live(self.began) {
            Some(FinalOutcome::Gone)
        } else {
            None
        }
    }

    fn accepted(&self, now: Timestamp) -> Consequence {
        let key = self.key();
        let mut changes = Vec::new();
        if let Some(vapid_key) = self.asked_with
            && vapid_key != self.record.vapid_key
        {
            changes.push(Change::UseVapidKey { key, vapid_key });
        }
        let is_old = |last| now.since(last) >= Self::WORTH_WRITING;
        if self.record.failure_streak > 0 || self.record.last_success_at.is_none_or(is_old) {
            changes.push(Change::Accepted(key));
        }
        Consequence {
            changes,
            ..Consequence::finished(FinalOutcome::Accepted)
        }
    }

    fn refused(&self, error: &DeliveryError, now: Timestamp, jitter: Jitter) -> Consequence {
        if error.is_too_late() {
            return Consequence::finished(FinalOutcome::Expired);
        }
        if error.is_unasked() {
            // At the deadline it will be found to be too late; until then the gate may open early.
            let at = error.closed().map_or(now, |closed| closed.until);
            let at = at.min(self.deadline);
            // Another key may have been asked with.
            let next = if self.is_answered {
                Next::RetryAt(at)
            } else {
                Next::Deferred(at)
            };
            return next.into();
        }
        let key = self.key();
        let later = |given_up| self.later(error.retry_after(), given_up, now, jitter);
        let given_up = if self.number >= self.policy.max_attempts() {
            FinalOutcome::Failed
        } else {
            FinalOutcome::Expired
        };
        match error.outcome() {
            // A row whose browser has just subscribed gets 410 from FCM now and then, and 201 a moment later.
            Outcome::Gone if self.began < self.record.keys_changed_at + Self::YOUNG => {
                self.again_at(self.record.keys_changed_at + Self::YOUNG)
            }
            Outcome::Gone => {
                let (accepted, never, failures) = Self::GONE_FOR_DAYS;
                let time = match self.record.last_success_at {
                    None => never,
                    Some(_) => accepted,
                };
                Consequence {
                    is_gone_for_days: self.fails_since((time, failures)),
                    ..self.retired(FinalOutcome::Gone, RetireReason::Gone)
                }
            }
            Outcome::RateLimited => later(given_up),
            Outcome::Transient if error.is_host_not_found() => {
                self.host_not_found(given_up, now, jitter)
            }
            Outcome::Transient => later(given_up).with(Change::Failed(key)),
            // Ours to mend, not the row's: it backs off like a push service that is down.
            Outcome::SenderFault => later(FinalOutcome::SenderFault).with(Change::Failed(key)),
            Outcome::TooLarge => Consequence::finished(FinalOutcome::TooLarge),
            Outcome::BadRequest if self.fails_since(Self::SILENT) && is_refusal(error) => {
                self.retired(FinalOutcome::BadRequest, RetireReason::BadRequest)
            }
            Outcome::BadRequest => {
                let end = Consequence::finished(FinalOutcome::BadRequest);
                if is_refusal(error) {
                    end.with(Change::Failed(key))
                } else {
                    end
                }
            }
            Outcome::Refused => Consequence::finished(FinalOutcome::Refused),
            // Neither is an error.
            Outcome::Accepted | Outcome::KeyMismatch => Consequence::finished(FinalOutcome::Failed),
        }
    }

    /// The endpoint's host name does not exist. A row that was accepted lately is treated as when its push service does
    /// not answer; any other waits for hours, not seconds, and is retired in the end.
    fn host_not_found(
        &self,
        given_up: FinalOutcome,
        now: Timestamp,
        jitter: Jitter,
    ) -> Consequence {
        let failing = match self.record.last_success_at {
            None => Self::NEVER_ACCEPTED,
            Some(_) => Self::SILENT,
        };
        if self.fails_since(failing) {
            return self.retired(FinalOutcome::Gone, RetireReason::HostNotFound);
        }
        let wait = self.record.last_success_at.is_none().then(|| {
            let (first, longest) = Self::HOST_NOT_FOUND;
            let doublings = self.number.saturating_sub(1).min(31);
            let wait = first.saturating_mul(1 << doublings).min(longest);
            wait + jitter.of(wait)
        });
        self.later(wait, given_up, now, jitter)
            .with(Change::Failed(self.key()))
    }

    /// Whether all attempts before this one have failed, for this time and at least this number of them: since the last
    /// acceptance, and since its browser posted it. Time without attempts is no evidence.
    fn fails_since(&self, (time, failures): (Duration, u32)) -> bool {
        let since = self.record.failing_since;
        since.is_some_and(|since| self.began.since(since) >= time)
            && self.record.failure_streak >= failures
    }

    fn retired(&self, outcome: FinalOutcome, reason: RetireReason) -> Consequence {
        Consequence::finished(outcome).with(Change::Retire {
            key: self.key(),
            reason,
            observed_at: self.began,
        })
    }

    fn no_key_fits(&self) -> Consequence {
        // Another process may have made the key that the row names a moment ago.
        let young_until = self.record.last_seen_at + Self::YOUNG;
        if !self.is_own_key_known && self.began < young_until {
            return self.again_at(young_until);
        }
        observe::event!(INFO, endpoint = ?self.record.subscription.endpoint(), "no live VAPID key fits");
        Consequence::finished(FinalOutcome::KeyMismatch).with(Change::Stale {
            key: self.key(),
            observed_at: self.began,
        })
    }

    /// After a pause, as long as there are attempts and time left.
    fn later(
        &self,
        retry_after: Option<Duration>,
        given_up: FinalOutcome,
        now: Timestamp,
        jitter: Jitter,
    ) -> Consequence {
        let (number, deadline) = (self.number, self.deadline);
        let outcome = Outcome::Transient;
        let at = self
            .policy
            .next_attempt(outcome, number, retry_after, deadline, now, jitter);
        at.map_or(Next::Finished(given_up), Next::RetryAt).into()
    }

    fn again_at(&self, at: Timestamp) -> Consequence {
        if at < self.deadline {
            Next::RetryAt(at).into()
        } else {
            Consequence::finished(FinalOutcome::Expired)
        }
    }

    fn key(&self) -> EndpointKey {
        self.record.subscription.endpoint().key()
    }
}

impl Consequence {
    /// A delivery that came to its end without having changed anything about its subscription.
    #[must_use]
    pub const fn finished(outcome: FinalOutcome) -> Self {
        Self {
            next: Next::Finished(outcome),
            changes: Vec::new(),
            is_gone_for_days: false,
        }
    }

    fn with(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }
}

/// Whether the push service says that it takes no message for this endpoint, without saying that it is gone: other
/// statuses of [`Outcome::BadRequest`], a redirect or a 402, may be about the push service as a whole.
fn is_refusal(error: &DeliveryError) -> bool {
    let refusals = [StatusCode::BAD_REQUEST, StatusCode::METHOD_NOT_ALLOWED];
    error
        .status()
        .is_some_and(|status| refusals.contains(&status))
}

/// Nothing was learned of the subscription.
impl From<Next> for Consequence {
    fn from(next: Next) -> Self {
        Self {
            next,
            changes: Vec::new(),
            is_gone_for_days: false,
        }
    }
}

#[cfg(test)]
#[path = "attempt_tests.rs"]
mod tests;
