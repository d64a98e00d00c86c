//! The steps of the worker: expand, claim, deliver, settle. Housekeeping runs beside them, see `chores.rs`.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, timeout};

use super::chores::{Chore, Chores};
use super::confirmation::is_confirmation;
use super::effects::{Effects, sums};
use super::expanding::Expanding;
use super::health::Step;
use super::job::{Job, attempt};
use super::outbox::look;
use super::pacer::STORE_PAUSE;
use super::records::Record;
use super::take::{Taken, take};
use super::{Consequence, Engine};
use crate::broadcast::FinalOutcome;
use crate::clock::Timestamp;
use crate::deliver::OriginGate;
use crate::observe;
use crate::store::{
    ClaimRequest, ClaimToken, Claims, Settled, Settlement, StoreError, StoreErrorKind,
};
use crate::subscription::Origin;

/// The most attempts under way, over all origins. High, so that origins that do not answer leave enough for others.
const IN_FLIGHT: usize = 4096;
/// The attempts under way at which hosts that the endpoint policy does not name get no more, in eighths of the places: those
/// that do not answer, and all of them. Strangers can add any number of such hosts, which hang, or answer once and then hang.
const STRANGERS: (usize, usize) = (4, 5);
/// Do not claim with fewer free places than this: a transaction costs more than waiting for more to come free.
const FREE_AT_LEAST: usize = 128;
/// The most rows claimed in one transaction.
const CLAIM: usize = 1024;
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
    /// Whether another step may have work at once, even if nothing happens meanwhile.
    pub(super) is_full: bool,
    /// Whether another step may have work at once.
    pub(super) more: bool,
}

/// A task that ended.
#[derive(Debug)]
pub(super) enum Ended {
    Attempts,
    Chore(Chore),
    /// An expansion that a step did not wait for, and the number of its recipients.
    Expansion(usize),
}

/// The row of an attempt, its gate and its consequence.
type Attempted = (ClaimToken, Arc<OriginGate>, Consequence);

#[derive(Debug)]
pub(super) struct Worker {
    engine: Engine,
    attempts: JoinSet<Attempted>,
    shown: observe::InFlight,
    /// The gate of each attempt in flight.
    gates: HashMap<task::Id, Arc<OriginGate>>,
    effects: Effects,
    settlements: Vec<(ClaimToken, Settlement)>,
    /// How many of the first settlements may be written already: their call ended without an answer.
    unanswered: usize,
    released: Vec<ClaimToken>,
    /// Whether writing outcomes took too long. Nothing is claimed until it is done.
    is_late: bool,
    ended_lately: usize,
    stop: watch::Sender<bool>,
    pauses_read: Option<Timestamp>,
    pub(super) expanding: Expanding,
    pub(super) chores: Chores,
    /// The first error of a step since it was last taken.
    error: Option<StoreError>,
}

impl Worker {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            effects: engine.effects(),
            expanding: Expanding::new(engine.clone()),
            chores: Chores::new(engine.clone()),
            engine,
            attempts: JoinSet::new(),
            shown: observe::InFlight::default(),
            gates: HashMap::new(),
            settlements: Vec::new(),
            unanswered: 0,
            released: Vec::new(),
            is_late: false,
            ended_lately: 0,
            stop: watch::Sender::new(false),
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
        self.settlements.len() + self.released.len() + self.effects.pauses()
    }

    /// Starts no more requests: attempts that wait for a permit end without one.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
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
        if progress.claimed == 0 && progress.expanded > 0 {
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
        self.effects.set_key(self.engine.key_ring.active().id());
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
            let mut settling = pin!(self.settle());
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
            Err(elapsed) => {
                self.is_late = true;
                let error = StoreError::new(StoreErrorKind::Unavailable, elapsed);
                let health = &self.engine.signals.health;
                health.note(Step::Settle, Err(&error), self.engine.now());
                (taken, Err(error))
            }
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
        if self.note_step(Step::Claim, taken).is_none() {
            claimed = 0;
        }
        Progress {
            expanded,
            claimed,
            is_full,
            more: is_full || claimed > 0,
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

    /// What to claim for the free places, and the epoch of the claim.
    fn request(&self, now: Timestamp, is_calm: bool) -> Option<(ClaimRequest, u64)> {
        // Rows whose outcome cannot be written are sent again.
        if self.unsettled() >= UNSETTLED || self.is_late {
            return None;
        }
        let most = IN_FLIGHT.max(self.engine.gates.most().saturating_mul(2));
        let free = most.saturating_sub(self.attempts.len());
        if free < FREE_AT_LEAST {
            return None;
        }
        // Its rows may be those of another process: see L19.
        let epoch = self.engine.ledger.epoch()?;
        let mut request = ClaimRequest::new(free.min(CLAIM), self.engine.lease);
        request.rooms = self.rooms(now, is_calm);
        request.per_origin = self.engine.gates.room_for_unknown();
        self.keep_places(&mut request, most, now);
        Some((request, epoch))
    }

    /// Leaves the hosts of strangers out while they have their part of the places.
    fn keep_places(&self, request: &mut ClaimRequest, most: usize, now: Timestamp) {
        let (silent, all) = (most / 8 * STRANGERS.0, most / 8 * STRANGERS.1);
        if self.attempts.len() + request.limit <= silent {
            return;
        }
        let policy = &self.engine.endpoint_policy;
        let untrusted = self.engine.gates.untrusted(now);
        let (mut of_silent, mut of_all) = (0, 0);
        for (origin, under_way) in self.under_way() {
            if !policy.names_origin(origin) {
                of_all += under_way;
                of_silent += usize::from(untrusted.contains(origin)) * under_way;
            }
        }
        let is_full = of_all >= all;
        if !is_full && of_silent < silent {
            // All of this claim may be theirs: with more they would have places that are others'.
            request.limit = request.limit.min(silent - of_silent).min(all - of_all);
            return;
        }
        let unknown = std::mem::replace(&mut request.per_origin, 0);
        for (origin, room) in &mut request.rooms {
            if (is_full || untrusted.contains(origin)) && !policy.names_origin(origin) {
                *room = 0;
            }
        }
        // Those of a process that has just started.
        for origin in policy.named_origins() {
            request.rooms.entry(origin).or_insert(unknown);
        }
    }

    /// The number of attempts under way at each origin.
    fn under_way(&self) -> HashMap<&Origin, usize> {
        let mut under_way = HashMap::new();
        for gate in self.gates.values() {
            *under_way.entry(gate.origin()).or_default() += 1;
        }
        under_way
    }

    /// The number of attempts that each known origin has free places for.
    fn rooms(&self, now: Timestamp, is_calm: bool) -> HashMap<Origin, usize> {
        let mut rooms = self.engine.gates.rooms(now);
        let under_way = self.under_way();
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
                self.released.extend(rows.iter().map(|row| row.token));
                return Err(error);
            }
        };
        if rows.is_empty() {
            return Ok(());
        }
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
            let only_for = message.only_for.as_ref();
            if only_for.is_some_and(|user| record.principal.as_ref() != Some(user)) {
                // Another user has signed in since the row was written.
                let gone = Settlement::Finished(FinalOutcome::Gone);
                self.settlements.push((row.token, gone));
                continue;
            }
            let gate = self.engine.gates.gate(&row.origin);
            let job = Job {
                record,
                gate: Arc::clone(&gate),
                broadcast: Some(row.token.broadcast),
                trace_parent: message.trace_parent,
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
        self.shown.show(self.attempts.len());
        Ok(())
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
            Some(ended) = self.attempts.join_next_with_id() => {
                self.note_all(ended);
                Some(Ended::Attempts)
            }
            else => None,
        }
    }

    fn note_all(&mut self, ended: Result<(task::Id, Attempted), JoinError>) {
        self.note(ended);
        while let Some(ended) = self.attempts.try_join_next_with_id() {
            self.note(ended);
        }
        self.shown.show(self.attempts.len());
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
        let settlement = consequence.settled();
        self.effects.note(&gate, consequence, self.engine.now());
        self.settlements.push((token, settlement));
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
        if !self.released.is_empty() {
            self.engine.ledger.release(&self.released, now).await?;
            self.released.clear();
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

    /// Counts the rows that were finished, by outcome, and those that another process has claimed. One of the first
    /// `unanswered` rows whose token is lost was most likely written by the call whose answer was lost.
    fn count_settled(
        &self,
        rows: &[(ClaimToken, Settlement)],
        results: &[Settled],
        unanswered: usize,
    ) {
        let (mut outcomes, mut broadcasts) = (HashMap::new(), HashMap::new());
        let mut lost = 0;
        for (place, ((token, settlement), result)) in rows.iter().zip(results).enumerate() {
            let result = match result {
                Settled::Lost if place < unanswered => &Settled::Done,
                result => result,
            };
            match (settlement, result) {
                (Settlement::Finished(outcome) | Settlement::Failed(outcome, _), Settled::Done) => {
                    *outcomes.entry(outcome.as_str()).or_default() += 1;
                    *broadcasts.entry(token.broadcast).or_default() += 1;
                }
                (_, Settled::Done) => {}
                (_, Settled::Lost) => lost += 1,
            }
        }
        for (outcome, recipients) in outcomes {
            observe::count_finished(outcome, recipients);
        }
        observe::count_lost(lost);
        let now = Instant::now();
        for (broadcast, recipients) in broadcasts {
            self.engine.signals.endings.note(broadcast, recipients, now);
        }
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
