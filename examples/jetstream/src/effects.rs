//! What a part of a job found out about subscriptions, written down before the part counts as done.

use std::collections::HashMap;

use tower_web_push::broadcast::FinalOutcome;
use tower_web_push::clock::Timestamp;
use tower_web_push::engine::{Consequence, Next, PruneBreaker};
use tower_web_push::store::{Change, RetireReason, StoreError, SubscriptionRecord, Tally};
use tower_web_push::subscription::{EndpointKey, Origin};

use crate::store::Store;

#[derive(Debug, Default)]
pub(crate) struct Effects {
    changes: Vec<Change>,
    /// Subscriptions to retire, unless too many of their push service are.
    retire: Vec<(Origin, EndpointKey, RetireReason, Change)>,
    tallies: HashMap<Origin, Tally>,
}

impl Effects {
    pub(crate) fn note(&mut self, record: &SubscriptionRecord, consequence: Consequence) {
        let origin = record.subscription.endpoint().origin();
        let mut count = |accepted, gone| {
            let tally = self.tallies.entry(origin.clone()).or_default();
            *tally = tally.plus(Tally::new(accepted, gone));
        };
        if consequence.next == Next::Finished(FinalOutcome::Accepted) {
            count(1, 0);
        }
        for change in consequence.changes {
            if let Change::Retire { key, reason, .. } = change {
                count(0, 1);
                self.retire.push((origin.clone(), key, reason, change));
            } else {
                self.changes.push(change);
            }
        }
    }

    /// Writes it down. Done twice, it changes nothing the second time; the counts are a little off then.
    pub(crate) async fn write(&self, store: &dyn Store, now: Timestamp) -> Result<(), StoreError> {
        // The counts are shared with all other workers, and with the crate's own.
        let tallies: Vec<_> = self.tallies.clone().into_iter().collect();
        let sums = store.tally(&tallies, now).await?;
        let sums: HashMap<_, _> = tallies
            .into_iter()
            .zip(sums)
            .map(|((origin, _), sum)| (origin, sum))
            .collect();
        let breaker = PruneBreaker::default();
        let mut changes = self.changes.clone();
        for (origin, key, reason, retire) in &self.retire {
            let sum = sums.get(origin).copied().unwrap_or_default();
            changes.push(if breaker.suspends(*reason, sum) {
                eprintln!(
                    "{origin}: retiring suspended, {} of {} answers",
                    sum.gone,
                    sum.answers()
                );
                Change::Failed(*key)
            } else {
                retire.clone()
            });
        }
        store.apply(&changes, now).await?;
        Ok(())
    }
}
