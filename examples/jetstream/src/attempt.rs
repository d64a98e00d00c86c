//! One attempt for one recipient: the crate has the rules, this file sends and reads the clock.

use std::sync::Arc;

use tower::ServiceExt as _;
use tower::limit::ConcurrencyLimit;
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::deliver::{Deliver, HttpClient, OriginGate, RetryPolicy};
use tower_web_push::engine::{Attempt, Consequence, KeyRing};
use tower_web_push::store::{Settlement, SubscriptionRecord};

use crate::job::Job;

/// The sender. All jobs of a process share its gates, tokens and connections.
#[derive(Debug)]
pub(crate) struct Post {
    /// The limit counts requests: an attempt that waits for its push service holds no slot.
    pub(crate) deliver: Deliver<ConcurrencyLimit<HttpClient>>,
    pub(crate) keys: KeyRing,
    pub(crate) retry: RetryPolicy,
    pub(crate) clock: SystemClock,
}

impl Post {
    /// Makes an attempt for one subscription as it is stored now.
    pub(crate) async fn attempt(&self, job: &Job, record: &SubscriptionRecord) -> Consequence {
        let now = self.clock.now();
        let Ok(keys) = self.keys.candidates(&record.vapid_key, now).await else {
            // The store does not answer, which does not count as an attempt.
            return Settlement::Deferred(now + KeyRing::LOOK_AGAIN).into();
        };
        let message = job.message.clone();
        let attempt = Attempt::new(record, message, job.due_at, job.attempts + 1, now)
            .with_policy(self.retry)
            .with_keys(keys);
        let send = |push| self.deliver.clone().oneshot(push);
        attempt.drive(&self.clock, send).await.0
    }

    /// Returns the gate of a subscription's push service.
    pub(crate) fn gate(&self, record: &SubscriptionRecord) -> Arc<OriginGate> {
        let origin = record.subscription.endpoint().origin();
        self.deliver.gates().gate(origin)
    }
}
