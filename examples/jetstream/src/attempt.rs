//! One attempt for one recipient, as the crate has it: here are only the sending and the clock.

use tower::ServiceExt as _;
use tower::limit::ConcurrencyLimit;
use tower_web_push::broadcast::FinalOutcome;
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::deliver::{
    Attempt, Consequence, Deliver, HttpClient, Jitter, Next, RetryPolicy,
};
use tower_web_push::store::SubscriptionRecord;
use tower_web_push::engine::KeyRing;

use crate::job::Job;

/// Sends. All jobs of a process share it: its gates, tokens and connections are worth having once.
#[derive(Debug)]
pub(crate) struct Post {
    /// The limit goes around `Deliver`; whatever would go inside it sees one attempt, encrypted.
    pub(crate) deliver: ConcurrencyLimit<Deliver<HttpClient>>,
    pub(crate) keys: KeyRing,
    pub(crate) retry: RetryPolicy,
    pub(crate) clock: SystemClock,
}

impl Post {
    /// Tries to deliver to one subscription, as it is stored now; `None` is one that has unsubscribed.
    pub(crate) async fn attempt(
        &self,
        job: &Job,
        record: Option<&SubscriptionRecord>,
    ) -> Consequence {
        let now = self.clock.now();
        let Some(record) = record else {
            return Consequence::finished(FinalOutcome::Gone);
        };
        let Ok(keys) = self.keys.candidates(&record.vapid_key, now).await else {
            // The store does not answer, which is nobody's attempt.
            return Next::Deferred(now + KeyRing::LOOK_AGAIN).into();
        };
        let message = job.message.clone();
        let mut attempt = Attempt::new(record, message, job.due_at, job.attempts + 1, now)
            .with_policy(self.retry)
            .with_keys(keys);
        while let Some(push) = attempt.next_push(self.clock.now()) {
            let answer = self.deliver.clone().oneshot(push).await;
            attempt.answered(&answer, self.clock.now(), Jitter::random());
        }
        attempt.end(self.clock.now())
    }
}
