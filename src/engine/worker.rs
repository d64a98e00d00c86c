//! The steps of the worker: expand, claim, deliver, settle. Housekeeping runs beside them, see `chores.rs`.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use super::chores::{Chore, Chores};
use super::confirmation::is_confirmation;
use super::expanding::Expanding;
use super::health::Step;
use super::job::{Job, attempt};
use super::outbox::look;
use super::pacer::STORE_PAUSE;
use super::places::{Place, Places};
use super::records::Record;
use super::settling::Settling;
use super::take::{Taken, take};
use super::{Consequence, Engine};
use crate::broadcast::FinalOutcome;
use crate::clock::Timestamp;
use crate::deliver::Stop;
use crate::observe;
use crate::store::{ClaimRequest, ClaimToken, Claims, Settlement, StoreError};

/// How long the steps before claiming may keep it waiting. They continue beside it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The result of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Recipients written into the ledger.
    pub(super) expanded: usize,
    /// Rows claimed.
    pub(super) claimed: usize,
    /// Whether another step may have work at once, even if nothing happens meanwhile.
    pub(super) is_full: bool,
    /// Whether another step may have work at once.
    pub(super) more: bool,
    /// Whether the store refused to claim rows.
    pub(super) has_failed: bool,
}

/// A task that ended.
#[derive(Debug)]
pub(super) enum Ended {
    Attempts,
    Chore(Chore),
    /// An expansion that a step did not wait for, and the number of its recipients.
    Expansion(usize),
}

/// The row of an attempt, its place and its consequence.
type Attempted = (ClaimToken, Place, Consequence);

#[derive(Debug)]
pub(super) struct Worker {
    engine: Engine,
    attempts: JoinSet<Attempted>,
    shown: observe::InFlight,
    pub(super) places: Places,
    pub(super) settling: Settling,
    ended_lately: usize,
    stop: Stop,
    pauses_read: Option<Timestamp>,
    pub(super) expanding: Expanding,
    pub(super) chores: Chores,
    /// The first error of a step since it was last taken.
    error: Option<StoreError>,
}

impl Worker {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            places: Places::new(engine.clone()),
            settling: Settling::new(engine.clone()),
            expanding: Expanding::new(engine.clone()),
            chores: Chores::new(engine.clone()),
            engine,
            attempts: JoinSet::new(),
            shown: observe::InFlight::default(),
            ended_lately: 0,
            stop: Stop::new(),
            pauses_read: None,
            error: None,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.attempts.len()
    }

    /// The number of attempts that ended since the last step.
    pub(super) const fn ended_lately(&self) -> usize {
        self.ended_lately
    }

    /// The number of outcomes, releases and pauses that are not written yet.
    pub(super) fn unsettled(&self) -> usize {
        self.settling.unsettled()
    }

    /// Starts no more requests: attempts that wait for a permit end without one.
    pub(super) fn stop(&self) {
        self.stop.stop();
    }

    /// Expands, claims and starts attempts, one after the other. Each of them fails alone: the error is in the
    /// log and in the [health](super::health::Health) of the process.
    ///
    /// If the clocks disagree, the step does nothing.
    ///
    /// # Cancel safety
    ///
    /// If dropped after claiming, rows stay leased until their lease ends, and are claimed again.
    pub(super) async fn step(&mut self) -> Progress {
        let Some((now, is_calm)) = self.begin_step().await else {
            return Progress::default();
        };
        self.expanding.start(now);
        let expanded = self.expansion_ended().await;
        let taken = self.take_beside(now, is_calm, false).await.0;
        self.end_step(taken, expanded, now)
    }

    /// As [`step`](Self::step), without waiting for what can be done side by side: if `settles`, outcomes are written while
    /// rows are claimed; an expansion is waited for if nothing is claimed or in flight, and runs on beside the attempts
    /// otherwise. Returns the result of writing too.
    ///
    /// # Cancel safety
    ///
    /// As [`step`](Self::step) and [`settle`](Self::settle).
    pub(super) async fn step_beside(
        &mut self,
        settles: bool,
    ) -> (Progress, Result<(), StoreError>) {
        let Some((now, is_calm)) = self.begin_step().await else {
            let settled = match settles {
                true => self.settle().await,
                false => Ok(()),
            };
            return (Progress::default(), settled);
        };
        if self.expanding.is_due() {
            self.expanding.start(now);
        }
        let (taken, settled) = self.take_beside(now, is_calm, settles).await;
        let mut progress = self.end_step(taken, 0, now);
        if let Some(expanded) = self.expanding.try_ended() {
            progress.expanded = self.note_step(Step::Expand, expanded).unwrap_or_default();
        }
        if progress.claimed == 0 && self.attempts.is_empty() {
            self.expanding.start(now);
            progress.expanded += self.expansion_ended().await;
        }
        // Once a step, if the store fails.
        if progress.claimed == 0 && progress.expanded > 0 && !progress.has_failed {
            let taken = self.take_beside(now, true, false).await.0;
            progress = self.end_step(taken, progress.expanded, now);
        }
        progress.is_full |= progress.expanded > 0;
        progress.more |= progress.is_full;
        (progress, settled)
    }

    /// What comes before claiming: `None` if the clocks disagree. Returns the time, and whether no attempt has ended since
    /// the last step.
    async fn begin_step(&mut self) -> Option<(Timestamp, bool)> {
        let is_calm = std::mem::take(&mut self.ended_lately) == 0;
        if !self.clocks_agree().await {
            return None;
        }
        let now = self.engine.now();
        self.settling.set_key(self.engine.key_ring.active().id());
        if is_due(self.pauses_read, Engine::PAUSES_KEPT, now) {
            self.read_pauses(now).await;
        }
        Some((now, is_calm))
    }

    /// Claims rows for the free places and reads their subscriptions. Writes outcomes meanwhile if `settles`: rows that are
    /// claimed do not wait longer for that than [`PATIENCE`].
    async fn take_beside(
        &mut self,
        now: Timestamp,
        is_calm: bool,
        settles: bool,
    ) -> (Result<Option<Taken>, StoreError>, Result<(), StoreError>) {
        let request = self.request(now, is_calm);
        let engine = self.engine.clone();
        let taking = async {
            match request {
                Some((request, epoch)) => take(&engine, &request, epoch, now).await.map(Some),
                None => Ok(None),
            }
        };
        if !settles {
            return (taking.await, Ok(()));
        }
        let (taken, settled) = {
            let mut taking = pin!(taking);
            let mut settling = pin!(self.settling.settle());
            let taken = tokio::select! {
                // Outcomes are older. And in an order, so that a simulation can be repeated.
                biased;
                settled = &mut settling => return (taking.await, settled),
                taken = &mut taking => taken,
            };
            let has_rows = taken.as_ref().is_ok_and(|taken| {
                let rows = taken.as_ref().map(|taken| &taken.claims.rows);
                rows.is_some_and(|rows| !rows.is_empty())
            });
            if !has_rows {
                return (taken, settling.await);
            }
            (taken, timeout(PATIENCE, settling).await)
        };
        match settled {
            Ok(settled) => (taken, settled),
            Err(elapsed) => (taken, Err(self.settling.took_too_long(elapsed))),
        }
    }

    /// Starts the attempts of claimed rows.
    fn end_step(
        &mut self,
        taken: Result<Option<Taken>, StoreError>,
        expanded: usize,
        now: Timestamp,
    ) -> Progress {
        let (mut claimed, mut is_full) = (0, expanded > 0);
        let taken = taken.and_then(|taken| {
            let Some(taken) = taken else { return Ok(()) };
            claimed = taken.claims.rows.len();
            is_full |= taken.claims.more || claimed >= taken.limit;
            self.start(taken, now)
        });
        let has_failed = self.note_step(Step::Claim, taken).is_none();
        if has_failed {
            claimed = 0;
        }
        Progress {
            expanded,
            claimed,
            is_full,
            more: is_full || claimed > 0,
            has_failed,
        }
    }

    /// Opens the broadcasts of the outbox, if the ledger has one. A worker that runs does so beside its steps, see
    /// `draining.rs`.
    pub(super) async fn look_at_outbox(&mut self) {
        let engine = self.engine.clone();
        if engine.ledger.has_outbox() && engine.clock.fault().is_none() {
            let mut looked = look(&engine, engine.now()).await;
            while looked
                .as_ref()
                .is_ok_and(|looked| looked.more && looked.settled > 0)
            {
                looked = look(&engine, engine.now()).await;
            }
            self.note_step(Step::Outbox, looked);
        }
    }

    /// Starts the chores that are due, unless the clocks disagree. While the worker `is_busy`, hints start none.
    pub(super) fn start_chores(&mut self, is_busy: bool) {
        self.engine.signals.refusals.tell_due();
        if self.engine.clock.fault().is_none() {
            self.chores.start(is_busy);
        }
    }

    /// The first error of a step or a chore since the last call.
    pub(super) fn take_error(&mut self) -> Option<StoreError> {
        self.error.take().or_else(|| self.chores.take_error())
    }

    /// Compares the clocks, with the store's as often as the pauses are read.
    async fn clocks_agree(&mut self) -> bool {
        let clock = &self.engine.clock;
        if clock.fault().is_some()
            || is_due(self.pauses_read, Engine::PAUSES_KEPT, self.engine.now())
        {
            // A store that does not respond fails the other steps too, so only the clock is judged here.
            let _ = timeout(STORE_PAUSE, clock.check(&*self.engine.ledger)).await;
        }
        clock.fault().is_none()
    }

    async fn read_pauses(&mut self, now: Timestamp) {
        // Claiming leaves out paused origins by itself. These are for the gates in memory.
        let read = async {
            self.engine.lift_faults_of_others().await?;
            self.engine.load_pauses(now).await
        };
        if let Ok(read) = timeout(PATIENCE, read).await {
            self.pauses_read = read.is_ok().then_some(now);
            self.note_step(Step::Pauses, read);
        }
    }

    /// Waits for the expansion, if one is in flight. Returns the number of recipients.
    async fn expansion_ended(&mut self) -> usize {
        match timeout(PATIENCE, self.expanding.ended()).await {
            Ok(Some(expanded)) => self.note_step(Step::Expand, expanded).unwrap_or_default(),
            Ok(None) | Err(_) => 0,
        }
    }

    fn note_step<T>(&mut self, step: Step, result: Result<T, StoreError>) -> Option<T> {
        let health = &self.engine.signals.health;
        health.note(step, result.as_ref().map(|_| ()), self.engine.now());
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.error.get_or_insert(error);
                None
            }
        }
    }

    /// What to claim, and the epoch of the claim; `None` if nothing should be claimed now.
    fn request(&self, now: Timestamp, is_calm: bool) -> Option<(ClaimRequest, u64)> {
        if self.settling.is_behind() {
            return None;
        }
        let request = self.places.request(now, is_calm)?;
        // Its rows may be those of another process: see L19.
        let epoch = self.engine.ledger.epoch()?;
        Some((request, epoch))
    }

    fn start(&mut self, taken: Taken, now: Timestamp) -> Result<(), StoreError> {
        let Taken {
            claims: Claims { rows, messages, .. },
            records,
            epoch,
            ..
        } = taken;
        let records = match records {
            Ok(records) => records,
            Err(error) => {
                self.settling.release(rows.iter().map(|row| row.token));
                return Err(error);
            }
        };
        if rows.is_empty() {
            return Ok(());
        }
        let mut unreadable = 0_usize;
        for (row, (record, gate)) in rows.into_iter().zip(records) {
            let record = match record {
                Record::Found(record) => *record,
                Record::Missing => {
                    let gone = Settlement::Finished(FinalOutcome::Gone);
                    self.settling.add(row.token, gone);
                    continue;
                }
                Record::Unreadable => {
                    unreadable += 1;
                    let later = self.engine.signals.unreadable.defer(now);
                    self.settling.add(row.token, Settlement::Deferred(later));
                    continue;
                }
            };
            let Some(message) = messages.get(&row.token.broadcast) else {
                let later = self.engine.signals.parked.later(row.token.broadcast, now);
                self.settling.add(row.token, Settlement::Deferred(later));
                continue;
            };
            let only_for = message.only_for.as_ref();
            if only_for.is_some_and(|user| record.principal.as_ref() != Some(user)) {
                // Another user has signed in since the row was written.
                let gone = Settlement::Finished(FinalOutcome::Gone);
                self.settling.add(row.token, gone);
                continue;
            }
            let place = self.places.take(Arc::clone(&gate));
            let job = Job {
                record,
                gate,
                broadcast: Some(row.token.broadcast),
                trace_parent: message.trace_parent,
                message: message.message.clone(),
                due_at: message.due_at,
                deadline: message.deadline,
                number: row.attempt,
                is_test: is_confirmation(&message.message),
                leased_until: row.leased_until.max(now),
                stop: Some(self.stop.clone()),
                epoch: Some(epoch),
            };
            let engine = self.engine.clone();
            let token = row.token;
            self.attempts.spawn(async move {
                let (consequence, _) = attempt(&engine, job).await;
                (token, place, consequence)
            });
        }
        if unreadable > 0 {
            observe::event!(
                ERROR,
                rows = unreadable,
                "subscriptions that the store cannot read: their messages are deferred by 5 minutes"
            );
        }
        self.shown.show(self.attempts.len());
        Ok(())
    }

    /// The longest pause before the next step, at most `longest`. Attempts in flight may wait for a permit or the client, and have
    /// to know of the pauses of other replicas when they begin.
    pub(super) fn longest_pause(&self, longest: Duration, now: Timestamp) -> Duration {
        let read = self.pauses_read.filter(|_| !self.attempts.is_empty());
        read.map_or(longest, |read| {
            let left = Engine::PAUSES_KEPT.saturating_sub(now.since(read));
            longest.min(left.max(STORE_PAUSE))
        })
    }

    /// Waits until attempts end; `None` if none is in flight.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: an attempt that ended is returned by the next call.
    pub(super) async fn attempt_ended(&mut self) -> Option<()> {
        let ended = self.attempts.join_next().await?;
        self.note_all(ended);
        Some(())
    }

    /// Waits until attempts, a chore or an expansion end; `None` if none is in flight.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a task that ended is returned by the next call.
    pub(super) async fn ended(&mut self) -> Option<Ended> {
        tokio::select! {
            // In an order, so that a simulation can be repeated: those that end most often come last.
            biased;
            Some(chore) = self.chores.ended() => Some(Ended::Chore(chore)),
            Some(expanded) = self.expanding.ended() => {
                let expanded = self.note_step(Step::Expand, expanded);
                Some(Ended::Expansion(expanded.unwrap_or_default()))
            }
            Some(ended) = self.attempts.join_next() => {
                self.note_all(ended);
                Some(Ended::Attempts)
            }
            else => None,
        }
    }

    fn note_all(&mut self, ended: Result<Attempted, JoinError>) {
        self.note(ended);
        while let Some(ended) = self.attempts.try_join_next() {
            self.note(ended);
        }
        self.shown.show(self.attempts.len());
    }

    fn note(&mut self, ended: Result<Attempted, JoinError>) {
        self.ended_lately += 1;
        match ended {
            Ok((token, place, consequence)) => self.settling.note(token, &place, consequence),
            // The application's client or store panicked. The row is claimed again when its lease ends, until its
            // attempts are used up.
            Err(error) => {
                observe::event!(ERROR, error = %error, "an attempt panicked");
                let _ = error;
            }
        }
    }

    /// Writes outcomes: see [`Settling::settle`].
    pub(super) async fn settle(&mut self) -> Result<(), StoreError> {
        self.settling.settle().await
    }

    /// Writes outcomes for the last time: see [`Settling::finish`].
    pub(super) async fn finish(&mut self) -> Result<(), StoreError> {
        self.settling.finish().await
    }
}

/// Whether an interval has passed since `last`. A clock that was set back does not extend it.
fn is_due(last: Option<Timestamp>, every: Duration, now: Timestamp) -> bool {
    last.is_none_or(|last| now.since(last) >= every || last > now)
}

#[cfg(test)]
#[cfg(feature = "testing")]
#[path = "worker_tests.rs"]
mod tests;
