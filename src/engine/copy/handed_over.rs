//! Browsers that changed hands between a registration with one store and one with the other.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::Side;
use super::error::{CopyError, target};
use super::schedules::panicked;
use crate::engine::records::{Record, records};
use crate::schedule::Schedule;
use crate::store::rules::is_newer;
use crate::store::{
    ScheduleStore, StoreError, StoreErrorKind, SubscriptionRecord, SubscriptionRef,
};
use crate::subscription::SubscriptionId;

/// Whether two registrations are of two users: then the daily notifications of the earlier one are not the later user's.
///
/// One without a user is of no other user: a browser that registers again without naming one keeps the user of its row (S3),
/// which a pass writes. Where a row without a user stays or is written, it gets no notifications of a user all the same.
/// Another user of the same registration was assigned by an administrator, which hands nothing over.
pub(super) fn is_handed_over(one: &SubscriptionRecord, other: &SubscriptionRecord) -> bool {
    one.last_seen_at != other.last_seen_at
        && matches!((&one.principal, &other.principal), (Some(one), Some(other)) if one != other)
}

/// Removes the daily notifications of the target that would pass to these rows and are not their users'. Returns their number.
///
/// It is called before the rows are written: nothing tells afterwards whose they were.
pub(super) async fn remove_former(
    to: &Side,
    rows: &[SubscriptionRecord],
) -> Result<u64, CopyError> {
    if to.ledger.next_fire_at().await.map_err(target)?.is_none() {
        return Ok(0);
    }
    let mut tasks = JoinSet::new();
    for id in former(to, rows).await? {
        let ledger = Arc::clone(&to.ledger);
        tasks.spawn(async move { (id, schedules(&*ledger, id).await) });
    }
    let mut read = Vec::new();
    while let Some(one) = tasks.join_next().await {
        let (id, schedules) = one.map_err(panicked).map_err(target)?;
        match schedules.map_err(target)? {
            Some(none) if none.is_empty() => {}
            schedules => read.push((id, schedules)),
        }
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

/// The ids in the target whose daily notifications are not those of the users of these rows: of rows of other users that these
/// replace, also without a user, and of these rows themselves, where the target has no row that tells whose they are.
async fn former(
    to: &Side,
    rows: &[SubscriptionRecord],
) -> Result<BTreeSet<SubscriptionId>, CopyError> {
    let keys = rows
        .iter()
        .map(|row| SubscriptionRef::Key(row.subscription.endpoint().key()));
    let ids = rows.iter().map(|row| SubscriptionRef::Id(row.id));
    let names: Vec<_> = keys.chain(ids).collect();
    let there = records(&*to.subscriptions, &names).await.map_err(target)?;
    let (of_keys, of_ids) = there.split_at(rows.len());
    let mut former = BTreeSet::new();
    for ((row, of_key), of_id) in rows.iter().zip(of_keys).zip(of_ids) {
        let found = [of_key, of_id].into_iter().filter_map(|there| match there {
            Record::Found(there) => Some(&**there),
            Record::Missing | Record::Unreadable => None,
        });
        // It is not written if one of them is newer (C2).
        if !found.clone().all(|there| is_newer(row, there)) {
            continue;
        }
        // Also if it is written without a user: they would be those of the next user there.
        let is_handed_over = |there: &&SubscriptionRecord| {
            there.last_seen_at != row.last_seen_at
                && there.principal.is_some()
                && there.principal != row.principal
        };
        let handed_over = found.filter(is_handed_over);
        former.extend(handed_over.map(|there| there.id));
        if !matches!(of_id, Record::Found(_)) {
            former.insert(row.id);
        }
    }
    Ok(former)
}

/// The daily notifications of a subscription; `None` if there are some that the store cannot read.
async fn schedules(
    ledger: &dyn ScheduleStore,
    id: SubscriptionId,
) -> Result<Option<Vec<Schedule>>, StoreError> {
    let read = async {
        let left_out = ledger.unreadable_schedules(Some(id)).await?;
        let schedules = ledger.schedules(Some(id)).await?;
        Ok::<_, StoreError>((left_out == 0).then_some(schedules))
    };
    match read.await {
        Err(error) if error.kind() == StoreErrorKind::Corrupt => Ok(None),
        read => read,
    }
}
