//! What a worker has to write: the outcomes of rows, and the effects of their attempts.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::effects::{Effects, sums};
use super::health::Step;
use super::places::Place;
use super::{Consequence, Engine};
use crate::clock::Timestamp;
use crate::observe;
use crate::store::{ClaimToken, Settled, Settlement, StoreError, StoreErrorKind};
use crate::vapid::KeyId;

/// Stop claiming at this many unsettled outcomes: rows whose outcome is lost are sent again.
const UNSETTLED: usize = 1024;

/// The outcomes that are not written yet.
#[derive(Debug)]
pub(super) struct Settling {
    engine: Engine,
    effects: Effects,
    settlements: Vec<(ClaimToken, Settlement)>,
    /// How many of the first settlements may be written already: their call ended without an answer.
    unanswered: usize,
    released: Vec<ClaimToken>,
    /// Whether writing took too long. Nothing is claimed until it is done.
    is_late: bool,
}

impl Settling {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            effects: engine.effects(),
            engine,
            settlements: Vec::new(),
            unanswered: 0,
            released: Vec::new(),
            is_late: false,
        }
    }

    /// Sets the active VAPID key, which is stored with pauses.
    pub(super) fn set_key(&mut self, key: KeyId) {
        self.effects.set_key(key);
    }

    /// Adds the consequence of an attempt.
    pub(super) fn note(&mut self, token: ClaimToken, place: &Place, consequence: Consequence) {
        let settlement = consequence.settled();
        let now = self.engine.now();
        self.effects.note(place.gate(), consequence, now);
        self.settlements.push((token, settlement));
    }

    /// Adds the settlement of a row without an attempt.
    pub(super) fn add(&mut self, token: ClaimToken, settlement: Settlement) {
        self.settlements.push((token, settlement));
    }

    /// Adds rows to be given back.
    pub(super) fn release(&mut self, tokens: impl IntoIterator<Item = ClaimToken>) {
        self.released.extend(tokens);
    }

    /// The number of outcomes, releases and pauses that are not written yet.
    pub(super) fn unsettled(&self) -> usize {
        self.settlements.len() + self.released.len() + self.effects.pauses()
    }

    /// Whether no more rows may be claimed: those whose outcome cannot be written are sent again.
    pub(super) fn is_behind(&self) -> bool {
        self.unsettled() >= UNSETTLED || self.is_late
    }

    /// Records that [`settle`](Self::settle) was dropped since it took too long.
    pub(super) fn took_too_long(&mut self, elapsed: Elapsed) -> StoreError {
        self.is_late = true;
        let error = StoreError::new(StoreErrorKind::Unavailable, elapsed);
        let health = &self.engine.signals.health;
        health.note(Step::Settle, Err(&error), self.engine.now());
        error
    }

    /// Writes pauses and effects on subscriptions, then the outcomes of rows.
    ///
    /// # Cancel safety
    ///
    /// The next call writes what was not written. Writing an outcome twice changes nothing.
    pub(super) async fn settle(&mut self) -> Result<(), StoreError> {
        let settled = self.write_outcomes().await;
        self.is_late &= settled.is_err();
        let health = &self.engine.signals.health;
        health.note(
            Step::Settle,
            settled.as_ref().map(|_| ()),
            self.engine.now(),
        );
        settled
    }

    async fn write_outcomes(&mut self) -> Result<(), StoreError> {
        let now = self.engine.now();
        self.effects.prepare(now).await?;
        // Beside the rows, with which they share a commit on SQLite.
        let counts = self.effects.overdue_counts();
        let ledger = Arc::clone(&self.engine.ledger);
        let counting = async {
            match counts.as_slice() {
                [] => Ok(Vec::new()),
                counts => sums(&*ledger, counts, now).await,
            }
        };
        let (sums, written) = tokio::join!(counting, self.write_rows(now));
        if let (false, Ok(sums)) = (counts.is_empty(), &sums) {
            self.effects.counted(counts, sums.clone());
        }
        written.and(sums.map(|_| ()))
    }

    /// Writes changes to subscriptions, then the outcomes of rows.
    async fn write_rows(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.write_together(now).await?;
        self.effects.apply(now).await?;
        let mut size = self.settlements.len();
        while let Some(part) = self.settlements.get(..size.min(self.settlements.len()))
            && !part.is_empty()
        {
            let settled = part.len();
            // The call may be dropped, too.
            let unanswered = self.unanswered;
            self.unanswered = unanswered.max(settled);
            let answer = self.engine.ledger.settle(part, now).await;
            match answer {
                Ok(results) => {
                    self.count_settled(part, &results, unanswered);
                    drop(self.settlements.drain(..settled));
                    self.unanswered = unanswered.saturating_sub(settled);
                }
                // One row that the store cannot read does not keep the others from being settled.
                Err(error) if error.kind() == StoreErrorKind::Corrupt && settled > 1 => {
                    self.unanswered = unanswered;
                    size = settled / 2;
                    continue;
                }
                Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                    self.unanswered = unanswered.saturating_sub(1);
                    let (token, _) = self.settlements.remove(0);
                    observe::event!(
                        ERROR,
                        broadcast = %token.broadcast,
                        error = %observe::causes(&error),
                        "a row cannot be settled: it is sent again when its lease ends"
                    );
                    let _ = (token, error);
                }
                Err(error) => return Err(error),
            }
            size = self.settlements.len();
            self.engine.signals.settled.notify_waiters();
        }
        self.write_released(now).await
    }

    /// Gives rows back. One that the store cannot read keeps no other from it.
    async fn write_released(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let mut size = self.released.len();
        while !self.released.is_empty() {
            let part = &self.released[..size.min(self.released.len())];
            let given_back = part.len();
            match self.engine.ledger.release(part, now).await {
                Ok(()) => drop(self.released.drain(..given_back)),
                Err(error) if error.kind() == StoreErrorKind::Corrupt && given_back > 1 => {
                    size = given_back / 2;
                    continue;
                }
                Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                    let token = self.released.remove(0);
                    observe::event!(
                        ERROR,
                        broadcast = %token.broadcast,
                        error = %observe::causes(&error),
                        "a row cannot be given back: it is sent when its lease ends"
                    );
                    let _ = (token, error);
                }
                Err(error) => return Err(error),
            }
            size = self.released.len();
        }
        Ok(())
    }

    /// Writes changes to subscriptions and the outcomes of rows in one transaction, if one store keeps both. What it leaves
    /// is written one after the other.
    async fn write_together(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let (changes, rows) = (self.effects.changes(), self.settlements.as_slice());
        if !self.engine.is_one_store || changes.is_empty() || rows.is_empty() {
            return Ok(());
        }
        let unanswered = self.unanswered;
        self.unanswered = rows.len();
        match self.engine.ledger.settle_with(changes, rows, now).await {
            Ok(Some(results)) => {
                self.count_settled(&self.settlements, &results, unanswered);
                self.effects.changes_are_written();
                self.settlements.clear();
                self.unanswered = 0;
                self.engine.signals.settled.notify_waiters();
                Ok(())
            }
            Err(error) if error.kind() == StoreErrorKind::Unavailable => Err(error),
            // One of them may be the cause: the others do not wait for it, and the calls tell which one it is.
            Ok(None) | Err(_) => {
                self.unanswered = unanswered;
                Ok(())
            }
        }
    }

    /// Counts the rows that were finished, by outcome, and notes those whose token is lost: another process has claimed the row, or
    /// it was erased. One of the first `unanswered` rows whose token is lost was most likely written
    /// by the call whose answer was lost.
    fn count_settled(
        &self,
        rows: &[(ClaimToken, Settlement)],
        results: &[Settled],
        unanswered: usize,
    ) {
        let (mut outcomes, mut finished, mut lost) = (HashMap::new(), Vec::new(), Vec::new());
        for (place, ((token, settlement), result)) in rows.iter().zip(results).enumerate() {
            let result = match result {
                Settled::Lost if place < unanswered => &Settled::Done,
                result => result,
            };
            match (settlement, result) {
                (Settlement::Finished(outcome) | Settlement::Failed(outcome, _), Settled::Done) => {
                    *outcomes.entry(outcome.as_str()).or_default() += 1;
                    finished.push(token.broadcast);
                }
                (_, Settled::Done) => {}
                (_, Settled::Lost) => lost.push(token.key),
            }
        }
        for (outcome, recipients) in outcomes {
            observe::count_finished(outcome, recipients);
        }
        let now = Instant::now();
        // In the order of the rows, so that a simulation can be repeated.
        for of_one in finished.chunk_by(|one, next| one == next) {
            if let [broadcast, ..] = of_one {
                let recipients = of_one.len() as u64;
                self.engine
                    .signals
                    .endings
                    .note(*broadcast, recipients, now);
            }
        }
        self.engine.signals.lost.add(lost);
    }

    /// Settles for the last time: writes what a later call would have written too.
    ///
    /// # Cancel safety
    ///
    /// As [`settle`](Self::settle).
    pub(super) async fn finish(&mut self) -> Result<(), StoreError> {
        self.settle().await?;
        self.effects.finish(self.engine.now()).await
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
#[path = "settling_tests.rs"]
mod tests;
