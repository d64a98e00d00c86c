//! The daily notifications of many subscriptions.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::schedule::Schedule;
use crate::store::{ScheduleStore, StoreError, StoreErrorKind};
use crate::subscription::SubscriptionId;

/// The most reads of the store at once.
const AT_ONCE: usize = 32;

/// Returns those of each subscription, in order. Most stores have none at all, which one read tells.
///
/// # Cancel safety
///
/// Reads only. The tasks belong to this call.
pub(super) async fn schedules_of(
    ledger: &Arc<dyn ScheduleStore>,
    ids: &[SubscriptionId],
) -> Result<Vec<Vec<Schedule>>, StoreError> {
    let mut found = vec![Vec::new(); ids.len()];
    if ids.is_empty() || ledger.next_fire_at().await?.is_none() {
        return Ok(found);
    }
    let mut reads = JoinSet::new();
    let mut next = ids.iter().copied().enumerate();
    loop {
        while reads.len() < AT_ONCE
            && let Some((place, id)) = next.next()
        {
            let ledger = Arc::clone(ledger);
            reads.spawn(async move { (place, ledger.schedules(Some(id)).await) });
        }
        let Some(read) = reads.join_next().await else {
            return Ok(found);
        };
        let (place, schedules) =
            read.map_err(|panic| StoreError::new(StoreErrorKind::Unavailable, panic))?;
        if let Some(slot) = found.get_mut(place) {
            *slot = schedules?;
        }
    }
}
