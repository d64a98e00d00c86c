//! Whole rows in memory.

use async_trait::async_trait;

use super::MemoryStore;
use super::subscriptions::Subscriptions;
use crate::clock::Timestamp;
use crate::store::rules::is_newer;
use crate::store::{PortableStore, StoreError, SubscriptionRecord, Unreachable};
use crate::subscription::EndpointKey;

impl Subscriptions {
    /// Returns the keys of the stored rows that a row replaces, or `None` if one of them holds.
    fn replaced_by(&self, key: &EndpointKey, row: &SubscriptionRecord) -> Option<Vec<EndpointKey>> {
        let mut replaced = Vec::new();
        for key in [Some(key), self.key_of(row.id)].into_iter().flatten() {
            if let Some(stored) = self.row(key) {
                if !is_newer(row, stored) {
                    return None;
                }
                replaced.push(*key);
            }
        }
        Some(replaced)
    }
}

#[async_trait]
impl PortableStore for MemoryStore {
    async fn unreachable(
        &self,
        state: Unreachable,
        after: Option<(Timestamp, EndpointKey)>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let guard = self.lock()?;
        let rows = guard.subscriptions.unreachable_after(state, after);
        Ok(rows.take(limit).cloned().collect())
    }

    async fn put(&self, rows: &[SubscriptionRecord]) -> Result<Vec<bool>, StoreError> {
        let mut state = self.lock()?;
        let subscriptions = &mut state.subscriptions;
        // Checked before the first change.
        let is_fresh = |row: &&SubscriptionRecord| {
            subscriptions
                .row(&row.subscription.endpoint().key())
                .is_none()
        };
        let fresh = rows.iter().filter(is_fresh).count();
        if fresh > 0 {
            self.room_for(subscriptions.len(), fresh)?;
        }
        let mut written = Vec::with_capacity(rows.len());
        for row in rows {
            let key = row.subscription.endpoint().key();
            let replaced = subscriptions.replaced_by(&key, row);
            written.push(replaced.is_some());
            if let Some(replaced) = replaced {
                for replaced in replaced {
                    subscriptions.remove(&replaced);
                }
                subscriptions.insert(key, row.clone());
            }
        }
        Ok(written)
    }
}
