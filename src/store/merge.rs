//! What an upsert makes of the rows that stand: the same in every back end here.

use super::{NewSubscription, SubscriptionRecord};
use crate::broadcast::Principal;
use crate::clock::Timestamp;
use crate::subscription::SubscriptionId;

/// The row to store.
pub(super) struct Merged {
    pub(super) record: SubscriptionRecord,
    pub(super) created: bool,
    pub(super) superseded: Option<SubscriptionId>,
}

/// Merges `new` with the row that stands at its endpoint and the row that it replaces, which is another one;
/// `None` is the conflict of S4 and S14.
pub(super) fn merge(
    standing: Option<SubscriptionRecord>,
    replaced: Option<&SubscriptionRecord>,
    new: &NewSubscription,
    now: Timestamp,
) -> Option<Merged> {
    let created = standing.is_none();
    let mut superseded = None;
    let mut record = if let Some(mut record) = standing {
        if new.only_if_unknown {
            return None;
        }
        if !record.subscription.same_keys(&new.subscription) {
            if !is_owner(record.principal.as_ref(), new.principal.as_ref()) {
                return None;
            }
            record.keys_changed_at = now;
        }
        record.subscription = new.subscription.clone();
        record.vapid_key = new.vapid_key.unwrap_or(record.vapid_key);
        record
    } else {
        let vapid_key = new
            .vapid_key
            .or(replaced.map(|row| row.vapid_key))
            .unwrap_or(new.default_vapid_key);
        SubscriptionRecord::new(new.id, new.subscription.clone(), vapid_key, now)
    };
    if let Some(old) = replaced {
        superseded = (!created).then_some(record.id);
        record.id = old.id;
        record.created_at = old.created_at;
        record.tags.clone_from(&old.tags);
        record.principal = old.principal.clone().or(record.principal);
    }
    if let Some(principal) = &new.principal {
        record.principal = Some(principal.clone());
    }
    if let Some(tags) = &new.tags {
        record.tags.clone_from(tags);
    }
    record.last_seen_at = now;
    record.failure_streak = 0;
    record.failing_since = None;
    record.stale_since = None;
    record.retired = None;
    Some(Merged {
        record,
        created,
        superseded,
    })
}

/// Nobody owns a row of nobody: two absent principals are not the same one.
fn is_owner(owner: Option<&Principal>, caller: Option<&Principal>) -> bool {
    owner.is_some() && owner == caller
}
