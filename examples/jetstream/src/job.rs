//! A job: one message for at most 500 subscriptions.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tower_web_push::broadcast::BroadcastId;
use tower_web_push::clock::Timestamp;
use tower_web_push::message::Message;
use tower_web_push::subscription::SubscriptionId;

use crate::Error;

/// What is in the queue, as JSON.
///
/// It names subscriptions and does not copy them: who unsubscribes meanwhile gets nothing, who has new keys is
/// reached with them, and no endpoint is in the queue. Its number, and how often it was delivered, are NATS's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
// What a later version adds may matter: a worker of this one leaves such a job to others.
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Job {
    pub(crate) broadcast: BroadcastId,
    pub(crate) message: Message,
    /// When it was accepted: the TTL counts from here.
    #[serde(with = "millis")]
    pub(crate) due_at: Timestamp,
    /// Nobody is asked before: push services have asked for it, or it is a pause before trying again.
    #[serde(with = "millis")]
    pub(crate) not_before: Timestamp,
    /// How many attempts each of the recipients has seen.
    pub(crate) attempts: u32,
    pub(crate) recipients: Vec<SubscriptionId>,
}

impl Job {
    /// The most recipients of one job: about 20 kB of JSON, where NATS takes 1 MB.
    pub(crate) const PAGE: usize = 500;

    pub(crate) fn read(json: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(json).map_err(|error| {
            // serde's own words may quote what is there, which is somebody's message.
            let (line, column) = (error.line(), error.column());
            format!("not a job: {:?} at {line}:{column}", error.classify()).into()
        })
    }

    /// The same for others of its recipients.
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
