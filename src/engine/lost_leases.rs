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
        Self::bound(waiting);
    }

    fn bound(mut waiting: MutexGuard<'_, Vec<(Instant, EndpointKey)>>) {
        let surplus = waiting.len().saturating_sub(STEP);
        waiting.truncate(STEP);
        drop(waiting);
        observe::count_lost(surplus as u64);
    }

    /// Takes the first rows out, of which the reason may be looked for: two calls at the same time ask for different ones.
    fn take_ripe(&self) -> Ripe<'_> {
        let mut waiting = self.lock();
        let is_ripe = |(lost, _): &(Instant, _)| lost.elapsed() >= LOOKED_FOR_AFTER;
        let number = waiting.iter().take_while(|row| is_ripe(row)).count();
        let rows = waiting.drain(..number).collect();
        Ripe { of: self, rows }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, EndpointKey)>> {
        // Nothing that holds the lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rows that were taken out. On drop they are put back, unless their reason is known.
struct Ripe<'a> {
    of: &'a LostLeases,
    rows: Vec<(Instant, EndpointKey)>,
}

impl Ripe<'_> {
    /// Counts those rows whose reason is known.
    fn finish(mut self, lost: u64) {
        self.rows.clear();
        observe::count_lost(lost);
    }
}

impl Drop for Ripe<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The store of subscriptions, which may be the application's, would panic again.
            observe::count_lost(self.rows.len() as u64);
        } else if !self.rows.is_empty() {
            let mut waiting = self.of.lock();
            waiting.splice(..0, self.rows.drain(..));
            LostLeases::bound(waiting);
        }
    }
}

impl Engine {
    /// Counts the rows that another process has claimed. Those of a subscription that is deleted are not counted: the ledger does
    /// not say why a row is gone, but erasing a user removes the subscriptions soon after their rows.
    ///
    /// # Cancel safety
    ///
    /// What was not counted is counted by the next call. If the store panics, rows count without their reason.
    pub(super) async fn count_lost(&self) -> Result<(), StoreError> {
        let ripe = self.signals.lost.take_ripe();
        let keys = ripe.rows.iter().map(|(_, key)| *key);
        let which: Vec<_> = keys.map(SubscriptionRef::Key).collect();
        if which.is_empty() {
            return Ok(());
        }
        let found = records(&*self.subscriptions, &which).await?;
        let lost = found
            .iter()
            .filter(|record| !matches!(record, Record::Missing));
        ripe.finish(lost.count() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    impl LostLeases {
        pub(in super::super) fn len(&self) -> usize {
            self.lock().len()
        }

        fn ripe(&self) -> Vec<EndpointKey> {
            let ripe = self.take_ripe();
            ripe.rows.iter().map(|(_, key)| *key).collect()
        }
    }

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

    /// A tick of the application's beside the running worker.
    #[cfg(feature = "testing")]
    #[tokio::test(start_paused = true)]
    async fn two_that_ask_at_the_same_time_ask_for_each_row_once() {
        use std::sync::atomic::Ordering::Relaxed;

        use futures_util::FutureExt as _;

        let world = super::super::test_world::World::new().await;
        let lost = &world.engine.signals.lost;
        lost.add(vec![world.subscriber().await, world.subscriber().await]);
        advance(LOOKED_FOR_AFTER).await;
        world.table.hangs.store(true, Relaxed);
        let mut dropped = Box::pin(world.engine.count_lost());
        assert!(dropped.as_mut().now_or_never().is_none());
        world.table.hangs.store(false, Relaxed);
        let gets = world.table.gets.load(Relaxed);
        world.engine.count_lost().await.unwrap();
        assert_eq!(world.table.gets.load(Relaxed), gets);
        drop(dropped);
        assert_eq!(lost.ripe().len(), 2);
        world.engine.count_lost().await.unwrap();
        assert_eq!(lost.ripe(), []);
    }

    #[test]
    fn rows_whose_reason_makes_the_store_panic_are_asked_for_once() {
        let lost = LostLeases::default();
        let rows = vec![(Instant::now(), EndpointKey::from_bytes([1; 32]))];
        let of = &lost;
        let panicked = std::panic::catch_unwind(move || {
            let _ripe = Ripe { of, rows };
            panic!("the store's");
        });
        panicked.unwrap_err();
        assert_eq!(lost.len(), 0);
    }

    #[test]
    fn no_more_are_kept_than_are_asked_for_at_once() {
        let lost = LostLeases::default();
        for number in 0..3 {
            lost.add(vec![EndpointKey::from_bytes([number; 32]); STEP / 2]);
        }
        assert_eq!(lost.len(), STEP);
    }
}
