//! Erasing a user's pending deliveries in memory.

use super::ledger_state::{Ledger, Seq};
use crate::broadcast::{FinalOutcome, Principal};
use crate::clock::Timestamp;
use crate::store::{Erased, SubscriptionRecord};

impl Ledger {
    /// Erases pending deliveries (L17).
    pub(super) fn erase(
        &mut self,
        user: &Principal,
        subscriptions: &[SubscriptionRecord],
        now: Timestamp,
    ) -> Erased {
        let ids: Vec<_> = subscriptions.iter().map(|row| row.id).collect();
        let mut erased = Erased::default();
        let open: Vec<Seq> = self.open.iter().map(|(_, seq)| *seq).collect();
        for seq in open {
            let keys = subscriptions
                .iter()
                .map(|row| row.subscription.endpoint().key());
            let keys: Vec<_> = keys
                .filter(|key| self.rows.contains_key(&(seq, *key)))
                .collect();
            for key in &keys {
                self.end_probe(seq, *key, now);
            }
            let broadcast = self.broadcasts.get(&seq);
            let is_theirs =
                broadcast.is_some_and(|broadcast| broadcast.audience.is_only_for(user, &ids));
            // Cancelled before its rows end: a broadcast without rows would be over.
            if is_theirs && self.stop(seq, now) {
                erased.broadcasts += 1;
            }
            for key in &keys {
                self.finish(seq, *key, FinalOutcome::Cancelled);
            }
            erased.deliveries += keys.len() as u64;
            self.close_if_over(seq, now);
        }
        erased
    }
}
