//! The message and audience of a broadcast, in a row of their own. The row never changes, while the counts change
//! often, and it is deleted when the broadcast is over.

use rusqlite::params;

use super::connection::Connection;
use super::error::corrupt;
use super::query::{Columns, execute, first};
use crate::broadcast::{Audience, Principal};
use crate::message::{Message, Topic};
use crate::store::message_parts::{MessageParts, only_for};
use crate::store::{NewBroadcast, StoreError, StoreErrorKind};

/// What a damaged file may have left under this number belongs to no broadcast.
const INSERT: &str = "INSERT OR REPLACE INTO content (broadcast, audience, payload, ttl, urgency, topic, padding, \
     forget_when_over) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
pub(super) const DELETE: &str =
    "DELETE FROM content WHERE broadcast = ?1 RETURNING forget_when_over";
pub(super) const MESSAGE: &str = "SELECT payload, ttl, urgency, topic, padding, \
     CASE WHEN substr(audience, 1, 7) <> '{\"ids\":' THEN audience END FROM content WHERE broadcast = ?1";

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
    ];
    execute(conn, INSERT, values).map(|_| ())
}

/// Deletes the content. Returns whether its broadcast is deleted with it.
pub(super) fn delete(conn: &Connection, seq: i64) -> Result<bool, StoreError> {
    let forget = first(conn, DELETE, [seq], |columns| columns.flag())?;
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

/// Reads the message of a broadcast, and the user whom it is for.
pub(super) fn message(
    conn: &Connection,
    seq: i64,
) -> Result<(Message, Option<Principal>), StoreError> {
    let read = first(conn, MESSAGE, [seq], |columns| {
        let message = read_message(columns)?;
        let audience: Option<String> = columns.get()?;
        Ok((message, only_for(audience.as_deref().map(str::as_bytes))?))
    })?;
    read.ok_or_else(|| corrupt("a pending broadcast without a message"))
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
