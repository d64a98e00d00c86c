//! The message and audience of a broadcast, in a row of their own. The row never changes, while the counts change
//! often, and it is deleted when the broadcast is over.

use rusqlite::params;

use super::connection::Connection;
use super::error::corrupt;
use super::query::{Columns, execute, first};
use crate::broadcast::{Audience, TraceParent};
use crate::clock::Timestamp;
use crate::message::{Message, Topic};
use crate::store::message_parts::{self, MessageParts, only_for};
use crate::store::{ClaimedMessage, NewBroadcast, StoreError, StoreErrorKind};

/// What a damaged file may have left under this number belongs to no broadcast.
const INSERT: &str = "INSERT OR REPLACE INTO content (broadcast, audience, payload, ttl, urgency, topic, padding, \
     forget_when_over, trace_parent) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
pub(super) const IS_FORGOTTEN: &str = "SELECT forget_when_over FROM content WHERE broadcast = ?1";
pub(super) const DELETE: &str = "DELETE FROM content WHERE broadcast = ?1";
pub(super) const MESSAGE: &str = "SELECT payload, ttl, urgency, topic, padding, \
     CASE WHEN substr(audience, 1, 7) <> '{\"ids\":' THEN audience END, trace_parent FROM content WHERE broadcast = ?1";

pub(super) fn insert(conn: &Connection, seq: i64, new: &NewBroadcast) -> Result<(), StoreError> {
    let audience = audience_text(&new.audience)?;
    let message = &new.message;
    let values = params![
        seq,
        audience,
        message.payload().map(|payload| payload.as_ref()),
        message.ttl().as_secs(),
        message.urgency().as_str(),
        message.topic().map(Topic::as_str),
        message.padding().to_string(),
        new.forget_when_over,
        new.trace_parent.map(|parent| parent.to_string()),
    ];
    execute(conn, INSERT, values).map(|_| ())
}

/// Deletes the content. Returns whether its broadcast is deleted with it.
pub(super) fn delete(conn: &Connection, seq: i64) -> Result<bool, StoreError> {
    let forget = first(conn, IS_FORGOTTEN, [seq], |columns| columns.flag())?;
    execute(conn, DELETE, [seq])?;
    Ok(forget.unwrap_or(false))
}

/// Serializes an audience.
pub(super) fn audience_text(audience: &Audience) -> Result<String, StoreError> {
    serde_json::to_string(audience)
        .map_err(|error| StoreError::new(StoreErrorKind::Misconfigured, error))
}

/// Reads the text of an audience.
pub(super) fn audience(columns: &mut Columns<'_, '_>) -> Result<Audience, StoreError> {
    let text: String = columns.get()?;
    serde_json::from_str(&text).map_err(|_| corrupt("an audience"))
}

/// Reads the message of a broadcast, with these times.
pub(super) fn message(
    conn: &Connection,
    seq: i64,
    (due_at, deadline): (Timestamp, Timestamp),
) -> Result<ClaimedMessage, StoreError> {
    let read = first(conn, MESSAGE, [seq], |columns| {
        let message = ClaimedMessage::new(read_message(columns)?, due_at, deadline);
        let audience: Option<String> = columns.get()?;
        Ok(ClaimedMessage {
            only_for: only_for(audience.as_deref().map(str::as_bytes))?,
            trace_parent: trace_parent(columns),
            ..message
        })
    })?;
    read.ok_or_else(|| corrupt("a pending broadcast without a message"))
}

/// Reads a trace parent, if it can be read.
pub(super) fn trace_parent(columns: &mut Columns<'_, '_>) -> Option<TraceParent> {
    let text: Option<String> = columns.get().ok().flatten();
    message_parts::trace_parent(text.as_deref())
}

/// Reads payload, TTL, urgency, topic and padding.
pub(super) fn read_message(columns: &mut Columns<'_, '_>) -> Result<Message, StoreError> {
    let parts = MessageParts {
        payload: columns.get()?,
        ttl_secs: columns.count()?,
        urgency: columns.get()?,
        topic: columns.get()?,
        padding: columns.get()?,
    };
    parts.into_message()
}
