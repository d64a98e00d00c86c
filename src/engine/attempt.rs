//! One attempt for one subscription: its requests, and the consequence of the responses.

use std::sync::Arc;
use std::time::Duration;
use std::vec;

use http::StatusCode;
use tokio::time::Instant;

use super::Consequence;
use super::responses::count;
use crate::broadcast::FinalOutcome;
use crate::clock::{Clock, Timestamp};
use crate::deliver::{Accepted, DeliveryError, Jitter, Outcome, PushService, RetryPolicy};
use crate::message::Message;
use crate::observe;
use crate::push_request::Push;
use crate::store::{Change, Failure, FailureCause, RetireReason, Settlement, SubscriptionRecord};
use crate::subscription::EndpointKey;
use crate::vapid::{KeyId, VapidKey};

/// One attempt to deliver a message to a stored subscription: its requests, and the consequence of the responses.
///
/// It is one request, unless the push service says that the subscription was made with another VAPID key: then one
/// request with each live key, until one is accepted. The result is a [`Consequence`], for [`Effects`](super::Effects) and for the
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
    /// The keys that are not tried yet.
    keys: vec::IntoIter<Arc<VapidKey>>,
    is_own_key_known: bool,
    is_test: bool,
    /// The key of the last request.
    signed_with: Option<KeyId>,
    /// Whether a request was made.
    is_answered: bool,
    /// Why the last request failed.
    failure: Failure,
    end: Option<Consequence>,
}

impl<'a> Attempt<'a> {
    /// A row is not retired for this long after its keys changed.
    const YOUNG: Duration = Duration::from_secs(60);
    /// The last acceptance is written at most once a day: the rules ask whether there was one, and failures since then are
    /// counted by themselves.
    const WORTH_WRITING: Duration = Duration::from_secs(24 * 3600);
    /// A row that was never accepted is retired if its host name does not exist and all attempts have failed for this
    /// time, at least this number of them: an error in a DNS zone is fixed sooner.
    const NEVER_ACCEPTED: (Duration, u32) = (Duration::from_secs(24 * 3600), 3);
    /// Any row is retired if its host name does not exist or its push service answers 400 or 405, and all attempts have
    /// failed for this time, at least this number of them.
    const SILENT: (Duration, u32) = (Duration::from_secs(21 * 24 * 3600), 8);
    /// A row that is gone is retired also while the prune breaker is open, if all attempts have failed for the first time
    /// (the second if it was never accepted), at least this number of them. An outage of its push service is over sooner.
    const GONE_FOR_DAYS: (Duration, Duration, u32) = (
        Duration::from_secs(7 * 24 * 3600),
        Duration::from_secs(3 * 24 * 3600),
        5,
    );
    /// The shortest pause after this machine could not send; a random part of the same is added.
    const LOCAL: Duration = Duration::from_secs(2);
    /// The first and the longest pause after an attempt for a host name that does not exist; the pause doubles.
    const HOST_NOT_FOUND: (Duration, Duration) =
        (Duration::from_secs(3600), Duration::from_secs(8 * 3600));

    /// Attempt `number`, from 1, to deliver a message that was due at `due_at`.
    ///
    /// `now` is when the record was read: the consequence does not apply to a subscription that its page has posted since.
    /// The deadline is that of the message's TTL, the policy the default, and there are no keys: without
    /// [`with_keys`](Self::with_keys) nothing is sent.
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
            is_test: false,
            signed_with: None,
            is_answered: false,
            failure: Failure::default(),
            end: None,
        }
    }

    /// Sets the keys to sign with, in this order: those of [`KeyRing::candidates`](crate::engine::KeyRing::candidates).
    #[must_use]
    pub fn with_keys(mut self, keys: Vec<Arc<VapidKey>>) -> Self {
        self.is_own_key_known = keys.iter().any(|key| key.id() == self.record.vapid_key);
        self.keys = keys.into_iter();
        self
    }

    /// Sets another deadline than that of the message's TTL.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Timestamp) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the retry policy.
    #[must_use]
    pub fn with_policy(mut self, policy: RetryPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// The user of the row caused the push: what comes of it is no evidence against the push service.
    #[must_use]
    pub(crate) const fn with_test(mut self, is_test: bool) -> Self {
        self.is_test = is_test;
        self
    }

    /// Makes the attempt: sends with `send`, as [`Deliver`](crate::deliver::Deliver) does, until no request is left.
    ///
    /// Returns the consequence, and the error of the last request if it was not accepted. An attempt of which no request
    /// could begin is [`Deferred`](Settlement::Deferred).
    ///
    /// # Cancel safety
    ///
    /// If it is dropped while a request is under way, the push service may have accepted the message.
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
            let began = Instant::now();
            let answer = send(push).await;
            let endpoint = self.record.subscription.endpoint();
            count(PushService::of(endpoint), &answer, began.elapsed());
            self.answered(&answer, clock.now(), Jitter::random());
            error = answer.err();
        }
        let consequence = self.end(clock.now());
        (consequence, error)
    }

    /// The next request; `None` if there is none left. From the deadline on there is none.
    ///
    /// Its TTL is what is left at `now`, and shrinks by the wait for a permit. The push has the deadline too, so that no
    /// request begins after such a wait.
    fn next_push(&mut self, now: Timestamp) -> Option<Push> {
        if self.end.is_none() && now >= self.deadline {
            self.end = Some(Consequence::finished(FinalOutcome::Expired));
        }
        if self.signed_with.is_none() && self.end.is_none() {
            self.end = self.foregone().map(Consequence::finished);
        }
        if self.end.is_some() {
            return None;
        }
        let Some(key) = self.keys.next() else {
            self.end = self.is_answered.then(|| self.no_key_fits(now));
            return None;
        };
        self.signed_with = Some(key.id());
        let has_other_keys = self.keys.len() > 0;
        // The push service counts from the request, not from when the message was due (RFC 8030 section 5.2).
        let ttl = self.message.ttl().left(self.due_at, now);
        let accepted_with = self.record.last_success_at.map(|_| self.record.vapid_key);
        let push = Push::new(self.record.subscription.clone(), self.message.clone(), key)
            .with_history(accepted_with, self.record.failing_since)
            .with_test(self.is_test)
            .with_ttl(ttl)
            .with_ttl_since(now)
            .with_deadline(self.deadline);
        Some(push.with_other_keys(has_other_keys))
    }

    /// Takes in the result of the last request.
    fn answered(
        &mut self,
        answer: &Result<Accepted, DeliveryError>,
        now: Timestamp,
        jitter: Jitter,
    ) {
        if let Err(error) = answer {
            observe::event!(
                DEBUG,
                endpoint = ?self.record.subscription.endpoint(),
                outcome = error.outcome().as_str(),
                attempt = self.number,
                error = %error,
                "not delivered",
            );
            let status = error.status().map(|status| status.as_u16());
            self.failure = Failure::new(status, error.reason());
        }
        if !answer.as_ref().is_err_and(DeliveryError::is_unasked) {
            self.is_answered = true;
        }
        self.end = match answer {
            Ok(_) => Some(self.accepted(now)),
            Err(error) if error.outcome() == Outcome::KeyMismatch => None,
            Err(error) if self.is_own_key_known => Some(self.refused(error, now, jitter)),
            Err(error) => Some(self.unjudged(error, now, jitter)),
        };
    }

    /// The consequence. Without a key nothing was sent, and nothing is known.
    fn end(self, now: Timestamp) -> Consequence {
        let mut end = self.end.unwrap_or_else(|| Settlement::Deferred(now).into());
        let is_accepted = end.settlement == Settlement::Finished(FinalOutcome::Accepted);
        if matches!(end.settlement, Settlement::Finished(_)) && !is_accepted && self.is_answered {
            let service = PushService::of(self.record.subscription.endpoint());
            end.cause = Some(FailureCause::new(service, self.failure));
        }
        end
    }

    /// The outcome that is certain without a request.
    fn foregone(&self) -> Option<FinalOutcome> {
        if self.number > self.policy.max_attempts().max(1) {
            // The number is counted before the attempt: a row that crashes its worker each time is not tried for ever.
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
        if let Some(vapid_key) = self.signed_with
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
            // At the deadline the row expires; until then the gate may open early.
            let at = match error.closed() {
                Some(closed) => closed.until,
                None if error.is_local() => now + Self::LOCAL + jitter.of(Self::LOCAL),
                None => now,
            };
            let at = at.min(self.deadline);
            // A request with another key may have been made.
            let next = if self.is_answered {
                Settlement::RetryAt(at)
            } else {
                Settlement::Deferred(at)
            };
            return next.into();
        }
        let later = |given_up| self.later(error.retry_after(), given_up, now, jitter);
        let given_up = if self.number >= self.policy.max_attempts() {
            FinalOutcome::Failed
        } else {
            FinalOutcome::Expired
        };
        match error.outcome() {
            // FCM sometimes answers 410 for a new subscription, and 201 a moment later.
            Outcome::Gone if self.began < self.record.keys_changed_at + Self::YOUNG => {
                self.again_at(self.record.keys_changed_at + Self::YOUNG)
            }
            Outcome::Gone => Consequence {
                is_gone_for_days: self.is_gone_for_days(),
                ..self.retired(FinalOutcome::Gone, RetireReason::Gone)
            },
            // Written, so that a row which is limited for ever is no evidence against its push service.
            Outcome::RateLimited => later(given_up).with(self.failed()),
            Outcome::Transient if error.is_host_not_found() => {
                self.host_not_found(given_up, now, jitter)
            }
            Outcome::Transient => later(given_up).with(self.failed()),
            // A fault of the sender, not of the row: it backs off as for a push service that is down.
            Outcome::SenderFault => later(FinalOutcome::SenderFault).with(self.failed()),
            Outcome::TooLarge => Consequence::finished(FinalOutcome::TooLarge),
            Outcome::BadRequest if self.fails_since(Self::SILENT) && is_refusal(error) => {
                self.retired(FinalOutcome::BadRequest, RetireReason::BadRequest)
            }
            Outcome::BadRequest => {
                let end = Consequence::finished(FinalOutcome::BadRequest);
                if is_refusal(error) {
                    end.with(self.failed())
                } else {
                    end
                }
            }
            Outcome::Refused => Consequence::finished(FinalOutcome::Refused),
            // `DeliveryError` never has the first; `answered` handles the second.
            Outcome::Accepted | Outcome::KeyMismatch => Consequence::finished(FinalOutcome::Failed),
        }
    }

    /// The endpoint's host name does not exist. A row that was accepted before is treated as if its push service did not
    /// answer; any other waits for hours, not seconds, and is retired in the end.
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
        self.later(wait, given_up, now, jitter).with(self.failed())
    }

    fn is_gone_for_days(&self) -> bool {
        let (accepted, never, failures) = Self::GONE_FOR_DAYS;
        let time = match self.record.last_success_at {
            None => never,
            Some(_) => accepted,
        };
        self.fails_since((time, failures))
    }

    /// Whether all attempts before this one have failed, for at least `time` and at least `failures` of them: since the
    /// last acceptance, and since the browser posted the row. Time without attempts is no evidence.
    fn fails_since(&self, (time, failures): (Duration, u32)) -> bool {
        let since = self.record.failing_since;
        since.is_some_and(|since| self.began.since(since) >= time)
            && self.record.failure_streak >= failures
    }

    fn failed(&self) -> Change {
        Change::Failed {
            key: self.key(),
            failure: self.failure,
        }
    }

    fn retired(&self, outcome: FinalOutcome, reason: RetireReason) -> Consequence {
        Consequence::finished(outcome).with(Change::Retire {
            key: self.key(),
            reason,
            observed_at: self.began,
            failure: self.failure,
        })
    }

    /// What follows from a response to a key that is not the row's own, which is missing: nothing about the row.
    fn unjudged(&self, error: &DeliveryError, now: Timestamp, jitter: Jitter) -> Consequence {
        let refused = self.refused(error, now, jitter);
        let condemns = |change: &Change| matches!(change, Change::Retire { .. });
        if refused.changes.iter().any(condemns) {
            return self.later(None, FinalOutcome::KeyMismatch, now, jitter);
        }
        refused.settlement.into()
    }

    fn no_key_fits(&self, now: Timestamp) -> Consequence {
        if !self.is_own_key_known {
            return self.later(None, FinalOutcome::KeyMismatch, now, Jitter::random());
        }
        observe::event!(INFO, endpoint = ?self.record.subscription.endpoint(), "no live VAPID key fits");
        let stale = Consequence::finished(FinalOutcome::KeyMismatch).with(Change::Stale {
            key: self.key(),
            observed_at: self.began,
            failure: self.failure,
        });
        Consequence {
            is_gone_for_days: self.is_gone_for_days(),
            ..stale
        }
    }

    /// Another attempt after a pause, if there are attempts and time left.
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
        at.map_or(Settlement::Finished(given_up), Settlement::RetryAt)
            .into()
    }

    fn again_at(&self, at: Timestamp) -> Consequence {
        if at < self.deadline {
            Settlement::RetryAt(at).into()
        } else {
            Consequence::finished(FinalOutcome::Expired)
        }
    }

    fn key(&self) -> EndpointKey {
        self.record.subscription.endpoint().key()
    }
}

/// Whether the push service refuses every message for this endpoint without saying that it is gone (400, 405). Other
/// statuses of [`Outcome::BadRequest`], a redirect or a 402, may be about the push service as a whole.
fn is_refusal(error: &DeliveryError) -> bool {
    let refusals = [StatusCode::BAD_REQUEST, StatusCode::METHOD_NOT_ALLOWED];
    error
        .status()
        .is_some_and(|status| refusals.contains(&status))
}

#[cfg(test)]
#[path = "attempt_tests.rs"]
mod tests;
