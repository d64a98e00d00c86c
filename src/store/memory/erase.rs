//! Erasing a user's pending deliveries in memory.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::ledger_state::{Ledger, Seq};
use crate::broadcast::{FinalOutcome, Principal};
use crate::clock::Timestamp;
use crate::store::{Erased, STEP, SubscriptionRecord};

impl Ledger {
    /// Erases pending deliveries from the next open broadcasts (L17). Returns the last one if there may be more.
    pub(super) fn erase_step(
        &mut self,
        after: Option<(Timestamp, Seq)>,
        user: &Principal,
        subscriptions: &[SubscriptionRecord],
        now: Timestamp,
        erased: &mut Erased,
    ) -> Option<(Timestamp, Seq)> {
        let ids: Vec<_> = subscriptions.iter().map(|row| row.id).collect();
        let limit = (STEP / subscriptions.len().max(1)).max(1);
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let open = self.open.range((after, Bound::Unbounded));
        let open: Vec<_> = open.take(limit).copied().collect();
        for &(_, seq) in &open {
            let keys = subscriptions
                .iter()
                .map(|row| row.subscription.endpoint().key());
            // Once, also if a subscription is named twice.
            let keys: BTreeSet<_> = keys
                .filter(|key| self.rows.contains_key(&(seq, *key)))
                .collect();
            for key in &keys {
                self.end_probe(seq, *key, now);
            }
            let broadcast = self.broadcasts.get(&seq);
            let is_theirs =
                broadcast.is_some_and(|broadcast| broadcast.audience.is_only_for(user, &ids));
            // Cancelled before its rows end: a broadcast without rows would be over.
            if is_theirs && self.stop(seq) {
                self.end_unleased(seq, STEP, FinalOutcome::Cancelled, now);
                erased.broadcasts += 1;
            }
            for key in &keys {
                self.finish(seq, *key, FinalOutcome::Cancelled);
            }
            erased.deliveries += keys.len() as u64;
            self.close_if_over(seq, now);
        }
        open.last().copied().filter(|_| open.len() == limit)
    }
}
