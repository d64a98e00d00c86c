//! The row that an upsert stores, and its limits.

use crate::broadcast::Principal;
use crate::clock::Timestamp;
use crate::store::{
    Assignment, NewSubscription, StoreError, StoreErrorKind, SubscriptionLimits,
    SubscriptionRecord, Upserted,
};
use crate::subscription::{EndpointKey, SubscriptionId};

/// The result of [`merge`]: the row to store, and the result of the upsert.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Merged {
    /// The row to store at the new endpoint.
    pub record: SubscriptionRecord,
    /// Whether the endpoint had no row.
    pub created: bool,
    /// The id that the row at the endpoint lost when it took over another (S5).
    pub superseded: Option<SubscriptionId>,
    /// The ids of the rows that belonged to another principal until now (S3, S5).
    pub handed_over: Vec<SubscriptionId>,
    /// Whether the row was stale until now (S3, S5).
    pub was_stale: bool,
    replaces: bool,
}

impl Merged {
    /// A row with other principal or tags (S21).
    fn assigned(mut record: SubscriptionRecord, assignment: &Assignment) -> Self {
        if let Some(principal) = &assignment.principal {
            record.principal.clone_from(principal);
        }
        if let Some(tags) = &assignment.tags {
            record.tags.clone_from(tags);
        }
        Self {
            record,
            created: false,
            superseded: None,
            handed_over: Vec::new(),
            was_stale: false,
            replaces: false,
        }
    }

    /// Returns whether this is a new unproven row, which [`SubscriptionLimits::unproven`] limits (S16).
    pub(crate) const fn adds_unproven(&self) -> bool {
        self.created && !self.replaces && self.record.is_unproven()
    }

    /// Checks the limits (S7, S16).
    ///
    /// `others` is the number of other rows in the table after the upsert, without those that are replaced or
    /// [evicted](evicted). `unproven` is the number of unproven rows before it.
    ///
    /// # Errors
    ///
    /// [`Full`](StoreErrorKind::Full): the store must not change anything.
    pub fn check(
        &self,
        limits: &SubscriptionLimits,
        others: u64,
        unproven: u64,
    ) -> Result<(), StoreError> {
        if self.created && others >= limits.total {
            return Err(StoreErrorKind::Full.into());
        }
        if self.adds_unproven() && unproven >= limits.unproven {
            return Err(StoreError::too_many_unproven());
        }
        Ok(())
    }
}

impl From<Merged> for Upserted {
    /// The result once the row is stored.
    fn from(merged: Merged) -> Self {
        Self::Stored {
            record: Box::new(merged.record),
            created: merged.created,
            superseded: merged.superseded,
            handed_over: merged.handed_over,
            was_stale: merged.was_stale,
        }
    }
}

/// Merges a subscription with the stored row of its endpoint and the row that it replaces (S2 to S5, S14, S21).
///
/// `standing` is the row of [`NewSubscription::key`], `replaced` that of [`NewSubscription::replaced_key`]. Returns
/// `None` if the result is [`Upserted::Conflict`]. Otherwise the store checks the limits ([`evicted`],
/// [`Merged::check`]), deletes the replaced and evicted rows, writes the new one and returns `merged.into()`.
#[must_use]
pub fn merge(
    standing: Option<SubscriptionRecord>,
    replaced: Option<&SubscriptionRecord>,
    new: &NewSubscription,
    now: Timestamp,
) -> Option<Merged> {
    let NewSubscription {
        id,
        subscription,
        principal,
        tags,
        vapid_key,
        default_vapid_key,
        replaces: _,
        only_if_unknown,
        assign,
    } = new;
    if let Some(assignment) = assign {
        let record = standing.filter(|row| row.id == *id)?;
        return Some(Merged::assigned(record, assignment));
    }
    let created = standing.is_none();
    let owner = |row: &SubscriptionRecord| Some((row.id, row.principal.clone()?));
    let owners = [standing.as_ref(), replaced].map(|row| row.and_then(owner));
    // Of the row whose VAPID key stays if none is given.
    let was_stale = standing.as_ref().or(replaced);
    let was_stale = was_stale.is_some_and(|row| row.stale_since.is_some());
    let mut record = if let Some(mut record) = standing {
        if *only_if_unknown {
            return None;
        }
        if !record.subscription.same_keys(subscription) {
            // A row without a principal has no owner: two absent principals are not equal.
            if record.principal.is_none() || record.principal != *principal {
                return None;
            }
            record.keys_changed_at = now;
        }
        record.subscription = subscription.clone();
        record.vapid_key = vapid_key.unwrap_or(record.vapid_key);
        record
    } else {
        let vapid_key = vapid_key
            .or(replaced.map(|row| row.vapid_key))
            .unwrap_or(*default_vapid_key);
        SubscriptionRecord::new(*id, subscription.clone(), vapid_key, now)
    };
    let mut superseded = None;
    if let Some(old) = replaced {
        superseded = (!created).then_some(record.id);
        record.id = old.id;
        record.created_at = old.created_at;
        record.tags.clone_from(&old.tags);
        record.principal = old.principal.clone().or(record.principal);
    }
    if let Some(principal) = principal {
        record.principal = Some(principal.clone());
    }
    let is_another = |owner: &Principal| record.principal.as_ref() != Some(owner);
    let handed_over: Vec<_> = owners
        .into_iter()
        .flatten()
        .filter(|(_, owner)| is_another(owner))
        .map(|(id, _)| id)
        .collect();
    if let Some(tags) = tags {
        record.tags.clone_from(tags);
    } else if handed_over.contains(&record.id) {
        // They say what the former principal is, or has chosen.
        record.tags.clear();
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
        handed_over,
        was_stale,
        replaces: replaced.is_some(),
    })
}

/// Returns the rows to delete so that their principal has at most `limits.per_principal` (S6), the least recently seen
/// first.
///
/// `others` are the principal's rows, without the upserted and the replaced one, each with its `last_seen_at`.
#[must_use]
pub fn evicted(
    others: impl IntoIterator<Item = (Timestamp, EndpointKey)>,
    limits: &SubscriptionLimits,
) -> Vec<EndpointKey> {
    let mut others: Vec<_> = others.into_iter().collect();
    let room = usize::try_from(limits.per_principal).unwrap_or(usize::MAX);
    others.sort_unstable();
    others.truncate((others.len() + 1).saturating_sub(room.max(1)));
    others.into_iter().map(|(_, key)| key).collect()
}
