//! The message that a new subscriber gets.

#[cfg(feature = "api")]
use super::{Engine, SendError};
#[cfg(feature = "api")]
use crate::broadcast::{Broadcast, TraceParent};
use crate::message::Message;
#[cfg(feature = "api")]
use crate::subscription::SubscriptionId;

/// The replaced server's text.
const TEXT: &str = r#"{"title":"Subscription Successful","message":"Thank you for subscribing!"}"#;

#[cfg(feature = "api")]
impl Engine {
    /// Sends a confirmation to a new subscriber.
    pub(crate) async fn confirm(
        &self,
        id: SubscriptionId,
        trace_parent: Option<TraceParent>,
    ) -> Result<(), SendError> {
        let mut confirmation = Broadcast::to(id, Message::new(TEXT));
        confirmation.forget_when_over = true;
        confirmation.trace_parent = trace_parent;
        self.enqueue(confirmation).await.map(|_| ())
    }
}

/// Whether a message is a confirmation. Ledgers store no more about it than its payload. Its subscriber caused it, as often
/// as they like, so that its response is no evidence against the push service.
pub(super) fn is_confirmation(message: &Message) -> bool {
    let payload = message.payload();
    payload.is_some_and(|payload| payload.as_ref() == TEXT.as_bytes())
}
