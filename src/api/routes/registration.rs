//! Parsing of `/subscribe` and `/renew`: a subscription and its options.

use std::collections::BTreeSet;

use http::request::Parts;
use serde_json::Value;

use crate::api::ApiSettings;
use crate::api::members::Members;
use crate::api::problem::{Problem, ProblemKind};
use crate::broadcast::{Principal, Tag};
use crate::engine::{RegisterError, RegisterErrorKind, Registration};
use crate::json::whole_number;
use crate::schedule::{Daily, DailyTime, NotifyType, Weekdays, Zone};
use crate::subscription::Subscription;
use crate::vapid::VapidPublicKey;

/// Parses a registration, for the signed-in user if there is one.
pub(super) fn parse(
    members: Members<'_>,
    parts: &Parts,
    settings: &ApiSettings,
) -> Result<Registration, Problem> {
    let mut registration = Registration::new(subscription(members)?);
    if let Some(key) = server_key(members)? {
        registration = registration.vapid_key(key);
    }
    if let Some(daily) = daily(members)? {
        registration = registration.daily(daily);
    }
    if let Some(tags) = tags(members)? {
        if !tags.is_subset(&settings.public_tags) {
            return Err(ProblemKind::TagNotPublic.into());
        }
        registration = registration.tags(tags);
    }
    match principal(parts) {
        Some(principal) => Ok(registration.principal(principal.clone())),
        None if settings.require_principal => Err(ProblemKind::PrincipalRequired.into()),
        None => Ok(registration),
    }
}

/// Returns the user from the application's authentication layer.
pub(super) fn principal(parts: &Parts) -> Option<&Principal> {
    parts.extensions.get()
}

impl From<RegisterError> for Problem {
    fn from(error: RegisterError) -> Self {
        use RegisterErrorKind::{Store, StoreFull, Vapid};
        match error.kind() {
            RegisterErrorKind::SubscriptionExpired => ProblemKind::SubscriptionExpired.into(),
            RegisterErrorKind::PrincipalTooLong => ProblemKind::PrincipalTooLong.into(),
            RegisterErrorKind::TooManyTags => ProblemKind::TooManyTags.into(),
            // The same answer for every refusal, so that it reveals nothing of the internal network.
            RegisterErrorKind::EndpointNotAllowed => ProblemKind::EndpointNotAllowed.into(),
            RegisterErrorKind::EndpointUnverified { retry_after } => {
                Self::from(ProblemKind::EndpointUnverified).with_retry_after(retry_after)
            }
            RegisterErrorKind::UnknownVapidKey => ProblemKind::UnknownVapidKey.into(),
            RegisterErrorKind::Conflict => ProblemKind::SubscriptionConflict.into(),
            RegisterErrorKind::NeverDue => ProblemKind::InvalidNotifyTime.into(),
            StoreFull => Self::from(ProblemKind::StoreFull).because(&error),
            Store => Self::from(ProblemKind::StoreUnavailable).because(&error),
            Vapid => Self::from(ProblemKind::VapidUnavailable).because(&error),
        }
    }
}

fn daily(members: Members<'_>) -> Result<Option<Daily>, Problem> {
    let notify_type = notify_type(members)?;
    let too_long = |_| Problem::from(ProblemKind::MessageTooLong);
    let message = Daily::message(members.text("message")?).map_err(too_long)?;
    match members.value("notifyTime") {
        Some(time) => {
            let notify_type = notify_type.unwrap_or_default();
            let daily = Daily::new(notify_type, daily_time(time)?, message);
            daily.map(Some).map_err(too_long)
        }
        None if notify_type.is_some() || message.is_some() => {
            Err(ProblemKind::MissingNotifyTime.into())
        }
        None => Ok(None),
    }
}

/// Parses `notifyType`, if there is one.
pub(super) fn notify_type(members: Members<'_>) -> Result<Option<NotifyType>, Problem> {
    let parse = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
    members
        .value("notifyType")
        .map(|value| parse(value).ok_or_else(|| ProblemKind::InvalidNotifyType.into()))
        .transpose()
}

/// The replaced servers' message for a subscription without an endpoint or keys.
pub(super) const MISSING_SUBSCRIPTION: &str = "Missing subscription information";

/// Parses the subscription among the members. As in the replaced servers, missing members are reported before wrong
/// ones.
pub(super) fn subscription(members: Members<'_>) -> Result<Subscription, Problem> {
    let missing = |kind| Err(Problem::from(kind).with_detail(MISSING_SUBSCRIPTION));
    if members.value("endpoint").is_none_or(|url| url == "") {
        return missing(ProblemKind::MissingEndpoint);
    }
    let Some(keys) = members.value("keys") else {
        return missing(ProblemKind::MissingKeys);
    };
    let has = |name| keys.get(name).is_some_and(|key| !key.is_null());
    if !has("p256dh") || !has("auth") {
        return Err(ProblemKind::MissingKeys.into());
    }
    Ok(Subscription::from_members(members.map())?)
}

fn server_key(members: Members<'_>) -> Result<Option<VapidPublicKey>, Problem> {
    let parse = |value: &Value| VapidPublicKey::parse(value.as_str()?).ok();
    members
        .value("applicationServerKey")
        .map(|value| parse(value).ok_or_else(|| ProblemKind::InvalidApplicationServerKey.into()))
        .transpose()
}

/// Parses tags, public or not.
pub(super) fn tags(members: Members<'_>) -> Result<Option<BTreeSet<Tag>>, Problem> {
    let Some(value) = members.value("tags") else {
        return Ok(None);
    };
    let wrong_type = || Problem::member("tags", "an array of strings");
    let list = value.as_array().ok_or_else(wrong_type)?;
    let mut tags = BTreeSet::new();
    for tag in list {
        let text = tag.as_str().ok_or_else(wrong_type)?;
        tags.insert(Tag::parse(text).map_err(|_| ProblemKind::InvalidTag)?);
    }
    if tags.len() > Tag::MAX_PER_SUBSCRIPTION {
        return Err(ProblemKind::TooManyTags.into());
    }
    Ok(Some(tags))
}

fn daily_time(value: &Value) -> Result<DailyTime, Problem> {
    let object = value.as_object().ok_or_else(|| invalid("notifyTime"))?;
    let object = Members::of(object);
    let part = |name: &str, member: &'static str| {
        let part = object.value(name).and_then(whole_number);
        part.and_then(|part| u8::try_from(part).ok())
            .ok_or_else(|| invalid(member))
    };
    let minute = match object.value("minute") {
        None => 0,
        Some(_) => part("minute", "notifyTime.minute")?,
    };
    let is_local = ["hour", "zone", "weekdays"]
        .iter()
        .any(|name| object.value(name).is_some());
    let time = |hour| DailyTime::new(hour, minute).map_err(|_| invalid("notifyTime"));
    if !is_local {
        return time(part("utcHour", "notifyTime.utcHour")?);
    }
    if object.value("utcHour").is_some() {
        return Err(invalid("notifyTime.utcHour"));
    }
    let time = time(part("hour", "notifyTime.hour")?)?;
    let zone = object.value("zone").and_then(Value::as_str);
    let time = time.in_zone(zone_of(zone.ok_or_else(|| invalid("notifyTime.zone"))?)?);
    match object.value("weekdays") {
        None => Ok(time),
        Some(names) => weekdays(names)
            .map(|days| time.on(days))
            .ok_or_else(|| invalid("notifyTime.weekdays")),
    }
}

fn invalid(member: &'static str) -> Problem {
    Problem::from(ProblemKind::InvalidNotifyTime).with_member(member)
}

#[cfg(feature = "zones")]
fn zone_of(name: &str) -> Result<Zone, Problem> {
    let unknown = Problem::from(ProblemKind::UnknownZone).with_member("notifyTime.zone");
    Zone::parse(name).map_err(|_| unknown)
}

#[cfg(not(feature = "zones"))]
fn zone_of(name: &str) -> Result<Zone, Problem> {
    match name {
        "UTC" => Ok(Zone::utc()),
        _ => Err(ProblemKind::ZonesUnsupported.into()),
    }
}

fn weekdays(names: &Value) -> Option<Weekdays> {
    let names: Option<Vec<_>> = names.as_array()?.iter().map(Value::as_str).collect();
    Weekdays::parse(names?).ok()
}
