//! Rows whose token was lost before their outcome was written: another process has claimed them, or they were erased.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use super::records::{Record, records};
use crate::observe;
use crate::store::{STEP, StoreError, SubscriptionRef};
use crate::subscription::EndpointKey;

/// How long after a loss its reason is looked for. Erasing a user removes the rows of messages first, then the subscriptions one
/// by one.
const LOOKED_FOR_AFTER: Duration = Duration::from_secs(5);

/// The subscriptions of lost rows and the times of the losses, in order, until it is known why they are lost.
#[derive(Debug, Default)]
pub(super) struct LostLeases(Mutex<Vec<(Instant, EndpointKey)>>);

impl LostLeases {
    /// Adds rows. Those that are too many to ask for are counted at once.
    pub(super) fn add(&self, keys: Vec<EndpointKey>) {
        if keys.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut waiting = self.lock();
        waiting.extend(keys.into_iter().map(|key| (now, key)));
        let surplus = waiting.len().saturating_sub(STEP);
        waiting.truncate(STEP);
        observe::count_lost(surplus as u64);
    }

    /// The first rows, of which the reason may be looked for.
    fn ripe(&self) -> Vec<EndpointKey> {
        let waiting = self.lock();
        let ripe = waiting
            .iter()
            .take_while(|(lost, _)| lost.elapsed() >= LOOKED_FOR_AFTER);
        ripe.map(|(_, key)| *key).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, EndpointKey)>> {
        // Nothing that holds the lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Counts the rows that another process has claimed. Those of a subscription that is deleted are not counted: the ledger does
    /// not say why a row is gone, but erasing a user removes the subscriptions soon after their rows.
    ///
    /// # Cancel safety
    ///
    /// What was not counted is counted by the next call.
    pub(super) async fn count_lost(&self) -> Result<(), StoreError> {
        let keys = self.signals.lost.ripe().into_iter();
        let which: Vec<_> = keys.map(SubscriptionRef::Key).collect();
        if which.is_empty() {
            return Ok(());
        }
        let found = records(&*self.subscriptions, &which).await?;
        let lost = found
            .iter()
            .filter(|record| !matches!(record, Record::Missing));
        observe::count_lost(lost.count() as u64);
        self.signals.lost.lock().drain(..which.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_reason_of_a_loss_is_looked_for_when_an_erasure_is_over() {
        let [first, second] = [1, 2].map(|one| EndpointKey::from_bytes([one; 32]));
        let lost = LostLeases::default();
        lost.add(vec![first]);
        advance(LOOKED_FOR_AFTER / 2).await;
        lost.add(vec![second]);
        assert_eq!(lost.ripe(), []);
        advance(LOOKED_FOR_AFTER / 2).await;
        assert_eq!(lost.ripe(), [first]);
        advance(LOOKED_FOR_AFTER / 2).await;
        assert_eq!(lost.ripe(), [first, second]);
    }

    /// The store of subscriptions may be down.
    #[cfg(feature = "testing")]
    #[tokio::test(start_paused = true)]
    async fn a_reason_that_could_not_be_read_is_looked_for_again() {
        use std::sync::atomic::Ordering::Relaxed;

        let world = super::super::test_world::World::new().await;
        let [first, later] = [world.subscriber().await, world.subscriber().await];
        let lost = &world.engine.signals.lost;
        lost.add(vec![first]);
        advance(LOOKED_FOR_AFTER).await;
        lost.add(vec![later]);
        world.table.fails.store(true, Relaxed);
        world.engine.count_lost().await.unwrap_err();
        assert_eq!(lost.ripe(), [first]);
        world.table.fails.store(false, Relaxed);
        world.engine.count_lost().await.unwrap();
        assert_eq!(lost.ripe(), []);
        advance(LOOKED_FOR_AFTER).await;
        assert_eq!(lost.ripe(), [later]);
    }

    #[test]
    fn no_more_are_kept_than_are_asked_for_at_once() {
        let lost = LostLeases::default();
        for number in 0..3 {
            lost.add(vec![EndpointKey::from_bytes([number; 32]); STEP / 2]);
        }
        assert_eq!(lost.lock().len(), STEP);
    }
}
