//! The results of sending.

use crate::broadcast::{BroadcastId, Counts};
use crate::deliver::DeliveryError;
use crate::subscription::SubscriptionId;

/// An accepted broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queued {
    /// Its id, for [`WebPush::status`](crate::WebPush::status).
    pub broadcast: BroadcastId,
    /// The number of its recipients, counted when it was accepted.
    pub recipients: u64,
    /// Whether an earlier call with the same idempotency key was accepted. Then `broadcast` is the earlier one, and this
    /// call queued nothing.
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

/// The outcomes of one attempt for each recipient.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Recipients by outcome; `pending` is always 0.
    pub counts: Counts,
    /// The first failures, at most 32.
    pub failures: Vec<FailedSend>,
}

impl Report {
    /// The most failures that are kept.
    pub(super) const MAX_FAILURES: usize = 32;
}

/// One recipient of a direct send that was not reached.
#[derive(Debug)]
#[non_exhaustive]
pub struct FailedSend {
    /// The subscription of the attempt.
    pub subscription: SubscriptionId,
    /// The cause of the failure.
    pub error: DeliveryError,
}

impl FailedSend {
    pub(crate) const fn new(subscription: SubscriptionId, error: DeliveryError) -> Self {
        Self {
            subscription,
            error,
        }
    }
}
