//! A job: one message for at most 500 subscriptions.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tower_web_push::broadcast::{BroadcastId, Principal};
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::store::SubscriptionRecord;
use tower_web_push::subscription::SubscriptionId;

use crate::Error;

/// A job in the queue, as JSON.
///
/// It contains ids of subscriptions, not copies: a user who unsubscribes meanwhile gets nothing, new keys are used,
/// and no endpoint is in the queue. NATS has its number and its delivery count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
// A member of a later version may matter: a worker of this version leaves such a job to others.
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Job {
    pub(crate) broadcast: BroadcastId,
    pub(crate) message: Message,
    /// When it was accepted: the TTL counts from here.
    #[serde(with = "millis")]
    pub(crate) due_at: Timestamp,
    /// No request is sent before: push services asked for it, or it is the delay before a retry.
    #[serde(with = "millis")]
    pub(crate) not_before: Timestamp,
    /// The attempts that each of the recipients has had.
    pub(crate) attempts: u32,
    pub(crate) recipients: Vec<SubscriptionId>,
    /// The user whom it is for, if it is for one: meanwhile another one may have signed in in the same browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) only_for: Option<Principal>,
}

impl Job {
    /// The most recipients of one job: about 20 kB of JSON, where NATS accepts 1 MB.
    pub(crate) const PAGE: usize = 500;

    pub(crate) fn read(json: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(json).map_err(|error| {
            // serde's own text may quote the input, which is a message.
            let (line, column) = (error.line(), error.column());
            format!("not a job: {:?} at {line}:{column}", error.classify()).into()
        })
    }

    /// Whether a subscription, as it is now, gets the message.
    pub(crate) fn is_for(&self, record: &SubscriptionRecord) -> bool {
        let only_for = self.only_for.as_ref();
        only_for.is_none_or(|user| record.principal.as_ref() == Some(user))
    }

    /// Makes the same job for some of its recipients.
    pub(crate) fn for_others(&self, recipients: Vec<SubscriptionId>) -> Self {
        Self {
            recipients,
            ..self.clone()
        }
    }
}

/// Milliseconds since 1970.
mod millis {
    use super::{Deserialize as _, Deserializer, Serializer, Timestamp};

    pub(super) fn serialize<S: Serializer>(
        at: &Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(at.as_millis())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(Timestamp::from_millis)
    }
}
