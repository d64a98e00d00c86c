//! The message and audience of a broadcast.

use std::collections::BTreeMap;

use super::StoreError;
use super::reply::{Fields, parse};
use super::script::Args;
use crate::broadcast::Audience;
use crate::clock::Timestamp;
use crate::message::{Message, Topic};
use crate::store::message_parts::{MessageParts, only_for, trace_parent};
use crate::store::reason::corrupt;
use crate::store::{ClaimedMessage, Cursor, NewBroadcast, NewDelivery, Page, StoreErrorKind};
use crate::subscription::{EndpointKey, Origin};

/// Pushes the 17 arguments of a new broadcast, and those of its first page behind their number.
pub(super) fn push_broadcast(
    args: Args,
    new: &NewBroadcast,
    now: Timestamp,
) -> Result<Args, StoreError> {
    let due_at = new.send_at.map_or(now, |at| at.max(now));
    let idempotency = new.idempotency.as_ref();
    let args = args
        .with(*new.id.as_bytes())
        .time(now)
        .time_or_nothing(new.send_at)
        .time(due_at)
        .time(new.deadline)
        .with(new.pace.map_or_else(String::new, |pace| pace.to_string()))
        .number(new.recipients)
        .with(idempotency.map_or("", |idempotency| &idempotency.key))
        .with(idempotency.map_or_else(Vec::new, |idempotency| idempotency.fingerprint.to_vec()))
        .number(u8::from(new.forget_when_over))
        .with(audience_text(&new.audience)?);
    let parent = new.trace_parent.map(|parent| parent.to_string());
    let args = push_message(args, &new.message).with(parent.unwrap_or_default());
    let Some(Page { rows, next }) = new.first_page(now) else {
        return Ok(args.number(0));
    };
    let page = push_page(Args::default(), rows, next);
    Ok(args.number(page.len()).and(page))
}

/// Pushes the cursor behind a page, and for each origin its name, the number of recipients, and the recipients.
pub(super) fn push_page(args: Args, rows: &[NewDelivery], next: &Cursor) -> Args {
    let mut by_origin: BTreeMap<&Origin, Vec<&EndpointKey>> = BTreeMap::new();
    for row in rows {
        by_origin.entry(&row.origin).or_default().push(&row.key);
    }
    let mut args = args.with(cursor_text(next));
    for (origin, keys) in by_origin {
        args = args.with(origin.as_str()).number(keys.len());
        keys.iter().for_each(|key| args.push(*key.as_bytes()));
    }
    args
}

pub(super) fn cursor_text(cursor: &Cursor) -> Vec<u8> {
    match cursor {
        Cursor::Start => Vec::new(),
        Cursor::After(key) => [b"A", key.as_bytes().as_slice()].concat(),
        Cursor::End => b"E".to_vec(),
    }
}

/// Pushes the 5 arguments of a message. A payload is prefixed, to tell an empty one from none.
pub(super) fn push_message(args: Args, message: &Message) -> Args {
    let payload = message.payload().map_or_else(Vec::new, |payload| {
        let mut marked = vec![b'='];
        marked.extend_from_slice(payload);
        marked
    });
    args.with(payload)
        .number(message.ttl().as_secs())
        .with(message.urgency().as_str())
        .with(message.topic().map_or("", Topic::as_str))
        .with(message.padding().to_string())
}

/// Serializes an audience.
pub(super) fn audience_text(audience: &Audience) -> Result<String, StoreError> {
    serde_json::to_string(audience)
        .map_err(|error| StoreError::new(StoreErrorKind::Misconfigured, error))
}

pub(super) fn audience(text: &[u8]) -> Result<Audience, StoreError> {
    serde_json::from_slice(text).map_err(|_| corrupt("an audience"))
}

/// Reads the message of a broadcast's content, with these times.
pub(super) fn message(
    mut fields: Fields,
    (due_at, deadline): (Timestamp, Timestamp),
) -> Result<ClaimedMessage, StoreError> {
    let missing = || corrupt("a pending broadcast without a message");
    let parts = MessageParts {
        payload: fields.take("payload"),
        ttl_secs: parse(&fields.take("ttl").ok_or_else(missing)?)?,
        urgency: fields.text("urgency")?.ok_or_else(missing)?,
        topic: fields.text("topic")?,
        padding: fields.text("padding")?.ok_or_else(missing)?,
    };
    let audience = fields.take("audience").ok_or_else(missing)?;
    let parent = fields.text("trace_parent").ok().flatten();
    Ok(ClaimedMessage {
        only_for: only_for(Some(&audience))?,
        trace_parent: trace_parent(parent.as_deref()),
        ..ClaimedMessage::new(parts.into_message()?, due_at, deadline)
    })
}
