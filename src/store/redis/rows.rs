//! Packing a subscription's row into one value.

use super::StoreError;
use super::pack::{Unpacked, pack};
use super::reply::{array, parse, text, time};
use crate::broadcast::{Principal, Tag};
use crate::clock::Timestamp;
use crate::push_service::PushService;
use crate::store::reason::corrupt;
use crate::store::{
    Failure, LastFailure, ReasonWord, RetireReason, Retired, StoreErrorKind, SubscriptionRecord,
};
use crate::subscription::{
    AuthSecret, Endpoint, Subscription, SubscriptionError, SubscriptionId, UaPublicKey,
};
use crate::vapid::KeyId;

/// Packs a row. `subscriptions.lua` refers to the indexes of the fields.
pub(super) fn pack_row(record: &SubscriptionRecord) -> Vec<u8> {
    let subscription = &record.subscription;
    let millis = |at: Timestamp| at.as_millis().to_string();
    let or_nothing = |at: Option<Timestamp>| at.map_or_else(String::new, millis);
    let tags: Vec<_> = record.tags.iter().map(Tag::as_str).collect();
    let principal = record.principal.as_ref();
    let failure = record.last_failure.map(|last| last.failure);
    let failure = failure.unwrap_or_default();
    pack([
        record.id.as_bytes().as_slice(),
        subscription.endpoint().as_str().as_bytes(),
        subscription.ua_public().as_bytes(),
        subscription.auth().secret_bytes(),
        or_nothing(subscription.expiration_time()).as_bytes(),
        principal_text(principal).as_bytes(),
        // Tags contain no spaces.
        tags.join(" ").as_bytes(),
        record.vapid_key.as_bytes(),
        PushService::of(subscription.endpoint()).as_str().as_bytes(),
        millis(record.created_at).as_bytes(),
        millis(record.keys_changed_at).as_bytes(),
        millis(record.last_seen_at).as_bytes(),
        or_nothing(record.last_success_at).as_bytes(),
        record.failure_streak.to_string().as_bytes(),
        or_nothing(record.failing_since).as_bytes(),
        or_nothing(record.stale_since).as_bytes(),
        or_nothing(record.retired.map(|retired| retired.at)).as_bytes(),
        record
            .retired
            .map_or("", |retired| retired.reason.as_str())
            .as_bytes(),
        or_nothing(record.last_failure.map(|last| last.at)).as_bytes(),
        status_text(&failure).as_bytes(),
        failure
            .reason
            .as_ref()
            .map_or("", ReasonWord::as_str)
            .as_bytes(),
    ])
}

/// Serializes a principal with a prefix, to tell an empty one from none.
pub(super) fn principal_text(principal: Option<&Principal>) -> String {
    principal.map_or_else(String::new, |principal| format!("={}", principal.as_str()))
}

/// Serializes a status, or nothing.
pub(super) fn status_text(failure: &Failure) -> String {
    let status = failure.status;
    status.map_or_else(String::new, |status| status.to_string())
}

pub(super) fn unpack_row(raw: &[u8]) -> Result<SubscriptionRecord, StoreError> {
    let unreadable = |error: SubscriptionError| StoreError::new(StoreErrorKind::Corrupt, error);
    let time_or_nothing = |raw: &[u8]| match raw {
        [] => Ok(None),
        raw => time(raw).map(Some),
    };
    let mut parts = Unpacked::of(raw)?;
    let id = SubscriptionId::from_bytes(array(parts.next()?)?);
    let endpoint = Endpoint::parse(&text(parts.next()?.to_vec())?).map_err(unreadable)?;
    let ua_public = UaPublicKey::from_bytes(parts.next()?).map_err(unreadable)?;
    let auth = AuthSecret::from_bytes(parts.next()?).map_err(unreadable)?;
    let expires = time_or_nothing(parts.next()?)?;
    let subscription = Subscription::new(endpoint, ua_public, auth).with_expiration_time(expires);
    let principal = text(parts.next()?.to_vec())?;
    let tags = text(parts.next()?.to_vec())?;
    let vapid_key = KeyId::from_bytes(array(parts.next()?)?);
    let _service = parts.next()?;
    let created_at = time(parts.next()?)?;
    let mut record = SubscriptionRecord::new(id, subscription, vapid_key, created_at);
    record.principal = principal.strip_prefix('=').map(Principal::from);
    for tag in tags.split_ascii_whitespace() {
        record
            .tags
            .insert(Tag::parse(tag).map_err(|_| corrupt("a tag"))?);
    }
    record.keys_changed_at = time(parts.next()?)?;
    record.last_seen_at = time(parts.next()?)?;
    record.last_success_at = time_or_nothing(parts.next()?)?;
    record.failure_streak = parse(parts.next()?)?;
    record.failing_since = time_or_nothing(parts.next()?)?;
    record.stale_since = time_or_nothing(parts.next()?)?;
    let retired_at = time_or_nothing(parts.next()?)?;
    let reason = text(parts.next()?.to_vec())?;
    record.retired = match retired_at {
        None => None,
        Some(at) => {
            let reason = RetireReason::from_name(&reason);
            let reason = reason.ok_or_else(|| corrupt("the reason why a row is retired"))?;
            Some(Retired::new(at, reason))
        }
    };
    let failed_at = time_or_nothing(parts.next()?)?;
    let status: Option<u16> = parse(parts.next()?).ok();
    let reason = text(parts.next()?.to_vec())?;
    record.last_failure = failed_at.map(|at| {
        let reason = ReasonWord::of(&reason);
        LastFailure::new(at, Failure { status, reason })
    });
    Ok(record)
}
