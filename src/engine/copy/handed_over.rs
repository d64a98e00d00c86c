//! Browsers that changed hands between a registration with one store and one with the other.

use std::collections::BTreeSet;

use super::Side;
use super::error::{CopyError, target};
use crate::engine::records::{Record, records};
use crate::schedule::Schedule;
use crate::store::{StoreError, StoreErrorKind, SubscriptionRecord, SubscriptionRef};
use crate::subscription::SubscriptionId;

/// Whether the later of two registrations is of another user than the earlier one: then the daily notifications of the earlier
/// one are not the later user's. Another user of the same registration was assigned by an administrator.
pub(super) fn is_handed_over(one: &SubscriptionRecord, other: &SubscriptionRecord) -> bool {
    let (earlier, later) = match one.last_seen_at < other.last_seen_at {
        true => (one, other),
        false => (other, one),
    };
    earlier.last_seen_at < later.last_seen_at
        && earlier.principal.is_some()
        && earlier.principal != later.principal
}

/// Removes what the store has of daily notifications of former users of the browsers of these rows, as a registration does. Returns
/// their number. It is called before the rows are written: nothing tells afterwards whose they were.
pub(super) async fn remove_former(
    to: &Side,
    rows: &[SubscriptionRecord],
) -> Result<u64, CopyError> {
    if to.ledger.next_fire_at().await.map_err(target)?.is_none() {
        return Ok(0);
    }
    let mut read = Vec::new();
    for id in former(to, rows).await? {
        read.push((id, schedules(to, id).await?));
    }
    if read.is_empty() {
        return Ok(0);
    }
    // Again: what was read is the former user's if the row is by now.
    let former = former(to, rows).await?;
    let mut removed = 0;
    for (id, schedules) in read.into_iter().filter(|(id, _)| former.contains(id)) {
        let Some(schedules) = schedules else {
            removed += to.ledger.remove_schedules(id).await.map_err(target)?;
            continue;
        };
        for schedule in schedules {
            let is_removed = to.ledger.remove_unchanged_schedule(&schedule).await;
            removed += u64::from(is_removed.map_err(target)?);
        }
    }
    Ok(removed)
}

/// The ids of the rows that the store has at the endpoints and ids of these rows, from an earlier registration of another user.
async fn former(
    to: &Side,
    rows: &[SubscriptionRecord],
) -> Result<BTreeSet<SubscriptionId>, CopyError> {
    let keys: Vec<_> = rows
        .iter()
        .map(|row| SubscriptionRef::Key(row.subscription.endpoint().key()))
        .collect();
    let ids: Vec<_> = rows.iter().map(|row| SubscriptionRef::Id(row.id)).collect();
    let mut former = BTreeSet::new();
    for names in [keys, ids] {
        let there = records(&*to.subscriptions, &names).await.map_err(target)?;
        for (row, there) in rows.iter().zip(there) {
            if let Record::Found(there) = there
                && there.last_seen_at < row.last_seen_at
                && is_handed_over(row, &there)
            {
                former.insert(there.id);
            }
        }
    }
    Ok(former)
}

/// The daily notifications of a subscription; `None` if there are some that the store cannot read.
async fn schedules(to: &Side, id: SubscriptionId) -> Result<Option<Vec<Schedule>>, CopyError> {
    let read = async {
        let left_out = to.ledger.unreadable_schedules(Some(id)).await?;
        let schedules = to.ledger.schedules(Some(id)).await?;
        Ok::<_, StoreError>((left_out == 0).then_some(schedules))
    };
    match read.await {
        Err(error) if error.kind() == StoreErrorKind::Corrupt => Ok(None),
        read => read.map_err(target),
    }
}
