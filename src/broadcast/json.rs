//! A broadcast from JSON: the members of `POST /notify`, and those of an outbox.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::Deserialize as _;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{Audience, Broadcast, BroadcastId, TraceParent};
use crate::clock::Timestamp;
use crate::json::whole_number;
use crate::message::{Message, MessageError, MessageErrorKind, Notification, Topic, Ttl, Urgency};
use crate::moment::rfc3339;

/// The longest JSON of a broadcast, in octets: that of a request's body.
const MAX_JSON: usize = 65_536;
/// The member of an outbox's message that holds a whole [`Message`] in its serialized form.
pub(super) const SERIALIZED: &str = "serialized";
/// The members of a request beside those of a notification.
#[cfg(feature = "api")]
const REQUEST: [&str; 7] = [
    "payload", "ttl", "urgency", "topic", "sendAt", "pace", "audience",
];
/// The longest name of an unknown member that a refusal repeats, in octets. A typing error is shorter.
#[cfg(feature = "api")]
const MAX_NAME: usize = 32;
/// The keys of an outbox's options.
const OPTIONS: [&str; 6] = [
    "sendAt",
    "pace",
    "idempotencyKey",
    "id",
    "notify",
    "traceparent",
];

type Members = Map<String, Value>;

/// Why JSON is no broadcast. The texts repeat none of its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// One of the parts is not a JSON object, or not JSON.
    InvalidJson(&'static str),
    InvalidMember(InvalidMember),
    BodyTooLarge,
    MissingContent,
    AmbiguousContent,
    PayloadTooLarge,
    InvalidTtl,
    InvalidUrgency,
    InvalidTopic,
    InvalidSendAt,
    InvalidPace,
    InvalidAudience,
    InvalidIdempotencyKey,
    InvalidId,
}

/// A member of the wrong type or value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InvalidMember {
    /// Its name, if it is one of those that are known, or could be one that is misspelt.
    pub(crate) name: Option<String>,
    pub(crate) detail: String,
}

impl Refusal {
    /// The stable word: `code` in the API's problems.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::InvalidJson(_) => "invalid_json",
            Self::InvalidMember(_) => "invalid_member",
            Self::BodyTooLarge => "body_too_large",
            Self::MissingContent => "missing_content",
            Self::AmbiguousContent => "ambiguous_content",
            Self::PayloadTooLarge => "payload_too_large",
            Self::InvalidTtl => "invalid_ttl",
            Self::InvalidUrgency => "invalid_urgency",
            Self::InvalidTopic => "invalid_topic",
            Self::InvalidSendAt => "invalid_send_at",
            Self::InvalidPace => "invalid_pace",
            Self::InvalidAudience => "invalid_audience",
            Self::InvalidIdempotencyKey => "invalid_idempotency_key",
            Self::InvalidId => "invalid_id",
        }
    }

    /// What to correct.
    pub(crate) fn detail(&self) -> String {
        let text = match self {
            Self::InvalidJson(part) => return format!("{part} is not a JSON object."),
            Self::InvalidMember(invalid) => return invalid.detail.clone(),
            Self::BodyTooLarge => "audience, message and opts are larger than 64 KiB together.",
            Self::MissingContent => "The message has neither title nor payload.",
            Self::AmbiguousContent => "The message has both title and payload.",
            Self::PayloadTooLarge => "The message is larger than 3993 octets.",
            Self::InvalidTtl => "ttl is not a whole number of seconds from 0.",
            Self::InvalidUrgency => "urgency is not one of very-low, low, normal and high.",
            Self::InvalidTopic => {
                "topic is not 1 to 32 base64url characters whose number modulo 4 is not 1."
            }
            Self::InvalidSendAt => "sendAt is not an RFC 3339 date and time with an offset.",
            Self::InvalidPace => "pace is not {\"perSecond\": a whole number from 1}.",
            Self::InvalidAudience => {
                "audience is none of \"all\", {\"user\": name}, {\"tag\": tag} and {\"ids\": ids}."
            }
            Self::InvalidIdempotencyKey => {
                "idempotencyKey is not 1 to 255 visible ASCII characters."
            }
            Self::InvalidId => "id is not a UUID.",
        };
        text.to_owned()
    }

    fn member(name: &str, expected: &str) -> Self {
        Self::InvalidMember(InvalidMember {
            name: Some(name.to_owned()),
            detail: format!("{name} is not {expected}."),
        })
    }

    #[cfg(feature = "api")]
    fn unknown(name: &str) -> Self {
        let is_name = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'_' || octet == b'-';
        let is_shown = !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(is_name);
        let known: Vec<_> = Notification::MEMBERS.into_iter().chain(REQUEST).collect();
        let known = known.join(", ");
        let what = if is_shown { name } else { "A member" };
        Self::InvalidMember(InvalidMember {
            name: is_shown.then(|| name.to_owned()),
            detail: format!("{what} is none of {known}."),
        })
    }
}

impl From<MessageError> for Refusal {
    fn from(error: MessageError) -> Self {
        match error.kind() {
            MessageErrorKind::InvalidTtl => Self::InvalidTtl,
            MessageErrorKind::InvalidUrgency => Self::InvalidUrgency,
            MessageErrorKind::InvalidTopic => Self::InvalidTopic,
            _ => Self::InvalidMember(match error.member() {
                Some(member) => InvalidMember {
                    name: Some(member.to_owned()),
                    detail: format!("{member} has the wrong type or value."),
                },
                None => InvalidMember {
                    name: None,
                    detail: "A member has the wrong type or value.".to_owned(),
                },
            }),
        }
    }
}

impl Broadcast {
    /// Reads the members of a request, of which `text` is the whole text.
    #[cfg(feature = "api")]
    pub(crate) fn from_members(members: &Members, text: &[u8]) -> Result<Self, Refusal> {
        check_names(members)?;
        let message = message(members, text)?;
        let audience = match member(members, "audience") {
            None => Audience::All,
            Some(value) => Audience::deserialize(value).map_err(|_| Refusal::InvalidAudience)?,
        };
        let mut broadcast = Self::to(audience, message);
        broadcast.send_at = send_at(members)?;
        broadcast.pace = pace(members)?;
        Ok(broadcast)
    }

    /// Reads the three texts of an entry of an outbox, with the id if they name one.
    pub(crate) fn from_outbox(
        audience: &str,
        message: &str,
        opts: &str,
    ) -> Result<(Self, Option<BroadcastId>), Refusal> {
        if audience.len() + message.len() + opts.len() > MAX_JSON {
            return Err(Refusal::BodyTooLarge);
        }
        // There is no default: it would be all subscriptions.
        let audience: Audience =
            serde_json::from_str(audience).map_err(|_| Refusal::InvalidAudience)?;
        let members = object(message, "message")?;
        let message = match members.get(SERIALIZED) {
            Some(serialized) => deserialize(&members, serialized)?,
            None => self::message(&members, message.as_bytes())?,
        };
        let opts = object(opts, "opts")?;
        if opts.keys().any(|key| !OPTIONS.contains(&key.as_str())) {
            // What is meant to be sent later, or once, is not sent otherwise.
            return Err(Refusal::InvalidMember(InvalidMember {
                name: None,
                detail: format!("opts has another key than {}.", OPTIONS.join(", ")),
            }));
        }
        let mut broadcast = Self::to(audience, message);
        broadcast.send_at = send_at(&opts)?;
        broadcast.pace = pace(&opts)?;
        if let Some(key) = member(&opts, "idempotencyKey") {
            let key = key.as_str().filter(|key| Self::is_idempotency_key(key));
            let key = key.ok_or(Refusal::InvalidIdempotencyKey)?;
            broadcast.idempotency_key = Some(key.to_owned());
        }
        if member(&opts, "notify").is_some_and(|notify| !notify.is_boolean()) {
            return Err(Refusal::member("notify", "true or false"));
        }
        // A trace that is lost loses no message.
        let parent = member(&opts, "traceparent").and_then(Value::as_str);
        broadcast.trace_parent = parent.and_then(|text| TraceParent::parse(text).ok());
        let id = member(&opts, "id").map(|id| id.as_str().and_then(|id| id.parse().ok()));
        let id = id.map(|id| id.ok_or(Refusal::InvalidId)).transpose()?;
        Ok((broadcast, id))
    }
}

/// Refuses members that a request does not have. A misspelt or misplaced audience would be all subscriptions, and what is meant
/// to be sent later would be sent now.
#[cfg(feature = "api")]
pub(crate) fn check_names(members: &Members) -> Result<(), Refusal> {
    let is_known = |name: &str| Notification::MEMBERS.contains(&name) || REQUEST.contains(&name);
    match members.keys().find(|name| !is_known(name)) {
        Some(name) => Err(Refusal::unknown(name)),
        None => Ok(()),
    }
}

fn object(text: &str, part: &'static str) -> Result<Members, Refusal> {
    serde_json::from_str(text).map_err(|_| Refusal::InvalidJson(part))
}

/// A member of any type, or `None` if it is absent or null.
fn member<'a>(members: &'a Members, name: &str) -> Option<&'a Value> {
    members.get(name).filter(|value| !value.is_null())
}

/// Reads content and delivery options.
fn message(members: &Members, text: &[u8]) -> Result<Message, Refusal> {
    let has = |name| members.contains_key(name);
    let mut message: Message = match (has("title"), has("payload")) {
        (true, true) => return Err(Refusal::AmbiguousContent),
        (false, false) => return Err(Refusal::MissingContent),
        (true, false) => Notification::from_members(members)?.into(),
        (false, true) => Message::new(raw_payload(text)?),
    };
    if let Some(ttl) = member(members, "ttl") {
        let secs = whole_number(ttl).ok_or(Refusal::InvalidTtl)?;
        message = message.with_ttl(Ttl::from_secs(secs));
    }
    if let Some(urgency) = member(members, "urgency") {
        let urgency = urgency
            .as_str()
            .and_then(|text| text.parse::<Urgency>().ok());
        message = message.with_urgency(urgency.ok_or(Refusal::InvalidUrgency)?);
    }
    if let Some(topic) = member(members, "topic") {
        let topic = topic.as_str();
        let topic = topic.ok_or_else(|| Refusal::member("topic", "a string"))?;
        message = message.with_topic(Topic::parse(topic)?);
    }
    fitting(message)
}

fn fitting(message: Message) -> Result<Message, Refusal> {
    match message.is_too_large() {
        true => Err(Refusal::PayloadTooLarge),
        false => Ok(message),
    }
}

/// Returns `payload` as in the text, byte for byte.
fn raw_payload(text: &[u8]) -> Result<Vec<u8>, Refusal> {
    let members: Result<BTreeMap<String, &RawValue>, _> = serde_json::from_slice(text);
    let mut members = members.map_err(|_| Refusal::InvalidJson("message"))?;
    let payload = members.remove("payload").ok_or(Refusal::MissingContent)?;
    Ok(payload.get().as_bytes().to_vec())
}

/// Reads a message that Rust wrote.
fn deserialize(members: &Members, serialized: &Value) -> Result<Message, Refusal> {
    if members.contains_key("title") || members.contains_key("payload") {
        return Err(Refusal::AmbiguousContent);
    }
    let message = Message::deserialize(serialized);
    fitting(message.map_err(|_| Refusal::member(SERIALIZED, "a message of this version"))?)
}

fn send_at(members: &Members) -> Result<Option<Timestamp>, Refusal> {
    let Some(value) = member(members, "sendAt") else {
        return Ok(None);
    };
    let at = value.as_str().and_then(rfc3339);
    Ok(Some(at.ok_or(Refusal::InvalidSendAt)?))
}

fn pace(members: &Members) -> Result<Option<NonZeroU32>, Refusal> {
    let Some(value) = member(members, "pace") else {
        return Ok(None);
    };
    let per_second = value.get("perSecond").and_then(whole_number);
    // A larger number is no limit either.
    let per_second = per_second.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    let pace = per_second.and_then(NonZeroU32::new);
    Ok(Some(pace.ok_or(Refusal::InvalidPace)?))
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
