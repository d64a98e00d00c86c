//! The steps of the worker: expand, claim, deliver, settle. Housekeeping runs beside them, see `chores.rs`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::timeout;

use super::chores::{Chore, Chores, within_limit};
use super::confirmation::is_confirmation;
use super::effects::Effects;
use super::expand::expand;
use super::health::Step;
use super::job::{Job, attempt};
use super::pacer::STORE_PAUSE;
use super::records::{Record, records};
use super::{Consequence, Engine};
use crate::broadcast::FinalOutcome;
use crate::clock::Timestamp;
use crate::deliver::OriginGate;
use crate::observe;
use crate::store::{
    ClaimRequest, ClaimToken, Claimed, Claims, Settlement, StoreError, StoreErrorKind,
    SubscriptionRef,
};
use crate::subscription::Origin;

/// The most attempts under way, over all origins. High, so that origins that do not answer leave enough for others.
const IN_FLIGHT: usize = 4096;
/// Do not claim with fewer free places than this: a transaction costs more than waiting for more to come free.
const FREE_AT_LEAST: usize = 128;
/// The most rows claimed in one transaction.
const CLAIM: usize = 1024;
/// The most calls of one step, as long as they find nothing and leave rows whose time has come.
const CLAIMS: usize = 16;
/// Stop claiming at this many unsettled outcomes: rows whose outcome is lost are sent again.
const UNSETTLED: usize = 1024;
/// How long the steps before claiming may keep it waiting. They continue beside it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The result of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Recipients written into the ledger.
    pub(super) expanded: usize,
    /// Rows claimed.
    pub(super) claimed: usize,
    /// Whether another step may have work at once.
    pub(super) more: bool,
}

/// A task that ended.
#[derive(Debug)]
pub(super) enum Ended {
    Attempts,
    Chore(Chore),
}

/// The row of an attempt, its gate and its consequence.
type Attempted = (ClaimToken, Arc<OriginGate>, Consequence);

#[derive(Debug)]
pub(super) struct Worker {
    engine: Engine,
    attempts: JoinSet<Attempted>,
    /// The gate of each attempt in flight.
    gates: HashMap<task::Id, Arc<OriginGate>>,
    effects: Effects,
    settlements: Vec<(ClaimToken, Settlement)>,
    released: Vec<ClaimToken>,
    ended_lately: usize,
    stop: watch::Sender<bool>,
    pauses_read: Option<Timestamp>,
    /// At most one task, which usually ends within the step.
    expansion: JoinSet<Result<usize, StoreError>>,
    pub(super) chores: Chores,
    /// The first error of a step since it was last taken.
    error: Option<StoreError>,
    /// Whether the last claim left rows whose time has come.
    has_more: bool,
}

impl Worker {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            effects: engine.effects(),
            chores: Chores::new(engine.clone()),
            engine,
            attempts: JoinSet::new(),
            gates: HashMap::new(),
            settlements: Vec::new(),
            released: Vec::new(),
            ended_lately: 0,
            stop: watch::Sender::new(false),
            pauses_read: None,
            expansion: JoinSet::new(),
            error: None,
            has_more: false,
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
        self.settlements.len() + self.released.len() + self.effects.pauses()
    }

    /// Starts no more requests: attempts that wait for a permit end without one.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Expands, claims and starts attempts. Each of them fails alone: the error is in the
    /// log and in the [health](super::health::Health) of the process.
    ///
    /// If the clocks disagree, the step does nothing.
    ///
    /// # Cancel safety
    ///
    /// If dropped after claiming, rows stay leased until their lease ends, and are claimed again.
    pub(super) async fn step(&mut self) -> Progress {
        let mut progress = Progress::default();
        let is_calm = std::mem::take(&mut self.ended_lately) == 0;
        if !self.clocks_agree().await {
            return progress;
        }
        let now = self.engine.now();
        self.effects.set_key(self.engine.key_ring.active().id());
        if is_due(self.pauses_read, Engine::PAUSES_KEPT, now) {
            self.read_pauses(now).await;
        }
        progress.expanded = self.expand(now).await;
        self.has_more = false;
        let claimed = self.claim(now, is_calm).await;
        progress.claimed = self.note_step(Step::Claim, claimed).unwrap_or_default();
        progress.more = progress.expanded > 0 || progress.claimed > 0 || self.has_more;
        progress
    }

    /// Starts the chores that are due, unless the clocks disagree.
    pub(super) fn start_chores(&mut self) {
        if self.engine.clock.fault().is_none() {
            self.chores.start();
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

    async fn expand(&mut self, now: Timestamp) -> usize {
        if self.expansion.is_empty() {
            let engine = self.engine.clone();
            self.expansion
                .spawn(async move { within_limit(expand(&engine, now)).await });
        }
        match timeout(PATIENCE, self.expansion.join_next()).await {
            Ok(Some(Ok(expanded))) => self.note_step(Step::Expand, expanded).unwrap_or_default(),
            Ok(Some(Err(error))) => {
                observe::event!(ERROR, error = %error, "expanding broadcasts panicked");
                let _ = error;
                0
            }
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

    /// Claims rows for the free places, and starts their attempts.
    async fn claim(&mut self, now: Timestamp, is_calm: bool) -> Result<usize, StoreError> {
        // Rows whose outcome cannot be written are sent again.
        if self.unsettled() >= UNSETTLED {
            return Ok(0);
        }
        let most = IN_FLIGHT.max(self.engine.gates.most().saturating_mul(2));
        let free = most.saturating_sub(self.attempts.len());
        if free < FREE_AT_LEAST {
            return Ok(0);
        }
        // Its rows may be those of another process: see L19.
        let Some(epoch) = self.engine.ledger.epoch() else {
            return Ok(0);
        };
        let mut request = ClaimRequest::new(free.min(CLAIM), self.engine.lease);
        request.rooms = self.rooms(now, is_calm);
        request.per_origin = self.engine.gates.room_for_unknown();
        let mut claims = self.engine.ledger.claim(&request, now).await?;
        // Rows of a paused origin may stand in front, as after an outage.
        for _ in 1..CLAIMS {
            if !claims.rows.is_empty() || !claims.more {
                break;
            }
            claims = self.engine.ledger.claim(&request, now).await?;
        }
        let claimed = claims.rows.len();
        self.has_more = claims.more;
        if claimed > 0 {
            self.start(claims, epoch, now).await?;
        }
        Ok(claimed)
    }

    /// The number of attempts that each known origin has free places for.
    fn rooms(&self, now: Timestamp, is_calm: bool) -> HashMap<Origin, usize> {
        let mut rooms = self.engine.gates.rooms(now);
        let mut under_way: HashMap<&Origin, usize> = HashMap::new();
        for gate in self.gates.values() {
            *under_way.entry(gate.origin()).or_default() += 1;
        }
        for (origin, room) in &mut rooms {
            let Some(under_way) = under_way.get(origin) else {
                continue;
            };
            let left = room.saturating_sub(*under_way);
            // While attempts end, wait for more free places than a few: each claim is a transaction.
            *room = if !is_calm && left < *room / 8 {
                0
            } else {
                left
            };
        }
        rooms
    }

    async fn start(
        &mut self,
        claims: Claims,
        epoch: u64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Claims { rows, messages, .. } = claims;
        let keys: Vec<_> = rows
            .iter()
            .map(|row| SubscriptionRef::Key(row.token.key))
            .collect();
        let records = match records(&*self.engine.subscriptions, &keys).await {
            Ok(records) => records,
            Err(error) => {
                self.released.extend(rows.iter().map(|row| row.token));
                return Err(error);
            }
        };
        self.recall(&rows, &records).await;
        let mut unreadable = 0_usize;
        for (row, record) in rows.into_iter().zip(records) {
            let record = match record {
                Record::Found(record) => *record,
                Record::Missing => {
                    let gone = Settlement::Finished(FinalOutcome::Gone);
                    self.settlements.push((row.token, gone));
                    continue;
                }
                Record::Unreadable => {
                    unreadable += 1;
                    let later = self.engine.signals.unreadable.defer(now);
                    self.settlements
                        .push((row.token, Settlement::Deferred(later)));
                    continue;
                }
            };
            let Some(message) = messages.get(&row.token.broadcast) else {
                let later = self.engine.signals.parked.later(row.token.broadcast, now);
                self.settlements
                    .push((row.token, Settlement::Deferred(later)));
                continue;
            };
            let gate = self.engine.gates.gate(&row.origin);
            let job = Job {
                record,
                gate: Arc::clone(&gate),
                broadcast: Some(row.token.broadcast),
                message: message.message.clone(),
                due_at: message.due_at,
                deadline: message.deadline,
                number: row.attempt,
                is_test: is_confirmation(&message.message),
                leased_until: row.leased_until.max(now),
                stop: Some(self.stop.subscribe()),
                epoch: Some(epoch),
            };
            let engine = self.engine.clone();
            let (token, held) = (row.token, Arc::clone(&gate));
            let handle = self.attempts.spawn(async move {
                let (consequence, _) = attempt(&engine, job).await;
                (token, held, consequence)
            });
            self.gates.insert(handle.id(), gate);
        }
        if unreadable > 0 {
            observe::event!(
                ERROR,
                rows = unreadable,
                "subscriptions that the store cannot read: their messages are deferred by 5 minutes"
            );
        }
        observe::show_in_flight(self.attempts.len());
        Ok(())
    }

    /// Learns which of the rows' origins have accepted a push from this server before: the first responses of a new process
    /// may be those of strangers.
    async fn recall(&self, rows: &[Claimed], records: &[Record]) {
        let mut unknown = HashMap::new();
        for (row, record) in rows.iter().zip(records) {
            let gate = self.engine.gates.gate(&row.origin);
            if gate.is_recalled() {
                continue;
            }
            match record {
                Record::Found(record) if record.last_success_at.is_some() => gate.recall(true),
                _ => drop(unknown.insert(row.origin.clone(), gate)),
            }
        }
        self.engine.recall(unknown.into_values()).await;
    }

    /// Waits until attempts end; `None` if none is in flight.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: an attempt that ended is returned by the next call.
    pub(super) async fn attempt_ended(&mut self) -> Option<()> {
        let ended = self.attempts.join_next_with_id().await?;
        self.note_all(ended);
        Some(())
    }

    /// Waits until attempts or a chore end; `None` if neither is in flight.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a task that ended is returned by the next call.
    pub(super) async fn ended(&mut self) -> Option<Ended> {
        tokio::select! {
            Some(ended) = self.attempts.join_next_with_id() => {
                self.note_all(ended);
                Some(Ended::Attempts)
            }
            Some(chore) = self.chores.ended() => Some(Ended::Chore(chore)),
            else => None,
        }
    }

    fn note_all(&mut self, ended: Result<(task::Id, Attempted), JoinError>) {
        self.note(ended);
        while let Some(ended) = self.attempts.try_join_next_with_id() {
            self.note(ended);
        }
        observe::show_in_flight(self.attempts.len());
    }

    fn note(&mut self, ended: Result<(task::Id, Attempted), JoinError>) {
        self.ended_lately += 1;
        let (id, (token, gate, consequence)) = match ended {
            Ok(ended) => ended,
            // The application's client or store panicked. The row is claimed again when its lease ends, until its
            // attempts are used up.
            Err(error) => {
                observe::event!(ERROR, error = %error, "an attempt panicked");
                self.gates.remove(&error.id());
                return;
            }
        };
        self.gates.remove(&id);
        let settlement = consequence.settlement;
        self.effects.note(&gate, consequence, self.engine.now());
        if let Settlement::Finished(outcome) = settlement {
            observe::count_finished(outcome.as_str());
        }
        self.settlements.push((token, settlement));
    }

    /// Writes pauses and effects on subscriptions, then the outcomes of rows.
    ///
    /// # Cancel safety
    ///
    /// The next call writes what was not written. Writing an outcome twice changes nothing.
    pub(super) async fn settle(&mut self) -> Result<(), StoreError> {
        let settled = self.write_outcomes().await;
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
        self.effects.write(now).await?;
        let mut size = self.settlements.len();
        while let Some(part) = self.settlements.get(..size.min(self.settlements.len()))
            && !part.is_empty()
        {
            let settled = part.len();
            match self.engine.ledger.settle(part, now).await {
                Ok(_) => drop(self.settlements.drain(..settled)),
                // One row that the store cannot read does not keep the others from being settled.
                Err(error) if error.kind() == StoreErrorKind::Corrupt && settled > 1 => {
                    size = settled / 2;
                    continue;
                }
                Err(error) if error.kind() == StoreErrorKind::Corrupt => {
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
        if !self.released.is_empty() {
            self.engine.ledger.release(&self.released, now).await?;
            self.released.clear();
        }
        Ok(())
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

/// Whether an interval has passed since `last`. A clock that was set back does not extend it.
fn is_due(last: Option<Timestamp>, every: Duration, now: Timestamp) -> bool {
    last.is_none_or(|last| now.since(last) >= every || last > now)
}

#[cfg(test)]
#[cfg(feature = "testing")]
#[path = "worker_tests.rs"]
mod tests;
