//! The effect of a change on a row.

use crate::clock::Timestamp;
use crate::store::{Change, RetireReason, Retired, SubscriptionRecord};

/// The effect of a change on one row. All but `Unchanged` count in the result of
/// [`SubscriptionStore::apply`](crate::store::SubscriptionStore::apply).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the row has to be written or deleted"]
#[expect(clippy::exhaustive_enums, reason = "a store handles all three")]
pub enum Applied {
    /// The row is unchanged.
    Unchanged,
    /// The row was changed and has to be written.
    Updated,
    /// The row has to be deleted.
    Deleted,
}

impl Applied {
    const fn updated_if(applies: bool) -> Self {
        match applies {
            true => Self::Updated,
            false => Self::Unchanged,
        }
    }

    const fn deleted_if(applies: bool) -> Self {
        match applies {
            true => Self::Deleted,
            false => Self::Unchanged,
        }
    }
}

/// Applies a change to a row (S11 to S13, S18): the row of [`Change::key`], or any row if the change has no key.
///
/// No change modifies the row's id, principal, tags or subscription, so indexes on these stay valid.
///
/// # Examples
///
/// ```
/// use tower_web_push::clock::Timestamp;
/// use tower_web_push::store::rules::{Applied, apply};
/// use tower_web_push::store::{Change, RetireReason, SubscriptionRecord};
/// # use tower_web_push::subscription::{Subscription, SubscriptionId};
/// # use tower_web_push::vapid::KeyId;
/// # let subscription = Subscription::from_json(br#"{
/// #     "endpoint": "https://updates.push.services.mozilla.com/wpush/v2/gAAAAABk",
/// #     "keys": {
/// #         "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
/// #         "auth": "BTBZMqHH6r4Tts7J_aSIgg"
/// #     }
/// # }"#)?;
/// # let vapid_key = KeyId::from_bytes([1; KeyId::LEN]);
/// let at = Timestamp::from_secs;
/// let mut row = SubscriptionRecord::new(SubscriptionId::random(), subscription, vapid_key, at(10));
/// let key = row.subscription.endpoint().key();
///
/// // The browser subscribed again after this was observed (S12).
/// let retire = Change::Retire { key, reason: RetireReason::Gone, observed_at: at(9) };
/// assert_eq!(apply(&retire, &mut row, at(11)), Applied::Unchanged);
/// let retire = Change::Retire { key, reason: RetireReason::Gone, observed_at: at(10) };
/// assert_eq!(apply(&retire, &mut row, at(11)), Applied::Updated);
/// let purge = Change::Purge { before: at(99), expired_before: at(99) };
/// assert_eq!(apply(&purge, &mut row, at(99)), Applied::Deleted);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn apply(change: &Change, row: &mut SubscriptionRecord, now: Timestamp) -> Applied {
    match change {
        Change::Delete {
            principal,
            observed_at,
            ..
        } => Applied::deleted_if(row.principal == *principal && row.last_seen_at <= *observed_at),
        Change::Retire {
            reason,
            observed_at,
            ..
        } => {
            let applies = row.retired.is_none() && row.last_seen_at <= *observed_at;
            if applies {
                row.retired = Some(Retired::new(now, *reason));
            }
            Applied::updated_if(applies)
        }
        Change::Stale { observed_at, .. } => {
            let applies = row.stale_since.is_none() && row.last_seen_at <= *observed_at;
            if applies {
                row.stale_since = Some(now);
            }
            Applied::updated_if(applies)
        }
        Change::Accepted(_) => {
            row.last_success_at = Some(now);
            row.failure_streak = 0;
            row.failing_since = None;
            Applied::Updated
        }
        Change::Failed(_) => {
            row.failure_streak = row.failure_streak.saturating_add(1);
            row.failing_since.get_or_insert(now);
            Applied::Updated
        }
        Change::UseVapidKey { vapid_key, .. } => {
            row.vapid_key = *vapid_key;
            Applied::Updated
        }
        Change::Purge {
            before,
            expired_before,
        } => {
            if row.is_purged(*before, *expired_before, now) {
                return Applied::Deleted;
            }
            let applies = row.is_expired(now);
            if applies {
                row.retired = Some(Retired::new(now, RetireReason::Expired));
            }
            Applied::updated_if(applies)
        }
    }
}
