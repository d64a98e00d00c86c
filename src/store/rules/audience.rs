//! The rows of an audience, and those that a filter counts.

use crate::broadcast::Audience;
use crate::clock::Timestamp;
use crate::push_service::PushService;
use crate::store::{CountFilter, Liveness, SubscriptionFilter, SubscriptionRecord};

/// Returns whether a row belongs to an audience, in any state.
///
/// A page (S9) contains the members that also [are live](SubscriptionRecord::is_live).
#[must_use]
pub fn is_member(audience: &Audience, record: &SubscriptionRecord) -> bool {
    match audience {
        Audience::All => true,
        Audience::User(principal) => record.principal.as_ref() == Some(principal),
        Audience::Tag(tag) => record.tags.contains(tag),
        Audience::Ids(ids) => ids.contains(&record.id),
    }
}

/// Returns whether a filter counts a row at `now` (S10).
#[must_use]
pub fn takes(filter: &CountFilter, record: &SubscriptionRecord, now: Timestamp) -> bool {
    let CountFilter {
        audience,
        liveness,
        push_service,
        vapid_key,
    } = filter;
    let at_service = |service| PushService::of(record.subscription.endpoint()) == service;
    is_in_state(*liveness, record, now)
        && push_service.is_none_or(at_service)
        && vapid_key.is_none_or(|key| record.vapid_key == key)
        && is_member(audience, record)
}

/// Returns whether a list with this filter has a row at `now` (S20).
#[must_use]
pub fn lists(filter: &SubscriptionFilter, record: &SubscriptionRecord, now: Timestamp) -> bool {
    let SubscriptionFilter {
        user,
        tag,
        push_service,
        liveness,
    } = filter;
    let at_service = |service| PushService::of(record.subscription.endpoint()) == service;
    is_in_state(*liveness, record, now)
        && push_service.is_none_or(at_service)
        && (user.is_none() || record.principal == *user)
        && tag.as_ref().is_none_or(|tag| record.tags.contains(tag))
}

fn is_in_state(liveness: Liveness, record: &SubscriptionRecord, now: Timestamp) -> bool {
    match liveness {
        Liveness::Any => true,
        Liveness::Live => record.is_live(now),
        Liveness::Stale => record.stale_since.is_some() && record.retired.is_none(),
        Liveness::Retired => record.retired.is_some(),
    }
}
