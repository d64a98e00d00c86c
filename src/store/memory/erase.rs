//! What is left to deliver to a user, erased from memory.

use super::ledger_state::{Ledger, Seq};
use crate::broadcast::{FinalOutcome, Principal};
use crate::clock::Timestamp;
use crate::store::{Erased, SubscriptionRecord};

impl Ledger {
    /// L17.
    pub(super) fn erase(
        &mut self,
        user: &Principal,
        subscriptions: &[SubscriptionRecord],
        now: Timestamp,
    ) -> Erased {
        let ids: Vec<_> = subscriptions.iter().map(|row| row.id).collect();
        let rows_before = self.rows();
        let mut erased = Erased::default();
        let open: Vec<Seq> = self.open.iter().map(|(_, seq)| *seq).collect();
        for seq in open {
            for row in subscriptions {
                let key = row.subscription.endpoint().key();
                if self.has_row(seq, key) {
                    self.end_probe(seq, key, now);
                    self.finish(seq, key, FinalOutcome::Cancelled);
                }
            }
            let broadcast = self.broadcasts.get(&seq);
            let is_theirs =
                broadcast.is_some_and(|broadcast| broadcast.audience.is_only_for(user, &ids));
            if is_theirs && self.stop(seq, now) {
                erased.broadcasts += 1;
            }
            self.close_if_over(seq, now);
        }
        erased.deliveries = (rows_before - self.rows()) as u64;
        erased
    }
}
