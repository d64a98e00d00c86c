//! VAPID keys of a copy.

use std::collections::HashSet;

use super::error::{CopyError, source, target};
use super::{CopyReport, Side};
use crate::store::StoredVapidKey;
use crate::vapid::KeyId;

/// Copies the keys that the target does not have, sealed as they are. The source's active key becomes the active one if the
/// target has no other, or an older one of the source. Returns the ids of the target's keys.
pub(super) async fn copy(
    from: &Side,
    to: &Side,
    report: &mut CopyReport,
) -> Result<HashSet<KeyId>, CopyError> {
    let theirs = from.vapid_keys.keys().await.map_err(source)?;
    let mut ours = to.vapid_keys.keys().await.map_err(target)?;
    // The active one is the first (K4).
    if ours.is_empty()
        && let Some(active) = theirs.first()
        && to.vapid_keys.insert_first(active).await.map_err(target)?
    {
        report.vapid_keys += 1;
        ours = to.vapid_keys.keys().await.map_err(target)?;
    }
    let mut ids: HashSet<_> = ours.iter().map(|key| key.id).collect();
    for key in &theirs {
        if ids.insert(key.id) {
            let mut inactive = key.clone();
            inactive.active = false;
            to.vapid_keys.insert(&inactive).await.map_err(target)?;
            report.vapid_keys += 1;
        }
    }
    let is_active = |key: &&StoredVapidKey| key.active;
    if let (Some(their_active), Some(our_active)) =
        (theirs.iter().find(is_active), ours.iter().find(is_active))
    {
        report.own_active_key = None;
        if !theirs.iter().any(|key| key.id == our_active.id) {
            report.own_active_key = Some(our_active.id);
        } else if their_active.id != our_active.id
            && their_active.created_at > our_active.created_at
        {
            to.vapid_keys.insert(their_active).await.map_err(target)?;
            report.vapid_keys += 1;
        }
    }
    Ok(ids)
}
