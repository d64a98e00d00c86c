//! What a worker has to write: the outcomes of rows, and the effects of their attempts.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::effects::{Effects, sums};
use super::health::Step;
use super::pacer::STORE_PAUSE;
use super::places::Place;
use super::portions::{LAST_PASSES, Part, Portions, is_trouble};
use super::{Consequence, Engine};
use crate::clock::Timestamp;
use crate::observe;
use crate::store::{ClaimToken, STEP, Settled, Settlement, StoreError, StoreErrorKind};
use crate::vapid::KeyId;

/// Stop claiming at this many unsettled outcomes: rows whose outcome is lost are sent again.
const UNSETTLED: usize = 1024;
/// The most outcomes that are kept while the store refuses them: more than a worker has in flight. At most two a second are set
/// aside, which do not stop claims.
const OUTCOMES_KEPT: usize = 100_000;

/// The outcomes that are not written yet.
#[derive(Debug)]
pub(super) struct Settling {
    engine: Engine,
    effects: Effects,
    settlements: Portions<(ClaimToken, Settlement)>,
    released: Portions<ClaimToken>,
    /// No changes of subscriptions before this, since the store has refused all.
    changes_from: Option<Instant>,
    /// Whether writing took too long. Nothing is claimed until it is done.
    is_late: bool,
}

impl Settling {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            effects: engine.effects(),
            engine,
            settlements: Portions::new(OUTCOMES_KEPT),
            released: Portions::new(OUTCOMES_KEPT),
            changes_from: None,
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
        tokens
            .into_iter()
            .for_each(|token| self.released.push(token));
    }

    /// The number of outcomes, releases and pauses that are not written yet.
    pub(super) fn unsettled(&self) -> usize {
        self.settlements.len() + self.released.len() + self.effects.pauses()
    }

    /// Whether no more rows may be claimed: those whose outcome cannot be written are sent again. What is set aside does not
    /// count: it may be at fault itself, and the outcomes of other rows show whether it is.
    pub(super) fn is_behind(&self) -> bool {
        self.fresh() >= UNSETTLED || self.is_late
    }

    /// The number of those that are not set aside.
    fn fresh(&self) -> usize {
        self.settlements.fresh() + self.released.fresh() + self.effects.pauses()
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
        // What the store refuses was not late.
        self.is_late &= settled.as_ref().is_err_and(is_trouble);
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

    /// Writes changes to subscriptions, then the outcomes of rows. A store that refuses some is not asked in vain for others.
    async fn write_rows(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if self
            .changes_from
            .is_none_or(|changes_from| changes_from <= Instant::now())
        {
            self.write_together(now).await?;
            self.effects.apply(now).await?;
            let is_refused = self.effects.are_changes_refused();
            self.changes_from = is_refused.then(|| Instant::now() + STORE_PAUSE);
        }
        match self.write_settlements(now).await {
            Err(error) if is_trouble(&error) => Err(error),
            settled => settled.and(self.write_released(now).await),
        }
    }

    /// Writes the outcomes of rows.
    async fn write_settlements(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let mut pass = self.settlements.pass();
        while let Some(part) = pass.next() {
            let settled = self.engine.ledger.settle(&part.elements, now).await;
            let answer = settled.map(|results| count_settled(&self.engine, &part, &results));
            if answer.is_ok() {
                self.engine.signals.settled.notify_waiters();
            }
            pass.answered(answer, |rows, error| {
                let tokens = rows.into_iter().map(|(token, _)| token);
                tell_left_out(
                    tokens,
                    error,
                    "a row cannot be settled: it is sent again when its lease ends",
                );
            });
        }
        pass.end()
    }

    /// Gives rows back.
    async fn write_released(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let mut pass = self.released.pass();
        while let Some(part) = pass.next() {
            let released = self.engine.ledger.release(&part.elements, now).await;
            pass.answered(released.map(|()| true), |tokens, error| {
                tell_left_out(
                    tokens.into_iter(),
                    error,
                    "a row cannot be given back: it is sent when its lease ends",
                );
            });
        }
        pass.end()
    }

    /// Writes changes to subscriptions and the outcomes of rows in one transaction, if one store keeps both. What it leaves
    /// is written one after the other.
    async fn write_together(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let are_refused = self.effects.are_changes_refused() || self.settlements.is_refused();
        if !self.engine.is_one_store || are_refused {
            return Ok(());
        }
        let changes = self.effects.changes();
        // Before the pass begins: it marks the rows that it asks for.
        if !(1..=STEP).contains(&changes.len()) {
            return Ok(());
        }
        let mut pass = self.settlements.pass();
        let Some(rows) = pass.next() else {
            return Ok(());
        };
        let ledger = &self.engine.ledger;
        match ledger.settle_with(&changes, &rows.elements, now).await {
            Ok(Some(results)) => {
                let is_evidence = count_settled(&self.engine, &rows, &results);
                pass.answered(Ok(is_evidence), |_, _| {});
                self.effects.changes_are_written();
                self.engine.signals.settled.notify_waiters();
                Ok(())
            }
            Err(error) if is_trouble(&error) => Err(error),
            // One of them may be the cause: the others do not wait for it, and the calls tell which one it is.
            Ok(None) | Err(_) => {
                pass.withdraw();
                Ok(())
            }
        }
    }

    /// Settles for the last time: writes what a later call would have written too.
    ///
    /// # Cancel safety
    ///
    /// As [`settle`](Self::settle).
    pub(super) async fn finish(&mut self) -> Result<(), StoreError> {
        let mut settled = self.settle().await;
        if !settled.as_ref().is_err_and(is_trouble) {
            // First, since the passes may take all the time that there is.
            let finished = self.effects.finish(self.engine.now()).await;
            let mut left = usize::MAX;
            for _ in 1..LAST_PASSES {
                let before = std::mem::replace(&mut left, self.unsettled() + self.fresh());
                if left == 0 || left >= before || settled.as_ref().is_err_and(is_trouble) {
                    break;
                }
                settled = self.settle().await;
            }
            settled = settled.and(finished);
        }
        settled
    }
}

/// Counts the rows that were finished, by outcome, and notes those whose token is lost: another process has claimed the row, or
/// it was erased. An unanswered row whose token is lost was most likely written by the call whose answer was lost.
///
/// Returns whether a row was finished, which shows that others can be, too: a store may still postpone rows, or say that a
/// token is lost, when it can finish none.
fn count_settled(
    engine: &Engine,
    part: &Part<(ClaimToken, Settlement)>,
    results: &[Settled],
) -> bool {
    let (mut outcomes, mut finished, mut lost) = (HashMap::new(), Vec::new(), Vec::new());
    let mut is_any_finished = false;
    let rows = part.elements.iter().zip(&part.unanswered);
    for (((token, settlement), is_unanswered), result) in rows.zip(results) {
        let is_finished = match settlement {
            Settlement::Finished(outcome) | Settlement::Failed(outcome, _) => Some(outcome),
            Settlement::RetryAt(_) | Settlement::Deferred(_) => None,
        };
        is_any_finished |= is_finished.is_some() && *result == Settled::Done;
        match (is_finished, result) {
            (_, Settled::Lost) if !is_unanswered => lost.push(token.key),
            (Some(outcome), _) => {
                *outcomes.entry(outcome.as_str()).or_default() += 1;
                finished.push(token.broadcast);
            }
            (None, _) => {}
        }
    }
    for (outcome, recipients) in outcomes {
        observe::count_finished(outcome, recipients);
    }
    let now = Instant::now();
    // In the order of the rows, so that a simulation can be repeated.
    for of_one in finished.chunk_by(|one, next| one == next) {
        if let [broadcast, ..] = of_one {
            let endings = &engine.signals.endings;
            endings.note(*broadcast, of_one.len() as u64, now);
        }
    }
    engine.signals.lost.add(lost);
    is_any_finished
}

/// Logs rows that the store refuses, with the broadcast of the first.
fn tell_left_out(
    mut tokens: impl ExactSizeIterator<Item = ClaimToken>,
    error: &StoreError,
    what: &'static str,
) {
    let rows = tokens.len();
    if let Some(token) = tokens.next() {
        observe::event!(
            ERROR,
            rows,
            broadcast = %token.broadcast,
            error = %observe::causes(error),
            "{what}"
        );
        let _ = token;
    }
    let _ = (rows, error, what);
}

#[cfg(test)]
#[cfg(feature = "testing")]
#[path = "settling_tests.rs"]
mod tests;
