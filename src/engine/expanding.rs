//! The expansion of a worker: at most one task, beside its other work.

use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::Engine;
use super::chores::within_limit;
use super::expand::expand;
use crate::clock::Timestamp;
use crate::observe;
use crate::store::StoreError;

/// The longest time between two expansions while there is always something to claim.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Expanding {
    engine: Engine,
    task: JoinSet<Result<usize, StoreError>>,
    started: Option<Instant>,
    /// Whether there may be a broadcast to expand.
    is_expected: bool,
}

impl Expanding {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            engine,
            task: JoinSet::new(),
            started: None,
            is_expected: true,
        }
    }

    /// Records a hint that there may be a broadcast to expand.
    pub(super) const fn expect(&mut self) {
        self.is_expected = true;
    }

    /// Whether it is time to look for broadcasts: after a hint, after an expansion that wrote rows, and [`LOOK_AGAIN`] after
    /// the last one.
    pub(super) fn is_due(&self) -> bool {
        let is_late = |at: Instant| at.elapsed() >= LOOK_AGAIN;
        self.is_expected || self.started.is_none_or(is_late)
    }

    /// Starts an expansion, unless one is in flight.
    pub(super) fn start(&mut self, now: Timestamp) {
        if self.task.is_empty() {
            self.is_expected = false;
            self.started = Some(Instant::now());
            let engine = self.engine.clone();
            self.task
                .spawn(async move { within_limit(expand(&engine, now)).await });
        }
    }

    /// Waits for the end of an expansion. Returns the number of its recipients; `None` if none is in flight.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: an expansion that ended is returned by the next call.
    pub(super) async fn ended(&mut self) -> Option<Result<usize, StoreError>> {
        let ended = self.task.join_next().await?;
        Some(self.note(ended))
    }

    /// The expansion that has ended, if any.
    pub(super) fn try_ended(&mut self) -> Option<Result<usize, StoreError>> {
        let ended = self.task.try_join_next()?;
        Some(self.note(ended))
    }

    fn note(
        &mut self,
        ended: Result<Result<usize, StoreError>, JoinError>,
    ) -> Result<usize, StoreError> {
        let expanded = ended.unwrap_or_else(|error| {
            observe::event!(ERROR, error = %error, "expanding broadcasts panicked");
            let _ = error;
            Ok(0)
        });
        // There may be further pages.
        self.is_expected |= expanded.as_ref().is_ok_and(|expanded| *expanded > 0);
        expanded
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use super::super::test_world::{START, World};
    use super::*;

    /// What panics may panic again and again.
    #[tokio::test(start_paused = true)]
    async fn an_expansion_that_panics_is_not_repeated_at_once() {
        let mut expanding = Expanding::new(World::new().await.engine);
        expanding.is_expected = false;
        expanding.started = Some(Instant::now());
        expanding.task.spawn(async { panic!("an expansion") });
        assert_eq!(expanding.ended().await.unwrap().unwrap(), 0);
        assert!(!expanding.is_due());
    }

    /// The broadcast may have come after the expansion has listed those that there are.
    #[tokio::test(start_paused = true)]
    async fn a_hint_during_an_expansion_is_kept() {
        let mut expanding = Expanding::new(World::new().await.engine);
        for is_hinted in [false, true] {
            assert!(expanding.is_due());
            expanding.start(START);
            assert!(!expanding.is_due());
            if is_hinted {
                expanding.expect();
            }
            assert_eq!(expanding.ended().await.unwrap().unwrap(), 0);
            assert_eq!(expanding.is_due(), is_hinted);
            tokio::time::advance(LOOK_AGAIN).await;
        }
    }
}
