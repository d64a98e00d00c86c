//! What sending came to.

use crate::broadcast::{BroadcastId, Counts};
use crate::deliver::DeliveryError;
use crate::subscription::SubscriptionId;

/// A broadcast that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queued {
    /// Its name, for [`WebPush::status`](crate::WebPush::status).
    pub broadcast: BroadcastId,
    /// How many subscriptions it is for, as counted now.
    pub recipients: u64,
    /// Whether an earlier call with the same idempotency key was accepted: its broadcast is the one named here, and this
    /// call has queued nothing.
    pub is_repeat: bool,
}

impl Queued {
    pub(super) const fn new(broadcast: BroadcastId, recipients: u64) -> Self {
        Self {
            broadcast,
            recipients,
            is_repeat: false,
        }
    }

    pub(super) const fn repeat(broadcast: BroadcastId, recipients: u64) -> Self {
        Self {
            broadcast,
            recipients,
            is_repeat: true,
        }
    }
}

/// What one attempt for each recipient came to.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// How many came to what; `pending` is always 0.
    pub counts: Counts,
    /// Some of the failures, 32 at most.
    pub failures: Vec<Failure>,
}

impl Report {
    /// How many failures are kept.
    pub(super) const MAX_FAILURES: usize = 32;
}

/// One attempt that failed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failure {
    /// Whose.
    pub subscription: SubscriptionId,
    /// Why.
    pub error: DeliveryError,
}

impl Failure {
    pub(crate) const fn new(subscription: SubscriptionId, error: DeliveryError) -> Self {
        Self {
            subscription,
            error,
        }
    }
}
