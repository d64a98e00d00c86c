//! The message and audience of a broadcast, in a row of their own. The row never changes, while the counts change
//! often, and it is deleted when the broadcast is over.

use super::error::corrupt;
use super::rows::Columns;
use crate::broadcast::{Audience, TraceParent};
use crate::message::Message;
use crate::store::message_parts::{self, MessageParts};
use crate::store::{StoreError, StoreErrorKind};

/// Serializes an audience.
pub(super) fn audience_text(audience: &Audience) -> Result<String, StoreError> {
    serde_json::to_string(audience)
        .map_err(|error| StoreError::new(StoreErrorKind::Misconfigured, error))
}

/// Reads the text of an audience.
pub(super) fn audience(columns: &mut Columns<'_>) -> Result<Audience, StoreError> {
    let text: &str = columns.get()?;
    serde_json::from_str(text).map_err(|_| corrupt("an audience"))
}

/// Reads payload, TTL, urgency, topic and padding.
pub(super) fn read_message(columns: &mut Columns<'_>) -> Result<Message, StoreError> {
    let parts = MessageParts {
        payload: columns.get()?,
        ttl_secs: columns.count()?,
        urgency: columns.get()?,
        topic: columns.get()?,
        padding: columns.get()?,
    };
    parts.into_message()
}

/// Reads a trace parent, if it can be read.
pub(super) fn trace_parent(columns: &mut Columns<'_>) -> Option<TraceParent> {
    message_parts::trace_parent(columns.get().ok().flatten())
}
